"""A product of its own: run a whole system in one process, on a virtual clock, in a network that fails.

`World` holds the hosts, the network between them and their databases; everything in it follows from one seed. What it
runs is the real thing: the runtime's Process, the HTTP server and client, codecs, filters, tables. Only time, chance,
sockets, threads and disks are simulated, each by the module that bears its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

_HOME = {
    "World": "world",
    "Stuck": "driving",
    "NotSimulated": "guards",
    "Schedule": "values",
    "Outcome": "values",
    "Fault": "values",
    "Act": "values",
    "Late": "values",
    "Event": "values",
    "workload": "workloads",
    "plan": "planning",
    "simulate": "simulation",
    "replay": "simulation",
    "crash_points": "points",
    "fake": "fakes",
    "example": "examples",
    "Script": "scripted",
    "FaultProxy": "proxy",
    "Toxics": "proxy",
}

__all__ = ["World", *sorted(_HOME.keys() - {"World"})]


def __getattr__(name: str) -> Any:
    # Late: the runtime imports klein, which installs a reactor.
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
