"""A database has the tables of the code, or nobody opens it before somebody has seen to it."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk.errors import ConfigurationError
from ropewalk.store import migrations, tables
from ropewalk.store.migrations import Change, Differs, look, new_revision, settle

SCHEMA = f"ropewalk_migrations_{os.getpid()}"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def guests(*more: Any, name: str = "guests", **options: Any) -> sa.MetaData:
    """The tables of the code, with what a test adds to one of them."""
    metadata = sa.MetaData()
    sa.Table("rooms", metadata, sa.Column("number", sa.Integer, primary_key=True))
    sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(20), nullable=False),
        *more,
        **options,
    )
    return metadata


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.backend("postgresql"))])
def connection(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    """One to an empty database, in a transaction that never commits."""
    where = "sqlite://" if request.param == "sqlite" else "postgresql+psycopg://postgres@127.0.0.1/postgres"
    engine = sa.create_engine(where)
    if request.param == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.connect() as connection:
        if request.param == "postgresql":
            connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
            connection.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
        yield connection
        connection.rollback()
    engine.dispose()


def refused(connection: sa.Connection, code: sa.MetaData, revisions: Path | None = None) -> list[str]:
    """Why nobody opens it."""
    with pytest.raises(Differs) as raised:
        settle("desk", connection, code, revisions)
    return [change.text for change in raised.value.changes]


def columns(connection: sa.Connection, table: str = "guests") -> list[str]:
    return [column["name"] for column in sa.inspect(connection).get_columns(table)]


# -- opening


def test_an_empty_database_gets_the_tables_of_the_code_and_ours(connection):
    settle("desk", connection, guests(), None)

    assert {"guests", "rooms", *tables.metadata.tables} == set(sa.inspect(connection).get_table_names())
    settle("desk", connection, guests(), None)


@pytest.mark.parametrize(
    ("before", "code", "expected"),
    [
        (lambda: (), lambda: (sa.Column("email", sa.Text),), ["column guests.email is missing"]),
        (lambda: (sa.Column("email", sa.Text),), lambda: (), ["column guests.email is unknown to the code"]),
        (lambda: (), lambda: (sa.Index("by_name", "name"),), ["index by_name of guests is missing"]),
        (lambda: (sa.Index("by_name", "name"),), lambda: (), ["index by_name of guests is unknown to the code"]),
        (lambda: (), lambda: (sa.UniqueConstraint("name"),), ["unique constraint of guests (name) is missing"]),
        (
            lambda: (sa.Column("age", sa.Integer),),
            lambda: (sa.Column("age", sa.Text),),
            ["column guests.age is INTEGER(), in the code Text()"],
        ),
        (
            lambda: (sa.Column("age", sa.Integer),),
            lambda: (sa.Column("age", sa.Integer, nullable=False),),
            ["column guests.age may be NULL, in the code it may not"],
        ),
        (
            lambda: (sa.Column("room", sa.Integer),),
            lambda: (sa.Column("room", sa.ForeignKey("rooms.number")),),
            ["foreign key of guests (room) to rooms (number) is missing"],
        ),
        (
            lambda: (),
            lambda: (sa.Column("b", sa.Text, index=True), sa.Column("a", sa.Text)),
            ["column guests.a is missing", "column guests.b is missing", "index ix_guests_b of guests is missing"],
        ),
    ],
    ids=["column", "column gone", "index", "index gone", "unique", "type", "not null", "foreign key", "several"],
)
def test_one_that_differs_is_refused_with_every_difference(connection, before, code, expected):
    settle("desk", connection, guests(*before()), None)

    assert expected == refused(connection, guests(*code()))


def test_the_refusal_names_the_service(connection):
    settle("desk", connection, guests(), None)

    with pytest.raises(ConfigurationError) as raised:
        settle("desk", connection, guests(sa.Column("email", sa.Text)), None)

    assert "The tables of desk are not those of the code: column guests.email is missing." == str(raised.value)


def test_whole_tables_that_are_missing_are_made_at_start(connection):
    settle("desk", connection, None, None)

    settle("desk", connection, guests(), None)

    assert ["id", "name"] == columns(connection)


def test_a_missing_table_is_not_made_beside_another_difference(connection):
    settle("desk", connection, guests(), None)
    code = guests(sa.Column("email", sa.Text))
    sa.Table("keys", code, sa.Column("id", sa.Integer, primary_key=True))

    assert ["column guests.email is missing", "table keys is missing"] == refused(connection, code)


def test_a_table_that_the_code_does_not_know_is_nobodys_business(connection):
    connection.exec_driver_sql("CREATE TABLE of_another_tool (id INTEGER)")
    settle("desk", connection, guests(), None)

    settle("desk", connection, guests(), None)


def test_a_table_under_a_new_name_is_not_begun_anew(connection):
    settle("desk", connection, guests(), None)

    assert [
        "table visitors is missing",
        "table guests is unknown to the code, and may be a missing one under its old name",
    ] == refused(connection, guests(name="visitors"))


def test_what_makes_no_difference_is_none(connection):
    def everything(text: Any, *, turned: bool) -> sa.MetaData:
        indexes = [sa.Index("by_a", "a"), sa.Index("by_b", sa.text("lower(b)")), sa.Index("by_c", sa.desc("c"))]
        return guests(
            sa.Column("a", sa.Uuid),
            sa.Column("b", text, unique=True),
            sa.Column("c", sa.DateTime(timezone=True), server_default=sa.func.current_timestamp()),
            sa.Column("d", sa.JSON),
            sa.Column("e", sa.Numeric(10, 2)),
            sa.Column("f", sa.Boolean),
            sa.Column("g", sa.LargeBinary),
            sa.Column("h", sa.BigInteger),
            sa.Column("i", sa.Enum(Colour, name="colour", native_enum=False)),
            sa.Column("j", sa.ForeignKey("rooms.number", ondelete="CASCADE", deferrable=True, initially="DEFERRED")),
            sa.Column("k", sa.Float),
            sa.Column("l", sa.Interval),
            sa.CheckConstraint("k > 1"),
            sa.UniqueConstraint("a", "h"),
            *(reversed(indexes) if turned else indexes),
            comment="turned" if turned else None,
            sqlite_with_rowid=False,
        )

    sqlite = connection.dialect.name == "sqlite"
    settle("desk", connection, everything(sa.String(100), turned=False), None)

    settle("desk", connection, everything(sa.Text() if sqlite else sa.String(100), turned=True), None)


def test_opening_a_new_database_needs_no_alembic(tmp_path):
    code = (
        "import sys, sqlalchemy as sa; from ropewalk.store.migrations import settle\n"
        "with sa.create_engine('sqlite://').begin() as connection: settle('desk', connection, None, None)\n"
        "print('alembic' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()


# -- migrating


@pytest.mark.parametrize(
    "added",
    [
        lambda: (sa.Column("email", sa.Text),),
        lambda: (sa.Column("email", sa.Text, nullable=False, server_default="unknown"),),
        lambda: (sa.Column("room", sa.ForeignKey("rooms.number")),),
        lambda: (sa.Column("colour", sa.Enum(Colour, name="colour")),),
        lambda: (sa.Column("email", sa.Text, unique=True), sa.Column("age", sa.Integer, index=True)),
        lambda: (sa.Index("by_name", "name"),),
    ],
    ids=["nullable", "default", "reference", "enum", "unique and index", "index"],
)
def test_what_loses_nothing_is_made_and_no_row_is_lost(connection, added):
    # With what SQLite cannot tell when it makes a table anew.
    checked = (sa.CheckConstraint("length(name) < 9", name="short"),)
    settle("desk", connection, guests(*checked, sqlite_with_rowid=False), None)
    connection.exec_driver_sql("INSERT INTO guests (id, name) VALUES (7, 'Ann')")
    code = guests(
        *added(),
        sa.CheckConstraint("length(name) < 9", name="short"),
        sqlite_with_rowid=False,
    )

    migrations.migrate("desk", connection, code, None)

    settle("desk", connection, code, None)
    assert [(7, "Ann")] == [tuple(row) for row in connection.exec_driver_sql("SELECT id, name FROM guests")]
    with pytest.raises(sa.exc.IntegrityError):
        connection.exec_driver_sql("INSERT INTO guests (id, name) VALUES (8, 'much too long')")


@pytest.mark.parametrize(
    ("before", "code", "text"),
    [
        (lambda: (sa.Column("email", sa.Text),), lambda: (), "column guests.email is unknown to the code"),
        (lambda: (), lambda: (sa.Column("email", sa.Text, nullable=False),), "column guests.email is missing"),
        (
            lambda: (sa.Column("age", sa.Integer),),
            lambda: (sa.Column("age", sa.Text),),
            "column guests.age is INTEGER(), in the code Text()",
        ),
    ],
    ids=["dropped", "not null", "type"],
)
def test_what_may_lose_something_takes_a_revision(connection, before, code, text):
    settle("desk", connection, guests(*before()), None)

    with pytest.raises(Differs) as raised:
        migrations.migrate("desk", connection, guests(*code()), None)

    assert (Change(text, by_itself=False),) == raised.value.changes


def test_missing_tables_are_made_beside_those_of_others(connection):
    connection.exec_driver_sql("CREATE TABLE of_another_tool (id INTEGER)")
    settle("desk", connection, None, None)

    migrations.migrate("desk", connection, guests(), None)

    assert ["id", "name"] == columns(connection)


# -- revisions


def test_a_revision_that_was_written_and_edited_is_run_once_and_before_the_rest(connection, tmp_path):
    settle("desk", connection, guests(sa.Column("email", sa.Text)), None)
    connection.exec_driver_sql("INSERT INTO guests (id, name, email) VALUES (7, 'Ann', 'ann@inn')")
    code = guests(sa.Column("address", sa.Text), sa.Column("age", sa.Integer))

    path = new_revision("desk", connection, code, tmp_path / "desk", "E-mail is an address")
    assert "0001_e_mail_is_an_address.py" == path.name
    text = path.read_text()
    assert "batch_op.drop_column('email')" in text
    body = 'with op.batch_alter_table("guests") as batch:\n        batch.alter_column("email", new_column_name="address")\n'
    path.write_text(text[: text.index("def upgrade")] + f"def upgrade() -> None:\n    {body}")

    assert "revision 0001 (E-mail is an address) was not run" == look(connection, code, tmp_path / "desk")[0].text
    migrations.migrate("desk", connection, code, tmp_path / "desk")

    settle("desk", connection, code, tmp_path / "desk")
    assert [(7, "ann@inn", None)] == [
        tuple(row) for row in connection.exec_driver_sql("SELECT id, address, age FROM guests")
    ]


def test_a_written_revision_as_it_is_makes_the_tables_of_the_code(connection, tmp_path):
    settle("desk", connection, guests(sa.Column("email", sa.Text)), None)
    code = guests(sa.Column("age", sa.Integer))
    sa.Table("keys", code, sa.Column("id", sa.Integer, primary_key=True))

    new_revision("desk", connection, code, tmp_path, "No mail")
    migrations.migrate("desk", connection, code, tmp_path)

    settle("desk", connection, code, tmp_path)
    assert {"id", "name", "age"} == set(columns(connection))


def test_a_database_that_is_new_has_had_all_revisions(connection, tmp_path):
    settle("desk", connection, guests(sa.Column("email", sa.Text)), None)
    new_revision("desk", connection, guests(), tmp_path, "No mail")
    for name in ("guests", "rooms", *tables.metadata.tables):
        connection.exec_driver_sql(f"DROP TABLE {name}")

    settle("desk", connection, guests(), tmp_path)

    assert [] == look(connection, guests(), tmp_path)


def test_one_that_has_not_had_a_revision_is_refused_though_its_tables_fit(connection, tmp_path):
    settle("desk", connection, guests(), None)
    new_revision("desk", connection, guests(), tmp_path, "Only rows")

    assert ["revision 0001 (Only rows) was not run"] == refused(connection, guests(), tmp_path)


def test_a_second_revision_follows_the_first_once_that_was_run(connection, tmp_path):
    settle("desk", connection, guests(), None)
    new_revision("desk", connection, guests(), tmp_path, "One")

    with pytest.raises(ConfigurationError, match="desk: run the revisions that are there first: 0001"):
        new_revision("desk", connection, guests(), tmp_path, "Two")
    migrations.migrate("desk", connection, guests(), tmp_path)
    new_revision("desk", connection, guests(), tmp_path, "Two")
    migrations.migrate("desk", connection, guests(), tmp_path)

    assert [] == look(connection, guests(), tmp_path)


def test_revisions_that_make_no_sense_are_refused(connection, tmp_path):
    settle("desk", connection, guests(), None)
    (tmp_path / "2.py").write_text("revision = '2'\ndown_revision = None\ndef upgrade(: ...\n")

    with pytest.raises(ConfigurationError, match="invalid syntax"):
        settle("desk", connection, guests(), tmp_path)
