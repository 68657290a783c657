"""The disks: each service's database on a host of its own, which its instances share over the network.

A database is a real SQLite file with real tables, and a run of a transaction is the real one. Simulated are the way
there and back, the time it takes, and what may go wrong: the host is down, the answer is lost after the commit, the
transaction is aborted and runs again. Transactions are serial, as SQLite's are. A crash loses what was not committed.
"""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy import event
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import Unavailable
from ..interfaces import IStore
from ..memory.store import open_sqlite
from ..store import Database, Transaction
from ..store.database import closed
from ..store.records import Refused, name_of
from ..store.tables import left
from .hosts import Host, Reactor
from .moments import Stopped

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 5.0  # seconds an instance waits for its database, as the drivers do
TAKES = (0.0002, 0.002)  # seconds of a transaction
WRITING = ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH")  # how a statement begins that may write
OURS = re.compile(r"INSERT INTO (ropewalk_[a-z_]+) ")  # the one way in which the framework writes by text
ABORTED = 0.02  # the share of transactions that meet a conflict, and run again


class DatabaseHost:
    """What a database host serves: one file, one transaction after the other."""

    def __init__(self, service: str, host: Host, folder: Path, world: Any) -> None:
        self.service = service
        self.host = host
        self._path = folder / f"{service}.sqlite3"
        self._world = world
        self._database: Database | None = None
        self._connection: Any = None  # of sqlite3; another one after a crash
        self._parents: list[Database | None] = []
        self.takes = TAKES  # seconds of a transaction, uniformly between
        self._clients: list[SimulatedDatabase] = []
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False
        self._running: tuple[Reactor, str, int] | None = None  # the instance, the function, statements so far
        self._tables: set[str] = set()  # that what runs has written to
        host.up = True

    def open(self, tables: sqlalchemy.MetaData | None) -> Database:
        """The database itself; missing `tables` are made."""
        if self._database is None:
            # No power fails here but by our own hand, and that leaves what was committed.
            self._database = open_sqlite(
                self.service, self._path, None, _never, partial(self._world.wall, self.host), synchronous="OFF"
            )
            self._database.listen(self._committed)
            engine = self._database._engine
            event.listen(engine, "connect", self._connected)
            event.listen(engine, "close", self._disconnected)
            event.listen(engine, "invalidate", self._disconnected)
            event.listen(engine, "before_cursor_execute", self._before_statement)
            event.listen(engine, "after_cursor_execute", self._after_statement)
            engine.dispose()  # the connection that made the tables: the next one is heard of
        if tables is not None:
            tables.create_all(self._database._engine)
        return self._database

    def crash(self) -> None:
        """What waits is lost, and so is what was not committed."""
        self._waiting.clear()
        self._busy = False
        if self._database is not None:
            self._database._engine.dispose()
            self._database = self._connection = None

    def reopen(self) -> None:
        """The file as it is on the disk."""
        self.open(None)

    def move(self, folder: Path) -> None:
        """Go on with a copy of the file in `folder`: in a fork of the process that has opened it."""
        self._parents.append(self._database)  # not even closed: that would be done to the parent's file
        self._database = None
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):  # its index SQLite makes anew
            if path.exists():
                shutil.copyfile(path, folder / path.name)
        self._path = folder / self._path.name  # and opened when it is first used

    def serve(self, client: SimulatedDatabase) -> None:
        """A process uses it from now on."""
        self._clients.append(client)

    def submit(self, transaction: Callable[[], None]) -> None:
        """Run `transaction` when its turn comes."""
        self._waiting.append(transaction)
        self._next()

    def _next(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        low, high = self.takes
        transaction = self._waiting.popleft()
        self.host.timeline.call_at(
            self.host.timeline.now + low + (high - low) * self.host.random.random(),
            self.host.reactor,
            self._run,
            (transaction,),
        )

    def _run(self, transaction: Callable[[], None]) -> None:
        try:
            transaction()
        finally:
            self._busy = False
            self._next()

    def transact(self, client: SimulatedDatabase, name: str, function: Callable[..., R], args: Any, kwargs: Any) -> R:
        """The transaction of a client, now, which is called `name`; raises what it raises."""
        instance = client.reactor
        database = self.open(None)
        again = self.host.random.random() < ABORTED
        before, self._world.current = self._world.current, instance
        try:
            if again:
                self._running = (instance, name, 0)
                with database._begin(database._engine) as connection:
                    function(Transaction(connection, client), *args, **kwargs)
                    connection.rollback()
                self._world.fired("transaction run again")
            self._running = (instance, name, 0)
            self._tables.clear()
            result = database._transact(function, args, kwargs, client)
            if self._tables:
                self._world.changed(self.service, self._tables)
        finally:
            self._running = None
            self._world.current = before
        return result

    def _committed(self, wrote: frozenset[str]) -> None:
        """Tell every process that uses it, over the network."""
        for client in list(self._clients):
            if not client.reactor.alive:
                self._clients.remove(client)
                continue
            self.host.network.send(self.host, client.reactor.host, partial(client.told, wrote))

    def _connected(self, connection: Any, _record: Any) -> None:
        self._connection = connection

    def _disconnected(self, *_: Any) -> None:
        self._connection = None

    def _before_statement(self, *_: Any) -> None:
        if self._running is not None:
            instance, name, count = self._running
            self._running = instance, name, count + 1
            self._moment(instance, f"before:{name}/{count + 1}")

    def _after_statement(
        self, _connection: Any, _cursor: Any, text: str, _parameters: Any, execution: Any, _: Any
    ) -> None:
        if self._running is not None:
            self._tables |= _written_by(text, execution)
            instance, name, count = self._running
            self._moment(instance, f"after:{name}/{count}")

    def _moment(self, instance: Reactor, name: str) -> None:
        try:
            self._world.moments.now(instance, name)
        except Stopped:
            # Here and now: what is thrown away with a cursor still open keeps its locks until the collector comes.
            self._connection.execute("ROLLBACK")
            raise


def _written_by(text: str, execution: Any) -> set[str]:
    """The table that a statement writes to, if it writes; "" where a service gave it as text, which need not say."""
    statement = execution.compiled.statement if execution.compiled is not None else None
    if isinstance(statement, sqlalchemy.UpdateBase):
        return {str(getattr(statement.table, "name", ""))}
    if not text.lstrip()[:7].upper().startswith(WRITING):
        return set()
    ours = OURS.match(text)
    return {ours[1] if ours is not None else ""}


class SimulatedDatabase(Database):
    """A service's database as one of its instances has it."""

    def __init__(self, reactor: Reactor, server: DatabaseHost, world: Any, check: Callable[[], None]) -> None:
        """`check` raises when it may not be used any more."""
        self.name = server.service
        self.reactor = reactor
        self._server = server
        self._world = world
        self._check = check
        self.now = partial(world.wall, reactor.host)
        self._heard = []
        server.serve(self)

    async def _run(self, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """As Database; in virtual time."""
        self._check()
        name = effect_of(function)
        await self._world.moments.reach(self.reactor, f"before:{name}")
        answer: Deferred[Any] = Deferred(lambda _: None)  # who cancels it hears nothing more; the transaction goes on
        patience = self.reactor.callLater(PATIENCE, self._give_up, answer)
        context = copy_context()
        self._send(partial(context.run, self._server.transact, self, name, function, args, kwargs), name, answer)
        try:
            result = await answer
        finally:
            if patience.active():
                patience.cancel()
        await self._world.moments.reach(self.reactor, f"after:{name}")
        return result

    def _send(self, transact: Callable[[], Any], name: str, answer: Deferred[Any]) -> None:
        client, server = self.reactor.host, self._server.host

        def arrived() -> None:
            if not server.powered:
                return
            if not server.up:
                down = Unavailable(f"The database of {self.name} cannot be reached.")
                down.ran = "no"
                network.send(server, client, lambda: self.reactor.answer(answer, Failure(down)))
                return
            self._server.submit(transaction)

        def transaction() -> None:
            if not self.reactor.alive:
                return  # its connection broke before it came to commit
            self._world.moments.now(self.reactor, f"before:{name}/commit")
            if not self.reactor.alive:
                return
            try:
                outcome: Any = transact()
            except Stopped:
                return
            except Exception as error:
                outcome = Failure()
                meant = error.error if isinstance(error, Refused) else error
                self._world.tell(client, "rollback", f"{name}: {type(meant).__name__}", server.name)
            else:
                self._world.tell(client, "commit", name, server.name)
            self._world.moments.now(self.reactor, f"after:{name}/commit")
            network.send(server, client, lambda: self.reactor.answer(answer, outcome))

        network = client.network
        network.send(client, server, arrived)

    def in_turn(self, connection: sqlalchemy.Connection, keys: Sequence[str]) -> None:
        """Transactions are serial here."""

    def told(self, wrote: frozenset[str]) -> None:
        """Somebody has committed what others want to know of."""
        if self.reactor.alive:
            self.committed(wrote)

    def _give_up(self, answer: Deferred[Any]) -> None:
        if not answer.called:
            answer.errback(Failure(Unavailable(f"The database of {self.name} does not answer.")))

    def __repr__(self) -> str:
        return f"<Database of {self.name} for {self.reactor.host.name}>"


class LookingDatabase(Database):
    """A service's database for looking: at once, whatever is down."""

    def __init__(self, server: DatabaseHost) -> None:
        self.name = server.service
        self._server = server

    async def run(self, function: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As Database, and under no key; takes no time."""
        return self.peek(function, *args, **kwargs)

    apart = run  # so that DeadLetters and the like can be used with it

    def peek(self, function: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same without waiting, for invariants."""
        return self._server.open(None)._transact(function, args, kwargs)


@implementer(IStore)
class SimulatedStore:
    """Opens, for one instance, the databases on their hosts."""

    def __init__(self, reactor: Reactor, world: Any) -> None:
        self._reactor = reactor
        self._world = world
        self._closed = False

    def open(self, service: str, tables: sqlalchemy.MetaData | None, revisions: Path | None = None) -> Database:
        """The database of `service`."""
        self.check()
        server = self._world.database_host(service)
        if not server.host.up:
            raise Unavailable(f"The database of {service} cannot be reached.")
        opened = server.open(tables)
        database = SimulatedDatabase(self._reactor, server, self._world, self.check)
        with opened._engine.begin() as connection:
            database.left = left(connection)
        return database

    def changing(self, service: str) -> AbstractContextManager[sqlalchemy.Connection]:
        """At once, as it is on the disk."""
        return self._world.database_host(service).open(None)._engine.begin()  # type: ignore[no-any-return]

    def close(self) -> None:
        """The last use."""
        self._closed = True

    def check(self) -> None:
        """Raise Unavailable when it was closed."""
        if self._closed:
            raise closed()


def effect_of(function: Any) -> str:
    """The name of a function in moments and stories: "take"."""
    return name_of(function).strip("_<>") or "run"


async def _never(_: Any) -> Any:
    raise AssertionError("A simulated database is reached over its host.")
