"""The ceilings: uvloop and httptools without a framework, which no Python server or client on them can pass."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import httptools
import uvloop

from .callers import report
from .work import BOOKING, CONNECTIONS, ROOM, ROOM_PATH

REQUEST = f"GET {ROOM_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def reply(content: Any) -> bytes:
    """A whole one."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


ROOM_REPLY, BOOKING_REPLY = reply(ROOM), reply(BOOKING)


# -- serving


class Server(asyncio.Protocol):
    """Answers with a canned reply once a request is complete; its target and its body are not looked at."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(BOOKING_REPLY if self.parser.get_method() == b"POST" else ROOM_REPLY)


def serve(port: int, _: int) -> None:
    """Until killed."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


# -- calling


class Client(asyncio.Protocol):
    """A connection on which requests are answered in their order."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()  # what is called with each body

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)

    def ask(self, answered: Any) -> None:
        self.waiting.append(answered)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert self.parser.get_status_code() == 200
        self.waiting.popleft()(self.body)


def call(port: int, seconds: float) -> None:
    """Over a connection for each call that is under way."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        free = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]

        async def once() -> None:
            client, answered = free.pop(), loop.create_future()
            client.ask(answered.set_result)
            assert json.loads(await answered) == ROOM
            free.append(client)

        await report(once, seconds, asyncio.gather)

    uvloop.run(main())


# -- between the two


class Relay(Server):
    """Asks upstream for each request, over a connection that belongs to the one it came on."""

    upstream: Client

    def __init__(self, free: list[Client]) -> None:
        self.free = free

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.upstream = self.free.pop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.free.append(self.upstream)

    def on_message_complete(self) -> None:
        self.upstream.ask(self.answered)

    def answered(self, body: bytes) -> None:
        if self.transport.is_closing():  # wrk has left at the end of its round; an error here would end `upstream`, too
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        self.transport.write(head % (len(body), body))


def relay(port: int, upstream: int) -> None:
    """Until killed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Twice as many as wrk's: those of its last round may not have been found closed when the next one begins.
        count = 2 * CONNECTIONS
        free = [(await loop.create_connection(Client, "127.0.0.1", upstream))[1] for _ in range(count)]
        server = await loop.create_server(lambda: Relay(free), "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())
