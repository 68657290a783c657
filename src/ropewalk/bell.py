"""A bell: rung by whoever has work, waited for by the one who does it; rung before that, it is heard at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Bell:
    """For one who waits, and any number who ring."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._rung = False
        self._waiting: Deferred[None] | None = None

    def ring(self) -> None:
        """Wake who waits, or who waits next. In the reactor's thread."""
        self._rung = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    async def wait(self, timeout: float | None = None) -> bool:
        """Returns once it was rung, or after `timeout` seconds; whether it was rung."""
        if not self._rung:
            waiting: Deferred[None] = Deferred(lambda _: None)
            self._waiting = waiting
            timer = self._clock.callLater(timeout, self._time_is_up, waiting) if timeout is not None else None
            try:
                await waiting
            finally:
                self._waiting = None
                if timer is not None and timer.active():
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung

    def _time_is_up(self, waiting: Deferred[None]) -> None:
        if not waiting.called:
            waiting.callback(None)


class Bells:
    """For any number who wait, each with a bell of its own: all are rung, in the order in which they came."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._bells: dict[Bell, None] = {}  # ordered, as a set is not: who is woken first is no matter of chance

    def ring(self) -> None:
        """Wake all who wait. In the reactor's thread."""
        for bell in list(self._bells):
            bell.ring()

    @contextmanager
    def listening(self) -> Iterator[Bell]:
        """A bell that is rung with the others from now on."""
        bell = Bell(self._clock)
        self._bells[bell] = None
        try:
            yield bell
        finally:
            del self._bells[bell]

    def __len__(self) -> int:
        return len(self._bells)
