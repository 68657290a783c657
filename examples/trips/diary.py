"""Writes down the trips of each traveller, in the order in which they were booked."""

from __future__ import annotations

import sqlalchemy as sa
from trips import TripBooked

from ropewalk import Database, RopewalkError, Service, Transaction, get, subscribe

metadata = sa.MetaData()
lines = sa.Table(
    "lines",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("trip", sa.String(40), nullable=False),
    sa.Column("traveller", sa.String(40), nullable=False),
)


BLOT = "blot"  # what the name of such a trip ends with


class Illegible(RopewalkError):
    """Raised for a trip that cannot be written down, however often it is tried."""


class Diary(Service):
    """Writes down who travels."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self._database = database

    @subscribe(TripBooked, attempts=4, raises=(Illegible,))
    async def note(self, event: TripBooked) -> None:
        """Write a trip down."""
        if event.trip.endswith(BLOT):
            raise Illegible(f"{event.trip} cannot be written down.")
        await self._database.run(self._note, event)

    @get("/diaries/<traveller>")
    async def read(self, traveller: str) -> list[str]:
        """A traveller's trips."""
        return await self._database.run(self._read, traveller)

    def _note(self, tx: Transaction, event: TripBooked) -> None:
        tx.execute(lines.insert().values(trip=event.trip, traveller=event.traveller))

    def _read(self, tx: Transaction, traveller: str) -> list[str]:
        rows = tx.execute(sa.select(lines.c.trip).where(lines.c.traveller == traveller).order_by(lines.c.number))
        return [row.trip for row in rows]
