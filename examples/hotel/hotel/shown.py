"""How values are written for guests: the filters of the templates. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from .catalogue import Amenity, City, Hotel, Sort, folded
from .rooms import State
from .words import written

AMENITIES: dict[Amenity, str] = {
    "accessible": "Step-free access",
    "air-conditioning": "Air conditioning",
    "airport-shuttle": "Airport shuttle",
    "bar": "Bar",
    "breakfast": "Breakfast",
    "ev-charging": "Car charging",
    "garden": "Garden",
    "gym": "Gym",
    "parking": "Parking",
    "pets": "Pets welcome",
    "pool": "Pool",
    "restaurant": "Restaurant",
    "spa": "Spa",
    "wifi": "Wi-Fi",
}
SORTS: dict[Sort, str] = {
    "recommended": "Liked best",
    "price": "Lowest price",
    "price-down": "Highest price",
    "stars": "Most stars",
    "name": "By name",
}
# A word, how it looks, and what stands above a booking's page.
_STATES: dict[State, tuple[str, str, str]] = {
    "held": ("Held", "warn", "A room is held for you"),
    "pending": ("Being paid", "warn", "Your payment is on its way"),
    "confirmed": ("Booked", "good", "Your room is booked"),
    "released": ("Given back", "", "This room was given back"),
    "expired": ("Lapsed", "", "This room was held for too long"),
    "declined": ("Declined", "bad", "The card was declined"),
    "voiding": ("Not booked", "bad", "This was not booked"),
    "voided": ("Not booked", "bad", "This was not booked"),
    "cancelled": ("Cancelled", "", "This booking is cancelled"),
}
_SYMBOLS = {"EUR": "€", "GBP": "£", "USD": "$"}


def money(amount: int, currency: str) -> str:
    """An amount of minor units.

    >>> money(123450, "EUR"), money(12000, "SEK")
    ('€1,234.50', 'SEK\\xa0120.00')
    """
    text = written(amount, currency).replace(" ", "\N{NO-BREAK SPACE}")
    symbol = _SYMBOLS.get(currency)
    return text if symbol is None else symbol + text.partition("\N{NO-BREAK SPACE}")[2]


def day(value: date) -> str:
    """A day, with that of the week.

    >>> day(date(2026, 5, 1))
    'Fri 1 May 2026'
    """
    return f"{value:%a} {value.day} {value:%b %Y}"


def moment(value: datetime) -> str:
    """A time.

    >>> moment(datetime(2026, 5, 1, 9, 30))
    '1 May 2026, 09:30 UTC'
    """
    return f"{value.day} {value:%b %Y, %H:%M} UTC"


def counted(number: int, word: str) -> str:
    """So many of something.

    >>> counted(1, "night"), counted(2, "night")
    ('1 night', '2 nights')
    """
    return f"{number} {word}{'' if number == 1 else 's'}"


def letters(city: str) -> str:
    """The flags that stand for a city: its first three letters.

    >>> letters("Kraków")
    'kra'
    """
    return "".join(c for c in folded(city) if c.isascii() and c.isalpha())[:3]


def position(hotel: Hotel) -> str:
    """Where a hotel lies on the globe, as a chart says it: "52.37° N, 4.89° E"."""
    north, east = "NS"[hotel.latitude < 0], "EW"[hotel.longitude < 0]
    return f"{abs(hotel.latitude):.2f}° {north}, {abs(hotel.longitude):.2f}° {east}"


def numbers(word: str, most: int) -> list[tuple[str, str]]:
    """The options of a list: 1 to `most` of something."""
    return [(str(n), counted(n, word)) for n in range(1, most + 1)]


def pair(city: City) -> tuple[str, str]:
    """The option of a city."""
    return city.name, f"{city.name}, {city.country}"


FILTERS: dict[str, Callable[..., Any]] = {
    "money": money,
    "day": day,
    "moment": moment,
    "counted": counted,
    "letters": letters,
    "position": position,
    "pair": pair,
    "amenity": AMENITIES.__getitem__,
    "state": _STATES.__getitem__,
}
GLOBALS: dict[str, Any] = {"numbers": numbers, "amenities": list(AMENITIES), "sorts": list(SORTS.items())}
