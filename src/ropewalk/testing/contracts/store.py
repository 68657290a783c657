"""What every IStore keeps: `Database.run` is all or nothing, serial as far as anybody can tell, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from ...driver import Driver, settled
from ...errors import NotFound, RopewalkError, Unavailable
from ...interfaces import IStore
from ...store import Database, Transaction
from ...store.database import ATTEMPTS
from .suite import Contract

metadata = sa.MetaData()
counts = sa.Table(
    "counts", metadata, sa.Column("name", sa.String(100), primary_key=True), sa.Column("value", sa.Integer)
)
notes = sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))

AT_ONCE = 20  # runs that are begun together
ROWS = 5000  # of a large result
LARGE = 1_000_000  # characters of a large value
IN_VAIN = 2.0  # seconds after which something is said to wait for ever
TEXTS = {
    "nothing": "",
    "accents": "naïve café e\u0301",
    "symbols": "Ω≈ç√∫",
    "Japanese": "日本語",
    "emoji": "🏨🛏️",
    "quotes": "a'b\"c;--",
    "lines": "line\nbreak\ttab",
}


class Busy:
    """A database of one connection, which a first run keeps busy while others wait behind it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.commits: list[Any] = []  # of those that waited
        self._go: Future[None] = Future()
        begun: Future[None] = Future()

        def keep_busy(tx: Transaction) -> None:
            begun.set_result(None)
            self._go.result(IN_VAIN * 5)

        self._first = self.run(keep_busy)
        begun.result(IN_VAIN * 5)

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """One more that waits."""
        return Driver.of().run(self.database.run(function, *args))

    async def go_on(self, *waiting: Deferred[Any]) -> list[Any]:
        """Let them have their turn; what they come to, with each of their COMMITs in `commits`."""
        event.listen(self.database._engine, "commit", self._committed)
        self._go.set_result(None)
        await self._first
        outcomes = await settled(*waiting)
        self.commits.pop(0)  # of the first
        return outcomes

    def _committed(self, connection: Any) -> None:
        self.commits.append(connection)


class StoreContract(Contract):
    """`make()`: a store on the same place each time, so that one opened later finds what an earlier one kept."""

    threads: ClassVar[bool] = True  # whether functions run off the reactor's thread, as real drivers make them

    def conflict(self) -> Exception | None:
        """What the driver raises when a transaction may be run again; None where it cannot happen."""
        return None

    @pytest.fixture
    def stores(self, make: Callable[[], Awaitable[IStore]]) -> Any:
        """Makes stores and closes them after the test."""
        stores = Stores(make)
        yield stores
        stores.close()

    # -- what is kept

    async def test_it_is_a_store(self, stores: Stores) -> None:
        assert verifyObject(IStore, await stores.make())

    async def test_what_is_committed_is_visible_to_later_runs(self, stores: Stores) -> None:
        database = await stores.open()

        await database.run(write, "a", 1)

        assert 1 == await database.run(read, "a")

    async def test_a_run_sees_what_it_wrote_itself(self, stores: Stores) -> None:
        database = await stores.open()

        def write_and_read(tx: Transaction) -> int | None:
            write(tx, "a", 1)
            return read(tx, "a")

        assert 1 == await database.run(write_and_read)

    async def test_the_function_is_given_its_arguments_and_its_value_comes_back(self, stores: Stores) -> None:
        database = await stores.open()

        def echo(tx: Transaction, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        assert ((1, "b"), {"c": None}) == await database.run(echo, 1, "b", c=None)

    async def test_what_raises_is_rolled_back_and_raised_as_it_is(self, stores: Stores) -> None:
        database = await stores.open()
        error = NotFound("There is no b.", name="b")

        def fail(tx: Transaction) -> None:
            write(tx, "a", 1)
            raise error

        with pytest.raises(NotFound) as raised:
            await database.run(fail)

        assert error is raised.value
        assert None is await database.run(read, "a")

    async def test_a_statement_that_fails_is_raised_and_rolls_back_what_came_before(self, stores: Stores) -> None:
        database = await stores.open()

        def twice(tx: Transaction) -> None:
            write(tx, "a", 1)
            write(tx, "a", 2)

        with pytest.raises(sa.exc.IntegrityError):
            await database.run(twice)

        assert None is await database.run(read, "a")

    async def test_after_a_failure_the_database_goes_on(self, stores: Stores) -> None:
        database = await stores.open()

        def wrong(tx: Transaction) -> None:
            tx.execute(sa.text("this is no statement"))

        for _ in range(3):
            with pytest.raises((sa.exc.DBAPIError, RopewalkError)):
                await database.run(wrong)
        await database.run(write, "a", 1)

        assert 1 == await database.run(read, "a")

    # -- runs that meet

    async def test_increments_at_once_lose_nothing(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 0)

        assert [None] * AT_ONCE == await settled(*(database.run(increment, "a") for _ in range(AT_ONCE)))
        assert AT_ONCE == await database.run(read, "a")

    async def test_of_two_runs_that_read_what_the_other_writes_both_have_their_effect(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 1)
        await database.run(write, "b", 10)

        def move(tx: Transaction, from_: str, to: str) -> None:
            value = read(tx, from_) or 0
            tx.execute(counts.update().where(counts.c.name == to).values(value=counts.c.value + value))

        assert [None, None] == await settled(database.run(move, "a", "b"), database.run(move, "b", "a"))
        # One after the other, in either order: 11 and then 12, or 11 and then 21.
        found = (await database.run(read, "a"), await database.run(read, "b"))
        assert found in {(12, 11), (11, 21)}

    async def test_of_many_runs_at_once_those_that_fail_take_nobody_along(self, stores: Stores) -> None:
        database = await stores.open()

        def write_and_maybe_fail(tx: Transaction, number: int) -> int:
            write(tx, f"{number}", number)
            if number % 3 == 1:
                raise NotFound(f"There is no {number}.")
            if number % 3 == 2:
                write(tx, f"{number}", number)
            return number

        outcomes = await settled(*(database.run(write_and_maybe_fail, number) for number in range(AT_ONCE)))

        kinds = (int, NotFound, sa.exc.IntegrityError)
        assert [kinds[number % 3] for number in range(AT_ONCE)] == [type(outcome) for outcome in outcomes]
        assert [f"There is no {number}." for number in range(1, AT_ONCE, 3)] == [each.detail for each in outcomes[1::3]]
        found = [await database.run(read, f"{number}") for number in range(AT_ONCE)]
        assert [number if number % 3 == 0 else None for number in range(AT_ONCE)] == found

    async def test_a_conflict_is_run_again_and_has_its_effect_once(self, stores: Stores) -> None:
        conflict = self.conflict()
        if conflict is None:
            pytest.skip("two transactions of this store never meet")
        database = await stores.open()
        await database.run(write, "a", 0)
        tries: list[int] = []

        def once_more(tx: Transaction) -> int:
            tries.append(1)
            increment(tx, "a")
            if len(tries) == 1:
                raise conflict
            return read(tx, "a") or 0

        assert 1 == await database.run(once_more)
        assert 1 == await database.run(read, "a")

    async def test_a_conflict_that_does_not_end_is_unavailable(self, stores: Stores) -> None:
        conflict = self.conflict()
        if conflict is None:
            pytest.skip("two transactions of this store never meet")
        database = await stores.open()
        tries: list[int] = []

        def in_vain(tx: Transaction) -> None:
            tries.append(1)
            raise conflict

        with pytest.raises(Unavailable):
            await database.run(in_vain)

        assert ATTEMPTS == len(tries)

    # -- opening and closing

    async def test_a_store_opened_again_has_what_was_kept(self, stores: Stores) -> None:
        first = await stores.open()
        await first.run(write, "a", 1)
        stores.close()

        second = await stores.open()

        assert 1 == await second.run(read, "a")

    async def test_a_database_opened_twice_is_one(self, stores: Stores) -> None:
        store = await stores.make()
        first, second = store.open("orders", metadata), store.open("orders", metadata)

        await first.run(write, "a", 1)

        assert 1 == await second.run(read, "a")

    async def test_each_service_has_a_database_of_its_own(self, stores: Stores) -> None:
        store = await stores.make()
        mine, theirs = store.open("orders", metadata), store.open("stock", metadata)

        await mine.run(write, "a", 1)

        assert None is await theirs.run(read, "a")

    async def test_a_database_without_tables_can_be_opened(self, stores: Stores) -> None:
        store = await stores.make()
        database = store.open("orders", None)

        def one(tx: Transaction) -> Any:
            return tx.execute(sa.select(sa.literal(1))).scalar_one()

        assert 1 == await database.run(one)

    async def test_a_closed_store_refuses(self, stores: Stores) -> None:
        database = await stores.open()
        stores.close()

        with pytest.raises(Unavailable):
            async with asyncio.timeout(IN_VAIN):
                await database.run(read, "a")

    # -- what is unpleasant

    async def test_a_run_that_is_cancelled_is_all_or_nothing_and_the_next_one_goes_on(self, stores: Stores) -> None:
        database = await stores.open()

        def write_both(tx: Transaction) -> None:
            write(tx, "a", 1)
            write(tx, "b", 1)

        running = Driver.of().run(database.run(write_both))
        running.cancel()
        with pytest.raises((CancelledError, asyncio.CancelledError)):
            await running

        def read_both(tx: Transaction) -> tuple[int | None, int | None]:
            return read(tx, "a"), read(tx, "b")

        assert await database.run(read_both) in {(1, 1), (None, None)}

    async def test_a_large_result_comes_whole(self, stores: Stores) -> None:
        database = await stores.open()

        def fill(tx: Transaction) -> None:
            tx.execute(notes.insert(), [{"id": number, "text": str(number)} for number in range(ROWS)])

        def read_all(tx: Transaction) -> list[tuple[int, str]]:
            return [(row.id, row.text) for row in tx.execute(notes.select().order_by(notes.c.id))]

        await database.run(fill)

        assert [(number, str(number)) for number in range(ROWS)] == await database.run(read_all)

    async def test_a_large_value_comes_whole(self, stores: Stores) -> None:
        database = await stores.open()
        text = "0123456789" * (LARGE // 10)

        await database.run(keep, 1, text)

        assert text == await database.run(kept, 1)

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_text_comes_back_as_it_was(self, stores: Stores, text: str) -> None:
        database = await stores.open()

        await database.run(keep, 1, text)

        assert text == await database.run(kept, 1)

    async def test_a_run_does_not_stop_the_reactor(self, stores: Stores) -> None:
        if not self.threads:
            pytest.skip("the functions of this store run on a simulated reactor")
        database = await stores.open()
        turned: Future[str] = Future()

        def wait_for_the_reactor(tx: Transaction) -> str:
            return turned.result(IN_VAIN)

        running = Driver.of().run(database.run(wait_for_the_reactor))
        await asyncio.sleep(0)
        turned.set_result("it turned")

        assert "it turned" == await running


class Stores:
    """The stores of one test."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        self._make = make
        self._open: list[Any] = []

    async def make(self) -> Any:
        """A new one, on the same place."""
        store = await self._make()
        self._open.append(store)
        return store

    async def open(self) -> Database:
        """The database of a service, in a new one."""
        database: Database = (await self.make()).open("orders", metadata)
        return database

    def close(self) -> None:
        """Close those that were made."""
        while self._open:
            self._open.pop().close()


# -- what the runs do


def write(tx: Transaction, name: str, value: int) -> None:
    """Add a row."""
    tx.execute(counts.insert().values(name=name, value=value))


def read(tx: Transaction, name: str) -> int | None:
    """Its value; None when there is none."""
    value: int | None = tx.execute(sa.select(counts.c.value).where(counts.c.name == name)).scalar_one_or_none()
    return value


def increment(tx: Transaction, name: str) -> None:
    """Read it, and write one more: what loses something where runs are not serial."""
    value = read(tx, name) or 0
    tx.execute(counts.update().where(counts.c.name == name).values(value=value + 1))


def keep(tx: Transaction, number: int, text: str) -> None:
    """Add a note."""
    tx.execute(notes.insert().values(id=number, text=text))


def kept(tx: Transaction, number: int) -> str:
    """Its text."""
    text: str = tx.execute(sa.select(notes.c.text).where(notes.c.id == number)).scalar_one()
    return text
