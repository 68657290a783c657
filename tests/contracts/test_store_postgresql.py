"""PostgreSQL keeps what every store keeps, and what its own nature adds: conflicts, lost connections, schemas."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from ropewalk import Conflict, Transaction, Unavailable, settled
from ropewalk.context import Keyed, enter_key, leave_key
from ropewalk.driver import Driver
from ropewalk.errors import ConfigurationError
from ropewalk.plugin import find_adapter
from ropewalk.store import Database
from ropewalk.store.database import ATTEMPTS
from ropewalk.testing.contracts import StoreContract
from ropewalk.testing.contracts.store import Stores, counts, increment, metadata, read, write
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
        ("postgresql", {}, ("postgresql+psycopg://postgres@127.0.0.1/postgres", 8)),
        (
            "postgresql",
            {"PGUSER": "hotel", "PGDATABASE": "rooms"},
            ("postgresql+psycopg://hotel@127.0.0.1/rooms", 8),
        ),
        ("postgresql://hotel@db/hotel", {"PGUSER": "x"}, ("postgresql+psycopg://hotel@db/hotel", 8)),
        ("postgresql+psycopg://hotel:pw@db:5433/h", {}, ("postgresql+psycopg://hotel:pw@db:5433/h", 8)),
        ("postgresql://h@db/h?pool=64&sslmode=require", {}, ("postgresql+psycopg://h@db/h?sslmode=require", 64)),
        ("postgresql://h@/h?host=%2Ftmp", {}, ("postgresql+psycopg://h@/h?host=%2Ftmp", 8)),
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
        f"[adapters] store: {what}. Expected postgresql, or a URL like postgresql://hotel@db:5432/hotel?pool=8."
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


def make_store(where: str, folder: Path) -> PostgreSQLStore:
    from twisted.internet import reactor

    return PostgreSQLStore(where, folder, reactor, lambda: NOW)
