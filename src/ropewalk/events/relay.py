"""The relay of one service in one process: takes events from its outbox, in order, and hands them to the broker.

It is woken by every commit that published, also by those of other processes where the database can tell, and looks by
itself now and then. An event leaves the outbox when the broker has it, in the transaction that looks for the next ones.
One that nobody has subscribed to is tried for a while, since a subscriber may be about to start, and is then a dead
letter of its publisher.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..bell import Bell
from ..errors import RopewalkError, Unavailable
from ..event import Message
from ..interfaces import IBroker
from ..policy.backoff import Backoff, Streak, began, failed
from ..store import Database, Transaction, outbox
from ..store.outbox import Pending
from . import dead_letters

LOOKS = 1.0  # seconds between looks while something is in the outbox: what another process left behind goes on then
LEFT = 0.5  # seconds after which what another process wrote counts as left behind
RARELY = 5.0  # seconds between looks at one that others may have written to, when nobody was heard to
PATIENCE = 30.0  # seconds an event waits for a first subscriber

_log = Logger("ropewalk.events")


class Relay:
    """Hands on what one service has published."""

    def __init__(self, database: Database, broker: IBroker, clock: IReactorTime, random: Random) -> None:
        self._database = database
        self._broker = broker
        self._clock = clock
        self._random = random
        self._backoff = Backoff()
        self._bell = Bell(clock)
        self._seen: dict[int, float] = {}  # the positions of the last look, and when each was first seen
        self._done = Done()  # with the last page, which is still to be written down
        self.handed_on = 0

    def wake(self) -> None:
        """There is something in the outbox."""
        self._bell.ring()

    async def run(self) -> None:
        """Hand on, until cancelled."""
        streak = Streak()
        if "events" not in self._database.left:
            await self._bell.wait(self._rarely)
        while True:
            streak = began(streak, self._clock.seconds())
            try:
                handed_on = await self._page()
                streak = Streak()
            except Unavailable as error:  # of the database or the broker: all stays where it is
                streak, seconds = failed(self._backoff, streak, self._clock.seconds(), self._random.random())
                _log.warn(
                    "events of {service} wait: {error}", service=self._database.name, error=error, again_in=seconds
                )
                await deferLater(self._clock, seconds)
                continue
            if not handed_on:
                await self._bell.wait(self._next_look())

    def _next_look(self) -> float | None:
        """Seconds until it looks by itself: when something may count as left behind, or now and then."""
        if not self._seen:
            return self._rarely
        left = [since + LEFT - self._clock.seconds() for since in self._seen.values()]
        return min((seconds for seconds in left if seconds > 0), default=LOOKS)

    @property
    def _rarely(self) -> float | None:
        """Seconds until it looks at an outbox that was empty; None where nobody else writes to it."""
        return RARELY if self._database.shared else None

    async def drain(self) -> None:
        """Hand on what is there, once: before this process ends."""
        try:
            while await self._page():
                pass
        except RopewalkError as error:
            _log.info("events of {service} are left for others: {error}", service=self._database.name, error=error)

    async def _page(self) -> bool:
        """Hand on a page; whether anything of it went."""
        page = await self._database.batched(_turn, self._done)
        self._done = Done()
        now = self._clock.seconds()
        self._seen = {row.position: self._seen.get(row.position, now) for row in page}
        left = {position for position, since in self._seen.items() if now - since >= LEFT}
        rows = outbox.publishable(page, self._database.member, left)
        if rows:
            self._done = await self._hand_on(rows)
        return bool(self._done.positions)

    async def _hand_on(self, rows: Sequence[Pending]) -> Done:
        messages = [Message.decoded(row.message) for row in rows]
        lost = frozenset(await self._broker.publish(messages))
        too_old = self._database.now() - PATIENCE
        done, undeliverable = [], []
        for row, message in zip(rows, messages, strict=True):
            if message.id not in lost:
                done.append(row.position)
            elif row.at <= too_old:
                done.append(row.position)
                undeliverable.append(message)
                _log.error(
                    "event.undeliverable: nobody has subscribed to {topic}", topic=message.topic, event_id=message.id
                )
        self.handed_on += len(done)
        return Done(done, undeliverable)


class Done(Struct, frozen=True):
    """What became of a page."""

    positions: Sequence[int] = ()  # which leave the outbox
    undeliverable: Sequence[Message] = ()


def _turn(tx: Transaction, turns: Sequence[Done]) -> list[list[Pending]]:
    """Write down what was done, and look for the next page."""
    for done in turns:
        for message in done.undeliverable:
            dead_letters.bury(tx, "", message, 1, "Nobody has subscribed to it.")
        if done.positions:
            outbox.remove(tx, done.positions)
    return [outbox.pending(tx)] * len(turns)
