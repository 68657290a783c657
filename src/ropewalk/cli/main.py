"""The verbs of `ropewalk`, each a few lines over the room that does the work. `--json` where a script would read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec

from .common import as_json, of_service, refusing, show, target
from .events import events
from .new import new
from .sagas import sagas
from .sim import sim
from .up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("ropewalk"))
def main() -> None:
    """Systems of small services on Twisted: run one, look at it, check it."""


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose expected failures are one line and exit status 1."""
    return main.command(name=function.__name__.rstrip("_"))(refusing(function))


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
    show(rows, as_json)


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
@of_service
def asyncapi(target: str, service: str | None) -> None:
    """Print the AsyncAPI 3.0 document of the events of TARGET: of all its services, or of one."""
    from ..http.asyncapi import document

    found = [description for _, description in _descriptions(target, service)]
    title = found[0].name if service is not None else _config(target).file.system.name
    click.echo(json.dumps(document(found, title), indent=2))


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
    show(rows, as_json)


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
@target
@of_service
@click.option("--check", "only_look", is_flag=True, help="Change nothing; exit status 1 when something would be.")
@click.option("--new", "title", metavar="TITLE", help="Write a revision of --service, to be edited and then run.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Where databases lie.")
@as_json
def migrate(
    target: str, service: str | None, only_look: bool, title: str | None, data: Path | None, as_json: bool
) -> None:
    """Give the databases of TARGET's services the tables of their code.

    What loses nothing is made: tables, columns that may be empty or have a default, indexes, constraints. What drops
    something or changes a type takes a revision, an Alembic file in migrations/SERVICE beside the system file; those
    that a database has not had are run first. Exit status 1 when something is left to do.
    """
    from ..runtime.migrate import REVISION, new_revision
    from ..runtime.migrate import migrate as run

    if title is not None:
        if service is None:
            raise click.ClickException("--new: say --service, too.")
        click.echo(
            f"{new_revision(_config(target), data, service, title)}: edit it, then run `ropewalk migrate` again."
        )
        return
    rows = run(_config(target), data, service, check=only_look)
    if rows or as_json:
        show([msgspec.structs.asdict(row) for row in rows], as_json)
    else:
        click.echo(f"{target}: every table is as the code has it.")
    refused = sorted({row.service for row in rows if row.state == REVISION})
    for name in refused:
        click.echo(f"`ropewalk migrate {target} --service {name} --new TITLE` writes a revision of {name}.", err=True)
    if refused or (only_look and rows):
        sys.exit(1)


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


main.add_command(events)
main.add_command(new)
main.add_command(sagas)
main.add_command(sim)
main.add_command(up)
