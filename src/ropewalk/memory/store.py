"""SQLite: one file for each service, one thread that owns it, or a database in memory for tests."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import StaticPool
from zope.interface import implementer

from ..interfaces import IStore
from ..store import migrations
from ..store import tables as tables_of_ours
from ..store.commits import SharedCommits
from ..store.database import Database, InThread
from .owned import own


@implementer(IStore)
class SQLiteStore:
    """Databases as files in one folder, each with a thread of its own: SQLite's transactions are serial anyway."""

    def __init__(self, where: str, folder: Path, reactor: Any, now: Callable[[], float], system: str = "") -> None:
        """`where`: what the configuration said, "sqlite"; `folder`: where the files lie; `reactor`: for its threads.

        `now`: wall-clock seconds. `system` is not used: the folder is this system's alone.
        """
        self._folder = folder
        self._reactor = reactor
        self._now = now
        self._open: dict[str, SharedCommits] = {}
        self._owned: dict[str, int] = {}  # the locks of the files

    def open(self, service: str, tables: sqlalchemy.MetaData | None, revisions: Path | None = None) -> Database:
        """As IStore; raises sqlalchemy's OperationalError when the file cannot be opened.

        From then on this process owns the file, until it closes the store or ends.
        """
        with self.changing(service) as connection:
            migrations.settle(service, connection, tables, revisions)
        if service not in self._open:
            engine = sqlite_engine(self._path(service))
            self._open[service] = SharedCommits(service, engine, self._reactor, _Savepoints())
        commits = self._open[service]
        return _database(service, commits.engine, commits.run, self._now, commits.sharing.begin)

    @contextmanager
    def changing(self, service: str) -> Iterator[sqlalchemy.Connection]:
        """As IStore."""
        if service not in self._owned:
            self._owned[service] = own(
                self._folder / f"{service}.sqlite3.lock",
                f"The database of {service} in {self._folder} is owned by {{owner}}: an SQLite file has one owner. End "
                'that first, or choose a server that many share: [adapters] store = "postgresql://...".',
            )
        # Without foreign keys: where a table is made anew, the old one goes, and rows elsewhere would go with it.
        engine = sqlite_engine(self._path(service), foreign_keys=False)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def close(self) -> None:
        """End the threads, when what they do is done."""
        while self._open:
            self._open.popitem()[1].close()
        while self._owned:
            os.close(self._owned.popitem()[1])

    def _path(self, service: str) -> Path:
        return self._folder / f"{service}.sqlite3"


class _Kept:
    """The one connection of an engine, kept: to take it from the pool and give it back costs more than a statement."""

    _connection: sqlalchemy.Connection | None = None

    @contextmanager
    def begin(self, engine: sqlalchemy.Engine) -> Iterator[sqlalchemy.Connection]:
        """A transaction."""
        connection, self._connection = self._connection or engine.connect(), None
        try:
            with connection.begin():
                yield connection
        except BaseException:
            connection.close()  # the pool undoes what is left of it: a COMMIT that fails leaves all
            raise
        self._connection = connection


class _Savepoints(_Kept):
    """As Sharing: each run in a SAVEPOINT of its own, which takes SQLite 5 µs."""

    apart = True

    def enter(self, connection: sqlalchemy.Connection) -> None:
        _driver(connection).execute("SAVEPOINT run")

    def leave(self, connection: sqlalchemy.Connection) -> bool:
        if self.goes_on(connection):
            _driver(connection).execute("RELEASE run")
        return self.goes_on(connection)

    def undo(self, connection: sqlalchemy.Connection, executed: Sequence[sqlalchemy.Executable]) -> bool:
        _driver(connection).execute("ROLLBACK TO run")
        _driver(connection).execute("RELEASE run")
        return True

    def goes_on(self, connection: sqlalchemy.Connection) -> bool:
        return bool(_driver(connection).in_transaction)

    def lost(self, error: BaseException) -> bool:
        # All is rolled back, also after a COMMIT: what the log may hold of it counts for nobody, and the next
        # transaction is written over it. https://www.sqlite.org/lang_transaction.html
        return False


def _driver(connection: sqlalchemy.Connection) -> Any:
    return connection.connection.dbapi_connection


def open_sqlite(
    name: str,
    path: Path | None,
    tables: sqlalchemy.MetaData | None,
    in_thread: InThread,
    now: Callable[[], float],
    *,
    synchronous: str = "FULL",
) -> Database:
    """The database of the service `name` in the file `path`, None for one in memory; missing `tables` are made.

    Each run is a transaction of its own.

    `in_thread` must call one function at a time: that makes transactions serial, which is SQLite's own order.
    `now`: wall-clock seconds.
    """
    engine = sqlite_engine(path, synchronous=synchronous)
    for each in (tables, tables_of_ours.metadata):
        if each is not None:
            each.create_all(engine)
    return _database(name, engine, in_thread, now, _Kept().begin)


def sqlite_engine(path: Path | None, *, synchronous: str = "FULL", foreign_keys: bool = True) -> sqlalchemy.Engine:
    """The one connection to the file `path`, None for a database in memory.

    `synchronous`: as SQLite's pragma; FULL, so that acknowledged means durable, power failure included.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(
        f"sqlite+immediate:///{path}" if path is not None else "sqlite+immediate://",
        poolclass=StaticPool,  # one connection, used by whichever thread has its turn
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )
    event.listen(engine, "connect", partial(_settings, synchronous=synchronous, foreign_keys=foreign_keys))
    return engine


def _database(
    name: str,
    engine: sqlalchemy.Engine,
    in_thread: InThread,
    now: Callable[[], float],
    begin: Callable[[sqlalchemy.Engine], AbstractContextManager[sqlalchemy.Connection]],
) -> Database:
    database = Database(name, engine, in_thread, _is_conflict, now, begin=begin)
    with engine.begin() as connection:
        database.left = tables_of_ours.left(connection)
    database.shared = False
    return database


def _settings(connection: Any, _record: Any, *, synchronous: str, foreign_keys: bool) -> None:
    connection.isolation_level = None  # no BEGIN but `Immediate`'s
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"PRAGMA foreign_keys={int(foreign_keys)}")


class Immediate(SQLiteDialect_pysqlite):
    """SQLite over Python's own driver, whose implicit BEGIN comes too late and is deferred; ours is IMMEDIATE.

    https://www.sqlite.org/wal.html
    """

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction: at the driver itself, which is a tenth of what a statement costs."""
        dbapi_connection.execute("BEGIN IMMEDIATE")


registry.register("sqlite.immediate", __name__, "Immediate")


def _is_conflict(error: Exception) -> bool:
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.OperationalError) and "locked" in str(original)
