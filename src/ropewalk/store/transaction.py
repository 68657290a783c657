"""One transaction, as the function given to `Database.run` has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy

from ..context import current_context
from ..event import Event, Message
from ..message import caller

if TYPE_CHECKING:
    from .database import Database

REMEMBERED = 16  # statements of a transaction

Last = Callable[["Transaction", list[Any]], object]


class Transaction:
    """What a function given to `Database.run` may do. Valid until that function returns."""

    def __init__(self, connection: sqlalchemy.Connection, database: Database) -> None:
        self._connection = connection
        self._database = database
        self.begun = False  # whether the database has answered a statement of it
        self.executed: list[sqlalchemy.Executable] = []  # the first REMEMBERED
        self._turns: set[str] = set()  # keys whose turn is to be taken
        self._last: dict[Last, list[Any]] = {}  # what is written at the end
        self.wrote: set[str] = set()  # what is to be told of once this has committed: "events", "sagas"

    def execute(
        self,
        statement: sqlalchemy.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sqlalchemy.CursorResult[Any]:
        """Execute a SQLAlchemy Core statement now; blocks this thread, never the reactor's."""
        if self._turns:
            _take_turns([self])
        if len(self.executed) < REMEMBERED:
            self.executed.append(statement)
        result = self._connection.execute(statement, parameters)
        self.begun = True
        return result

    def publish(self, event: Event, *, key: str | None = None) -> None:
        """Publish `event` if and only if this transaction commits.

        Events of one `key` are delivered in the order of their commits; without one in no order. What is executed after
        this is executed in that order, too: a number drawn there goes up with it.
        """
        from .outbox import publish

        if not isinstance(event, Event):
            raise TypeError(f"publish: expected an Event, got {type(event).__name__}.")
        database, context, trace = self._database, current_context(), current_context().trace
        message = Message(
            f"{database.random.getrandbits(128):032x}",
            event.topic,
            event.version,
            key or "",
            database.name,
            database.now(),
            msgspec.Raw(msgspec.json.encode(event)),
            trace.traceparent if trace is not None else "",
            trace.state if trace is not None else "",
            context.request_id,
            context.tenant,
            caller().subject or "",
        )
        publish(self, message)
        self.wrote.add("events")

    def start(self, saga: Callable[..., Any], *args: Any, id: str | None = None, **kwargs: Any) -> str:
        """Start a saga, `tx.start(self.book, order, id="booking-17")`, if and only if this transaction commits; its id.

        Nothing happens when a saga of that id was started with these arguments before. Raises KeyReused when it was
        another one, or with others. Without an id it gets one of 32 hex digits.
        """
        from .started import start

        return start(self, saga, args, kwargs, id)

    @property
    def database(self) -> Database:
        """Whose transaction it is."""
        return self._database

    def in_turn(self, key: str) -> None:
        """From the next statement on until this transaction ends, others that come here with this key wait."""
        self._turns.add(key)

    def at_last(self, function: Last, item: Any) -> None:
        """Have `function(tx, items)` write `item` just before the COMMIT, with those of all that share it."""
        self._last.setdefault(function, []).append(item)


def write_last(transactions: Sequence[Transaction]) -> None:
    """What is left to be written by those, which share one: one function after the other, in the same order always."""
    _take_turns(transactions)
    last: dict[Last, list[Any]] = {}
    for tx in transactions:
        for function, items in tx._last.items():
            last.setdefault(function, []).extend(items)
    for function in sorted(last, key=_name):  # who waits for a row of another's never holds one that that waits for
        function(transactions[0], last[function])


def _take_turns(transactions: Sequence[Transaction]) -> None:
    if keys := sorted(set().union(*(tx._turns for tx in transactions))):  # sorted: two never hold what the other wants
        for tx in transactions:
            tx._turns.clear()
        transactions[0]._database.in_turn(transactions[0]._connection, keys)


def _name(function: Last) -> str:
    return f"{function.__module__}.{function.__qualname__}"
