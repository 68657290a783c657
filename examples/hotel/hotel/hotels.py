"""The catalogue: which hotels there are, and which of them suit a stay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from twisted.logger import Logger

from ropewalk import Client, NotFound, Query, Response, RopewalkError, Service, Settings, get

from .catalogue import Catalogue, City, Hotel, Offers, RoomKind, Search, offers
from .occupancy import Occupancy
from .photo import draw
from .words import Guests, HotelId, StayNotPossible, nights_of

_log = Logger("hotel.hotels")


class HotelsSettings(Settings):
    """`[settings.hotels]`."""

    data: Path = Path(__file__).parent.parent / "data" / "hotels.json"


class Hotels(Service, name="hotels", version="1.0.0"):
    """Knows every hotel and finds those that suit a stay."""

    def __init__(
        self,
        settings: HotelsSettings,
        # A search is worth showing without the rooms left, and not worth waiting for them.
        reservations: Annotated[Occupancy, Client(timeout=1.0)],
    ) -> None:
        self._catalogue = Catalogue.of_json(settings.data.read_bytes())
        self._reservations = reservations

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
        """The rooms taken by (hotel, kind); None when the reservations do not answer."""
        try:
            taken = await self._reservations.taken(tuple(h.id for h in hotels), search.arrival, search.nights)
        except RopewalkError as error:
            _log.warn("occupancy.unknown city={city} error={error!r}", city=search.city, error=error)
            return None
        return {(each.hotel_id, each.kind): each.rooms for each in taken}
