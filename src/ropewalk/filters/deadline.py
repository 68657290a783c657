"""Ends a call at its deadline; a server gives one to whoever came without, a client adds that of the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from ..alarms import Alarm, Alarms
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
        self._alarms: Alarms | None = None

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
        run = current_run()
        if run is None:
            raise RuntimeError("Deadline needs the framework's driver: start the call with Driver.run().")
        if self._alarms is None or self._alarms.loop is not run.get_loop():
            self._alarms = Alarms(run.get_loop())
        asked, outer = run.cancelling(), run.on_wait
        expiry = run.on_wait = _Expiry(run, deadline, self._seconds, self._alarms)
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            if expiry.expired and run.uncancel() <= asked:
                raise DeadlineExceeded(f"{request.operation.id}: no answer before the deadline.") from None
            raise
        except BaseException:
            if expiry.expired:
                run.uncancel()
            raise
        finally:
            run.on_wait = outer
            if expiry.alarm is not None:
                expiry.alarm.cancel()
        if expiry.expired:
            run.uncancel()  # it ended by itself in the very turn its time was up
        return response


class _Expiry:
    """Cancels a run at a deadline; called when it first waits, and not before, it sets an alarm."""

    __slots__ = ("_alarms", "_deadline", "_run", "_seconds", "alarm", "expired")

    def __init__(self, run: Run[Any], deadline: float, seconds: Callable[[], float], alarms: Alarms) -> None:
        self._run = run
        self._deadline = deadline
        self._seconds = seconds
        self._alarms = alarms
        self.alarm: Alarm | None = None
        self.expired = False

    def __call__(self) -> None:
        if self.alarm is None:
            self.alarm = self._alarms.set(max(0.0, self._deadline - self._seconds()), self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._run.cancel()
