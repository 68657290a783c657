"""`Database.run(function, *args)`: a plain function in one transaction, off the reactor's thread.

What a provider must bring is small: a SQLAlchemy engine and a way to call a function in a thread that may block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy.exc import OperationalError

from ..errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

ATTEMPTS = 5  # of one transaction; a conflict that outlives four repeats is load, and the caller should hear of it


def closed() -> Unavailable:
    """What a run is told after its store was closed."""
    error = Unavailable("The databases of this process are closed.")
    error.ran = "no"
    return error


class Transaction:
    """What a function given to `Database.run` may do. Valid until that function returns."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def execute(
        self,
        statement: sqlalchemy.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sqlalchemy.CursorResult[Any]:
        """Execute a SQLAlchemy Core statement now; blocks this thread, never the reactor's."""
        return self._connection.execute(statement, parameters)


class Database:
    """One service's database."""

    def __init__(
        self, name: str, engine: sqlalchemy.Engine, in_thread: InThread, is_conflict: Callable[[Exception], bool]
    ) -> None:
        """`in_thread(f)` calls f where it may block; `is_conflict(error)`: the transaction may be run again."""
        self.name = name
        self._engine = engine
        self._in_thread = in_thread
        self._is_conflict = is_conflict

    async def run(self, function: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function(tx, *args, **kwargs)` returns, committed; what it raises, rolled back.

        `function` is a plain def; it may run again after a conflict, so it does nothing but `tx`. Raises Unavailable
        when the database cannot be reached or the conflict does not end.
        """
        result: R = await self._in_thread(lambda: self._transact(function, args, kwargs))
        return result

    def _transact(self, function: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._engine.begin() as connection:
                    return function(Transaction(connection), *args, **kwargs)
            except OperationalError as error:
                if not self._is_conflict(error):
                    raise Unavailable(f"The database of {self.name} cannot be used: {error.orig}") from error
                if attempt == ATTEMPTS:
                    raise Unavailable(f"The database of {self.name} is contended; {ATTEMPTS} tries failed.") from error
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        return f"<Database of {self.name} at {self._engine.url!r}>"
