"""Who is compared, on which claim; the order is the tables'.

A peer's `target` is "module:function" of this package. A server's function is called with its port and that of the
ceiling, which a gateway asks; a caller's is called with the latter and the seconds. `needs` are the distributions
without which a peer is left out: requirements.txt beside this folder pins them.

    python -m benchmarks.wire.peers TARGET PORT NUMBER    is one of them, alone
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple


class Peer(NamedTuple):
    """One of those compared."""

    name: str
    about: str
    target: str
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs and is not installed."""
        return tuple(each for each in self.needs if version_of(each) is None)


TWISTD = "twistd"  # a target: the process is `twistd ropewalk`
CEILING = Peer("ceiling", "a canned reply on uvloop and httptools", "raw:serve", ("uvloop", "httptools"))
UVICORN = ("uvicorn", "uvloop", "httptools")

SERVERS = (
    CEILING,
    Peer("ropewalk", "an operation: validation, trace, metrics, deadline, limits, log line", TWISTD),
    Peer("klein-uvloop", "Klein on engine.Site, uvloop's transports", "klein_peers:on_uvloop", ("klein",)),
    Peer("klein-engine", "Klein on engine.Site, Twisted's transports on uvloop", "klein_peers:on_engine", ("klein",)),
    Peer("klein", "Klein on twisted.web, the default reactor", "klein_peers:on_twisted", ("klein",)),
    Peer("fastapi", "FastAPI, pydantic, uvicorn", "asgi_peers:fastapi", ("fastapi", "pydantic", *UVICORN)),
    Peer("falcon", "Falcon (ASGI), uvicorn", "asgi_peers:falcon", ("falcon", *UVICORN)),
    Peer("blacksheep", "BlackSheep, pydantic, uvicorn", "asgi_peers:blacksheep", ("blacksheep", "pydantic", *UVICORN)),
    Peer(
        "blacksheep-granian",
        "BlackSheep, pydantic, Granian",
        "asgi_peers:blacksheep_on_granian",
        ("blacksheep", "pydantic", "granian", "uvloop"),
    ),
    Peer("litestar", "Litestar, msgspec, uvicorn", "asgi_peers:litestar", ("litestar", "msgspec", *UVICORN)),
    Peer("sanic", "Sanic, its own server on uvloop", "server_peers:sanic", ("sanic", "uvloop")),
    Peer("aiohttp", "aiohttp on uvloop", "server_peers:aiohttp", ("aiohttp", "uvloop")),
    Peer("tornado", "Tornado on uvloop", "server_peers:tornado", ("tornado", "uvloop")),
)
CALLERS = (
    Peer("ceiling", "a canned request on uvloop and httptools, JSON read", "raw:call", CEILING.needs),
    Peer("ropewalk", "a sibling's operation: types, trace, metrics, deadline", "callers:sibling"),
    Peer("treq-engine", "treq over engine.Agent", "callers:treq_on_engine", ("treq",)),
    Peer("treq", "treq over Twisted's Agent, the default reactor", "callers:treq_on_twisted", ("treq",)),
    Peer("aiohttp", "aiohttp's client on uvloop", "callers:aiohttp", ("aiohttp", "uvloop")),
    Peer("httpx", "httpx on uvloop", "callers:httpx", ("httpx", "uvloop")),
)
GATEWAYS = (
    Peer("ceiling", "canned bytes both ways on uvloop and httptools", "raw:relay", CEILING.needs),
    Peer("ropewalk", "an operation that calls a sibling", TWISTD),
    Peer("fastapi", "FastAPI and httpx, uvicorn", "asgi_peers:fastapi_gateway", ("fastapi", "httpx", *UVICORN)),
    Peer("aiohttp", "aiohttp and its client, on uvloop", "server_peers:aiohttp_gateway", ("aiohttp", "uvloop")),
)
CLAIMS = {"get": SERVERS, "post": SERVERS, "call": CALLERS, "gateway": GATEWAYS}
TITLES = {
    "get": "GET /rooms/7: a path parameter, a reply in JSON",
    "post": "POST /bookings: a nested body in JSON, a reply in JSON",
    "call": "Calls of GET /rooms/7, asked of the ceiling",
    "gateway": "GET /rooms/7 of a gateway, which asks the ceiling for each",
}


def version_of(distribution: str) -> str | None:
    """The one that is installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Of what they are made of."""
    named = {"ropewalk", "twisted", *(need for peer in peers for need in peer.needs)}
    return {each: version_of(each) or "?" for each in sorted(named)}


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    getattr(import_module(f"benchmarks.wire.{module}"), function)(int(sys.argv[2]), int(sys.argv[3]))
