"""TCP connections as Twisted sees them: two ends, the flow of bytes each way, a listening port, a connector.

An end is an `ITCPTransport` with the semantics of Twisted's own: what is written in one turn becomes one segment, a
close comes after what was written, a producer is paused when the other side does not read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.abstract import isIPAddress
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from .network import Network

WINDOW = 65536  # bytes on the way to one end before its writer is asked to pause
FIN, RST = "fin", "rst"


class Flow:
    """What one end sends to the other, in order."""

    def __init__(self, network: Network, source: End, target: End) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._collecting: bytearray | None = None  # what is written in this turn becomes one segment
        self._turn = -1
        self._queue: deque[bytearray | str] = deque()  # sent and not arrived
        self._last = 0.0  # when the latest of them arrives
        self._timer: Any = None  # of that segment's arrival
        self._held = False
        self.on_the_way = 0  # bytes not yet handed to the other end's protocol

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.on_the_way += len(data)
        if self._collecting is not None and self._turn == self._network.timeline.fired and self._queue:
            self._collecting += data
            network, source, target = self._network, self._source.reactor.host, self._target.reactor.host
            if self._timer is not None and self._timer.active() and network.link(source, target).bandwidth:
                self._last = network.timeline.now + network.transmission(source, target, len(data))
                network.timeline.move(self._timer, max(self._last, self._timer.at))
            return
        self._collecting = bytearray(data)
        self._turn = self._network.timeline.fired
        self.send(self._collecting)

    def send(self, segment: bytearray | str) -> None:
        """Send bytes, a FIN or a RST after what was sent before."""
        source, target = self._source.reactor.host, self._target.reactor.host
        self._queue.append(segment)
        if not self._held:
            self._schedule(source, target, len(segment))

    def _schedule(self, source: Any, target: Any, size: int) -> None:
        network = self._network
        self._last = max(self._last, network.arrival(source, target, size))
        self._timer = network.timeline.call_at(self._last, target, self._arrive)

    def _arrive(self) -> None:
        if self._held or not self._queue:
            return
        network = self._network
        source, target = self._source.reactor.host, self._target.reactor.host
        link = network.link(source, target)
        if not network.passes(source, target):
            self._held = True
            network.hold(source, target, self._released)
            return
        segment = self._queue.popleft()
        self._collecting = None
        if isinstance(segment, bytearray):
            random = network.random(source, target)
            if link.loss and random.random() < link.loss:
                self._source.reset()
                self._target.reset()
                return
            if link.split and len(segment) > 1 and random.random() < link.split:
                at = random.randrange(1, len(segment))
                self._queue.appendleft(segment[at:])
                segment = segment[:at]
                self._schedule_first(target)
        self._target.arrived(segment)

    def _schedule_first(self, target: Any) -> None:
        # Its second half comes before what follows: nothing else of this flow has fired in between.
        self._network.timeline.call_at(self._network.timeline.now, target, self._arrive)

    def _released(self) -> None:
        self._held = False
        source, target = self._source.reactor.host, self._target.reactor.host
        for segment in self._queue:
            self._schedule(source, target, len(segment))


@implementer(ITCPTransport, IConsumer, IPushProducer)
class End:
    """One end of a connection, as its protocol's transport."""

    flow: Flow
    peer: End

    def __init__(self, network: Network, reactor: Any, protocol: Any, host: IPv4Address, peer: IPv4Address) -> None:
        self._network = network
        self.reactor = reactor
        self.protocol = protocol
        self._host = host
        self._peer_address = peer
        self.connected = True
        self.disconnecting = False
        self._closing = False
        self._said_all = False  # a FIN is on its way, or was
        self.connector: Connector | None = None
        self.gone = False  # with its process: whatever still refers to it does nothing any more
        self.moved = network.timeline.now  # when a byte of it was last written here, or read
        self._inbox: deque[bytearray | str] = deque()
        self._reading = True
        self._producer: Any = None
        self._streaming = False
        self._asked_to_pause = False
        network.connections[self] = None

    def begin(self) -> None:
        """Its protocol has a transport from now on."""
        self.reactor.call(self.protocol.makeConnection, self)

    # -- ITransport

    def write(self, data: bytes) -> None:
        """Send bytes; ignored when the connection is no more."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"Data must be bytes, got {type(data).__name__}.")
        if not self.connected or self.gone or self._said_all or not data:
            return
        self.moved = self._network.timeline.now
        self.flow.write(bytes(data))
        if self._streaming and not self._asked_to_pause and self.flow.on_the_way > WINDOW:
            self._asked_to_pause = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Send bytes."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when everything that was written is sent."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._close_when_sent()

    def abortConnection(self) -> None:
        """Close at once."""
        if self.connected and not self.gone:
            self.disconnecting = True
            self.flow.send(RST)
            self._lose_soon(error.ConnectionAborted())

    def loseWriteConnection(self) -> None:
        """Say that no more is to come."""
        if self.connected and not self.gone and not self._said_all:
            self.reactor.callLater(0, self._say_all, True)

    def getHost(self) -> IPv4Address:
        """This end."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """The other end."""
        return self._peer_address

    def getTcpNoDelay(self) -> bool:
        """Always: nothing is delayed."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Without meaning here."""

    def getTcpKeepAlive(self) -> bool:
        """Never."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Without meaning here."""

    # -- IConsumer, for what is written

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As IConsumer."""
        if self._producer is not None:
            raise RuntimeError(f"Cannot register {producer!r}: {self._producer!r} was never unregistered.")
        if not self.connected or self.gone:
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """As IConsumer."""
        self._producer = None
        self._streaming = self._asked_to_pause = False
        if self.disconnecting:
            self._close_when_sent()

    # -- IPushProducer, for what is read

    def pauseProducing(self) -> None:
        """Keep what comes."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Hand over what came, in a turn of its own."""
        if self.connected and not self._reading and not self.disconnecting:
            self._reading = True
            self.reactor.callLater(0, self._read)

    def stopProducing(self) -> None:
        """No more of it."""
        self.loseConnection()

    # -- what the network does

    def arrived(self, segment: bytearray | str) -> None:
        """Something has come from the other end."""
        if self.gone or not self.reactor.alive:
            if segment != RST:
                self._answer_reset()
            return
        if not self.connected:
            if isinstance(segment, bytearray):
                self._answer_reset()  # nobody reads it any more
            return
        self._inbox.append(segment)
        self.reactor.soon(self._read)

    def reset(self) -> None:
        """The connection broke on the way."""
        if self.connected and not self.gone and self.reactor.alive:
            self.lost(Failure(error.ConnectionLost("Connection was reset.")))

    def lost(self, reason: Failure) -> None:
        """The connection is no more; tells the protocol."""
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        self._network.connections.pop(self, None)
        producer, self._producer = self._producer, None
        if producer is not None:
            self.reactor.call(producer.stopProducing)
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self.reactor.call(protocol.connectionLost, reason)
        if self.connector is not None:
            self.connector.lost(reason)

    def _read(self) -> None:
        while self._inbox and self.connected and self.protocol is not None:
            first = self._inbox[0]
            if first == RST:
                self.reset()
                return
            if not self._reading:
                return
            self._inbox.popleft()
            if first == FIN:
                self._ended()
                return
            assert isinstance(first, bytearray)
            self.moved = self._network.timeline.now
            self.reactor.received(self.protocol, bytes(first), self)
            self.peer.consumed(len(first))

    def consumed(self, size: int) -> None:
        """The other end's protocol has taken that many of the bytes written here."""
        flow = self.flow
        flow.on_the_way -= size
        if not self.connected or self.gone or flow.on_the_way > WINDOW // 2:
            return
        if self._producer is not None and (self._asked_to_pause or not self._streaming):
            self._asked_to_pause = False
            self.reactor.callLater(0, self._resume)
        if self.disconnecting:
            self._close_when_sent()

    def _resume(self) -> None:
        if self._producer is not None:
            self._producer.resumeProducing()

    def _ended(self) -> None:
        if self.protocol is not None and IHalfCloseableProtocol.providedBy(self.protocol):
            self.reactor.call(self.protocol.readConnectionLost)
            return
        self._say_all(False)
        self.lost(Failure(error.ConnectionDone()))

    def _close_when_sent(self) -> None:
        if self._producer is None and self.flow.on_the_way <= WINDOW and not self.gone and not self._closing:
            self._closing = True
            self._reading = False
            self.reactor.callLater(0, self._close)  # what is written in this turn still goes

    def _close(self) -> None:
        if self.connected:
            self._say_all(False)
            self.lost(Failure(error.ConnectionDone()))

    def _say_all(self, half: bool) -> None:
        if not self._said_all and self.connected:
            self._said_all = True
            self.flow.send(FIN)
            if half and IHalfCloseableProtocol.providedBy(self.protocol):
                self.reactor.call(self.protocol.writeConnectionLost)

    def _lose_soon(self, reason: Exception) -> None:
        # In a turn of its own, as a real transport: whoever closes goes on undisturbed.
        self._reading = False
        self.reactor.callLater(0, self.lost, Failure(reason))

    def _answer_reset(self) -> None:
        if self.reactor.host.up:
            self.flow.send(RST)  # after what was sent before, or it would take that with it


@implementer(IListeningPort)
class Port:
    """A listening socket."""

    def __init__(self, network: Network, reactor: Any, number: int, factory: Any) -> None:
        self._network = network
        self.reactor = reactor
        self._number = number
        self._factory = factory
        self.connected = False

    def startListening(self) -> None:
        """Listen; raises CannotListenError when somebody does already."""
        key = (self.reactor.host.address, self._number)
        if key in self._network.ports:
            raise error.CannotListenError(self.reactor.host.address, self._number, OSError("Address already in use"))
        self._network.ports[key] = self
        self.connected = True
        self._factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Listen no more."""
        if self.connected:
            self.connected = False
            self._network.ports.pop((self.reactor.host.address, self._number), None)
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        """Where it listens."""
        return IPv4Address("TCP", self.reactor.host.address, self._number)

    def accept(self, end: End) -> None:
        """Build the protocol of a new connection; without one the connection is closed again."""
        if not end.connected or end.gone:
            return
        if not self.connected:  # closed with connections that waited to be accepted, which the kernel resets
            end.abortConnection()
            return
        end.protocol = self.reactor.call(self._factory.buildProtocol, end.getPeer())
        if end.protocol is None:
            end.loseConnection()
        else:
            end.begin()
            end._read()


@implementer(IConnector)
class Connector:
    """A connection in the making."""

    def __init__(self, network: Network, reactor: Any, host: str, port: int, factory: Any, timeout: float) -> None:
        self._network = network
        self.reactor = reactor
        self.host = host
        self.port = port
        self.factory = factory
        self.timeout = timeout
        self.state = "disconnected"
        self.transport: End | None = None
        self._giving_up: Any = None

    def connect(self) -> None:
        """Begin."""
        self.state = "connecting"
        self.factory.doStart()
        self.factory.startedConnecting(self)
        if self.state == "connecting":
            if self.host in self._network.hosts or isIPAddress(self.host):
                self._giving_up = self.reactor.callLater(self.timeout, self._failed, error.TimeoutError())
                self._network.connect(self)
            else:
                self.reactor.callLater(0, self._failed, error.DNSLookupError(f"no host is called {self.host!r}"))

    def getDestination(self) -> IPv4Address:
        """Where to."""
        return IPv4Address("TCP", self.host, self.port)

    def disconnect(self) -> None:
        """End it, whatever became of it."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self.transport is not None:
            self.transport.loseConnection()

    def stopConnecting(self) -> None:
        """Give up."""
        if self.state != "connecting":
            raise error.NotConnectingError("we're not trying to connect")
        self._failed(error.UserError())

    def refused(self) -> None:
        """Nobody listens there."""
        if self.reactor.alive:
            self._failed(error.ConnectionRefusedError())

    def connected(self, end: End) -> None:
        """The other side has accepted."""
        if not self.reactor.alive or self.state != "connecting":
            end.gone = True
            self._network.connections.pop(end, None)
            if self.reactor.host.powered:
                end.flow.send(RST)
            return
        self.state = "connected"
        self._stop_waiting()
        if not end.connected:  # reset on the way here
            self._failed(error.ConnectionLost())
            return
        protocol = self.reactor.call(self.factory.buildProtocol, end.getPeer())
        self.transport = end
        end.connector = self
        if protocol is None:
            end.loseConnection()
            return
        end.protocol = protocol
        end.begin()
        end._read()

    def lost(self, reason: Failure) -> None:
        """The connection there was is no more."""
        self.state = "disconnected"
        self.reactor.call(self.factory.clientConnectionLost, self, reason)
        self.reactor.call(self.factory.doStop)

    def _failed(self, reason: Exception) -> None:
        self._stop_waiting()
        self.state = "disconnected"
        self.reactor.call(self.factory.clientConnectionFailed, self, Failure(reason))
        self.reactor.call(self.factory.doStop)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None and self._giving_up.active():
            self._giving_up.cancel()
