"""Gives each call its span, and tells its beginning and its end to whoever counts, logs or exports."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from msgspec.structs import replace

from ..context import Context, Trace
from ..handler import Handler
from ..message import Request, Response
from ..policy.outcome import Outcome, judge_error, judge_status, status_of

Done = Callable[[Request, int, str, float, BaseException | None], None]


class Meter(Protocol):
    """Where the numbers go; `telemetry.metrics.Calls` provides it."""

    def began(self, operation: str) -> None:
        """A call began."""

    def ended(self, operation: str, outcome: str, status: int, seconds: float) -> None:
        """It ended."""


class Observe:
    """Continues the trace that came with the request, or begins one; every end is judged once, and told.

    `random`: source of ids. `meter` is told of every call; `done(request, status, outcome, seconds, error)`, if given,
    logs its end. It sits outside all that may refuse or end a call, so that each end is counted as what it is.
    """

    def __init__(self, random: Random, seconds: Callable[[], float], meter: Meter, done: Done | None = None) -> None:
        self._bits = random.getrandbits
        self._seconds = seconds
        self._meter = meter
        self._done = done

    async def __call__(self, request: Request, handler: Handler) -> Response:
        request = replace(request, context=self._child(request.context))
        started = self._seconds()
        self._meter.began(request.operation.id)
        try:
            response = await handler(request)
        except BaseException as error:
            self._end(request, status_of(error), judge_error(error), started, error)
            raise
        self._end(request, response.status, judge_status(response.status), started, None)
        return response

    def _end(
        self, request: Request, status: int, outcome: Outcome, started: float, error: BaseException | None
    ) -> None:
        seconds = self._seconds() - started
        self._meter.ended(request.operation.id, outcome, status, seconds)
        if self._done is not None:
            self._done(request, status, outcome, seconds, error)

    def _child(self, context: Context) -> Context:
        above = context.trace
        span = (self._bits(64) or 1).to_bytes(8, "big").hex()
        if above is None:
            trace = Trace((self._bits(128) or 1).to_bytes(16, "big").hex(), span)
        else:
            trace = Trace(above.trace_id, span, above.flags, above.state, above.span_id)
        return replace(context, trace=trace, request_id=context.request_id or trace.trace_id)
