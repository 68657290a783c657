"""Whether the tables of a database are those of the code, and how they become that. Alembic does the work.

    settle        what opening a database does: an empty one gets its tables, one that differs is refused
    look          in what it differs, and what of it `migrate` would do
    migrate       do it: revisions written by hand first, then whatever loses nothing
    new_revision  write a revision, to be edited: for what `migrate` does not do by itself

A table that the code does not know counts for nothing: other tools keep theirs beside ours. But where the code misses
one as well, that may be the same under a new name, so nothing is made at start. Comments do not count, nor defaults of
the server, nor types that SQLite does not tell apart, as VARCHAR(20) and TEXT. CHECK constraints are not compared.

Alembic is imported late: who opens a new database needs none of it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from msgspec import Struct

from ..errors import ConfigurationError
from . import tables as tables_of_ours

if TYPE_CHECKING:
    from alembic.operations.ops import MigrateOperation, UpgradeOps
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

REVISION_TABLE = "ropewalk_revision"  # which of the revisions written by hand a database has had
OF_OTHERS = {REVISION_TABLE, "ropewalk_owner"}  # tables of ours that are no service's: the other is PostgreSQL's


class Change(Struct, frozen=True):
    """One thing in which a database differs from the code."""

    text: str  # "column guests.email is missing"
    by_itself: bool  # whether `migrate` does it, as it loses nothing; else it takes a revision
    revision: bool = False  # whether it is one that was not run: what is different after it, only it can tell


class Differs(ConfigurationError):
    """Raised when the tables of a database are not those of the code."""

    def __init__(self, service: str, changes: Iterable[Change]) -> None:
        self.changes = tuple(changes)
        what = "; ".join(change.text for change in self.changes)
        super().__init__(f"The tables of {service} are not those of the code: {what}.")


def settle(service: str, connection: sa.Connection, tables: sa.MetaData | None, revisions: Path | None) -> None:
    """See to it that the database has the tables of the code; raises Differs when it has others.

    An empty one gets them, and counts as one that has had all of `revisions`, a folder that need not be there. Another
    one gets whole tables that it misses, if it differs in nothing else and has no table that the code does not know.
    """
    known = _known(tables)
    found, ours = _names(connection, known)
    if found.isdisjoint(ours):
        _create(connection, known)
        if script := _script(revisions):
            _context(connection, known).stamp(script, "heads")
        return
    missing, strange = sorted(ours - found), sorted(found - ours)
    changes = look(connection, tables, revisions)
    if missing and strange:
        unknown = f"table {', '.join(strange)} is unknown to the code, and may be a missing one under its old name"
        raise Differs(service, [*changes, Change(unknown, by_itself=False)])
    if len(changes) > len(missing):
        raise Differs(service, changes)
    _create(connection, known)


def look(connection: sa.Connection, tables: sa.MetaData | None, revisions: Path | None) -> list[Change]:
    """In what the database differs from the code: revisions that it has not had, in their order, then the rest, sorted.

    Raises ConfigurationError when the revisions make no sense.
    """
    known = _known(tables)
    found, ours = _names(connection, known)
    changes = [Change(f"table {name} is missing", by_itself=True) for name in ours - found]
    if found.isdisjoint(ours):
        return sorted(changes, key=_text)
    changes += [Change(_words(op), _loses_nothing(op)) for _, op in _operations(connection, known)]
    return [
        *(Change(f"revision {revision} ({doc}) was not run", by_itself=True, revision=True)
          for revision, doc in _pending(connection, known, revisions)),
        *sorted(changes, key=_text),
    ]  # fmt: skip


def migrate(service: str, connection: sa.Connection, tables: sa.MetaData | None, revisions: Path | None) -> None:
    """Give the database the tables of the code, or raise: the caller then rolls back.

    Raises Differs with what takes a revision, and sqlalchemy's DBAPIError for what the rows do not allow.
    """
    from alembic.operations import Operations

    known = _known(tables)
    found, ours = _names(connection, known)
    if found.isdisjoint(ours):
        settle(service, connection, tables, revisions)
        return
    _run(connection, known, revisions)
    refused = [change for change in look(connection, tables, revisions) if not change.by_itself]
    if refused:
        raise Differs(service, refused)
    _create(connection, known)
    operations = Operations(_context(connection, known))
    tables_by_name = {table.name: table for each in known for table in each.tables.values()}
    changed = _operations(connection, known)
    for name in sorted({name for name, _ in changed}):
        # Where SQLite has to make the table anew, it is made of what can be read from the old one. These cannot.
        checks = [_copied(each, connection) for each in tables_by_name[name].constraints if _is_check(each)]
        options = dict(tables_by_name[name].dialect_kwargs)
        with operations.batch_alter_table(name, table_args=tuple(checks), table_kwargs=options) as batch:
            for op in (op for table, op in changed if table == name):
                batch.invoke(_plain(op))
    left = look(connection, tables, revisions)
    if left:
        raise Differs(service, left)
    if connection.dialect.name == "sqlite" and (
        broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    ):
        raise ConfigurationError(f"{service}: a row of {broken[0]} refers to one of {broken[2]} that is not there.")


def new_revision(
    service: str, connection: sa.Connection, tables: sa.MetaData | None, revisions: Path, title: str
) -> Path:
    """Write a revision called `title` that makes the database what the code has, for people to edit; its file.

    Raises ConfigurationError when the database has not had all earlier ones.
    """
    from alembic.autogenerate import render_python_code

    known = _known(tables)
    revisions.mkdir(parents=True, exist_ok=True)
    if pending := _pending(connection, known, revisions):
        names = ", ".join(revision for revision, _ in pending)
        raise ConfigurationError(f"{service}: run the revisions that are there first: {names}.")
    context = _context(connection, known)
    heads = context.get_current_heads()
    head = heads[0] if len(heads) == 1 else heads or None
    number = f"{len(list(revisions.glob('*.py'))) + 1:04}"
    body = render_python_code(_upgrade(context, known), render_as_batch=True, migration_context=context)
    path = revisions / f"{number}_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}.py"
    path.write_text(TEMPLATE.format(title=title, number=number, head=head, body=body), "utf-8")
    return path


TEMPLATE = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {head!r}


def upgrade() -> None:
    {body}
'''


# -- the tables


def _known(tables: sa.MetaData | None) -> list[sa.MetaData]:
    return [each for each in (tables, tables_of_ours.metadata) if each is not None]


def _names(connection: sa.Connection, known: Sequence[sa.MetaData]) -> tuple[set[str], set[str]]:
    """The tables that are there, and those of the code."""
    found = set(sa.inspect(connection).get_table_names()) - OF_OTHERS
    return found, {table.name for each in known for table in each.tables.values()}


def _create(connection: sa.Connection, known: Sequence[sa.MetaData]) -> None:
    """Make those that are missing."""
    for each in known:
        each.create_all(connection)


def _is_check(constraint: sa.Constraint) -> bool:
    return isinstance(constraint, sa.CheckConstraint)


def _copied(check: Any, connection: sa.Connection) -> sa.CheckConstraint:
    """The same of no table."""
    words = {"literal_binds": True, "include_table": False}
    return sa.CheckConstraint(str(check.sqltext.compile(connection, compile_kwargs=words)), name=check.name)


def _plain(op: MigrateOperation) -> MigrateOperation:
    """The same, of which Alembic makes nothing beside it, and to which SQLite, too, can give a name."""
    from alembic.operations import ops

    match op:
        case ops.AddColumnOp():
            # Its index and its foreign key are operations of their own.
            column, default = op.column, op.column.server_default
            given: Any = default.arg if isinstance(default, sa.DefaultClause) else None
            plain: Any = sa.Column(column.name, column.type, nullable=column.nullable, server_default=given)
            return ops.AddColumnOp(op.table_name, plain)
        case ops.CreateUniqueConstraintOp() if op.constraint_name is None:
            op.constraint_name = "_".join(["uq", op.table_name, *map(str, op.columns)])
        case ops.CreateForeignKeyOp() if op.constraint_name is None:
            op.constraint_name = "_".join(["fk", op.source_table, *op.local_cols])
    return op


# -- what Alembic finds


def _context(connection: sa.Connection, known: list[sa.MetaData], **options: Any) -> MigrationContext:
    from alembic.runtime.migration import MigrationContext

    def ours(thing: Any, name: str | None, kind: str, reflected: bool, code: Any) -> bool:
        return not (kind == "table" and reflected and code is None)

    settings = {
        "target_metadata": known,
        "include_object": ours,
        "compare_type": _other_affinity if connection.dialect.name == "sqlite" else True,
        "version_table": REVISION_TABLE,
    }
    return MigrationContext.configure(connection, opts={**settings, **options})


def _upgrade(context: MigrationContext, known: list[sa.MetaData]) -> UpgradeOps:
    from alembic.autogenerate import produce_migrations

    several: Any = known  # which it takes, whatever its annotation says
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that indexes of expressions cannot be compared everywhere
        upgrade = produce_migrations(context, several).upgrade_ops
    assert upgrade is not None
    return upgrade


def _operations(connection: sa.Connection, known: list[sa.MetaData]) -> list[tuple[str, MigrateOperation]]:
    """(table, what would change it) of those tables that are there."""
    from alembic.operations import ops

    found, _ = _names(connection, known)
    upgrade = _upgrade(_context(connection, known), known)
    of_tables = [each for each in upgrade.ops if isinstance(each, ops.ModifyTableOps) and each.table_name in found]
    changes = [(each.table_name, op) for each in of_tables for op in each.ops if _words(op)]
    if connection.dialect.name != "sqlite":
        return changes
    # An index of which SQLite does not show all, "c DESC": it is there, and more cannot be known.
    blurred = {
        index.name
        for each in known
        for table in each.tables.values()
        for index in table.indexes
        if not all(isinstance(expression, sa.Column) for expression in index.expressions)
    } & {op.index_name for _, op in changes if isinstance(op, ops.DropIndexOp)}
    return [(table, op) for table, op in changes if getattr(op, "index_name", None) not in blurred]


def _words(op: Any) -> str:
    """What is different; "" for what does not count."""
    from alembic.operations import ops

    table = getattr(op, "source_table", None) or getattr(op, "table_name", "")
    match op:
        case ops.AddColumnOp():
            return f"column {table}.{op.column.name} is missing"
        case ops.DropColumnOp():
            return f"column {table}.{op.column_name} is unknown to the code"
        case ops.AlterColumnOp() if op.modify_type is not None:
            return f"column {table}.{op.column_name} is {op.existing_type!r}, in the code {op.modify_type!r}"
        case ops.AlterColumnOp() if op.modify_nullable is not None:
            may = "may not be NULL, in the code it may" if op.modify_nullable else "may be NULL, in the code it may not"
            return f"column {table}.{op.column_name} {may}"
        case ops.CreateIndexOp():
            return f"index {op.index_name} of {table} is missing"
        case ops.DropIndexOp():
            return f"index {op.index_name} of {table} is unknown to the code"
        case ops.CreateUniqueConstraintOp():
            return f"unique constraint of {table} ({', '.join(map(str, op.columns))}) is missing"
        case ops.CreateForeignKeyOp():
            there = f"{op.referent_table} ({', '.join(op.remote_cols)})"
            return f"foreign key of {table} ({', '.join(op.local_cols)}) to {there} is missing"
        case ops.DropConstraintOp():
            return f"constraint {op.constraint_name or 'without a name'} of {table} is unknown to the code"
    return ""


def _loses_nothing(op: Any) -> bool:
    """Whether no row can lose anything by it, and every row can have it."""
    from alembic.operations import ops

    match op:
        case ops.AddColumnOp():
            default = op.column.server_default
            return bool(op.column.nullable) if default is None else isinstance(default, sa.DefaultClause)
        case ops.AlterColumnOp():
            return op.modify_type is None and op.modify_nullable is True
        case ops.DropConstraintOp():
            return op.constraint_name is not None
    return not isinstance(op, ops.DropColumnOp)


def _other_affinity(
    _: Any, __: Any, ___: Any, found: sa.types.TypeEngine[Any], wanted: sa.types.TypeEngine[Any]
) -> bool:
    from sqlalchemy.dialects import sqlite

    dialect = sqlite.dialect()
    return _affinity(found.compile(dialect)) != _affinity(wanted.compile(dialect))


def _affinity(declared: str) -> str:
    """What SQLite makes of a type. https://www.sqlite.org/datatype3.html#determination_of_column_affinity

    >>> _affinity("VARCHAR(20)"), _affinity("BIGINT"), _affinity("DATETIME")
    ('TEXT', 'INTEGER', 'NUMERIC')
    """
    for affinity, parts in AFFINITIES.items():
        if any(part in declared.upper() for part in parts):
            return affinity
    return "NUMERIC"


AFFINITIES = {
    "INTEGER": ("INT",),
    "TEXT": ("CHAR", "CLOB", "TEXT"),
    "BLOB": ("BLOB",),
    "REAL": ("REAL", "FLOA", "DOUB"),
}


# -- revisions


def _script(revisions: Path | None) -> ScriptDirectory | None:
    """The revisions in a folder; None when there are none."""
    if revisions is None or not any(revisions.glob("*.py")):
        return None
    from alembic.script import ScriptDirectory

    return ScriptDirectory(revisions, version_locations=[revisions])


def _pending(connection: sa.Connection, known: list[sa.MetaData], revisions: Path | None) -> list[tuple[str, str]]:
    """(revision, what it is called) of those that it has not had, in their order."""
    return [
        (step.revision.revision, step.revision.doc.rstrip("."))
        for step in _steps(_context(connection, known), revisions)
    ]


def _steps(context: MigrationContext, revisions: Path | None) -> list[Any]:
    from alembic.util import CommandError

    script = _script(revisions)
    if script is None:
        return []
    try:
        return list(script._upgrade_revs("heads", context.get_current_heads()))  # type: ignore[arg-type]
    except (CommandError, SyntaxError) as error:
        raise ConfigurationError(f"{revisions}: {error}") from error


def _run(connection: sa.Connection, known: list[sa.MetaData], revisions: Path | None) -> None:
    from alembic.operations import Operations

    if _script(revisions) is None:
        return
    context = _context(connection, known, fn=lambda heads, context: _steps(context, revisions))
    with Operations.context(context):  # `from alembic import op` means it
        context.run_migrations()


def _text(change: Change) -> str:
    return change.text
