"""The stores of this house keep what every store keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from ropewalk import Database, Service
from ropewalk.memory.store import SQLiteStore
from ropewalk.testing import World
from ropewalk.testing.contracts import StoreContract
from ropewalk.testing.contracts.store import metadata
from ropewalk.testing.store import SimulatedStore

CONFLICT = sqlalchemy.exc.OperationalError("INSERT", None, sqlite3.OperationalError("database is locked"))


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Awaitable[Any]]:
        from twisted.internet import reactor

        async def make() -> SQLiteStore:
            return SQLiteStore("sqlite", tmp_path, reactor, lambda: 1_777_626_000.0)

        return make

    def conflict(self) -> Exception:
        return CONFLICT


class Orders(Service):
    tables = metadata

    def __init__(self, database: Database) -> None: ...


class Stock(Orders, name="stock"):
    tables = sqlalchemy.MetaData()


class TestSimulatedStore(StoreContract):
    threads = False

    @pytest.fixture(autouse=True)
    def _in_a_world(self) -> Iterator[None]:
        with World([Orders, Stock], instances=1) as self.world:
            yield

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        async def make() -> SimulatedStore:
            return SimulatedStore(self.world.hosts["outside"].reactor, self.world)

        return make

    def drive(self, awaitable: Awaitable[Any]) -> None:
        self.world.run(awaitable)

    def conflict(self) -> Exception:
        return CONFLICT
