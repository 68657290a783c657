"""Facts about a listener that drains: which connection ends when, and that no request is lost with it."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ropewalk.engine.channel import FRESH_GRACE, USED_GRACE
from ropewalk.http.site import Site

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n"


class Answers(Resource):
    """Answers at once, or when it is told to."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.waits = False
        self.waiting = []

    def render(self, request):
        if not self.waits:
            return b"done"
        self.waiting.append(request)
        return NOT_DONE_YET


class Listener:
    """A site on virtual time, and connections to it."""

    def __init__(self):
        self.clock = Clock()
        self.resource = Answers()
        self.site = Site(self.resource, self.clock, 1000)

    def connected(self):
        transport = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", "127.0.0.1", 5))
        transport.protocol = self.site.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        return transport

    def drained(self):
        """The Deferred of its end, once it drains."""
        self.site.drain()
        return self.site.wait_until_closed()


@pytest.fixture
def listener():
    return Listener()


def test_a_reply_while_it_drains_says_that_the_connection_ends_and_it_does(listener):
    connection = listener.connected()
    closed = listener.drained()

    connection.protocol.dataReceived(REQUEST)

    assert b"connection: close" in connection.value().lower()
    assert (False, True) == (connection.connected, closed.called)


@pytest.mark.parametrize(("requests", "grace"), [(0, FRESH_GRACE), (1, USED_GRACE)])
def test_a_connection_without_a_request_is_closed_after_its_grace_and_not_before(listener, requests, grace):
    connection = listener.connected()
    connection.protocol.dataReceived(REQUEST * requests)
    closed = listener.drained()

    listener.clock.advance(grace - 0.001)
    before = (connection.connected, closed.called)
    listener.clock.advance(0.001)

    assert (True, False) == before
    assert (False, True) == (connection.connected, closed.called)


def test_a_connection_accepted_while_it_drains_is_served(listener):
    closed = listener.drained()
    connection = listener.connected()

    listener.clock.advance(FRESH_GRACE - 0.001)
    connection.protocol.dataReceived(REQUEST)

    assert connection.value().endswith(b"done")
    assert (False, True) == (connection.connected, closed.called)


def test_a_request_that_is_still_arriving_is_waited_for_and_answered(listener):
    connection = listener.connected()
    connection.protocol.dataReceived(UPLOAD + b"ab")
    closed = listener.drained()

    listener.clock.advance(20)
    before = (connection.connected, closed.called)
    connection.protocol.dataReceived(b"cde")

    assert (True, False) == before
    assert connection.value().endswith(b"done")
    assert closed.called


def test_bytes_of_a_request_line_begin_the_grace_anew(listener):
    connection = listener.connected()
    connection.protocol.dataReceived(REQUEST)
    listener.drained()

    for byte in REQUEST[:5]:
        listener.clock.advance(USED_GRACE - 0.01)
        connection.protocol.dataReceived(bytes([byte]))
    still = connection.connected
    connection.protocol.dataReceived(REQUEST[5:])

    assert still
    assert 2 == connection.value().count(b"done")


def test_a_reply_that_began_before_is_finished_and_then_the_connection_has_its_grace(listener):
    listener.resource.waits = True
    connection = listener.connected()
    connection.protocol.dataReceived(REQUEST)
    (request,) = listener.resource.waiting
    request.write(b"do")
    closed = listener.drained()

    listener.clock.advance(5)
    request.write(b"ne")
    request.finish()
    at_the_end = connection.connected
    listener.clock.advance(USED_GRACE)

    assert b"connection: close" not in connection.value().lower()
    assert (True, False, True) == (at_the_end, connection.connected, closed.called)


def test_what_is_left_at_the_limit_is_cut_off(listener):
    listener.resource.waits = True
    connection = listener.connected()
    connection.protocol.dataReceived(REQUEST)
    (request,) = listener.resource.waiting
    gone = request.notifyFinish()
    gone.addErrback(lambda failure: None)
    closed = listener.drained()

    listener.site.abort()

    assert (False, True, True) == (connection.connected, gone.called, closed.called)


def test_nothing_is_left_on_the_clock_when_the_last_connection_is_gone(listener):
    connections = [listener.connected() for _ in range(3)]
    closed = listener.drained()

    for connection in connections:
        connection.protocol.dataReceived(REQUEST)

    assert ([], True) == (listener.clock.getDelayedCalls(), closed.called)
