"""A listener on virtual time, peers of it on either driver's transport, and an application that answers on command.

The transports keep the contract: they call back in the order and at the moments that Twisted's and asyncio's do, tell of
a loss later and once, and refuse what those would refuse.
"""

from __future__ import annotations

from asyncio import events
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from ropewalk.engine.channel import Channel
from ropewalk.engine.drivers import AsyncioDriver, TwistedDriver
from ropewalk.engine.exchange import Exchange
from ropewalk.engine.limits import Limits
from ropewalk.engine.server import Server

ROOM = 64 << 10  # bytes that a transport keeps before it says that it has no room: Twisted's and asyncio's


class Reply(NamedTuple):
    """What came back."""

    status: int
    fields: dict[str, str]  # by lower-case name
    body: bytes


def replies(sent: bytes, methods: Iterable[str] = ()) -> list[Reply]:
    """The replies in what a server has sent, read by another reader; `methods`: of the requests, GET unless they say so."""
    found: list[Reply] = []
    asked = iter(methods)
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        fields = {name.decode().lower(): value.decode("latin-1") for name, value in lines}
        method = "" if status == 100 else next(asked, "GET")
        if status in (100, 101, 204, 304) or method == "HEAD":
            body, sent = b"", rest
        elif "content-length" in fields:
            length = int(fields["content-length"])
            assert len(rest) >= length, f"{length} bytes were promised, {len(rest)} came"
            body, sent = rest[:length], rest[length:]
        elif "transfer-encoding" in fields:
            body, sent = _dechunked(head, rest)
        else:
            body, sent = rest, b""
        found.append(Reply(status, fields, body))
    return found


def _dechunked(head: bytes, data: bytes) -> tuple[bytes, bytes]:
    whole = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        whole, data = whole + data[:length], data[length + 2 :]
        if not length:
            return whole, data


class Asked:
    """One request as the application sees it, and its Receiver."""

    def __init__(self, application: Application, exchange: Exchange) -> None:
        self.exchange = exchange
        self.body = b""
        self.heard: list[str] = []  # what it was told beside the body's chunks
        self._application = application

    @property
    def line(self) -> str:
        return f"{self.exchange.method.decode()} {self.exchange.target.decode('latin-1')}"

    def chunk(self, data: bytes) -> None:
        self.body += data
        self._application.on_chunk(self)

    def complete(self) -> None:
        self.heard.append("complete")
        self._application.on_complete(self)

    def lost(self) -> None:
        self.heard.append("lost")

    def pause(self) -> None:
        self.heard.append("paused")

    def resume(self) -> None:
        self.heard.append("resumed")

    def reply(self, body: bytes = b"done", status: int = 200, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.exchange.reply(status, fields, body)


def nothing(asked: Asked) -> None:
    """Wait for what comes."""


class Application:
    """Answers each request when it is complete, unless a test has it do something else at some moment."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.on_head: Callable[[Asked], None] = nothing
        self.on_chunk: Callable[[Asked], None] = nothing
        self.on_complete: Callable[[Asked], None] = Asked.reply

    def serve(self, exchange: Exchange) -> Asked:
        asked = Asked(self, exchange)
        self.asked.append(asked)
        self.on_head(asked)
        return asked

    def waits(self) -> None:
        """Answer when a test says so."""
        self.on_complete = nothing

    @property
    def lines(self) -> list[str]:
        return [each.line for each in self.asked]


class Peer:
    """The other end of a connection."""

    def __init__(self, clock: Clock, address: str = "192.0.2.7") -> None:
        self.clock = clock
        self.address = address
        self.sent = b""  # what the server has sent, and this end taken
        self.state = "open"  # "half" when nothing more will come, "closed", "aborted"
        self.reads = True
        self.secure = False
        self.driver: Any = None
        self._kept = b""  # what the transport keeps of what was written
        self._full = False
        self._paused = False
        self._ending = ""  # "half" or "closed" when what is kept is sent
        self._coming: list[bytes] = []
        self._told = False
        self._settling = False

    # -- what a test does

    def encrypt(self) -> None:
        """Be a connection by TLS."""
        self.secure = True

    def send(self, *parts: bytes) -> None:
        """Each part in a read of its own, when there is one."""
        self._coming += [part for part in parts if part]
        self.settle()

    def take(self, size: int = 1 << 30) -> None:
        """So many bytes more."""
        self.sent, self._kept = self.sent + self._kept[:size], self._kept[size:]
        if self._full and len(self._kept) <= self.low:
            self._full = False
            self.tell_room()
        self.settle()

    def replies(self, *methods: str) -> list[Reply]:
        """What it took; `methods`: of the requests, GET unless they say so."""
        return replies(self.sent, methods)

    @property
    def statuses(self) -> list[int]:
        return [each.status for each in self.replies()]

    def leave(self) -> None:
        """Close this end."""
        self.state = "closed"
        self.settle()

    @property
    def waiting(self) -> bool:
        """Whether something that was sent is not read."""
        return bool(self._coming)

    def settle(self) -> None:
        """Let what is due happen."""
        if self._settling:
            return
        self._settling = True
        self._flush()
        while self._coming and not self._paused and self.state in ("open", "half"):
            self.tell_data(self._coming.pop(0))
            self.end_turn()
            self._flush()
        self._settling = False
        if self.state in ("closed", "aborted") and not self._told:
            self._told = True
            self.tell_loss()

    def _flush(self) -> None:
        while self.reads and self._kept:
            self.take()
            self.end_turn()
        if self._ending and not self._kept and self.state in ("open", "half"):
            self.state = self._ending

    # -- what a transport does

    low = 0

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert not self._ending, f"{data[:60]!r} is written behind the end"
        if self.state in ("closed", "aborted"):
            return
        self._kept += data
        if self.reads and not self._full:
            self.sent, self._kept = self.sent + self._kept, b""
        elif len(self._kept) > ROOM and not self._full:
            self._full = True
            self.tell_no_room()

    def end(self, state: str) -> None:
        self._ending = state
        if not self._settling:
            self.settle()

    def abort(self) -> None:
        if self.state != "closed":
            self.state = "aborted"

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def end_turn(self) -> None: ...

    def tell_data(self, data: bytes) -> None: ...

    def tell_room(self) -> None: ...

    def tell_no_room(self) -> None: ...

    def tell_loss(self) -> None: ...


class TwistedPeer(Peer):
    """Beneath a TwistedDriver: an ITCPTransport."""

    def __init__(self, clock: Clock, address: str = "192.0.2.7") -> None:
        super().__init__(clock, address)
        self.producer: Any = None
        self.writeSequence = lambda data: self.write(b"".join(data))
        self.pauseProducing = self.pause
        self.resumeProducing = self.resume
        self.abortConnection = self.abort

    def encrypt(self) -> None:
        super().encrypt()
        alsoProvides(self, ISSLTransport)

    def connect(self, protocol: Any) -> None:
        self.driver = protocol
        protocol.makeConnection(self)
        self.settle()

    @property
    def disconnecting(self) -> bool:
        return self._ending == "closed" or self.state in ("closed", "aborted")

    def loseConnection(self) -> None:
        assert self.producer is None, "Twisted waits for a producer"
        self.end("closed")

    def loseWriteConnection(self) -> None:
        assert not self.secure, "it would be the transport's beneath TLS"
        assert self.producer is None, "Twisted waits for a producer"
        self.end("half")

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.address, 40000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 80)

    def tell_data(self, data: bytes) -> None:
        self.driver.dataReceived(data)

    def tell_room(self) -> None:
        if self.producer is not None:
            self.producer.resumeProducing()

    def tell_no_room(self) -> None:
        if self.producer is not None:
            self.producer.pauseProducing()

    def tell_loss(self) -> None:
        if self.producer is not None:
            self.producer.stopProducing()
        self.driver.connectionLost(Failure(ConnectionDone()))


class AsyncioPeer(Peer):
    """Beneath an AsyncioDriver: an asyncio.Transport."""

    low = ROOM // 4

    def __init__(self, clock: Clock, address: str = "192.0.2.7") -> None:
        super().__init__(clock, address)
        self.pause_reading = self.pause
        self.resume_reading = self.resume
        self.can_write_eof = lambda: not self.secure
        self.close = lambda: self.end("closed")
        self._soon: list[Callable[[], None]] = []

    def connect(self, protocol: Any) -> None:
        self.driver = protocol
        outer = events._get_running_loop()
        events._set_running_loop(cast(Any, self))  # an asyncio loop calls within itself
        try:
            protocol.connection_made(self)
        finally:
            events._set_running_loop(outer)
        self.settle()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """The loop's: a turn is a read, or a call from outside."""
        self._soon.append(callback)
        if not self._settling:
            self.end_turn()

    def end_turn(self) -> None:
        while self._soon:
            self._soon.pop(0)()

    def write_eof(self) -> None:
        assert not self.secure, "asyncio does not implement it over TLS"
        self.end("half")

    def is_closing(self) -> bool:
        return self._ending == "closed" or self.state in ("closed", "aborted")

    def get_extra_info(self, name: str) -> Any:
        known = {"peername": (self.address, 40000), "sockname": ("192.0.2.1", 80), "sslcontext": self.secure or None}
        return known.get(name)

    def tell_data(self, data: bytes) -> None:
        self.driver.data_received(data)

    def tell_room(self) -> None:
        self.driver.resume_writing()

    def tell_no_room(self) -> None:
        self.driver.pause_writing()

    def tell_loss(self) -> None:
        self.driver.connection_lost(None)


class Listener:
    """A server on virtual time, and connections to it."""

    def __init__(self, driver: str = "twisted", **limits: Any) -> None:
        self.clock = Clock()
        self.application = Application()
        self.server = Server(self.application.serve, self.clock, Limits(**limits))
        self.peers: list[Any] = []
        self._driver = driver

    def connected(self, address: str = "192.0.2.7", *, reads: bool = True, secure: bool = False) -> Any:
        if self._driver == "twisted":
            peer: Any = TwistedPeer(self.clock, address)
            protocol: Any = TwistedDriver(Channel(self.server))
        else:
            peer = AsyncioPeer(self.clock, address)
            protocol = AsyncioDriver(Channel(self.server))
        peer.reads = reads
        if secure:
            peer.encrypt()
        self.peers.append(peer)
        peer.connect(protocol)
        return peer

    def advance(self, seconds: float) -> None:
        """Let the time pass, each timer at its own moment."""
        until = self.clock.seconds() + seconds
        while True:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=until)
            self.clock.advance(max(0.0, min(due, until) - self.clock.seconds()))
            for peer in self.peers:
                peer.settle()
            if due >= until and self.clock.seconds() >= until:
                return

    def leave(self) -> None:
        for peer in self.peers:
            peer.leave()

    # -- the application's, for short

    @property
    def asked(self) -> list[Asked]:
        return self.application.asked


@pytest.fixture(params=["twisted", "asyncio"])
def listen(request: Any) -> Callable[..., Listener]:
    """`listen(**limits)`: a Listener, on either driver."""
    return lambda **limits: Listener(request.param, **limits)


@pytest.fixture
def peers() -> dict[str, type[Peer]]:
    """By the driver that they are beneath, without a listener: `peers[driver](clock).connect(protocol)`."""
    return {"twisted": TwistedPeer, "asyncio": AsyncioPeer}


@pytest.fixture
def listen_on() -> Callable[..., Listener]:
    """`listen_on(driver, **limits)`: for a test whose own affair the driver is; "twisted" or "asyncio"."""
    return Listener


@pytest.fixture
def listener(listen: Callable[..., Listener]) -> Listener:
    """One with the limits as they are."""
    return listen()
