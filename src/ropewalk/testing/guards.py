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
from functools import partial
from random import Random
from types import BuiltinMethodType, FrameType, MethodType
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
        self.wall = wall
        self.monotonic = monotonic
        self.chance = chance
        self.cooperator = cooperator
        self._product = product
        self._thread = threading.get_ident()

    @contextmanager
    def up(self) -> Iterator[None]:
        """Close the ways out for as long as this lasts; may be nested, also with another World's."""
        global _up
        before, _up = _up, self
        if before is not None:
            try:
                yield
            finally:
                _up = before
            return
        put_back = _close_ways()
        try:
            yield
        finally:
            put_back()
            _up = None

    def check(self, what: str, kind: str, frame: FrameType) -> bool:
        """Whether a substitute is due; raises NotSimulated when the caller is the product itself."""
        if threading.get_ident() != self._thread:
            return False
        while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
            frame = frame.f_back
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in self._product and not module.startswith("ropewalk.testing"):
            raise NotSimulated(
                f"{what} was asked for in a simulation by {module}, line {frame.f_lineno}. It would not be the same "
                f"the next time. Ask for it in __init__: {INSTEAD[kind]}."
            )
        return True


# -- the table of what is closed. What stands in the place of a function is made once for the whole process: a module
# that is first imported in a simulation may keep it, and it answers as the real one when there is none.

_up: Guards | None = None
_BETWEEN = ("os", "_collections_abc", "random", "contextlib")  # whose code stands between a caller and what is guarded

Answer = Callable[..., Any]  # (guards, real, *args, **kwargs)


def _table() -> Iterator[tuple[Any, str, str, Answer | None]]:
    """(holder, name, kind, what answers third parties: None when nobody is to have it)."""
    answers: dict[str, Answer] = {
        "time": lambda guards, real: guards.wall(),
        "time_ns": lambda guards, real: int(guards.wall() * 1e9),
        "gmtime": lambda guards, real, at=None: real(guards.wall() if at is None else at),
        "localtime": lambda guards, real, at=None: real(guards.wall() if at is None else at),
        "ctime": lambda guards, real, at=None: real(guards.wall() if at is None else at),
        "asctime": lambda guards, real, at=None: real(_gmtime(guards.wall()) if at is None else at),
        "strftime": lambda guards, real, form, at=None: real(form, _gmtime(guards.wall()) if at is None else at),
        "clock_gettime": lambda guards, real, clock: guards.monotonic(),
        "clock_gettime_ns": lambda guards, real, clock: int(guards.monotonic() * 1e9),
    }
    for name, answer in answers.items():
        yield time, name, "time", answer
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        yield time, name, "time", lambda guards, real: guards.monotonic()
        yield time, f"{name}_ns", "time", lambda guards, real: int(guards.monotonic() * 1e9)
    yield time, "sleep", "sleep", None
    for name in random.__all__:
        if isinstance(getattr(random, name), (MethodType, BuiltinMethodType)):  # of the one hidden Random
            yield random, name, "chance", partial(_by_chance, name)
    yield random.Random, "seed", "chance", _seeded
    yield random, "_urandom", "chance", lambda guards, real, size: guards.chance.randbytes(size)
    yield os, "urandom", "chance", lambda guards, real, size: guards.chance.randbytes(size)
    yield uuid, "uuid4", "chance", lambda guards, real: uuid.UUID(int=guards.chance.getrandbits(128), version=4)
    yield uuid, "uuid1", "chance", lambda guards, real, *_: uuid.UUID(int=guards.chance.getrandbits(128), version=1)
    for name in "token_bytes token_hex token_urlsafe randbelow choice randbits".split():
        yield secrets, name, "chance", _real  # which asks for `random._urandom`
    for name in ("socket", "create_connection", "getaddrinfo"):
        yield socket, name, "socket", None
    yield threading.Thread, "start", "thread", None
    yield subprocess, "Popen", "process", None
    yield os, "getenv", "environment", _real
    for name in ("__getitem__", "__contains__", "get"):
        yield type(os.environ), name, "environment", _real


_gmtime = time.gmtime
_task: Any = task
_SAYS_OF_WHAT = {"gmtime": 1, "localtime": 1, "ctime": 1, "asctime": 1, "strftime": 2, "seed": 2}  # arguments, then


def _real(guards: Guards, real: Answer, *args: Any, **kwargs: Any) -> Any:
    return real(*args, **kwargs)


def _by_chance(name: str, guards: Guards, real: Answer, *args: Any, **kwargs: Any) -> Any:
    return getattr(guards.chance, name)(*args, **kwargs)


def _seeded(guards: Guards, real: Answer, self: Random, *_: Any) -> None:
    real(self, guards.chance.getrandbits(64))


def _substitute(holder: Any, name: str, kind: str, answer: Answer | None) -> Answer:
    real, what = getattr(holder, name), f"{getattr(holder, '__name__', holder)}.{name}()"
    said = _SAYS_OF_WHAT.get(name)

    def substitute(*args: Any, **kwargs: Any) -> Any:
        guards = _up
        if guards is None or (len(args) == said and args[-1] is not None):
            return real(*args, **kwargs)
        frame = sys._getframe(1)
        if not guards.check(what, kind, frame):
            return real(*args, **kwargs)
        if answer is None:
            caller = frame.f_globals.get("__name__")
            raise NotSimulated(f"{what} was asked for in a simulation, by {caller}, and there is none.")
        return answer(guards, real, *args, **kwargs)

    return substitute


_closed: list[tuple[Any, str, Any, Any]] = []  # (holder, name, the real one, the substitute)
_seen: dict[str, Any] = {}  # modules that were looked at
_importers: list[tuple[Any, str, int]] = []  # (module, name, which of the closed)


def _close_ways() -> Callable[[], None]:
    """Put the substitutes in place everywhere; returns how to put the real ones back."""
    if not _closed:
        _closed.extend(
            (holder, name, getattr(holder, name), _substitute(holder, name, kind, answer))
            for holder, name, kind, answer in _table()
        )
    _look_for_importers()
    for holder, name, _, substitute in _closed:
        setattr(holder, name, substitute)
    for module, name, index in _importers:
        setattr(module, name, _closed[index][3])
    cooperator, zone = _task._theCooperator, os.environ.get("TZ")
    _task._theCooperator = _Cooperators()
    restore_datetime = _replace_in_c(datetime.datetime, _datetime_methods())
    _set_zone("UTC")  # of every simulated host

    def put_back() -> None:
        for holder, name, real, _ in _closed:
            setattr(holder, name, real)
        for module, name, index in _importers:
            setattr(module, name, _closed[index][2])
        _task._theCooperator = cooperator
        restore_datetime()
        _set_zone(zone)

    return put_back


def _look_for_importers() -> None:
    """Find every module that has one of them under a name of its own, by `from time import time`.

    Looked for once in each module: that takes a few dozen milliseconds for all of a process's.
    """
    new = [(key, module) for key, module in sys.modules.items() if _seen.get(key) is not module]
    if not new:
        return
    which = {id(value): index for index, (_, _, *both) in enumerate(_closed) for value in both}
    holders = {id(holder) for holder, _, _, _ in _closed}
    for key, module in new:
        _seen[key] = module
        if id(module) not in holders and not key.startswith("ropewalk.testing"):
            names = list(getattr(module, "__dict__", {}).items())
            _importers.extend((module, name, which[id(value)]) for name, value in names if id(value) in which)


def _set_zone(zone: str | None) -> None:
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    time.tzset()


class _Cooperators:
    """In the place of Twisted's one global Cooperator: that of the host whose turn it is."""

    def cooperate(self, iterator: Any) -> Any:
        return _guards().cooperator().cooperate(iterator)

    def coiterate(self, iterator: Any, doneDeferred: Any = None) -> Any:
        return _guards().cooperator().coiterate(iterator, doneDeferred)


def _guards() -> Guards:
    assert _up is not None, "asked outside of a simulation"
    return _up


def _datetime_methods() -> dict[str, Any]:
    """`now` and `utcnow` by the simulated clock; `today` asks `time.time` of itself."""
    real = {name: datetime.datetime.__dict__[name] for name in ("now", "utcnow")}

    def now(cls: Any, tz: Any = None) -> Any:
        if not _guards().check("datetime.now()", "time", sys._getframe(1)):
            return real["now"].__get__(None, cls)(tz)
        return cls.fromtimestamp(_guards().wall(), tz)

    def utcnow(cls: Any) -> Any:
        if not _guards().check("datetime.utcnow()", "time", sys._getframe(1)):
            return real["utcnow"].__get__(None, cls)()
        return cls.fromtimestamp(_guards().wall())  # the zone is UTC

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
