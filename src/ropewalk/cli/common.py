"""What the verbs share: how they end, what they are given, and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from ..errors import ConfigurationError, DeclarationError, RopewalkError

if TYPE_CHECKING:
    from ..runtime.running import Running

T = TypeVar("T")

target = click.argument("target", default="system.toml")
needed_target = click.argument("target")  # where something follows it
as_json = click.option("--json", "as_json", is_flag=True, help="For a script: JSON on standard output.")
at_port = click.option(
    "--port", type=int, help="Where its first service listens (default: as `ropewalk up` was told, else 8000)."
)
in_data = click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Its data folder, likewise.")
of_service = click.option("--service", help="Of this service alone.")


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


def ask(
    target: str, service: str | None, port: int | None, data: Path | None, work: Callable[[Running], Awaitable[T]]
) -> T:
    """What `work` comes to with the processes of TARGET that run."""
    from ..runtime.config import load
    from ..runtime.running import ask

    return ask(load(target, os.environ), service, port, data, work)


def warn(running: Running) -> None:
    """Say which services did not answer; then the exit status is 1."""
    for service, why in running.silent.items():
        click.echo(f"{service} did not answer: {why}", err=True)
    if running.silent:
        raise click.exceptions.Exit(1)


def show(rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    """The rows as a table, or as JSON."""
    if as_json:
        click.echo(json.dumps(rows))
    else:
        table(rows)


def table(rows: Sequence[Mapping[str, str]]) -> None:
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
