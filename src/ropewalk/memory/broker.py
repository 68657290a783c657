"""The built-in broker: one SQLite file, owned by one process, which gives each message to one member of each group.

What is published is durable when `publish` returns: the messages and, for each group that is subscribed to their topic,
that they wait for it. What a member has handled is struck from its group's queue soon after; until then a crash makes
it come again. Messages stay for a week, so that a new group may begin with what there was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ..driver import Driver
from ..errors import RopewalkError, Unavailable
from ..event import Message
from ..interfaces import IBroker, ISubscription
from ..policy.lanes import Lanes
from ..store import Database, Transaction

KEEPS = 7 * 86400.0  # seconds that messages stay; those that nobody took in that time are dropped, and said so
PURGE = 600.0  # seconds between looks for those
PAGE = 500  # rows read or deleted in one transaction
LOADED = 2000  # messages of a group in memory; the rest waits in the file
AGAIN = 1.0  # seconds until a message that was given back is given again

Handle = Callable[[Message, int], Awaitable[None]]
_log = Logger("ropewalk.broker")

metadata = sa.MetaData()
messages = sa.Table(
    "messages",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("topic", sa.String(200), nullable=False, index=True),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,
)
bindings = sa.Table(
    "bindings",
    metadata,
    sa.Column("group", sa.String(200), primary_key=True),
    sa.Column("topic", sa.String(200), primary_key=True),
    sqlite_with_rowid=False,
)
queue = sa.Table(
    "queue",
    metadata,
    sa.Column("group", sa.String(200), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("given", sa.Integer, nullable=False),  # how often
    sqlite_with_rowid=False,
)


class Stored(Struct, frozen=True):
    """A message that waits for a group."""

    position: int
    key: str
    given: int
    message: bytes


@implementer(IBroker)
class EmbeddedBroker:
    """The broker as the process that owns the file has it."""

    keeps_history = True

    def __init__(
        self,
        open: Callable[[], Database],
        clock: IReactorTime,
        driver: Driver,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        """`open`: opens, when it is first needed, a database with the tables above and nobody else's.

        `closed` is called when it has closed.
        """
        self._open = open
        self._was_closed = closed
        self._clock = clock
        self._driver = driver
        self._groups: dict[str, _Group] = {}
        self._purging: Deferred[Any] | None = None
        self._closed = False

    @cached_property
    def _database(self) -> Database:
        return self._open()

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        self._check()
        try:
            stored = await self._database.apart(_store, messages)
        except RopewalkError:
            for group in self._groups.values():
                group.behind = True  # what was committed, if anything was, is found in the file
            raise
        concerned: set[str] = set()
        for row, groups in stored:
            for name in groups:
                if name in self._groups:
                    self._groups[name].published(row)
                    concerned.add(name)
        for name in sorted(concerned):
            self._groups[name].pump()
        return [message.id for message, (_, groups) in zip(messages, stored, strict=True) if not groups]

    async def subscribe(
        self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool = False
    ) -> ISubscription:
        """As IBroker."""
        self._check()
        await self.bind(group, topics, from_start)
        if group not in self._groups:
            self._groups[group] = _Group(group, self._database, self._clock, self._driver)
        if self._purging is None:
            self._purging = self._driver.run(self._keep_purging())
            self._purging.addErrback(lambda _: None)  # that it was cancelled; it catches all else
        member = Member(self._groups[group], handle, at_once)
        self._groups[group].join(member)
        return member

    async def bind(self, group: str, topics: Collection[str], from_start: bool = False) -> None:
        """From now on messages of `topics` wait for `group`, and of no others."""
        await self._database.apart(_bind, group, sorted(topics), from_start)

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""
        after = 0
        while True:
            page = await self._database.apart(_history, topic, after)
            for _, message in page:
                yield Message.decoded(message)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    async def close(self) -> None:
        """As IBroker."""
        if self._closed:
            return
        self._closed = True
        if self._purging is not None:
            self._purging.cancel()
        for group in self._groups.values():
            await group.stop()
        for group in self._groups.values():
            await group.flushed()
        self._was_closed()

    async def _keep_purging(self) -> None:
        while True:
            try:
                await self.purge(self._database.now() - KEEPS)
            except RopewalkError as error:
                _log.warn("broker.purge.postponed {error}", error=error)
            await deferLater(self._clock, PURGE)

    async def purge(self, before: float) -> None:
        """Delete the messages published before that moment, seconds since 1970."""
        while True:
            deleted, untaken = await self._database.apart(_purge, int(before))
            if untaken:
                _log.error("broker.dropped {count} messages that nobody took for a week", count=untaken)
            if deleted < PAGE:
                return

    def _check(self) -> None:
        if self._closed:
            error = Unavailable("The broker of this process is closed.")
            error.ran = "no"
            raise error

    def __repr__(self) -> str:
        return f"<EmbeddedBroker, groups: {', '.join(map(repr, self._groups.values())) or 'none'}>"


@implementer(ISubscription)
class Member:
    """One that takes part in a group."""

    def __init__(self, group: _Group, handle: Handle, at_once: int) -> None:
        self._group = group
        self.handle = handle
        self.free = at_once
        self.stopping = False
        self.handling: dict[int, Deferred[Any]] = {}
        self._idle: list[Deferred[None]] = []

    async def stop(self) -> None:
        """As ISubscription."""
        self._group.leave(self)
        while self.handling:
            idle: Deferred[None] = Deferred(lambda _: None)
            self._idle.append(idle)
            await idle

    def cancel(self) -> None:
        """It is gone without a word: what it handles is given to others."""
        self._group.leave(self)
        for handling in list(self.handling.values()):
            handling.cancel()

    def ended(self, position: int) -> None:
        """It has handled a message, or not."""
        self.handling.pop(position, None)
        self.free += 1
        if not self.handling:
            idle, self._idle = self._idle, []
            for waiting in idle:
                if not waiting.called:
                    waiting.callback(None)


class _Group:
    """The queue of one group, as far as it is in memory, and who takes from it."""

    def __init__(self, name: str, database: Database, clock: IReactorTime, driver: Driver) -> None:
        self.name = name
        self.behind = True  # there is more in the file than is here
        self._database = database
        self._clock = clock
        self._driver = driver
        self._lanes: Lanes[int] = Lanes()
        self._rows: dict[int, Stored] = {}
        self._last = 0  # the position up to which the file was read
        self._members: list[Member] = []
        self._next = 0  # whose turn it is
        self._handled: list[int] = []  # to be struck from the file
        self._given: dict[int, int] = {}  # to be noted there
        self._loading = False
        self._pumping = False
        self._flushing: Deferred[Any] | None = None

    def join(self, member: Member) -> None:
        self._members.append(member)
        self.pump()

    def leave(self, member: Member) -> None:
        member.stopping = True
        if member in self._members:
            self._members.remove(member)

    async def stop(self) -> None:
        """All its members do."""
        for member in list(self._members):
            await member.stop()

    def published(self, row: Stored) -> None:
        """A message was stored for this group; of its key it is the latest."""
        if self.behind or len(self._lanes) >= LOADED:
            self.behind = True
        else:
            self._add(row)

    def _add(self, row: Stored) -> None:
        self._last = max(self._last, row.position)
        self._rows[row.position] = row
        self._lanes.add(row.position, row.key)

    def pump(self) -> None:
        """Give what may be given to whoever has a hand free."""
        if self.behind and not self._loading and len(self._lanes) < LOADED // 2 and self._members:
            self._loading = True
            self._driver.run(self._load()).addErrback(self._failed, "loading")
        if self._pumping:
            return  # it is done below: what is handled at once would call this once more for each
        self._pumping = True
        try:
            while (member := self._free()) is not None and (position := self._lanes.take()) is not None:
                self._give(member, self._rows[position])
        finally:
            self._pumping = False

    def _free(self) -> Member | None:
        for offset in range(len(self._members)):
            member = self._members[(self._next + offset) % len(self._members)]
            if member.free > 0:
                self._next = (self._next + offset + 1) % len(self._members)
                return member
        return None

    def _give(self, member: Member, row: Stored) -> None:
        member.free -= 1
        self._given[row.position] = row.given + 1
        handling = self._driver.run(member.handle(Message.decoded(row.message), row.given + 1))
        member.handling[row.position] = handling
        handling.addCallbacks(self._done, self._not_done, callbackArgs=(member, row), errbackArgs=(member, row))
        self._flush()

    def _done(self, _: Any, member: Member, row: Stored) -> None:
        del self._rows[row.position]
        self._given.pop(row.position, None)
        self._handled.append(row.position)
        self._lanes.done(row.position)
        member.ended(row.position)
        self._flush()
        self.pump()

    def _not_done(self, failure: Any, member: Member, row: Stored) -> None:
        self._rows[row.position] = Stored(row.position, row.key, row.given + 1, row.message)
        member.ended(row.position)
        # Not at once: what fails at once would be tried as fast as this machine can.
        self._clock.callLater(0 if member.stopping else AGAIN, self._again, row.position)

    def _again(self, position: int) -> None:
        self._lanes.give_back(position)
        self.pump()

    async def _load(self) -> None:
        try:
            rows = await self._database.apart(_waiting, self.name, self._last)
            self.behind = len(rows) == PAGE
            for row in rows:
                self._add(row)
        finally:
            self._loading = False
        self.pump()

    def _flush(self) -> None:
        if self._flushing is None and (self._handled or self._given):
            self._flushing = self._driver.run(self._write())
            self._flushing.addErrback(self._failed, "writing")

    async def _write(self) -> None:
        try:
            while self._handled or self._given:
                handled, self._handled = self._handled[:PAGE], self._handled[PAGE:]
                given, self._given = self._given, {}
                try:
                    await self._database.apart(_note, self.name, handled, given)
                except BaseException:
                    self._handled += handled
                    raise
        finally:
            self._flushing = None

    async def flushed(self) -> None:
        """Returns when the file says what was handled."""
        while self._flushing is not None:
            await _both(self._flushing)

    def _failed(self, failure: Any, what: str) -> None:
        self.behind = True
        if failure.check(RopewalkError):
            _log.warn("broker.{what}.failed {error}", what=what, error=failure.value)
            self._clock.callLater(AGAIN, self._resume)
        else:
            _log.failure("broker.{what}.failed", failure, what=what)

    def _resume(self) -> None:
        self._flush()
        self.pump()

    def __repr__(self) -> str:
        return f"{self.name} ({len(self._lanes)} here, {self._lanes.taken} being handled)"


async def _both(deferred: Deferred[Any]) -> None:
    other: Deferred[None] = Deferred(lambda _: None)

    def ended(result: Any) -> Any:
        if not other.called:
            other.callback(None)
        return result

    deferred.addBoth(ended)
    await other


# -- one transaction each

# Built once: building one costs more than executing it.
_BOUND = sa.select(bindings).order_by(bindings.c.group)
_ADD = messages.insert().returning(messages.c.position, sort_by_parameter_order=True)  # many in one statement, in order
_WAIT = queue.insert()
_mine = queue.c.group == sa.bindparam("group_")
_HANDLED = queue.delete().where(_mine, queue.c.position.in_(sa.bindparam("positions", expanding=True)))
_GIVEN = queue.update().where(_mine, queue.c.position == sa.bindparam("at")).values(given=sa.bindparam("times"))


def _store(tx: Transaction, published: Sequence[Message]) -> list[tuple[Stored, tuple[str, ...]]]:
    """Each with the groups it waits for."""
    bound: dict[str, tuple[str, ...]] = {}
    for row in tx.execute(_BOUND):
        bound[row.topic] = (*bound.get(row.topic, ()), row.group)
    now = int(tx.database.now())
    rows: list[dict[str, Any]] = [
        {"topic": each.topic, "key": each.key, "message": each.encoded(), "at": now} for each in published
    ]
    positions = tx.execute(_ADD, rows).scalars() if rows else ()
    stored = [
        (Stored(position, row["key"], 0, row["message"]), bound.get(row["topic"], ()))
        for position, row in zip(positions, rows, strict=True)
    ]
    waiting = [{"group": group, "position": row.position, "given": 0} for row, groups in stored for group in groups]
    if waiting:
        tx.execute(_WAIT, waiting)
    return stored


def _bind(tx: Transaction, group: str, topics: Sequence[str], from_start: bool) -> None:
    known = {row.topic for row in tx.execute(sa.select(bindings.c.topic).where(bindings.c.group == group))}
    tx.execute(bindings.delete().where(bindings.c.group == group, bindings.c.topic.not_in(topics)))
    for topic in topics:
        if topic in known:
            continue
        tx.execute(bindings.insert().values(group=group, topic=topic))
        if from_start:
            there = sa.select(sa.literal(group), messages.c.position, sa.literal(0)).where(messages.c.topic == topic)
            tx.execute(queue.insert().from_select(["group", "position", "given"], there))


def _waiting(tx: Transaction, group: str, after: int) -> list[Stored]:
    rows = tx.execute(
        sa.select(queue.c.position, messages.c.key, queue.c.given, messages.c.message)
        .join(messages, messages.c.position == queue.c.position)
        .where(queue.c.group == group, queue.c.position > after)
        .order_by(queue.c.position)
        .limit(PAGE)
    )
    return [Stored(*tuple(row)) for row in rows]


def _note(tx: Transaction, group: str, handled: Sequence[int], given: dict[int, int]) -> None:
    if handled:
        tx.execute(_HANDLED, {"group_": group, "positions": handled})
    if given:
        tx.execute(_GIVEN, [{"group_": group, "at": position, "times": times} for position, times in given.items()])


def _history(tx: Transaction, topic: str, after: int) -> list[tuple[int, bytes]]:
    rows = tx.execute(
        sa.select(messages.c.position, messages.c.message)
        .where(messages.c.topic == topic, messages.c.position > after)
        .order_by(messages.c.position)
        .limit(PAGE)
    )
    return [(row.position, row.message) for row in rows]


def _purge(tx: Transaction, before: int) -> tuple[int, int]:
    old = sa.select(messages.c.position).where(messages.c.at < before).order_by(messages.c.position).limit(PAGE)
    positions = [row.position for row in tx.execute(old)]
    if not positions:
        return 0, 0
    untaken = tx.execute(queue.delete().where(queue.c.position.in_(positions))).rowcount
    tx.execute(messages.delete().where(messages.c.position.in_(positions)))
    return len(positions), untaken
