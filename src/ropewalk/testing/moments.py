"""The named moments of a run: what publishes them, who listens, and what befalls a host there.

Before and after each effect there is one, on the host that has the effect: `before:charge` and `after:charge` of a
call, at the caller and at the callee; of a function given to `Database.run`, and within it of each statement
(`before:take/2`) and of the commit (`after:take/commit`); of each piece of bytes that arrives (`before:frame`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from .hosts import Host, Reactor

ANY = "any moment"
# One after an effect that is there to stay: a crash at any other moment is one after the effect before it. And of a
# name that is among the n which its service has come to least often so far: what happens once in a minute is met as
# often as what happens all the time.
SELDOM = "a seldom moment"
HESITATES = 0.25  # the share of its moments at which a host that hesitates does


class Stopped(BaseException):
    """Raised in plain code whose process has just been killed, so that it ends there; nobody gets to see it."""


class Armed(Struct):
    """What befalls a host when it comes to its moment."""

    hosts: Sequence[Host]
    moment: str  # or ANY, or SELDOM
    nth: int  # how many of them it still waits for; of SELDOM, among how many names
    does: Callable[[Host, str], bool]  # it, there and then; whether that host's process is dead now
    parts: Collection[Host] = ()  # that it parts from each other: what they are healed of

    def comes(self, host: Host, name: str, met: Mapping[str, int]) -> bool:
        """Whether this is the moment it waits for, counted; `met`: how often that service came to each name before."""
        if host not in self.hosts:
            return False
        if self.moment == SELDOM:
            often = met.get(name, 0)
            return _stays(name) and sum(0 < count < often for count in met.values()) < self.nth
        self.nth -= self.moment in (name, ANY)
        return self.nth == 0


class Moments:
    """The moments of one World."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []
        self._met: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by service: names of what stays -> how often
        self.heard: list[tuple[str, str]] | None = None  # (host, moment) of all, when somebody wants to know

    def arm(self, armed: Armed) -> None:
        """It befalls one of its hosts when that comes to its moment for the nth time from now.

        Raises ValueError for what is no moment.
        """
        when, colon, effect = armed.moment.partition(":")
        if armed.moment not in (ANY, SELDOM) and (when not in ("before", "after") or not colon or not effect):
            raise ValueError(f'at: expected a moment like "before:charge" or "after:charge", got {armed.moment!r}.')
        if armed.nth < 1:
            raise ValueError(f"nth: expected 1 for the next time, or more, got {armed.nth!r}.")
        self._armed.append(armed)

    def disarm(self, hosts: Collection[Host]) -> None:
        """None of `hosts` dies at a moment any more."""
        for armed in self._armed:
            if not armed.parts:
                armed.hosts = [host for host in armed.hosts if host not in hosts]
        self._armed = [armed for armed in self._armed if armed.hosts]

    def heal(self, hosts: Collection[Host]) -> None:
        """What would part these from each other does not."""
        self._armed = [armed for armed in self._armed if not armed.parts or not set(armed.parts) <= set(hosts)]

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
        met, dead = self._met[reactor.host.name.partition("/")[0]], False
        for armed in tuple(self._armed):
            if not dead and armed.comes(reactor.host, name, met):
                self._armed.remove(armed)
                dead = armed.does(reactor.host, name)
        met[name] += _stays(name)
        return dead


@lru_cache(1024)
def _stays(name: str) -> bool:
    """Whether this is the moment after a call, a commit, a message: after neither bytes nor a mere statement."""
    when, _, effect = name.partition(":")
    return when == "after" and effect != "frame" and not effect.rpartition("/")[2].isdigit()


def _ignore(_: Any) -> None:
    """Cancelled, it stays silent: whoever waits here is dead."""
