"""What may not be asked for inside a simulation, and what is answered in its place.

While a World drives its hosts, the ways to real time, chance, sockets, threads and the environment are closed. Product
code that takes one of them (the services' own packages, and Ropewalk) gets an error that says what to ask for instead.
Everybody else (logging, cookie jars, tempfile, uuid, treq) gets a substitute: the host's own time, the world's chance.

What is asked for in C, or was kept in a closure or a default before, cannot be closed off: `docs/simulation.rst`.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from twisted.internet import task

INSTEAD = {
    "time": "IReactorTime for durations or ropewalk.interfaces.IWallClock for dates",
    "chance": "random.Random",
    "sleep": "IReactorTime, and `await deferLater(clock, seconds)`",
    "socket": "IReactorTCP or treq.client.HTTPClient",
    "thread": "Workers",
    "process": "Workers",
    "environment": "a Settings subclass",
}


class NotSimulated(RuntimeError):
    """Raised when code of the product asks for something real inside a simulation."""


class Guards:
    """The guards of one World: `with guards.up(): ...`."""

    def __init__(
        self,
        product: frozenset[str],
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        chance: Random,
        cooperator: Callable[[], task.Cooperator],
    ) -> None:
        """`product`: top-level packages that are refused; the rest answers for whoever is not."""
        self._product = product
        self.wall = wall
        self._monotonic = monotonic
        self._chance = chance
        self._cooperator = cooperator
        self._thread = threading.get_ident()
        self._up = False
        self._table = list(self._substitutes())
        self._datetime = _datetime_methods(self)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Close the ways out for as long as this lasts; may be nested."""
        if self._up:
            yield
            return
        self._up = True
        table = [*self._table, *self._imported_by_name()]
        before = [(holder, name, getattr(holder, name)) for holder, name, _ in table]
        for holder, name, substitute in table:
            setattr(holder, name, substitute)
        restore = _replace_in_c(datetime.datetime, self._datetime)
        try:
            yield
        finally:
            restore()
            for holder, name, value in before:
                setattr(holder, name, value)
            self._up = False

    def check(self, what: str, kind: str, depth: int = 2) -> bool:
        """Whether a substitute is due; raises NotSimulated when the caller is the product itself."""
        if threading.get_ident() != self._thread:
            return False
        frame = sys._getframe(depth)
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in self._product and not module.startswith("ropewalk.testing"):
            raise NotSimulated(
                f"{what} was asked for in a simulation by {module}, line {frame.f_lineno}. It would not be the same "
                f"the next time. Ask for it in __init__: {INSTEAD[kind]}."
            )
        return True

    def _imported_by_name(self) -> Iterator[tuple[Any, str, Any]]:
        """The same for whoever said `from time import time` before."""
        substitutes = [substitute for _, _, substitute in self._table]
        for module, name, index in _importers([(holder, name) for holder, name, _ in self._table]):
            yield module, name, substitutes[index]

    def _substitutes(self) -> Iterator[tuple[Any, str, Any]]:
        """(holder, name, what stands there meanwhile)."""
        asctime, strftime = time.asctime, time.strftime
        wall, monotonic, chance = self.wall, self._monotonic, self._chance
        yield from self._answered(time, "time", "time", wall)
        yield from self._answered(time, "time_ns", "time", lambda: int(wall() * 1e9))
        yield from self._answered(time, "monotonic", "time", monotonic)
        yield from self._answered(time, "monotonic_ns", "time", lambda: int(monotonic() * 1e9))
        yield from self._answered(time, "perf_counter", "time", monotonic)
        yield from self._answered(time, "perf_counter_ns", "time", lambda: int(monotonic() * 1e9))
        gmtime = time.gmtime  # the zone of every simulated host is UTC
        for name in ("gmtime", "localtime"):
            yield from self._answered(time, name, "time", lambda at=None: gmtime(wall() if at is None else at), given=1)
        for name in ("ctime", "asctime"):
            yield from self._answered(time, name, "time", lambda _=None: asctime(gmtime(wall())), given=1)
        yield from self._answered(time, "strftime", "time", lambda form: strftime(form, gmtime(wall())), given=2)
        yield from self._refused(time, "sleep", "sleep")
        for (
            name
        ) in "random uniform randint randrange choice choices shuffle sample getrandbits randbytes gauss".split():
            yield from self._answered(random, name, "chance", getattr(chance, name))
        yield from self._answered(random, "_urandom", "chance", chance.randbytes)
        yield from self._answered(os, "urandom", "chance", chance.randbytes)
        yield from self._answered(uuid, "uuid4", "chance", lambda: uuid.UUID(int=chance.getrandbits(128), version=4))
        yield from self._answered(uuid, "uuid1", "chance", lambda *_: uuid.UUID(int=chance.getrandbits(128), version=1))
        for name in "token_bytes token_hex token_urlsafe randbelow choice randbits".split():
            yield from self._refused_to_product(secrets, name, "chance")
        yield from self._refused(socket, "socket", "socket")
        yield from self._refused(socket, "create_connection", "socket")
        yield from self._refused(socket, "getaddrinfo", "socket")
        yield from self._refused(threading.Thread, "start", "thread")
        yield from self._refused(subprocess, "Popen", "process")
        yield from self._refused_to_product(os, "getenv", "environment")
        yield from self._refused_to_product(type(os.environ), "__getitem__", "environment")
        yield task, "_theCooperator", _Cooperators(self._cooperator)

    def _answered(
        self, holder: Any, name: str, kind: str, answer: Callable[..., Any], given: int | None = None
    ) -> Iterator[tuple[Any, str, Any]]:
        """`given`: with so many arguments it says what it is of, and is nothing to guard."""
        real, what = getattr(holder, name), f"{holder.__name__}.{name}()"

        def substitute(*args: Any, **kwargs: Any) -> Any:
            if len(args) == given or not self.check(what, kind):
                return real(*args, **kwargs)
            return answer(*args, **kwargs)

        yield holder, name, substitute

    def _refused_to_product(self, holder: Any, name: str, kind: str) -> Iterator[tuple[Any, str, Any]]:
        real, what = getattr(holder, name), f"{holder.__name__}.{name}()"

        def substitute(*args: Any, **kwargs: Any) -> Any:
            self.check(what, kind)
            return real(*args, **kwargs)

        yield holder, name, substitute

    def _refused(self, holder: Any, name: str, kind: str) -> Iterator[tuple[Any, str, Any]]:
        real, what = getattr(holder, name), f"{holder.__name__}.{name}()"

        def substitute(*args: Any, **kwargs: Any) -> Any:
            if self.check(what, kind):
                caller = sys._getframe(1).f_globals.get("__name__")
                raise NotSimulated(f"{what} was asked for in a simulation, by {caller}, and there is none.")
            return real(*args, **kwargs)

        yield holder, name, substitute


_looked_at: set[str] = set()
_found: list[tuple[Any, str, int]] = []


def _importers(guarded: list[tuple[Any, str]]) -> list[tuple[Any, str, int]]:
    """(module, name, which of `guarded` it is) for every module that has one of them under a name of its own.

    Looked for once in each module: that takes a few dozen milliseconds for all of a process's.
    """
    if len(_looked_at) < len(sys.modules):
        which = {id(getattr(holder, name)): index for index, (holder, name) in enumerate(guarded)}
        holders = {id(holder) for holder, _ in guarded}
        for key, module in list(sys.modules.items()):
            if key in _looked_at:
                continue
            _looked_at.add(key)
            if id(module) in holders or key.startswith("ropewalk.testing"):
                continue
            names = list(getattr(module, "__dict__", {}).items())
            _found.extend((module, name, which[id(value)]) for name, value in names if id(value) in which)
    return _found


class _Cooperators:
    """In the place of Twisted's one global Cooperator: that of the host whose turn it is."""

    def __init__(self, current: Callable[[], task.Cooperator]) -> None:
        self._current = current

    def cooperate(self, iterator: Any) -> Any:
        return self._current().cooperate(iterator)

    def coiterate(self, iterator: Any, doneDeferred: Any = None) -> Any:
        return self._current().coiterate(iterator, doneDeferred)


def _datetime_methods(guards: Guards) -> dict[str, Any]:
    """`now` and `utcnow` by the simulated clock; `today` asks `time.time` of itself."""
    real = {name: datetime.datetime.__dict__[name] for name in ("now", "utcnow")}

    def now(cls: Any, tz: Any = None) -> Any:
        if not guards.check("datetime.now()", "time"):
            return real["now"].__get__(None, cls)(tz)
        at = cls.fromtimestamp(guards.wall(), tz or datetime.UTC)
        return at if tz is not None else at.replace(tzinfo=None)

    def utcnow(cls: Any) -> Any:
        if not guards.check("datetime.utcnow()", "time"):
            return real["utcnow"].__get__(None, cls)()
        return cls.fromtimestamp(guards.wall(), datetime.UTC).replace(tzinfo=None)

    return {"now": classmethod(now), "utcnow": classmethod(utcnow)}


def _replace_in_c(cls: type, methods: dict[str, Any]) -> Callable[[], None]:
    """Replace methods of a class that is made in C and takes no assignment; returns how to put them back.

    Its dictionary is found through the collector; the type is told, so that no cache keeps the old ones.
    """
    (namespace,) = gc.get_referents(cls.__dict__)
    before = {name: namespace[name] for name in methods}

    def put(each: dict[str, Any]) -> None:
        namespace.update(each)
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))

    put(methods)
    return lambda: put(before)
