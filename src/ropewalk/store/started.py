"""Sagas as they are started: a row in whichever transaction wants one; who runs it is told after the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from ..context import Context, current_context, digest
from ..durable import Saga
from ..errors import KeyReused
from ..message import Principal, caller
from ..service import describe
from .tables import sagas
from .transaction import Transaction

if TYPE_CHECKING:
    from .database import Database

LONGEST_ID = 255  # characters


class Carried(Struct, frozen=True):
    """What of its starter's context a saga goes on with."""

    traceparent: str = ""
    tracestate: str = ""
    request_id: str = ""
    tenant: str = ""
    service: str | None = None
    subject: str | None = None
    scopes: tuple[str, ...] = ()
    parent: str = ""  # the saga of which it is a step


def saga_of(method: Callable[..., Any]) -> Saga:
    """The Saga that a bound method like `self.book` is declared as; raises TypeError for what is none."""
    saga = saga_named(method)
    if saga is None:
        raise TypeError(f"Expected a method of this service that is declared with @saga, got {method!r}.")
    return saga


def saga_named(method: Callable[..., Any]) -> Saga | None:
    """The same; None for what is none."""
    service, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    declared = getattr(type(service), "__ropewalk_description__", None)
    return describe(type(service)).sagas.get(name) if declared is not None else None  # type: ignore[arg-type]


def start(
    tx: Transaction, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], id: str | None
) -> str:
    """As `Transaction.start`."""
    new = started(tx.database, method, args, kwargs, id)
    add(tx, new)
    return new.id


class Started(Struct, frozen=True):
    """A saga, or a job, that somebody starts: its row."""

    id: str
    saga: str
    arguments: bytes
    context: bytes


def started(
    database: Database,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    id: str | None,
) -> Started:
    """By whoever starts it now; without an id it gets one."""
    saga = saga_of(method)
    if id is None:
        id = f"{database.random.getrandbits(128):032x}"
    return named(saga.id, saga.encode(args, kwargs), id)


def named(saga: str, arguments: bytes, id: str, parent: str = "") -> Started:
    """The same by its name; raises ValueError for an id that is none. `parent`: the id of the saga it is a step of."""
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise ValueError(f"id: expected a text of 1 to {LONGEST_ID} characters, got {id!r}.")
    return Started(id, saga, arguments, msgspec.json.encode(_carried(current_context(), caller(), parent)))


def add(tx: Transaction, new: Started) -> None:
    """Write its row, unless it is there; raises KeyReused for another one under the same id."""
    for refused in add_all(tx, [new]):
        if refused is not None:
            raise refused


def add_all(tx: Transaction, new: Sequence[Started]) -> list[KeyReused | None]:
    """The same for each of them."""
    rows = tx.execute(_KNOWN, {"ids": [each.id for each in new]})
    there = {row.id: (row.saga, bytes(row.arguments)) for row in rows}
    now = int(tx.database.now())
    fresh = []
    for each in new:
        if each.id not in there:
            there[each.id] = (each.saga, each.arguments)
            fresh.append({**_FRESH, **msgspec.structs.asdict(each), "at": now})
    if fresh:
        tx.execute(_INSERT, fresh)
        tx.wrote.add("sagas")
    return [
        None
        if there[each.id] == (each.saga, each.arguments)
        else KeyReused(
            f"A saga {each.id!r} was started before as {there[each.id][0]}, or with other arguments; use another id."
        )
        for each in new
    ]


_KNOWN = sa.select(sagas.c.id, sagas.c.saga, sagas.c.arguments).where(
    sagas.c.id.in_(sa.bindparam("ids", expanding=True))
)
_INSERT = sagas.insert()
_FRESH = {"state": "running", "owner": "", "epoch": 0, "waits": "", "cancel": False, "result": b"", "error": ""}


def _carried(context: Context, principal: Principal, parent: str) -> Carried:
    trace = context.trace
    return Carried(
        trace.traceparent if trace is not None else "",
        trace.state if trace is not None else "",
        context.request_id,
        context.tenant,
        principal.service,
        principal.subject,
        tuple(sorted(principal.scopes)),
        parent,
    )


def nested_id(parent: str, branch: str, step: str, use: int) -> str:
    """The id of the saga that is a step of another: readable while it fits.

    >>> nested_id("trip-7", "", "trips.insure", 1)
    'trip-7/trips.insure'
    """
    apart = f"~{digest(branch, str(use))[:8]}" if branch or use > 1 else ""
    id = f"{parent}/{step}{apart}"
    return id if len(id) <= LONGEST_ID else digest(parent, branch, step, str(use))
