"""Picks an instance for each call and asks the connection to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..errors import Unavailable
from ..handler import Handler
from ..message import Request, Response


class Resolve:
    """The Handler of a sibling that lives elsewhere: its instances in turn, a connection kept for each address.

    `instances()` gives the current addresses; `connect(address)` the Handler that asks one.
    """

    def __init__(self, service: str, instances: Callable[[], Sequence[str]], connect: Callable[[str], Handler]) -> None:
        self._service = service
        self._instances = instances
        self._connect = connect
        self._connections: dict[str, Handler] = {}
        self._turn = 0

    def __call__(self, request: Request) -> Awaitable[Response]:
        addresses = self._instances()
        if not addresses:
            nobody = Unavailable(f"No instance of {self._service} is known.")
            nobody.ran = "no"
            raise nobody
        address = addresses[self._turn % len(addresses)]
        self._turn += 1
        connection = self._connections.get(address)
        if connection is None:
            self._connections = {a: c for a, c in self._connections.items() if a in addresses}
            connection = self._connections[address] = self._connect(address)
        return connection(request)
