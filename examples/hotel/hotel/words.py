"""The types that several services share, with what a value of each may be. Money is in whole minor units (cents)."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from ropewalk import Conflict

# No control characters, and no line break at the end, which Python's `$` would let pass.
PRINTABLE = r"^[^\x00-\x1f\x7f]+$(?!\n)"

Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=PRINTABLE)]
# ASCII, so that lower case is as long as what was given; a domain of other letters has a form in ASCII, too (RFC 5891).
Email = Annotated[str, Meta(max_length=254, pattern=r"^[!-?A-~]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$(?!\n)")]
Money = Annotated[int, Meta(ge=0, le=1_000_000_000)]  # minor units: 12900 is 129.00
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]  # ISO 4217
HotelId = Annotated[int, Meta(ge=1, le=2**31 - 1)]
KindName = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z][a-z-]*$(?!\n)")]
Nights = Annotated[int, Meta(ge=1, le=30)]
Guests = Annotated[int, Meta(ge=1, le=8)]
Page = Annotated[int, Meta(ge=1, le=10_000)]

LAST_DAY = date(2999, 12, 31)  # far from the end of the calendar, where adding nights would overflow


class StayNotPossible(Conflict):
    """Raised when nobody can stay like that: the arrival is past or too far away, or the room is too small."""


class SoldOut(Conflict):
    """Raised when no room of the kind is left for every night of the stay."""


class Stay(Struct, frozen=True):
    """Some nights in one room."""

    hotel_id: HotelId
    kind: KindName  # a room kind of that hotel: "double"
    arrival: date
    nights: Nights
    guests: Guests

    @property
    def departure(self) -> date:
        """The morning of leaving; its night is no longer part of the stay."""
        return self.arrival + timedelta(self.nights)


def nights_of(arrival: date, nights: int) -> list[date]:
    """The date of each night, the arrival's first; raises StayNotPossible beyond the year 2999."""
    if arrival > LAST_DAY:
        raise StayNotPossible(f"No night can be booked after {LAST_DAY}; got {arrival}.")
    return [arrival + timedelta(n) for n in range(nights)]


def written(amount: int, currency: str) -> str:
    """An amount of minor units for people; of currencies with two decimals, as all of the catalogue's are.

    >>> written(123450, "EUR")
    'EUR 1,234.50'
    """
    return f"{currency} {amount // 100:,}.{amount % 100:02}"


def new_id(random: Random) -> UUID:
    """A random UUID (version 4) from the generator a service was given."""
    return UUID(int=random.getrandbits(128), version=4)
