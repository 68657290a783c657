"""An ASGI 3 application as a `twisted.web` resource, on any reactor: the `lifespan` and `http` scopes, no WebSocket.

The application is driven as our operations are, so it may await Deferreds, siblings and asyncio alike, anyio included.
A client that goes away is told to it (`http.disconnect`; `send` raises OSError) and cancels nothing.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import Context
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ..driver import Driver, Run
from ..errors import RopewalkError
from .heads import abort, write_problem
from .streams import Flow

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

PIECE = 1 << 16  # bytes of a body handed over at a time
STOP_LIMIT = 10.0  # seconds an application may take to shut down before it is cancelled

_VERSION = {"version": "3.0", "spec_version": "2.4"}
_log = Logger("ropewalk.http")


class ASGIResource(Resource):
    """`application` and all that lies beneath it."""

    isLeaf = True

    def __init__(self, application: Application, driver: Driver) -> None:
        super().__init__()
        self._application = application
        self._driver = driver
        self._lifespan = _Lifespan(application, driver)

    async def start(self) -> None:
        """Let it start up; raises RuntimeError when it says that it cannot. Once, at the first request or before."""
        await self._lifespan.start()

    async def stop(self) -> None:
        """Let it shut down, if it was started and wants to know."""
        await self._lifespan.stop()

    def render(self, request: Any) -> int:
        """Answer when the application does."""
        exchange = _Exchange(request)
        self._driver.start(self._answer(request, exchange), exchange.ended)
        return NOT_DONE_YET

    async def _answer(self, request: Any, exchange: _Exchange) -> None:
        await self._lifespan.start()
        scope = {**_scope(request), "state": dict(self._lifespan.state)}
        await self._application(scope, exchange.receive, exchange.send)


def _scope(request: Any) -> dict[str, Any]:
    raw_path, _, query = request.uri.partition(b"?")
    if not raw_path.startswith(b"/"):  # a proxy's "http://host/path"
        raw_path = b"/" + raw_path.partition(b"://")[2].partition(b"/")[2]
    mounted = b"/".join([b"", *request.prepath]) if any(request.prepath) else b""
    peer, host = request.getClientAddress(), request.getHost()
    return {
        "type": "http",
        "asgi": _VERSION,
        "http_version": request.clientproto.partition(b"/")[2].decode("ascii"),
        "method": request.method.decode("latin-1"),
        "scheme": "https" if request.isSecure() else "http",
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": mounted.decode("utf-8", "replace"),
        "headers": [(name.lower(), value) for name, values in _raw_headers(request) for value in values],
        "client": (peer.host, peer.port) if hasattr(peer, "port") else None,
        "server": (host.host, host.port) if hasattr(host, "port") else None,
    }


def _raw_headers(request: Any) -> Iterable[tuple[bytes, list[bytes]]]:
    headers: Iterable[tuple[bytes, list[bytes]]] = request.requestHeaders.getAllRawHeaders()
    return headers


class _Exchange:
    """One request of the application, and its reply."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._flow = Flow()
        self._gone = False  # the client, or there is nothing more to say to it
        self._waiting: list[Deferred[None]] = []
        self._started = False
        self._complete = False
        self._body_read = False
        request.notifyFinish().addBoth(self._finished)

    def _finished(self, _: Any) -> None:
        self._gone = True
        self._flow.stopProducing()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    # -- what the application is given

    async def receive(self) -> Event:
        """The body piece by piece, then, when that has happened, that the client is gone or has its whole answer."""
        if not self._body_read and not self._gone:
            piece = self._request.content.read(PIECE)
            self._body_read = len(piece) < PIECE
            return {"type": "http.request", "body": piece, "more_body": not self._body_read}
        if not self._gone:
            ended: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(ended)
            await ended
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        """Send the head, or a piece of the body as soon as the client takes it; raises OSError when it is gone."""
        kind = event["type"]
        if kind == "http.response.start" and not self._started:
            self._started = True
            self._head(event)
        elif kind == "http.response.body" and self._started and not self._complete:
            await self._piece(event.get("body", b""), event.get("more_body", False))
        else:
            state = "after the end" if self._complete else "after the head" if self._started else "before the head"
            raise RuntimeError(f"An ASGI application sent {kind!r} {state}.")

    def _head(self, event: Event) -> None:
        request = self._request
        request.setResponseCode(event["status"])
        request.defaultContentType = None  # the application is in control of it
        for name, value in event.get("headers", ()):
            if name.lower() not in (b"date", b"server", b"connection", b"transfer-encoding"):  # ours, and the channel's
                request.responseHeaders.addRawHeader(bytes(name), bytes(value))

    async def _piece(self, body: bytes, more: bool) -> None:
        request = self._request
        if self._gone:
            raise OSError("The client is gone.")
        if more and not request.startedWriting:
            request.registerProducer(self._flow, True)
        if body or not request.startedWriting:
            request.write(bytes(body))
        if more:
            await self._flow.may_write()
            return
        self._complete = True
        self._end()

    def _end(self) -> None:
        if self._request.producer is not None:
            self._request.unregisterProducer()
        self._request.finish()

    # -- the end

    def ended(self, run: Run[None]) -> None:
        """The application has returned: what it left unsaid is a failure of its own."""
        error = asyncio.CancelledError() if run.cancelled() else run.exception()
        if error is not None and not (self._gone and isinstance(error, OSError)):
            _log.failure("an ASGI application failed", Failure(error, type(error), error.__traceback__))
        if self._gone or self._complete:
            return
        if error is None:
            _log.error("an ASGI application returned before its answer was complete")
        if self._request.startedWriting:
            if self._request.producer is not None:
                self._request.unregisterProducer()
            abort(self._request)
            return
        for name, _ in list(self._request.responseHeaders.getAllRawHeaders()):
            self._request.responseHeaders.removeHeader(name)
        self._request.write(write_problem(self._request, RopewalkError()))
        self._end()


class _Lifespan:
    """The application's start and stop: one call of it that lasts as long as it is served."""

    def __init__(self, application: Application, driver: Driver) -> None:
        self.state: dict[str, Any] = {}
        self._application = application
        self._driver = driver
        self._run: Run[None] | None = None
        self._up: asyncio.Future[None] = driver.loop.create_future()
        self._leave: asyncio.Future[None] = driver.loop.create_future()
        self._down: asyncio.Future[None] = driver.loop.create_future()
        self._told = False

    async def start(self) -> None:
        if self._run is None:
            # Outside of whoever asks first: what it starts to run in the background belongs to no request.
            self._run = Context().run(self._driver.start, self._live())
        if not self._up.done() or self._up.exception() is not None:
            await asyncio.shield(self._up)

    async def stop(self) -> None:
        run = self._run
        if run is None or run.done():
            return
        if not self._leave.done():
            self._leave.set_result(None)
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await asyncio.shield(self._down)
        except TimeoutError:
            _log.warn("an ASGI application did not shut down within {limit} seconds", limit=STOP_LIMIT)
            run.cancel()

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": _VERSION, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as error:
            # Not every application knows this scope; the one that does says `lifespan.startup.failed`.
            if self._up.done():
                _log.failure("the lifespan of an ASGI application failed")
            else:
                _log.debug("an ASGI application has no lifespan: {error!r}", error=error)
        finally:
            if not self._up.done():
                self._up.set_result(None)
            self._down.set_result(None)

    async def _receive(self) -> Event:
        if not self._told:
            self._told = True
            return {"type": "lifespan.startup"}
        await asyncio.shield(self._leave)
        return {"type": "lifespan.shutdown"}

    async def _send(self, event: Event) -> None:
        kind = event["type"]
        if kind == "lifespan.startup.complete" and not self._up.done():
            self._up.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._up.done():
            self._up.set_exception(RuntimeError(f"An ASGI application could not start: {event.get('message', '')}"))
        elif kind == "lifespan.shutdown.failed":
            _log.error("an ASGI application could not shut down: {message}", message=event.get("message", ""))
