"""A sibling over HTTP: a Request becomes an HTTP request, the reply a Response or the sibling's own error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..buggify import buggify
from ..codec.binding import Parts
from ..codec.problem import from_problem
from ..codec.routes import PLACEHOLDER
from ..errors import Unavailable
from ..message import Request, Response
from ..operation import Operation
from ..telemetry.propagation import RAN, inject

# Seconds an idle connection is kept: below the server's 60, so that it is not reused while the other side closes it.
IDLE = 50
MAX_REPLY = 64 << 20  # bytes of one that is no stream: what a caller holds in memory for a callee that went mad
PER_INSTANCE = 64  # idle connections kept to one instance; Agent's own 2 would open anew under any load


def connections(reactor: Any) -> HTTPConnectionPool:
    """The connections sibling calls go over: kept, and given up before the server gives them up."""
    pool = _Connections(reactor)
    pool.maxPersistentPerHost = PER_INSTANCE
    pool.cachedConnectionTimeout = IDLE  # seconds
    pool.retryAutomatically = False  # one hop retries, and it is the retry filter
    return pool


def agent(reactor: Any, pool: HTTPConnectionPool | None = None) -> IAgent:
    """The Agent that goes over `pool`, by default over connections of its own."""
    return cast(IAgent, Agent(reactor, pool=pool or connections(reactor), connectTimeout=5))


class _Connections(HTTPConnectionPool):
    def _putConnection(self, key: Any, connection: Any) -> None:
        # One whose reader has left is being closed, even when the rest of its reply was there already, which ends it
        # well. Twisted would keep it, and the next call in this turn would be lost with it.
        if not connection.transport.disconnecting:
            super()._putConnection(key, connection)


class HTTPConnection:
    """A Handler that asks one address."""

    def __init__(
        self,
        agent: IAgent,
        base: str,
        callee: str,
        major: int,
        seconds: Callable[[], float],
        identity: Callable[[Request], str] | None = None,
    ) -> None:
        """`base` is "http://host:port"; `identity` makes the token that says who calls."""
        self._agent = agent
        self._base = base.rstrip("/")
        self._callee = callee
        self._major = major
        self._seconds = seconds
        self._identity = identity

    async def __call__(self, request: Request) -> Response:
        operation = cast(Operation, request.operation)
        parts = operation.binding.encode(cast(Mapping[str, Any], request.payload))
        headers = Headers()
        for name, value in inject(request.context, self._seconds()):
            headers.addRawHeader(name, value)
        if self._identity is not None:
            headers.addRawHeader("ropewalk-identity", self._identity(request))
        if parts.content_type:
            headers.addRawHeader("content-type", parts.content_type)
        if buggify("http client: a connection is used once"):
            headers.addRawHeader("connection", "close")
        body = _Bytes(parts.body) if parts.content_type else None
        uri = (self._base + self._path(operation, parts)).encode("ascii")
        reply = await self._ask((operation.method or "POST").encode(), uri, headers, body)
        return await self._read(reply, operation)

    async def _ask(self, method: bytes, uri: bytes, headers: Headers, body: IBodyProducer | None) -> IResponse:
        came: list[IResponse] = []

        def remember(reply: IResponse) -> IResponse:
            came.append(reply)
            return reply

        try:
            reply: IResponse = await self._agent.request(method, uri, headers, body).addCallback(remember)
            return reply
        except asyncio.CancelledError:
            for reply in came:  # in the very turn: nobody else would ever read it, or close its connection
                _Body.of(reply).abandon()
            raise
        except Exception as error:
            raise self._unreachable(error) from error

    def _path(self, operation: Operation, parts: Parts) -> str:
        if operation.route is None:
            path = f"/-/{operation.service}/{self._major}/{operation.name}"
        else:
            path = _fill(operation.route, parts.path)
        return path + ("?" + urlencode(list(parts.query)) if parts.query else "")

    async def _read(self, reply: IResponse, operation: Operation) -> Response:
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, values in reply.headers.getAllRawHeaders()
            for value in values
        ]
        pieces = self._pieces(reply)
        if operation.streams and reply.code < 300:
            return operation.received(reply.code, headers, pieces)
        data = bytearray()
        async with aclosing(pieces):
            async for piece in pieces:
                data += piece
                if len(data) > MAX_REPLY:
                    raise Unavailable(f"{operation.id} was answered with more than {MAX_REPLY} bytes.")
        if reply.code >= 400:
            raise from_problem(reply.code, bytes(data), operation.raises, ran=dict(headers).get(RAN), headers=headers)
        if reply.code >= 300 and not operation.raw:
            raise Unavailable(f"{operation.id} was answered with a redirect, {reply.code}.")
        return operation.received(reply.code, headers, bytes(data))

    async def _pieces(self, reply: IResponse) -> AsyncGenerator[bytes, None]:
        body = _Body.of(reply)
        try:
            async for piece in body:
                yield piece
        except Exception as error:
            raise self._unreachable(error) from error
        finally:
            body.abandon()

    def _unreachable(self, error: Exception) -> Unavailable:
        never_sent = isinstance(error, (ConnectError, DNSLookupError))
        reasons = [reason.getErrorMessage() for reason in getattr(error, "reasons", ())] or [str(error)]
        unavailable = Unavailable(
            f"{self._callee} at {self._base} {'cannot be reached' if never_sent else 'broke off'}: {'; '.join(reasons)}"
        )
        unavailable.fault = "network"
        unavailable.ran = "no" if never_sent else "maybe"
        return unavailable


def _fill(route: str, path: Mapping[str, Any]) -> str:
    """The route with its placeholders filled, quoted as Werkzeug's converters do."""

    def value(match: Any) -> str:
        return quote(
            str(path[match["name"]]), safe="/!$&'()*+,:;=@" if match["converter"] == "path" else "!$&'()*+,:;=@"
        )

    return PLACEHOLDER.sub(value, route)


@implementer(IBodyProducer)
class _Bytes:
    """A body that is written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Nothing is left to hold back."""

    def resumeProducing(self) -> None:
        """Nothing was held back."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


class _Body(Protocol):
    """A reply's body as an async iterator of pieces; the connection is paused while nobody asks for more."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._waiting: Deferred[None] | None = None
        self._ended: Failure | None = None

    @classmethod
    def of(cls, reply: IResponse) -> _Body:
        body = cls()
        reply.deliverBody(body)
        return body

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        if len(self._pieces) > 16 and self._waiting is None:
            cast(Any, self.transport).pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        while True:
            if self._pieces:
                pieces, self._pieces = self._pieces, []
                if self._ended is None:
                    cast(Any, self.transport).resumeProducing()
                yield b"".join(pieces)
            elif self._ended is not None:
                if self._ended.check(ResponseDone, PotentialDataLoss) is None:
                    self._ended.raiseException()
                return
            else:
                self._waiting = Deferred()
                await self._waiting

    def abandon(self) -> None:
        """Nobody wants the rest: close the connection, unless all has come."""
        if self._ended is None and self.transport is not None:
            cast(Any, self.transport).loseConnection()


__all__ = ["HTTPConnection", "agent"]
