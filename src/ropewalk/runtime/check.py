"""What can be known of a system without running it: wrong classes, unknown dependencies, settings that do not fit."""

from __future__ import annotations

from random import Random
from typing import Any

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTCP, IReactorTime

from ..errors import ConfigurationError, DeclarationError
from ..events import Publisher
from ..interfaces import IWallClock
from ..sagas import Sagas
from ..service import Contract, Service
from ..store import Database
from .config import Config, leaves, shown
from .inject import dependencies_of, unprovided, unread
from .keeps import keeps_data, shared_tables
from .settings import Settings
from .settings import load as load_settings
from .workers import Workers

BUILT_IN = (Database, Publisher, Sagas, Workers, Random, IReactorTime, IWallClock, IReactorTCP, HTTPClient)


def problems(config: Config) -> list[str]:
    """One line for each thing that is wrong, in the file's order; empty when nothing is."""
    found: list[str] = []
    for name in config.services:
        try:
            cls = config.service_class(name)
            found.extend(_dependencies(config, name, cls))
        except (ConfigurationError, DeclarationError, ImportError) as error:
            found.append(f"{name}: {error}")
    if not found:  # every class can be looked at
        found.extend(shared_tables({name: config.service_class(name) for name in config.services}))
        found.extend(line for process in config.file.processes if (line := shared_files(config, process)) is not None)
    return found


def shared_files(config: Config, process: str) -> str | None:
    """What is wrong with the workers of `process`: an SQLite file has one owning process. None when nothing is."""
    section = config.file.processes.get(process)
    store = config.file.adapters.store
    if section is None or section.workers == 1 or store.partition(":")[0] != "sqlite":
        return None
    owners = [name for name in section.services if keeps_data(config.service_class(name))]
    if not owners:
        return None
    return (
        f"[processes] {process}: workers = {section.workers}, but {', '.join(owners)} keeps a Database in an SQLite "
        "file, which has one owning process. Say workers = 1, move what needs no database to a process of its own, or "
        'choose a server: [adapters] store = "postgresql://...".'
    )


def refuse_shared_files(config: Config, process: str) -> None:
    """Raise ConfigurationError when `shared_files` finds something."""
    line = shared_files(config, process)
    if line is not None:
        raise ConfigurationError(line)


def _dependencies(config: Config, name: str, cls: type[Service]) -> list[str]:
    nobody_reads = unread(cls, config.settings_of(name))
    found = [f"{name}: {nobody_reads}"] if nobody_reads is not None else []
    for parameter, (hint, _, required) in dependencies_of(cls).items():
        if isinstance(hint, type) and issubclass(hint, Settings):
            try:
                load_settings(hint, name, config.settings_of(name), config.origins)
            except ConfigurationError as error:
                found.append(f"{name}: {error}")
        elif isinstance(hint, type) and issubclass(hint, Contract):
            try:
                config.keeper(hint)
            except ConfigurationError as error:
                found.append(f"{name}: '{parameter}': {error}")
        elif hint not in BUILT_IN and required and not _provided(config, hint):
            found.append(unprovided(cls, parameter, hint, BUILT_IN))
    return found


def settings_rows(config: Config, name: str, cls: type[Service]) -> list[tuple[str, str, str]]:
    """(field, value, where it came from) of the Settings that a service takes; secrets hidden."""
    rows: list[tuple[str, str, str]] = []
    for hint, _, _ in dependencies_of(cls).values():
        if isinstance(hint, type) and issubclass(hint, Settings):
            filled = load_settings(hint, name, config.settings_of(name), config.origins)
            rows += [
                (".".join(path), shown(value), config.origin(("settings", name, *path), f"default of {hint.__name__}"))
                for path, value in leaves(filled)
            ]
    return rows


def _provided(config: Config, hint: Any) -> bool:
    return f"{getattr(hint, '__module__', '')}:{getattr(hint, '__name__', '')}" in config.file.provide
