"""Stays: one service as Ropewalk has it. `ropewalk up with_ropewalk:Stays` (its sibling: `rates.py`)."""

# -- imports
from datetime import date
from typing import Annotated

from msgspec import Meta, Struct

from ropewalk import Conflict, Contract, NotFound, Service, Unavailable, get, post


# -- the sibling that is called
class Rates(Contract, name="rates"):
    @get("/rates/<int:room>")
    async def price(self, room: int, nights: int) -> int: ...


# -- types
class Stay(Struct):
    room: Annotated[int, Meta(ge=1)]
    arrival: date
    nights: Annotated[int, Meta(ge=1, le=30)]


class Booked(Struct):
    id: int
    stay: Stay
    price: int


# -- an error of its own
class Taken(Conflict):
    """Raised when the room is booked for that day."""


# -- the service and what it needs
class Stays(Service, name="stays", version="1.0.0"):
    """Books stays."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.booked: list[Booked] = []

    # -- write, calling the sibling
    @post("/stays", status=201, access="public", raises=(Taken, Unavailable))
    async def book(self, stay: Stay) -> Booked:
        """Book a stay."""
        if any(b.stay.room == stay.room and b.stay.arrival == stay.arrival for b in self.booked):
            raise Taken(f"Room {stay.room} is taken on {stay.arrival}.")
        price = await self.rates.price(stay.room, stay.nights)
        self.booked.append(Booked(len(self.booked) + 1, stay, price))
        return self.booked[-1]

    # -- read
    @get("/stays/<int:id>", access="public", raises=(NotFound,))
    async def read(self, id: int) -> Booked:
        """Read one stay."""
        if not 1 <= id <= len(self.booked):
            raise NotFound(f"There is no stay {id}.")
        return self.booked[id - 1]

    # -- search
    @get("/stays", access="public")
    async def search(self, room: int | None = None, limit: Annotated[int, Meta(ge=1, le=100)] = 10) -> list[Booked]:
        """List stays."""
        return [b for b in self.booked if room in (None, b.stay.room)][:limit]
