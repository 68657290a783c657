"""The verbs of `ropewalk`, each a few lines over the room that does the work. `--json` where a script would read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..errors import ConfigurationError, DeclarationError
from .new import new
from .sim import sim
from .up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("ropewalk"))
def main() -> None:
    """Systems of small services on Twisted: run one, look at it, check it."""


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose expected failures are one line and exit status 1."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        from ..engine import install

        install()  # before any service module is imported: it may import klein at its top
        try:
            return function(*args, **kwargs)
        except (ConfigurationError, DeclarationError) as error:
            raise click.ClickException(str(error)) from error

    return main.command(name=function.__name__.rstrip("_"))(command)


target = click.argument("target", default="system.toml")
as_json = click.option("--json", "as_json", is_flag=True, help="For a script: JSON on standard output.")
of_service = click.option("--service", help="Of this service alone.")


@verb
@target
@of_service
@as_json
def routes(target: str, service: str | None, as_json: bool) -> None:
    """List what the services of TARGET answer: every operation, its route, who may call it."""
    rows = [
        {
            "service": name,
            "operation": operation.id,
            "method": operation.method or "POST",
            "route": operation.route or f"/-/{description.name}/{description.major}/{operation.name}",
            "access": operation.access,
            "summary": operation.summary,
        }
        for name, description in _descriptions(target, service)
        for operation in description.operations.values()
    ]
    _show(rows, as_json)


@verb
@target
@of_service
@click.option("--public", is_flag=True, help="As a public listener shows it.")
def openapi(target: str, service: str | None, public: bool) -> None:
    """Print the OpenAPI 3.1 document of a service of TARGET (with several, say --service)."""
    from ..http.openapi import document

    found = list(_descriptions(target, service))
    if len(found) != 1:
        raise click.ClickException(f"Which one? Say --service with one of: {', '.join(name for name, _ in found)}.")
    click.echo(json.dumps(document(found[0][1], public=public), indent=2))


@verb
@target
@as_json
def config(target: str, as_json: bool) -> None:
    """Print every value of TARGET's configuration and where it came from. Secrets stay hidden."""
    rows = [{"name": name, "value": value, "from": origin} for name, value, origin in _config(target).rows()]
    rows += [
        {"name": f"settings.{name}.{field}", "value": value, "from": origin}
        for name, cls in _classes(target)
        for field, value, origin in _settings_rows(target, name, cls)
    ]
    _show(rows, as_json)


@verb
@target
@as_json
def check(target: str, as_json: bool) -> None:
    """Check TARGET without running it: the file, every class, every dependency.

    Exit status 1 when something is wrong.
    """
    from ..runtime.check import problems

    found = problems(_config(target))
    if as_json:
        click.echo(json.dumps(found))
    for problem in [] if as_json else found:
        click.echo(problem, err=True)
    if found:
        sys.exit(1)
    if not as_json:
        click.echo(f"{target}: nothing wrong was found.")


@verb
@click.argument("document", type=click.File("rb"))
@click.option("--name", help="The class's name; by default the document's title.")
def stub(document: Any, name: str | None) -> None:
    """Print a Contract for the service that DOCUMENT (OpenAPI 3, JSON or YAML; - for standard input) describes."""
    from ..http.stub import read
    from ..http.stub import stub as write

    click.echo(write(read(document.read()), name), nl=False)


def _config(target: str) -> Any:
    from ..runtime.config import load

    return load(target, os.environ)


def _classes(target: str) -> list[tuple[str, Any]]:
    loaded = _config(target)
    return [(name, loaded.service_class(name)) for name in loaded.services]


def _descriptions(target: str, only: str | None) -> list[tuple[str, Any]]:
    from ..service import describe

    classes = _classes(target)
    if only is not None and only not in dict(classes):
        raise click.ClickException(f"There is no service {only!r}; there are: {', '.join(dict(classes))}.")
    return [(name, describe(cls)) for name, cls in classes if only in (None, name)]


def _settings_rows(target: str, name: str, cls: Any) -> list[tuple[str, str, str]]:
    from ..runtime.check import settings_rows

    return settings_rows(_config(target), name, cls)


def _show(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


main.add_command(new)
main.add_command(sim)
main.add_command(up)
