"""What waits together is made together, and each giver meets the outcome of its own item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from twisted.internet.task import deferLater

from ropewalk import Conflict, NotFound, Transaction, Unavailable, settled
from ropewalk.driver import Driver
from ropewalk.memory.store import SQLiteStore
from ropewalk.store import Database
from ropewalk.store import batches as module
from ropewalk.testing.contracts.suite import Contract

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("name", sa.String, primary_key=True))


class Shelf:
    """Functions of many items, and what they were given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def put(self, tx: Transaction, names: Sequence[str]) -> list[Any]:
        self.given.append(list(names))
        fine = [{"name": name} for name in names if name != "heavy"]
        if fine:
            tx.execute(things.insert(), fine)
        return [Conflict("too heavy") if name == "heavy" else f"put {name}" for name in names]

    def count(self, tx: Transaction, names: Sequence[str]) -> list[int]:
        self.given.append(list(names))
        return [int(tx.execute(sa.select(sa.func.count()).select_from(things)).scalar_one()) for _ in names]


class TestBatches(Contract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Any:
        from twisted.internet import reactor

        store = SQLiteStore("sqlite", tmp_path, reactor, lambda: 0.0)
        yield store.open("keeper", metadata)
        store.close()

    async def give(self, database: Database, *items: tuple[Any, Any]) -> list[Any]:
        run = Driver.of().run
        return await settled(*(run(database.batched(function, item)) for function, item in items))

    async def test_what_is_given_in_one_turn_goes_together_and_each_has_its_own_outcome(
        self, database: Database
    ) -> None:
        shelf = Shelf()

        outcomes = await self.give(database, *((shelf.put, name) for name in ("book", "cup", "lamp", "vase")))

        assert ["put book", "put cup", "put lamp", "put vase"] == outcomes
        assert [["book", "cup", "lamp", "vase"]] == shelf.given

    async def test_what_comes_while_one_is_made_goes_with_the_next(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf, make, later = Shelf(), database._batches._run, []

        async def run(batch: Any) -> Any:
            if not later:
                later.extend(Driver.of().run(database.batched(shelf.put, name)) for name in ("cup", "lamp"))
            return await make(batch)

        monkeypatch.setattr(database._batches, "_run", run)

        outcomes = [await database.batched(shelf.put, "book"), *await settled(*later)]

        assert ["put book", "put cup", "put lamp"] == outcomes
        assert [["book"], ["cup", "lamp"]] == shelf.given

    async def test_functions_share_it_in_the_order_in_which_they_came(self, database: Database) -> None:
        shelf = Shelf()

        outcomes = await self.give(
            database, (shelf.put, "book"), (shelf.put, "cup"), (shelf.count, "?"), (shelf.put, "lamp")
        )

        assert ["put book", "put cup", 3, "put lamp"] == outcomes
        assert [["book", "cup", "lamp"], ["?"]] == shelf.given

    async def test_one_that_is_refused_hears_of_it_alone(self, database: Database) -> None:
        book, heavy = await self.give(database, *((Shelf().put, name) for name in ("book", "heavy")))

        assert ("put book", "too heavy") == (book, heavy.detail)

    async def test_one_that_breaks_the_transaction_is_made_alone_and_hears_of_it_alone(
        self, database: Database
    ) -> None:
        shelf = Shelf()
        await database.batched(shelf.put, "book")

        cup, book, lamp = await self.give(database, *((shelf.put, name) for name in ("cup", "book", "lamp")))

        assert ("put cup", "put lamp", sa.exc.IntegrityError) == (cup, lamp, type(book))
        assert [["book"], ["cup", "book", "lamp"], ["cup"], ["book"], ["lamp"]] == shelf.given
        assert [3] == await self.give(database, (shelf.count, "?"))

    async def test_a_database_that_cannot_be_used_is_told_to_all_and_not_asked_for_each(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from twisted.internet import reactor

        asked = []

        async def run(batch: Any) -> Any:
            asked.append(batch)
            await deferLater(cast(Any, reactor), 0)
            raise Unavailable("gone fishing")

        monkeypatch.setattr(database._batches, "_run", run)

        outcomes = await self.give(database, *((Shelf().put, name) for name in ("book", "cup", "lamp")))

        assert ["gone fishing"] * 3 == [outcome.detail for outcome in outcomes]
        assert 1 == len(asked)

    async def test_who_waits_no_more_keeps_nobody_from_being_answered(self, database: Database) -> None:
        run = Driver.of().run
        first, second = (run(database.batched(Shelf().put, name)) for name in ("book", "cup"))
        first.addErrback(lambda _: None)

        first.cancel()

        assert "put cup" == await second

    async def test_no_more_go_together_than_the_number_says(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST", 2)
        shelf = Shelf()

        await self.give(database, *((shelf.put, name) for name in "abcde"))

        assert [["a", "b"], ["c", "d"], ["e"]] == shelf.given

    async def test_one_that_is_not_found_raises_where_it_was_asked_for(self, database: Database) -> None:
        def find(tx: Transaction, names: Sequence[str]) -> list[Any]:
            return [NotFound(name) for name in names]

        with pytest.raises(NotFound, match="key"):
            await database.batched(find, "key")
