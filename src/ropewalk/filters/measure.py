"""Counts calls, their outcomes and how long they took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..handler import Handler
from ..message import Request, Response
from ..policy.outcome import judge_error, judge_status, status_of


class Meter(Protocol):
    """Where the numbers go; `telemetry.metrics.Calls` provides it."""

    def began(self, operation: str) -> None:
        """A call began."""

    def ended(self, operation: str, outcome: str, status: int, seconds: float) -> None:
        """It ended."""


class Measure:
    """Tells `meter` of every call; sits outside `Deadline`, so that timeouts are counted as the failures they are."""

    def __init__(self, meter: Meter, seconds: Callable[[], float]) -> None:
        self._meter = meter
        self._seconds = seconds

    async def __call__(self, request: Request, handler: Handler) -> Response:
        operation = request.operation.id
        meter = self._meter
        started = self._seconds()
        meter.began(operation)
        try:
            response = await handler(request)
        except BaseException as error:
            meter.ended(operation, judge_error(error), status_of(error), self._seconds() - started)
            raise
        meter.ended(operation, judge_status(response.status), response.status, self._seconds() - started)
        return response
