"""PostgreSQL keeps what every store keeps, and what its own nature adds: conflicts, lost connections, schemas."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Barrier
from time import monotonic
from typing import Any

import msgspec
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from ropewalk import Conflict, Event, Transaction, Unavailable, settled
from ropewalk.context import Keyed, enter_key, leave_key
from ropewalk.driver import Driver
from ropewalk.errors import ConfigurationError
from ropewalk.event import Message
from ropewalk.plugin import find_adapter
from ropewalk.sagas import journal
from ropewalk.store import Database, commits, members, outbox, started
from ropewalk.store.database import ATTEMPTS
from ropewalk.store.migrations import Differs, migrate
from ropewalk.testing.contracts import StoreContract
from ropewalk.testing.contracts.store import Busy, Stores, counts, increment, metadata, notes, read, write
from ropewalk.testing.contracts.suite import Contract
from ropewalk_postgresql import store as module
from ropewalk_postgresql.store import PostgreSQLStore, parse, schema_of

NAME = f"ropewalk_test_{os.getpid()}"  # a database of our own: other runs of the tests have theirs
CONNECTION = f"host=127.0.0.1 user=postgres dbname={NAME}"
WHERE = f"postgresql://postgres@127.0.0.1/{NAME}"
OTHERS = (
    "FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
NOW = 1_777_626_000.0
LIMIT = 10.0  # seconds in which a thread meets another, or never


class Counted(Event, topic="orders.counted"):
    """What is published."""

    number: int


@pytest.fixture(scope="module")
def administration() -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the database of these tests, which comes and goes with it."""
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {NAME}")
        server.execute(f"ALTER DATABASE {NAME} SET deadlock_timeout = '50ms'")  # a second otherwise
        yield server
        server.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture(scope="module")
def inside(administration: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection to it."""
    with psycopg.connect(CONNECTION, autocommit=True) as connection:
        yield connection


class OnPostgreSQL:
    """What the tests on the real server share."""

    administration: psycopg.Connection[Any]
    server: psycopg.Connection[Any]

    @pytest.fixture(autouse=True)
    def _on_an_empty_database(self, administration: psycopg.Connection[Any], inside: psycopg.Connection[Any]) -> None:
        self.administration, self.server = administration, inside
        for schema in self.schemas():
            inside.execute(f'DROP SCHEMA "{schema}" CASCADE')

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Awaitable[Any]]:
        async def make() -> PostgreSQLStore:
            return make_store(WHERE, tmp_path)

        return make

    def connections(self) -> int:
        """How many there are beside ours."""
        return len(self.server.execute(f"SELECT pid {OTHERS}").fetchall())

    def lose_connections(self) -> int:
        """End them all but ours, and wait until they are gone; how many those were."""
        ended = self.server.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}").fetchall()
        while self.connections():
            pass
        return len(ended)

    def schemas(self) -> list[str]:
        found = self.server.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' "
            "AND nspname NOT IN ('information_schema', 'public') ORDER BY nspname"
        )
        return [name for (name,) in found]


@pytest.mark.backend("postgresql")
class TestPostgreSQLStore(OnPostgreSQL, StoreContract):
    def conflict(self) -> Exception:
        return sa.exc.OperationalError("UPDATE", None, psycopg.errors.SerializationFailure("could not serialize"))


@pytest.mark.backend("postgresql")
class TestWhatIsOfPostgreSQLAlone(OnPostgreSQL, Contract):
    @pytest.fixture
    def stores(self, make: Callable[[], Awaitable[Any]]) -> Iterator[Stores]:
        stores = Stores(make)
        yield stores
        stores.close()

    # -- transactions that meet

    async def test_of_two_runs_that_read_before_either_writes_both_have_their_effect(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 0)
        have_read, tries = Together(2), []

        def read_and_write(tx: Transaction) -> None:
            tries.append(1)
            value = read(tx, "a") or 0
            have_read.meet()
            tx.execute(counts.update().where(counts.c.name == "a").values(value=value + 1))

        assert [None, None] == await settled(database.run(read_and_write), database.run(read_and_write))
        assert 3 == len(tries)
        assert 2 == await database.run(read, "a")

    async def test_a_conflict_that_only_the_commit_meets_is_run_again(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 1)
        await database.run(write, "b", 10)
        have_written, written = Together(2), []

        def add(tx: Transaction, from_: str, to: str) -> None:
            value = read(tx, from_)
            tx.execute(counts.update().where(counts.c.name == to).values(value=counts.c.value + value))
            have_written.meet()
            written.append(to)

        assert [None, None] == await settled(database.run(add, "a", "b"), database.run(add, "b", "a"))
        assert 3 == len(written)
        found = (await database.run(read, "a"), await database.run(read, "b"))
        assert found in {(12, 11), (11, 21)}

    async def test_a_deadlock_is_run_again(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 0)
        await database.run(write, "b", 0)
        have_locked, tries = Together(2), []

        def add(tx: Transaction, first: str, second: str) -> None:
            tries.append(1)
            tx.execute(counts.update().where(counts.c.name == first).values(value=counts.c.value + 1))
            have_locked.meet()
            tx.execute(counts.update().where(counts.c.name == second).values(value=counts.c.value + 1))

        assert [None, None] == await settled(database.run(add, "a", "b"), database.run(add, "b", "a"))
        assert len(tries) > 2
        assert (2, 2) == (await database.run(read, "a"), await database.run(read, "b"))

    async def test_many_runs_of_two_processes_on_one_row_all_come_to_an_end(self, stores: Stores) -> None:
        first, second = await stores.open(), await stores.open()
        await first.run(write, "a", 0)

        runs = [database.run(increment, "a") for database in (first, second) for _ in range(30)]

        assert [None] * 60 == await settled(*runs)
        assert 60 == await first.run(read, "a")

    async def test_a_transaction_that_has_met_conflicts_writes_alone(self, stores: Stores) -> None:
        first, second = await stores.open(), await stores.open()
        await first.run(write, "a", 0)
        tries: list[int] = []

        def always_disturbed(tx: Transaction) -> str:
            tries.append(1)
            value = read(tx, "a") or 0
            try:
                with psycopg.connect(CONNECTION, options="-c lock_timeout=100") as other:
                    other.execute("UPDATE orders.counts SET value = value + 10")
            except psycopg.errors.LockNotAvailable:
                return "alone"
            tx.execute(counts.update().where(counts.c.name == "a").values(value=value + 1))
            return "never"

        assert "alone" == await second.run(always_disturbed)
        assert 3 == len(tries) < ATTEMPTS

    # -- under a key

    async def test_two_processes_asked_under_one_key_have_one_effect_and_the_same_result(self, stores: Stores) -> None:
        first, second = await stores.open(), await stores.open()
        await first.run(write, "a", 0)
        have_begun, tries = Together(2), []

        def count(tx: Transaction) -> int:
            tries.append(1)
            have_begun.meet()
            increment(tx, "a")
            return read(tx, "a") or 0

        assert [1, 1] == await settled(asked(first, count), asked(second, count))
        assert 2 == len(tries)
        assert 1 == await first.run(read, "a")

    async def test_what_was_refused_under_a_key_is_refused_again(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 0)

        def refuse(tx: Transaction) -> None:
            increment(tx, "a")
            raise Conflict(f"There are {read(tx, 'a')}.")

        refused = await settled(asked(database, refuse), asked(database, refuse))
        await database.run(increment, "a")
        refused += await settled(asked(database, refuse))

        assert ["There are 1."] * 3 == [error.detail for error in refused]
        assert 1 == await database.run(read, "a")

    # -- a statement that fails

    async def test_what_goes_on_after_a_statement_has_failed_is_told_that_nothing_commits(self, stores: Stores) -> None:
        database = await stores.open()
        await database.run(write, "a", 0)

        def go_on(tx: Transaction) -> None:
            write(tx, "b", 1)
            try:
                write(tx, "a", 1)
            except sa.exc.IntegrityError:
                return

        with pytest.raises(RuntimeError, match="A statement failed and the function of Database.run went on"):
            await database.run(go_on)

        assert None is await database.run(read, "b")

    # -- connections that are lost

    async def test_connections_that_were_lost_between_two_runs_are_made_anew(self, stores: Stores) -> None:
        database = await stores.open()
        await settled(*(database.run(read, "a") for _ in range(20)))

        assert self.lose_connections() > 0

        await database.run(write, "a", 1)
        assert [1] * 20 == await settled(*(database.run(read, "a") for _ in range(20)))

    async def test_a_connection_that_is_lost_during_a_run_is_unavailable_and_nothing_of_it_stays(
        self, stores: Stores
    ) -> None:
        database = await stores.open()

        def lose(tx: Transaction) -> None:
            write(tx, "a", 1)
            self.lose_connections()
            write(tx, "b", 1)

        with pytest.raises(Unavailable) as raised:
            await database.run(lose)

        assert ("no", "The database of orders cannot be used") == (raised.value.ran, raised.value.detail.split(":")[0])
        assert (None, None) == (await database.run(read, "a"), await database.run(read, "b"))

    async def test_a_connection_that_is_lost_while_it_commits_may_have_committed(self, stores: Stores) -> None:
        database = await stores.open()
        self.server.execute(
            "CREATE FUNCTION orders.lose() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        self.server.execute(
            "CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON orders.counts DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION orders.lose()"
        )

        with pytest.raises(Unavailable) as raised:
            await database.run(write, "a", 1)

        assert "maybe" == raised.value.ran

    async def test_a_server_that_takes_no_connections_is_unavailable_until_it_does(self, stores: Stores) -> None:
        database = await stores.open()
        self.administration.execute(f"ALTER DATABASE {NAME} ALLOW_CONNECTIONS false")
        try:
            self.lose_connections()
            with pytest.raises(Unavailable) as raised:
                await database.run(write, "a", 1)
        finally:
            self.administration.execute(f"ALTER DATABASE {NAME} ALLOW_CONNECTIONS true")

        assert "no" == raised.value.ran
        assert None is await database.run(read, "a")

    async def test_a_server_that_is_away_is_unavailable_when_a_database_is_opened(self, tmp_path: Path) -> None:
        store = make_store("postgresql://postgres@127.0.0.1:1/hotel", tmp_path)

        with pytest.raises(Unavailable) as raised:
            store.open("orders", metadata)

        assert "no" == raised.value.ran
        assert raised.value.detail.startswith("The database of orders cannot be opened: ")

    async def test_a_database_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        store = make_store("postgresql://postgres@127.0.0.1/ropewalk_nowhere", tmp_path)

        with pytest.raises(Unavailable, match='database "ropewalk_nowhere" does not exist'):
            store.open("orders", metadata)

    async def test_what_is_executed_after_a_publish_goes_in_the_order_of_the_events(self, stores: Stores) -> None:
        database = await stores.open()
        database.random, database.member = Random(1), "me"
        has_its_turn = threading.Event()

        def draw(tx: Transaction) -> int:
            [number] = tx.execute(notes.insert().values(text="")).inserted_primary_key
            return int(number)

        def first(tx: Transaction) -> int:
            tx.publish(Counted(number=1), key="a")
            tx.execute(sa.select(sa.literal(1)))
            has_its_turn.set()
            until = monotonic() + LIMIT
            while not self.server.execute(f"SELECT 1 {OTHERS} AND wait_event = 'advisory'").fetchone():
                assert monotonic() < until, "the second does not wait"
            return draw(tx)

        def second(tx: Transaction) -> int:
            assert has_its_turn.wait(LIMIT)
            tx.publish(Counted(number=2), key="a")
            return draw(tx)

        drawn = await settled(database.run(first), database.run(second))
        rows = await database.apart(outbox.pending)

        assert sorted(drawn) == drawn
        assert [1, 2] == [Message.decoded(row.message).event([Counted]).number for row in rows]

    # -- limits

    async def test_who_waits_too_long_for_a_connection_is_refused_and_never_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        store = make_store(f"{WHERE}?pool=1", tmp_path)
        database = store.open("orders", metadata)
        refused: Future[None] = Future()
        running = Driver.of().run(database.run(lambda tx: refused.result(LIMIT)))

        with pytest.raises(Unavailable) as raised:
            await database.run(write, "a", 1)
        refused.set_result(None)
        await running

        assert (
            "no",
            "The database of orders is busy: none of its 1 connections came free within 0.05 seconds.",
        ) == (raised.value.ran, raised.value.detail)
        assert None is await database.run(read, "a")
        store.close()

    async def test_a_run_that_is_cancelled_before_its_turn_never_runs(self, tmp_path: Path) -> None:
        store = make_store(f"{WHERE}?pool=1", tmp_path)
        database = store.open("orders", metadata)
        cancelled: Future[None] = Future()
        running = Driver.of().run(database.run(lambda tx: cancelled.result(LIMIT)))
        waiting = Driver.of().run(database.run(write, "a", 1))

        waiting.cancel()
        cancelled.set_result(None)
        await settled(running, waiting)

        assert None is await database.run(read, "a")
        store.close()

    async def test_connections_are_set_as_the_store_says(self, stores: Stores) -> None:
        database = await stores.open()
        names = ("transaction_isolation", "statement_timeout", "search_path")

        def settings(tx: Transaction) -> list[str]:
            return [tx.execute(sa.text(f"SHOW {name}")).scalar_one() for name in names]

        assert ["serializable", "30s", '"orders"'] == await database.run(settings)

    async def test_a_statement_that_takes_too_long_is_unavailable(self, tmp_path: Path) -> None:
        store = make_store(f"{WHERE}?options=-c%20statement_timeout%3D50", tmp_path)
        database = store.open("orders", metadata)

        with pytest.raises(Unavailable, match="statement timeout") as raised:
            await database.run(lambda tx: tx.execute(sa.text("SELECT pg_sleep(10)")))

        assert "no" == raised.value.ran
        store.close()

    async def test_a_closed_store_leaves_no_connection_and_closes_twice(self, tmp_path: Path) -> None:
        store = make_store(WHERE, tmp_path)
        database = store.open("orders", metadata)
        await settled(*(database.run(read, "a") for _ in range(20)))

        store.close()
        store.close()

        async with asyncio.timeout(LIMIT):
            while self.connections():
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="closed"):
            store.open("orders", metadata)

    # -- schemas

    async def test_each_service_has_the_schema_of_its_name(self, stores: Stores) -> None:
        store = await stores.make()
        for service in ("booking-ui", "order", "user"):
            database = store.open(service, metadata)
            await database.run(write, service, 1)

        assert ["booking_ui", "order", "user"] == self.schemas()
        found = self.server.execute('SELECT name FROM booking_ui.counts UNION ALL SELECT name FROM "order".counts')
        assert [("booking-ui",), ("order",)] == found.fetchall()

    async def test_a_schema_of_another_system_is_refused_and_both_are_named(self, tmp_path: Path) -> None:
        inn, hotel = (make_store(WHERE, tmp_path, system) for system in ("inn", "hotel"))
        inn.open("orders", metadata)
        hotel.open("stock", metadata)

        with pytest.raises(ConfigurationError) as raised:
            hotel.open("orders", metadata)

        assert str(raised.value) == (
            "The schema orders of the database is that of the system 'inn'; this is the system 'hotel'. Two systems need "
            "two databases: [adapters] store. If it is the same under a new name, tell the database so: "
            "UPDATE \"orders\".ropewalk_owner SET system = 'hotel'."
        )
        self.server.execute("UPDATE \"orders\".ropewalk_owner SET system = 'hotel'")
        hotel.open("orders", metadata)
        for store in (inn, hotel):
            store.close()

    async def test_tables_that_differ_are_refused_and_migrated(self, tmp_path: Path) -> None:
        store = make_store(WHERE, tmp_path)
        database = store.open("orders", metadata)
        await database.run(write, "a", 1)
        code = sa.MetaData()
        counts.to_metadata(code).append_column(sa.Column("unit", sa.Text))

        with pytest.raises(Differs, match=r"orders are not those of the code: column counts.unit is missing"):
            store.open("orders", code)
        with store.changing("orders") as connection:
            migrate("orders", connection, code, None)

        store.open("orders", code)
        assert 1 == await database.run(read, "a")
        store.close()

    async def test_processes_may_open_the_same_service_at_once(self, tmp_path: Path) -> None:
        stores = [make_store(WHERE, tmp_path) for _ in range(4)]
        ready = Barrier(4)

        def open_(store: PostgreSQLStore) -> Database:
            ready.wait(LIMIT)
            return store.open("orders", metadata)

        with ThreadPoolExecutor(4) as threads:
            databases = list(threads.map(open_, stores))
        await databases[0].run(write, "a", 1)

        assert [1] * 4 == [await database.run(read, "a") for database in databases]
        for store in stores:
            store.close()


# -- what the configuration says


def test_the_adapter_is_declared_by_a_dropin() -> None:
    assert find_adapter("store", "postgresql://hotel@db/hotel").load() is PostgreSQLStore


@pytest.mark.parametrize(
    ("where", "environ", "expected"),
    [
        ("postgresql", {}, ("postgresql+psycopg://postgres@127.0.0.1/postgres", 4)),
        (
            "postgresql",
            {"PGUSER": "hotel", "PGDATABASE": "rooms"},
            ("postgresql+psycopg://hotel@127.0.0.1/rooms", 4),
        ),
        ("postgresql://hotel@db/hotel", {"PGUSER": "x"}, ("postgresql+psycopg://hotel@db/hotel", 4)),
        ("postgresql+psycopg://hotel:pw@db:5433/h", {}, ("postgresql+psycopg://hotel:pw@db:5433/h", 4)),
        ("postgresql://h@db/h?pool=64&sslmode=require", {}, ("postgresql+psycopg://h@db/h?sslmode=require", 64)),
        ("postgresql://h@/h?host=%2Ftmp", {}, ("postgresql+psycopg://h@/h?host=%2Ftmp", 4)),
    ],
)
def test_what_the_url_leaves_out_is_filled_in(where: str, environ: dict[str, str], expected: tuple[str, int]) -> None:
    url, pool = parse(where, environ)

    assert expected == (url.render_as_string(hide_password=False), pool)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("postgresql://h:S3CRET@db/h?pool=0", "pool is a number of connections from 1 to 64; got '0'"),
        ("postgresql://h:S3CRET@db/h?pool=65", "pool is a number of connections from 1 to 64; got '65'"),
        ("postgresql://h:S3CRET@db/h?pool=many", "pool is a number of connections from 1 to 64; got 'many'"),
        ("postgresql://h:S3CRET@db/h?pool=1&pool=2", "pool is a number of connections from 1 to 64; got ('1', '2')"),
        ("postgresql://h:S3CRET@db/h?colour=red", 'invalid connection option "colour"'),
        ("postgresql://h:S3CRET@db:port/h", "got what is no URL"),
        ("postgresql:h:S3CRET", "got what is no URL"),
        ("postgresql+asyncpg://h:S3CRET@db/h", "got the scheme 'postgresql+asyncpg'"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_expected_and_without_its_password(where: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(where, {})

    assert str(raised.value) == (
        f"[adapters] store: {what}. Expected postgresql, or a URL like postgresql://hotel@db:5432/hotel?pool=4."
    )


@pytest.mark.parametrize("service", ["pg-admin", "information-schema", "s" * 64])
def test_a_service_that_cannot_have_a_schema_of_its_name_is_refused(service: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot have a schema of its name in PostgreSQL"):
        schema_of(service)


# -- what they stand on


class Together:
    """Lets the first `count` go on when all of them have come, and whoever comes later at once."""

    def __init__(self, count: int) -> None:
        self._barrier = Barrier(count)
        self._coming = [None] * count

    def meet(self) -> None:
        if self._coming:
            self._coming.pop()
            self._barrier.wait(LIMIT)


async def asked(database: Database, function: Callable[..., Any]) -> Any:
    """What a run comes to in an operation that is asked under a key, always the same."""
    token = enter_key(Keyed("0" * 32, "key", "orders.place", "1" * 32, (Conflict,)))
    try:
        return await database.run(function)
    finally:
        leave_key(token)


def make_store(where: str, folder: Path, system: str = "hotel") -> PostgreSQLStore:
    from twisted.internet import reactor

    return PostgreSQLStore(where, folder, reactor, lambda: NOW, system)


@pytest.mark.backend("postgresql")
class TestWhatOthersWrote(OnPostgreSQL, Contract):
    """A process hears of the commits of others."""

    @pytest.fixture
    def two(self, tmp_path: Path) -> Iterator[tuple[PostgreSQLStore, PostgreSQLStore]]:
        stores = make_store(WHERE, tmp_path), make_store(WHERE, tmp_path)
        yield stores
        for store in stores:
            store.close()

    async def until(self, predicate: Callable[[], object]) -> None:
        while not predicate():
            await asyncio.sleep(0.01)

    async def test_a_commit_is_heard_of_by_who_listens_and_told_once_to_who_made_it(self, two: Any) -> None:
        mine, theirs = (store.open("orders", metadata) for store in two)
        heard: dict[str, list[frozenset[str]]] = {"mine": [], "theirs": []}
        mine.listen(heard["mine"].append)
        theirs.listen(heard["theirs"].append)
        await self.until(lambda: heard["mine"] and heard["theirs"])  # that they listen
        for each in heard.values():
            each.clear()

        await mine.run(lambda tx: tx.wrote.add("sagas"))

        await self.until(lambda: heard["theirs"])
        assert {"mine": [frozenset({"sagas"})], "theirs": [frozenset({"sagas"})]} == heard

    async def test_what_is_rolled_back_nobody_hears_of(self, two: Any) -> None:
        mine, theirs = (store.open("orders", metadata) for store in two)
        heard: list[frozenset[str]] = []
        own: list[frozenset[str]] = []
        theirs.listen(heard.append)
        mine.listen(own.append)
        await self.until(lambda: heard and own)
        heard.clear()

        def fail(tx: Transaction) -> None:
            tx.wrote.add("events")
            raise Conflict("On second thoughts.")

        with pytest.raises(Conflict):
            await mine.run(fail)
        await mine.run(lambda tx: tx.wrote.add("sagas"))

        await self.until(lambda: heard)
        assert [frozenset({"sagas"})] == heard

    async def test_nobody_listens_who_was_not_asked_to_and_nobody_after_the_end(self, two: Any) -> None:
        store = two[0]
        database = store.open("orders", metadata)
        await database.run(lambda tx: None)
        before = self.connections()

        database.listen(lambda wrote: None)
        await self.until(lambda: self.connections() == before + 1)
        store.close()

        await self.until(lambda: self.connections() == 0)

    async def test_a_connection_that_was_cut_is_made_again_and_may_have_missed_something(self, two: Any) -> None:
        database = two[0].open("orders", metadata)
        heard: list[frozenset[str]] = []
        database.listen(heard.append)
        await self.until(lambda: heard)
        heard.clear()

        self.lose_connections()

        await self.until(lambda: heard)
        assert [frozenset({"events", "replay", "sagas"})] == heard


@pytest.mark.backend("postgresql")
class TestSagasOfTwoProcesses(OnPostgreSQL, Contract):
    """What processes take in READ COMMITTED they take once."""

    @pytest.fixture
    def two(self, tmp_path: Path) -> Iterator[list[Database]]:
        stores = make_store(WHERE, tmp_path), make_store(WHERE, tmp_path)
        yield [store.open("orders", metadata) for store in stores]
        for store in stores:
            store.close()

    async def test_those_who_look_at_the_same_time_take_different_ones(self, two: list[Database]) -> None:
        run = Driver.of().run
        ids = {f"saga-{number}" for number in range(60)}
        for id in ids:
            await two[0].batched(started.add_all, started.Started(id, "orders.sell", b"{}", b"{}"))
        for database, name in zip(two, ("one", "two"), strict=True):
            await database.apart(members.beat, name, True)
        taken: list[str] = []
        while True:
            looks = [
                run(database.batched(journal.look, journal.Wanted(name, (), (), 0, 7)))
                for database, name in zip(two, ("one", "two"), strict=True)
            ]
            found = [claim.id for look in await settled(*looks) for claim in look.claims]
            if not found:
                break
            taken += found

        assert sorted(ids) == sorted(taken)

    async def test_who_was_struck_off_writes_nothing_more(self, two: list[Database]) -> None:
        await two[0].batched(started.add_all, started.Started("saga", "orders.sell", b"{}", b"{}"))
        for database, name in zip(two, ("one", "two"), strict=True):
            await database.apart(members.beat, name, True)
        wanted = journal.Wanted("one", (), (), 0, 1)
        [old] = (await two[0].batched(journal.look, wanted)).claims
        entry = journal.Entry(journal.Place("", "sell", 1), 1, "step", "", 0, b"1")
        assert await two[1].apart(members.strike, "one", 1)
        [new] = (await two[1].batched(journal.look, msgspec.structs.replace(wanted, owner="two"))).claims

        await two[1].batched(journal.write, journal.Written(new, [entry], "1"))
        with pytest.raises(journal.Fenced):
            await two[0].batched(journal.write, journal.Written(old, [entry], "1"))
        with pytest.raises(journal.Fenced):
            await two[0].batched(journal.write, journal.Written(old, (), "1", journal.Ending(journal.COMPLETED)))

        told = await two[0].batched(journal.read_all, "saga")
        assert (journal.RUNNING, 2) == (told.state, new.epoch)


# -- runs that wait for a connection


def _names(tx: Transaction) -> list[str]:
    return list(tx.execute(sa.select(counts.c.name).order_by(counts.c.name)).scalars())


@pytest.mark.backend("postgresql")
class TestRunsThatWaitForAConnection(OnPostgreSQL, Contract):
    @pytest.fixture
    def busy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
        monkeypatch.setattr(commits, "LONGEST", LIMIT)  # a machine that is busy is no reason to commit earlier
        store = make_store(f"{WHERE}?pool=1", tmp_path)
        yield Busy(store.open("orders", metadata))
        store.close()

    async def test_they_share_a_commit(self, busy: Busy) -> None:
        def write_and_tell(tx: Transaction, name: str) -> tuple[str, int]:
            write(tx, name, 1)
            return name, tx.execute(sa.select(sa.text("txid_current()"))).scalar_one()

        outcomes = await busy.go_on(*(busy.run(write_and_tell, name) for name in "cab"))

        assert ["c", "a", "b"] == [name for name, _ in outcomes]
        assert (1, 1) == (len({transaction for _, transaction in outcomes}), len(busy.commits))

    async def test_one_that_refuses_after_it_has_read_costs_the_others_nothing(self, busy: Busy) -> None:
        def refuse(tx: Transaction) -> None:
            assert tx.execute(sa.select(sa.func.count()).select_from(counts)).scalar_one() == 1
            raise Conflict("There is one already.")

        outcomes = await busy.go_on(busy.run(write, "a", 1), busy.run(refuse), busy.run(write, "b", 2))

        assert [None, "There is one already.", None] == [outcomes[0], outcomes[1].detail, outcomes[2]]
        assert (["a", "b"], 1) == (await busy.database.run(_names), len(busy.commits) - 1)

    @pytest.mark.parametrize(
        "statement",
        [
            counts.insert().values(name="x", value=1),
            sa.text("INSERT INTO counts VALUES ('x', 1)"),
            sa.select(sa.func.set_config("application_name", "x", False)),
            sa.select(counts.insert().values(name="x", value=1).returning(counts.c.name).cte("written")),
        ],
        ids=["insert", "text", "a function of the server's", "an insert within a select"],
    )
    async def test_one_that_fails_after_it_may_have_written_is_undone_and_the_others_are_made_alone(
        self, busy: Busy, statement: Any
    ) -> None:
        def write_and_fail(tx: Transaction) -> None:
            tx.execute(statement)
            raise Conflict("no")

        outcomes = await busy.go_on(busy.run(write, "a", 1), busy.run(write_and_fail), busy.run(write, "b", 2))

        assert [None, "no", None] == [outcomes[0], outcomes[1].detail, outcomes[2]]
        assert (["a", "b"], 2) == (await busy.database.run(_names), len(busy.commits) - 1)

    async def test_who_goes_on_after_a_statement_that_failed_is_the_only_one_to_hear_of_it(self, busy: Busy) -> None:
        def swallow(tx: Transaction) -> None:
            with suppress(sa.exc.DBAPIError):
                tx.execute(sa.text("no statement"))

        outcomes = await busy.go_on(busy.run(write, "a", 1), busy.run(swallow), busy.run(write, "b", 2))

        assert [None, RuntimeError, None] == [outcomes[0], type(outcomes[1]), outcomes[2]]
        assert ["a", "b"] == await busy.database.run(_names)

    async def test_one_that_wants_what_another_transaction_holds_waits_alone(self, busy: Busy) -> None:
        self.server.execute("INSERT INTO orders.counts VALUES ('held', 1)")
        tries: list[str] = []

        def update(tx: Transaction) -> None:
            tries.append("held")
            tx.execute(counts.update().values(value=2).where(counts.c.name == "held"))

        with psycopg.connect(CONNECTION) as other:
            other.execute("UPDATE orders.counts SET value = value WHERE name = 'held'")
            first, second = busy.run(write, "a", 1), busy.run(update)
            outcomes = busy.go_on(first, second)
            going = Driver.of().run(outcomes)
            await first  # though the lock is still held
            other.rollback()
        await going

        assert ["held", "held"] == tries
        assert (["a", "held"], 2) == (await busy.database.run(_names), await busy.database.run(read, "held"))

    async def test_when_the_answer_to_the_commit_is_lost_all_are_told_maybe_and_none_is_made_again(
        self, busy: Busy
    ) -> None:
        tries: list[str] = []

        def write_once(tx: Transaction, name: str) -> None:
            tries.append(name)
            write(tx, name, 1)

        first, second = busy.run(write_once, "a"), busy.run(write_once, "b")
        event.listen(busy.database._engine, "commit", lambda _: self.lose_connections() if tries else None)

        outcomes = await busy.go_on(first, second)

        assert ["maybe", "maybe"] == [outcome.ran for outcome in outcomes]
        assert ["a", "b"] == tries

    async def test_a_connection_that_was_lost_before_costs_nobody_anything(self, busy: Busy) -> None:
        first, second = busy.run(write, "a", 1), busy.run(write, "b", 1)
        lost: list[int] = []

        def lose(*_: Any) -> None:
            if not lost:
                lost.append(self.lose_connections())

        event.listen(busy.database._engine, "checkout", lose)

        assert [None, None] == await busy.go_on(first, second)
        assert ([1], ["a", "b"]) == (lost, await busy.database.run(_names))

    async def test_who_ends_the_transaction_himself_is_told_and_nobody_runs_twice(self, busy: Busy) -> None:
        tries: list[str] = []

        def write_once(tx: Transaction) -> None:
            tries.append("a")
            write(tx, "a", 1)

        outcomes = await busy.go_on(
            busy.run(write_once), busy.run(lambda tx: tx.execute(sa.text("COMMIT"))), busy.run(write, "b", 1)
        )

        assert [Unavailable, RuntimeError, type(None)] == [type(outcome) for outcome in outcomes]
        assert ("maybe", ["a"]) == (outcomes[0].ran, tries)

    async def test_what_they_publish_is_written_in_their_order_and_at_once(self, busy: Busy) -> None:
        busy.database.random, busy.database.member = Random(1), "me"

        def publish(tx: Transaction, number: int) -> None:
            tx.publish(Counted(number=number), key="b" if number % 2 else "a")

        statements: list[str] = []
        event.listen(
            busy.database._engine, "before_cursor_execute", lambda *given: statements.append(given[2].split("(")[0])
        )
        await busy.go_on(*(busy.run(publish, number) for number in range(5)))
        rows = await busy.database.apart(outbox.pending)

        assert [0, 1, 2, 3, 4] == [Message.decoded(row.message).event([Counted]).number for row in rows]
        assert ["a", "b", "a", "b", "a"] == [row.key for row in rows]
        assert 1 == sum("INSERT INTO ropewalk_outbox" in each for each in statements)

    async def test_a_function_that_kept_others_waiting_is_made_alone_from_then_on(
        self, busy: Busy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commits, "SLOW", 0.0)

        def slow(tx: Transaction) -> None:
            tx.execute(sa.select(sa.func.now()))

        await busy.go_on(*(busy.run(slow) for _ in range(3)))
        assert 1 == len(busy.commits)

        first = Future[None]()
        running = busy.run(lambda tx: first.result(LIMIT))
        waiting = [busy.run(slow) for _ in range(3)]
        first.set_result(None)
        await settled(running, *waiting)

        assert 1 + 1 + 3 == len(busy.commits)
