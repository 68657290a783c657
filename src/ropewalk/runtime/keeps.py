"""Which services keep something, and that no two of them keep it in the same tables."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy

from ..errors import ConfigurationError
from ..events import Publisher
from ..sagas import Sagas
from ..sagas.runner import jobs_of
from ..service import Service, describe
from ..store import Database
from .inject import dependencies_of


def keeps_data(cls: type[Service]) -> bool:
    """Whether a service has a database."""
    keeping = (Database, Publisher, Sagas)
    return (
        getattr(cls, "tables", None) is not None
        or needs_database(cls)
        or any(hint in keeping for hint, _, _ in dependencies_of(cls).values())
    )


def needs_database(cls: type[Service]) -> bool:
    """Whether a service keeps something of ours, though it may have no tables."""
    said = describe(cls)
    return bool(said.subscriptions or said.sagas or jobs_of(said))


def shared_tables(classes: Mapping[str, type[Service]]) -> list[str]:
    """What is wrong with the services that have the tables of another one; empty when nothing is.

    Each would get a copy of its own, and one would not find there what the other has written.
    """
    found: list[str] = []
    owners: dict[int, str] = {}  # a Table belongs to one MetaData, so whoever shares one shares that
    for name, cls in classes.items():
        tables = getattr(cls, "tables", None)
        if isinstance(tables, sqlalchemy.MetaData) and tables.tables:
            owner = owners.setdefault(id(tables), name)
            if owner != name:
                found.append(
                    f"[services] {owner} and {name} say the same tables ({', '.join(sorted(tables.tables))}), but each "
                    f"service has its own. Give {name} a MetaData of its own, or let it ask {owner}."
                )
    return found


def refuse_shared_tables(classes: Mapping[str, type[Service]]) -> None:
    """Raise ConfigurationError when `shared_tables` finds something."""
    for line in shared_tables(classes):
        raise ConfigurationError(line)
