"""Timers that nearly always are cancelled: those of deadlines, most calls end long before.

A timer of the loop's own for each would cost more than all the rest of a deadline. Here those that are due in the same
half second share one, which comes before them; whoever still waits then gets one of its own, which is exact.
"""

from __future__ import annotations

import asyncio

GRAIN = 0.5  # seconds that share a timer


class Alarm:
    """What `Alarms.set` sets: its `ring` is called at its time, unless it is cancelled before."""

    __slots__ = ("_shared", "_timer", "_when")

    _shared: _Shared | None
    _timer: asyncio.TimerHandle  # of its own, when it shares none
    _when: float  # of the loop

    def ring(self) -> None:
        """Its time has come."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Do not ring; nothing when it has rung already."""
        shared = self._shared
        if shared is None:
            self._timer.cancel()
        else:
            del shared.alarms[self]
            if not shared.alarms:
                shared.end()


class Alarms:
    """Those of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.shared: dict[int, _Shared] = {}  # by the number of their half second

    def set(self, alarm: Alarm, delay: float) -> None:
        """Let it ring in `delay` seconds."""
        alarm._when = when = self.loop.time() + delay
        if delay < 2 * GRAIN:
            alarm._shared = None
            alarm._timer = self.loop.call_at(when, alarm.ring)
            return
        number = int(when / GRAIN) - 1
        shared = self.shared.get(number)
        if shared is None:
            shared = self.shared[number] = _Shared(self, number)
        alarm._shared = shared
        shared.alarms[alarm] = None


class _Shared:
    """A timer that is shared."""

    __slots__ = ("_number", "_of", "_timer", "alarms")

    def __init__(self, of: Alarms, number: int) -> None:
        self._of = of
        self._number = number
        self._timer = of.loop.call_at(number * GRAIN, self._come)
        self.alarms: dict[Alarm, None] = {}  # in the order they came

    def end(self) -> None:
        """Nobody shares it any more."""
        self._timer.cancel()
        del self._of.shared[self._number]

    def _come(self) -> None:
        del self._of.shared[self._number]
        for alarm in self.alarms:
            alarm._shared = None
            alarm._timer = self._of.loop.call_at(alarm._when, alarm.ring)
