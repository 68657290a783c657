"""The client's end of a sibling call over HTTP: what becomes of a reply that nobody waits for any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from ropewalk import Service, get
from ropewalk.driver import Driver
from ropewalk.http.client import HTTPConnection
from ropewalk.message import Request
from ropewalk.service import describe


class Rooms(Service, name="rooms", version="1.0.0"):
    """Has rooms."""

    @get("/rooms")
    async def free(self) -> int:
        """How many are free."""


class Reply:
    """A reply whose head has come."""

    code = 200
    headers = Headers({})

    def __init__(self) -> None:
        self.closed = False

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.closed = True


class Agent:
    """An agent that answers when the test says so."""

    def __init__(self) -> None:
        self.answer: Deferred[Any] = Deferred(lambda _: None)

    def request(self, *_: Any) -> Deferred[Any]:
        return self.answer


@pytest.mark.parametrize("first", ["the cancellation", "the reply"])
def test_a_reply_that_comes_in_the_turn_of_its_cancellation_closes_its_connection(first):
    clock, agent, reply = Clock(), Agent(), Reply()
    connection = HTTPConnection(agent, "http://127.0.0.1:1", "rooms", 1, clock.seconds)
    run = Driver.of(clock).start(
        connection(Request(describe(Rooms).operations["free"], {})), lambda run: ended.append(run)
    )
    ended: list[Any] = []

    if first == "the reply":
        clock.callLater(0, agent.answer.callback, reply)
    run.cancel()
    if first == "the cancellation":
        agent.answer.callback(reply)
    clock.advance(0)
    clock.advance(0)

    assert [True] == [each.cancelled() for each in ended]
    assert reply.closed
    with pytest.raises(asyncio.CancelledError):
        run.result()
