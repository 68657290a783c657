"""What `Database.run` costs over bare SQLAlchemy Core.

Measures, in this process and on the real reactor, one INSERT of a small row in a transaction of its own: bare
SQLAlchemy called in a thread (`deferToThreadPool`, with as many threads as the store has: what one would write by
hand); `Database.run`; and `Database.run` under an idempotency key, which looks for a record as well, and commits one.
With one and with 50 outstanding. SQLite is a file with `synchronous=FULL`; PostgreSQL is SERIALIZABLE, on 127.0.0.1,
and left out where there is none.

Does not measure HTTP, nor another disk than that of `--folder`: what a COMMIT costs there is most of some rows, and
swings by the hour. Rows are measured in turn within a round, so that a slow moment meets all of them.

    python benchmarks/store.py [--rounds 7] [--runs 400] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ropewalk.context import Keyed, enter_key, leave_key
from ropewalk.driver import Driver, settled
from ropewalk.engine import install
from ropewalk.memory.store import SQLiteStore, sqlite_engine
from ropewalk.store import Database
from ropewalk.store.tables import records

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
ADD = notes.insert()
OUTSTANDING = (1, 50)
SERVICE = f"benchmark-{os.getpid()}"
SERVER = "postgresql://postgres@127.0.0.1/postgres"
NUMBERS = count()  # of keys
RECORDS = 20_000  # that are there before: PostgreSQL takes all that lie on one page of an index for one another

Ways = dict[str, Callable[[], Awaitable[Any]]]  # what is measured -> one of it


def insert(tx: Any) -> None:
    """What all of them do; `tx` is a Transaction or a Connection."""
    tx.execute(ADD, {"text": "Two nights, breakfast, and a view of the harbour."})


def scope() -> str:
    """That of another key, spread as digests are."""
    return sha256(str(next(NUMBERS)).encode()).hexdigest()[:32]


def fill(tx: Any) -> None:
    """The records of a service that has been at work."""
    old = {"run": 1, "function": "insert", "arguments": "1" * 32, "operation": "notes.add", "key": "key", "status": 0}
    tx.execute(
        records.insert(), [{**old, "scope": scope(), "ran": "", "result": b"null", "at": 0} for _ in range(RECORDS)]
    )


async def asked(database: Database) -> None:
    """A run of a request under a key of its own."""
    token = enter_key(Keyed(scope(), "key", "notes.add", "1" * 32, ()))
    try:
        await database.run(insert)
    finally:
        leave_key(token)


def bare(engine: sa.Engine) -> None:
    """The same by hand."""
    with engine.begin() as connection:
        insert(connection)


@contextmanager
def ways(store: Any, engine: sa.Engine, threads: int, reactor: Any) -> Iterator[Ways]:
    """What is measured on one store; `engine`: bare, to the like of it."""
    database = store.open(SERVICE, metadata)
    with store.changing(SERVICE) as connection:
        fill(connection)
    pool = ThreadPool(0, threads)
    pool.start()
    try:
        yield {
            "bare SQLAlchemy in a thread": lambda: deferToThreadPool(reactor, pool, bare, engine),
            "Database.run": lambda: database.run(insert),
            "Database.run under a key": lambda: asked(database),
        }
    finally:
        pool.stop()
        engine.dispose()
        store.close()


@contextmanager
def sqlite(folder: Path, reactor: Any) -> Iterator[Ways]:
    """On two files in `folder`."""
    engine = sqlite_engine(folder / "bare.sqlite3")
    metadata.create_all(engine)
    with ways(SQLiteStore("sqlite", folder, reactor, time.time), engine, 1, reactor) as found:
        yield found


@contextmanager
def postgresql(folder: Path, reactor: Any) -> Iterator[Ways]:
    """In two schemas of the server, dropped afterwards."""
    from ropewalk_postgresql.store import POOL, PostgreSQLStore

    url, schemas = SERVER.replace("://", "+psycopg://"), (SERVICE.replace("-", "_"), f"bare_{os.getpid()}")
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    options = {"isolation_level": "SERIALIZABLE", "pool_size": POOL, "max_overflow": 0}
    engine = sa.create_engine(url, connect_args={"options": f"-c search_path={schemas[1]}"}, **options)  # type: ignore[call-overload]
    try:
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schemas[1]}")
        metadata.create_all(engine)
        with ways(PostgreSQLStore(SERVER, folder, reactor, time.time), engine, POOL, reactor) as found:
            yield found
    finally:
        with server.connect() as connection:
            for schema in schemas:
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        server.dispose()


async def cost(one: Callable[[], Awaitable[Any]], outstanding: int, runs: int) -> float:
    """Microseconds a run, over one round."""

    async def some() -> None:
        for _ in range(runs // outstanding):
            await one()

    began = perf_counter()
    for outcome in await settled(*(some() for _ in range(outstanding))):
        if isinstance(outcome, BaseException):
            raise outcome
    return (perf_counter() - began) / (runs // outstanding * outstanding) * 1e6


async def measured(found: Ways, rounds: int, runs: int) -> dict[tuple[int, str], float]:
    """The median of each, by how many were outstanding and what it is."""
    samples: dict[tuple[int, str], list[float]] = {(many, name): [] for many in OUTSTANDING for name in found}
    for number in range(rounds + 1):
        for (many, name), values in samples.items():
            value = await cost(found[name], many, runs)
            if number:  # the first one connects and compiles
                values.append(value)
    return {row: statistics.median(values) for row, values in samples.items()}


async def measure(reactor: Any, chosen: argparse.Namespace) -> None:
    """Print it all."""
    stores: dict[str, Callable[..., Any]] = {"SQLite": sqlite, "PostgreSQL": postgresql}
    results: dict[str, dict[tuple[int, str], float]] = {}
    for name, prepared in stores.items():
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            try:
                with prepared(Path(folder), reactor) as found:
                    results[name] = await measured(found, chosen.rounds, chosen.runs)
            except sa.exc.OperationalError:
                if name == "SQLite":
                    raise
    if chosen.json:
        rows = [
            {"store": store, "outstanding": many, "what": what, "microseconds": value}
            for store, found in results.items()
            for (many, what), value in found.items()
        ]
        print(json.dumps({"rows": rows, "python": platform.python_version()}))
        return
    print(f"Python {platform.python_version()}, median of {chosen.rounds} rounds of {chosen.runs} runs")
    for store in stores:
        if store not in results:
            print(f"\n{store}: there is none at {SERVER}")
            continue
        for many in OUTSTANDING:
            print(f"\n{store}, {many} outstanding")
            (_, first), *_ = results[store]
            for (outstanding, what), value in results[store].items():
                if outstanding == many:
                    than = value / results[store][many, first]
                    print(f"  {what:<28} {value:8.1f} µs   {1e6 / value:8,.0f} a second   {than:5.2f} times bare")


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--runs", type=int, default=400)
    options.add_argument("--folder", type=Path, help="where the files lie; by default that of temporary ones")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    install()
    from twisted.internet import reactor

    running: Any = reactor
    failed: list[Any] = []

    def begin() -> None:
        measuring = Driver.of(running).run(measure(running, chosen))
        measuring.addErrback(failed.append).addBoth(lambda _: running.stop())

    running.callWhenRunning(begin)
    running.run()
    for failure in failed:
        failure.raiseException()


if __name__ == "__main__":
    main()
