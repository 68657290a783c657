"""One member of a group: its leases, what it has read of its partitions, and what it has in hand.

Three coroutines: `_keep_beating` renews the leases and finds out which partitions are its own; `_keep_reading`, on a
connection that may block, fills them; `_flush` writes down what was given and what is done. `_pump` gives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ropewalk.bell import Bell
from ropewalk.driver import Driver
from ropewalk.errors import Unavailable
from ropewalk.event import Message, Undeliverable
from ropewalk.interfaces import ISubscription
from ropewalk.policy.lanes import Lanes

from . import scripts
from .connection import Connection

LEASE = 5.0  # seconds, after which the partitions of a member that is not heard of are another's
SAFE = 0.8  # the share of it in which a member believes in it: what is in hand then has the rest of it to stop
BEAT = 1.0  # seconds between renewals: some may get lost
GRACE = (
    60.0  # seconds until what keeps a partition from going to another member is cancelled: as long as an event takes
)
BLOCK = 1.0  # seconds a read waits for messages; what is not waited for then is waited for in the next one
PAGE = 100  # messages read at once, of each topic
LOADED = 1000  # messages of a partition in memory, and a page of each topic; the rest waits in Redis
AGAIN = 1.0  # seconds until a message that was given back is given again
SOON = 0.1  # seconds until something else is tried again

Handle = Callable[[Message, int], Awaitable[None]]
Id = tuple[int, int]
_log = Logger("ropewalk.broker")


def parsed(id: bytes) -> Id:
    """The id of an entry, as what can be compared.

    >>> parsed(b"1777626000000-10") > parsed(b"1777626000000-9")
    True
    """
    ms, _, seq = id.partition(b"-")
    return int(ms), int(seq)


def _said(id: Id) -> str:
    return f"{id[0]}-{id[1]}"


class Row(Struct):
    """A message that this member has read."""

    topic: str
    message: Message
    given: int  # how often


class Stream(Struct):
    """One topic of a partition, as far as it was read."""

    topic: str
    pending: str = "-"  # where the list of what the last owner left goes on; "": it was read
    through: Id = (0, 0)  # everything up to there was read
    more: bool = True  # there is, or may be, something after that
    ahead: list[tuple[Id, Row]] = []  # read, but earlier messages of another topic may not be


class Partition:
    """One partition of the group, while it is this member's."""

    def __init__(self, number: int, topics: Sequence[str]) -> None:
        self.number = number
        self.streams = [Stream(topic) for topic in topics]
        self.lanes: Lanes[Id] = Lanes()
        self.rows: dict[Id, Row] = {}
        self.handling: dict[Id, Deferred[Any]] = {}
        self.notes: dict[tuple[str, Id], int] = {}  # topic and id -> the count it is to have, 0 when it is done
        self.flushing = False
        self.leaving = False  # it takes nothing new, and goes when its hands are free
        self.lost = False  # it is somebody else's already

    @property
    def hungry(self) -> bool:
        """Whether more should be read."""
        return not self.leaving and len(self.lanes) < LOADED and any(stream.more for stream in self.streams)

    @property
    def idle(self) -> bool:
        """Whether nothing of it is in hand, nor to be written down."""
        return not self.handling and (self.lost or not (self.notes or self.flushing))

    def took(self, answer: Sequence[Any], asked: Sequence[Stream]) -> None:
        """What the script TAKE has answered: the id given last, then the entries of each stream that was asked."""
        last = parsed(answer[0])
        for stream, (entries, pending) in zip(asked, answer[1:], strict=True):
            for entry, count, body in entries:
                self._read(stream, parsed(entry), count, body)
            ids = [parsed(entry) for entry, _, _ in entries]
            stream.pending = f"({_said(ids[-1])}" if pending == PAGE else ""
            stream.more = PAGE in (pending, len(entries) - pending)
            # All that was there is at most `last`; what is added later has later ids, in every stream.
            stream.through = ids[-1] if stream.more else max([last, *ids])
        through = min(stream.through for stream in self.streams)
        ready = []
        for stream in self.streams:
            ready += [each for each in stream.ahead if each[0] <= through]
            stream.ahead = [each for each in stream.ahead if each[0] > through]
        for id, row in sorted(ready, key=lambda each: each[0]):
            self.rows[id] = row
            self.lanes.add(id, row.message.key)

    def _read(self, stream: Stream, id: Id, count: int, body: bytes | None) -> None:
        try:
            if body is None:
                raise Undeliverable("It was deleted.")
            message = Message.decoded(body)
        except Undeliverable as error:
            _log.error("broker.unreadable {topic} {id}: {error}", topic=stream.topic, id=_said(id), error=error)
            self.notes[stream.topic, id] = 0
        else:
            stream.ahead.append((id, Row(stream.topic, message, count - 1)))

    def __repr__(self) -> str:
        return f"{self.number} ({len(self.lanes)} here, {len(self.handling)} being handled)"


@implementer(ISubscription)
class Member:
    """One that takes part in a group."""

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        handle: Handle,
        at_once: int,
        partitions: int,
        token: str,
        connection: Connection,
        reader: Connection,
        clock: IReactorTime,
        driver: Driver,
        stopped: Callable[[Member], object],
    ) -> None:
        """`reader` is its own, and closed with it; `token`: no other member's. `stopped` is called when it has."""
        self.group = group
        self._topics = topics
        self._handle = handle
        self._free = at_once
        self._count = partitions
        self._token = token
        self._connection = connection
        self._reader = reader
        self._clock = clock
        self._driver = driver
        self._was_stopped = stopped
        self._prefix = connection.where.prefix
        self._partitions: dict[int, Partition] = {}
        self._turn = 0  # whose it is
        self._pumping = False
        self._since = "$"
        self._bell = Bell(clock)  # for who reads
        self._gone = Bell(clock)  # for who waits until there are no partitions
        self._client = 0  # what the server calls the reader
        self._blocked = False  # whether that waits for messages
        self._expiry: IDelayedCall | None = None  # when the leases do, unless they are renewed
        self._timers: set[IDelayedCall] = set()
        self._running: list[Deferred[Any]] = []
        self._joined = self._stopping = self._stopped = False
        self._idle: list[Deferred[None]] = []  # who waits until it has stopped

    async def join(self, since: str) -> None:
        """Be a member; a new group begins after `since`, an id or "$", what is published from now on."""
        self._since = await self._bind(since)
        self._joined = True
        await self._beat()
        for coroutine in (self._keep_beating(), self._keep_reading()):
            running = self._driver.run(coroutine)
            running.addErrback(lambda failure: failure.trap(CancelledError))
            self._running.append(running)

    async def stop(self) -> None:
        """As ISubscription."""
        if not self._stopping:
            self._stopping = True
            for partition in list(self._partitions.values()):
                self._leave(partition)
            self._run(self._end(), "stop")
        while not self._stopped:
            idle: Deferred[None] = Deferred(lambda _: None)
            self._idle.append(idle)
            await idle

    async def _end(self) -> None:
        while self._partitions:
            await self._gone.wait()
        for running in self._running:
            running.cancel()
        for timer in [self._expiry, *self._timers]:
            if timer is not None and timer.active():
                timer.cancel()
        try:
            await self._reader.close()
            if self._joined:
                await self._ask_for_leases(-1)
        finally:
            self._stopped = True
            self._was_stopped(self)
            idle, self._idle = self._idle, []
            for waiting in idle:
                if not waiting.called:
                    waiting.callback(None)

    # -- leases

    async def _keep_beating(self) -> None:
        while True:
            await deferLater(self._clock, BEAT)
            try:
                await self._beat()
            except Unavailable as error:
                _log.warn("broker.beat.failed {group}: {error}", group=self.group, error=error)
            for partition in list(self._partitions.values()):
                self._flush(partition)

    async def _beat(self) -> None:
        """Renew what it has, and take what is free of its share."""
        sent = self._clock.seconds()
        share, mine, bound = await self._ask_for_leases(int(not self._stopping))
        self._expires(sent + LEASE * SAFE)  # Redis counts from when it had this, which was later
        for number in sorted(set(self._partitions) - set(mine)):
            self._lose(self._partitions[number])
        if self._stopping:
            return
        if not bound:  # the server has lost all it had
            await self._bind(self._since)
        for number in mine:
            if number not in self._partitions:
                self._partitions[number] = Partition(number, self._topics)
                self._wake()
        staying = [each for each in self._partitions.values() if not each.leaving]
        staying.sort(key=lambda each: (len(each.handling), each.number))
        for partition in staying[: max(0, len(staying) - share)]:
            self._leave(partition)

    async def _ask_for_leases(self, stays: int) -> tuple[int, list[int], int]:
        arguments = (self._prefix, self.group, self._token, self._count, int(LEASE * 1000), stays)
        share, mine, bound = await self._connection.script(scripts.BEAT, *arguments)
        return share, mine, bound

    def _expires(self, when: float) -> None:
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self._expiry = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._expired)

    def _expired(self) -> None:
        for partition in list(self._partitions.values()):
            self._lose(partition)

    def _lose(self, partition: Partition) -> None:
        """It is, or may be, another's: stop what is in hand, which is given again there."""
        if not partition.lost:
            _log.warn("broker.lease.lost {group} {partition}", group=self.group, partition=partition.number)
        partition.leaving = partition.lost = True
        for handling in list(partition.handling.values()):
            handling.cancel()
        self._look_at(partition)

    def _leave(self, partition: Partition) -> None:
        """Give it to others, when what is in hand is done."""
        partition.leaving = True
        if not self._stopping:
            self._later(GRACE, self._lose_patience, partition)
        self._look_at(partition)

    def _lose_patience(self, partition: Partition) -> None:
        for handling in list(partition.handling.values()):
            handling.cancel()

    def _look_at(self, partition: Partition) -> None:
        """Let go of it, when it is to go and nothing keeps it."""
        if not partition.leaving or self._partitions.get(partition.number) is not partition:
            return
        self._flush(partition)
        if partition.idle:
            del self._partitions[partition.number]
            if not partition.lost:
                self._run(self._release(partition), "release")
            self._gone.ring()

    async def _release(self, partition: Partition) -> None:
        await self._connection.script(scripts.RELEASE, self._prefix, self.group, partition.number, self._token)

    # -- reading

    async def _bind(self, since: str) -> str:
        last: bytes = await self._connection.script(
            scripts.BIND, self._prefix, self.group, self._count, since, *self._topics
        )
        return last.decode()

    async def _keep_reading(self) -> None:
        while True:
            try:
                for partition in [each for each in self._partitions.values() if each.hungry]:
                    await self._take(partition)
                    self._pump()
                await self._wait()
            except Unavailable as error:
                _log.warn("broker.read.failed {group}: {error}", group=self.group, error=error)
                self._client = 0  # it may have another name on its next connection
                await deferLater(self._clock, SOON)
                if "NOGROUP" in error.detail:  # somebody has deleted it
                    await self._bind_again()
            except Exception:
                # Whoever has the partitions must read them: what ends here would keep them from everybody.
                _log.failure("broker.read.failed {group}", group=self.group)
                await deferLater(self._clock, AGAIN)

    async def _take(self, partition: Partition) -> None:
        asked = [stream for stream in partition.streams if not stream.ahead]
        said = [each for stream in asked for each in (stream.topic, stream.pending)]
        for stream in asked:  # should the answer be lost, what was in it is pending
            stream.pending = stream.pending or f"({_said(stream.through)}"
        answer = await self._reader.script(
            scripts.TAKE, self._prefix, self.group, partition.number, self._token, PAGE, *said
        )
        if answer is None:
            self._lose(partition)
        elif not partition.lost:
            partition.took(answer, asked)

    async def _wait(self) -> None:
        """Returns when there may be more of what was read to its end."""
        self._client = self._client or await self._reader.call("CLIENT", "ID")
        if any(partition.hungry for partition in self._partitions.values()):
            return
        waits = [
            (partition, stream)
            for partition in self._partitions.values()
            if not (partition.leaving or any(stream.more for stream in partition.streams))
            for stream in partition.streams
        ]
        if not waits:
            await self._bell.wait()
            return
        names = {f"{self._prefix}:stream:{stream.topic}:{part.number}".encode(): stream for part, stream in waits}
        after = [_said(stream.through) for _, stream in waits]
        try:
            self._blocked = True
            found = await self._reader.call(
                "XREAD", "COUNT", 1, "BLOCK", int(BLOCK * 1000), "STREAMS", *names, *after, longer=BLOCK
            )
        finally:
            self._blocked = False
        for name, _ in found or ():
            names[name].more = True

    def _wake(self) -> None:
        """There is something to read that is not waited for."""
        self._bell.ring()
        if self._blocked:
            self._blocked = False
            self._run(self._unblock(), "unblock")

    async def _unblock(self) -> None:
        await self._connection.call("CLIENT", "UNBLOCK", self._client)

    async def _bind_again(self) -> None:
        try:
            await self._bind(self._since)
        except Unavailable as error:
            _log.warn("broker.bind.failed {group}: {error}", group=self.group, error=error)

    # -- giving

    def _pump(self) -> None:
        """Give what may be given, while a hand is free."""
        if self._pumping:  # what was given was handled at once
            return
        self._pumping = True
        try:
            while self._free > 0 and (found := self._next()) is not None:
                self._give(*found)
        finally:
            self._pumping = False

    def _next(self) -> tuple[Partition, Id] | None:
        partitions = [each for each in self._partitions.values() if not each.leaving]
        for offset in range(len(partitions)):
            partition = partitions[(self._turn + offset) % len(partitions)]
            id = partition.lanes.take()
            if id is not None:
                self._turn = (self._turn + offset + 1) % len(partitions)
                return partition, id
        return None

    def _give(self, partition: Partition, id: Id) -> None:
        row = partition.rows[id]
        row.given += 1
        self._free -= 1
        handling = self._driver.run(self._handle(row.message, row.given))
        partition.handling[id] = handling
        handling.addCallbacks(self._done, self._not_done, callbackArgs=(partition, id), errbackArgs=(partition, id))
        if id in partition.handling:
            partition.notes[row.topic, id] = row.given + 1
            self._flush(partition)

    def _done(self, _: Any, partition: Partition, id: Id) -> None:
        row = partition.rows.pop(id)
        partition.notes[row.topic, id] = 0
        partition.lanes.done(id)
        if partition.hungry:
            self._wake()
        self._ended(partition, id)

    def _not_done(self, failure: Any, partition: Partition, id: Id) -> None:
        # Not at once: what fails at once would be tried as fast as this machine can.
        if not partition.leaving:
            self._later(AGAIN, self._again, partition, id)
        self._ended(partition, id)

    def _ended(self, partition: Partition, id: Id) -> None:
        partition.handling.pop(id, None)
        self._free += 1
        self._flush(partition)
        self._look_at(partition)
        self._pump()

    def _again(self, partition: Partition, id: Id) -> None:
        partition.lanes.give_back(id)
        self._pump()

    # -- writing down

    def _flush(self, partition: Partition) -> None:
        if partition.notes and not partition.flushing:
            partition.flushing = True
            self._run(self._write(partition), "writing")

    async def _write(self, partition: Partition) -> None:
        """Have Redis know what was given and what is done; what fails is tried again with the next beat."""
        try:
            while partition.notes:
                notes, partition.notes = partition.notes, {}
                said = [each for (topic, id), count in notes.items() for each in (topic, _said(id), count)]
                try:
                    await self._connection.script(
                        scripts.NOTE, self._prefix, self.group, partition.number, self._token, *said
                    )
                except BaseException:
                    partition.notes = {**notes, **partition.notes}
                    raise
        finally:
            partition.flushing = False
        self._look_at(partition)

    # -- helping

    def _run(self, coroutine: Any, what: str) -> None:
        self._driver.run(coroutine).addErrback(self._failed, what)

    def _failed(self, failure: Any, what: str) -> None:
        if failure.check(Unavailable):
            _log.warn("broker.{what}.failed {group}: {error}", what=what, group=self.group, error=failure.value)
        else:
            _log.failure("broker.{what}.failed {group}", failure, what=what, group=self.group)

    def _later(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        def call() -> None:
            self._timers.discard(timer)
            function(*arguments)

        timer = self._clock.callLater(seconds, call)
        self._timers.add(timer)

    def __repr__(self) -> str:
        return f"{self.group} ({', '.join(map(repr, self._partitions.values())) or 'no partition'})"
