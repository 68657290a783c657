"""A fault proxy does what it is told to bytes in both directions, holds little, and leaves nothing behind."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from ropewalk.testing.proxy import LIMIT_BYTES, LIMIT_CONNECTIONS, FaultProxy, ProxyStatistics, Toxics


class Wire(StringTransport):
    """A transport that sends at once, unless it is blocked, and notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = False
        self.said: list[str] = []

    def taken(self) -> bytes:
        """What was sent since this was last asked."""
        data = self.value()
        self.clear()
        return data

    def unblock(self) -> None:
        self.blocked = False
        self.producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        producer.resumeProducing()

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and not self.blocked:
            self.producer.resumeProducing()

    def setTcpNoDelay(self, on: bool) -> None:
        """As a socket's."""

    def loseWriteConnection(self) -> None:
        self.said.append("fin")

    def loseConnection(self) -> None:
        self.said.append("close")

    def abortConnection(self) -> None:
        self.said.append("reset")


class Bench:
    """A proxy over a reactor in memory; `connect()` gives both ends of a new link."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.proxy = FaultProxy(self.reactor, "192.0.2.1", 6379, Random(1))
        Deferred.fromCoroutine(self.proxy.listen())

    def accept(self) -> tuple[Any, Wire]:
        """A client's connection as the proxy has it: protocol and transport."""
        protocol, wire = self.reactor.tcpServers[-1][1].buildProtocol(None), Wire()
        protocol.makeConnection(wire)
        return protocol, wire

    def connect(self) -> tuple[Any, Wire, Any, Wire]:
        client, near = self.accept()
        server, far = self.reactor.tcpClients[-1][2].buildProtocol(None), Wire()
        server.makeConnection(far)
        return client, near, server, far

    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- without toxics


def test_bytes_pass_both_ways_at_once(bench):
    client, near, server, far = bench.connect()

    client.dataReceived(b"ping")
    server.dataReceived(b"pong")

    assert (b"ping", b"pong") == (far.taken(), near.taken())
    assert ProxyStatistics(accepted=1, open=1, towards_server=4, towards_client=4) == bench.proxy.statistics()


def test_what_is_sent_before_the_server_is_reached_waits_for_it(bench):
    client, _ = bench.accept()
    client.dataReceived(b"early")

    far = Wire()
    bench.reactor.tcpClients[-1][2].buildProtocol(None).makeConnection(far)

    assert b"early" == far.taken()


def test_a_client_whose_server_is_not_there_is_reset(bench):
    _, near = bench.accept()

    bench.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    assert ["reset"] == near.said
    assert 1 == bench.proxy.statistics().unreachable


def test_a_half_close_passes_and_the_answer_still_comes(bench):
    client, near, server, far = bench.connect()

    client.readConnectionLost()
    assert (["fin"], []) == (far.said, near.said)
    server.dataReceived(b"answer")
    server.readConnectionLost()

    assert b"answer" == near.taken()
    assert (["fin", "close"], ["fin", "close"]) == (far.said, near.said)


def test_a_reset_of_one_end_is_one_of_the_other(bench):
    client, _, _, far = bench.connect()

    client.connectionLost(Failure(ConnectionLost()))

    assert ["reset"] == far.said


def test_when_both_ends_are_gone_nothing_is_left(bench):
    client, _, server, _ = bench.connect()

    client.connectionLost(Failure(ConnectionDone()))
    assert 1 == bench.proxy.statistics().open
    server.connectionLost(Failure(ConnectionDone()))

    assert 0 == bench.proxy.statistics().open
    assert [] == bench.reactor.getDelayedCalls()


def test_one_connection_too_many_is_turned_away(bench):
    for _ in range(LIMIT_CONNECTIONS):
        bench.accept()

    assert bench.reactor.tcpServers[-1][1].buildProtocol(None) is None
    assert 1 == bench.proxy.statistics().turned_away


# -- late and slow


def test_latency_holds_a_piece_for_so_long_and_no_longer(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(latency=0.5)

    client.dataReceived(b"late")
    bench.advance(0.499)
    assert b"" == far.taken()
    bench.advance(0.001)

    assert b"late" == far.taken()


def test_each_direction_has_toxics_of_its_own(bench):
    client, near, server, far = bench.connect()
    bench.proxy.towards_client = Toxics(latency=1)

    client.dataReceived(b"ping")
    server.dataReceived(b"pong")

    assert (b"ping", b"") == (far.taken(), near.taken())


def test_jitter_lets_no_piece_overtake_another(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(latency=0.1, jitter=1.0)

    arrived = []
    for number in range(20):
        client.dataReceived(b"%d " % number)
    for _ in range(120):
        bench.advance(0.01)
        arrived.append(far.taken())

    assert b"".join(b"%d " % number for number in range(20)) == b"".join(arrived)
    assert [] == [piece for piece in arrived[:9] if piece]


def test_a_change_is_seen_by_the_next_piece_of_an_open_connection(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(latency=1)
    client.dataReceived(b"a")
    bench.proxy.towards_server = Toxics(latency=3)
    client.dataReceived(b"b")

    bench.advance(1)
    assert b"a" == far.taken()
    bench.advance(2)
    assert b"b" == far.taken()


@pytest.mark.parametrize(("bandwidth", "seconds", "expected"), [(10, 1.0, 10), (1000, 2.0, 2000), (0.5, 4.0, 2)])
def test_bandwidth_is_bytes_a_second(bench, bandwidth, seconds, expected):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(bandwidth=bandwidth)

    client.dataReceived(b"x" * 5000)
    for _ in range(int(seconds * 1000) - 1):
        bench.advance(0.001)

    assert len(far.taken()) == pytest.approx(expected, abs=max(1, bandwidth * 0.05))


def test_without_bandwidth_everything_is_held_until_there_is_some(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(bandwidth=0)
    client.dataReceived(b"held")
    bench.advance(60)
    assert b"" == far.taken()

    bench.proxy.heal()

    assert b"held" == far.taken()


def test_the_end_of_a_connection_is_as_late_as_its_bytes(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(latency=1)

    client.dataReceived(b"last words")
    client.readConnectionLost()
    assert [] == far.said
    bench.advance(1)

    assert (b"last words", ["fin"]) == (far.taken(), far.said)


@pytest.mark.parametrize("name", ["latency", "jitter", "bandwidth", "reset_after"])
def test_a_toxic_below_zero_is_refused(name):
    with pytest.raises(ValueError, match=rf"Toxics\({name}=...\) is 0 or more; got -1\."):
        Toxics(**{name: -1})


# -- lost


def test_after_so_many_bytes_both_ends_are_reset(bench):
    client, near, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(reset_after=5)

    client.dataReceived(b"1234")
    assert [] == far.said
    client.dataReceived(b"5678")

    assert (b"12345", ["reset"], ["reset"]) == (far.taken(), far.said, near.said)


def test_the_bytes_before_a_reset_have_left_when_it_comes(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(reset_after=4)
    far.blocked = True

    client.dataReceived(b"1234")
    assert [] == far.said
    far.unblock()

    assert ["reset"] == far.said


def test_what_is_swallowed_never_comes_and_the_stream_stays_silent(bench):
    client, near, server, far = bench.connect()
    bench.proxy.towards_client = Toxics(swallow=True)
    client.dataReceived(b"ping")
    server.dataReceived(b"pong")
    server.readConnectionLost()
    assert (b"ping", b"", []) == (far.taken(), near.taken(), near.said)

    bench.proxy.heal()
    server.dataReceived(b"again")

    assert b"" == near.taken()
    assert 9 == bench.proxy.statistics().swallowed


def test_a_partition_loses_what_is_on_its_way(bench):
    client, _, _, far = bench.connect()
    bench.proxy.towards_server = Toxics(latency=1)
    client.dataReceived(b"on its way")
    bench.proxy.towards_server = Toxics(swallow=True)

    bench.advance(1)

    assert b"" == far.taken()
    assert 10 == bench.proxy.statistics().swallowed


def test_a_black_hole_accepts_and_connects_to_nobody(bench):
    bench.proxy.black_hole()

    client, near = bench.accept()
    client.dataReceived(b"hello?")

    assert [] == bench.reactor.tcpClients
    assert (b"", []) == (near.taken(), near.said)


def test_a_side_that_vanishes_says_nothing_to_the_other(bench):
    client, near, server, far = bench.connect()

    bench.proxy.vanish("server")
    server.connectionLost(Failure(ConnectionLost()))
    client.dataReceived(b"hello?")

    assert (["reset"], [], b"") == (far.said, near.said, near.taken())
    assert 1 == bench.proxy.statistics().open


def test_a_cut_resets_both_ends_of_all(bench):
    links = [bench.connect() for _ in range(2)]

    bench.proxy.cut()

    assert [["reset"]] * 4 == [wire.said for link in links for wire in (link[1], link[3])]
    assert 2 == bench.proxy.statistics().resets


# -- bounded, and gone at the end


def test_a_sender_is_paused_while_much_is_held_and_goes_on_when_it_is_not(bench):
    client, near, _, far = bench.connect()
    far.blocked = True

    pieces = 0
    while near.producerState == "producing":
        client.dataReceived(b"x" * 65536)
        pieces += 1
    assert LIMIT_BYTES <= (pieces - 1) * 65536 <= LIMIT_BYTES + 65536
    far.unblock()

    assert "producing" == near.producerState
    assert pieces * 65536 == len(far.taken())


def test_a_sender_that_has_ended_is_not_asked_for_more(bench):
    client, near, _, far = bench.connect()
    far.blocked = True
    for _ in range(5):
        client.dataReceived(b"x" * 65536)

    client.readConnectionLost()
    far.unblock()

    assert "paused" == near.producerState
    assert ["fin"] == far.said


def test_a_sender_whose_bytes_are_swallowed_is_not_paused(bench):
    client, near, _, far = bench.connect()
    far.blocked = True
    for _ in range(5):
        client.dataReceived(b"x" * 65536)
    assert "paused" == near.producerState

    bench.proxy.vanish("server")

    assert "producing" == near.producerState


def test_close_waits_until_the_last_connection_is_gone(bench):
    client, _, server, _ = bench.connect()
    bench.proxy.towards_server = Toxics(latency=5)
    client.dataReceived(b"never")

    closed = Deferred.fromCoroutine(bench.proxy.close())
    assert not closed.called
    for end in (client, server):
        end.connectionLost(Failure(ConnectionLost()))

    assert closed.called
    assert [] == bench.reactor.getDelayedCalls()
    assert "<FaultProxy for 192.0.2.1:6379 refusing, 0 open>" == repr(bench.proxy)


def test_close_gives_up_a_connection_that_is_being_made(bench):
    client, near = bench.accept()

    closed = Deferred.fromCoroutine(bench.proxy.close())
    client.connectionLost(Failure(ConnectionLost()))

    assert closed.called
    assert ["reset"] == near.said


# -- over sockets


@implementer(IHalfCloseableProtocol)
class Talker(Protocol):
    """Keeps what it reads; `until(n)` fires with the first n bytes, `ended` when no more will come, `lost` at the end."""

    def __init__(self, echo: bool = False) -> None:
        self.read = b""
        self.echo = echo
        self.ended: Deferred[None] = Deferred()
        self.lost: Deferred[str] = Deferred()
        self._waiting: list[tuple[int, Deferred[bytes]]] = []

    def until(self, count: int) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((count, waiting))
        self.dataReceived(b"")
        return waiting

    def dataReceived(self, data: bytes) -> None:
        self.read += data
        if self.echo and data:
            self.transport.write(data)
        for count, waiting in list(self._waiting):
            if len(self.read) >= count:
                self._waiting.remove((count, waiting))
                waiting.callback(self.read)

    def readConnectionLost(self) -> None:
        self.ended.callback(None)
        if self.echo:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.type.__name__)


class Street:
    """An echo server, a proxy before it, clients."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.served: list[Talker] = []
        self.clients: list[Talker] = []
        self.port = reactor.listenTCP(0, self._factory(self.served, True), interface="127.0.0.1")
        self.proxy = FaultProxy(reactor, "127.0.0.1", self.port.getHost().port, Random(1))

    async def connect(self) -> Talker:
        from twisted.internet.endpoints import TCP4ClientEndpoint

        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", await self.proxy.listen())
        await endpoint.connect(self._factory(self.clients, False))
        return self.clients[-1]

    def _factory(self, talkers: list[Talker], echo: bool) -> Factory:
        def build() -> Talker:
            talkers.append(Talker(echo))
            return talkers[-1]

        factory = Factory.forProtocol(build)  # type: ignore[arg-type]
        factory.noisy = False
        return factory

    async def close(self) -> None:
        await self.proxy.close()
        for talker in (*self.clients, *self.served):
            talker.transport.abortConnection()
            if not talker.lost.called:
                await talker.lost
        await maybeDeferred(self.port.stopListening)


@pytest.fixture
def street():
    """`street(test)`: runs `test(street)` and takes the street down."""
    from twisted.internet import reactor

    async def run(test: Any) -> None:
        street = Street(reactor)
        try:
            await test(street)
        finally:
            await street.close()

    return run


@ensureDeferred
async def test_a_conversation_over_sockets(street):
    async def test(street):
        client = await street.connect()
        client.transport.write(b"hello")

        assert b"hello" == await client.until(5)
        client.transport.loseWriteConnection()
        await client.ended

    await street(test)


@ensureDeferred
async def test_megabytes_pass_whole_over_sockets(street):
    async def test(street):
        client = await street.connect()
        data = Random(2).randbytes(3_000_000)

        client.transport.write(data)

        assert data == await client.until(len(data))

    await street(test)


@ensureDeferred
async def test_a_reset_over_sockets_comes_after_its_bytes(street):
    async def test(street):
        client = await street.connect()
        street.proxy.towards_client = Toxics(reset_after=3)

        client.transport.write(b"hello")

        assert "ConnectionLost" == await client.lost
        assert b"hel" == client.read

    await street(test)


@ensureDeferred
async def test_a_slow_server_is_slow_over_sockets(street):
    async def test(street):
        client = await street.connect()
        street.proxy.towards_client = Toxics(latency=0.03, bandwidth=1000)
        began = street.reactor.seconds()

        client.transport.write(b"x" * 100)
        await client.until(100)

        assert 0.03 + 0.05 <= street.reactor.seconds() - began

    await street(test)


@ensureDeferred
async def test_refused_and_listened_again_on_the_same_port(street):
    async def test(street):
        first = await street.connect()
        port = await street.proxy.listen()

        await street.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            from twisted.internet.endpoints import TCP4ClientEndpoint

            await TCP4ClientEndpoint(street.reactor, "127.0.0.1", port).connect(Factory.forProtocol(Talker))
        first.transport.write(b"still here")

        assert b"still here" == await first.until(10)
        assert port == await street.proxy.listen()
        second = await street.connect()
        second.transport.write(b"back")
        assert b"back" == await second.until(4)

    await street(test)


@ensureDeferred
async def test_a_server_that_vanishes_leaves_its_client_connected(street):
    async def test(street):
        client = await street.connect()
        client.transport.write(b"a")
        await client.until(1)

        street.proxy.vanish("server")
        client.transport.write(b"b")

        assert "ConnectionLost" == await street.served[0].lost
        assert not client.lost.called
        street.proxy.cut()
        assert "ConnectionLost" == await client.lost
        assert b"a" == client.read

    await street(test)


@ensureDeferred
async def test_a_server_that_is_not_there_resets_the_client_over_sockets(street):
    async def test(street):
        await street.port.stopListening()

        client = await street.connect()

        assert "ConnectionLost" == await client.lost
        assert 1 == street.proxy.statistics().unreachable

    await street(test)


@ensureDeferred
async def test_closed_twice_it_leaves_nothing(street):
    async def test(street):
        client = await street.connect()
        client.transport.write(b"a")
        await client.until(1)

        await street.proxy.close()
        await street.proxy.close()

        assert "ConnectionLost" == await client.lost
        assert ProxyStatistics(accepted=1, resets=1, towards_server=1, towards_client=1) == street.proxy.statistics()

    await street(test)
