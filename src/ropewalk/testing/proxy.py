"""A TCP proxy that stands between a client and a real server, and does to their bytes what networks do.

For tests against what no simulation can hold: a database, a broker, another process. Faults change while it runs.

    proxy = FaultProxy(reactor, "127.0.0.1", 6379, Random(7))
    port = await proxy.listen()                                 # the client is told this one
    proxy.towards_client = Toxics(latency=0.2, jitter=0.1)      # answers are late
    proxy.towards_server = Toxics(bandwidth=100)                # slow drip, bytes a second
    proxy.towards_client = Toxics(reset_after=1000)             # each connection breaks off there
    proxy.towards_server = Toxics(bandwidth=0)                  # held, in order, until this changes
    proxy.towards_client = Toxics(swallow=True)                 # partition one way: requests run, answers are lost
    proxy.black_hole()                                          # accepts, and nothing comes of it
    proxy.vanish("server")                                      # half-open: nobody tells the client
    proxy.cut()                                                 # every connection is reset now
    await proxy.refuse()                                        # nobody listens, until `listen()` again
    proxy.heal()
    await proxy.close()

Contents: `Toxics`, `FaultProxy`, `ProxyStatistics`; a link (one connection, both its ends), an end, a pipe (one
direction of a link: what is late, slow or lost is decided there).
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Literal

from msgspec import Struct
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

LIMIT_BYTES = 1 << 18  # held for one direction of a connection; its sender is paused from there on, and TCP tells it
LIMIT_CONNECTIONS = 1024  # a bench of clients fits, and a loop that connects for ever is stopped
DRIP = 0.05  # seconds between two pieces of a slow direction, unless one byte takes longer
_SOON = 1e-9  # seconds: no wait, only what adding floats left over

Side = Literal["client", "server"]


class Toxics(Struct, frozen=True):
    """What is done to one direction. Read anew for each piece, so that a change is seen by connections that are open.

    `latency` and `jitter`: seconds; each piece is late by `latency` and a part of `jitter`, and none overtakes another.
    `bandwidth`: bytes a second of each connection; None: no limit; 0: held until that changes. `reset_after`: bytes,
    after which the connection is reset. `swallow`: neither bytes nor the end of a connection come through; a
    connection that lost something stays silent in that direction, since its stream has a hole, and one that is made
    while requests are swallowed never reaches the server.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    reset_after: int | None = None
    swallow: bool = False

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "bandwidth", "reset_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"Toxics({name}=...) is 0 or more; got {value!r}.")


class ProxyStatistics(Struct, frozen=True):
    """What a FaultProxy did so far. `towards_server`, `towards_client` and `swallowed` are bytes."""

    accepted: int = 0
    open: int = 0  # connections, now
    turned_away: int = 0  # closed at once: there were LIMIT_CONNECTIONS
    unreachable: int = 0  # the server was not there: the client was reset
    resets: int = 0
    towards_server: int = 0
    towards_client: int = 0
    swallowed: int = 0


class FaultProxy:
    """A proxy on loopback for the server at `host` and `port`, on any Twisted reactor.

    `random` decides the jitter. For one direction no more than LIMIT_BYTES and one read are held: then the sender is
    paused. Ends of connections (FIN, half-closes included, and RST) travel as the bytes before them do.
    """

    def __init__(self, reactor: Any, host: str, port: int, random: Random) -> None:
        """`reactor`: IReactorTCP and IReactorTime."""
        self._reactor = reactor
        self._random = random
        self._server = TCP4ClientEndpoint(reactor, host, port)
        self._target = f"{host}:{port}"
        self._towards_server = self._towards_client = Toxics()
        self._listening: Any = None  # an IListeningPort
        self._number = 0  # of the port: any at first, then always the same
        self._links: dict[_Link, None] = {}  # in the order they came
        self._closed: list[Deferred[None]] = []  # who waits until there are none
        self._counts = dict.fromkeys(ProxyStatistics.__struct_fields__, 0)

    def __repr__(self) -> str:
        where = f"on {self._number}" if self._listening is not None else "refusing"
        return f"<FaultProxy for {self._target} {where}, {len(self._links)} open>"

    @property
    def towards_server(self) -> Toxics:
        """What is done to what clients send."""
        return self._towards_server

    @towards_server.setter
    def towards_server(self, toxics: Toxics) -> None:
        self._towards_server = toxics
        for link in list(self._links):
            link.up.wake()

    @property
    def towards_client(self) -> Toxics:
        """What is done to what the server sends."""
        return self._towards_client

    @towards_client.setter
    def towards_client(self, toxics: Toxics) -> None:
        self._towards_client = toxics
        for link in list(self._links):
            link.down.wake()

    async def listen(self) -> int:
        """Accept connections; the port, which after `refuse` is the one it was.

        Raises CannotListenError when somebody else has taken that meanwhile.
        """
        if self._listening is None:
            self._listening = self._reactor.listenTCP(self._number, _Clients(self), interface="127.0.0.1")
            self._number = self._listening.getHost().port
        return self._number

    async def refuse(self) -> None:
        """Stop listening: new connections are refused, those that are open go on. `listen()` takes it back."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)

    def black_hole(self) -> None:
        """Accept, swallow and never answer; so for connections that are open."""
        self.towards_server = self.towards_client = Toxics(swallow=True)

    def heal(self) -> None:
        """Take the toxics out of both directions. What was lost remains lost."""
        self.towards_server = self.towards_client = Toxics()

    def cut(self) -> None:
        """Reset every connection that is open, at both ends."""
        for link in list(self._links):
            link.reset()

    def vanish(self, side: Side) -> None:
        """Lose that end of every connection that is open, and tell the other nothing: it speaks to nobody."""
        for link in list(self._links):
            link.vanish(side)

    async def close(self) -> None:
        """Stop listening and reset what is open; when it returns nothing is left. Closing twice is harmless."""
        await self.refuse()
        self.cut()
        if self._links:
            closed: Deferred[None] = Deferred()
            self._closed.append(closed)
            await closed

    def statistics(self) -> ProxyStatistics:
        """What it did so far."""
        return ProxyStatistics(**{**self._counts, "open": len(self._links)})

    # -- what its links ask

    def accepted(self) -> _End | None:
        """The near end of a new link; None when there are too many."""
        if len(self._links) >= LIMIT_CONNECTIONS:
            self.count("turned_away")
            return None
        self.count("accepted")
        link = _Link(self, self._reactor, self._random)
        self._links[link] = None
        return link.client

    def dial(self, end: _End) -> Deferred[Any]:
        """Connect `end` to the server."""
        factory = Factory.forProtocol(lambda: end)
        factory.noisy = False
        return self._server.connect(factory)

    def count(self, what: str, by: int = 1) -> None:
        """Add to the statistics."""
        self._counts[what] += by

    def gone(self, link: _Link) -> None:
        """Nothing is left of `link`."""
        self._links.pop(link, None)
        if not self._links:
            closed, self._closed = self._closed, []
            for each in closed:
                each.callback(None)


class _Clients(Factory):
    noisy = False

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, address: IAddress | None) -> _End | None:
        return self._proxy.accepted()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: FaultProxy, clock: Any, random: Random) -> None:
        self._proxy = proxy
        self._dialling: Deferred[Any] | None = None
        self.over = False
        self.client, self.server = _End(self), _End(self)
        self.up = _Pipe(self, proxy, "towards_server", self.client, self.server, clock, random)
        self.down = _Pipe(self, proxy, "towards_client", self.server, self.client, clock, random)
        self.client.attach(self.up, self.down)
        self.server.attach(self.down, self.up)

    def made(self, end: _End) -> None:
        """An end is connected; the client's is the first."""
        if end is not self.client or self.over:
            return
        if self._proxy.towards_server.swallow:
            self.up.lose()
            self.down.lose()
            return
        self._dialling = self._proxy.dial(self.server)
        self._dialling.addCallbacks(self._dialled, self._unreachable)

    def _dialled(self, _: Any) -> None:
        self._dialling = None

    def _unreachable(self, failure: Failure) -> None:
        if self._dialling is not None:  # else it was given up here
            self._dialling = None
            self._proxy.count("unreachable")
            self.reset()

    def finished(self) -> None:
        """A pipe has nothing more to bring: once both have not, so have the sockets."""
        if self.up.done and self.down.done:
            self.client.close()
            self.server.close()

    def vanish(self, side: Side) -> None:
        """Lose one end without a word to the other."""
        self.up.lose()
        self.down.lose()
        if side == "server":
            self._give_up()
        (self.server if side == "server" else self.client).abort()

    def reset(self) -> None:
        """Abort both ends; what is still on its way is gone."""
        if self.over:
            return
        self.over = True
        self._proxy.count("resets")
        self.up.drop()
        self.down.drop()
        self._give_up()
        self.client.abort()
        self.server.abort()
        self.left()

    def _give_up(self) -> None:
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()

    def left(self) -> None:
        """An end is gone; after the last one so is the link."""
        if not (self.client.open or self.server.open or self._dialling):
            self.over = True
            self.up.drop()
            self.down.drop()
            self._proxy.gone(self)


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """One socket of a link."""

    transport: Any
    open = False
    _reads = False  # until the peer has said that it sends no more
    _fed = False  # whether a pipe is its transport's producer
    _out: _Pipe
    _into: _Pipe

    def __init__(self, link: _Link) -> None:
        self._link = link

    def attach(self, out: _Pipe, into: _Pipe) -> None:
        """`out` takes what it reads, `into` brings what it writes."""
        self._out = out
        self._into = into

    def connectionMade(self) -> None:
        self.open = self._reads = self._fed = True
        self.transport.setTcpNoDelay(True)  # all that is late here is so on purpose
        # A pull producer: it is asked for more when everything is with the kernel, so nothing piles up here, and a
        # reset comes after the bytes it is to come after.
        self.transport.registerProducer(self._into, False)
        self._link.made(self)

    def dataReceived(self, data: bytes) -> None:
        self._out.receive(data)

    def readConnectionLost(self) -> None:
        """The peer sends no more; it may still read."""
        self._reads = False
        self._out.end(reset=False)

    def writeConnectionLost(self) -> None:
        """Our own half-close is done."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = self._reads = self._fed = False
        self._out.end(reset=not reason.check(ConnectionDone))
        self._into.sink_lost()
        self._link.left()

    # -- what pipes and links ask

    def pause(self) -> None:
        """Read no more for now."""
        if self._reads:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._reads:  # else the transport would meet the end a second time
            self.transport.resumeProducing()

    def finish(self) -> None:
        """Send no more; what comes is still read."""
        if self.open:
            self._unfeed()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close, after what was written."""
        if self.open:
            self._unfeed()
            self._reads = False
            self.transport.loseConnection()

    def abort(self) -> None:
        """Reset."""
        if self.open:
            self._unfeed()
            self._reads = False
            self.transport.abortConnection()

    def _unfeed(self) -> None:
        if self._fed:
            self._fed = False
            self.transport.unregisterProducer()


class _Piece(Struct):
    due: float  # clock.seconds() value
    data: memoryview
    end: Literal["", "fin", "reset"] = ""


@implementer(IPullProducer)
class _Pipe:
    """One direction of a link: a queue of pieces, each due at its time."""

    def __init__(
        self,
        link: _Link,
        proxy: FaultProxy,
        direction: Literal["towards_server", "towards_client"],
        source: _End,
        sink: _End,
        clock: Any,
        random: Random,
    ) -> None:
        self._link = link
        self._proxy = proxy
        self._direction = direction
        self._source = source
        self._sink = sink
        self._clock = clock
        self._random = random
        self._pieces: deque[_Piece] = deque()  # a piece that is due waits for those before it
        self._held = 0  # bytes
        self._passed = 0  # bytes
        self._next = 0.0  # clock.seconds() value before which the bandwidth lets nothing pass
        self._timer: IDelayedCall | None = None
        self._ready = False  # all that was written has left
        self._lost = False  # swallows everything from now on
        self._paused = False
        self._finished = False
        self._pumping = False
        self.done = False

    def receive(self, data: bytes) -> None:
        """What the source sent."""
        if self._lost:
            self._proxy.count("swallowed", len(data))
        else:
            self._add(_Piece(0.0, memoryview(data)))

    def end(self, *, reset: bool) -> None:
        """The source sends no more, because it said so or because it is gone."""
        if not self._lost and not self.done and (reset or not self._finished):
            self._finished = True
            self._add(_Piece(0.0, memoryview(b""), "reset" if reset else "fin"))

    def _add(self, piece: _Piece) -> None:
        toxics = self._toxics
        late = toxics.latency + (toxics.jitter and toxics.jitter * self._random.random())
        piece.due = self._clock.seconds() + late
        self._pieces.append(piece)
        self._held += len(piece.data)
        self._pump()

    def wake(self) -> None:
        """The toxics have changed. What is on its way keeps the latency it has; the rest holds at once."""
        self._next = 0.0
        self._pump()

    def lose(self) -> None:
        """Swallow what is on its way and whatever comes."""
        self._proxy.count("swallowed", self._held)
        self.drop()

    def drop(self) -> None:
        """Forget what is on its way, and take no more."""
        self._lost = True
        self._pieces.clear()
        self._held = 0
        self._stop_timer()
        self._relieve()

    def sink_lost(self) -> None:
        """There is nobody to bring anything to."""
        if not self._lost:
            self.drop()
            self.done = True
            self._link.finished()

    def resumeProducing(self) -> None:
        """The sink's transport has sent everything."""
        self._ready = True
        self._pump()

    def stopProducing(self) -> None:
        """The sink's transport is closed; its protocol hears of it."""
        self._ready = False

    # -- bringing

    @property
    def _toxics(self) -> Toxics:
        return self._proxy.towards_server if self._direction == "towards_server" else self._proxy.towards_client

    def _pump(self) -> None:
        if self._pumping:  # a transport that sends at once asks for more while it is given some
            return
        self._pumping = True
        self._stop_timer()
        try:
            while self._step(self._toxics):
                pass
        finally:
            self._pumping = False
        self._relieve()

    def _step(self, toxics: Toxics) -> bool:
        """Bring what may pass now; False when nothing may."""
        if self._lost or self.done:
            return False
        if self._ready and toxics.reset_after is not None and self._passed >= toxics.reset_after:
            self._link.reset()
            return False
        if not self._pieces:
            return False
        piece = self._pieces[0]
        wait = max(piece.due, self._next) - self._clock.seconds()
        if wait > _SOON:
            self._timer = self._clock.callLater(wait, self._due_now)
            return False
        if toxics.swallow:
            self.lose()
            return False
        if not self._ready or toxics.bandwidth == 0:
            return False
        if piece.end:
            self._end(piece)
        else:
            self._bring(piece, toxics)
        return True

    def _bring(self, piece: _Piece, toxics: Toxics) -> None:
        size = len(piece.data)
        if toxics.reset_after is not None:
            size = min(size, toxics.reset_after - self._passed)
        if toxics.bandwidth is not None:
            size = min(size, max(1, int(toxics.bandwidth * DRIP)))
            self._next = self._clock.seconds() + size / toxics.bandwidth
        data, piece.data = bytes(piece.data[:size]), piece.data[size:]
        if not piece.data:
            self._pieces.popleft()
        self._held -= size
        self._passed += size
        self._proxy.count(self._direction, size)
        self._ready = False
        self._sink.transport.write(data)

    def _end(self, piece: _Piece) -> None:
        self._pieces.popleft()
        if piece.end == "reset":
            self._link.reset()
        elif not any(later.end for later in self._pieces):
            self.done = True
            self._sink.finish()
            self._link.finished()

    def _relieve(self) -> None:
        """Pause the source while enough of it is held here."""
        if self._paused and self._held <= LIMIT_BYTES // 2:
            self._paused = False
            self._source.resume()
        elif not self._paused and self._held >= LIMIT_BYTES:
            self._paused = True
            self._source.pause()

    def _due_now(self) -> None:
        self._timer = None
        self._pump()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
