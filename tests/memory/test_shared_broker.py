"""The built-in broker for several processes: one owns the file, the others reach it, and who it is may change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ropewalk import Unavailable
from ropewalk.driver import Driver
from ropewalk.event import Message
from ropewalk.memory.shared_broker import make


class Office:
    """Brokers as several processes have them, on one folder."""

    def __init__(self, folder: Path) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = folder
        self.brokers: list[Any] = []
        self.heard: list[tuple[str, str]] = []  # by whom, which event

    def broker(self) -> Any:
        made = make(
            "memory", data=self.folder, reactor=self.reactor, clock=self.reactor, now=lambda: 0.0, random=Random(1)
        )
        self.brokers.append(made)
        return made

    def run(self, awaitable: Any) -> Deferred[Any]:
        return Driver.of(self.reactor).run(awaitable)

    def subscribe(self, broker: Any, name: str, group: str = "listener", **options: Any) -> Deferred[Any]:
        async def handle(message: Message, attempt: int) -> None:
            self.heard.append((name, message.id))

        return self.run(broker.subscribe(group, ["talk"], options.pop("handle", handle), options.pop("at_once", 4)))

    def publish(self, broker: Any, *ids: str, key: str = "") -> Deferred[Any]:
        return self.run(broker.publish([message(id, key) for id in ids]))

    async def keep(self, broker: Any, id: str, key: str) -> None:
        """Publish it, as a relay does: until somebody has it."""
        while True:
            try:
                await self.publish(broker, id, key=key)
                return
            except Unavailable:
                continue

    def ids(self) -> list[str]:
        return [id for _, id in self.heard]


def message(id: str, key: str = "") -> Message:
    return Message(id, "talk", 1, key, "talker", 0.0, msgspec.Raw(b"{}"))


async def until(predicate: Callable[[], object]) -> None:
    """Returns when it is true; the test's own time limit is this one's."""
    from twisted.internet import reactor

    while not predicate():
        await deferLater(reactor, 0.005)


@async_yield_fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(tmp_path)
    yield office
    for broker in office.brokers:
        await office.run(broker.close())


@ensureDeferred
async def test_whoever_is_second_reaches_the_first(office):
    first, second = office.broker(), office.broker()
    await office.subscribe(first, "first")

    assert [] == await office.publish(second, "a", "b", key="k")

    await until(lambda: office.ids() == ["a", "b"])


@ensureDeferred
async def test_a_group_has_members_in_both(office):
    first, second = office.broker(), office.broker()
    await office.subscribe(first, "first", at_once=1)
    await office.subscribe(second, "second", at_once=1)

    await office.publish(second, *(str(number) for number in range(20)))

    await until(lambda: len(office.heard) == 20)
    assert {"first", "second"} == {name for name, _ in office.heard}
    assert sorted(office.ids(), key=int) == [str(number) for number in range(20)]


@ensureDeferred
async def test_what_nobody_has_subscribed_to_is_told_over_the_socket_too(office):
    first, second = office.broker(), office.broker()
    await office.publish(first, "x")

    assert ["a"] == await office.publish(second, "a")


@ensureDeferred
async def test_when_the_owner_ends_another_one_goes_on(office):
    first, second, third = office.broker(), office.broker(), office.broker()
    await office.publish(first, "x")
    await office.subscribe(second, "second")
    await office.publish(third, "a", key="k")
    await until(lambda: "a" in office.ids())

    await office.run(first.close())
    await office.keep(third, "b", key="k")
    await office.keep(second, "c", key="k")

    await until(lambda: office.ids() == ["a", "b", "c"])


@ensureDeferred
async def test_what_was_in_hand_when_a_connection_broke_is_given_again_and_in_order(office):
    first, second = office.broker(), office.broker()
    await office.publish(first, "x")
    hands: list[Deferred[None]] = []

    async def hold(message: Message, attempt: int) -> None:
        hands.append(Deferred())
        await hands[-1]

    await office.subscribe(second, "second", handle=hold)
    await office.publish(first, "a", "b", key="k")
    await until(lambda: len(hands) == 1)

    second._theirs.frames.end()
    await office.subscribe(first, "first")

    await until(lambda: office.ids()[-2:] == ["a", "b"] or len(hands) > 1)
    for hand in hands[1:]:
        hand.callback(None)


@ensureDeferred
async def test_one_that_stops_waits_for_what_it_has_in_hand_and_takes_nothing_new(office):
    first, second = office.broker(), office.broker()
    await office.publish(first, "x")
    hand: Deferred[None] = Deferred()
    began: list[str] = []

    async def hold(message: Message, attempt: int) -> None:
        began.append(message.id)
        await hand
        office.heard.append(("second", message.id))

    subscription = await office.subscribe(second, "second", handle=hold)
    await office.publish(first, "a", key="k")
    await until(lambda: began == ["a"])

    stopping = Driver.of(office.reactor).run(subscription.stop())
    await office.publish(first, "b", key="k")
    assert not stopping.called
    hand.callback(None)
    await stopping

    await office.subscribe(first, "first")
    await until(lambda: office.heard == [("second", "a"), ("first", "b")])


@ensureDeferred
async def test_a_broker_that_is_closed_refuses(office):
    first = office.broker()
    await office.publish(first, "x")
    await office.run(first.close())
    await office.run(first.close())

    with pytest.raises(Unavailable, match="is closed"):
        await office.publish(first, "a")


@ensureDeferred
async def test_history_comes_over_the_socket(office):
    first, second = office.broker(), office.broker()
    await office.publish(first, *(str(number) for number in range(250)))

    async def all_of() -> list[str]:
        return [message.id async for message in second.history("talk")]

    assert [str(number) for number in range(250)] == await office.run(all_of())
