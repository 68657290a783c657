"""`Database.run(function, *args)`: a plain function in one transaction, off the reactor's thread.

What a provider must bring is small: a SQLAlchemy engine and a way to call a `Run` in a thread that may block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import cached_property
from random import Random
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from ..context import Keyed, current_key
from ..errors import Ran, Unavailable
from . import records
from .batches import Batch, Batches
from .records import Overtaken, Recorded, Refused
from .transaction import Transaction, write_last

P = ParamSpec("P")
R = TypeVar("R")
InThread = Callable[["Run[Any]"], Awaitable[Any]]

ATTEMPTS = 5  # of one transaction; a conflict that outlives four repeats is load, and the caller should hear of it
TOGETHER = 2  # of them are made beside others; the rest alone, where the provider can see to it
MAY_PASS = (OperationalError, NoConnection, Overtaken)  # what is not of the function's own making


def closed() -> Unavailable:
    """What a run is told after its store was closed."""
    return unavailable("The databases of this process are closed.", "no")


def unavailable(reason: str, ran: Ran) -> Unavailable:
    """The error of a database that cannot be used; `ran`: whether its transaction has."""
    error = Unavailable(reason)
    error.ran = ran
    return error


class Database:
    """One service's database."""

    # Of the process that uses it; the runtime gives them.
    random: Random = cast(Random, None)  # of the ids of events
    member: str = ""  # what this process is called among those that share the database
    shared = True  # whether others may use it beside this process
    left: frozenset[str] = frozenset()  # what an earlier process has left to do: "events", "sagas"

    def __init__(
        self,
        name: str,
        engine: sqlalchemy.Engine,
        in_thread: InThread,
        is_conflict: Callable[[Exception], bool],
        now: Callable[[], float],
        alone: Callable[[sqlalchemy.Connection], None] = lambda _: None,
        in_turn: Callable[[sqlalchemy.Connection, Sequence[str]], None] = lambda _, __: None,
        for_batches: sqlalchemy.Engine | None = None,
        begin: Callable[[sqlalchemy.Engine], AbstractContextManager[sqlalchemy.Connection]] = sqlalchemy.Engine.begin,
    ) -> None:
        """`in_thread(run)` calls `run` where it may block; `is_conflict(error)`: the transaction may be run again.

        `now`: wall-clock seconds, by which records grow old. `alone(connection)` begins a transaction that has met
        conflicts before: it keeps the others from writing, so that the conflict ends. `in_turn(connection, keys)` keeps
        those that come there with one of these keys waiting until its transaction has ended; where transactions are
        serial anyway there is nothing to do. `for_batches`: the engine with what isolation they need, where that is
        another. `begin(engine)`: a transaction, committed at the end, or rolled back when something is raised.
        """
        self.name = name
        self._engine = engine
        self._in_thread = in_thread
        self._is_conflict = is_conflict
        self.now = now
        self._alone = alone
        self._in_turn = in_turn
        self._for_batches = for_batches or engine
        self._begin = begin
        self._heard: list[Callable[[frozenset[str]], object]] = []

    async def run(self, function: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function(tx, *args, **kwargs)` returns, committed; what it raises, rolled back.

        `function` is a plain def; it may run again after a conflict, so it does nothing but `tx`. Raises Unavailable
        when the database cannot be reached or the conflict does not end.

        In an operation that is asked under an idempotency key it has its effect once, however often it is asked: what
        it returned, or which error of the operation's `raises` it raised, is kept with the effect and comes again.
        Then its value is decoded by its return annotation, and TypeError is raised for one that JSON cannot hold;
        RuntimeError for a second run while one is under way, and KeyReused for a key of another request.
        """
        keyed = current_key()
        if keyed is None:
            plain: R = await self._run(function, args, kwargs)
            return plain
        with _counted(keyed) as number:
            recorded = Recorded(function, keyed, number, self.now())
            try:
                outcome = await self._run(recorded, args, kwargs)
            except Refused as refused:
                outcome = await self._run(recorded.refusal, (refused.error,), {})
        value: R = recorded.value(outcome)
        return value

    async def apart(self, function: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `run`, but no part of the request that is answered, and done anew by each repetition of it.

        For reading what is to be as it is now, and for what the framework itself keeps.
        """
        value: R = await self._run(function, args, kwargs)
        return value

    async def batched(self, function: Callable[[Transaction, Sequence[Any]], Sequence[Any]], item: Any) -> Any:
        """What `function(tx, items)` has for `item`, with those of others in one transaction: see batches.py."""
        return await self._batches.add(function, item)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(lambda batch: self._run(batch, (), {}))

    async def take_back(self, keyed: Keyed) -> bool:
        """See to it that nothing is ever run under a key; False when something was."""
        taken: bool = await self._run(records.take_back, (keyed, int(self.now())), {})
        return taken

    async def purge(self, age: float) -> int:
        """Delete records older than `age` seconds, in batches; how many those were."""
        deleted, before = 0, int(self.now() - age)
        while True:
            batch: int = await self._run(records.purge, (before,), {})
            deleted += batch
            if batch < records.BATCH:
                return deleted

    async def _run(self, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """One transaction."""
        return await self._in_thread(Run(self, function, args, kwargs))

    def listen(self, heard: Callable[[frozenset[str]], object]) -> None:
        """Call `heard` with what was written, "events" or "sagas", when a transaction that did has committed.

        In any thread, and perhaps for those of other processes; some may be missed, so whoever listens also looks.
        """
        self._heard.append(heard)

    def in_turn(self, connection: sqlalchemy.Connection, keys: Sequence[str]) -> None:
        """As Transaction."""
        self._in_turn(connection, [f"{self.name}/{key}" for key in keys])

    def committed(self, wrote: frozenset[str]) -> None:
        """Tell who listens."""
        for heard in self._heard:
            heard(wrote)

    def _transact(
        self,
        function: Callable[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        owner: Database | None = None,
    ) -> R:
        """A run, in this thread: tried until it commits, or raises.

        `owner`: whose transaction it is, when another object stands for this database.
        """
        engine = self._for_batches if isinstance(function, Batch) else self._engine
        for attempt in range(1, ATTEMPTS + 1):
            ran: Ran = "no"
            tx = None
            try:
                with self._begin(engine) as connection:
                    if attempt > TOGETHER:
                        self._alone(connection)
                    tx = Transaction(connection, owner or self)
                    value = function(tx, *args, **kwargs)
                    write_last([tx])
                    ran = "maybe"  # from here on: COMMIT is sent, and its answer may be lost
            except MAY_PASS as error:
                # A connection that was lost before this transaction tells so when it is first used.
                lost = ran == "no" and getattr(error, "connection_invalidated", False)
                was_lost = lost and (tx is None or not tx.begun)
                if not isinstance(error, Overtaken) and not self._is_conflict(error) and not was_lost:
                    reason = getattr(error, "orig", error)
                    raise unavailable(f"The database of {self.name} cannot be used: {reason}", ran) from error
                if attempt == ATTEMPTS:
                    reason = f"The database of {self.name} is contended; {ATTEMPTS} tries failed."
                    raise unavailable(reason, "no") from error
            else:
                self._committed(tx)
                return value
        raise AssertionError("unreachable")

    def _committed(self, tx: Transaction) -> None:
        """`tx` has: called once for each that has, in its thread, before anybody is answered."""
        if tx.wrote:
            self.committed(frozenset(tx.wrote))

    def __repr__(self) -> str:
        return f"<Database of {self.name} at {self._engine.url!r}>"


class Run(Generic[R]):
    """One run of a function, as a provider has it: called, it makes transactions of its own until one commits.

    Or it is made within one that others share: `within`, `write_last` with its `tx` among those of the others, and
    `committed` after the COMMIT, all in one thread.
    """

    def __init__(
        self, database: Database, function: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._database = database
        self._function = function
        self._args = args
        self._kwargs = kwargs
        # A batch is made of many already, and where it is made otherwise, in a transaction of its own kind.
        self.shares = not isinstance(function, Batch) or database._for_batches is database._engine
        self._context = copy_context()  # what is logged and published in there belongs to the request

    def __call__(self) -> R:
        """What the function returns; it has committed."""
        return self._context.run(self._database._transact, self._function, self._args, self._kwargs)

    @property
    def name(self) -> str:
        """What its function is called."""
        return records.name_of(self._function)

    def within(self, connection: sqlalchemy.Connection) -> None:
        """Call the function in the transaction of `connection`; what it raises is raised."""
        self.tx = Transaction(connection, self._database)
        self._value = self._context.run(self._function, self.tx, *self._args, **self._kwargs)

    def committed(self) -> R:
        """What it returned there, now that it has committed."""
        self._database._committed(self.tx)
        return self._value


@contextmanager
def _counted(keyed: Keyed) -> Iterator[int]:
    """Which run of its request this is; one at a time, or a repetition would count otherwise."""
    keyed.uses("Database.run")
    if keyed.running:
        raise RuntimeError(
            f"{keyed.operation}: a second Database.run was begun while one is under way. Under an idempotency key they "
            "are told apart by their order: await them one after the other."
        )
    keyed.running = True
    keyed.runs += 1
    try:
        yield keyed.runs
    finally:
        keyed.running = False
