"""Giving the databases of a system the tables of its code: `ropewalk migrate`. One transaction for each service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from msgspec import Struct
from sqlalchemy.exc import DBAPIError

from ..errors import ConfigurationError
from ..store import migrations
from ..store.migrations import Change, Differs
from .config import DATA, Config
from .keeps import keeps_data
from .process import configured_store

REVISION = "takes a revision"


class Row(Struct, frozen=True):
    """One change of one service, and what became of it."""

    service: str
    change: str
    state: str  # made, not made, to be made, takes a revision


def migrate(config: Config, data: Path | None, only: str | None, *, check: bool) -> list[Row]:
    """Make the changes of the services, in the file's order; `check`: only tell.

    `data`: where databases lie, None for where they do when nothing else is said; `only`: of this service. Of a service
    of which something takes a revision nothing is made. Raises ConfigurationError when a database cannot be reached,
    is not this system's, or has rows that do not allow it.
    """
    return [row for name in _services(config, only) for row in _of(config, data, name, check)]


def _of(config: Config, data: Path | None, name: str, check: bool) -> list[Row]:
    tables, revisions = getattr(config.service_class(name), "tables", None), config.revisions_of(name)
    changes: list[Change] = []
    try:
        with _changing(config, data, name) as connection:
            changes = migrations.look(connection, tables, revisions)
            if check:
                connection.rollback()
                changes = [change for change in changes if change.revision] or changes
                return [Row(name, change.text, "to be made" if change.by_itself else REVISION) for change in changes]
            if changes:
                migrations.migrate(name, connection, tables, revisions)
    except Differs as error:
        left = [change.text for change in error.changes]
        return [
            *(Row(name, change.text, "not made") for change in changes if change.text not in left),
            *(Row(name, text, REVISION) for text in left),
        ]
    return [Row(name, change.text, "made") for change in changes]


def new_revision(config: Config, data: Path | None, service: str, title: str) -> Path:
    """Write a revision that gives the database of `service` the tables of the code; its file."""
    (name,) = _services(config, service)
    with _changing(config, data, name) as connection:
        tables = getattr(config.service_class(name), "tables", None)
        return migrations.new_revision(name, connection, tables, config.revisions_of(name), title)


def _services(config: Config, only: str | None) -> list[str]:
    """Those that have a database."""
    names = [name for name in config.services if keeps_data(config.service_class(name))]
    if only is not None and only not in names:
        raise ConfigurationError(
            f"There is no service {only!r} with a database; there are: {', '.join(names) or 'none'}."
        )
    return [name for name in names if only in (None, name)]


@contextmanager
def _changing(config: Config, data: Path | None, name: str) -> Iterator[sqlalchemy.Connection]:
    nobody: Any = None  # no reactor: nothing is run here
    store = configured_store(config, data or config.folder / DATA, nobody, time.time)
    try:
        with store.changing(name) as connection:
            yield connection
    except DBAPIError as error:
        raise ConfigurationError(f"The database of {name} stays as it was: {error.orig}.") from error
    finally:
        store.close()
