"""The address of an operation, built from its route, so that no page has to know it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from werkzeug.routing import Map, MapAdapter, Rule

from ..operation import Operation
from ..service import Contract, describe


def path_for(operation: Any, /, **params: Any) -> str:
    """The path of an operation: `path_for(self.read, room_id=12, expand=True)` -> "/rooms/12?expand=true".

    `operation` is a method of a service, or an `Operation`. `params` are all its parameters in the path, and of those
    in the query as many as are wanted; None leaves one out where that is its default. Raises TypeError for others.
    """
    return _path(_operation(operation), params)


def path_of(service: Contract | type[Contract], name: str, /, **params: Any) -> str:
    """The same by name: `path_of(Rooms, "read", room_id=12)`."""
    operations = describe(service).operations
    if name not in operations:
        routed = ", ".join(each for each, operation in operations.items() if operation.route) or "none"
        raise TypeError(f"{describe(service).name} has no operation {name!r}; those with a path: {routed}.")
    return _path(operations[name], params)


def _operation(target: Any) -> Operation:
    if isinstance(target, Operation):
        return target
    owner, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
    described = getattr(type(owner), "__ropewalk_description__", None)
    found: Operation | None = described.operations.get(name) if described is not None else None
    if found is None:
        raise TypeError(
            f"Expected an operation as a method of its service, like `path_for(self.read)`; got {target!r}."
        )
    return found


def _path(operation: Operation, params: Mapping[str, Any]) -> str:
    if operation.route is None:
        raise TypeError(f"{operation.id} has no path: it is declared by @operation and called by its id.")
    sources = {p.name: p.source for p in operation.binding.parameters}
    for name in params:
        if sources.get(name) not in ("path", "query"):
            there = ", ".join(each for each, source in sources.items() if source in ("path", "query")) or "none"
            raise TypeError(f"'{name}' is not in the path or the query of {operation.id}; these are: {there}.")
    missing = ", ".join(name for name, source in sources.items() if source == "path" and name not in params)
    if missing:
        raise TypeError(f"{operation.id} lies at {operation.route}: say what {missing} should be.")
    parts = operation.binding.encode(params)
    path = _adapter(operation.route).build("", dict(parts.path))
    return f"{path}?{urlencode(list(parts.query))}" if parts.query else path


@lru_cache(maxsize=1024)  # routes are as many as a program declares; the bound is for tests that declare for ever
def _adapter(route: str) -> MapAdapter:
    return Map([Rule(route, endpoint="")]).bind("localhost")
