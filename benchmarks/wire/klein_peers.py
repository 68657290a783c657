"""A Klein application, on three servers. Klein checks no body."""

from __future__ import annotations

import json
from typing import Any


def on_uvloop(port: int, _: int) -> None:
    """`engine.Site` on uvloop's own transports."""
    from ropewalk.engine import Site, install

    install()
    from twisted.internet import reactor

    running: Any = reactor
    loop = running._asyncioEventloop
    serving = loop.create_server(Site(application().resource()).asyncio_protocol, "127.0.0.1", port)
    running.callWhenRunning(loop.create_task, serving)
    running.run()


def on_engine(port: int, _: int) -> None:
    """`engine.Site` on Twisted's transports and uvloop's reactor."""
    from ropewalk.engine import Site, install

    install()
    listen(Site(application().resource()), port)


def on_twisted(port: int, _: int) -> None:
    """`twisted.web`, as Klein comes."""
    from twisted.web.server import Site

    listen(Site(application().resource()), port)


def listen(site: Any, port: int) -> None:
    """Until killed."""
    from twisted.internet import reactor

    running: Any = reactor
    running.listenTCP(port, site, interface="127.0.0.1")
    running.run()


def application() -> Any:
    """The routes. Klein is imported late: it brings the reactor."""
    from klein import Klein

    app = Klein()

    @app.route("/rooms/<int:number>")
    async def read(request: Any, number: int) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        return json.dumps({"number": number}).encode()

    @app.route("/bookings", methods=["POST"])
    async def book(request: Any) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(json.loads(request.content.read())).encode()

    return app
