"""Keys and their records: what makes a run of `Database.run` under a key have its effect once.

The record of a run commits with its effect: whose key it was, for which request, the how manieth run of it, of which
function, and what it returned or which declared error it raised. A repetition finds the record, and gets what it holds.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from ..codec.problem import from_problem, to_problem
from ..context import Keyed
from ..errors import KeyCancelled, KeyReused, RopewalkError
from .tables import records
from .transaction import Transaction

TAKEN_BACK = 0  # the number of the run in whose place it stands that there must be none
BATCH = 500  # records that are deleted in one transaction, so that nobody waits for long

# Built once: building one costs more than executing it.
_mine = sa.and_(records.c.run == sa.bindparam("run"), records.c.function == sa.bindparam("function"))
FIND = (
    sa.select(records.c.run, records.c.arguments, records.c.status, records.c.ran, records.c.result)
    .where(records.c.scope == sa.bindparam("scope"), sa.or_(_mine, records.c.run == TAKEN_BACK))
    .order_by(records.c.run)
)
WRITE = records.insert().returning(records.c.run)  # many in one statement


class Outcome(Struct, frozen=True):
    """What a run came to, as its record has it."""

    status: int
    ran: str
    result: bytes


class Recorded:
    """A function of `Database.run`, to be called under a key: its own effect, or what the record holds.

    Called in the transaction, it returns an Outcome. It raises Refused for a declared error, whose effect must not
    commit; `refusal`, called in a transaction after that, commits its record.
    """

    def __init__(self, function: Callable[..., Any], keyed: Keyed, run: int, now: float) -> None:
        """`now`: wall-clock seconds. Raises TypeError when the annotations of `function` cannot be read."""
        self.func = function
        self._decode = decoder_of(function)  # before there is any effect
        self._keyed = keyed
        self._run = run
        self._now = int(now)
        self._name = name_of(function)[:200]

    def __call__(self, tx: Transaction, *args: Any, **kwargs: Any) -> Outcome:
        known = self._known(tx)
        if known is not None:
            return known
        try:
            value = self.func(tx, *args, **kwargs)
        except self._keyed.errors as error:
            if isinstance(error, RopewalkError) and is_definite(error):
                raise Refused(error) from error
            raise
        return self._write(tx, Outcome(0, "", self._encoded(value)))

    def refusal(self, tx: Transaction, error: RopewalkError) -> Outcome:
        """The record of an error, written now, unless somebody was faster."""
        problem = msgspec.json.encode(to_problem(error), enc_hook=str)
        return self._known(tx) or self._write(tx, Outcome(error.status, error.ran, problem))

    def value(self, outcome: Outcome) -> Any:
        """What the caller gets: returned, or raised."""
        if not outcome.status:
            return self._decode(outcome.result)
        declared = [each for each in self._keyed.errors if issubclass(each, RopewalkError)]
        raise from_problem(outcome.status, outcome.result, declared, ran=outcome.ran)

    def _known(self, tx: Transaction) -> Outcome | None:
        which = {"scope": self._keyed.scope, "run": self._run, "function": self._name}
        rows = tx.execute(FIND, which).all()
        if not rows:
            return None
        found = rows[0]
        if found.run == TAKEN_BACK:
            raise KeyCancelled(f"{self._keyed.operation}: the request with this key was taken back before it ran.")
        if found.arguments != self._keyed.arguments:
            raise KeyReused(self._keyed.reused)
        return Outcome(found.status, found.ran, bytes(found.result))

    def _write(self, tx: Transaction, outcome: Outcome) -> Outcome:
        keyed = self._keyed
        row = {
            "scope": keyed.scope,
            "run": self._run,
            "function": self._name,
            "arguments": keyed.arguments,
            "operation": keyed.operation,
            "key": keyed.key,
            "status": outcome.status,
            "ran": outcome.ran,
            "result": outcome.result,
            "at": self._now,
        }
        tx.at_last(write_all, row)
        return outcome

    def _encoded(self, value: Any) -> bytes:
        if isinstance(value, sa.Result):
            value = None
        try:
            encoded = msgspec.json.encode(value)
            self._decode(encoded)  # now, while it can still be rolled back
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{self._name}: under an idempotency key, what a function of Database.run returns is kept, so it must "
                f"be a value that JSON can hold, of the type it is annotated with; got {type(value).__name__}: {error}."
            ) from error
        return encoded


def write_all(tx: Transaction, rows: list[Mapping[str, Any]]) -> None:
    """Write records; raises Overtaken when there is one already."""
    try:
        tx.execute(WRITE, rows)
    except sa.exc.IntegrityError as error:
        raise Overtaken from error


class Overtaken(Exception):
    """Raised when another instance has written the record since this transaction looked: it is to run again."""


class Refused(Exception):
    """Raised out of a transaction whose function has raised a declared error: nothing of it is to commit."""

    def __init__(self, error: RopewalkError) -> None:
        super().__init__(str(error))
        self.error = error


def is_definite(error: RopewalkError) -> bool:
    """Whether the same request would be answered with it again: a refusal is, a failure or a lack of time is not."""
    return error.status < 500 and not error.retryable


def take_back(tx: Transaction, keyed: Keyed, now: int) -> bool:
    """Write down that nothing may run under a key; False when something has."""
    rows = tx.execute(sa.select(records.c.run).where(records.c.scope == keyed.scope).order_by(records.c.run)).all()
    if rows:
        return bool(rows[0].run == TAKEN_BACK)
    tx.execute(
        records.insert().values(
            scope=keyed.scope,
            run=TAKEN_BACK,
            function="",
            arguments=keyed.arguments,
            operation=keyed.operation,
            key=keyed.key,
            status=KeyCancelled.status,
            ran="no",
            result=b"",
            at=now,
        )
    )
    return True


def purge(tx: Transaction, before: int) -> int:
    """Delete a batch of the records written before `before`, seconds since 1970; how many those were."""
    each = (records.c.scope, records.c.run, records.c.function)
    old = sa.select(*each).where(records.c.at < before).order_by(records.c.at).limit(BATCH)
    found = tx.execute(old).all()
    for row in found:
        tx.execute(records.delete().where(*(column == value for column, value in zip(each, row, strict=True))))
    return len(found)


def name_of(function: Any) -> str:
    """What a function of `Database.run` is called: "take"; of a partial, what it calls."""
    if isinstance(getattr(function, "__self__", None), Recorded):
        function = function.__self__
    while hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def decoder_of(function: Any) -> Callable[[bytes], Any]:
    """What decodes its results: by its return annotation, and as plain JSON without one."""
    while isinstance(function, (partial, Recorded)):
        function = function.func
    return _decoder(getattr(function, "__func__", function))


@lru_cache(maxsize=1024)
def _decoder(function: Any) -> Callable[[bytes], Any]:
    hints: Mapping[str, Any]
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise TypeError(
            f"{name_of(function)}: its annotations name what cannot be found ({error}); under an idempotency key what "
            "it returns is decoded by them."
        ) from error
    returns = hints.get("return", Any)
    if isinstance(returns, type) and issubclass(returns, sa.Result):
        returns = Any
    return msgspec.json.Decoder(returns).decode
