"""What becomes of events: tried again, buried, parked, replayed, dropped; upcast; with nobody to take them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk import Conflict, Database, Event, Service, Transaction, Unavailable, current_context, operation, subscribe
from ropewalk.events.dead_letters import DeadLetters
from ropewalk.events.subscriptions import LOOKS
from ropewalk.testing import World
from ropewalk.testing.points import crash_points

source, sink = sa.MetaData(), sa.MetaData()
made = sa.Table("made", source, sa.Column("n", sa.Integer, primary_key=True))
taken = sa.Table("taken", sink, sa.Column("n", sa.Integer, primary_key=True), sa.Column("text", sa.String(60)))


class Said(Event, topic="talk.said", version=2):
    text: str
    loud: bool = False

    @classmethod
    def upcast(cls, version: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"text": fields["words"]}


class SaidBefore(Event, topic="talk.said"):
    words: str


class SaidLater(Event, topic="talk.said", version=3):
    text: str


class Whispered(Event, topic="talk.whispered"):
    text: str


class Talker(Service):
    tables = source

    def __init__(self, database: Database) -> None:
        self._database = database

    @operation(idempotent=True)
    async def say(self, text: str, key: str | None = None) -> None:
        await self._database.run(self._say, Said(text=text), key)

    @operation
    async def say_before(self, words: str) -> None:
        await self._database.run(self._say, SaidBefore(words=words), None)

    @operation
    async def say_later(self, text: str) -> None:
        await self._database.run(self._say, SaidLater(text=text), None)

    @operation
    async def whisper(self, text: str) -> None:
        await self._database.run(self._say, Whispered(text=text), None)

    @operation(raises=(Conflict,))
    async def say_and_fail(self, text: str) -> None:
        await self._database.run(self._fail, text)

    @operation
    async def dead(self) -> list[list[str]]:
        return [[each.topic, each.error] for each in await DeadLetters(self._database).list()]

    @operation
    async def replay_all(self) -> int:
        return await DeadLetters(self._database).replay()

    def _say(self, tx: Transaction, event: Event, key: str | None) -> None:
        tx.execute(made.insert())
        tx.publish(event, key=key)

    def _fail(self, tx: Transaction, text: str) -> None:
        self._say(tx, Said(text=text), None)
        raise Conflict("On second thoughts.")


class Listener(Service):
    tables = sink
    refuses = "nothing"
    down = False
    attempts: list[int]

    def __init__(self, database: Database) -> None:
        self._database = database

    @subscribe(Said, attempts=4)
    async def hear(self, event: Said) -> None:
        type(self).attempts.append(current_context().attempt)
        if type(self).down:
            raise Unavailable("Not now.")
        await self._database.run(self._hear, event)

    def _hear(self, tx: Transaction, event: Said) -> None:
        tx.execute(taken.insert().values(text=event.text))
        if event.text.startswith(type(self).refuses):
            raise ZeroDivisionError(event.text)

    @operation
    async def dead(self) -> list[list[Any]]:
        letters = await DeadLetters(self._database).list()
        return [[each.number, each.key, each.attempts, each.error] for each in letters]

    @operation
    async def replay(self, number: int) -> int:
        return await DeadLetters(self._database).replay(number)

    @operation
    async def drop(self, number: int) -> None:
        await DeadLetters(self._database).drop(number)


class Diary(Service):
    def __init__(self, database: Database) -> None:
        pass

    @subscribe(Said)
    async def note(self, event: Said) -> None: ...

    @subscribe(Whispered)
    async def note_in_pencil(self, event: Whispered) -> None: ...


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "nothing")
    monkeypatch.setattr(Listener, "down", False)
    monkeypatch.setattr(Listener, "attempts", [], raising=False)
    with World([Talker, Listener], seed=9) as world:
        yield world


@pytest.fixture
def forgiven(world, flush_logged_errors):
    """What the handler's mistakes have logged is no failure of the test."""
    yield
    world.flush_failures(ZeroDivisionError)
    flush_logged_errors()


def heard(world: World) -> list[str]:
    return world.database("listener").peek(
        lambda tx: [row.text for row in tx.execute(sa.select(taken).order_by(taken.c.n))]
    )


def say(world: World, *texts: str, key: str | None = None) -> None:
    for text in texts:
        world.run(world.client(Talker).say(text, key))


def test_what_was_rolled_back_was_never_said(world):
    with pytest.raises(Conflict):
        world.run(world.client(Talker).say_and_fail("oh"))
    world.advance(10)

    assert [] == heard(world)


def test_what_passes_by_itself_is_tried_again_and_the_attempt_is_told(world, monkeypatch):
    monkeypatch.setattr(Listener, "down", True)
    say(world, "a", key="k")
    world.advance(1.5)
    monkeypatch.setattr(Listener, "down", False)
    world.advance(40)

    assert ["a"] == heard(world)
    assert list(range(1, len(Listener.attempts) + 1)) == Listener.attempts
    assert len(Listener.attempts) > 2


def test_a_poison_event_is_buried_and_parks_its_key_alone(world, forgiven, monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "bad")
    say(world, "bad", "a", "b", key="k")
    say(world, "c", key="l")
    say(world, "d")
    world.advance(30)

    assert ["c", "d"] == sorted(heard(world))
    letters = world.run(world.client(Listener).dead())
    assert [("k", 4, "ZeroDivisionError: bad"), ("k", 0, ""), ("k", 0, "")] == [tuple(each[1:]) for each in letters]


def test_what_is_replayed_is_handled_in_order_with_all_behind_it(world, forgiven, monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "bad")
    say(world, "bad", "a", "b", key="k")
    world.advance(30)
    listener = world.client(Listener)
    ((number, *_), *_) = world.run(listener.dead())
    monkeypatch.setattr(Listener, "refuses", "nothing")

    assert 1 == world.run(listener.replay(number))
    world.advance(10)
    say(world, "e", key="k")
    world.advance(10)

    assert ["bad", "a", "b", "e"] == heard(world)
    assert [] == world.run(listener.dead())


def test_what_fails_again_stays_where_it_was(world, forgiven, monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "bad")
    say(world, "bad", "a", key="k")
    world.advance(30)
    listener = world.client(Listener)
    ((number, *_), *_) = world.run(listener.dead())

    world.run(listener.replay(number))
    world.advance(10)

    assert [] == heard(world)
    assert [[number, "k", 5, "ZeroDivisionError: bad"], [number + 1, "k", 0, ""]] == world.run(listener.dead())


def test_what_is_dropped_lets_those_behind_it_go_on(world, forgiven, monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "bad")
    say(world, "bad", "a", "b", key="k")
    world.advance(30)
    listener = world.client(Listener)
    ((number, *_), *_) = world.run(listener.dead())

    world.run(listener.drop(number))
    world.advance(10)

    assert ["a", "b"] == heard(world)


def test_an_event_of_an_earlier_version_is_lifted(world):
    world.run(world.client(Talker).say_before("once upon a time"))
    world.advance(5)

    assert ["once upon a time"] == heard(world)


def test_an_event_of_a_later_version_is_buried_at_once_and_says_what_to_do(world):
    world.run(world.client(Talker).say_later("tomorrow"))
    world.advance(5)

    ((_, _, attempts, error),) = world.run(world.client(Listener).dead())
    assert 1 == attempts
    assert error.endswith("deploy the newer class here first, then its publisher.")


def test_what_was_asked_for_while_it_was_down_is_replayed_when_it_starts(world, forgiven, monkeypatch):
    monkeypatch.setattr(Listener, "refuses", "bad")
    say(world, "bad")
    world.advance(30)
    monkeypatch.setattr(Listener, "refuses", "nothing")

    world.crash("listener")
    world.run(DeadLetters(world.database("listener")).replay())
    world.restart("listener")
    world.advance(LOOKS / 2)

    assert ["bad"] == heard(world)


def test_all_that_looks_now_and_then_in_a_service_looks_in_one_transaction():
    with World([Talker, Diary], seed=9) as world:
        world.advance(1 + LOOKS)

    looked = [event.host for event in world.log.events if event.at > 1 and "to_replay" in event.text]
    assert ["diary/1", "diary/2"] == sorted(looked)


def test_what_nobody_has_subscribed_to_is_a_dead_letter_of_its_publisher(world):
    world.run(world.client(Talker).whisper("psst"))
    world.advance(60)

    talker = world.client(Talker)
    assert [["talk.whispered", "Nobody has subscribed to it."]] == world.run(talker.dead())
    assert 1 == world.run(talker.replay_all())
    assert [] == world.run(talker.dead())


def test_one_that_is_stopped_while_it_subscribes_is_given_nothing(world):
    world.crash("listener")
    say(world, "a", "b")
    world.hold("broker", "listener/1")
    world.restart("listener/1")
    world.advance(2)

    world.stop("listener/1")
    world.advance(1)
    world.release("broker", "listener/1")
    world.advance(20)
    world.restart("listener")
    world.advance(20)

    assert ["a", "b"] == sorted(heard(world))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_crash_at_any_moment_of_an_event_changes_nothing_of_its_effect(monkeypatch):
    monkeypatch.setattr(Listener, "attempts", [], raising=False)
    with World([Talker, Listener], seed=9) as world:
        say(world, "warm", key="k")
        world.advance(5)

        async def act(world: World) -> None:
            await world.client(Talker).say("a", "k")
            await world.client(Talker).say("b", "k")

        def all_heard(world: World) -> None:
            said = world.database("talker").peek(
                lambda tx: tx.execute(sa.select(sa.func.count()).select_from(made)).scalar_one()
            )
            assert ["warm", "a", "b"][:said] == heard(world)

        broken = [each for each in crash_points(world, act, eventually=[all_heard], settle=120) if each.broken]

        assert [] == broken
