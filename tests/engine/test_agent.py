"""Facts about calls: what a reply is taken for, which connection is used again, and what is told when it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    HTTPConnectionPool,
    RequestGenerationFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from ropewalk.engine import Agent
from ropewalk.engine.agent import _USUAL, _parts
from ropewalk.engine.client import INTERIM
from ropewalk.engine.limits import IDLE

URL = b"http://127.0.0.1:8000/rooms?free=1"
READ = 10_000  # bytes that a transport reads at a time
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Wire(StringTransportWithDisconnection):
    """A connection, the server's side of which a test plays."""

    def says(self, data: bytes, *, at_once: bool = True) -> None:
        for part in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
            if self.connected:
                self.protocol.dataReceived(part)

    def breaks(self) -> None:
        self.connected = False
        self.protocol.connectionLost(Failure(ConnectionLost()))

    def heard(self) -> bytes:
        """What was sent since it was last asked."""
        said = self.value()
        self.clear()
        return said


@implementer(IBodyProducer)
class Body:
    """A request's body that a test produces."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.done: Deferred[None] = Deferred()
        self.told: list[str] = []

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.write = consumer.write
        return self.done

    def stopProducing(self) -> None:
        self.told.append("stop")

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")


class Reader(Protocol):
    """Takes a reply's body."""

    def __init__(self) -> None:
        self.got = b""
        self.why: type[BaseException] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.why = reason.type


class There:
    """An agent, and the connections it makes."""

    def __init__(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.agent = Agent(self.reactor)
        self.wires: list[Wire] = []

    def ask(self, method: bytes = b"GET", **rest: Any) -> Any:
        """A call; the Deferred of its reply."""
        before = len(self.reactor.tcpClients)
        answer = self.agent.request(method, URL, **rest)
        if len(self.reactor.tcpClients) > before:
            _, _, factory, _, _ = self.reactor.tcpClients[-1]
            wire = Wire()
            wire.protocol = factory.buildProtocol(None)
            wire.protocol.makeConnection(wire)
            self.wires.append(wire)
        return answer

    @property
    def wire(self) -> Wire:
        return self.wires[-1]


@pytest.fixture
def there():
    return There()


def outcome(answer: Any) -> Any:
    """What it fired with, or the type of what it failed with; None when it has not."""
    results: list[Any] = []
    answer.addBoth(results.append)
    result = results[0] if results else None
    return result.type if isinstance(result, Failure) else result


def test_a_request_goes_out_as_it_was_asked_for(there):
    there.ask(headers=Headers({"Accept": ["text/plain", "*/*"]}))

    assert b"GET /rooms?free=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: text/plain\r\nAccept: */*\r\n\r\n" == (
        there.wire.heard()
    )


@pytest.mark.parametrize("at_once", [True, False])
def test_a_reply_is_its_head_and_then_its_body_however_it_comes(there, at_once):
    answer = there.ask()
    there.wire.says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, at_once=at_once)
    reply = outcome(answer)
    reader = Reader()
    reply.deliverBody(reader)

    assert (200, b"OK", 2, (b"HTTP", 1, 1)) == (reply.code, reply.phrase, reply.length, reply.version)
    assert (b"hi", ResponseDone) == (reader.got, reader.why)


def test_a_connection_is_used_again_and_given_up_when_it_was_idle_for_long(there):
    for _ in range(3):
        answer = there.ask()
        there.wire.says(OK)
        outcome(answer)
    used, open_ = len(there.wires), there.wire.connected
    there.reactor.advance(IDLE - 0.1)
    still = there.wire.connected
    there.reactor.advance(1)

    assert (1, True, True, False) == (used, open_, still, there.wire.connected)
    assert [] == there.reactor.getDelayedCalls()


@pytest.mark.parametrize(
    "said",
    [
        OK + b"x",
        OK + OK,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ],
    ids=["a byte behind it", "another reply behind it", "it says so", "HTTP/1.0"],
)
def test_a_connection_that_leaves_a_doubt_is_not_used_again(there, said):
    answer = there.ask()
    there.wire.says(said)
    body = outcome(readBody(outcome(answer)))
    there.ask()

    assert (b"hi", 2, False) == (body, len(there.wires), there.wires[0].connected)


def test_what_comes_while_nobody_asked_ends_the_connection(there):
    answer = there.ask()
    there.wire.says(OK)
    outcome(answer)

    there.wire.says(OK)

    assert not there.wire.connected


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (INTERIM + 1),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["lengths", "length and chunks", "coding", "field", "fields", "interim", "upgrade", "no HTTP"],
)
def test_what_is_no_reply_breaks_the_connection_off(there, said):
    answer = there.ask()
    for at in range(0, len(said), READ):
        there.wire.says(said[at : at + READ])

    assert (ResponseNeverReceived, False) == (outcome(answer), there.wire.connected)


def test_a_body_that_ends_with_the_connection_may_have_lost_something(there):
    answer, reader = there.ask(), Reader()
    there.wire.says(b"HTTP/1.1 200 OK\r\n\r\nhi")
    outcome(answer).deliverBody(reader)
    there.wire.loseConnection()

    assert (b"hi", PotentialDataLoss) == (reader.got, reader.why)


def test_a_reply_to_head_has_no_body_whatever_its_length_says(there):
    answer, reader = there.ask(b"HEAD"), Reader()
    there.wire.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    reply = outcome(answer)
    reply.deliverBody(reader)
    there.ask()

    assert (b"", ResponseDone, 1) == (reader.got, reader.why, len(there.wires))


@pytest.mark.parametrize(
    ("said", "error"), [(b"", ResponseNeverReceived), (b"HTTP/1.1 200 OK\r\n", ResponseNeverReceived)]
)
def test_a_connection_that_ends_before_the_head_is_told_so(there, said, error):
    answer = there.ask()
    there.wire.says(said)
    there.wire.breaks()

    assert error == outcome(answer)


@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_a_connection_that_ends_within_the_body_is_told_to_its_reader(there, when):
    answer, reader = there.ask(), Reader()
    there.wire.says(OK[:-1])
    reply = outcome(answer)
    if when == "while it is read":
        reply.deliverBody(reader)
    there.wire.breaks()
    if when == "before it is read":
        reply.deliverBody(reader)

    assert (b"h", ResponseFailed) == (reader.got, reader.why)


def test_nobody_there_fails_as_the_endpoint_does(there):
    answer = there.agent.request(b"GET", URL)
    _, _, factory, _, _ = there.reactor.tcpClients[-1]
    factory.clientConnectionFailed(there.reactor.connectors[-1], Failure(ConnectionRefusedError()))

    assert ConnectionRefusedError == outcome(answer)


def test_a_call_that_is_cancelled_ends_its_connection(there):
    answer = there.ask()
    answer.cancel()

    assert (ResponseNeverReceived, False) == (outcome(answer), there.wire.connected)


def test_a_reader_that_leaves_ends_the_connection_and_hears_that_it_is_not_all(there):
    answer, reader = there.ask(), Reader()
    there.wire.says(OK[:-1])
    outcome(answer).deliverBody(reader)

    reader.transport.loseConnection()

    assert (ResponseFailed, False) == (reader.why, there.wire.connected)


class Leaver(Reader):
    """Has enough at the first part, and notes whether it is told of the end before it has said so."""

    told_within = False

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.loseConnection()
        self.told_within = self.why is not None


@pytest.mark.parametrize("read", ["as it comes", "late"])
@pytest.mark.parametrize(
    "reply",
    [b"Content-Length: 3\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n", b"\r\nab"],
    ids=["by its length", "in chunks", "until the end"],
)
def test_a_reader_that_leaves_amid_a_part_hears_of_the_end_when_it_has_come_and_nothing_before(there, reply, read):
    answer, reader = there.ask(), Leaver()
    there.wire.loseConnection = lambda: None  # as a transport does, it tells of the end in another turn
    head, _, body = (b"HTTP/1.1 200 OK\r\n" + reply).partition(b"\r\n\r\n")
    there.wire.says(head + b"\r\n\r\n")
    if read == "as it comes":
        outcome(answer).deliverBody(reader)
    there.wire.says(body, at_once=False)
    if read == "late":
        outcome(answer).deliverBody(reader)
    amid = reader.got, reader.told_within, reader.why
    there.wire.protocol.connectionLost(Failure(ConnectionDone()))

    assert ((b"a", False, None), ResponseFailed) == (amid, reader.why)


def test_nor_is_its_connection_used_again_when_all_of_the_reply_came_at_once(there):
    answer, reader = there.ask(), Leaver()
    there.wire.loseConnection = lambda: None
    there.wire.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    outcome(answer).deliverBody(reader)
    there.wire.says(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    there.ask()

    assert (b"a", None, 2) == (reader.got, reader.why, len(there.wires))


def test_a_reader_is_told_once_of_an_end_that_comes_while_it_is_given_what_waited(there):
    answer, told = there.ask(), []
    reader = Leaver()
    reader.connectionLost = told.append
    there.wire.says(OK[:-1])
    outcome(answer).deliverBody(reader)

    assert [ResponseFailed] == [reason.type for reason in told]


def test_a_body_that_nobody_reads_is_held_back_at_the_server(there):
    answer = there.ask()
    there.wire.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"." * 100_000)
    held = there.wire.producerState
    outcome(answer).deliverBody(Reader())

    assert ("paused", "producing") == (held, there.wire.producerState)


def test_a_body_of_known_length_goes_out_as_it_is_made(there):
    body = Body(5)
    there.ask(b"POST", bodyProducer=body)
    body.write(b"he")
    body.write(b"llo")

    assert (
        b"POST /rooms?free=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: 5\r\n\r\nhello" == there.wire.heard()
    )


def test_a_body_of_unknown_length_goes_out_in_chunks(there):
    body = Body()
    there.ask(b"POST", bodyProducer=body)
    there.wire.heard()
    body.write(b"hello")
    body.done.callback(None)

    assert b"5\r\nhello\r\n0\r\n\r\n" == there.wire.heard()


def test_a_reply_that_comes_before_the_body_is_sent_ends_the_connection(there):
    body = Body()
    answer = there.ask(b"POST", bodyProducer=body)
    there.wire.says(OK)

    assert (b"hi", ["stop"], False) == (outcome(readBody(outcome(answer))), body.told, there.wire.connected)


def test_a_producer_that_fails_fails_the_call(there):
    body = Body()
    answer = there.ask(b"POST", bodyProducer=body)
    body.done.errback(Failure(OSError("the disk is gone")))

    assert (RequestGenerationFailed, False) == (outcome(answer), there.wire.connected)


def test_a_producer_is_held_back_while_the_server_takes_no_more(there):
    body = Body()
    there.ask(b"POST", bodyProducer=body)
    driver = there.wire.producer
    driver.pauseProducing()
    driver.resumeProducing()

    assert ["pause", "resume"] == body.told


def test_a_field_cannot_add_another(there):
    there.ask(headers=Headers({"A": ["b\r\nc: d"]}))

    assert b"GET /rooms?free=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nA: b c: d\r\n\r\n" == there.wire.heard()


def test_only_http_is_asked(there):
    assert SchemeNotSupported == outcome(there.agent.request(b"GET", b"ftp://127.0.0.1/"))


def test_a_host_that_none_can_be_called_fails_the_call_and_leaves_no_connection_counted(there):
    answer = there.agent.request(b"GET", b"http://nobody..example/")

    assert issubclass(outcome(answer), ValueError)
    assert {} == there.agent.pool._open


class TrustsNobody:
    """As IPolicyForHTTPS."""

    def __init__(self):
        self.asked = []

    def creatorForNetloc(self, hostname, port):
        self.asked.append((hostname, port))
        raise ConnectionRefusedError("nobody")


def test_whom_https_trusts_is_said_as_it_is_to_twisteds(there):
    policy = TrustsNobody()
    answer = Agent(there.reactor, policy).request(b"GET", b"https://rooms.example/")

    assert ConnectionRefusedError == outcome(answer)
    assert [(b"rooms.example", 443)] == policy.asked


def test_how_long_a_connection_is_waited_for_and_where_it_comes_from_are_said_so_too(there):
    Agent(there.reactor, connectTimeout=2.5, bindAddress=("127.0.0.9", 0)).request(b"GET", URL)

    host, port, _, timeout, bind = there.reactor.tcpClients[-1]
    assert ("127.0.0.1", 8000, 2.5, ("127.0.0.9", 0)) == (host, port, timeout, bind)


def test_twisteds_own_pool_is_refused_because_it_would_keep_nothing(there):
    with pytest.raises(TypeError, match=r"ropewalk\.engine\.pool\.Pool.+HTTPConnectionPool.+Leave it out"):
        Agent(there.reactor, pool=HTTPConnectionPool(there.reactor))


class Elsewhere:
    """As IAgentEndpointFactory."""

    def __init__(self, reactor):
        self.asked = []
        self._reactor = reactor

    def endpointForURI(self, uri):
        self.asked.append((uri.scheme, uri.host, uri.port, uri.netloc))
        return TCP4ClientEndpoint(self._reactor, "192.0.2.9", 9)


def test_connections_over_endpoints_of_ones_own_are_used_once_as_twisteds_are(there):
    elsewhere = Elsewhere(there.reactor)
    there.agent = Agent.usingEndpointFactory(there.reactor, elsewhere)
    for _ in range(2):
        answer = there.ask()
        there.wire.says(OK)
        outcome(answer)

    assert [(b"http", b"127.0.0.1", 8000, b"127.0.0.1:8000")] * 2 == elsewhere.asked
    assert ["192.0.2.9", "192.0.2.9"] == [client[0] for client in there.reactor.tcpClients]
    assert [False, False] == [wire.connected for wire in there.wires]


def test_closing_ends_what_is_kept_and_cuts_off_what_is_in_use(there):
    idle = there.ask()
    there.wire.says(OK)
    outcome(idle)
    busy = there.ask()
    second = there.ask()
    closed = there.agent.pool.close()

    assert [ResponseNeverReceived, ResponseNeverReceived] == [outcome(busy), outcome(second)]
    assert closed.called
    assert [False, False] == [wire.connected for wire in there.wires]


def test_an_url_of_the_usual_form_is_read_as_twisted_reads_it():
    @given(strategies.from_regex(_USUAL, fullmatch=True))
    def of(url):
        by_twisted = URI.fromBytes(url)
        server, netloc, target = _parts(url)

        assert (by_twisted.scheme, by_twisted.host, by_twisted.port, by_twisted.netloc, by_twisted.originForm) == (
            server.scheme.encode(), server.host.encode(), server.port, netloc, target,
        )  # fmt: skip

    of()
