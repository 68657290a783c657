"""What the catalogue asks of the reservations, as a contract: each of the two calls the other."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from msgspec import Meta, Struct

from ropewalk import Contract, operation

from .words import HotelId, KindName, Nights, StayNotPossible

HotelIds = Annotated[tuple[HotelId, ...], Meta(max_length=200)]


class Taken(Struct, frozen=True):
    """Rooms of one kind that are taken in the fullest of some nights."""

    hotel_id: HotelId
    kind: KindName
    rooms: int


class Occupancy(Contract, name="reservations", version="1.0.0"):
    """How full hotels are."""

    # Without a route: for siblings alone, and two hundred numbers are too much for an address.
    @operation(idempotent=True, cancellable=True, raises=(StayNotPossible,))
    async def taken(self, hotel_ids: HotelIds, arrival: date, nights: Nights) -> list[Taken]: ...
