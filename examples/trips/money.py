"""Takes money, and gives it back. Whoever has less than a trip costs is refused."""

from __future__ import annotations

import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Conflict, Database, Service, Transaction, operation, post

LIMIT = 100  # nobody has more

metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("trip", sa.String(40), nullable=False),
    sa.Column("amount", sa.Integer, nullable=False),  # what was given back is negative
)


class TooDear(Conflict):
    """Raised when somebody cannot pay so much."""


class Charge(Struct, frozen=True):
    """What was taken."""

    trip: str
    amount: int


class Money(Service):
    """Takes money."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/charges", status=201, idempotent=True, raises=(TooDear,))
    async def charge(self, trip: str, amount: int) -> Charge:
        """Take the money for a trip."""
        return await self._database.run(self._charge, trip, amount)

    @operation(idempotent=True)
    async def refund(self, charge: Charge) -> None:
        """Give it back."""
        await self._database.run(self._refund, charge)

    def _charge(self, tx: Transaction, trip: str, amount: int) -> Charge:
        if amount > LIMIT:
            raise TooDear(f"{amount} is more than {LIMIT}.")
        tx.execute(entries.insert().values(trip=trip, amount=amount))
        return Charge(trip, amount)

    def _refund(self, tx: Transaction, charge: Charge) -> None:
        tx.execute(entries.insert().values(trip=charge.trip, amount=-charge.amount))
