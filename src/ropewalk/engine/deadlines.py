"""Deadlines of many connections on one timer.

A connection's deadline moves with each of its requests; a timer of its own would be cancelled and made anew as often.
Here it is an attribute, and one timer for all comes at the earliest of them, at most every `EVERY` seconds.
"""

from __future__ import annotations

from typing import Any, Protocol

EVERY = 0.5  # seconds: so much later than its deadline may a connection hear of it
NEVER = float("inf")


class Timed(Protocol):
    """What has a deadline."""

    deadline: float  # of the clock; NEVER: none

    def late(self, now: float) -> None:
        """The deadline has passed; it sets another, or is discarded."""


class Deadlines:
    """Those of all connections of a listener."""

    def __init__(self, clock: Any) -> None:
        """`clock`: an IReactorTime."""
        self._clock = clock
        self.timed: dict[Timed, None] = {}  # in the order they came
        self._timer: Any = None
        self._next = NEVER

    def add(self, timed: Timed) -> None:
        """Watch over it from now on."""
        self.timed[timed] = None

    def discard(self, timed: Timed) -> None:
        """Watch over it no more."""
        self.timed.pop(timed, None)
        if not self.timed and self._timer is not None:
            self._timer.cancel()
            self._timer, self._next = None, NEVER

    def set(self, timed: Timed, deadline: float) -> None:
        """Its deadline is another from now on."""
        timed.deadline = deadline
        if deadline < self._next:
            self._arm(deadline)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._come)

    def _come(self) -> None:
        self._timer, self._next = None, NEVER
        now = self._clock.seconds()
        earliest = NEVER
        for timed in list(self.timed):
            if timed.deadline <= now:
                timed.late(now)
            if timed in self.timed:
                earliest = min(earliest, timed.deadline)
        if earliest < self._next:
            self._arm(max(earliest, now + EVERY) if earliest > now else now + EVERY)
