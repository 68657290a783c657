"""The bank, somebody else's: takes money from cards, and gives it back. Whoever has less than it costs is refused."""

from __future__ import annotations

import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Conflict, Database, Service, Transaction, post

LIMIT = 100  # nobody has more

metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("order", sa.Integer, nullable=False),
    sa.Column("amount", sa.Integer, nullable=False),  # what was given back is negative
)


class Declined(Conflict):
    """Raised when somebody cannot pay so much."""


class Charge(Struct, frozen=True):
    """What was taken."""

    order: int
    amount: int


class Bank(Service):
    """Takes money."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/charges", status=201, idempotent=True, raises=(Declined,))
    async def charge(self, order: int, amount: int) -> Charge:
        """Take the money for an order."""
        return await self._database.run(self._charge, order, amount)

    @post("/refunds", idempotent=True)
    async def refund(self, charge: Charge) -> None:
        """Give it back."""
        await self._database.run(self._enter, charge.order, -charge.amount)

    def _charge(self, tx: Transaction, order: int, amount: int) -> Charge:
        if amount > LIMIT:
            raise Declined(f"{amount} is more than {LIMIT}.")
        self._enter(tx, order, amount)
        return Charge(order, amount)

    def _enter(self, tx: Transaction, order: int, amount: int) -> None:
        tx.execute(entries.insert().values(order=order, amount=amount))
