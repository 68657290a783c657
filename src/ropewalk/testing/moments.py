"""The named moments of a run: what publishes them, who listens, and who dies there.

Before and after each effect there is one, on the host that has the effect: `before:charge` and `after:charge` of a
call, at the caller and at the callee; of a function given to `Database.run`, and within it of each statement
(`before:take/2`) and of the commit (`after:take/commit`); of each piece of bytes that arrives (`before:frame`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from .hosts import Host, Reactor

ANY = "any moment"
HESITATES = 0.25  # the share of its moments at which a host that hesitates does


class Stopped(BaseException):
    """Raised in plain code whose process has just been killed, so that it ends there; nobody gets to see it."""


class Armed(Struct):
    """A crash that waits for its moment."""

    hosts: Sequence[Host]
    moment: str  # or ANY
    nth: int  # how many of them it still waits for
    power: bool


class Moments:
    """The moments of one World."""

    def __init__(self, kill: Callable[[Host, str, bool], object]) -> None:
        """`kill(host, moment, power)`."""
        self._kill = kill
        self._armed: list[Armed] = []
        self.heard: list[tuple[str, str]] | None = None  # (host, moment) of all, when somebody wants to know

    def arm(self, hosts: Sequence[Host], moment: str, nth: int, power: bool) -> None:
        """Kill one of `hosts` when it comes to `moment` for the `nth` time from now.

        Raises ValueError for what is no moment.
        """
        when, colon, effect = moment.partition(":")
        if moment != ANY and (when not in ("before", "after") or not colon or not effect):
            raise ValueError(f'at: expected a moment like "before:charge" or "after:charge", got {moment!r}.')
        if nth < 1:
            raise ValueError(f"nth: expected 1 for the next time, or more, got {nth!r}.")
        self._armed.append(Armed(tuple(hosts), moment, nth, power))

    def disarm(self, hosts: Sequence[Host]) -> None:
        """None of `hosts` dies at a moment any more."""
        for armed in self._armed:
            armed.hosts = [host for host in armed.hosts if host not in hosts]
        self._armed = [armed for armed in self._armed if armed.hosts]

    def now(self, reactor: Reactor, name: str) -> None:
        """A moment in plain code; raises Stopped when its process is dead or dies there."""
        if self._dies(reactor, name):
            raise Stopped(name)

    async def reach(self, reactor: Reactor, name: str) -> None:
        """A moment in a coroutine; never returns when its process is dead or dies there."""
        if self._dies(reactor, name):
            nothing: Deferred[None] = Deferred(_ignore)
            reactor.keep(nothing)
            await nothing
        host = reactor.host
        if host.hesitates and host.random.random() < HESITATES:
            await deferLater(reactor, host.random.expovariate(1 / host.hesitates))

    def _dies(self, reactor: Reactor, name: str) -> bool:
        if not reactor.alive:
            return True
        if self.heard is not None:
            self.heard.append((reactor.host.name, name))
        for armed in self._armed:
            if armed.moment in (name, ANY) and reactor.host in armed.hosts:
                armed.nth -= 1
                if armed.nth == 0:
                    self._armed.remove(armed)
                    self._kill(reactor.host, name, armed.power)
                    return True
        return False


def _ignore(_: Any) -> None:
    """Cancelled, it stays silent: whoever waits here is dead."""
