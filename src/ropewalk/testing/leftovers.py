"""What a test leaves behind, each thing by name: failures in the log, timers and sockets of the installed reactor.

No reactor is imported here: what was not imported before has no leftovers.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from zope.interface import implementer

GRACE = 0.5  # seconds in which connections that were told to close, and what waits for the next turn, may go


@implementer(ILogObserver)
class LoggedFailures:
    """A log observer that keeps every failure until someone takes it."""

    def __init__(self) -> None:
        self._kept: list[tuple[Failure, str]] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure") or (event.get("isError") and event.get("failure"))  # new style, log.err's
        if isinstance(failure, Failure):
            self._kept.append((failure, event.get("log_namespace", "the log")))

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        """The failures logged so far, oldest first, and forget them; only those of `types` when some are given."""
        gc.collect()  # a Deferred logs its unhandled failure when it is collected
        taken = [failure for failure, _ in self._kept if not types or failure.check(*types)]
        self._kept = [(failure, by) for failure, by in self._kept if failure not in taken]
        return taken

    def remaining(self) -> list[str]:
        """One paragraph for each failure nobody took."""
        gc.collect(1)  # what this test made is young; a whole collection after each test would cost more than the test
        return [_named(failure, by) for failure, by in self._kept]


def _named(failure: Failure, by: str) -> str:
    where = "unhandled in a Deferred" if by == "twisted.internet.defer" else f"logged by {by}"
    title = f"{type(failure.value).__name__}: {failure.getErrorMessage()} ({where})"
    return f"{title}\n{failure.getTraceback(elideFrameworkCode=True)}"


class ReactorLeftovers:
    """The timers and sockets that came to the installed reactor since this was made, by their owners.

    What existed before may go on: a server that was listening may have new connections, and a timer that arms itself
    again is another one each time. So things are compared by owner: the factory of a protocol, the object of a method,
    the name of a function. They are named and left alone: whoever owns them would stumble over their absence.
    """

    def __init__(self) -> None:
        reactor = _installed()
        timers = reactor.getDelayedCalls() if reactor is not None else []
        self._timers = [_owner(timer) for timer in timers]  # objects, not their ids: kept, so that no id is used twice
        self._sockets = _sockets(reactor) if reactor is not None else []
        self._ports = {port for port in map(_port, self._sockets) if port is not None}

    def remaining(self) -> list[str]:
        """A line for each, sorted."""
        reactor = _installed()
        if reactor is None:
            return []
        timers = [each for each in reactor.getDelayedCalls() if not self._is_known_timer(each)]
        sockets = [each for each in _sockets(reactor) if not self._is_known(each)]
        named = [f"a timer of {name_of(each.func, each.args)}" for each in timers]
        return sorted([*named, *(f"a socket: {_socket_name(each)}" for each in sockets)])

    def _is_known_timer(self, timer: Any) -> bool:
        if _among(_owner(timer), self._timers):
            return True
        # A timeout of a connection to a server that was there before: of its own protocol, of a pool that keeps it, of
        # several that share a timer.
        things = [getattr(_function(timer), "__self__", None), *timer.args]
        things += getattr(things[0], "timed", ())
        transports = [getattr(thing, "transport", None) for thing in things]
        return any(self._is_known(getattr(each, "twisted", each)) for each in transports if each is not None)

    def _is_known(self, socket: Any) -> bool:
        told = getattr(socket, "get_extra_info", None)  # of asyncio's transports
        if told is not None:
            ends = [told(each) for each in ("sockname", "peername")]
            return any(isinstance(end, tuple) and end[1] in self._ports for end in ends)
        listener = getattr(socket, "server", None)  # of a connection that was accepted
        if any(socket is each or listener is each for each in self._sockets):
            return True
        return _is_connection(socket) and getattr(socket.getPeer(), "port", None) in self._ports  # its other end, here


def _installed() -> Any:
    return sys.modules.get("twisted.internet.reactor")


# -- timers

Owner = tuple[Any, str]  # an object or None, and a name


def _among(owner: Owner, owners: list[Owner]) -> bool:
    thing, name = owner
    return any(thing is other and name == known for other, known in owners)


def _owner(timer: Any) -> Owner:
    function = _function(timer)
    thing = getattr(function, "__self__", None)
    if isinstance(thing, (Deferred, asyncio.Future)):
        thing = None  # one for each time: whoever waits in a loop has another one in each turn
    return getattr(thing, "factory", None) or thing, _name(function)


def _function(timer: Any) -> Any:
    return _wanted(timer.func, timer.args)


def name_of(function: Any, args: Sequence[Any]) -> str:
    """What somebody wanted to be called, who had a timer call `function(*args)`: "twisted.web.http.HTTPChannel.x"."""
    return _name(_wanted(function, args))


def _wanted(function: Any, args: Sequence[Any]) -> Any:
    """Without what carries its context, its arguments or asyncio's loop."""
    while True:
        if args and isinstance(args[0], asyncio.Handle):
            handle: Any = args[0]
            function, args = handle._callback, ()
        elif isinstance(function, partial):
            function = function.func
        elif getattr(function, "__qualname__", "") == "bound.<locals>.run":
            function = inspect.getclosurevars(function).nonlocals["callback"]
        else:
            return function


def _name(function: Callable[..., object]) -> str:
    if not hasattr(function, "__qualname__"):
        repeated = getattr(function, "f", None)  # a LoopingCall's
        of = f" of {_name(repeated)}" if callable(repeated) else ""
        return f"{_name(type(function))}{of}"
    thing = getattr(function, "__self__", None)
    module = function.__module__ or type(thing).__module__
    return f"{module}.{function.__qualname__}"


# -- sockets


def _sockets(reactor: Any) -> list[Any]:
    own = getattr(reactor, "_internalReaders", ())  # by which threads and signals wake it
    found: list[Any] = []
    native = sys.modules.get("ropewalk.engine.native")
    accepted = [each for each in native.listening if each.reactor is reactor] if native is not None else []
    for each in (*reactor.getReaders(), *reactor.getWriters(), *accepted):
        if each not in own and not any(each is other for other in found):
            found.append(each)
    return found


def _port(socket: Any) -> int | None:
    """The port of a listener."""
    if not _is_listener(socket):
        return None
    number: int | None = getattr(socket.getHost(), "port", None)
    return number


def _socket_name(socket: Any) -> str:
    if _is_connection(socket):
        protocol = getattr(socket.protocol, "_wrappedProtocol", socket.protocol)  # an endpoint puts its own around it
        return f"{_name(type(protocol))}, connected to {socket.getPeer()}"
    if _is_listener(socket):
        return f"{_name(type(socket.factory))} listens at {socket.getHost()}"
    return repr(socket)


def _is_connection(socket: Any) -> bool:
    return hasattr(socket, "loseConnection") and hasattr(socket, "protocol") and not _is_listener(socket)


def _is_listener(socket: Any) -> bool:
    return hasattr(socket, "stopListening") and hasattr(socket, "factory")
