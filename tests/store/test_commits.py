"""Runs that wait together share a commit, and nobody can tell: one that fails, that is cancelled, that breaks the commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from twisted.internet.defer import CancelledError

from ropewalk import NotFound, Transaction, Unavailable, settled
from ropewalk.memory.store import SQLiteStore
from ropewalk.store import commits as module
from ropewalk.store.database import ATTEMPTS
from ropewalk.testing.contracts.store import Busy
from ropewalk.testing.contracts.suite import Contract

LIMIT = 10.0  # seconds in which the thread goes on, or never

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("name", sa.String, primary_key=True))
parts = sa.Table(
    "parts",
    metadata,
    sa.Column("of", sa.ForeignKey("things.name", deferrable=True, initially="DEFERRED"), primary_key=True),
)


def insert(tx: Transaction, name: str) -> str:
    tx.execute(things.insert().values(name=name))
    return name


def insert_and_fail(tx: Transaction, name: str) -> None:
    insert(tx, name)
    raise NotFound(f"no {name}")


def insert_part(tx: Transaction, of: str) -> None:
    tx.execute(parts.insert().values(of=of))


def names(tx: Transaction) -> list[str]:
    return list(tx.execute(sa.select(things.c.name).order_by(sa.text("rowid"))).scalars())


class TestRunsThatWaitTogether(Contract):
    @pytest.fixture
    def busy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
        from twisted.internet import reactor

        monkeypatch.setattr(module, "LONGEST", LIMIT)  # a machine that is busy is no reason to commit earlier
        self.store = SQLiteStore("sqlite", tmp_path, reactor, lambda: 0.0)
        yield Busy(self.store.open("keeper", metadata))
        self.store.close()

    async def test_what_waits_is_made_in_its_order_and_with_one_commit(self, busy: Busy) -> None:
        given = ["c", "a", "b"]

        outcomes = await busy.go_on(*(busy.run(insert, name) for name in given))

        assert (given, 1) == (outcomes, len(busy.commits))
        assert given == await busy.database.run(names)

    async def test_no_more_share_a_commit_than_the_number_says(
        self, busy: Busy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST", 3)

        await busy.go_on(*(busy.run(insert, name) for name in "abcdefg"))

        assert 3 == len(busy.commits)

    async def test_when_the_time_is_over_nobody_joins_any_more(
        self, busy: Busy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LONGEST", -1.0)

        await busy.go_on(*(busy.run(insert, name) for name in "abc"))

        assert 3 == len(busy.commits)

    async def test_one_that_fails_is_rolled_back_by_itself(self, busy: Busy) -> None:
        outcomes = await busy.go_on(busy.run(insert, "a"), busy.run(insert_and_fail, "b"), busy.run(insert, "b"))

        assert ["a", "no b", "b"] == [outcomes[0], outcomes[1].detail, outcomes[2]]
        assert (["a", "b"], 1) == (await busy.database.run(names), len(busy.commits) - 1)

    async def test_one_that_is_cancelled_while_it_waits_is_never_made(self, busy: Busy) -> None:
        first, second, third = (busy.run(insert, name) for name in "abc")

        second.cancel()
        outcomes = await busy.go_on(first, second, third)

        assert ["a", CancelledError, "c"] == [outcomes[0], type(outcomes[1]), outcomes[2]]
        assert ["a", "c"] == await busy.database.run(names)

    async def test_one_that_is_cancelled_while_it_runs_commits(self, busy: Busy) -> None:
        begun: Future[None] = Future()
        go: Future[None] = Future()

        def slow(tx: Transaction) -> None:
            insert(tx, "slow")
            begun.set_result(None)
            go.result(LIMIT)

        running, waiting = busy.run(slow), busy.run(insert, "a")
        busy._go.set_result(None)
        begun.result(LIMIT)
        running.cancel()
        go.set_result(None)
        outcomes = await settled(running, waiting)

        assert [CancelledError, str] == [type(outcome) for outcome in outcomes]
        assert ["slow", "a"] == await busy.database.run(names)

    async def test_who_breaks_the_commit_is_the_only_one_to_hear_of_it(self, busy: Busy) -> None:
        outcomes = await busy.go_on(busy.run(insert, "a"), busy.run(insert_part, "nothing"), busy.run(insert, "b"))

        assert ["a", "b"] == [outcomes[0], outcomes[2]]
        assert isinstance(outcomes[1], sa.exc.IntegrityError)
        assert ["a", "b"] == await busy.database.run(names)

    async def test_what_a_disk_has_refused_once_is_made_once_more_by_each_alone(self, busy: Busy) -> None:
        first, second, third = busy.run(insert, "a"), busy.run(insert_and_fail, "x"), busy.run(insert, "b")
        refused = failing(busy, 2)

        outcomes = await busy.go_on(first, second, third)

        assert ["a", "no x", "b"] == [outcomes[0], outcomes[1].detail, outcomes[2]]
        assert (["a", "b"], 1) == (await busy.database.run(names), len(refused))

    async def test_who_alone_hears_nothing_of_his_commit_is_told_maybe(self, busy: Busy) -> None:
        first, second = busy.run(insert, "a"), busy.run(insert, "b")
        failing(busy, 2, 3)

        outcomes = await busy.go_on(first, second)

        assert ("maybe", "b") == (outcomes[0].ran, outcomes[1])

    async def test_a_conflict_is_run_again_in_its_place(self, busy: Busy) -> None:
        tries: list[int] = []

        def at_the_second_try(tx: Transaction) -> str:
            tries.append(1)
            insert(tx, "b")
            if len(tries) == 1:
                raise locked()
            return "b"

        outcomes = await busy.go_on(busy.run(insert, "a"), busy.run(at_the_second_try), busy.run(insert, "c"))

        assert ["a", "b", "c"] == outcomes == await busy.database.run(names)

    async def test_a_conflict_that_does_not_end_is_unavailable_and_did_not_run(self, busy: Busy) -> None:
        tries: list[int] = []

        def in_vain(tx: Transaction) -> None:
            tries.append(1)
            raise locked()

        outcomes = await busy.go_on(busy.run(insert, "a"), busy.run(in_vain), busy.run(insert, "b"))

        assert ["a", "no", "b"] == [outcomes[0], outcomes[1].ran, outcomes[2]]
        assert 1 + ATTEMPTS == len(tries)

    async def test_a_statement_that_is_none_is_unavailable_for_its_own_run(self, busy: Busy) -> None:
        outcomes = await busy.go_on(
            busy.run(insert, "a"), busy.run(lambda tx: tx.execute(sa.text("no statement"))), busy.run(insert, "b")
        )

        assert ["a", Unavailable, "b"] == [outcomes[0], type(outcomes[1]), outcomes[2]]
        assert ("no", 'The database of keeper cannot be used: near "no": syntax error') == (
            outcomes[1].ran,
            outcomes[1].detail,
        )

    async def test_an_error_after_which_sqlite_rolls_all_back_costs_the_others_nothing(self, busy: Busy) -> None:
        def roll_back(tx: Transaction) -> None:
            insert(tx, "b")
            tx.execute(sa.text("INSERT OR ROLLBACK INTO things VALUES ('b')"))

        outcomes = await busy.go_on(busy.run(insert, "a"), busy.run(roll_back), busy.run(insert, "c"))

        assert ["a", sa.exc.IntegrityError, "c"] == [outcomes[0], type(outcomes[1]), outcomes[2]]
        assert ["a", "c"] == await busy.database.run(names)

    @pytest.mark.parametrize(("statement", "left"), [("COMMIT", ["a", "b", "c"]), ("ROLLBACK", ["c"])])
    async def test_who_ends_the_transaction_himself_is_told_and_nobody_runs_twice(
        self, busy: Busy, statement: str, left: list[str]
    ) -> None:
        tries: list[str] = []

        def counted(tx: Transaction) -> None:
            tries.append("a")
            insert(tx, "a")

        def end(tx: Transaction) -> None:
            insert(tx, "b")
            tx.execute(sa.text(statement))

        outcomes = await busy.go_on(
            busy.run(counted), busy.run(insert_and_fail, "x"), busy.run(end), busy.run(insert, "c")
        )

        assert [Unavailable, NotFound, RuntimeError, str] == [type(outcome) for outcome in outcomes]
        assert ("maybe", ["a"]) == (outcomes[0].ran, tries)
        assert left == await busy.database.run(names)

    async def test_what_waits_when_the_store_is_closed_is_done_before_it_is(self, busy: Busy) -> None:
        waiting = [busy.run(insert, name) for name in "abc"]

        busy._go.set_result(None)
        self.store.close()

        assert ["a", "b", "c"] == await settled(*waiting)
        with pytest.raises(Unavailable, match="closed"):
            await busy.database.run(names)


# -- what they stand on


def locked() -> sa.exc.OperationalError:
    return sa.exc.OperationalError("INSERT", None, sqlite3.OperationalError("database is locked"))


def failing(busy: Busy, *numbers: int) -> list[int]:
    """Have these of the commits from here on fail as a disk does, the first is 1; those that have are in the list."""
    number = count(1)
    failed: list[int] = []

    def fail(_: Any) -> None:
        commit = next(number)
        if commit in numbers:
            failed.append(commit)
            raise sa.exc.OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    event.listen(busy.database._engine, "commit", fail)
    return failed
