"""A sibling over HTTP: a Request becomes an HTTP request, the reply a Response or the sibling's own error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError

from ..buggify import buggify
from ..codec.binding import Parts
from ..codec.problem import from_problem
from ..driver import Once
from ..engine.client import Broken, ClientChannel, Head
from ..engine.heads import request_head_of_texts
from ..engine.pool import Origin, Pool
from ..errors import Unavailable
from ..message import Request, Response
from ..operation import Operation
from ..telemetry.propagation import RAN, inject

AHEAD = 16  # pieces of a stream that wait for their reader
MAX_REPLY = 64 << 20  # bytes of one that is no stream: what a caller holds in memory for a callee that went mad


class HTTPConnection:
    """A Handler that asks one address."""

    def __init__(
        self,
        pool: Pool,
        base: str,
        callee: str,
        major: int,
        seconds: Callable[[], float],
        identity: Callable[[Request], str] | None = None,
    ) -> None:
        """`base` is "http://host:port", or with a path; `identity` makes the token that says who calls."""
        self._pool = pool
        self._base = base.rstrip("/")
        self._server, self._prefix, self._host = _where(self._base)
        self._callee = callee
        self._major = major
        self._seconds = seconds
        self._identity = identity

    async def __call__(self, request: Request) -> Response:
        operation = cast(Operation, request.operation)
        parts = operation.binding.encode(cast(Mapping[str, Any], request.payload))
        method = operation.method or "POST"
        headers = [("host", self._host), *inject(request.context, self._seconds())]
        if self._identity is not None:
            headers.append(("ropewalk-identity", self._identity(request)))
        if parts.content_type:
            headers.append(("content-type", parts.content_type))
        if parts.content_type or method in ("POST", "PUT", "PATCH"):
            headers.append(("content-length", str(len(parts.body))))
        if buggify("http client: a connection is used once"):
            headers.append(("connection", "close"))
        asked = request_head_of_texts(method, self._prefix + self._path(operation, parts), headers)
        call = _Call(whole=not operation.streams)
        try:
            channel = await self._channel()
            channel.ask(asked + parts.body, call)
            call.channel = channel
            head = await call.answer
        except asyncio.CancelledError:
            call.abandon()
            raise
        except Exception as error:
            raise self._unreachable(error) from error
        return await self._read(head, call, operation)

    async def _channel(self) -> ClientChannel:
        channel = self._pool.peek(self._server)
        if channel is not None:
            return channel
        came: list[ClientChannel] = []

        def remember(channel: ClientChannel) -> ClientChannel:
            came.append(channel)
            return channel

        try:
            return await self._pool.connect(self._server).addCallback(remember)
        except asyncio.CancelledError:
            for channel in came:  # in the very turn: nobody else would ever use it
                self._pool.give_back(channel)
            raise

    def _path(self, operation: Operation, parts: Parts) -> str:
        if operation.route is None:
            path = f"/-/{operation.service}/{self._major}/{operation.name}"
        else:
            path = operation.binding.fill(parts.path)
        return path + ("?" + urlencode(list(parts.query)) if parts.query else "")

    async def _read(self, head: Head, call: _Call, operation: Operation) -> Response:
        status = head.status
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")) for name, value in head.fields
        ]
        if operation.streams and status < 300:
            return operation.received(status, headers, self._pieces(call))
        data = b"".join(call.pieces) if call.whole else await self._all(call)
        if call.size > MAX_REPLY:
            raise Unavailable(f"{operation.id} was answered with more than {MAX_REPLY} bytes.")
        if status >= 400:
            raise from_problem(status, data, operation.raises, ran=dict(headers).get(RAN), headers=headers)
        if status >= 300 and not operation.raw:
            raise Unavailable(f"{operation.id} was answered with a redirect, {status}.")
        return operation.received(status, headers, data)

    async def _all(self, call: _Call) -> bytes:
        data = bytearray()
        async with aclosing(self._pieces(call)) as pieces:
            async for piece in pieces:
                data += piece
                if call.size > MAX_REPLY:
                    break
        return bytes(data)

    async def _pieces(self, call: _Call) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                pieces, call.pieces = call.pieces, []
                if pieces:
                    call.go_on()
                    yield b"".join(pieces)
                elif not await call.more():
                    return
        except Broken as error:
            raise self._unreachable(error) from error
        finally:
            call.abandon()

    def _unreachable(self, error: Exception) -> Unavailable:
        never_sent = isinstance(error, (ConnectError, DNSLookupError))
        reason = str(error) or type(error).__name__
        unavailable = Unavailable(
            f"{self._callee} at {self._base} {'cannot be reached' if never_sent else 'broke off'}: {reason}"
        )
        unavailable.fault = "network"
        unavailable.ran = "no" if never_sent else "maybe"
        return unavailable


def _where(base: str) -> tuple[Origin, str, str]:
    """The server of "http://host:port/path", the path, and what Host says of it."""
    url = urlsplit(base)
    if url.scheme not in ("http", "https") or url.hostname is None:
        raise ValueError(f"The address of a service is like http://host:port; got {base!r}.")
    server = Origin(url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80))
    return server, url.path.encode("ascii").decode(), url.netloc.rpartition("@")[2].encode("idna").decode()


class _Call:
    """Hears one reply: whole, or its head first and then what comes."""

    channel: ClientChannel | None = None

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.answer: Once[Head] = Once()
        self.pieces: list[bytes] = []
        self.size = 0
        self.ended = False
        self._head: Head | None = None
        self._error: Broken | None = None
        self._waiting: Deferred[None] | None = None
        self._held = False

    # -- as Hearer

    def head(self, head: Head) -> None:
        self._head = head
        if not self.whole:
            self.answer.fire(head)

    def chunk(self, data: bytes) -> None:
        self.size += len(data)
        if self.whole:
            if self.size <= MAX_REPLY:
                self.pieces.append(data)
            elif self.channel is not None:
                self.abandon()
                self.complete()
            return
        self.pieces.append(data)
        if len(self.pieces) > AHEAD and self._waiting is None and self.channel is not None and not self._held:
            self._held = True
            self.channel.transport.pause_reading()
        self._wake()

    def complete(self) -> None:
        self.ended, self.channel = True, None
        if self.whole:
            self.answer.fire(cast(Head, self._head))
        else:
            self._wake()

    def failed(self, error: Broken) -> None:
        self.ended, self.channel, self._error = True, None, error
        if not self.answer.done:
            self.answer.fail(error)
        else:
            self._wake()

    # -- from whoever calls

    async def more(self) -> bool:
        """Whether something comes, once it has; False at the end. Raises Broken when the rest never will."""
        if not self.pieces and not self.ended:
            self._waiting = Deferred()
            await self._waiting
        if not self.pieces and self._error is not None:
            raise self._error
        return bool(self.pieces)

    def go_on(self) -> None:
        """There is room for more."""
        if self._held:
            self._held = False
            if self.channel is not None:
                self.channel.transport.resume_reading()

    def abandon(self) -> None:
        """Nobody wants the rest: the connection ends, unless all has come."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.abandon()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
