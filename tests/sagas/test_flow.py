"""What a saga's code may rely on: each thing `flow` offers, done, failing, and taken up again by another process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from twisted.internet.interfaces import IReactorTime

from ropewalk import (
    Conflict,
    Database,
    DeadlineExceeded,
    Flow,
    KeyReused,
    NotFound,
    Sagas,
    Service,
    Transaction,
    Unavailable,
    operation,
    post,
    saga,
)
from ropewalk.context import Context, enter_context, leave_context
from ropewalk.interfaces import IWallClock
from ropewalk.sagas.journal import Wanted
from ropewalk.sagas.journal import look as take
from ropewalk.store.started import add, named, nested_id
from ropewalk.store.tables import journal, members, sagas
from ropewalk.testing import World, crash_points
from ropewalk.testing.points import points

desk, shelf = sa.MetaData(), sa.MetaData()
written = sa.Table("written", desk, sa.Column("n", sa.Integer, primary_key=True), sa.Column("text", sa.String(60)))
put = sa.Table("put", shelf, sa.Column("n", sa.Integer, primary_key=True), sa.Column("text", sa.String(60)))


class Full(Conflict):
    """Raised when nothing more fits."""


class Shelf(Service):
    tables = shelf
    broken = "nothing"  # what cannot be placed, by how it begins
    slow = 0.0

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/things", idempotent=True, raises=(Full,))
    async def place(self, text: str) -> str:
        if type(self).slow:
            await asyncio.sleep(type(self).slow)
        if text.startswith(type(self).broken):
            raise Unavailable("The shelf is being mended.")
        return await self._database.run(self._place, text)

    @operation(idempotent=True)
    async def take(self, text: str) -> None:
        await self._database.run(self._take, text)

    def _place(self, tx: Transaction, text: str) -> str:
        if text.startswith("big"):
            raise Full(f"{text} does not fit.")
        tx.execute(put.insert().values(text=text))
        return text

    def _take(self, tx: Transaction, text: str) -> None:
        tx.execute(put.delete().where(put.c.text == text))


class Desk(Service):
    tables = desk
    new = False

    def __init__(
        self,
        database: Database,
        sagas: Sagas,
        shelf: Shelf,
        random: Random,
        clock: IReactorTime,
        wall: IWallClock,
    ) -> None:
        self._random, self._clock, self._wall = random, clock, wall
        self._database = database
        self._sagas = sagas
        self._shelf = shelf

    @operation(idempotent=True)
    async def begin(self, saga: str, text: str, id: str) -> str:
        return await self._sagas.start(getattr(self, saga), text, id=id)

    @operation(idempotent=True)
    async def begin_another(self, saga: str, text: str) -> str:
        return await self._sagas.start(getattr(self, saga), text)

    @operation(raises=(Full, DeadlineExceeded, Conflict, NotFound))
    async def outcome(self, id: str, timeout: float = 5.0) -> Any:
        return await self._sagas.result(id, timeout=timeout)

    @operation
    async def tell(self, id: str, name: str, value: int) -> None:
        await self._sagas.signal(id, name, value)

    @operation
    async def end(self, id: str) -> None:
        await self._sagas.cancel(id)

    @operation
    async def mend(self, id: str) -> None:
        await self._sagas.retry(id)

    @operation
    async def state(self, id: str) -> list[str]:
        told = await self._sagas.read(id)
        return [told.state, told.error]

    def _write(self, tx: Transaction, text: str) -> int:
        tx.execute(written.insert().values(text=text))
        return len(text)

    @saga
    async def both(self, flow: Flow, text: str) -> list[str]:
        return await flow.gather(
            flow.step(self._shelf.place, f"{text} 1", undo=self._shelf.take),
            flow.step(self._shelf.place, f"{text} 2", undo=self._shelf.take),
        )

    @saga
    async def uneven(self, flow: Flow, text: str) -> list[str]:
        return await flow.gather(
            flow.step(self._shelf.place, f"{text} 1", undo=self._shelf.take),
            flow.step(self._shelf.place, "big one"),
            self._two(flow, text),
        )

    async def _two(self, flow: Flow, text: str) -> str:
        first = await flow.step(self._shelf.place, f"{text} 3", undo=self._shelf.take)
        return first + await flow.step(self._shelf.place, f"{text} 4", undo=self._shelf.take)

    @saga
    async def first_of(self, flow: Flow, text: str) -> str:
        return await flow.race(flow.step(self._shelf.place, f"{text} 1", undo=self._shelf.take), self._late(flow))

    async def _late(self, flow: Flow) -> str:
        await flow.sleep(30)
        return "too late"

    @saga
    async def nap(self, flow: Flow, text: str) -> str:
        await flow.transaction(self._write, f"{text} asleep")
        await flow.sleep(600)
        await flow.transaction(self._write, f"{text} awake")
        return text

    @saga
    async def ask(self, flow: Flow, text: str) -> list[int]:
        await flow.transaction(self._write, text)
        return [await flow.wait("answer"), await flow.wait("answer", timeout=100)]

    @saga
    async def alone(self, flow: Flow, text: str) -> str:
        await self._shelf.place(text)
        return text

    @saga
    async def own(self, flow: Flow, text: str) -> int:
        await self._database.run(self._write, text)
        return 1

    @saga
    async def chance(self, flow: Flow, text: str) -> int:
        return self._random.randrange(10)

    @saga
    async def clock(self, flow: Flow, text: str) -> int:
        return int(self._clock.seconds())

    @saga
    async def wall(self, flow: Flow, text: str) -> str:
        return str(self._wall.now())

    @saga
    async def in_steps(self, flow: Flow, text: str) -> list[bool]:
        drawn = await flow.step(self._draw)
        return [0 <= drawn < 10]

    async def _draw(self) -> int:
        self._clock.seconds()
        return self._random.randrange(10)

    @saga
    async def single(self, flow: Flow, text: str) -> str:
        return await flow.step(self._shelf.place, text)

    @saga
    async def patient(self, flow: Flow, text: str) -> str:
        await flow.step(self._shelf.place, f"{text} 1", undo=self._shelf.take)
        return await flow.step(self._shelf.place, f"{text} 2", timeout=10)

    @saga
    async def mistaken(self, flow: Flow, text: str) -> str:
        await flow.transaction(self._write, text)
        if not type(self).new:
            raise ZeroDivisionError("a mistake")
        return text

    @saga
    async def changing(self, flow: Flow, text: str) -> str:
        if not type(self).new:
            await flow.transaction(self._write, "old way")
        else:
            await flow.transaction(self._write, "new way")
        await flow.wait("go")
        return text

    @saga
    async def careful(self, flow: Flow, text: str) -> str:
        if type(self).new and flow.changed("new-way"):
            await flow.transaction(self._write, "new way", name="new")
        await flow.transaction(self._write, "every way")
        await flow.wait("go")
        return text

    @saga
    async def household(self, flow: Flow, text: str) -> list[Any]:
        await flow.transaction(self._write, f"{text} begins")
        return await flow.gather(
            flow.step(self.both, f"{text} cups", undo=self._clear),
            flow.step(self.ask, f"{text} asks"),
            flow.step(self.single, f"{text}"),
        )

    @saga
    async def hasty(self, flow: Flow, text: str) -> str:
        await flow.step(self.kept, text, timeout=10)
        return text

    @saga
    async def kept(self, flow: Flow, text: str) -> str:
        await flow.step(self._shelf.place, f"{text} kept", undo=self._shelf.take)
        await flow.wait("enough")
        return text

    async def _clear(self, placed: list[str]) -> None:
        for text in placed:
            await self._shelf.take(text)

    @saga
    async def two_at_once(self, flow: Flow, text: str) -> str:
        task = asyncio.ensure_future(self._two(flow, text))
        await asyncio.sleep(0)
        await flow.step(self._shelf.place, text)
        return await task

    @saga
    async def local(self, flow: Flow, text: str) -> int:
        return await flow.step(self._note, text)

    async def _note(self, text: str) -> int:
        await self._shelf.place(text)
        return await self._database.run(self._write, text)


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(Desk, "new", False)
    monkeypatch.setattr(Shelf, "broken", "nothing")
    monkeypatch.setattr(Shelf, "slow", 0.0)
    with World([Desk, Shelf], seed=11) as world:
        yield world


@pytest.fixture
def desk_(world):
    return world.client(Desk)


def on_shelf(world: World) -> list[str]:
    return sorted(world.database("shelf").peek(lambda tx: [row.text for row in tx.execute(sa.select(put))]))


def on_desk(world: World) -> list[str]:
    return world.database("desk").peek(
        lambda tx: [row.text for row in tx.execute(sa.select(written).order_by(written.c.n))]
    )


def state_of(world: World, id: str) -> str:
    return world.run(world.client(Desk).state(id))[0]


def row_of(world: World, id: str) -> sa.Row[Any]:
    return world.database("desk").peek(lambda tx: tx.execute(sa.select(sagas).where(sagas.c.id == id)).one())


def everybody_restarts(world: World) -> None:
    world.crash("desk")
    world.advance(1)
    world.restart()
    world.advance(10)


def test_what_is_gathered_comes_back_in_order(world, desk_):
    world.run(desk_.begin("both", "book", id="a"))

    assert ["book 1", "book 2"] == world.run(desk_.outcome("a"))
    assert ["book 1", "book 2"] == on_shelf(world)


def test_a_saga_without_an_id_gets_one_that_is_the_same_for_each_repetition_of_its_key(world, desk_):
    def begun(key: str) -> str:
        token = enter_context(Context(key=key))
        try:
            return world.run(desk_.begin_another("both", "book"))
        finally:
            leave_context(token)

    one, same, another = begun("k1"), begun("k1"), begun("k2")

    assert (one, 32) == (same, len(one))
    assert one != another
    world.run(desk_.outcome(one))
    world.run(desk_.outcome(another))
    assert ["book 1", "book 1", "book 2", "book 2"] == on_shelf(world)


def test_one_branch_that_fails_undoes_all(world, desk_):
    world.run(desk_.begin("uneven", "book", id="a"))

    with pytest.raises(Full, match="big one does not fit"):
        world.run(desk_.outcome("a"))
    assert [] == on_shelf(world)
    assert "compensated" == state_of(world, "a")


def test_the_first_of_a_race_wins_and_the_others_are_given_up(world, desk_):
    world.run(desk_.begin("first_of", "book", id="a"))

    assert "book 1" == world.run(desk_.outcome("a"))
    assert ["book 1"] == on_shelf(world)


def test_who_loses_a_race_and_has_run_is_undone(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "broken", "book")
    world.run(desk_.begin("first_of", "book", id="a"))
    world.advance(31)
    monkeypatch.setattr(Shelf, "broken", "nothing")

    assert "too late" == world.run(desk_.outcome("a", timeout=60))
    assert [] == on_shelf(world)


# -- sagas of sagas


def test_a_saga_that_is_a_step_of_another_is_run_and_its_result_comes_back(world, desk_):
    world.run(desk_.begin("household", "new", id="a"))
    world.advance(5)
    world.run(desk_.tell("a/desk.ask~" + nested("a", 1, "desk.ask"), "answer", 1))
    world.run(desk_.tell("a/desk.ask~" + nested("a", 1, "desk.ask"), "answer", 2))

    assert [["new cups 1", "new cups 2"], [1, 2], "new"] == world.run(desk_.outcome("a", timeout=60))
    assert ["new", "new cups 1", "new cups 2"] == on_shelf(world)


def test_one_that_fails_fails_in_the_other_which_gives_up_those_beside_it(world, desk_):
    world.run(desk_.begin("household", "big one", id="a"))

    with pytest.raises(Full, match="does not fit"):
        world.run(desk_.outcome("a", timeout=60))
    assert [] == on_shelf(world)
    assert {"compensated"} == states(world)


def test_one_that_takes_too_long_is_asked_to_end_and_undoes_what_it_did(world, desk_):
    world.run(desk_.begin("hasty", "cup", id="a"))
    world.advance(5)
    assert ["cup kept"] == on_shelf(world)

    with pytest.raises(DeadlineExceeded, match="did not end within 10 seconds"):
        world.run(desk_.outcome("a", timeout=60))
    assert [] == on_shelf(world)
    assert {"compensated"} == states(world)


def test_who_cancels_a_saga_cancels_those_that_are_its_steps(world, desk_):
    world.run(desk_.begin("hasty", "cup", id="a"))
    world.advance(2)

    world.run(desk_.end("a"))
    world.advance(5)

    assert [] == on_shelf(world)
    assert {"compensated"} == states(world)


def test_sagas_of_sagas_outlive_their_processes(world, desk_):
    world.run(desk_.begin("household", "new", id="a"))
    for _ in range(3):
        everybody_restarts(world)
    world.run(desk_.tell("a/desk.ask~" + nested("a", 1, "desk.ask"), "answer", 1))
    everybody_restarts(world)
    world.run(desk_.tell("a/desk.ask~" + nested("a", 1, "desk.ask"), "answer", 2))

    assert [["new cups 1", "new cups 2"], [1, 2], "new"] == world.run(desk_.outcome("a", timeout=60))
    assert ["new", "new cups 1", "new cups 2"] == on_shelf(world)
    assert ["new begins", "new asks"] == on_desk(world)


async def household(world: World) -> None:
    await world.client(Desk).begin("household", "big one", id="a")
    with suppress(Full):
        await world.client(Desk).outcome("a", timeout=60)


def test_a_saga_that_waits_for_another_says_for_which(world, desk_):
    world.run(desk_.begin("household", "a", id="a"))
    world.advance(10)

    waits = world.database("desk").peek(
        lambda tx: dict(map(tuple, tx.execute(sa.select(sagas.c.id, sagas.c.waits).where(sagas.c.waits != ""))))
    )

    [asking] = (id for id in waits if id != "a")
    assert {"a": f"saga {asking}", asking: "answer"} == waits


def test_who_waits_for_the_same_thing_is_woken_in_the_same_order_in_every_run(world, desk_):
    played = [points(world, household) for _ in range(12)]

    assert [played[0]] * 12 == played


@pytest.mark.long
@pytest.mark.timeout(600)
def test_whenever_a_process_dies_a_saga_of_sagas_ends(world, desk_):
    def undone(world: World) -> None:
        assert [] == on_shelf(world)
        assert states(world) <= {"compensated"}

    survivals = list(crash_points(world, household, eventually=[undone], settle=120.0))

    assert [] == [(each.point, each.broken) for each in survivals if each.broken]
    assert len(survivals) > 100


def nested(parent: str, index: int, step: str) -> str:
    """What tells it from others of its name."""
    return nested_id(parent, f"gather:1/{index}", step, 1).rpartition("~")[2]


def states(world: World) -> set[str]:
    """Of all sagas."""
    return world.database("desk").peek(lambda tx: set(tx.execute(sa.select(sagas.c.state)).scalars()))


def test_a_sleep_outlives_its_process(world, desk_):
    world.run(desk_.begin("nap", "a", id="a"))
    world.advance(10)
    everybody_restarts(world)

    world.advance(500)
    assert ["a asleep"] == on_desk(world)
    world.advance(120)

    assert ["a asleep", "a awake"] == on_desk(world)
    assert "a" == world.run(desk_.outcome("a"))


def test_signals_are_taken_in_order_each_once(world, desk_):
    world.run(desk_.begin("ask", "a", id="a"))
    world.run(desk_.tell("a", "answer", 1))
    world.advance(5)
    everybody_restarts(world)
    world.run(desk_.tell("a", "other", 7))
    world.run(desk_.tell("a", "answer", 2))

    assert [1, 2] == world.run(desk_.outcome("a"))
    assert ["a"] == on_desk(world)


def test_a_wait_ends_with_its_time(world, desk_):
    world.run(desk_.begin("ask", "a", id="a"))
    world.run(desk_.tell("a", "answer", 1))
    world.advance(110)

    with pytest.raises(DeadlineExceeded, match="No 'answer' came within 100 seconds"):
        world.run(desk_.outcome("a"))


def test_within_a_step_clock_and_chance_are_free(world, desk_):
    world.run(desk_.begin("in_steps", "a", id="a"))

    assert [True] == world.run(desk_.outcome("a"))


@pytest.mark.parametrize("name", ["alone", "own", "chance", "clock", "wall"])
def test_what_is_used_outside_of_flow_parks_the_saga(world, desk_, name, flush_logged_errors):
    world.run(desk_.begin(name, "a", id="a"))

    with pytest.raises(Unavailable, match="outside of flow"):
        world.run(desk_.outcome("a"))
    assert [] == on_shelf(world) + on_desk(world)
    world.flush_failures(RuntimeError)
    flush_logged_errors()


def test_two_steps_of_one_branch_at_once_are_refused(world, desk_, flush_logged_errors):
    world.run(desk_.begin("two_at_once", "a", id="a"))

    with pytest.raises(Unavailable, match="goes into `flow.gather"):
        world.run(desk_.outcome("a"))
    world.flush_failures(RuntimeError)
    flush_logged_errors()


def test_a_step_that_is_given_up_after_its_timeout_never_runs(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "broken", "a 2")
    world.run(desk_.begin("patient", "a", id="a"))
    world.advance(60)

    with pytest.raises(DeadlineExceeded, match="did not answer within 10 seconds"):
        world.run(desk_.outcome("a"))
    monkeypatch.setattr(Shelf, "broken", "nothing")
    world.advance(60)
    assert [] == on_shelf(world)


def test_a_step_that_has_run_though_its_answer_came_late_counts(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "slow", 6.0)
    world.run(desk_.begin("patient", "a", id="a"))
    world.advance(8)
    world.hold("shelf", "desk")
    world.advance(10)
    world.release("shelf", "desk")
    world.advance(60)

    assert "a 2" == world.run(desk_.outcome("a"))
    assert ["a 1", "a 2"] == on_shelf(world)


def test_what_was_asked_for_longer_than_its_callee_remembers_is_parked(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "broken", "a")
    world.run(desk_.begin("single", "a", id="a"))
    world.advance(10)
    world.jump("desk", 2 * 3600)
    world.advance(40)
    everybody_restarts(world)
    world.jump("desk", 7 * 86400)
    world.advance(40)

    ((state, error),) = world.database("desk").peek(
        lambda tx: tx.execute(sa.select(sagas.c.state, sagas.c.error)).all()
    )
    assert "parked" == state
    assert "asked once more it might do it twice" in error


def test_a_mistake_parks_the_saga_and_the_corrected_code_goes_on_where_it_was(
    world, desk_, monkeypatch, flush_logged_errors
):
    world.run(desk_.begin("mistaken", "a", id="a"))
    with pytest.raises(Unavailable, match="a mistake"):
        world.run(desk_.outcome("a"))
    world.flush_failures(ZeroDivisionError)
    flush_logged_errors()

    monkeypatch.setattr(Desk, "new", True)
    world.run(desk_.mend("a"))

    assert "a" == world.run(desk_.outcome("a"))
    assert ["a"] == on_desk(world)


def test_code_that_changed_under_a_running_saga_is_refused_with_the_step_named(world, desk_, monkeypatch):
    world.run(desk_.begin("changing", "a", id="a"))
    world.advance(5)
    monkeypatch.setattr(Desk, "new", True)
    everybody_restarts(world)
    world.run(desk_.tell("a", "go", 1))

    with pytest.raises(Unavailable, match="write is given something else than it was"):
        world.run(desk_.outcome("a"))
    assert ["old way"] == on_desk(world)


def test_a_change_that_asks_lets_old_sagas_go_the_old_way(world, desk_, monkeypatch):
    world.run(desk_.begin("careful", "a", id="a"))
    world.advance(5)
    monkeypatch.setattr(Desk, "new", True)
    everybody_restarts(world)
    world.run(desk_.begin("careful", "b", id="b"))
    world.advance(5)
    everybody_restarts(world)
    for id in ("a", "b"):
        world.run(desk_.tell(id, "go", 1))

        assert id == world.run(desk_.outcome(id))
    assert ["every way", "new way", "every way"] == on_desk(world)


def test_a_function_of_ones_own_is_a_step_whose_effects_happen_once(world, desk_):
    world.run(desk_.begin("local", "abc", id="a"))

    assert 3 == world.run(desk_.outcome("a"))
    assert (["abc"], ["abc"]) == (on_shelf(world), on_desk(world))


def test_an_id_stands_for_one_saga(world, desk_):
    world.run(desk_.begin("nap", "a", id="a"))
    world.run(desk_.begin("nap", "a", id="a"))

    with pytest.raises(KeyReused, match="started before as desk.nap"):
        world.run(desk_.begin("nap", "b", id="a"))
    with pytest.raises(NotFound, match="There is no saga 'c'"):
        world.run(desk_.outcome("c"))


def test_one_that_is_to_end_undoes_what_it_did(world, desk_, monkeypatch):
    world.run(desk_.begin("ask", "a", id="a"))
    world.advance(5)

    world.run(desk_.end("a"))

    with pytest.raises(Conflict):
        world.run(desk_.outcome("a"))
    assert "compensated" == state_of(world, "a")


def test_what_a_dead_process_ran_goes_on_elsewhere_within_seconds(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "slow", 3.0)
    for number in range(6):
        world.run(desk_.begin("both", f"s{number}", id=f"s{number}"))
    world.crash("desk/1")

    world.advance(30)

    assert 12 == len(on_shelf(world))
    assert {"completed"} == set(
        world.database("desk").peek(lambda tx: tx.execute(sa.select(sagas.c.state)).scalars().all())
    )


def test_one_that_stood_still_and_was_taken_for_dead_writes_no_more(world, desk_, monkeypatch):
    monkeypatch.setattr(Shelf, "slow", 3.0)
    for number in range(6):
        world.run(desk_.begin("both", f"s{number}", id=f"s{number}"))
    world.pause("desk/1")
    world.advance(20)
    world.resume()
    world.advance(20)

    assert sorted(f"s{number} {half}" for number in range(6) for half in (1, 2)) == on_shelf(world)


def test_a_look_that_comes_to_be_after_a_later_one_leaves_no_saga_to_nobody(world, desk_, monkeypatch):
    world.run(desk_.begin("both", "first", id="first"))
    world.crash("desk/2")
    world.advance(10)
    # Who asked has given it up, but what a machine without power was sent arrives when it is back, in any order.
    world.link("desk/1", "desk/database", latency=(20.0, 20.0))
    world.advance(12)  # two looks are on their way, and given up
    world.link("desk/1", "desk/database", latency=(0.001, 0.002))
    monkeypatch.setattr(Shelf, "broken", "a")
    world.database("desk").peek(lambda tx: add(tx, named("desk.both", b'{"text": "a"}', "a")))
    world.until(lambda: row_of(world, "a").epoch == 1, timeout=10)

    world.until(lambda: row_of(world, "a").epoch == 2, timeout=30)  # by one of those, of which nobody hears
    monkeypatch.setattr(Shelf, "broken", "nothing")
    world.advance(30)

    assert ["a 1", "a 2", "first 1", "first 2"] == on_shelf(world)
    assert "completed" == row_of(world, "a").state


def test_what_a_process_owns_and_does_not_run_it_takes_up_within_seconds(world, desk_):
    world.run(desk_.begin("both", "first", id="first"))
    world.crash("desk/2")
    world.advance(10)

    def begin(tx: Transaction) -> None:
        """A saga is started, and the next moment a look comes to be that was given up."""
        add(tx, named("desk.both", b'{"text": "a"}', "a"))
        owner = tx.execute(sa.select(members.c.id)).scalar_one()
        [look] = take(tx, [Wanted(owner, (), (), 0, 1)])
        assert ["a"] == [claim.id for claim in look.claims]

    world.database("desk").peek(begin)
    world.advance(10)

    assert ["a 1", "a 2", "first 1", "first 2"] == on_shelf(world)
    assert "completed" == row_of(world, "a").state


def test_what_ended_long_ago_is_forgotten_and_what_is_parked_stays(world, desk_, flush_logged_errors):
    world.run(desk_.begin("both", "book", id="a"))
    world.run(desk_.outcome("a"))
    world.run(desk_.begin("mistaken", "b", id="b"))
    world.advance(5)
    world.flush_failures(ZeroDivisionError)
    flush_logged_errors()

    world.jump("desk", 8 * 86400)
    world.advance(700)

    assert ["b"] == world.database("desk").peek(lambda tx: list(tx.execute(sa.select(sagas.c.id)).scalars()))
    assert {"b"} == set(world.database("desk").peek(lambda tx: tx.execute(sa.select(journal.c.saga)).scalars().all()))
