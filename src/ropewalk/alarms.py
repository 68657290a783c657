"""Timers that nearly always are cancelled: those of deadlines, most calls end long before.

A timer of the loop's own for each would cost more than all the rest of a deadline. Here those that are due in the same
half second share one until then; whoever still waits when it comes gets one of its own, which is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil

GRAIN = 0.5  # seconds that share a timer


class Alarm:
    """Calls `callback` at `when`, a time of the loop's, unless it is cancelled before."""

    __slots__ = ("_alarms", "_timer", "callback", "when")

    def __init__(self, alarms: Alarms, when: float, callback: Callable[[], object]) -> None:
        self._alarms = alarms
        self._timer: asyncio.TimerHandle | None = None  # of its own
        self.when = when
        self.callback = callback

    def arm(self) -> None:
        """Take a timer of its own."""
        self._timer = self._alarms.loop.call_at(self.when, self.callback)

    def cancel(self) -> None:
        """Never call; nothing when it has called already."""
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._alarms.forget(self)


class Alarms:
    """Those of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # By the number of the half second: who shares a timer, in the order they came, and the timer.
        self._shared: dict[int, tuple[dict[Alarm, None], asyncio.TimerHandle]] = {}

    def set(self, delay: float, callback: Callable[[], object]) -> Alarm:
        """Call `callback` in `delay` seconds."""
        alarm = Alarm(self, self.loop.time() + delay, callback)
        if delay < 2 * GRAIN:
            alarm.arm()
            return alarm
        number = _number(alarm)
        if number not in self._shared:
            self._shared[number] = {}, self.loop.call_at(number * GRAIN, self._come, number)
        self._shared[number][0][alarm] = None
        return alarm

    def forget(self, alarm: Alarm) -> None:
        """It was cancelled, and is not there when it has called."""
        number = _number(alarm)
        if number in self._shared:
            alarms, timer = self._shared[number]
            alarms.pop(alarm, None)
            if not alarms:
                timer.cancel()
                del self._shared[number]

    def _come(self, number: int) -> None:
        alarms, _ = self._shared.pop(number)
        for alarm in alarms:
            alarm.arm()


def _number(alarm: Alarm) -> int:
    return ceil(alarm.when / GRAIN) - 1  # that timer comes before it in any case
