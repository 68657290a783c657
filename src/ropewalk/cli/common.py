"""What the verbs share: how they end, what they are given, and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from ..errors import ConfigurationError, DeclarationError, RopewalkError

if TYPE_CHECKING:
    from ..runtime.running import Running

T = TypeVar("T")
L = TypeVar("L")
Row = Mapping[str, str]

target = click.argument("target", default="system.toml")
needed_target = click.argument("target")  # where something follows it
as_json = click.option("--json", "as_json", is_flag=True, help="For a script: JSON on standard output.")
of_service = click.option("--service", help="Of this service alone.")
_of_a_running_system = (
    of_service,
    click.option(
        "--port", type=int, help="Where its first service listens (default: as `ropewalk up` was told, else 8000)."
    ),
    click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Its data folder, likewise."),
    as_json,
)


def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose expected failures are one line and exit status 1."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        from ..engine import install

        install()  # before any service module is imported: it may import klein at its top
        try:
            return function(*args, **kwargs)
        except (ConfigurationError, DeclarationError, RopewalkError) as error:
            raise click.ClickException(str(error)) from error

    return command


class Asked(NamedTuple):
    """What a command about a running system was given, whatever it is about."""

    target: str
    service: str | None
    port: int | None
    data: Path | None
    as_json: bool

    def ask(self, work: Callable[[Running], Awaitable[T]]) -> T:
        """What `work` comes to with its processes that run."""
        from ..runtime.config import load
        from ..runtime.running import ask

        return ask(load(self.target, os.environ), self.service, self.port, self.data, work)

    def list(self, lines: Callable[[Running], Awaitable[Sequence[L]]], shown: Callable[[L], Row], none: str) -> None:
        """Write the lines as a table, each as it is `shown`, or as JSON; `none` when there are none."""

        async def work(running: Running) -> tuple[Running, Sequence[L]]:
            return running, await lines(running)

        running, found = self.ask(work)
        if self.as_json:
            click.echo(msgspec.json.encode(found))
        elif found:
            table([shown(line) for line in found])
        else:
            click.echo(f"{self.target}: {none}")
        warn(running)


def of_running(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command about a running system, whose first argument is an Asked: with the options it takes, and `refusing`."""

    @refusing
    @wraps(function)
    def command(
        target: str, service: str | None, port: int | None, data: Path | None, as_json: bool, **given: Any
    ) -> Any:
        return function(Asked(target, service, port, data, as_json), **given)

    for option in reversed(_of_a_running_system):
        command = option(command)
    return command


def warn(running: Running) -> None:
    """Say which services did not answer; then the exit status is 1."""
    for service, why in running.silent.items():
        click.echo(f"{service} did not answer: {why}", err=True)
    if running.silent:
        raise click.exceptions.Exit(1)


def show(rows: Sequence[Row], as_json: bool) -> None:
    """The rows as a table, or as JSON."""
    if as_json:
        click.echo(json.dumps(rows))
    else:
        table(rows)


def table(rows: Sequence[Row]) -> None:
    """The rows as columns, as wide as the terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(shown)


def row(**columns: str) -> dict[str, str]:
    """A row of a table."""
    return columns


def clock(moment: datetime) -> str:
    """A moment for people: in UTC, as logs have it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
