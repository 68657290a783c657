"""Ends a call at its deadline; a server gives one to whoever came without, a client adds that of the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import coroutine
from typing import Any

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from ..driver import Run, current_run
from ..errors import DeadlineExceeded
from ..handler import Handler
from ..message import Request, Response
from ..policy.deadline import earlier


class Deadline:
    """Fails with DeadlineExceeded at the earlier of the request's deadline and `timeout` seconds from now.

    `timeout` None keeps only what came with the request; `unless_given` makes it a default instead of a limit. A call
    that does not suspend costs no timer.
    """

    def __init__(self, clock: IReactorTime, timeout: float | None = None, *, unless_given: bool = False) -> None:
        self._seconds: Callable[[], float] = clock.seconds
        self._timeout = timeout
        self._unless_given = unless_given

    async def __call__(self, request: Request, handler: Handler) -> Response:
        context = request.context
        now = self._seconds()
        deadline = context.deadline
        if deadline is None or not self._unless_given:
            deadline = earlier(deadline, now, self._timeout)
        if deadline is None:
            return await handler(request)
        if deadline <= now:
            late = DeadlineExceeded(f"{request.operation.id}: the deadline had passed before it began.")
            late.ran = "no"
            raise late
        if deadline != context.deadline:
            request = replace(request, context=replace(context, deadline=deadline))
        return await _until(self._seconds, deadline, request, handler)


class _Alarm:
    """What a deadline's timer does to the run that waits."""

    __slots__ = ("expired", "run")

    def __init__(self, run: Run[Any]) -> None:
        self.run = run
        self.expired = False

    def __call__(self) -> None:
        self.expired = True
        self.run.cancel()


@coroutine
def _until(
    seconds: Callable[[], float], deadline: float, request: Request, handler: Handler
) -> Generator[Any, Any, Response]:
    """Await the handler; a timer is armed only when it first suspends."""
    inner: Any = handler(request).__await__()
    try:
        awaited = inner.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    run = current_run()
    if run is None:
        inner.close()
        raise RuntimeError("Deadline needs the framework's driver: start the call with Driver.run().")
    asked = run.cancelling()
    alarm = _Alarm(run)
    # The loop's own timer: one of Twisted's is made of it, and costs more.
    timer = run.get_loop().call_later(max(0.0, deadline - seconds()), alarm)
    try:
        while True:
            try:
                value = yield awaited
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:
                awaited = inner.throw(error)
            else:
                awaited = inner.send(value)
    except StopIteration as stop:
        if alarm.expired:
            run.uncancel()  # it ended by itself in the very turn its time was up
        return stop.value  # type: ignore[no-any-return]
    except asyncio.CancelledError:
        if alarm.expired and run.uncancel() <= asked:
            raise DeadlineExceeded(f"{request.operation.id}: no answer before the deadline.") from None
        raise
    except BaseException:
        if alarm.expired:
            run.uncancel()
        raise
    finally:
        timer.cancel()
