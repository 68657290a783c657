"""PostgreSQL: one schema for each service, transactions that are SERIALIZABLE, as many connections as threads.

Two services never share tables, and two processes of one service share all of them. What the drivers and the server
do by themselves for ever has a limit here: see `LIMITS`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ropewalk.errors import ConfigurationError
from ropewalk.interfaces import IStore
from ropewalk.store import records
from ropewalk.store.database import Database, closed, unavailable

POOL = 8  # connections of one service in one process, and threads; `?pool=` of the URL says another number
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

CONFLICTS = {"40001", "40P01"}  # serialization_failure and deadlock_detected: the transaction may be run again


@implementer(IStore)
class PostgreSQLStore:
    """Databases as schemas of one database, each with a pool of connections and as many threads.

    The schema is called as the service, with "_" for "-". It is made where it is missing, which takes the right to
    create in the database; a schema that is there already takes the right to use it and to create tables in it. Two
    systems that share a database must not have services of one name.

    It takes at most 5 seconds to connect, 5 to wait for a connection while all are in use, and 30 for a statement;
    what takes longer is Unavailable. Whether the transaction has run is then told by `ran`: "maybe" when the connection
    was lost while it was committed, else "no".
    """

    def __init__(self, where: str, folder: Path, reactor: Any, now: Callable[[], float]) -> None:
        """`where`: "postgresql" or a URL, `postgresql://hotel@db/hotel?pool=8`; see `parse`. `folder` is not used.

        `reactor`: for its threads and timers. `now`: wall-clock seconds. Raises ConfigurationError for a wrong URL.
        """
        self._url, self._size = parse(where, os.environ)
        self._reactor = reactor
        self._now = now
        self._closed = False
        self._open: list[tuple[ThreadPool, sqlalchemy.Engine]] = []

    def open(self, service: str, tables: sqlalchemy.MetaData | None) -> Database:
        """The database of `service`; missing `tables` are made. Blocks until then.

        Raises Unavailable when the server cannot be reached or refuses, and ConfigurationError for a name that cannot
        be that of a schema.
        """
        if self._closed:
            raise closed()
        schema = schema_of(service)
        known = [each for each in (tables, records.metadata) if each is not None]
        try:
            _make(self._url, schema, known)
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
            pool_pre_ping=True,  # a restart of the server costs new connections, and no error for each old one
        )
        event.listen(engine, "commit", _refuse_what_failed)
        threads = ThreadPool(0, self._size, f"database-{service}")
        threads.start()
        self._open.append((threads, engine))
        in_thread = partial(self._in_thread, service, threads)
        return Database(service, engine, in_thread, is_conflict, self._now, alone=partial(_alone, known))

    def close(self) -> None:
        """End the threads, when what they do is done, and the connections. Later runs are refused."""
        self._closed = True
        while self._open:
            threads, engine = self._open.pop()
            threads.stop()
            engine.dispose()

    def _in_thread(self, service: str, threads: ThreadPool, function: Callable[[], Any]) -> Awaitable[Any]:
        """What `function` returns, called when a thread is free; Unavailable after PATIENCE."""
        if self._closed:
            raise closed()  # threads that have stopped would take it, and never call
        # Whoever takes the turn has it: the thread, which calls, or who waits no more, and then nobody calls.
        turn = [function]
        answer: Deferred[Any] = Deferred(lambda _: turn.clear())

        def call() -> Any:
            mine = _taken(turn)
            return mine() if mine else None

        def give_up() -> None:
            if _taken(turn):
                reason = f"none of its {self._size} connections came free within {PATIENCE:g} seconds"
                answer.errback(Failure(unavailable(f"The database of {service} is busy: {reason}.", "no")))

        def finish(success: bool, result: Any) -> None:
            if not answer.called:
                (answer.callback if success else answer.errback)(result)

        def stop_waiting(result: Any) -> Any:
            if patience.active():
                patience.cancel()
            return result

        patience = self._reactor.callLater(PATIENCE, give_up)
        threads.callInThreadWithCallback(partial(self._reactor.callFromThread, finish), call)
        return answer.addBoth(stop_waiting)

    def __repr__(self) -> str:
        return f"<PostgreSQLStore at {self._url!r}>"


def parse(where: str, environ: Mapping[str, str]) -> tuple[sqlalchemy.URL, int]:
    """The URL as SQLAlchemy has it, and how many connections a service gets; raises ConfigurationError.

    What `where` leaves out is 127.0.0.1, the standard port, and the database and user of `PGDATABASE` and `PGUSER`, or
    "postgres". Its query may have `pool` and what libpq knows: `sslmode=require`.

    >>> parse("postgresql://hotel@db/hotel?pool=4", {})
    (postgresql+psycopg://hotel@db/hotel, 4)
    >>> parse("postgresql", {"PGUSER": "hotel"})
    (postgresql+psycopg://hotel@127.0.0.1/postgres, 8)
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


def _taken(turn: list[Callable[[], Any]]) -> Callable[[], Any] | None:
    try:
        return turn.pop()
    except IndexError:
        return None


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"[adapters] store: {what}. Expected postgresql, or a URL like postgresql://hotel@db:5432/hotel?pool={POOL}."
    )


def _engine(url: sqlalchemy.URL, schema: str, **settings: Any) -> sqlalchemy.Engine:
    """Its connections see the tables of the schema alone."""
    given = url.query.get("options", "")
    options = f'-c statement_timeout={STATEMENT_TIMEOUT} {given} -c search_path="{schema}"'
    limits = {name: value for name, value in LIMITS.items() if name not in url.query}
    return sqlalchemy.create_engine(url, connect_args={**limits, "options": options}, **settings)


def _make(url: sqlalchemy.URL, schema: str, known: list[sqlalchemy.MetaData]) -> None:
    # Not SERIALIZABLE, which would look for the tables as they were before it waited for whoever makes them now.
    engine = _engine(url, schema, isolation_level="READ COMMITTED", poolclass=NullPool)
    there = sqlalchemy.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
    with engine.begin() as connection:
        # One at a time in the whole server: what two make at once fails for one of them, IF NOT EXISTS or not.
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext('ropewalk'))"))
        # Asked first: who may not create schemas is refused even where there is nothing to create.
        if connection.execute(there, {"schema": schema}).first() is None:
            connection.execute(sqlalchemy.schema.CreateSchema(schema))
        for each in known:
            each.create_all(connection)


def _alone(known: list[sqlalchemy.MetaData], connection: sqlalchemy.Connection) -> None:
    """Nobody else writes the service's tables until this transaction ends; who reads, reads on.

    It must come before the first SELECT: what a SERIALIZABLE transaction sees is settled there, and LOCK is none.
    https://www.postgresql.org/docs/current/sql-lock.html
    """
    quoted = connection.dialect.identifier_preparer.format_table
    names = ", ".join(quoted(each.tables[name]) for each in known for name in sorted(each.tables))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")


def _refuse_what_failed(connection: sqlalchemy.Connection) -> None:
    # The server answers such a COMMIT with ROLLBACK, and the driver says nothing of it.
    driver: Any = connection.connection.dbapi_connection
    if driver.info.transaction_status == TransactionStatus.INERROR:
        raise RuntimeError(
            "A statement failed and the function of Database.run went on: PostgreSQL commits nothing of such a "
            "transaction. Let the error out of the function, or look before you write."
        )
