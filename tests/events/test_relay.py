"""The relay: what it hands on, and when it looks. No broker, no thread, and a clock that stands until it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from ropewalk import Database, Event, Transaction
from ropewalk.driver import Driver
from ropewalk.event import Message
from ropewalk.events.relay import LEFT, RARELY, Relay
from ropewalk.memory.store import open_sqlite


class Said(Event, topic="talk.said"):
    text: str


class Taken:
    """As far as a relay knows it, a broker; what it has."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        self.texts += [message.event([Said]).text for message in messages]  # type: ignore[attr-defined]
        return []


@pytest.fixture
def database() -> Database:
    """Shared with others, and empty when it was opened."""
    database = open_sqlite("talk", None, None, lambda function: succeed(function()), lambda: 0.0)
    database.random, database.member, database.shared = Random(1), "me", True
    return database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(database: Database, clock: Clock) -> Iterator[Taken]:
    """What a relay of `database` hands on to."""
    taken = Taken()
    broker: Any = taken
    running = Driver.of(clock).run(Relay(database, broker, clock, Random(1)).run())
    running.addErrback(lambda _: None)
    yield taken
    running.cancel()
    clock.advance(0)


def say(tx: Transaction, text: str) -> None:
    tx.publish(Said(text=text))


def publish(database: Database, text: str, member: str) -> None:
    """As a process of that name does, which dies then: nobody is woken."""
    mine, database.member = database.member, member
    database._transact(say, (text,), {})
    database.member = mine


def test_what_another_process_left_is_handed_on_though_this_one_has_never_published(database, clock, broker):
    publish(database, "left", "another")

    clock.advance(RARELY)
    assert [] == broker.texts  # its writer may be about to

    clock.advance(LEFT)
    assert ["left"] == broker.texts
