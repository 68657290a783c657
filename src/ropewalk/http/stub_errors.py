"""The errors an operation may raise, by problem type: built-in ones by name, the service's own as classes to define."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..codec.problem import BY_STATUS
from ..codec.problem import CONTENT_TYPE as PROBLEM
from ..errors import RopewalkError
from .stub_layout import INDENT, Bracketed, Expression, camel, docstring, laid, quoted, unused
from .stub_members import Schema
from .stub_types import Types, last_of

BUILT_IN: Mapping[str, Any] = {  # by problem type
    cls.type: cls
    for cls in cast(Mapping[str, Any], RopewalkError.registry).values()
    if cls.__module__ == RopewalkError.__module__ and not cls.__name__.startswith("_")
}
_BY_STATUS = {str(status): cls for status, cls in BY_STATUS.items()}
EXPORTED = (  # by `ropewalk` itself
    *("BadRequest", "Conflict", "DeadlineExceeded", "Forbidden", "Gone", "InFlight"),
    *("KeyReused", "NotFound", "RopewalkError", "TooManyRequests", "Unauthorized", "Unavailable", "Unprocessable"),
)


class Errors:
    """Finds the classes, and remembers which are needed."""

    def __init__(self, types: Types, reserved: Sequence[str]) -> None:
        """`reserved`: names the stub uses for other things."""
        self.used: set[str] = set()  # the built-in ones that must be imported
        self._types = types
        self._reserved = {*reserved, *EXPORTED, *(cls.__name__ for cls in BUILT_IN.values())}
        self._names: dict[str, str] = {}  # problem type -> class
        self._sources: dict[str, str] = {}  # by class

    def define(self) -> list[str]:
        """The source of every class that is needed, sorted by name."""
        return [self._sources[name] for name in sorted(self._sources)]

    def of(self, operation: Schema) -> Iterator[str]:
        """The names of the classes a caller of `operation` should expect."""
        if "x-ropewalk-operation" in operation:
            for type in operation.get("x-ropewalk-raises", ()):
                yield self._named(type, operation)
            return
        for status, response in sorted((operation.get("responses") or {}).items(), key=lambda item: str(item[0])):
            types = [type for type, _ in self._problems(response)]
            for type in types:
                yield self._named(type, operation)
            cls = _BY_STATUS.get(str(status))
            if not types and cls is not None and cls.fault == "caller":
                self.used.add(cls.__name__)
                yield cls.__name__

    def _named(self, type: str, operation: Schema) -> str:
        if type in BUILT_IN:
            name: str = BUILT_IN[type].__name__
            self.used.add(name)
            return name
        if type not in self._names:
            self._names[type] = self._define(type, operation)
        return self._names[type]

    def _define(self, type: str, operation: Schema) -> str:
        status, wanted, schema = "", re.split(r"[:/#]", type.rstrip("/"))[-1], cast(Schema, {})
        for code, response in (operation.get("responses") or {}).items():
            pointer = dict(self._problems(response)).get(type)
            if pointer is not None:
                status = str(code)
                if pointer:
                    wanted, schema = last_of(pointer), self._types.resolve({"$ref": pointer})
        name = unused(camel(wanted), {*self._reserved, *self._sources, *self._types.names}, ("{}Problem",))
        base = _BY_STATUS.get(status, RopewalkError).__name__
        self.used.add(base)
        bases: list[Expression] = [base]
        if type != f"urn:ropewalk:problem:{_kebab(name)}":
            bases.append(f"type={quoted(type)}")
        title = schema.get("title")
        if title and title not in (name, _kebab(name).replace("-", " ").capitalize()):
            bases.append(f"title={quoted(str(title))}")
        text = str(schema.get("description") or f"{title or name}.")
        lines = [laid("class ", Bracketed(f"{name}(", tuple(bases)), ":", "")]
        lines += docstring(f"Raised when {text[:1].lower()}{text[1:]}", INDENT)
        if base == "RopewalkError" and status.isdecimal():
            lines += ["", f"{INDENT}status = {status}"]
        self._sources[name] = "\n".join(lines)
        return name

    def _problems(self, response: Any) -> Iterator[tuple[str, str]]:
        """(problem type, where its schema stands) of what a response tells by a constant `type`."""
        content = self._types.resolve(response).get("content") or {}
        yield from self._constant((content.get(PROBLEM) or {}).get("schema"))

    def _constant(self, schema: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(schema, Mapping):
            return
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self._constant(part)
        said = (self._types.resolve(schema).get("properties") or {}).get("type")
        if isinstance(said, Mapping):
            for value in [said["const"]] if "const" in said else said.get("enum", ()):
                if isinstance(value, str) and value:
                    yield value, str(schema.get("$ref", ""))


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
