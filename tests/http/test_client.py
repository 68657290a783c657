"""The client's end of a sibling call over HTTP: what becomes of a connection whose call is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection

from ropewalk import Service, Unavailable, get
from ropewalk.driver import Driver, Run
from ropewalk.engine.pool import Origin, Pool
from ropewalk.http.client import HTTPConnection
from ropewalk.message import Request, Response
from ropewalk.service import describe

THERE = Origin("http", "127.0.0.1", 1)


class Rooms(Service, name="rooms", version="1.0.0"):
    """Has rooms."""

    @get("/rooms")
    async def free(self) -> int:
        """How many are free."""

    @get("/told")
    async def told(self) -> AsyncIterator[int]:
        """Each that becomes free."""
        yield 1


class Line:
    """A call on its way, and the connection it waits for."""

    def __init__(self, operation: str = "free") -> None:
        self.reactor: Any = MemoryReactorClock()
        self.pool = Pool(self.reactor)
        self.transport = StringTransportWithDisconnection()
        self.ended: list[Run[Response]] = []
        connection = HTTPConnection(self.pool, "http://127.0.0.1:1", "rooms", 1, self.reactor.seconds)
        asked = Request(describe(Rooms).operations[operation], {})
        self.run = Driver.of(self.reactor).start(connection(asked), self.ended.append)

    def connects(self) -> None:
        _, _, factory, _, _ = self.reactor.tcpClients[0]
        self.transport.protocol = factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)
        self.turns()

    def answers(self) -> None:
        self.transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

    def turns(self) -> None:
        self.reactor.advance(0)
        self.reactor.advance(0)


@pytest.fixture
def line():
    return Line()


def test_a_connection_that_comes_in_the_turn_of_its_calls_cancellation_is_kept_for_the_next(line):
    line.reactor.callLater(0, line.connects)
    line.run.cancel()
    line.turns()

    assert [True] == [each.cancelled() for each in line.ended]
    assert line.pool.peek(THERE) is not None or not line.transport.connected


def test_a_call_that_is_cancelled_before_its_reply_ends_its_connection(line):
    line.connects()
    line.run.cancel()
    line.turns()

    assert line.transport.value().startswith(b"GET /rooms HTTP/1.1\r\nhost: 127.0.0.1:1\r\n")
    assert (False, None) == (line.transport.connected, line.pool.peek(THERE))
    with pytest.raises(asyncio.CancelledError):
        line.run.result()


def test_a_reply_that_comes_in_the_turn_of_its_calls_cancellation_leaves_its_connection_of_use(line):
    line.connects()
    line.reactor.callLater(0, line.answers)
    line.run.cancel()
    line.turns()

    assert [True] == [each.cancelled() for each in line.ended]
    assert line.transport.connected == (line.pool.peek(THERE) is not None)


def test_a_stream_that_breaks_off_while_its_reader_is_busy_is_not_taken_for_whole():
    line = Line("told")
    line.connects()
    line.transport.protocol.dataReceived(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n"
    )
    line.turns()
    (ended,) = line.ended
    line.transport.loseConnection()
    heard: list[Any] = []

    async def read() -> None:
        try:
            heard.extend([piece async for piece in ended.result().body])
        except Unavailable as error:
            heard.append(error.ran)

    Driver.of(line.reactor).start(read(), lambda run: run.result())
    line.turns()

    assert ["maybe"] == heard


def test_what_is_no_stream_after_all_is_read_no_further_than_a_caller_holds(monkeypatch):
    monkeypatch.setattr("ropewalk.http.client.MAX_REPLY", 10)
    line = Line("told")
    line.connects()
    line.transport.protocol.dataReceived(b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n" + b"." * 20)
    line.turns()

    assert [True] == [isinstance(each.exception(), Unavailable) for each in line.ended]
    assert not line.transport.connected
