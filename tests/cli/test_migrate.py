"""`ropewalk migrate`: what it shows, what it makes, what it leaves to people, and how it ends."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ropewalk.cli import main

CODE = '''
import sqlalchemy as sa
from ropewalk import Database, Service

metadata = sa.MetaData()
sa.Table("guests", metadata, sa.Column("id", sa.Integer, primary_key=True), {columns})

class Desk(Service, name="desk", version="1.0.0"):
    """Has guests."""

    tables = metadata

    def __init__(self, database: Database) -> None: ...

class Door(Service, name="door", version="1.0.0"):
    """Keeps nothing."""
'''
NAME = 'sa.Column("name", sa.Text, nullable=False)'
EMAIL = 'sa.Column("email", sa.Text)'


class System:
    """A system whose code changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "system.toml"
        self._versions = 0

    def is_(self, *columns: str) -> None:
        """The code of its service from now on."""
        self._versions += 1
        module = f"migrated_{self._versions}"
        sys.modules.pop(module, None)
        (self.folder / f"{module}.py").write_text(CODE.format(columns=", ".join(columns)))
        self.file.write_text(f'[services]\ndesk = "{module}:Desk"\ndoor = "{module}:Door"\n')

    def migrate(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["migrate", str(self.file), *options], catch_exceptions=False)

    def columns(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / ".ropewalk" / "desk.sqlite3")) as database:
            return [row[1] for row in database.execute("PRAGMA table_info(guests)")]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    system = System(tmp_path)
    system.is_(NAME)
    assert 0 == system.migrate().exit_code
    return system


def test_what_is_as_the_code_has_it_is_said_to_be(system):
    result = system.migrate()

    assert (0, f"{system.file}: every table is as the code has it.\n") == (result.exit_code, result.output)


def test_what_was_made_is_shown(system):
    system.is_(NAME, EMAIL)

    result = system.migrate()

    assert 0 == result.exit_code
    assert ["service  change                          state", "desk     column guests.email is missing  made"] == [
        line.rstrip() for line in result.output.splitlines()
    ]
    assert ["id", "name", "email"] == system.columns()


def test_a_check_makes_nothing_and_says_so_by_its_status(system):
    system.is_(NAME, EMAIL)

    result = system.migrate("--check", "--json")

    assert (1, [{"service": "desk", "change": "column guests.email is missing", "state": "to be made"}]) == (
        result.exit_code,
        json.loads(result.output),
    )
    assert ["id", "name"] == system.columns()


def test_beside_what_takes_a_revision_nothing_is_made(system):
    system.is_(EMAIL)

    result = system.migrate("--json")

    assert [
        ("column guests.email is missing", "not made"),
        ("column guests.name is unknown to the code", "takes a revision"),
    ] == [(row["change"], row["state"]) for row in json.loads(result.stdout)]
    assert 1 == result.exit_code
    assert f"`ropewalk migrate {system.file} --service desk --new TITLE` writes a revision of desk.\n" == result.stderr
    assert ["id", "name"] == system.columns()


def test_a_revision_is_written_and_then_run(system):
    system.is_(EMAIL)

    written = system.migrate("--service", "desk", "--new", "Names become mail")
    path = system.folder / "migrations" / "desk" / "0001_names_become_mail.py"
    assert (0, f"{path}: edit it, then run `ropewalk migrate` again.\n") == (written.exit_code, written.output)
    result = system.migrate("--json")

    assert (0, [("revision 0001 (Names become mail) was not run", "made")]) == (
        result.exit_code,
        [(row["change"], row["state"]) for row in json.loads(result.output) if row["change"].startswith("rev")],
    )
    assert ["id", "email"] == system.columns()
    assert 0 == system.migrate("--check").exit_code


def test_what_the_rows_do_not_allow_is_told_and_undone(system):
    with closing(sqlite3.connect(system.folder / ".ropewalk" / "desk.sqlite3")) as database, database:
        database.execute("INSERT INTO guests (name) VALUES ('Ann'), ('Ann')")
    system.is_(NAME, EMAIL, 'sa.UniqueConstraint("name")')

    result = system.migrate()

    assert 1 == result.exit_code
    assert "The database of desk stays as it was: UNIQUE constraint failed" in result.output
    assert ["id", "name"] == system.columns()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--service", "door"], "There is no service 'door' with a database; there are: desk."),
        (["--new", "Title"], "--new: say --service, too."),
    ],
)
def test_what_was_asked_wrongly_is_refused(system, options, expected):
    result = system.migrate(*options)

    assert (1, f"Error: {expected}\n") == (result.exit_code, result.output)
