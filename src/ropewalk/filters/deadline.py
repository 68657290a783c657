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

    `timeout` None keeps only what came with the request; `unless_given` makes it a default instead of a limit, and
    gives none to an operation whose body comes while it runs: the wire sees to it that it does come. A call that does
    not suspend costs no timer.
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
        if not (self._unless_given and (deadline is not None or request.operation.takes_stream)):
            deadline = earlier(deadline, now, self._timeout)
        if deadline is None:
            return await handler(request)
        if deadline <= now:
            late = DeadlineExceeded(f"{request.operation.id}: the deadline had passed before it began.")
            late.ran = "no"
            raise late
        if deadline != context.deadline:
            request = replace(request, context=replace(context, deadline=deadline))
        alarms = self._alarms
        run = current_run(alarms.loop) if alarms is not None else None
        if alarms is None or run is None:  # the first call, or the first on another loop
            run = current_run()
            if run is None:
                raise RuntimeError("Deadline needs the framework's driver: start the call with Driver.run().")
            alarms = self._alarms = Alarms(run.get_loop())
        asked, outer = run.cancelling(), run.on_wait
        expiry = run.on_wait = _Expiry(run, deadline, self._seconds, alarms)
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            if expiry.rung and run.uncancel() <= asked:
                raise DeadlineExceeded(f"{request.operation.id}: no answer before the deadline.") from None
            raise
        except BaseException:
            if expiry.rung:
                run.uncancel()
            raise
        finally:
            run.on_wait = outer
            if expiry.is_set:
                expiry.cancel()
        if expiry.rung:
            run.uncancel()  # it ended by itself in the very turn its time was up
        return response


class _Expiry(Alarm):
    """Cancels a run at its deadline. Called when the run waits, it sets itself: who never waits needs no timer."""

    __slots__ = ("_alarms", "_deadline", "_run", "_seconds", "is_set", "rung")

    def __init__(self, run: Run[Any], deadline: float, seconds: Callable[[], float], alarms: Alarms) -> None:
        self._run = run
        self._deadline = deadline
        self._seconds = seconds
        self._alarms = alarms
        self.is_set = False
        self.rung = False

    def __call__(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._alarms.set(self, max(0.0, self._deadline - self._seconds()))

    def ring(self) -> None:
        """As Alarm."""
        self.rung = True
        self._run.cancel()
