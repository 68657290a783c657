"""Virtual time: a heap of what is to happen. Nothing here waits, and nothing here knows what time it really is."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

NEVER = float("inf")
_FEW = 64  # cancelled timers that may lie about before the heap is swept


class Owner(Protocol):
    """Whose timer it is, by whose clock."""

    def instant(self, delay: float) -> float:
        """The moment of virtual time that is `delay` of the owner's seconds from now."""

    def shown_at(self, at: float) -> float:
        """What the owner's clock shows at that moment of virtual time, as it goes now."""


@implementer(IDelayedCall)
class Timer:
    """A call at some moment of virtual time."""

    __slots__ = ("_timeline", "args", "at", "function", "kwargs", "order", "owner", "state")

    def __init__(
        self, timeline: Timeline, at: float, owner: Any, function: Callable[..., object], args: Any, kwargs: Any
    ) -> None:
        self._timeline = timeline
        self.at = at
        self.owner = owner
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.order = 0
        self.state = "active"

    def getTime(self) -> float:
        """When, by the owner's clock."""
        return float(self.owner.shown_at(self.at))

    def active(self) -> bool:
        """Whether it is still to come."""
        return self.state == "active"

    def cancel(self) -> None:
        """It is not to happen."""
        self._still()
        self.state = "cancelled"
        self.take()
        self._timeline.forget()

    def reset(self, secondsFromNow: float) -> None:
        """It is to happen that many seconds from now instead."""
        self._still()
        self._timeline.move(self, self.owner.instant(secondsFromNow))

    def delay(self, secondsLater: float) -> None:
        """It is to happen later than planned."""
        self._still()
        self._timeline.move(self, self.at + self.owner.instant(secondsLater) - self._timeline.now)

    def take(self) -> tuple[Callable[..., object], Any, Any]:
        """What is to be called, and with what; the timer forgets it: what is called may well hold the timer."""
        taken = self.function, self.args, self.kwargs
        self.function, self.args, self.kwargs = _nothing, (), {}
        return taken

    def _still(self) -> None:
        if self.state == "cancelled":
            raise AlreadyCancelled
        if self.state == "called":
            raise AlreadyCalled


def _nothing() -> None:
    """What a timer calls that is over."""


class Timeline:
    """What is to happen, in order; of two things at one moment, the one asked for first comes first."""

    def __init__(self) -> None:
        self.now = 0.0  # virtual seconds since the beginning
        self.fired = 0  # timers so far: the number of the turn
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._forgotten = 0

    def call_at(
        self, at: float, owner: Any, function: Callable[..., object], args: Any = (), kwargs: Any = None
    ) -> Timer:
        """Call `function(*args, **kwargs)` at the moment `at`, or now if that is past."""
        timer = Timer(self, at, owner, function, args, kwargs or {})
        self._push(timer)
        return timer

    def next(self, until: float | None = None) -> Timer | None:
        """Take the next timer out and set the time to it; None when there is none, or none until `until`."""
        heap = self._heap
        while heap:
            at, order, timer = heap[0]
            if timer.state != "active" or timer.order != order:
                heapq.heappop(heap)
                self._forgotten -= 1
                continue
            if until is not None and at > until:
                return None
            heapq.heappop(heap)
            self.now = max(self.now, at)
            self.fired += 1
            timer.state = "called"
            return timer
        return None

    def pending(self, owner: Any = None) -> list[Timer]:
        """What is still to come, in order; of one owner, when it is named."""
        return [
            timer
            for _, order, timer in sorted(self._heap)
            if timer.state == "active" and timer.order == order and owner in (None, timer.owner)
        ]

    def postpone(self, timer: Timer) -> None:
        """Let a timer that was taken out happen when somebody moves it; until then it can be cancelled as any other."""
        timer.state = "active"
        timer.at = NEVER
        heapq.heappush(self._heap, (NEVER, timer.order, timer))

    def move(self, timer: Timer, at: float) -> None:
        """Let an active timer happen at another moment."""
        timer.at = at
        self._push(timer)
        self.forget()

    def forget(self) -> None:
        """An entry of the heap is void."""
        self._forgotten += 1
        if self._forgotten > _FEW and self._forgotten * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].state == "active" and entry[2].order == entry[1]]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def _push(self, timer: Timer) -> None:
        self._order += 1
        timer.order = self._order
        heapq.heappush(self._heap, (timer.at, self._order, timer))
