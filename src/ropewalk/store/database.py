"""`Database.run(function, *args)`: a plain function in one transaction, off the reactor's thread.

What a provider must bring is small: a SQLAlchemy engine and a way to call a function in a thread that may block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from ..context import Keyed, current_key
from ..errors import Ran, Unavailable
from . import records
from .records import Overtaken, Recorded, Refused
from .transaction import Transaction

P = ParamSpec("P")
R = TypeVar("R")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

ATTEMPTS = 5  # of one transaction; a conflict that outlives four repeats is load, and the caller should hear of it
TOGETHER = 2  # of them are made beside others; the rest alone, where the provider can see to it


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

    def __init__(
        self,
        name: str,
        engine: sqlalchemy.Engine,
        in_thread: InThread,
        is_conflict: Callable[[Exception], bool],
        now: Callable[[], float],
        alone: Callable[[sqlalchemy.Connection], None] = lambda _: None,
    ) -> None:
        """`in_thread(f)` calls f where it may block; `is_conflict(error)`: the transaction may be run again.

        `now`: wall-clock seconds, by which records grow old. `alone(connection)` begins a transaction that has met
        conflicts before: it keeps the others from writing, so that the conflict ends.
        """
        self.name = name
        self._engine = engine
        self._in_thread = in_thread
        self._is_conflict = is_conflict
        self._now = now
        self._alone = alone

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
            recorded = Recorded(function, keyed, number, self._now())
            try:
                outcome = await self._run(recorded, args, kwargs)
            except Refused as refused:
                outcome = await self._run(recorded.refusal, (refused.error,), {})
        value: R = recorded.value(outcome)
        return value

    async def purge(self, age: float) -> int:
        """Delete records older than `age` seconds, in batches; how many those were."""
        deleted, before = 0, int(self._now() - age)
        while True:
            batch: int = await self._run(records.purge, (before,), {})
            deleted += batch
            if batch < records.BATCH:
                return deleted

    async def _run(self, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """One transaction."""
        return await self._in_thread(lambda: self._transact(function, args, kwargs))

    def _transact(self, function: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        for attempt in range(1, ATTEMPTS + 1):
            ran: Ran = "no"
            try:
                with self._engine.begin() as connection:
                    if attempt > TOGETHER:
                        self._alone(connection)
                    value = function(Transaction(connection), *args, **kwargs)
                    ran = "maybe"  # from here on: COMMIT is sent, and its answer may be lost
                return value
            except (OperationalError, NoConnection, Overtaken) as error:
                if not isinstance(error, Overtaken) and not self._is_conflict(error):
                    reason = getattr(error, "orig", error)
                    raise unavailable(f"The database of {self.name} cannot be used: {reason}", ran) from error
                if attempt == ATTEMPTS:
                    reason = f"The database of {self.name} is contended; {ATTEMPTS} tries failed."
                    raise unavailable(reason, "no") from error
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        return f"<Database of {self.name} at {self._engine.url!r}>"


@contextmanager
def _counted(keyed: Keyed) -> Iterator[int]:
    """Which run of its request this is; one at a time, or a repetition would count otherwise."""
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
