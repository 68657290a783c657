"""Holds rooms: one for each trip."""

from __future__ import annotations

import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Conflict, Database, Service, Transaction, operation, post

metadata = sa.MetaData()
holds = sa.Table(
    "holds", metadata, sa.Column("trip", sa.String(40), primary_key=True), sa.Column("state", sa.String(10))
)


class Hold(Struct, frozen=True):
    """A room that is kept."""

    trip: str


class NoRoom(Conflict):
    """Raised when a trip has its room already, or had one."""


class Rooms(Service):
    """Holds rooms."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/holds", status=201, idempotent=True, raises=(NoRoom,))
    async def hold(self, trip: str) -> Hold:
        """Keep a room for a trip."""
        return await self._database.run(self._hold, trip)

    @operation(idempotent=True)
    async def release(self, hold: Hold) -> None:
        """Give it back."""
        await self._database.run(self._release, hold)

    def _hold(self, tx: Transaction, trip: str) -> Hold:
        if tx.execute(sa.select(holds.c.state).where(holds.c.trip == trip)).first() is not None:
            raise NoRoom(f"{trip} has, or had, a room.")
        tx.execute(holds.insert().values(trip=trip, state="held"))
        return Hold(trip)

    def _release(self, tx: Transaction, hold: Hold) -> None:
        tx.execute(holds.update().where(holds.c.trip == hold.trip).values(state="released"))
