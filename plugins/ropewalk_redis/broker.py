"""The broker in Redis: Streams, a fixed number of partitions for each topic, each read by one member of a group.

**What must be so at the server**: `appendonly yes`, `appendfsync always`, `no-appendfsync-on-rewrite no` and
`maxmemory-policy noeviction`. Then what was published is on its disk when `publish` returns. Below that floor, which is
looked at once and warned about, what Redis has not yet written is lost with it: with `appendfsync everysec` a second of
acknowledged events, with `appendonly no` all since its last snapshot. A replica that takes over may lack the last ones
in any case. Redis is 6.2 or later, one server; what goes to and fro is not encrypted.

**Order**: a message lies in the partition that its key's CRC-32 says, one without a key where its id's does. A group's
partition is one member's at a time: it holds a lease, which it renews five times before it would expire by Redis's own
clock, and says the lease's token with everything it reads. A member that could not renew it for four fifths of its time
stops: it cancels what it has in hand before Redis gives the partition to another, which begins with what was not
acknowledged; of one that dies, five seconds later. Members get equal shares; when one comes the others let go of what
is too much, each partition once nothing of it is in hand.

**How long**: for a week, looked at every ten minutes, and what a group has not acknowledged stays until it has. A group
that does not come back keeps all that it has not read, which is logged, until Redis is full and publishing is
Unavailable: the events then wait in the publishers' databases. A group that nobody will be any more is ended by `XGROUP
DESTROY` on its streams, and `SREM` of its name from `<prefix>:groups:<topic>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ropewalk.driver import Driver
from ropewalk.errors import ConfigurationError, Unavailable
from ropewalk.event import Message
from ropewalk.interfaces import IBroker, ISubscription

from . import scripts
from .connection import CLOSED, Connection
from .member import Handle, Id, Member, parsed
from .where import Where, parse

PARTITIONS = 8  # so many processes of one subscriber can be at work; never changed once there is something in Redis
KEEPS = 7 * 86400  # seconds that messages stay
PURGE = 600  # seconds between looks for those that are older, of all who use this Redis
ONCE = 200  # messages published by one script, during which Redis does nothing else
PAGE = 200  # messages of a partition read for a history

# What CONFIG GET is asked, what must be found, and what is lost otherwise
FLOOR = (
    ("appendonly", "yes", "a restart loses what was published since the last snapshot"),
    ("appendfsync", "always", "a crash of its machine loses what was published in the last second, or more"),
    ("no-appendfsync-on-rewrite", "no", "a crash of its machine loses what was published while the file is rewritten"),
    ("maxmemory-policy", "noeviction", "it may drop messages when its memory is full"),
)

_log = Logger("ropewalk.broker")


@implementer(IBroker)
class RedisBroker:
    """The broker as one process has it: a connection, and one more for each subscription, which blocks."""

    keeps_history = True

    def __init__(self, where: Where, reactor: Any, clock: IReactorTime, random: Random) -> None:
        """Connects when it is first used. `random`: for tokens, which must differ between processes."""
        self._where = where
        self._reactor = reactor
        self._clock = clock
        self._random = random
        self._driver = Driver.of(reactor)
        self._connection = Connection(where, reactor, clock, random)
        self._partitions = 0  # until Redis was asked
        self._looked = False  # at the floor
        self._members: list[Member] = []  # who have not stopped
        self._purging: Deferred[Any] | None = None
        self._closed = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        partitions = await self._ready()
        lost: list[str] = []
        for start in range(0, len(messages), ONCE):
            some = messages[start : start + ONCE]
            said: list[object] = []
            for message in some:
                said += (message.topic, partition_of(message, partitions), message.encoded())
            try:
                heard = await self._connection.script(scripts.PUBLISH, self._where.prefix, *said)
            except Unavailable as error:
                if start:
                    error.ran = "maybe"
                raise
            lost += [message.id for message, groups in zip(some, heard, strict=True) if not groups]
        return lost

    async def subscribe(
        self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool = False
    ) -> ISubscription:
        """As IBroker."""
        partitions = await self._ready()
        member = Member(
            group,
            sorted(topics),
            handle,
            at_once,
            partitions,
            f"{self._random.getrandbits(128):032x}",
            self._connection,
            Connection(self._where, self._reactor, self._clock, self._random),
            self._clock,
            self._driver,
            self._members.remove,
        )
        self._members.append(member)
        try:
            await member.join("0" if from_start else "$")
        except BaseException:
            await member.stop()
            raise
        return member

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""
        partitions = await self._ready()
        end = await self._connection.call("GET", f"{self._where.prefix}:last") or b"0-0"
        after: Id = (0, 0)
        while True:
            pages = await self._connection.script(
                scripts.HISTORY, self._where.prefix, topic, partitions, f"{after[0]}-{after[1]}", end, PAGE
            )
            # A page that is full may go on: what is later than its last one waits for the next turn.
            through = min((parsed(page[-1][0]) for page in pages if len(page) == PAGE), default=None)
            found = sorted((parsed(id), body) for page in pages for id, body in page)
            for id, body in found:
                if through is None or id <= through:
                    yield Message.decoded(body)
            if through is None:
                return
            after = through

    async def close(self) -> None:
        """As IBroker."""
        if self._closed:
            return
        self._closed = True
        if self._purging is not None:
            self._purging.cancel()
        for member in list(self._members):
            await member.stop()
        await self._connection.close()

    async def purge(self) -> int:
        """Delete what is old enough, unless somebody else did just now; how many those were."""
        prefix, deleted = self._where.prefix, 0
        for topic in await self._connection.script(scripts.PURGES, prefix, PURGE * 1000):
            for partition in range(self._partitions):
                gone, late = await self._connection.script(scripts.PURGE, prefix, topic, partition, KEEPS * 1000)
                deleted += gone
                for group in late:
                    _log.error(
                        "broker.late: {group} has not handled messages of {topic} that are older than a week",
                        group=group.decode(),
                        topic=topic.decode(),
                        partition=partition,
                    )
        return deleted

    # -- what must be known first

    async def _ready(self) -> int:
        """How many partitions there are; raises ConfigurationError when that is not what the URL says."""
        if self._closed:
            error = Unavailable(f"{self._where} cannot be used: {CLOSED}.")
            error.ran = "no"
            raise error
        if not self._partitions:
            try:
                self._partitions = await self._agreed()
            except Unavailable as error:
                error.ran = "no"
                raise
            if not self._looked:
                self._looked = True
                await self._look_at_floor()
            if self._purging is None and not self._closed:
                self._purging = self._driver.run(self._keep_purging())
                self._purging.addErrback(lambda failure: failure.trap(CancelledError))
        return self._partitions

    async def _agreed(self) -> int:
        """What was chosen first: with another number the messages of a key would lie in two partitions."""
        name, wanted = f"{self._where.prefix}:partitions", self._where.partitions
        await self._connection.call("SET", name, wanted or PARTITIONS, "NX")
        found = int(await self._connection.call("GET", name))
        if wanted and wanted != found:
            raise ConfigurationError(
                f"[adapters] broker: partitions is {wanted}, but {self._where} has {found} of them under the prefix "
                f"{self._where.prefix!r}, and keys cannot move. Say {found}, or take another prefix."
            )
        return found

    async def _look_at_floor(self) -> None:
        try:
            found = {name: await self._connection.call("CONFIG", "GET", name) for name, _, _ in FLOOR}
        except Unavailable as error:
            _log.warn("broker.floor.unknown: {error} Whether it keeps what was published is not known.", error=error)
            return
        for name, wanted, consequence in FLOOR:
            answer = found[name]
            value = answer[1].decode() if answer else "unknown"
            if value != wanted:
                _log.warn(
                    "broker.floor: {where} has {name} {value}, expected {wanted}: {consequence}",
                    where=self._where,
                    name=name,
                    value=value,
                    wanted=wanted,
                    consequence=consequence,
                )

    async def _keep_purging(self) -> None:
        while True:
            try:
                await self.purge()
            except Unavailable as error:
                _log.warn("broker.purge.postponed {error}", error=error)
            await deferLater(self._clock, PURGE)

    def __repr__(self) -> str:
        members = ", ".join(map(repr, self._members)) or "none"
        return f"<RedisBroker at {self._where!r}: {self._connection.state}; members: {members}>"


def partition_of(message: Message, partitions: int) -> int:
    """Where it lies: always the same for a key, in every process and release."""
    return crc32((message.key or message.id).encode()) % partitions


def make(where: str, *, data: Path, reactor: Any, clock: IReactorTime, now: Any, random: Random) -> IBroker:
    """The adapter "redis"; `where` as `parse` reads it. `data` and `now` are not used: Redis has its own clock."""
    return RedisBroker(parse(where), reactor, clock, random)
