"""Clocks and chance as a service with sagas has them: in a saga's own code, outside of its steps, they raise.

There they would tell something else each time that code runs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ..context import current_key
from ..interfaces import IWallClock


def _uses(what: str) -> None:
    keyed = current_key()
    if keyed is not None:
        keyed.uses(what)


@implementer(IReactorTime)
class GuardedClock:
    """An IReactorTime."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def seconds(self) -> float:
        """As IReactorTime."""
        _uses("the clock")
        return float(self._clock.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> IDelayedCall:
        """As IReactorTime."""
        _uses("the clock")
        later: IDelayedCall = self._clock.callLater(delay, callable, *args, **kwargs)
        return later

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """As IReactorTime."""
        calls: list[IDelayedCall] = self._clock.getDelayedCalls()
        return calls


@implementer(IWallClock)
class GuardedWallClock:
    """An IWallClock."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def now(self) -> datetime:
        """As IWallClock."""
        _uses("the wall clock")
        now: datetime = self._clock.now()
        return now


class GuardedRandom(Random):
    """A Random."""

    def __new__(cls, random: Random) -> GuardedRandom:
        """Nothing is drawn from the system for it."""
        return super().__new__(cls, 0)  # type: ignore[call-arg]

    def __init__(self, random: Random) -> None:
        self._random = random

    def random(self) -> float:
        """As Random."""
        _uses("chance")
        return self._random.random()

    def getrandbits(self, k: int, /) -> int:
        """As Random."""
        _uses("chance")
        return self._random.getrandbits(k)
