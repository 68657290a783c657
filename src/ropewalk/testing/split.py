"""A system for separate processes: its file, with a process for each service, and free ports for them."""

from __future__ import annotations

import json
import os
import socket
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ..runtime.config import Config
from ..runtime.settings import merged
from ..service import Service
from .configured import SECRET

PORTS = range(20_000, 30_000)  # below those that the kernel gives to connections


class NotHere(Exception):
    """Raised when a system cannot be run in one of the three ways, by its nature and not by a fault."""


def split_file(config: Config, settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The system file of `config` with each service in a process of its own and none of them public.

    `settings` are laid over those of the file.
    """
    written: Any = tomllib.loads(Path(config.target).read_text("utf-8")) if config.target else {}
    sections = merged(written, {"system": {"secret": SECRET}, "settings": settings})
    for section in ("public", "instances"):
        sections.pop(section, None)
    # In the file's order, which gives the ports.
    sections["services"] = config.file.services
    sections["processes"] = {name: [name] for name in config.services}
    return "".join(f"{json.dumps(name)} = {as_toml(each)}\n" for name, each in sections.items())


def as_toml(value: Any) -> str:
    """`value` as a system file says it; TypeError for what it cannot say.

    >>> as_toml({"a": [1, True, "b"]})
    '{ "a" = [1, true, "b"] }'
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{json.dumps(name, ensure_ascii=False)} = {as_toml(each)}" for name, each in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    raise TypeError(f"A system file says texts, numbers, booleans, dates, lists and tables; got {value!r}.")


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row on loopback; OSError when there are none."""
    start = os.getpid() * 16 % len(PORTS)  # two runs of the tests at a time seldom meet
    firsts: list[int] = [*PORTS[start::16], *PORTS[:start:16]]
    for first in firsts:
        probes: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                probe = socket.socket()
                probes.append(probe)
                # What is left of closed connections is no hindrance; whoever listens is.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                probe.listen()
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise OSError(f"No {count} free ports in a row in {PORTS}.")


def refuse_unimportable(classes: Iterable[type[Service]]) -> None:
    """Raise NotHere for a class that another process, with the same path, cannot import by its name."""
    for cls in classes:
        _refuse_unimportable(cls)


def _refuse_unimportable(cls: type[Service]) -> None:
    where = f"{cls.__module__}.{cls.__qualname__}"
    if "." in cls.__qualname__:
        raise NotHere(f"{where} was made inside of something, so that another process cannot import it")
    path: Sequence[str] | None = [each for each in sys.path if each]
    for length in range(1, cls.__module__.count(".") + 2):
        spec = PathFinder.find_spec(".".join(cls.__module__.split(".")[:length]), path)
        if spec is None:
            raise NotHere(
                f"{where} cannot be imported by its name in another process: {cls.__module__} is not on the path"
            )
        path = spec.submodule_search_locations
