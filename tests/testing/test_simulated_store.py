"""Databases on their own hosts: what was committed stays, what was not is gone, and what an instance gets to know of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk import Conflict, Database, Service, Unavailable, get, post
from ropewalk.testing import World, store
from ropewalk.testing.store import PATIENCE

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("name", sa.String, primary_key=True))


class Keeper(Service, name="keeper", version="1.0.0"):
    """Keeps things."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self.database = database

    @post("/things/<name>")
    async def keep(self, name: str) -> None:
        """Keep one."""
        await self.database.run(self._insert, name)

    @post("/pairs/<name>", raises=(Conflict,))
    async def keep_two(self, name: str, fail: bool = False) -> int:
        """Keep two in one transaction."""
        return await self.database.run(self._insert_two, name, fail)

    @post("/after-a-look/<name>")
    async def keep_after_a_look(self, name: str) -> None:
        """Keep one, with a look that is still open."""
        await self.database.run(self._insert_after_a_look, name)

    @post("/said")
    async def say(self, statement: str) -> None:
        """Execute what is given as text."""
        await self.database.run(lambda tx: tx.execute(sa.text(statement)) and None)

    @get("/things")
    async def kept(self) -> list[str]:
        """All."""
        return await self.database.run(self._select)

    def _insert(self, tx: Any, name: str) -> None:
        tx.execute(sa.insert(things).values(name=name))

    def _insert_two(self, tx: Any, name: str, fail: bool) -> int:
        tx.execute(sa.insert(things).values(name=f"{name}-1"))
        tx.execute(sa.insert(things).values(name=f"{name}-2"))
        if fail:
            raise Conflict("not that one")
        return 2

    def _insert_after_a_look(self, tx: Any, name: str) -> None:
        looking = tx.execute(sa.select(things.c.name))
        looking.fetchone()
        tx.execute(sa.insert(things).values(name=name))
        looking.fetchone()

    def _select(self, tx: Any) -> list[str]:
        return list(tx.execute(sa.select(things.c.name).order_by(things.c.name)).scalars())


class Stranger(Service, name="stranger", version="1.0.0"):
    """Keeps nothing."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""


@pytest.fixture
def world() -> Iterator[World]:
    with World([Keeper, Stranger], seed=4) as world:
        yield world


@pytest.fixture
def keeper(world: World) -> Any:
    return world.client(Keeper)


def kept(world: World) -> list[str]:
    """As they are on the disk."""
    return world.database("keeper").peek(select)


def select(tx: Any) -> list[str]:
    return list(tx.execute(sa.select(things.c.name).order_by(things.c.name)).scalars())


def refused(world: World, awaitable: Any) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        world.run(awaitable)
    return raised.value


def test_both_instances_share_it(world, keeper):
    for name in "abcd":  # in turns at either
        world.run(keeper.keep(name))

    assert [["a", "b", "c", "d"]] * 2 == [world.run(keeper.kept()), world.run(keeper.kept())]
    assert {"keeper/1", "keeper/2"} == {event.host for event in world.log.events if event.kind == "commit"}


def test_looking_takes_no_time_and_reaches_it_whatever_is_down(world, keeper):
    world.run(keeper.keep("a"))
    world.crash("keeper", power=True)
    world.partition("keeper/database", "outside")
    before = world.now

    looked = world.run(world.database("keeper").run(select))
    apart = world.run(world.database("keeper").apart(select))

    assert (["a"], ["a"], before) == (looked, apart, world.now)
    assert ["a"] == kept(world)


def test_looking_while_the_database_is_down_does_not_bring_it_up(world, keeper):
    world.run(keeper.keep("a"))
    world.crash("keeper/database")

    assert ["a"] == kept(world)
    refused(world, keeper.keep("b"))
    world.restart("keeper/database")
    world.run(keeper.keep("c"))
    assert ["a", "c"] == kept(world)


def test_one_that_keeps_no_data_has_none(world):
    with pytest.raises(Exception, match="stranger has no database; these have: keeper"):
        world.database("stranger")


def test_an_error_rolls_back_and_comes_as_itself(world, keeper):
    with pytest.raises(Conflict, match="not that one"):
        world.run(keeper.keep_two("a", fail=True))

    assert [] == kept(world)
    assert ("rollback", "insert_two: Conflict", "keeper/database") in [
        (event.kind, event.text, event.peer) for event in world.log.events
    ]


def test_what_was_committed_survives_every_crash(world, keeper):
    world.run(keeper.keep("a"))

    for power in (False, True):
        world.crash("keeper", power=power)
        world.crash("keeper/database", power=power)
        world.advance(10.0)
        world.restart("keeper/database")
        world.restart()
        world.until(lambda: all(world.processes[name].ready for name in ("keeper/1", "keeper/2")))

    assert ["a"] == world.run(keeper.kept())


@pytest.mark.parametrize(
    "moment", ["before:insert_two/1", "after:insert_two/1", "before:insert_two/2", "after:insert_two/2"]
)
def test_an_instance_that_dies_in_the_middle_of_a_transaction_leaves_nothing_of_it(world, keeper, moment):
    world.crash("keeper", at=moment)

    refused(world, keeper.keep_two("a"))

    assert [] == kept(world)
    assert 1 == sum(world.crashes.values())
    assert ["b"] == [world.run(keeper.keep("b")), kept(world)][1]  # nothing is locked


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("INSERT INTO things (name) VALUES ('a')", (1, 1)),
        ("WITH old AS (SELECT 'a' AS name) INSERT INTO things SELECT name FROM old", (1, 1)),
        ("INSERT INTO ropewalk_members (id, beat) VALUES ('a', 1)", (0, 1)),
        ("SELECT name FROM things", (0, 0)),
    ],
    ids=["plain", "with", "ours", "reading"],
)
def test_a_statement_given_as_text_may_have_changed_any_table_but_one_of_the_frameworks(
    world, keeper, statement, changed
):
    world.run(keeper.say(statement))

    assert changed == (world.changes("keeper", "things"), world.changes())


def test_who_dies_with_a_cursor_open_leaves_no_lock(world, keeper):
    for name in ("a", "b"):
        world.run(keeper.keep(name))
    world.crash("keeper", at="after:insert_after_a_look/2")

    refused(world, keeper.keep_after_a_look("c"))

    with closing(sqlite3.connect(world.database_host("keeper")._path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
    assert ["a", "b"] == kept(world)


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before:insert_two", []),
        ("before:insert_two/commit", []),
        ("after:insert_two/commit", ["a-1", "a-2"]),
        ("after:insert_two", ["a-1", "a-2"]),
        ("before:keep_two", []),
        ("after:keep_two", ["a-1", "a-2"]),
    ],
)
def test_a_crash_around_a_commit_leaves_all_or_nothing(world, keeper, moment, left):
    world.crash("keeper", at=moment)

    refused(world, keeper.keep_two("a"))

    assert left == kept(world)


def test_a_transaction_may_be_run_again_on_a_conflict_and_its_effect_is_one(world, keeper, monkeypatch):
    monkeypatch.setattr(store, "ABORTED", 1.0)

    world.run(keeper.keep("a"))
    with pytest.raises(Conflict):
        world.run(keeper.keep_two("b", fail=True))

    assert ["a"] == kept(world)
    assert 1 == world.points["transaction run again"]  # the other failed the first time


def test_transactions_are_serial_in_the_order_of_their_commits(world, keeper):
    calls = [keeper.keep(f"{number:02}") for number in range(20)]
    for call in calls:
        world.run(call)

    assert 20 == len(kept(world))
    assert 20 == world.log.counts["commit"]


# -- what an instance is told


@pytest.fixture
def database(world: World) -> Any:
    """The database as keeper/1 has it."""
    return world.processes["keeper/1"].services["keeper"].database  # type: ignore[attr-defined]


def insert(tx: Any, name: str) -> None:
    tx.execute(sa.insert(things).values(name=name))


def asked(world: World, database: Any, name: str) -> tuple[float, str]:
    begun = world.now
    error = refused(world, database.run(insert, name))
    return world.now - begun, str(error.ran)


def test_one_that_is_down_refuses_and_it_did_not_run(world, database):
    world.crash("keeper/database")

    seconds, ran = asked(world, database, "a")

    assert seconds < 0.1
    assert "no" == ran


def test_one_without_power_says_nothing_and_nobody_knows(world, database):
    world.crash("keeper/database", power=True)

    assert (pytest.approx(PATIENCE, abs=0.1), "maybe") == asked(world, database, "a")


def test_one_beyond_a_partition_says_nothing_and_it_may_still_run_later(world, database):
    world.partition("keeper/1", "keeper/database")

    told = asked(world, database, "a")
    before = kept(world)
    world.heal()
    world.advance(1.0)

    assert (pytest.approx(PATIENCE, abs=0.1), "maybe") == told
    assert ([], ["a"]) == (before, kept(world))


def test_an_answer_that_is_lost_after_the_commit_is_a_maybe_and_it_is_there(world, database):
    world.hold("keeper/database", "keeper/1")

    assert (pytest.approx(PATIENCE, abs=0.1), "maybe") == asked(world, database, "a")
    assert ["a"] == kept(world)
    world.release("keeper/database", "keeper/1")
    world.advance(1.0)  # the answer that nobody waits for any more


def test_what_waits_at_one_that_crashes_is_lost_and_nobody_knows(world, database):
    world.link("keeper/1", "keeper/database", latency=(1.0, 1.0))
    told: list[Any] = []

    world.at(world.now, lambda: world.driver.run(database.run(insert, "a")).addBoth(told.append))
    world.advance(1.0)
    world.crash("keeper/database")
    world.advance(0.1)
    world.restart("keeper/database")
    world.advance(10.0)

    assert ([], "maybe") == (kept(world), told[0].value.ran)


def test_a_paused_database_answers_when_it_goes_on(world, database):
    world.pause("keeper/database")
    told: list[Any] = []
    world.at(world.now, lambda: world.driver.run(database.run(insert, "a")).addBoth(told.append))
    world.advance(2.0)
    before = list(told)

    world.resume("keeper/database")
    world.advance(1.0)

    assert ([], [None], ["a"]) == (before, told, kept(world))


def test_a_database_has_no_moments_of_its_own_and_says_so(world):
    with pytest.raises(ValueError, match="keeper"):
        world.crash("keeper/database", at="after:insert/commit")


def test_an_instance_that_starts_while_its_database_is_down_serves_some_time_after_that_is_back(world, keeper):
    world.crash("keeper/database")
    world.crash("keeper")
    world.restart("keeper")
    world.advance(10.0)

    world.restart()
    world.advance(60.0)

    assert [True, True] == [world.processes[name].ready for name in ("keeper/1", "keeper/2")]


def test_the_caller_who_goes_away_leaves_the_transaction_alone(world, database):
    running = world.driver.run(database.run(insert, "a"))
    world.at(world.now, running.cancel)
    running.addErrback(lambda _: None)
    world.advance(1.0)

    assert ["a"] == kept(world)


def test_statements_that_fail_come_as_they_are_and_nothing_stays(world, database):
    world.run(database.run(insert, "a"))

    with pytest.raises(sa.exc.IntegrityError):
        world.run(database.run(insert, "a"))

    assert ["a"] == kept(world)
