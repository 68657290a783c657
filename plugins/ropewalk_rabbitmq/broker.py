"""RabbitMQ as a broker: one exchange, and for each group as many quorum queues as there are partitions.

A message's partition follows from its key; each partition of a group has a single active consumer, so that of one key
one message at a time is handled anywhere. What is published has been confirmed by a majority of the queue's replicas.

Its floor: quorum queues (RabbitMQ 3.10 or later), which keep what they confirmed on the disks of a majority; a cluster
of one node is as safe as that node's disk. It keeps no history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ropewalk.driver import Driver, settled
from ropewalk.errors import ConfigurationError
from ropewalk.event import Message
from ropewalk.interfaces import IBroker, ISubscription

from .connection import CLOSED, Connection
from .member import Member
from .where import parse

# Of each group: that many members may be active at once. Each costs a replicated queue for each group, so not many.
PARTITIONS = 8
ANSWER = 5.0  # seconds for a confirmation: a majority of disks

Handle = Callable[[Message, int], Awaitable[None]]
_log = Logger("ropewalk.rabbitmq")


@implementer(IBroker)
class RabbitMQBroker:
    """The broker as one process has it."""

    keeps_history = False

    def __init__(self, where: str, reactor: Any, clock: IReactorTime, random: Random) -> None:
        """`where`: "rabbitmq" or a URL, see `parse`."""
        self._where = parse(where)
        self._reactor = reactor
        self._clock = clock
        self._exchange = f"{self._where.prefix}.events"
        self._connection = Connection(self._where, reactor, clock, random, self._connected, self._lost)
        self._publishing: Any = None  # a channel with confirmations
        self._returned: set[str] = set()
        self._members: list[Member] = []
        self._closed = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        lost: list[str] = []
        for round_ in rounds(messages):
            lost.extend(await self._publish(round_))
        there = {message.id: place for place, message in enumerate(messages)}
        return sorted(lost, key=lambda id: there[id])

    async def subscribe(
        self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool = False
    ) -> ISubscription:
        """As IBroker."""
        if from_start:
            raise ConfigurationError(f"{group}: from_start takes a broker that keeps history; RabbitMQ keeps none.")
        if self._closed:
            raise self._connection.unavailable(CLOSED, "no")
        member = Member(
            [f"{self._where.prefix}.{group}.{partition}" for partition in range(PARTITIONS)],
            handle,
            at_once,
            self._clock,
            Driver.of(self._reactor),
        )
        partitions = range(PARTITIONS)
        member.bindings = [(each, routing(each, topic)) for topic in sorted(topics) for each in partitions]
        from pika.exceptions import AMQPError, ChannelClosedByBroker

        connection = await self._connection.get()
        try:
            await self._join(connection, member)
        except ChannelClosedByBroker as error:
            raise ConfigurationError(
                f"{group}: {self._where} refuses its queues: {error.reply_text}. Those that were declared otherwise: "
                "delete them, or say another ?prefix=."
            ) from error
        except (AMQPError, ConnectionClosed) as error:
            raise self._connection.unavailable(str(error) or type(error).__name__, "no") from error
        self._members.append(member)
        return member

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""
        raise ConfigurationError(f"{topic}: RabbitMQ keeps no history; choose a broker that does, or the built-in one.")
        yield  # an asynchronous iterator all the same

    async def close(self) -> None:
        """As IBroker."""
        if self._closed:
            return
        self._closed = True
        await settled(*(member.stop() for member in self._members))
        await self._connection.close()

    # -- a connection comes and goes

    async def _connected(self, connection: Any) -> None:
        channel = await connection.channel()
        await channel.exchange_declare(self._exchange, exchange_type="direct", durable=True)
        await channel.confirm_delivery()
        channel.add_on_return_callback(lambda returned: self._returned.add(returned.properties.message_id))
        self._publishing = channel
        channel.on_closed.addBoth(partial(self._connection.drop, connection))
        for member in self._members:
            await self._join(connection, member)

    def _lost(self) -> None:
        self._publishing = None
        for member in self._members:
            member.lost()

    async def _join(self, connection: Any, member: Member) -> None:
        if member.stopping:
            return
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=member.at_once)
        arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        if _major(connection) >= 4:  # there a message is dropped after twenty deliveries, unless told otherwise
            arguments["x-delivery-limit"] = -1
        for queue in member.queues:
            await channel.queue_declare(queue, durable=True, arguments=arguments)
        for partition, key in member.bindings:
            await channel.queue_bind(member.queues[partition], self._exchange, key)
        await member.consume(channel, partial(self._connection.drop, connection))

    # -- publishing

    async def _publish(self, messages: Sequence[Message]) -> list[str]:
        """Of which no two have one key; the ids that came back."""
        from pika import BasicProperties

        await self._connection.get()
        channel = self._publishing
        confirmed: list[Any] = []
        for message in messages:
            properties = BasicProperties(
                content_type="application/cloudevents+json", delivery_mode=2, message_id=message.id
            )
            key = routing(partition_of(message), message.topic)
            confirmed.append(channel.basic_publish(self._exchange, key, message.encoded(), properties, mandatory=True))
        everything: Deferred[Any] = Driver.of(self._reactor).run(settled(*confirmed))
        try:
            outcomes = await everything.addTimeout(ANSWER, self._clock)
        except TookTooLong as error:
            raise self._connection.unavailable("it does not confirm", "maybe") from error
        from pika.exceptions import UnroutableError

        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, UnroutableError):
                raise self._connection.unavailable(str(outcome) or type(outcome).__name__, "maybe") from outcome
        lost = [message.id for message in messages if message.id in self._returned]
        self._returned.difference_update(lost)
        return lost

    def __repr__(self) -> str:
        return f"<RabbitMQBroker at {self._where}, members: {self._members}>"


def make(
    where: str, *, data: Path, reactor: Any, clock: IReactorTime, now: Callable[[], float], random: Random
) -> IBroker:
    """The adapter "rabbitmq"."""
    return RabbitMQBroker(where, reactor, clock, random)


def partition_of(message: Message) -> int:
    """Where it goes: by its key, or, without one, anywhere."""
    return crc32((message.key or message.id).encode()) % PARTITIONS


def routing(partition: int, topic: str) -> str:
    """The routing key."""
    return f"{partition}.{topic}"


def rounds(messages: Sequence[Message]) -> list[list[Message]]:
    """Those messages in order, in parts in which no key is twice.

    A part is published when the one before is confirmed: within one, a later message may be kept and an earlier not.
    """
    keys: dict[str, list[Message]] = defaultdict(list)
    free: list[Message] = []
    for message in messages:
        (keys[message.key] if message.key else free).append(message)
    parts = [[each for each in part if each is not None] for part in zip_longest(*keys.values())]
    return [[*free, *parts[0]], *parts[1:]] if parts else [free] if free else []


def _major(connection: Any) -> int:
    version = str((connection._impl.server_properties or {}).get("version", "0"))
    return int(version.partition(".")[0]) if version[:1].isdigit() else 0
