"""Which rooms are taken, night by night: the reservations know it and say so, and the search keeps a copy."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Event, Transaction

from .words import HotelId, KindName, Stay, nights_of


class RoomsChanged(Event, topic="reservations.rooms-changed"):
    """A reservation takes a room for the nights of its stay; or, not `taken` any more, it gives that back."""

    reservation_id: UUID
    stay: Stay
    taken: bool


class Fullest(Struct, frozen=True):
    """Rooms of one kind that are taken in the fullest of some nights."""

    hotel_id: HotelId
    kind: KindName
    rooms: int


def fullest(tx: Transaction, taken: sa.Table, hotel_ids: tuple[int, ...], arrival: date, nights: int) -> list[Fullest]:
    """For each kind of these hotels that has any, by `taken`, a row for each room and night."""
    dates = nights_of(arrival, nights)
    which = {"hotel_ids": hotel_ids, "first": dates[0], "last": dates[-1]}
    return [Fullest(row.hotel_id, row.kind, row.rooms) for row in tx.execute(_fullest(taken), which)]


@cache  # building it costs more than executing it
def _fullest(taken: sa.Table) -> sa.Select[Any]:
    each_night = (
        sa.select(taken.c.hotel_id, taken.c.kind, sa.func.count().label("rooms"))
        .where(
            taken.c.hotel_id.in_(sa.bindparam("hotel_ids", expanding=True)),
            taken.c.night.between(sa.bindparam("first"), sa.bindparam("last")),
        )
        .group_by(taken.c.hotel_id, taken.c.kind, taken.c.night)
        .subquery()
    )
    return (
        sa.select(each_night.c.hotel_id, each_night.c.kind, sa.func.max(each_night.c.rooms).label("rooms"))
        .group_by(each_night.c.hotel_id, each_night.c.kind)
        .order_by(each_night.c.hotel_id, each_night.c.kind)
    )
