"""The clocks the runtime hands out: a monotonic one, whose callbacks keep their asker's context, and a wall's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ..context import bound
from ..interfaces import IWallClock


@implementer(IReactorTime)
class Clock:
    """IReactorTime over a reactor: its timers, with the current context carried along; seconds that never jump."""

    def __init__(self, reactor: Any, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is this process's monotonic clock; in a simulated world, that world's."""
        self._reactor = reactor
        self._seconds = seconds

    @property
    def seconds(self) -> Callable[[], float]:
        """`seconds()`: since some fixed moment. The function itself, so that a hot path calls nothing in between."""
        return self._seconds

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> IDelayedCall:
        """Call after `delay` seconds, in the context of now."""
        delayed: IDelayedCall = self._reactor.callLater(delay, bound(callable), *args, **kwargs)
        return delayed

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """The reactor's."""
        calls: list[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


@implementer(IWallClock)
class WallClock:
    """What time people have."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now()`: seconds since 1970, UTC."""
        self._now = now

    def now(self) -> datetime:
        """In UTC."""
        return datetime.fromtimestamp(self._now(), UTC)
