"""What is known of hotels, and the search among them. Values and pure functions: no I/O, no clock."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ropewalk import NotFound

from .words import Currency, Guests, HotelId, KindName, Line, Money, Nights, Page

Amenity = Literal[
    "accessible",
    "air-conditioning",
    "airport-shuttle",
    "bar",
    "breakfast",
    "ev-charging",
    "garden",
    "gym",
    "parking",
    "pets",
    "pool",
    "restaurant",
    "spa",
    "wifi",
]
Sort = Literal["recommended", "price", "price-down", "stars", "name"]
Stars = Annotated[int, Meta(ge=1, le=5)]

MOST_IN_A_CITY = 200  # so that one statement tells how full all of a city's hotels are


class RoomKind(Struct, frozen=True):
    """One kind of room in one hotel."""

    kind: KindName  # "double": what a stay names
    name: Line  # "Double room": for people
    sleeps: Guests
    count: int  # rooms of this kind in the house
    price: Money  # of a night


class Hotel(Struct, frozen=True):
    """One hotel."""

    id: HotelId
    name: Line
    city: Line
    country: Line
    district: Line
    latitude: float  # degrees, WGS 84
    longitude: float
    stars: Stars
    score: float  # what guests gave it, 1.0 to 10.0
    description: str
    amenities: tuple[Amenity, ...]
    room_kinds: tuple[RoomKind, ...]  # cheapest first
    currency: Currency  # of every price here

    def room_kind(self, kind: str) -> RoomKind:
        """The room kind of that name; raises NotFound."""
        for each in self.room_kinds:
            if each.kind == kind:
                return each
        there = ", ".join(each.kind for each in self.room_kinds)
        raise NotFound(f"{self.name} has no room of the kind {kind!r}; it has: {there}.")

    def suiting(self, guests: int, max_price: int | None = None) -> list[RoomKind]:
        """The room kinds that sleep so many guests for no more than that a night, the cheapest first."""
        return [k for k in self.room_kinds if k.sleeps >= guests and (max_price is None or k.price <= max_price)]


class City(Struct, frozen=True):
    """A city with hotels."""

    name: Line
    country: Line
    latitude: float  # degrees, of its centre
    longitude: float
    hotels: int  # how many


class Search(Struct, frozen=True, kw_only=True):
    """What somebody looks for. Usable as a query (`Annotated[Search, Query]`): each field is a parameter."""

    city: Line
    arrival: date
    nights: Nights = 1
    guests: Guests = 2
    max_price: Money | None = None  # of a night
    stars: Stars | None = None  # at least
    amenities: tuple[Amenity, ...] = ()  # all of them
    sort: Sort = "recommended"
    page: Page = 1
    per_page: Annotated[int, Meta(ge=1, le=50)] = 10


class Offer(Struct, frozen=True):
    """One hotel that suits a search, with the cheapest kind of room that does."""

    hotel: Hotel
    room: RoomKind
    total: Money  # for all nights
    left: int | None  # rooms of that kind left for every night; None when that cannot be told now


class Offers(Struct, frozen=True):
    """One page of what a search found."""

    offers: tuple[Offer, ...]
    total: int  # hotels found, on all pages
    page: int
    pages: int  # at least 1
    nights: Nights


class Catalogue:
    """Every city and hotel, found by number and by city."""

    def __init__(self, cities: Iterable[City], hotels: Iterable[Hotel]) -> None:
        """Raises ValueError when two hotels have one number or a city has more than 200 hotels."""
        self.cities = sorted(cities, key=lambda city: folded(city.name))
        self._by_id = {hotel.id: hotel for hotel in hotels}
        self._by_city: dict[str, list[Hotel]] = {}
        for hotel in hotels:
            self._by_city.setdefault(folded(hotel.city), []).append(hotel)
        count = Counter(hotel.id for hotel in hotels)
        doubled = sorted(number for number, times in count.items() if times > 1)
        if doubled:
            raise ValueError(f"Each hotel needs a number of its own; these stand twice: {doubled}.")
        for name, within in self._by_city.items():
            if len(within) > MOST_IN_A_CITY:
                raise ValueError(f"A city has at most {MOST_IN_A_CITY} hotels; {name} has {len(within)}.")

    @classmethod
    def of_json(cls, text: bytes) -> Catalogue:
        """What `data/hotels.json` says; raises msgspec.ValidationError naming the place that is wrong."""
        data = msgspec.json.decode(text, type=_Data)
        return cls(data.cities, data.hotels)

    def hotel(self, number: int) -> Hotel:
        """The hotel of that number; raises NotFound."""
        hotel = self._by_id.get(number)
        if hotel is None:
            raise NotFound(f"There is no hotel {number}.")
        return hotel

    def matching(self, search: Search) -> list[Hotel]:
        """The city's hotels with these stars and amenities and a room that suits, whether it is free or not."""
        wanted = set(search.amenities)
        return [
            hotel
            for hotel in self._by_city.get(folded(search.city), ())
            if (search.stars is None or hotel.stars >= search.stars)
            and wanted.issubset(hotel.amenities)
            and hotel.suiting(search.guests, search.max_price)
        ]


class _Data(Struct):
    cities: list[City]
    hotels: list[Hotel]


def offers(hotels: Iterable[Hotel], search: Search, taken: Mapping[tuple[int, str], int] | None) -> Offers:
    """The page of `hotels` that `search` asks for, without those that are sold out.

    `taken`: the rooms taken by (hotel, kind) in the fullest night; None when nobody can tell: then nothing is left out.
    """
    found = [offer for hotel in hotels if (offer := _offer(hotel, search, taken)) is not None]
    found.sort(key=_ORDERS[search.sort])
    first = (search.page - 1) * search.per_page
    return Offers(
        tuple(found[first : first + search.per_page]),
        len(found),
        search.page,
        max(1, -(-len(found) // search.per_page)),
        search.nights,
    )


def _offer(hotel: Hotel, search: Search, taken: Mapping[tuple[int, str], int] | None) -> Offer | None:
    for room in hotel.suiting(search.guests, search.max_price):
        left = None if taken is None else max(0, room.count - taken.get((hotel.id, room.kind), 0))
        if left != 0:
            return Offer(hotel, room, room.price * search.nights, left)
    return None


# Each ends with the number, so that no two searches differ in the order of equals.
_ORDERS: dict[Sort, Callable[[Offer], Any]] = {
    "recommended": lambda offer: (-offer.hotel.score, offer.room.price, offer.hotel.id),
    "price": lambda offer: (offer.room.price, offer.hotel.id),
    "price-down": lambda offer: (-offer.room.price, offer.hotel.id),
    "stars": lambda offer: (-offer.hotel.stars, offer.room.price, offer.hotel.id),
    "name": lambda offer: (folded(offer.hotel.name), offer.hotel.id),
}


def folded(text: str) -> str:
    """`text` without case and accents: "Kraków" is found as "krakow".

    >>> folded("Kraków")
    'krakow'
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.casefold().strip()
