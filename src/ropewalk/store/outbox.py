"""The outbox: events wait here, in the transaction that published them, until the broker has them.

They are written just before the COMMIT, those of all runs that share it together. The order of one key is the order of
commits: whoever publishes under a key that another open transaction has published under waits for that one's end,
before its next statement and before it is given a position. So no relay ever finds a row that belongs before one it has
passed on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from msgspec import Struct

from ..event import LONGEST_KEY, Message
from .tables import outbox
from .transaction import Transaction

PAGE = 500  # rows that a relay looks at together

# Built once: building one costs more than executing it.
ADD = outbox.insert().returning(outbox.c.position, sort_by_parameter_order=True)  # many in one statement, in order
PENDING = (
    sa.select(outbox.c.position, outbox.c.key, outbox.c.writer, outbox.c.message, outbox.c.at)
    .order_by(outbox.c.position)
    .limit(sa.bindparam("most"))
)
REMOVE = outbox.delete().where(outbox.c.position.in_(sa.bindparam("positions", expanding=True)))


class Pending(Struct, frozen=True):
    """An event that waits to be handed on."""

    position: int
    key: str
    writer: str
    message: bytes
    at: int


def publish(tx: Transaction, message: Message) -> None:
    """Let it go out if this transaction commits; raises ValueError for a key that is too long."""
    if len(message.key) > LONGEST_KEY:
        raise ValueError(f"key: expected {LONGEST_KEY} characters at most, got {len(message.key)}.")
    if message.key:
        tx.in_turn(message.key)
    tx.at_last(add_all, message)


def add_all(tx: Transaction, messages: Sequence[Message]) -> None:
    """Write them, in this order."""
    writer, at = tx.database.member, int(tx.database.now())
    rows = [{"key": each.key, "writer": writer, "message": each.encoded(), "at": at} for each in messages]
    tx.execute(ADD, rows)


def pending(tx: Transaction, limit: int = PAGE) -> list[Pending]:
    """The oldest rows, in order."""
    return [Pending(*tuple(row)) for row in tx.execute(PENDING, {"most": limit})]


def backlog(tx: Transaction) -> tuple[int, int | None]:
    """How many there are, and when the oldest was published, in seconds since 1970."""
    count, at = tuple(tx.execute(sa.select(sa.func.count(), sa.func.min(outbox.c.at))).one())
    return int(count), at


def remove(tx: Transaction, positions: Collection[int]) -> None:
    """The broker has them."""
    tx.execute(REMOVE, {"positions": sorted(positions)})


def publishable(page: Sequence[Pending], me: str, left: Collection[int]) -> list[Pending]:
    """Which of a page of the oldest rows this relay hands on, in order.

    Its own process's, what stands before them under the same key, and what was `left` for a while: its writer is slow,
    or dead. Two relays may hand on the same row; that is a copy, and of two copies in order the first of each
    event are in order, too.
    """
    keys = {row.key for row in page if row.key and (row.writer == me or row.position in left)}
    return [row for row in page if row.writer == me or row.position in left or row.key in keys]
