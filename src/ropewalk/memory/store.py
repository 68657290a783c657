"""SQLite: one file for each service, one thread that owns it, or a database in memory for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.pool import StaticPool
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..interfaces import IStore
from ..store import records
from ..store.database import Database, InThread, closed


@implementer(IStore)
class SQLiteStore:
    """Databases as files in one folder, each with a thread of its own: SQLite's transactions are serial anyway."""

    def __init__(self, where: str, folder: Path, reactor: Any, now: Callable[[], float]) -> None:
        """`where`: what the configuration said, "sqlite"; `folder`: where the files lie; `reactor`: for its threads.

        `now`: wall-clock seconds.
        """
        self._folder = folder
        self._reactor = reactor
        self._now = now
        self._closed = False
        self._pools: list[ThreadPool] = []

    def open(self, service: str, tables: sqlalchemy.MetaData | None) -> Database:
        """The database of `service`; raises sqlalchemy's OperationalError when the file cannot be opened."""
        pool = ThreadPool(0, 1, f"database-{service}")
        pool.start()
        self._pools.append(pool)
        path = self._folder / f"{service}.sqlite3"
        return open_sqlite(service, path, tables, partial(self._in_thread, pool), self._now)

    def close(self) -> None:
        """End the threads, when what they do is done."""
        self._closed = True
        for pool in self._pools:
            pool.stop()

    def _in_thread(self, pool: ThreadPool, function: Callable[[], Any]) -> Awaitable[Any]:
        if self._closed:
            raise closed()  # a pool that has stopped would take it, and never call
        return deferToThreadPool(self._reactor, pool, function)


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

    `in_thread` must call one function at a time: that makes transactions serial, which is SQLite's own order.
    `now`: wall-clock seconds.
    `synchronous`: as SQLite's pragma; FULL, so that acknowledged means durable, power failure included.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(
        f"sqlite:///{path}" if path is not None else "sqlite://",
        poolclass=StaticPool,  # one connection, used by whichever thread has its turn
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )
    event.listen(engine, "connect", partial(_settings, synchronous=synchronous))
    event.listen(engine, "begin", _begin)
    for each in (tables, records.metadata):
        if each is not None:
            each.create_all(engine)
    return Database(name, engine, in_thread, _is_conflict, now)


def _settings(connection: Any, _record: Any, *, synchronous: str) -> None:
    # The driver's own implicit BEGIN comes too late and is deferred; ours is IMMEDIATE. https://www.sqlite.org/wal.html
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_conflict(error: Exception) -> bool:
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.OperationalError) and "locked" in str(original)
