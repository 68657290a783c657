"""Gives each call its span, and tells the log one line about how it ended."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from ..context import Context, Trace
from ..handler import Handler
from ..message import Request, Response
from ..policy.outcome import judge_error, judge_status, status_of


class TraceCalls:
    """Continues the trace that came with the request, or begins one; `done` is told of every end.

    `random`: source of ids. `done(request, status, outcome, seconds, error)`: what logs or exports the span.
    """

    def __init__(self, random: Random, seconds: Callable[[], float], done: Done | None = None) -> None:
        self._bits = random.getrandbits
        self._seconds = seconds
        self._done = done

    async def __call__(self, request: Request, handler: Handler) -> Response:
        request = replace(request, context=self._child(request.context))
        if self._done is None:
            return await handler(request)
        started = self._seconds()
        try:
            response = await handler(request)
        except BaseException as error:
            self._done(request, status_of(error), judge_error(error), self._seconds() - started, error)
            raise
        self._done(request, response.status, judge_status(response.status), self._seconds() - started, None)
        return response

    def _child(self, context: Context) -> Context:
        above = context.trace
        span = f"{self._bits(64) or 1:016x}"
        if above is None:
            trace = Trace(f"{self._bits(128) or 1:032x}", span)
        else:
            trace = Trace(above.trace_id, span, above.flags, above.state, above.span_id)
        return replace(context, trace=trace, request_id=context.request_id or trace.trace_id)


Done = Callable[[Request, int, str, float, BaseException | None], None]
