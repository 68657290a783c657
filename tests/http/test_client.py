"""The client's end of a sibling call over HTTP: what becomes of a connection whose call is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection

from ropewalk import Service, get
from ropewalk.driver import Driver, Run
from ropewalk.engine.pool import Pool, Server
from ropewalk.http.client import HTTPConnection
from ropewalk.message import Request, Response
from ropewalk.service import describe

THERE = Server("http", "127.0.0.1", 1)


class Rooms(Service, name="rooms", version="1.0.0"):
    """Has rooms."""

    @get("/rooms")
    async def free(self) -> int:
        """How many are free."""


class Line:
    """A call on its way, and the connection it waits for."""

    def __init__(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.pool = Pool(self.reactor)
        self.transport = StringTransportWithDisconnection()
        self.ended: list[Run[Response]] = []
        connection = HTTPConnection(self.pool, "http://127.0.0.1:1", "rooms", 1, self.reactor.seconds)
        asked = Request(describe(Rooms).operations["free"], {})
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
