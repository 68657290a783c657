"""What every IBroker keeps: at least once to each group, in order for each key, one of it at a time, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any, ClassVar

import msgspec
import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ...driver import settled
from ...errors import ConfigurationError, Unavailable
from ...event import LONGEST_KEY, Message
from ...interfaces import IBroker, ISubscription
from ..waiting import POLL
from .suite import Contract

TOPIC, OTHER = "rooms.held", "rooms.left"
MANY = 300  # messages
LONG = 1000  # messages that wait
LARGE = 1_000_000  # characters of a message
KEYS = {"plain": "room-12", "long": "k" * LONGEST_KEY, "of any letters": "Zimmer ä/日本 '\"\\ \n:*?#.", "spaces": "  "}

_numbers = count(1)


def message(id: str = "", key: str = "", topic: str = TOPIC, data: bytes = b'{"room":"12"}') -> Message:
    """One to be published; its id is new unless it is given."""
    return Message(id or f"event-{next(_numbers)}", topic, 1, key, "reservations", 1_777_626_000.0, msgspec.Raw(data))


class Hands:
    """Handles messages: notes each, and keeps in hand, until they are let go, those it is told to hold."""

    def __init__(self, hold: Callable[[Message], bool] = lambda _: False) -> None:
        self.taken: list[tuple[str, int]] = []  # (id, attempt), as they came
        self.at_once = 0  # at most
        self.together: list[str] = []  # keys of which two were in hand
        self.failing: set[str] = set()  # ids that cannot be handled
        self._hold = hold
        self._held: dict[str, Deferred[None]] = {}
        self._keys: Counter[str] = Counter()

    async def __call__(self, message: Message, attempt: int) -> None:
        self.taken.append((message.id, attempt))
        self._keys[message.key] += 1
        if message.key and self._keys[message.key] > 1:
            self.together.append(message.key)
        self.at_once = max(self.at_once, self._keys.total())
        try:
            if self._hold(message):
                self._held[message.id] = Deferred(lambda _: None)
                await self._held[message.id]
            if message.id in self.failing:
                raise Unavailable(f"{message.id} cannot be handled now.")
        finally:
            self._held.pop(message.id, None)
            self._keys[message.key] -= 1

    @property
    def ids(self) -> list[str]:
        """What came, each in the place of its first copy."""
        return list(dict.fromkeys(id for id, _ in self.taken))

    @property
    def held(self) -> list[str]:
        """What is in hand."""
        return list(self._held)

    def let_go(self) -> None:
        """Of all that is in hand."""
        self._hold = lambda _: False
        for held in list(self._held.values()):
            if not held.called:
                held.callback(None)


class BrokerContract(Contract):
    """`make()`: another process's broker on the same place each time, so that all of one test are of one system."""

    patience: ClassVar[float] = 20.0  # seconds within which what is to come has come
    counts_attempts: ClassVar[bool] = True  # whether the second attempt at a message is said to be one

    @pytest.fixture
    def brokers(self, make: Callable[[], Awaitable[IBroker]]) -> Any:
        """Makes brokers, and closes them after the test."""
        brokers = Brokers(make)
        yield brokers
        self.drive(brokers.close())

    async def until(self, predicate: Callable[[], object]) -> None:
        """Returns when `predicate()` is true; raises AssertionError after `patience`."""
        waited = 0.0
        while not predicate():
            assert waited < self.patience, f"it did not come within {self.patience:g} seconds"
            await asyncio.sleep(POLL)  # of whatever reactor drives this
            waited += POLL

    # -- who gets what

    async def test_it_is_a_broker(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        subscription = await broker.subscribe("listener", [TOPIC], Hands(), 4)

        assert verifyObject(IBroker, broker)
        assert verifyObject(ISubscription, subscription)

    async def test_what_is_published_is_given_whole(self, brokers: Brokers) -> None:
        publisher, listener = await brokers.make(), await brokers.make()
        came: list[Message] = []

        async def take(message: Message, attempt: int) -> None:
            came.append(message)

        await listener.subscribe("listener", [TOPIC], take, 4)
        sent = Message(
            "one",
            TOPIC,
            3,
            "room-12",
            "reservations",
            1_777_626_000.25,
            msgspec.Raw(b'{"room":"12"}'),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "vendor=1",
            "request-1",
            "tenant-1",
            "ann",
        )

        assert [] == list(await publisher.publish([sent]))

        await self.until(lambda: came)
        assert sent == came[0]

    async def test_every_group_gets_it_and_of_each_group_one(self, brokers: Brokers) -> None:
        publisher, first, second = await brokers.make(), await brokers.make(), await brokers.make()
        one, other, apart = Hands(), Hands(), Hands()
        await first.subscribe("together", [TOPIC], one, 4)
        await second.subscribe("together", [TOPIC], other, 4)
        await second.subscribe("apart", [TOPIC], apart, 4)
        sent = [message() for _ in range(20)]

        await publisher.publish(sent)

        await self.until(lambda: len({*one.ids, *other.ids}) == 20 and len(apart.ids) == 20)
        assert len(one.taken) + len(other.taken) < 40  # copies may come, not to everybody

    async def test_a_group_gets_the_topics_it_named_and_no_others(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        both, one = Hands(), Hands()
        await broker.subscribe("both", [TOPIC, OTHER], both, 4)
        await broker.subscribe("one", [OTHER], one, 4)

        await broker.publish([message("a"), message("b", topic=OTHER)])

        await self.until(lambda: {*both.ids} == {"a", "b"} and one.ids == ["b"])

    async def test_what_nobody_has_subscribed_to_is_named(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands()
        await broker.subscribe("listener", [TOPIC], hands, 4)

        lost = await broker.publish([message("a"), message("b", topic=OTHER), message("c")])

        assert ["b"] == list(lost)
        await self.until(lambda: {*hands.ids} == {"a", "c"})

    async def test_what_came_while_nobody_of_the_group_was_there_waits_for_it(self, brokers: Brokers) -> None:
        first, second = await brokers.make(), await brokers.make()
        subscription = await first.subscribe("listener", [TOPIC], Hands(), 4)
        await subscription.stop()
        await first.close()

        assert [] == list(await second.publish([message("a"), message("b")]))
        hands = Hands()
        await second.subscribe("listener", [TOPIC], hands, 4)

        await self.until(lambda: {*hands.ids} == {"a", "b"})

    # -- order

    async def test_those_of_one_key_come_in_order_one_at_a_time(self, brokers: Brokers) -> None:
        publisher, first, second = await brokers.make(), await brokers.make(), await brokers.make()
        hands = Hands()  # of both: who overlaps is seen
        await first.subscribe("listener", [TOPIC], hands, 8)
        await second.subscribe("listener", [TOPIC], hands, 8)
        sent = [message(f"{number % 7}-{number:04d}", f"key-{number % 7}") for number in range(MANY)]

        for start in range(0, MANY, 50):
            await publisher.publish(sent[start : start + 50])

        await self.until(lambda: len(hands.ids) == MANY)
        for key in range(7):
            mine = [id for id in hands.ids if id.startswith(f"{key}-")]
            assert sorted(mine) == mine
        assert [] == hands.together

    async def test_what_is_in_hand_holds_up_its_own_key_alone(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands(hold=lambda message: message.id == "a1")
        await broker.subscribe("listener", [TOPIC], hands, 8)

        await broker.publish([message("a1", "a"), message("a2", "a"), message("b1", "b"), message("c1")])

        await self.until(lambda: {"b1", "c1"} <= {*hands.ids})
        assert "a2" not in hands.ids
        hands.let_go()
        await self.until(lambda: "a2" in hands.ids)

    async def test_what_has_no_key_waits_for_nobody(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands(hold=lambda message: message.id == "a")
        await broker.subscribe("listener", [TOPIC], hands, 8)

        await broker.publish([message("a"), message("b"), message("c")])

        await self.until(lambda: {*hands.ids} == {"a", "b", "c"})
        hands.let_go()

    async def test_no_more_than_so_many_are_in_hand(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands(hold=lambda _: True)
        await broker.subscribe("listener", [TOPIC], hands, 3)

        await broker.publish([message() for _ in range(10)])

        await self.until(lambda: len(hands.held) == 3)
        assert 3 == hands.at_once
        hands.let_go()
        await self.until(lambda: len(hands.ids) == 10)
        assert 3 >= hands.at_once

    # -- what goes wrong

    async def test_what_could_not_be_handled_comes_again_before_those_behind_it(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        hands = Hands()
        hands.failing = {"a1"}
        await broker.subscribe("listener", [TOPIC], hands, 8)

        await broker.publish([message("a1", "a"), message("a2", "a"), message("b1", "b")])

        await self.until(lambda: hands.taken.count(("b1", 1)) and len([id for id, _ in hands.taken if id == "a1"]) > 1)
        assert "a2" not in hands.ids
        attempts = [attempt for id, attempt in hands.taken if id == "a1"]
        if self.counts_attempts:
            assert [1, 2] == attempts[:2]
        hands.failing = set()
        await self.until(lambda: "a2" in hands.ids)

    async def test_one_that_stops_ends_what_it_has_in_hand_and_the_rest_is_others(self, brokers: Brokers) -> None:
        first, second = await brokers.make(), await brokers.make()
        slow = Hands(hold=lambda _: True)
        subscription = await first.subscribe("listener", [TOPIC], slow, 1)
        await second.publish([message("a1", "a"), message("a2", "a"), message("b1", "b")])
        await self.until(lambda: len(slow.held) == 1)
        (mine,) = slow.held

        from ...driver import Driver

        stopping = Driver.of().run(subscription.stop())
        slow.let_go()
        await stopping
        quick = Hands()
        await second.subscribe("listener", [TOPIC], quick, 8)

        await self.until(lambda: {*slow.ids, *quick.ids} == {"a1", "a2", "b1"})
        assert [mine] == slow.ids
        assert mine not in quick.ids

    async def test_what_was_in_hand_when_a_process_ended_is_given_to_another(self, brokers: Brokers) -> None:
        first, second = await brokers.make(), await brokers.make()
        slow = Hands(hold=lambda _: True)
        await second.publish([message(topic=OTHER)])
        await first.subscribe("listener", [TOPIC], slow, 8)
        await second.publish([message("a1", "a"), message("a2", "a"), message("b1", "b")])
        await self.until(lambda: len(slow.held) == 2)

        slow.failing = {"a1", "b1"}  # as one that is ended hands back what it has not done
        closing = settled(first.close())
        slow.let_go()
        await closing
        quick = Hands()
        await second.subscribe("listener", [TOPIC], quick, 8)

        await self.until(lambda: {*quick.ids} == {"a1", "a2", "b1"})
        assert ["a1", "a2"] == [id for id in quick.ids if id.startswith("a")]

    async def test_after_all_have_closed_a_later_one_finds_what_was_left(self, brokers: Brokers) -> None:
        first = await brokers.make()
        subscription = await first.subscribe("listener", [TOPIC], Hands(), 4)
        await subscription.stop()
        await first.publish([message(f"{number:03d}", "k") for number in range(50)])
        await first.close()

        later = await brokers.make()
        hands = Hands()
        await later.subscribe("listener", [TOPIC], hands, 4)

        await self.until(lambda: len(hands.ids) == 50)
        assert sorted(hands.ids) == hands.ids

    async def test_one_that_is_closed_refuses_and_closing_twice_changes_nothing(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        await broker.publish([message()])
        await broker.close()
        await broker.close()

        with pytest.raises(Unavailable) as raised:
            await broker.publish([message()])

        assert "no" == raised.value.ran

    # -- what may be sent

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    async def test_any_key_will_do(self, brokers: Brokers, key: str) -> None:
        broker = await brokers.make()
        came: list[str] = []

        async def take(message: Message, attempt: int) -> None:
            came.append(message.key)

        await broker.subscribe("listener", [TOPIC], take, 4)

        await broker.publish([message(key=key), message(key=key)])

        await self.until(lambda: [key, key] == came)

    async def test_large_messages_and_letters_of_all_kinds_come_as_they_are(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        came: list[bytes] = []

        async def take(message: Message, attempt: int) -> None:
            came.append(bytes(message.data))

        await broker.subscribe("listener", [TOPIC], take, 4)
        large = msgspec.json.encode({"text": "日本🏨" * (LARGE // 4)})

        await broker.publish([message(key="k", data=large), message(key="k", data=b"null")])

        await self.until(lambda: len(came) == 2)
        assert [large, b"null"] == came

    async def test_nothing_is_lost_of_many(self, brokers: Brokers) -> None:
        publisher, listener = await brokers.make(), await brokers.make()
        hands = Hands()
        await listener.subscribe("listener", [TOPIC], hands, 16)
        sent = [message() for _ in range(MANY)]

        await settled(*(publisher.publish(sent[start : start + 10]) for start in range(0, MANY, 10)))

        await self.until(lambda: {*hands.ids} == {each.id for each in sent})

    async def test_a_long_queue_that_is_handled_at_once_is_no_deep_one(self, brokers: Brokers) -> None:
        first, second = await brokers.make(), await brokers.make()
        subscription = await first.subscribe("listener", [TOPIC], Hands(), 1)
        await subscription.stop()
        sent = [message(key="k") for _ in range(LONG)]
        for start in range(0, LONG, 250):
            await second.publish(sent[start : start + 250])
        hands = Hands()

        await second.subscribe("listener", [TOPIC], hands, 1)

        await self.until(lambda: len(hands.ids) == LONG)
        assert [each.id for each in sent] == hands.ids

    # -- what was

    async def test_a_new_group_may_begin_with_what_there_was(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        await broker.subscribe("listener", [TOPIC], Hands(), 4)
        await broker.publish([message("a", "k"), message("b", "k"), message("c", topic=OTHER)])
        late, later = Hands(), Hands()

        if not broker.keeps_history:
            with pytest.raises(ConfigurationError):
                await broker.subscribe("late", [TOPIC], late, 4, from_start=True)
            return
        await broker.subscribe("late", [TOPIC], late, 4, from_start=True)
        await broker.subscribe("later", [TOPIC], later, 4)

        await self.until(lambda: late.ids == ["a", "b"])
        await broker.publish([message("d", "k")])
        await self.until(lambda: late.ids == ["a", "b", "d"] and later.ids == ["d"])

    async def test_the_history_of_a_topic_can_be_read(self, brokers: Brokers) -> None:
        broker = await brokers.make()
        await broker.subscribe("listener", [TOPIC], Hands(), 4)
        await broker.publish([message(f"{number:03d}", "k") for number in range(120)])
        history: AsyncIterator[Message] = broker.history(TOPIC)

        if not broker.keeps_history:
            with pytest.raises(ConfigurationError):
                await anext(history)
            return
        assert [f"{number:03d}" for number in range(120)] == [each.id async for each in history]


class Brokers:
    """The brokers of one test, each as another process has it."""

    def __init__(self, make: Callable[[], Awaitable[IBroker]]) -> None:
        self._make = make
        self._made: list[Any] = []

    async def make(self) -> Any:
        """One more."""
        broker = await self._make()
        self._made.append(broker)
        return broker

    async def close(self) -> None:
        """All of them, the latest first."""
        for broker in reversed(self._made):
            await broker.close()
