"""The event loop that asyncio sees on a reactor which has none of its own; and which loop is the running one.

A `ReactorLoop` has that reactor's time, callbacks and threads, and no sockets. asyncio's own loops are the running one
from their start on; one of these is only while something runs on it: between `enter` and `leave`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, TypeVarTuple, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_log = Logger("ropewalk.driver")

_get_running_loop = events._get_running_loop
_set_running_loop = events._set_running_loop


class _Here(threading.local):
    loops = 0  # that were made the running one in this thread, within one another
    loop: asyncio.AbstractEventLoop | None = None  # the innermost of them


here = _Here()


def enter(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop | None:
    """Make `loop` the running one; returns what `leave` is to be given."""
    if here.loop is loop:
        return loop
    outer = _get_running_loop()
    if outer is not loop:
        _set_running_loop(loop)
        here.loops += 1
        here.loop = loop
    return outer


def leave(loop: asyncio.AbstractEventLoop, outer: asyncio.AbstractEventLoop | None) -> None:
    """The one that was running before `loop` is so again."""
    if outer is not loop:
        _set_running_loop(outer)
        here.loops -= 1
        here.loop = outer if here.loops else None


class _Timer(asyncio.TimerHandle):
    __slots__ = ("delayed",)
    delayed: IDelayedCall


class ReactorLoop(asyncio.AbstractEventLoop):
    """What asyncio sees as its event loop on a reactor without one: that reactor's time, callbacks and threads."""

    needs_sockets = (
        "needs an asyncio loop with sockets, which this reactor has not: start the process under `twistd -n ropewalk`, "
        "`twistd --reactor=asyncio` or after ropewalk.engine.install()."
    )

    def __init__(self, reactor: Any, spawn: Callable[[Any, ReactorLoop, Any, str | None], Any]) -> None:
        """`spawn(coroutine, loop, context, name)` makes a task, which starts in the next turn."""
        self._reactor = reactor
        self._spawn = spawn
        self._ready: deque[asyncio.Handle] = deque()

    def time(self) -> float:
        """The reactor's clock, in seconds."""
        return cast(float, self._reactor.seconds())

    def is_running(self) -> bool:
        """Always: whoever can ask runs on it."""
        return True

    def is_closed(self) -> bool:
        """Never: it lives as long as its reactor."""
        return False

    def get_debug(self) -> bool:
        """Off: asyncio's debug mode is for its own loops."""
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call in the reactor's next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        # One timer for all of a turn, in the order they came: the reactor keeps no order among equal times.
        if not self._ready:
            self._reactor.callLater(0, self._call_ready)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call in the reactor's thread, from any thread."""
        handle = asyncio.Handle(callback, args, self, context)
        self._reactor.callFromThread(self._call, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call after `delay` seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call when the reactor's clock shows `when`."""
        timer = _Timer(when, callback, args, self, context)
        timer.delayed = self._reactor.callLater(max(0.0, when - self.time()), self._call, timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        delayed = cast(_Timer, timer).delayed
        if delayed.active():
            delayed.cancel()

    def _call_ready(self) -> None:
        batch, self._ready = self._ready, deque()
        try:
            while batch:
                self._call(batch.popleft())
        finally:
            if batch:  # the process is asked to end; whoever catches that may go on
                self._ready.extendleft(reversed(batch))
                self._reactor.callLater(0, self._call_ready)

    def _call(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        outer = enter(self)
        try:
            handle._run()
        finally:
            leave(self, outer)

    def create_future(self) -> asyncio.Future[Any]:
        """A Future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any) -> Any:
        """A task, which starts in the next turn."""
        return self._spawn(coro, self, context, name)

    def get_task_factory(self) -> None:
        """None: every task is made alike."""

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call in `executor`, by default the reactor's thread pool."""
        if executor is not None:
            return asyncio.wrap_future(executor.submit(func, *args), loop=self)
        from twisted.internet.threads import deferToThreadPool

        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), func, *args).asFuture(self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what asyncio could not hand to anybody."""
        error = context.get("exception")
        if error is not None:
            _log.failure("{message}", Failure(error, type(error), error.__traceback__), message=context.get("message"))
        else:
            _log.error("{message}", message=context.get("message"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """As `call_exception_handler`."""
        self.call_exception_handler(context)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(self: ReactorLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"loop.{name}() {ReactorLoop.needs_sockets}")

    return refuse


for _name in (
    "create_connection create_server create_unix_connection create_unix_server create_datagram_endpoint "
    "connect_accepted_socket start_tls sendfile getaddrinfo getnameinfo connect_read_pipe connect_write_pipe "
    "subprocess_shell subprocess_exec add_reader remove_reader add_writer remove_writer sock_recv sock_recv_into "
    "sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept sock_sendfile "
    "add_signal_handler remove_signal_handler run_forever run_until_complete stop close"
).split():
    setattr(ReactorLoop, _name, _refuse(_name))
