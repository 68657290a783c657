"""RabbitMQ carries what every broker carries, and goes on when connections break."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
from pika import BasicProperties
from pika.spec import Basic
from twisted.internet.defer import DeferredQueue
from twisted.internet.task import Clock

from ropewalk import Unavailable
from ropewalk.driver import Driver
from ropewalk.errors import ConfigurationError
from ropewalk.event import Message
from ropewalk.plugin import find_adapter
from ropewalk.testing.contracts import BrokerContract
from ropewalk.testing.contracts.broker import TOPIC, Brokers, Hands, message
from ropewalk.testing.contracts.suite import Contract
from ropewalk_rabbitmq import member
from ropewalk_rabbitmq.broker import PARTITIONS, make, partition_of, rounds
from ropewalk_rabbitmq.where import parse

_numbers = count()


class OnRabbitMQ(Contract):
    """What the tests on a real server share."""

    prefix: str
    url = "rabbitmq://guest:guest@127.0.0.1:5672/%2F"

    @pytest.fixture(autouse=True)
    def _under_names_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(member, "AGAIN", 0.05)
        self.prefix = f"ropewalk-test-{os.getpid()}-{next(_numbers)}"
        self.queues: set[str] = set()
        yield
        delete(self.prefix, self.queues)

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        from twisted.internet import reactor

        clock: Any = reactor

        async def new() -> Any:
            broker: Any = make(
                f"{self.url}?prefix={self.prefix}",
                data=None,  # type: ignore[arg-type]  # nothing lies in files
                reactor=reactor,
                clock=clock,
                now=lambda: 0.0,
                random=Random(1),
            )
            subscribe = broker.subscribe

            async def noted(group: str, *said: Any, **options: Any) -> Any:
                self.queues |= {f"{self.prefix}.{group}.{partition}" for partition in range(PARTITIONS)}
                return await subscribe(group, *said, **options)

            broker.subscribe = noted
            return broker

        return new


def delete(prefix: str, queues: set[str]) -> None:
    """What a test has left on the server."""
    import pika

    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1"))
    channel = connection.channel()
    for queue in sorted(queues):
        channel.queue_delete(queue)
    channel.exchange_delete(f"{prefix}.events")
    connection.close()


@pytest.mark.backend("rabbitmq")
class TestRabbitMQBroker(OnRabbitMQ, BrokerContract):
    """What every broker keeps."""


@pytest.mark.backend("rabbitmq")
class TestConnectionsThatBreak(OnRabbitMQ, BrokerContract):
    """Only these tests: see the end of the file."""

    async def test_subscriptions_come_back_and_what_was_in_hand_is_given_again(self, brokers: Brokers) -> None:
        listener, publisher = await brokers.make(), await brokers.make()
        hands = Hands(hold=lambda message: message.id == "a1")
        await listener.subscribe("listener", [TOPIC], hands, 4)
        await publisher.publish([message("a1", "a"), message("a2", "a")])
        await self.until(lambda: hands.held)

        listener._connection._open.transport.abortConnection()
        await self.until(lambda: not hands.held or len(hands.taken) > 1)
        await self.until(lambda: hands.held)
        hands.let_go()

        await self.until(lambda: hands.ids == ["a1", "a2"])
        assert [("a1", 1), ("a1", 2)] == [each for each in hands.taken if each[0] == "a1"][:2]
        await publisher.publish([message("a3", "a")])
        await self.until(lambda: hands.ids == ["a1", "a2", "a3"])

    async def test_a_channel_that_the_server_has_closed_comes_back_too(self, brokers: Brokers) -> None:
        listener = await brokers.make()
        hands = Hands()
        await listener.subscribe("listener", [TOPIC], hands, 4)
        gone = listener._members[0]._channel

        gone.basic_ack(1000)  # of no message: the server refuses it as it refuses one that comes too late
        await self.until(lambda: listener._members[0]._channel not in (None, gone))

        await listener.publish([message("a1", "a")])
        await self.until(lambda: hands.ids == ["a1"])

    async def test_who_subscribes_when_it_breaks_is_told_and_can_do_it_again(self, brokers: Brokers) -> None:
        listener = await brokers.make()
        await listener.subscribe("other", [TOPIC], Hands(), 4)
        hands = Hands()

        subscribing = Driver.of().run(listener.subscribe("listener", [TOPIC], hands, 4))
        listener._connection._open.transport.abortConnection()
        with pytest.raises(Unavailable, match="rabbitmq") as raised:
            await subscribing
        assert "no" == raised.value.ran

        await listener.subscribe("listener", [TOPIC], hands, 4)
        await listener.publish([message("a1", "a")])
        await self.until(lambda: hands.ids == ["a1"])

    async def test_a_queue_that_was_declared_otherwise_is_a_mistake_of_the_configuration(
        self, brokers: Brokers
    ) -> None:
        import pika

        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1")) as connection:
            connection.channel().queue_declare(f"{self.prefix}.listener.0", durable=True)

        with pytest.raises(ConfigurationError, match=r"^listener: .* refuses its queues.*inequivalent arg"):
            await (await brokers.make()).subscribe("listener", [TOPIC], Hands(), 4)

    async def test_a_queue_that_was_deleted_comes_back_too(self, brokers: Brokers) -> None:
        listener = await brokers.make()
        hands = Hands()
        await listener.subscribe("listener", [TOPIC], hands, 4)
        gone = listener._members[0]._channel

        delete(self.prefix, set(listener._members[0].queues))
        await self.until(lambda: listener._members[0]._channel not in (None, gone))

        await listener.publish([message("a1", "a")])
        await self.until(lambda: hands.ids == ["a1"])

    async def test_what_publishes_after_its_channel_was_closed_can_do_it_again(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands()
        await broker.subscribe("listener", [TOPIC], hands, 4)
        gone = broker._publishing

        gone.basic_ack(1000)
        await self.until(lambda: broker._publishing not in (None, gone))

        await broker.publish([message("a1", "a")])
        await self.until(lambda: hands.ids == ["a1"])

    async def test_who_publishes_when_it_breaks_is_told_and_can_do_it_again(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands()
        await broker.subscribe("listener", [TOPIC], hands, 4)
        sent = [message(key="k") for _ in range(200)]

        publishing = Driver.of().run(broker.publish(sent))
        broker._connection._open.transport.abortConnection()
        with pytest.raises(Unavailable) as raised:
            await publishing
        assert "maybe" == raised.value.ran

        await broker.publish(sent)
        await self.until(lambda: len(hands.ids) == 200)
        assert [each.id for each in sent] == hands.ids

    async def test_nobody_there_is_said_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from twisted.internet import reactor

        monkeypatch.setattr("ropewalk_rabbitmq.connection.PATIENCE", 0.1)
        clock: Any = reactor
        broker = make(
            "rabbitmq://127.0.0.1:1",
            data=None,  # type: ignore[arg-type]
            reactor=reactor,
            clock=clock,
            now=lambda: 0.0,
            random=Random(1),
        )

        with pytest.raises(Unavailable, match=r"rabbitmq://127.0.0.1:1 cannot be used") as raised:
            await broker.publish([message()])

        assert "no" == raised.value.ran
        await broker.close()


for _name in [name for name in vars(BrokerContract) if name.startswith("test_")]:
    setattr(TestConnectionsThatBreak, _name, None)  # they ran above


class Waiting:
    """A channel of pika's, all of whose messages are there before anybody asks for the first."""

    is_open = True

    def __init__(self, *messages: Message) -> None:
        self.arriving: DeferredQueue[Any] = DeferredQueue()
        self.acknowledged: list[int] = []
        for tag, each in enumerate(messages, 1):
            self.arriving.put((self, Basic.Deliver(delivery_tag=tag), BasicProperties(), each.encoded()))

    async def basic_consume(self, queue: str) -> tuple[Any, str]:
        return self.arriving, queue

    def basic_ack(self, tag: int) -> None:
        self.acknowledged.append(tag)


def test_what_is_there_before_it_is_asked_for_is_handled_in_its_order() -> None:
    clock, handled = Clock(), []

    async def handle(message: Message, attempt: int) -> None:
        handled.append(message.id)

    there = Waiting(*(message(id, "a") for id in "1234"))
    taker = member.Member(["q"], handle, 1, clock, Driver.of(clock))
    Driver.of(clock).run(taker.consume(there, lambda _: None))
    clock.advance(0)

    assert (["1", "2", "3", "4"], [1, 2, 3, 4]) == (handled, there.acknowledged)


def test_it_is_found_by_its_name() -> None:
    assert "ropewalk_rabbitmq.broker:make" == find_adapter("broker", "rabbitmq://queue").factory


def test_of_one_key_a_later_message_is_in_a_later_round() -> None:
    sent = [message("a1", "a"), message("b1", "b"), message("a2", "a"), message("c"), message("a3", "a")]

    assert [["c", "a1", "b1"], ["a2"], ["a3"]] == [[each.id for each in part] for part in rounds(sent)]
    assert [] == rounds([])


def test_one_key_has_one_partition_and_all_are_used() -> None:
    assert 1 == len({partition_of(message(key="room-12")) for _ in range(20)})
    assert set(range(PARTITIONS)) == {partition_of(message(key=f"room-{number}")) for number in range(200)}


@pytest.mark.parametrize("where", ["rabbitmq:", "amqp://x", "rabbitmq://h?partitions=2", "rabbitmq://h?prefix=a b"])
def test_a_wrong_url_is_refused_without_its_password(where: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[adapters\] broker"):
        parse(where.replace("://", "://u:secret@") if "//" in where else "rabbitmq://u:secret@h:port")
