"""Frameworks with a server of their own, each on uvloop and without an access log. None of them checks a body."""

from __future__ import annotations

import asyncio
import json
from typing import Any


def sanic(port: int, _: int) -> None:
    """Sanic, in this one process."""
    from sanic import Request, Sanic
    from sanic.response import HTTPResponse
    from sanic.response import json as json_reply

    app = Sanic("hotel")

    @app.get("/rooms/<number:int>")
    async def read(request: Request, number: int) -> HTTPResponse:
        return json_reply({"number": number})

    @app.post("/bookings")
    async def book(request: Request) -> HTTPResponse:
        return json_reply(request.json)

    app.run(host="127.0.0.1", port=port, single_process=True, access_log=False, motd=False)


def aiohttp(port: int, _: int) -> None:
    """aiohttp's server."""
    from aiohttp import web

    async def read(request: web.Request) -> web.Response:
        return web.json_response({"number": int(request.match_info["number"])})

    async def book(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    app = web.Application()
    app.add_routes([web.get(r"/rooms/{number:\d+}", read), web.post("/bookings", book)])
    run_aiohttp(app, port)


def aiohttp_gateway(port: int, upstream: int) -> None:
    """aiohttp's server with a session of its client, which lives as long as the application."""
    from aiohttp import ClientSession, web

    session = web.AppKey("session", ClientSession)

    async def client(app: web.Application) -> Any:
        async with ClientSession(f"http://127.0.0.1:{upstream}") as app[session]:
            yield

    async def read(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        async with request.app[session].get(f"/rooms/{number}", raise_for_status=True) as reply:
            return web.json_response(await reply.json())

    app = web.Application()
    app.cleanup_ctx.append(client)
    app.add_routes([web.get(r"/rooms/{number:\d+}", read)])
    run_aiohttp(app, port)


def run_aiohttp(app: Any, port: int) -> None:
    """Until killed."""
    import uvloop
    from aiohttp import web

    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


def tornado(port: int, _: int) -> None:
    """Tornado."""
    import uvloop
    from tornado.web import Application, RequestHandler

    class Rooms(RequestHandler):
        async def get(self, number: str) -> None:
            self.write({"number": int(number)})

    class Bookings(RequestHandler):
        async def post(self) -> None:
            self.write(json.loads(self.request.body))

    async def main() -> None:
        app = Application([(r"/rooms/(\d+)", Rooms), (r"/bookings", Bookings)], log_function=lambda handler: None)
        app.listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    uvloop.run(main())
