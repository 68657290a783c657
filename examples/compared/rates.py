"""The sibling of both: what a room costs."""

from ropewalk import Service, get


class Rates(Service, name="rates"):
    """Knows prices."""

    @get("/rates/<int:room>", access="public")
    async def price(self, room: int, nights: int) -> int:
        """The price of a stay, in cents."""
        return (8000 + room * 100) * nights
