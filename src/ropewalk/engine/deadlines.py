"""Deadlines of many connections on one timer.

A connection's deadline moves with each of its requests; a timer of its own would be cancelled and made anew as often.
Here it is an attribute, and one timer for all comes at the earliest of them, at most every `EVERY` seconds. A crowd
that is late hears of it `TOGETHER` at a time, so that those who are not late are served in between.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

EVERY = 0.5  # seconds: so much later than its deadline may a connection hear of it
TOGETHER = 16  # connections in one turn of the loop: to refuse one takes longer than to answer a request
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
        self._late: deque[Timed] = deque()  # who were, when all were last looked at, and have not heard of it
        self._timer: Any = None
        self._next = NEVER

    def add(self, timed: Timed) -> None:
        """Watch over it from now on."""
        self.timed[timed] = None

    def discard(self, timed: Timed) -> None:
        """Watch over it no more."""
        self.timed.pop(timed, None)
        if not self.timed:
            self._late.clear()
            if self._timer is not None:
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
        late = self._late
        if not late:
            late.extend(timed for timed in self.timed if timed.deadline <= now)
        for _ in range(TOGETHER):
            if not late:
                break
            timed = late.popleft()
            if timed in self.timed and timed.deadline <= now:
                timed.late(now)
        if late:
            self._arm(now)
            return
        earliest = min((timed.deadline for timed in self.timed), default=NEVER)
        if earliest < self._next:
            self._arm(max(earliest, now + EVERY) if earliest > now else now + EVERY)
