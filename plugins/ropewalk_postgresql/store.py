"""PostgreSQL: one schema for each service, transactions that are SERIALIZABLE, as many connections as threads.

Two services never share tables, and two processes of one service share all of them. What the drivers and the server
do by themselves for ever has a limit here: see `LIMITS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool
from sqlalchemy.sql.expression import TextClause
from sqlalchemy.sql.functions import FunctionElement, GenericFunction
from sqlalchemy.sql.visitors import iterate
from zope.interface import implementer

from ropewalk.errors import ConfigurationError
from ropewalk.interfaces import IStore
from ropewalk.store import migrations
from ropewalk.store import tables as tables_of_ours
from ropewalk.store.commits import SharedCommits
from ropewalk.store.database import Database, closed, unavailable
from ropewalk.store.transaction import REMEMBERED

from .told import Line, TellingDatabase

# Connections of one service in one process, and threads; `?pool=` of the URL says another number. What waits for them
# shares transactions, so more of them do more only where the way to the server is long, or where functions are slow.
POOL = 4
POOL_MOST = 64  # of them: a server takes a hundred, all processes together, unless it is told otherwise
PATIENCE = 5.0  # seconds a run waits for a thread with its connection, as long as it waits to be connected
NAME_BYTES = 63  # of a schema: the server cuts off the rest, and two services would be one

# What the URL's query may say otherwise. https://www.postgresql.org/docs/current/libpq-connect.html
LIMITS = {
    "connect_timeout": "5",  # seconds, for each address of the host
    "tcp_user_timeout": "30000",  # milliseconds until a peer that confirms nothing counts as gone
    "keepalives_idle": "10",  # seconds of silence until it is asked whether it is there
    "keepalives_interval": "5",  # seconds until it is asked again
    "keepalives_count": "3",
}
STATEMENT_TIMEOUT = 30_000  # milliseconds
LOCKED = 20  # milliseconds that a run which shares its transaction waits for a lock, before it is made alone

OWNER = "ropewalk_owner"  # the table that says whose the schema is

CONFLICTS = {"40001", "40P01"}  # serialization_failure and deadlock_detected: the transaction may be run again


@implementer(IStore)
class PostgreSQLStore:
    """Databases as schemas of one database, each with a pool of connections and as many threads.

    The schema is called as the service, with "_" for "-". It is made where it is missing, which takes the right to
    create in the database; a schema that is there already takes the right to use it and to create tables in it. It
    belongs to the system that opened it first, known by its name: another one's service of this name is refused.

    Runs that wait for a connection are made in one transaction, in order (decisions/0019), so what a function sets with
    SET LOCAL may hold for those behind it, too; each is answered after the COMMIT.

    It takes at most 5 seconds to connect, 5 to wait for a connection while all are in use, and 30 for a statement;
    what takes longer is Unavailable. Whether the transaction has run is then told by `ran`: "maybe" when the connection
    was lost while it was committed, else "no".
    """

    def __init__(self, where: str, folder: Path, reactor: Any, now: Callable[[], float], system: str = "") -> None:
        """`where`: "postgresql" or a URL, `postgresql://hotel@db/hotel?pool=8`; see `parse`. `folder` is not used.

        `reactor`: for its threads and timers. `now`: wall-clock seconds. `system`: whose services they are, as
        `[system] name` says. Raises ConfigurationError for a wrong URL.
        """
        self._system = system
        self._url, self._size = parse(where, os.environ)
        self._reactor = reactor
        self._now = now
        self._closed = False
        self._open: list[SharedCommits] = []
        self._told: list[TellingDatabase] = []

    def open(self, service: str, tables: sqlalchemy.MetaData | None, revisions: Path | None = None) -> Database:
        """As IStore. Blocks until it is open.

        Raises Unavailable when the server cannot be reached or refuses, and ConfigurationError for a name that cannot
        be that of a schema.
        """
        if self._closed:
            raise closed()
        schema = schema_of(service)
        known = [each for each in (tables, tables_of_ours.metadata) if each is not None]
        try:
            with self.changing(service) as connection:
                migrations.settle(service, connection, tables, revisions)
                left = tables_of_ours.left(connection)
        except sqlalchemy.exc.DBAPIError as error:
            raise unavailable(f"The database of {service} cannot be opened: {error.orig}", "no") from error
        engine = _engine(
            self._url,
            schema,
            isolation_level="SERIALIZABLE",
            poolclass=QueuePool,
            pool_size=self._size,
            max_overflow=0,
            pool_timeout=PATIENCE,
        )
        event.listen(engine, "commit", _refuse_what_failed)
        sharing = _Together()
        commits = SharedCommits(service, engine, self._reactor, sharing, threads=self._size, patience=PATIENCE)
        self._open.append(commits)
        database = TellingDatabase(
            service,
            engine,
            commits.run,
            is_conflict,
            self._now,
            alone=partial(_alone, known),
            in_turn=_in_turn,
            for_batches=engine.execution_options(isolation_level="READ COMMITTED"),
        )
        database.left = left
        database.line = partial(Line, _conninfo(self._url), schema, self._reactor, commits.threads)
        self._told.append(database)
        return database

    @contextmanager
    def changing(self, service: str) -> Iterator[sqlalchemy.Connection]:
        """As IStore."""
        # Not SERIALIZABLE, which would look for the tables as they were before it waited for whoever makes them now.
        schema = schema_of(service)
        engine = _engine(self._url, schema, isolation_level="READ COMMITTED", poolclass=NullPool)
        with engine.begin() as connection:
            _make(connection, schema)
            _own(connection, schema, self._system)
            yield connection

    def close(self) -> None:
        """End the threads, when what they do is done, and the connections. Later runs are refused."""
        self._closed = True
        while self._told:
            self._told.pop().close()
        while self._open:
            self._open.pop().close()

    def __repr__(self) -> str:
        return f"<PostgreSQLStore at {self._url!r}>"


def parse(where: str, environ: Mapping[str, str]) -> tuple[sqlalchemy.URL, int]:
    """The URL as SQLAlchemy has it, and how many connections a service gets; raises ConfigurationError.

    What `where` leaves out is 127.0.0.1, the standard port, and the database and user of `PGDATABASE` and `PGUSER`, or
    "postgres". Its query may have `pool` and what libpq knows: `sslmode=require`.

    >>> parse("postgresql://hotel@db/hotel?pool=4", {})
    (postgresql+psycopg://hotel@db/hotel, 4)
    >>> parse("postgresql", {"PGUSER": "hotel"})
    (postgresql+psycopg://hotel@127.0.0.1/postgres, 4)
    """
    try:
        url = sqlalchemy.make_url("postgresql://" if where == "postgresql" else where)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        # What came may hold a password in a place where nothing can tell it from the rest.
        raise _wrong("got what is no URL") from error
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise _wrong(f"got the scheme {url.drivername!r}")
    pool = url.query.get("pool", str(POOL))
    if not (isinstance(pool, str) and pool.isascii() and pool.isdigit() and 1 <= int(pool) <= POOL_MOST):
        raise _wrong(f"pool is a number of connections from 1 to {POOL_MOST}; got {pool!r}")
    url = url.difference_update_query(["pool"]).set(
        drivername="postgresql+psycopg",
        host=url.host or (None if "host" in url.query else "127.0.0.1"),
        username=url.username or environ.get("PGUSER", "postgres"),
        database=url.database or environ.get("PGDATABASE", "postgres"),
    )
    try:
        make_conninfo("", **dict.fromkeys(url.query, "1"))  # looks at the names alone
    except psycopg.ProgrammingError as error:
        raise _wrong(str(error).strip()) from error
    return url, int(pool)


def schema_of(service: str) -> str:
    """What the schema of `service` is called; raises ConfigurationError where the server would refuse or cut it.

    >>> schema_of("booking-ui")
    'booking_ui'
    """
    name = service.replace("-", "_")
    if len(name.encode()) > NAME_BYTES or name.startswith("pg_") or name == "information_schema":
        raise ConfigurationError(
            f"The service {service!r} cannot have a schema of its name in PostgreSQL: expected at most {NAME_BYTES} "
            "bytes, no pg- at the beginning, and not information-schema. Call it otherwise in [services]."
        )
    return name


def is_conflict(error: Exception) -> bool:
    """Whether it says that transactions met, and that this one may be run again."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in CONFLICTS


class _Together:
    """As Sharing: nothing is said between two runs, since a SAVEPOINT would cost about what a COMMIT does.

    So one that raised is undone by itself only when it has done nothing but read. None waits for long for a row that
    another transaction holds: those that went before it hold rows, too, and two such transactions may want each
    other's.
    """

    apart = False

    @contextmanager
    def begin(self, engine: sqlalchemy.Engine) -> Iterator[sqlalchemy.Connection]:
        # Begun here, not by the driver: both statements go in one message.
        with engine.execution_options(isolation_level="AUTOCOMMIT").begin() as connection:
            connection.exec_driver_sql(
                f"BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = {LOCKED}",
                execution_options={"no_parameters": True},
            )
            yield connection

    def enter(self, connection: sqlalchemy.Connection) -> None:
        pass

    def leave(self, connection: sqlalchemy.Connection) -> bool:
        _refuse_what_failed(connection)
        return self.goes_on(connection)

    def undo(self, connection: sqlalchemy.Connection, executed: Sequence[sqlalchemy.Executable]) -> bool:
        unharmed = _status(connection) == TransactionStatus.INTRANS
        return unharmed and len(executed) < REMEMBERED and all(map(_reads, executed))

    def goes_on(self, connection: sqlalchemy.Connection) -> bool:
        return _status(connection) in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, sqlalchemy.exc.DBAPIError) and not is_conflict(error)


def _reads(statement: sqlalchemy.Executable) -> bool:
    """Whether it can do nothing but read: who knows what a function of the server's does, or a text."""
    if not isinstance(statement, sqlalchemy.Select | sqlalchemy.CompoundSelect):
        return False
    return all(
        not (getattr(part, "is_dml", False) or isinstance(part, TextClause))
        and (not isinstance(part, FunctionElement) or isinstance(part, GenericFunction))
        for part in iterate(statement)
    )


def _status(connection: sqlalchemy.Connection) -> TransactionStatus:
    driver: Any = connection.connection.dbapi_connection
    return TransactionStatus(driver.info.transaction_status)


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"[adapters] store: {what}. Expected postgresql, or a URL like postgresql://hotel@db:5432/hotel?pool={POOL}."
    )


def _conninfo(url: sqlalchemy.URL) -> str:
    """The same for the driver itself."""
    limits = {name: value for name, value in LIMITS.items() if name not in url.query}
    return make_conninfo(url.set(drivername="postgresql").render_as_string(hide_password=False), **limits)


def _engine(url: sqlalchemy.URL, schema: str, **settings: Any) -> sqlalchemy.Engine:
    """Its connections see the tables of the schema alone."""
    given = url.query.get("options", "")
    options = f'-c statement_timeout={STATEMENT_TIMEOUT} {given} -c search_path="{schema}"'
    limits = {name: value for name, value in LIMITS.items() if name not in url.query}
    return sqlalchemy.create_engine(url, connect_args={**limits, "options": options}, **settings)


def _make(connection: sqlalchemy.Connection, schema: str) -> None:
    # One at a time in the whole server: what two make at once fails for one of them, IF NOT EXISTS or not.
    connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext('ropewalk'))"))
    # Asked first: who may not create schemas is refused even where there is nothing to create.
    there = sqlalchemy.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
    if connection.execute(there, {"schema": schema}).first() is None:
        connection.execute(sqlalchemy.schema.CreateSchema(schema))


def _own(connection: sqlalchemy.Connection, schema: str, system: str) -> None:
    """The schema is the system's, or becomes it; raises ConfigurationError when it is another one's."""
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {OWNER} (system text PRIMARY KEY)")
    owner = connection.exec_driver_sql(f"SELECT system FROM {OWNER}").scalar()
    if owner is None:
        connection.execute(sqlalchemy.text(f"INSERT INTO {OWNER} VALUES (:system)"), {"system": system})
    elif owner != system:
        raise ConfigurationError(
            f"The schema {schema} of the database is that of the system {owner!r}; this is the system {system!r}. Two "
            "systems need two databases: [adapters] store. If it is the same under a new name, tell the database so: "
            f"UPDATE \"{schema}\".{OWNER} SET system = '{system}'."
        )


def _alone(known: list[sqlalchemy.MetaData], connection: sqlalchemy.Connection) -> None:
    """Nobody else writes the service's tables until this transaction ends; who reads, reads on.

    It must come before the first SELECT: what a SERIALIZABLE transaction sees is settled there, and LOCK is none.
    https://www.postgresql.org/docs/current/sql-lock.html
    """
    quoted = connection.dialect.identifier_preparer.format_table
    names = ", ".join(quoted(each.tables[name]) for each in known for name in sorted(each.tables))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")


_IN_TURN = sqlalchemy.text(
    "SELECT count(pg_advisory_xact_lock(hashtextextended(key, 0))) FROM unnest(CAST(:keys AS text[])) AS key"
)


def _in_turn(connection: sqlalchemy.Connection, keys: Sequence[str]) -> None:
    """Whoever comes here with one of these waits until this transaction has ended; a deadlock is a conflict, too."""
    connection.execute(_IN_TURN, {"keys": list(keys)})


def _refuse_what_failed(connection: sqlalchemy.Connection) -> None:
    # The server answers such a COMMIT with ROLLBACK, and the driver says nothing of it.
    if _status(connection) == TransactionStatus.INERROR:
        raise RuntimeError(
            "A statement failed and the function of Database.run went on: PostgreSQL commits nothing of such a "
            "transaction. Let the error out of the function, or look before you write."
        )
