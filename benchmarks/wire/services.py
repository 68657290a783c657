"""Ropewalk's own: what `twistd ropewalk` runs."""

from ropewalk import Service, get, post

from .work import Booking


class Rooms(Service, name="rooms"):
    """Is asked by wrk. To its callers the ceiling is what answers in its place."""

    @get("/rooms/<int:number>")
    async def read(self, number: int) -> dict[str, int]:
        """One room."""
        return {"number": number}

    @post("/bookings")
    async def book(self, booking: Booking) -> Booking:
        """What was sent."""
        return booking


class Gateway(Service, name="gateway"):
    """Asks its sibling for each."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    @get("/rooms/<int:number>")
    async def read(self, number: int) -> dict[str, int]:
        """What the sibling says."""
        return await self.rooms.read(number)
