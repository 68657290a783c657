"""The catalogue: which hotels there are, and which of them suit a stay.

The search reads a copy of which rooms are taken, which follows what the reservations say: it asks nobody, is answered
while they are away, and may be a moment behind them. Whether a room is left is settled where it is booked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from twisted.logger import Logger

from ropewalk import Database, NotFound, Query, Response, RopewalkError, Service, Settings, Transaction, get, subscribe

from .catalogue import Catalogue, City, Hotel, Offers, RoomKind, Search, offers
from .occupancy import RoomsChanged, fullest
from .photo import draw
from .words import Guests, HotelId, StayNotPossible, nights_of

_log = Logger("hotel.hotels")


metadata = sa.MetaData()
taken = sa.Table(
    "taken",
    metadata,
    sa.Column("reservation_id", sa.Uuid, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("hotel_id", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Index("taken_of_a_hotel", "hotel_id", "night"),
)
_FREE = taken.delete().where(taken.c.reservation_id == sa.bindparam("id"))  # built once: that costs the most


class HotelsSettings(Settings):
    """`[settings.hotels]`."""

    data: Path = Path(__file__).parent.parent / "data" / "hotels.json"


class Hotels(Service, name="hotels", version="1.0.0"):
    """Knows every hotel and finds those that suit a stay."""

    tables = metadata

    def __init__(self, settings: HotelsSettings, database: Database) -> None:
        self._catalogue = Catalogue.of_json(settings.data.read_bytes())
        self._database = database

    @subscribe(RoomsChanged)
    async def follow(self, event: RoomsChanged) -> None:
        """Keep the copy as the reservations are."""
        await self._database.run(_follow, event)

    @get("/hotels", access="public", raises=(StayNotPossible,))
    async def search(self, search: Annotated[Search, Query]) -> Offers:
        """Find the hotels of a city that suit a stay, a page at a time.

        A hotel is found when one of its room kinds sleeps the guests, costs no more than `max_price` a night and is
        not sold out for these nights; the cheapest such kind is the offer. A city nobody knows has no hotels.
        """
        nights_of(search.arrival, search.nights)
        hotels = self._catalogue.matching(search)
        return offers(hotels, search, await self._taken(hotels, search) if hotels else {})

    @get("/cities", access="public")
    async def cities(self) -> list[City]:
        """List the cities that have hotels, by name."""
        return self._catalogue.cities

    @get("/hotels/<int:hotel_id>", access="public", raises=(NotFound,))
    async def read(self, hotel_id: HotelId) -> Hotel:
        """Read one hotel, with its room kinds and prices."""
        return self._catalogue.hotel(hotel_id)

    @get("/hotels/<int:hotel_id>/room-kinds", access="public", raises=(NotFound,))
    async def room_kinds(self, hotel_id: HotelId, guests: Guests = 1) -> list[RoomKind]:
        """List the room kinds of a hotel that sleep so many guests, the cheapest first."""
        return self._catalogue.hotel(hotel_id).suiting(guests)

    @get("/hotels/<int:hotel_id>/photo.svg", access="public", raises=(NotFound,))
    async def photo(self, hotel_id: HotelId) -> Response:
        """Draw the hotel: an SVG image, always the same for the same hotel."""
        hotel = self._catalogue.hotel(hotel_id)
        headers = [("content-type", "image/svg+xml"), ("cache-control", "public, max-age=86400")]
        return Response(draw(hotel.id, hotel.stars, hotel.name), headers=headers)

    async def _taken(self, hotels: list[Hotel], search: Search) -> dict[tuple[int, str], int] | None:
        """The rooms taken by (hotel, kind); None when that cannot be told now: a search is worth showing without."""
        ids = tuple(hotel.id for hotel in hotels)
        try:
            found = await self._database.run(fullest, taken, ids, search.arrival, search.nights)
        except RopewalkError as error:
            _log.warn("occupancy.unknown city={city} error={error!r}", city=search.city, error=error)
            return None
        return {(each.hotel_id, each.kind): each.rooms for each in found}


def _follow(tx: Transaction, event: RoomsChanged) -> None:
    if not event.taken:
        tx.execute(_FREE, {"id": event.reservation_id})
        return
    stay = event.stay
    tx.execute(
        taken.insert(),
        [
            {"reservation_id": event.reservation_id, "night": night, "hotel_id": stay.hotel_id, "kind": stay.kind}
            for night in nights_of(stay.arrival, stay.nights)
        ],
    )
