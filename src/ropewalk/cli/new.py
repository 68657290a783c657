"""`ropewalk new NAME`: a first system that runs, with its test and its type checker's settings."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

import click

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@click.command()
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="The folder to make; by default NAME.")
def new(name: str, into: Path | None) -> None:
    """Make a folder with a first service called NAME that runs, its test and its settings."""
    if not _NAME.fullmatch(name):
        raise click.ClickException(f"A service's name is lower-case words with dashes, like booking-ui; got {name!r}.")
    folder = into or Path(name)
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is there already and is not empty.")
    words = {
        "name": name,
        "package": name.replace("-", "_"),
        "Class": "".join(word.capitalize() for word in name.split("-")),
    }
    for path, text in _texts():
        made = folder / Template(path).substitute(words)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(Template(text).substitute(words), "utf-8")
    click.echo(
        f"{folder} is ready:\n\n    cd {folder}\n    ropewalk up          # http://127.0.0.1:8000/docs\n    pytest\n"
    )


def _texts() -> list[tuple[str, str]]:
    """(path, text) of each file; both are templates with $$name, $$package and $$Class."""
    root = files("ropewalk.cli") / "first"
    return [
        ("system.toml", (root / "system.toml").read_text("utf-8")),
        ("pyproject.toml", (root / "pyproject.txt").read_text("utf-8")),
        ("README.rst", (root / "README.rst").read_text("utf-8")),
        (".gitignore", ".ropewalk/\n__pycache__/\n.mypy_cache/\n.pytest_cache/\n"),
        ("${package}/__init__.py", '"""The ${name} system."""\n'),
        ("${package}/service.py", (root / "service.txt").read_text("utf-8")),
        ("tests/test_${package}.py", (root / "test.txt").read_text("utf-8")),
    ]
