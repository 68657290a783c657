"""TCP between simulated hosts means what it means on real sockets; links, partitions and power failures as well.

The first half plays each scenario twice, in a World and on loopback with Twisted's own transports, and expects the same
to be told to the same protocols. The second half is what only a simulated network can be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import error
from twisted.internet.interfaces import IConnector, IHalfCloseableProtocol, IListeningPort, ITCPTransport
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ropewalk import Service, get
from ropewalk.driver import Driver
from ropewalk.testing import World

PORT = 7000
BIG = 1_000_000  # bytes: more than any buffer between two ends


class Idle(Service, name="idle", version="1.0.0"):
    """Does nothing: its two hosts are what the tests need."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""


class Recorder(Protocol):
    """Remembers what it is told; pieces of data that follow each other are one."""

    def __init__(self, made: Callable[[Any], object] = id, received: Callable[[Any], object] = id) -> None:
        """`made(self)`, `received(self)`: called within connectionMade and dataReceived."""
        self.told: list[Any] = []
        self._made, self._received = made, received

    @property
    def data(self) -> bytes:
        return b"".join(each for each in self.told if isinstance(each, bytearray))

    @property
    def over(self) -> bool:
        return self.told != [] and str(self.told[-1]).startswith("lost")

    def connectionMade(self) -> None:
        self.told.append("made")
        self._made(self)

    def dataReceived(self, data: bytes) -> None:
        if isinstance(self.told[-1], bytearray):
            self.told[-1] += data
        else:
            self.told.append(bytearray(data))
        self._received(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.told.append(f"lost: {reason.type.__name__}")


@implementer(IHalfCloseableProtocol)
class HalfClosing(Recorder):
    """One that goes on when the other end has said all."""

    def readConnectionLost(self) -> None:
        self.told.append("read lost")

    def writeConnectionLost(self) -> None:
        self.told.append("write lost")


class Client(ClientFactory):
    """Makes `protocol` its protocol; remembers how connecting went."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.told: list[str] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.told.append("built")
        return self._protocol

    def doStart(self) -> None:
        self.told.append("start")
        super().doStart()

    def doStop(self) -> None:
        self.told.append("stop")
        super().doStop()

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.told.append(f"failed: {reason.type.__name__}")

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        self.told.append(f"lost: {reason.type.__name__}")


class Server(Factory):
    """Makes one protocol."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


class Net:
    """Two reactors that can reach each other."""

    def __init__(self, here: Any, there: Any, address: str) -> None:
        self.here, self.there, self.address = here, there, address
        self.ports: list[Any] = []
        self.protocols: list[Any] = []
        self.connectors: list[Any] = []
        self.factory: Any = None

    def open(self, client: Any, server: Any, timeout: float = 30) -> Any:
        """Connect; the connector."""
        self.protocols += [each for each in (client, server) if each is not None]
        self.ports.append(port := self.there.listenTCP(0, Server(server), interface=""))
        return self.connect(client, port.getHost().port, timeout)

    def connect(self, client: Any, port: int, timeout: float = 30) -> Any:
        self.factory = Client(client)
        self.connectors.append(self.here.connectTCP(self.address, port, self.factory, timeout))
        return self.connectors[-1]

    async def until(self, *conditions: Callable[[], object], seconds: float = 5.0) -> None:
        """Wait until all of these hold."""
        end = self.here.seconds() + seconds
        while not all(condition() for condition in conditions):
            assert self.here.seconds() < end, "it did not come true"
            await deferLater(self.here, 0.002)

    async def quiet(self) -> None:
        """Long enough for anything that is on its way."""
        await deferLater(self.here, 0.05)


@pytest.fixture
def world() -> Any:
    with World([Idle], seed=3) as world:
        yield world


def net_of(world: World) -> Net:
    there = world.hosts["idle/2"]
    return Net(world.hosts["idle/1"].reactor, there.reactor, there.address)


@pytest.fixture(params=["simulated", "real"])
def play(request: pytest.FixtureRequest) -> Any:
    """`play(scenario)`: what `await scenario(net)` returns, on two simulated hosts or on loopback."""
    if request.param == "simulated":
        world = request.getfixturevalue("world")

        async def simulated(scenario: Any) -> Any:
            return world.run(scenario(net_of(world)), timeout=60)

        return simulated
    from twisted.internet import reactor

    net = Net(reactor, reactor, "127.0.0.1")

    async def played(scenario: Any) -> Any:
        try:
            return await scenario(net)
        finally:
            for connector in net.connectors:
                connector.disconnect()
            for protocol in net.protocols:
                if protocol.transport is not None:
                    protocol.transport.abortConnection()
            for port in net.ports:
                await (port.stopListening() or deferLater(reactor, 0))
            await deferLater(reactor, 0.01)

    return lambda scenario: Driver.of(reactor).run(played(scenario))  # type: ignore[arg-type]


# -- the same as on real sockets


@ensureDeferred
async def test_bytes_arrive_in_order_and_whole_then_the_end(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        for number in range(100):
            client.transport.write(b"%d," % number)
            if number % 10 == 0:
                await deferLater(net.here, 0)
        client.transport.writeSequence([b"a", b"", b"b"])
        client.transport.loseConnection()
        await net.until(lambda: client.over and server.over)
        return client.told, server.told, net.factory.told

    client, server, factory = await play(scenario)

    assert ["made", "lost: ConnectionDone"] == client
    assert ["made", b"".join(b"%d," % n for n in range(100)) + b"ab", "lost: ConnectionDone"] == server
    assert ["start", "built", "lost: ConnectionDone", "stop"] == factory


@ensureDeferred
async def test_the_addresses_are_each_others(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        ends = client.transport, server.transport
        return [ends[0].getHost() == ends[1].getPeer(), ends[1].getHost() == ends[0].getPeer()]

    assert [True, True] == await play(scenario)


@ensureDeferred
async def test_data_that_comes_before_the_client_is_connected_is_kept_for_it(play):
    async def scenario(net: Net) -> Any:
        client = Recorder()
        server = Recorder(made=lambda p: (p.transport.write(b"welcome"), p.transport.loseConnection()))
        net.open(client, server)
        await net.until(lambda: client.over and server.over)
        return client.told, server.told

    assert (["made", b"welcome", "lost: ConnectionDone"], ["made", "lost: ConnectionDone"]) == await play(scenario)


@ensureDeferred
async def test_a_connection_aborted_by_the_server_at_once_is_made_and_lost(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder(made=lambda p: p.transport.abortConnection())
        net.open(client, server)
        await net.until(lambda: client.over and server.over)
        return client.told, server.told

    assert (["made", "lost: ConnectionLost"], ["made", "lost: ConnectionAborted"]) == await play(scenario)


@ensureDeferred
async def test_abort_is_told_as_aborted_here_and_as_lost_there(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.abortConnection()
        client.transport.abortConnection()
        client.transport.write(b"nobody hears")
        during = list(client.told)
        await net.until(lambda: client.over and server.over)
        return during, client.told, server.told

    assert (["made"], ["made", "lost: ConnectionAborted"], ["made", "lost: ConnectionLost"]) == await play(scenario)


@ensureDeferred
async def test_who_closes_is_told_in_a_turn_of_its_own_and_once(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseConnection()
        client.transport.loseConnection()
        during = list(client.told)
        await net.until(lambda: client.over and server.over)
        client.transport.write(b"too late")
        client.transport.loseConnection()
        client.transport.abortConnection()
        await net.quiet()
        return during, client.told, server.told

    told = ["made", "lost: ConnectionDone"]
    assert (["made"], told, told) == await play(scenario)


@ensureDeferred
async def test_what_is_written_in_the_turn_of_closing_still_goes(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseConnection()
        client.transport.write(b"after")
        await net.until(lambda: client.over and server.over)
        return list(server.told)

    assert ["made", b"after", "lost: ConnectionDone"] == await play(scenario)


@ensureDeferred
async def test_both_may_close_at_the_same_time(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseConnection()
        server.transport.loseConnection()
        await net.until(lambda: client.over and server.over)
        return client.told, server.told

    told = ["made", "lost: ConnectionDone"]
    assert (told, told) == await play(scenario)


@ensureDeferred
async def test_text_is_refused(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told)
        with pytest.raises(TypeError):
            client.transport.write("text")

    await play(scenario)


@ensureDeferred
async def test_nobody_listening_is_refused(play):
    async def scenario(net: Net) -> Any:
        client = Recorder()
        connector = net.open(client, Recorder())
        await net.until(lambda: client.told)
        port = net.ports[0].getHost().port
        stopped = net.ports.pop().stopListening()
        if stopped is not None:
            await stopped
        connector.disconnect()
        net.connect(Recorder(), port)
        await net.until(lambda: len(net.factory.told) == 3)
        return net.factory.told, net.connectors[-1].state

    assert (["start", "failed: ConnectionRefusedError", "stop"], "disconnected") == await play(scenario)


@ensureDeferred
async def test_two_cannot_listen_at_one_port(play):
    async def scenario(net: Net) -> Any:
        net.open(Recorder(), Recorder())
        port = net.ports[0].getHost().port
        with pytest.raises(error.CannotListenError):
            net.there.listenTCP(port, Server(Recorder()))

    await play(scenario)


@ensureDeferred
async def test_who_stops_connecting_is_told_so_and_may_not_twice(play):
    async def scenario(net: Net) -> Any:
        connector = net.open(Recorder(), Recorder())
        connector.stopConnecting()
        with pytest.raises(error.NotConnectingError):
            connector.stopConnecting()
        await net.quiet()
        return net.factory.told

    assert ["start", "failed: UserError", "stop"] == await play(scenario)


@ensureDeferred
async def test_a_factory_may_give_up_as_soon_as_connecting_starts(play):
    async def scenario(net: Net) -> Any:
        class Hasty(Client):
            def startedConnecting(self, connector: Any) -> None:
                connector.stopConnecting()

        factory = Hasty(Recorder())
        net.here.connectTCP(net.address, 1, factory)
        await net.quiet()
        return factory.told

    assert ["start", "failed: UserError", "stop"] == await play(scenario)


def test_a_server_that_wants_no_connection_closes_it(world):
    async def scenario(net: Net) -> Any:
        client = Recorder()
        net.open(client, None)
        await net.until(lambda: net.factory.told[-1] == "stop")
        return client.told, net.factory.told

    # A real Port does the same, but leaves the socket to the collector, which warns of it: not played there.
    expected = ["made", "lost: ConnectionDone"], ["start", "built", "lost: ConnectionDone", "stop"]
    assert expected == world.run(scenario(net_of(world)))


@ensureDeferred
async def test_a_client_that_wants_no_protocol_loses_the_connection(play):
    async def scenario(net: Net) -> Any:
        server = Recorder()
        net.open(None, server)
        await net.until(lambda: server.over, lambda: net.factory.told[-1] == "stop")
        return net.factory.told

    assert ["start", "built", "lost: ConnectionDone", "stop"] == await play(scenario)


@ensureDeferred
async def test_a_factory_may_connect_again_when_it_has_failed(play):
    async def scenario(net: Net) -> Any:
        class Stubborn(Client):
            tries = 0

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                super().clientConnectionFailed(connector, reason)
                self.tries += 1
                if self.tries < 3:
                    connector.connect()

        net.open(Recorder(), Recorder())
        port = net.ports[0].getHost().port
        stopped = net.ports.pop().stopListening()
        if stopped is not None:
            await stopped
        factory = Stubborn(Recorder())
        net.here.connectTCP(net.address, port, factory)
        await net.until(lambda: factory.tries == 3)
        await net.quiet()
        return factory.told.count("failed: ConnectionRefusedError"), factory.told[-1], factory.numPorts

    assert (3, "stop", 0) == await play(scenario)


@pytest.mark.parametrize("bad", ["client", "server"])
@ensureDeferred
async def test_a_protocol_that_raises_loses_its_connection_and_the_failure_is_told(
    play, bad, request, flush_logged_errors
):
    def explode(protocol: Any) -> None:
        raise ValueError("what is this")

    async def scenario(net: Net) -> Any:
        ends = {name: Recorder(received=explode if name == bad else id) for name in ("client", "server")}
        net.open(ends["client"], ends["server"])
        await net.until(*(lambda end=end: end.told for end in ends.values()))
        ends["server" if bad == "client" else "client"].transport.write(b"surprise")
        await net.until(*(lambda end=end: end.over for end in ends.values()))
        return ends[bad].told

    assert ["made", b"surprise", "lost: ValueError"] == await play(scenario)
    if "world" in request.fixturenames:
        (failure,) = request.getfixturevalue("world").flush_failures()
        assert "what is this" in failure
    flush_logged_errors(ValueError)


# -- half-closed


@ensureDeferred
async def test_a_half_closed_connection_still_carries_the_answer(play):
    async def scenario(net: Net) -> Any:
        client, server = HalfClosing(), HalfClosing()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await net.until(lambda: "read lost" in server.told)
        server.transport.write(b"answer")
        server.transport.loseConnection()
        await net.until(lambda: "read lost" in client.told)
        client.transport.loseConnection()
        await net.until(lambda: client.over and server.over)
        return client.told, server.told

    client, server = await play(scenario)

    assert ["made", "write lost", b"answer", "read lost", "lost: ConnectionDone"] == client
    assert ["made", b"question", "read lost", "lost: ConnectionDone"] == server


@ensureDeferred
async def test_after_the_end_of_writing_nothing_more_is_written_and_the_end_comes_once(play):
    async def scenario(net: Net) -> Any:
        client, server = HalfClosing(), HalfClosing()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseWriteConnection()
        await net.until(lambda: "read lost" in server.told)
        client.transport.write(b"one word more")
        client.transport.loseWriteConnection()
        await net.quiet()
        return list(server.told)

    assert ["made", "read lost"] == await play(scenario)


@ensureDeferred
async def test_closing_after_the_end_of_writing_says_the_end_once(play):
    async def scenario(net: Net) -> Any:
        client, server = HalfClosing(), HalfClosing()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseWriteConnection()
        await net.until(lambda: "read lost" in server.told)
        client.transport.loseConnection()
        await net.until(lambda: client.over)
        await net.quiet()
        return list(server.told)

    assert ["made", "read lost"] == await play(scenario)


@ensureDeferred
async def test_one_that_knows_no_half_closes_when_the_other_has_said_all(play):
    async def scenario(net: Net) -> Any:
        client, server = HalfClosing(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.loseWriteConnection()
        await net.until(lambda: server.over, lambda: "read lost" in client.told)
        return list(server.told)

    assert ["made", "lost: ConnectionDone"] == await play(scenario)


@ensureDeferred
async def test_who_writes_to_one_that_has_closed_hears_it(play):
    async def scenario(net: Net) -> Any:
        client, server = HalfClosing(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        server.transport.loseConnection()
        await net.until(lambda: server.over, lambda: "read lost" in client.told)
        for _ in range(5):
            client.transport.write(b"are you there?")
            await net.quiet()
        return client.told[-1]

    assert "lost: ConnectionLost" == await play(scenario)


# -- producers and backpressure


class Push:
    """A push producer: writes until it is told to stop."""

    def __init__(self, transport: Any, reactor: Any, size: int = 10_000, limit: int = BIG) -> None:
        self.told: list[str] = []
        self.written = 0
        self._transport, self._reactor, self._size, self._limit = transport, reactor, size, limit
        self._paused = False
        transport.registerProducer(self, True)
        self.go()

    def go(self) -> None:
        while not self._paused and self.written < self._limit:
            self.written += self._size
            self._transport.write(b"x" * self._size)
        if self.written >= self._limit and "done" not in self.told:
            self.told.append("done")
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.told.append("pause")
        self._paused = True

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self._paused = False
        self.go()

    def stopProducing(self) -> None:
        self.told.append("stop")
        self._paused = True


class Pull:
    """A pull producer: writes one piece each time it is asked."""

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        self._transport, self._pieces = transport, pieces
        self.asked = 0
        self.stopped = False
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.asked += 1
        if self._pieces:
            self._transport.write(self._pieces.pop(0))
        else:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


@ensureDeferred
async def test_a_push_producer_is_paused_until_the_reader_reads_and_nothing_is_lost(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder(made=lambda p: p.transport.pauseProducing())
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        producer = Push(client.transport, net.here, limit=12 * BIG)
        await net.quiet()
        stuck, unread = list(producer.told[-1:]), server.data
        server.transport.resumeProducing()
        await net.until(lambda: len(server.data) == 12 * BIG, seconds=30)
        return stuck, unread, producer.told[-1]

    assert (["pause"], b"", "done") == await play(scenario)


@ensureDeferred
async def test_closing_waits_for_the_producer(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        producer = Push(client.transport, net.here, limit=2 * BIG)
        client.transport.loseConnection()
        await net.until(lambda: client.over and server.over)
        return len(server.data), server.told[-1], producer.told[-1]

    assert (2 * BIG, "lost: ConnectionDone", "done") == await play(scenario)


@ensureDeferred
async def test_a_pull_producer_is_asked_for_each_piece(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        producer = Pull(client.transport, [b"%d;" % number for number in range(50)])
        client.transport.loseConnection()
        await net.until(lambda: client.over and server.over)
        return server.data, producer.asked, producer.stopped

    assert (b"".join(b"%d;" % number for number in range(50)), 51, False) == await play(scenario)


@ensureDeferred
async def test_a_producer_is_stopped_when_its_connection_is_lost(play):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder(made=lambda p: p.transport.pauseProducing())
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        producer = Push(client.transport, net.here, limit=50 * BIG)
        server.transport.abortConnection()
        await net.until(lambda: client.over)
        return producer.told[-1], client.told[-1]

    assert ("stop", "lost: ConnectionLost") == await play(scenario)


@ensureDeferred
async def test_a_second_producer_is_refused(play):
    async def scenario(net: Net) -> Any:
        client = Recorder()
        net.open(client, Recorder())
        await net.until(lambda: client.told)
        producer = Pull(client.transport, [b"x"])
        with pytest.raises(RuntimeError):
            client.transport.registerProducer(producer, True)
        client.transport.unregisterProducer()

    await play(scenario)


@ensureDeferred
async def test_a_producer_registered_after_the_end_is_stopped_at_once(play):
    async def scenario(net: Net) -> Any:
        client = Recorder()
        net.open(client, Recorder())
        await net.until(lambda: client.told)
        transport = client.transport
        transport.abortConnection()
        await net.until(lambda: client.over)
        return Pull(transport, [b"too late"]).stopped

    assert await play(scenario)


@ensureDeferred
async def test_who_pauses_reading_in_the_middle_gets_the_rest_when_it_goes_on(play):
    def pause(protocol: Any) -> None:
        if len(protocol.data) < BIG:
            protocol.transport.pauseProducing()

    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder(received=pause)
        net.open(client, server)
        await net.until(lambda: client.told and server.told)
        client.transport.write(b"y" * BIG)
        client.transport.loseConnection()
        before = -1
        while not server.over:
            assert before < len(server.data) or server.over
            before = len(server.data)
            server.transport.resumeProducing()
            await net.until(lambda before=before: len(server.data) > before or server.over)
        return server.data == b"y" * BIG, server.told[-1]

    assert (True, "lost: ConnectionDone") == await play(scenario)


# -- as interfaces


def test_they_provide_what_they_say(world):
    async def scenario(net: Net) -> Any:
        client, server = Recorder(), Recorder()
        connector = net.open(client, server)
        await net.until(lambda: client.told)
        return client.transport, net.ports[0], connector

    transport, port, connector = world.run(scenario(net_of(world)))

    assert verifyObject(ITCPTransport, transport)
    assert verifyObject(IListeningPort, port)
    assert verifyObject(IConnector, connector)


# -- what only a simulated network can be asked


class Pair:
    """An open connection between idle/1 (client) and idle/2 (server)."""

    def __init__(self, world: World, kind: type[Recorder] = Recorder) -> None:
        self.net = net_of(world)
        self.client, self.server = kind(), kind()
        self.connector = self.net.open(self.client, self.server)
        self.factory = self.net.factory
        world.until(lambda: self.client.told and self.server.told)


def test_a_connection_takes_a_way_there_and_back_and_data_one_way(world):
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))

    begun = world.now
    pair = Pair(world)
    made = world.now - begun
    pair.client.transport.write(b"x")
    world.until(lambda: pair.server.data)

    assert (2.0, 3.0) == (pytest.approx(made), pytest.approx(world.now - begun))


def test_nobody_at_that_address_is_a_timeout(world):
    net = net_of(world)
    net.address = "10.9.9.9"
    net.connect(Recorder(), 80, timeout=7.0)
    begun = world.now

    world.until(lambda: "stop" in net.factory.told)

    assert ["start", "failed: TimeoutError", "stop"] == net.factory.told
    assert 7.0 == pytest.approx(world.now - begun)


@pytest.mark.parametrize("a", ["idle/1", "idle/2"])
def test_a_connection_over_a_link_that_is_cut_either_way_is_a_timeout(world, a):
    world.partition(a, "idle/2" if a == "idle/1" else "idle/1", one_way=True)
    net = net_of(world)
    client, server = Recorder(), Recorder()
    net.open(client, server, timeout=5.0)

    world.advance(10.0)
    world.heal()
    world.advance(10.0)

    assert ["start", "failed: TimeoutError", "stop"] == net.factory.told
    assert [] == client.told
    assert server.told in ([], ["made", "lost: ConnectionLost"])  # what came too late is reset


def test_a_process_that_is_down_refuses_and_a_machine_without_power_says_nothing(world):
    net = net_of(world)
    world.crash("idle/2")
    net.connect(Recorder(), PORT, timeout=5.0)
    world.advance(10.0)
    refused = net.factory.told

    world.restart("idle/2")
    world.crash("idle/2", power=True)
    net.connect(Recorder(), PORT, timeout=5.0)
    world.advance(10.0)

    assert ["start", "failed: ConnectionRefusedError", "stop"] == refused
    assert ["start", "failed: TimeoutError", "stop"] == net.factory.told


def test_a_partition_holds_what_is_sent_and_its_end_lets_it_go_in_order(world):
    pair = Pair(world)
    world.partition("idle/1", "idle/2")
    for number in range(20):
        pair.client.transport.write(b"%d," % number)
        pair.server.transport.write(b"%d;" % number)
        world.advance(1.0)
    during = pair.client.told + pair.server.told

    world.heal()
    pair.client.transport.write(b"end")
    world.advance(1.0)

    assert ["made", "made"] == during
    assert b"".join(b"%d," % n for n in range(20)) + b"end" == pair.server.data
    assert b"".join(b"%d;" % n for n in range(20)) == pair.client.data


def test_what_is_on_its_way_when_the_link_is_cut_is_held_too(world):
    pair = Pair(world)
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    pair.client.transport.write(b"halfway")
    world.advance(0.5)
    world.partition("idle/1", "idle/2")
    world.advance(10.0)
    during = pair.server.data

    world.heal("idle/1", "idle/2")
    world.advance(1.1)

    assert (b"", b"halfway") == (during, pair.server.data)


def test_one_way_cuts_one_way(world):
    pair = Pair(world)
    world.partition("idle/1", "idle/2", one_way=True)
    pair.client.transport.write(b"question")
    pair.server.transport.write(b"news")
    world.advance(5.0)

    assert (b"", b"news") == (pair.server.data, pair.client.data)


def test_hold_and_release_let_several_connections_go_in_the_order_they_were_held(world):
    arrived: list[str] = []
    net = net_of(world)
    world.link("idle/1", "idle/2", latency=(0.5, 0.5))
    clients = []
    for name in "abc":
        client = Recorder()
        net.open(client, Recorder(received=lambda _, name=name: arrived.append(name)))
        clients.append(client)
    world.until(lambda: all(client.told for client in clients))

    world.hold("idle/1", "idle/2")
    for index in (2, 0, 1):
        clients[index].transport.write(b"x")
        world.advance(1.0)
    during = list(arrived)
    world.release("idle/1", "idle/2")
    world.advance(1.0)

    assert ([], ["c", "a", "b"]) == (during, arrived)


def test_a_link_cut_again_before_what_was_held_has_arrived_holds_it_again(world):
    pair = Pair(world)
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    world.partition("idle/1", "idle/2")
    for piece in (b"a", b"b", b"c"):
        pair.client.transport.write(piece)
        world.advance(0.1)
    world.heal()
    world.advance(0.5)
    world.partition("idle/1", "idle/2")
    world.advance(5.0)
    during = pair.server.data

    world.heal()
    world.advance(1.5)

    assert (b"", b"abc") == (during, pair.server.data)


def test_nothing_is_quicker_than_its_link_after_a_partition(world):
    pair = Pair(world)
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    pair.client.transport.write(b"a")
    world.advance(0.5)
    world.link("idle/1", "idle/2", latency=(10.0, 10.0))
    pair.client.transport.write(b"b")  # due at 10.5
    world.partition("idle/1", "idle/2")
    world.advance(2.0)
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    world.heal()
    world.advance(7.5)  # 10.0: both have come, by their new times
    both = pair.server.data
    pair.client.transport.write(b"c")  # due at 11
    world.advance(0.75)

    assert (b"ab", b"ab") == (both, pair.server.data)


def test_a_link_may_be_cut_between_the_halves_of_a_split_segment(world):
    pair = Pair(world)
    world.link("idle/1", "idle/2", split=1.0)
    for number in range(50):
        pair.client.transport.write(b"%03d," % number)
        if number == 25:
            world.partition("idle/1", "idle/2")
        if number == 40:
            world.heal()
        world.advance(0.0005)
    world.advance(1.0)

    assert b"".join(b"%03d," % n for n in range(50)) == pair.server.data


def test_what_is_written_in_one_turn_comes_in_one_piece_unless_the_link_splits(world):
    pieces: list[bytes] = []
    world.link("idle/1", "idle/2", split=0.0)
    pair = Pair(world)
    pair.server._received = lambda protocol: pieces.append(protocol.data)

    pair.client.transport.write(b"head ")
    pair.client.transport.write(b"body")
    world.advance(1.0)

    assert [b"head body"] == pieces


def test_bandwidth_is_paid_for_every_byte_of_a_turn(world):
    world.link("idle/1", "idle/2", bandwidth=1000.0, split=0.0)
    pair = Pair(world)
    begun = world.now

    pair.client.transport.write(b"x")
    pair.client.transport.write(b"y" * 10_000)
    world.until(lambda: len(pair.server.data) == 10_001)

    assert world.now - begun >= 10.0


def test_bandwidth_is_a_rate_of_the_link_and_not_of_each_piece(world):
    world.link("idle/1", "idle/2", bandwidth=1000.0, split=0.0)
    pair = Pair(world)
    begun = world.now

    for _ in range(10):
        pair.client.transport.write(b"x" * 1000)
        world.advance(0.001)
    world.until(lambda: len(pair.server.data) == 10_000)

    assert 10.0 == pytest.approx(world.now - begun, abs=0.2)


def test_a_lossy_link_resets_its_connections_at_both_ends(world):
    pair = Pair(world)
    world.link("idle/1", "idle/2", loss=1.0)

    pair.client.transport.write(b"x")
    world.advance(1.0)

    assert ["made", "lost: ConnectionLost"] == pair.client.told == pair.server.told


def test_a_fault_on_one_link_takes_no_chance_from_another(world):
    def times(other: bool) -> list[float]:
        with World([Idle], seed=11) as world:
            a, b, outside = (world.hosts[name] for name in ("idle/1", "idle/2", "outside"))
            found = []
            for _ in range(20):
                found.append(world.network.arrival(a, b))
                if other:
                    world.network.arrival(outside, b)
            return found

    assert times(False) == times(True)


# -- the death of a peer


def test_a_process_that_dies_resets_its_connections(world):
    pair = Pair(world)
    pair.server.transport.write(b"last words")

    world.crash("idle/2")
    world.advance(1.0)

    assert ["made", b"last words", "lost: ConnectionLost"] == pair.client.told
    assert ["made"] == pair.server.told


def test_a_machine_without_power_leaves_its_peer_half_open(world):
    pair = Pair(world)

    world.crash("idle/2", power=True)
    pair.client.transport.write(b"hello?")
    world.advance(600.0)

    assert ["made"] == pair.client.told


def test_who_writes_to_a_machine_that_has_come_back_is_reset(world):
    pair = Pair(world)
    world.crash("idle/2", power=True)
    world.advance(10.0)
    world.restart("idle/2")
    world.advance(1.0)

    pair.client.transport.write(b"hello again")
    world.advance(1.0)

    assert ["made", "lost: ConnectionLost"] == pair.client.told


def test_what_was_written_while_the_machine_was_dark_meets_a_reset_when_it_is_back(world):
    pair = Pair(world)
    world.crash("idle/2", power=True)
    pair.client.transport.write(b"hello?")  # a kernel sends it again, for minutes
    world.advance(10.0)

    world.restart("idle/2")
    world.advance(60.0)

    assert ["made", "lost: ConnectionLost"] == pair.client.told


def test_the_reset_of_a_dead_process_waits_behind_a_partition_like_everything(world):
    pair = Pair(world)
    world.partition("idle/1", "idle/2")
    world.crash("idle/2")
    world.advance(60.0)
    during = list(pair.client.told)

    world.heal()
    world.advance(1.0)

    assert (["made"], ["made", "lost: ConnectionLost"]) == (during, pair.client.told)


def test_the_dead_write_nothing_close_nothing_and_hear_nothing(world):
    pair = Pair(world)
    pair.client.transport.write(b"on its way")
    world.crash("idle/2")

    pair.server.transport.write(b"from the grave")
    pair.server.transport.loseConnection()
    pair.server.transport.abortConnection()
    pair.net.there.callLater(0, pair.server.told.append, "acted")
    world.advance(5.0)

    assert ["made"] == pair.server.told
    assert ["made", "lost: ConnectionLost"] == pair.client.told


def test_a_client_that_dies_while_it_connects_leaves_nothing_with_the_server(world):
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    net = net_of(world)
    client, server = Recorder(), Recorder()
    net.open(client, server)
    world.until(lambda: server.told)

    world.crash("idle/1")
    world.advance(5.0)

    assert ([], ["made", "lost: ConnectionLost"]) == (client.told, server.told)
    assert {} == world.open_connections()


def test_a_client_without_power_cannot_refuse_the_connection_it_asked_for(world):
    world.link("idle/1", "idle/2", latency=(1.0, 1.0))
    net = net_of(world)
    client, server = Recorder(), Recorder()
    net.open(client, server)
    world.until(lambda: server.told)

    world.crash("idle/1", power=True)
    world.advance(5.0)

    assert ["made"] == server.told


def test_a_paused_process_answers_when_it_goes_on_and_its_kernel_keeps_the_bytes(world):
    pair = Pair(world)
    world.pause("idle/2")
    for piece in (b"a", b"b", b"c"):
        pair.client.transport.write(piece)
        world.advance(1.0)
    during = pair.server.data

    world.resume("idle/2")
    world.advance(1.0)

    assert (b"", b"abc") == (during, pair.server.data)


def test_the_kernel_of_a_paused_process_still_accepts(world):
    net = net_of(world)
    client, server = Recorder(), Recorder()
    world.pause("idle/2")
    net.open(client, server, timeout=5.0)
    world.advance(10.0)
    during = list(client.told), list(server.told)

    world.resume("idle/2")
    world.advance(1.0)

    assert ((["made"], []), ["made"]) == (during, server.told)


def test_a_connection_that_waits_to_be_accepted_is_reset_when_its_port_closes(world):
    net = net_of(world)
    client, server = Recorder(lambda it: it.transport.write(b"hello")), Recorder()
    world.pause("idle/2")
    net.open(client, server)
    world.advance(1.0)
    waiting = list(client.told)

    net.ports[0].stopListening()
    world.resume("idle/2")
    world.advance(1.0)

    assert (["made"], ["made", "lost: ConnectionLost"], []) == (waiting, client.told, server.told)
    assert {} == world.open_connections()


def test_some_of_what_is_sent_to_a_host_that_coincides_comes_at_the_moment_of_its_next_timer(world):
    here, there = world.hosts["idle/1"], world.hosts["idle/2"]
    timers = [there.reactor.callLater(seconds, list).at for seconds in (5.0, 7.0)]

    def late() -> set[float]:
        """When those of a hundred pieces come that take longer than their link does."""
        sent, come = world.now, []
        for _ in range(100):
            world.network.send(here, there, lambda: come.append(world.now))
        world.advance(20.0)
        assert 100 == len(come)
        return {at for at in come if at > sent + 0.001}

    world.coincide("idle/2")
    during = late()
    there.reactor.callLater(5.0, list)
    world.coincide("idle/2", False)

    assert ({timers[0]}, set()) == (during, late())


def test_bytes_that_come_at_the_moment_of_a_timer_stay_in_order(world):
    pair, at = Pair(world), set()
    pair.server._received = lambda _: at.add(world.now)
    timers = {world.hosts["idle/2"].reactor.callLater(number, list).at for number in range(1, 40)}
    world.coincide("idle/2")

    for number in range(100):
        pair.client.transport.write(b"%d," % number)
        world.advance(0.3)
    world.advance(10.0)

    assert b"".join(b"%d," % number for number in range(100)) == pair.server.data
    assert 5 < len(at & timers) < len(at)


def test_reset_breaks_what_is_open_between_two_and_nothing_else(world):
    pair, other = Pair(world), Recorder()
    net = Net(world.hosts["outside"].reactor, world.hosts["idle/2"].reactor, world.hosts["idle/2"].address)
    net.open(other, Recorder())
    world.until(lambda: other.told)

    world.reset("idle/2", "idle/1")
    world.advance(1.0)

    assert ["made", "lost: ConnectionLost"] == pair.client.told == pair.server.told
    assert ["made"] == other.told


def test_open_connections_are_counted_from_who_asked_to_whom(world):
    first, _ = Pair(world), Pair(world)
    before = world.open_connections()

    first.client.transport.loseConnection()
    world.advance(1.0)

    assert ({("idle/1", "idle/2"): 2}, {("idle/1", "idle/2"): 1}) == (before, world.open_connections())


def test_a_connection_is_silent_since_the_last_byte_that_went_over_it_either_way(world):
    pair = Pair(world)
    outside = world.hosts["outside"].reactor
    Net(outside, world.hosts["idle/2"].reactor, world.hosts["idle/2"].address).open(Recorder(), Recorder())
    world.advance(10.0)
    pair.server.transport.write(b"x")
    world.advance(5.0)
    since_heard = world.silent_for(4.0), world.silent_for(6.0)

    pair.client.transport.write(b"y")
    since_said = world.silent_for(4.0)
    world.advance(5.0)
    pair.client.transport.loseConnection()
    world.advance(1.0)

    assert (["from idle/1 to idle/2, silent for 5 s"], []) == since_heard
    assert ([], []) == (since_said, world.silent_for(0.0))


def test_bytes_of_a_connection_survive_any_weather_in_order_and_whole():
    for seed in range(5):
        with World([Idle], seed=seed) as world:
            world.link("idle/1", "idle/2", latency=(0.0, 0.5), split=0.5, bandwidth=5000.0)
            pair = Pair(world)
            sent = {"client": b"", "server": b""}
            for step in range(120):
                for name, end in (("client", pair.client), ("server", pair.server)):
                    piece = b"%d/%d " % (step, world.random.randrange(10**9))
                    sent[name] += piece
                    end.transport.write(piece)
                chance = world.random.random()
                if chance < 0.1:
                    world.partition("idle/1", "idle/2", one_way=chance < 0.05)
                elif chance < 0.2:
                    world.heal()
                elif chance < 0.25:
                    world.pause("idle/2")
                elif chance < 0.35:
                    world.resume("idle/2")
                world.advance(world.random.random() * 0.1)
            world.calm()
            world.advance(60.0)

            assert (sent["client"], sent["server"]) == (pair.server.data, pair.client.data)
