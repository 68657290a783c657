"""What carries bytes between a transport and a channel: one driver for Twisted's transports, one for asyncio's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any
from typing import Protocol as Shape
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import directlyProvides, implementer

ALPN = b"http/1.1"  # what TLS may agree on; not HTTP/2, which nothing here speaks
TOGETHER = 64 << 10  # bytes that wait for the end of a turn, at most


class Channel(Shape):
    """What is driven: a server's connection, or a client's."""

    def connection_made(self, transport: Any, peer: str = "") -> None:
        """`transport` is a `channel.Transport`; `peer` its address, "" when it has none."""

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""

    def connection_lost(self, error: Exception | None = None) -> None:
        """As asyncio.Protocol."""

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""


@implementer(IPushProducer)
class TwistedDriver(Protocol):
    """An IProtocol, on any reactor and in a simulated world."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.dataReceived = channel.data_received  # type: ignore[method-assign]  # once for each read: the shortest way

    def connectionMade(self) -> None:
        """As IProtocol."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        no_delay = getattr(transport, "setTcpNoDelay", None)  # that of TLS has it, too, and does not say so
        if no_delay is not None:  # or what follows a session's tickets would wait for the peer to acknowledge them
            no_delay(True)
        self.channel.connection_made(OfTwisted(transport), getattr(transport.getPeer(), "host", ""))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """As IProtocol."""
        self.channel.connection_lost(reason.value)

    def pauseProducing(self) -> None:
        """The transport has no room."""
        self.channel.pause_writing()

    def resumeProducing(self) -> None:
        """It has."""
        self.channel.resume_writing()

    def stopProducing(self) -> None:
        """The connection is being lost, which `connectionLost` tells."""


class OfTwisted:
    """Twisted's transport, by asyncio's names; `unregister()` lets another producer be registered."""

    __slots__ = ("abort", "pause_reading", "resume_reading", "twisted", "write")

    def __init__(self, transport: Any) -> None:
        self.twisted = transport
        self.write = transport.write
        self.abort = transport.abortConnection
        self.pause_reading = transport.pauseProducing
        self.resume_reading = transport.resumeProducing

    def unregister(self) -> None:
        self.twisted.unregisterProducer()

    def can_write_eof(self) -> bool:
        # Beneath TLS there is one that can, which Twisted's TLS lends its name to.
        return hasattr(self.twisted, "loseWriteConnection") and not ISSLTransport.providedBy(self.twisted)

    def write_eof(self) -> None:
        self.twisted.unregisterProducer()  # or else Twisted waits for what it would still produce
        self.twisted.loseWriteConnection()

    def close(self) -> None:
        self.twisted.unregisterProducer()
        self.twisted.loseConnection()


class AsyncioDriver(asyncio.Protocol):
    """An asyncio.Protocol: `loop.create_server(lambda: AsyncioDriver(Channel(server)), ...)`, quickest on uvloop."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.data_received = channel.data_received  # type: ignore[method-assign]
        self.connection_lost = channel.connection_lost  # type: ignore[method-assign, assignment]
        self.pause_writing = channel.pause_writing  # type: ignore[method-assign]
        self.resume_writing = channel.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: Any) -> None:
        """As asyncio.Protocol."""
        peer = transport.get_extra_info("peername")
        together = OfAsyncio(transport)
        self.eof_received = together.flush  # type: ignore[method-assign]  # the loop closes the transport then
        self.channel.connection_made(together, peer[0] if isinstance(peer, tuple) else "")


class _Turn:
    """What is written at the end of a loop's turn: one callback for all connections."""

    def __init__(self) -> None:
        self._waiting: deque[OfAsyncio] = deque()  # each schedules: to know the loop would be to keep it

    def ends_with(self, transport: OfAsyncio) -> None:
        """Flush it then."""
        self._waiting.append(transport)
        if len(self._waiting) == 1:
            transport.soon(self._end)

    def _end(self) -> None:
        try:
            while self._waiting:
                self._waiting[0].flush()
                self._waiting.popleft()
        finally:
            if self._waiting:  # the first of them failed
                self._waiting.popleft().soon(self._end)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


class OfAsyncio:
    """asyncio's transport, which is given what one turn of the loop writes at the end of that turn.

    uvloop's writes at once. So each of the replies made in a turn would wake its peer, which reads it and sleeps again
    while the next one is made; on one machine that costs more than to make it. Behind one another, most find their peer
    awake.
    """

    __slots__ = ("_asyncio", "_bytes", "_turn", "_waiting", "pause_reading", "resume_reading", "soon")

    def __init__(self, transport: Any) -> None:
        self._asyncio = transport
        loop = asyncio.get_running_loop()
        self.soon = loop.call_soon
        self._turn = _turns.get(loop) or _turns.setdefault(loop, _Turn())
        self._waiting: list[bytes] = []
        self._bytes = 0  # of them
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asyncio, name)

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes >= TOGETHER:
            self.flush()
        elif len(self._waiting) == 1:
            self._turn.ends_with(self)

    def flush(self) -> None:
        """Write what waits; nobody is there to read it when the transport is closing."""
        waiting = self._waiting
        if waiting and not self._asyncio.is_closing():
            self._waiting, self._bytes = [], 0
            self._asyncio.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def write_eof(self) -> None:
        self.flush()
        self._asyncio.write_eof()

    def close(self) -> None:
        self.flush()
        self._asyncio.close()

    def abort(self) -> None:
        self.flush()
        self._asyncio.abort()


class AsTwisted:
    """asyncio's transport, by the names that whoever reaches for `request.transport` expects."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.write = transport.write
        self.loseConnection = transport.close
        self.abortConnection = transport.abort
        self.pauseProducing = transport.pause_reading
        self.resumeProducing = transport.resume_reading
        if transport.get_extra_info("sslcontext") is not None:
            directlyProvides(self, ISSLTransport)

    @property
    def disconnecting(self) -> bool:
        """Whether it is being closed."""
        return bool(self._transport.is_closing())

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As ITransport."""
        self.write(b"".join(data))

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """As ITransport."""
        return _address(self._transport.get_extra_info("peername"))

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """As ITransport."""
        return _address(self._transport.get_extra_info("sockname"))


def _address(name: Any) -> IPv4Address | IPv6Address | UNIXAddress:
    if not isinstance(name, tuple):
        return UNIXAddress(name or None)
    return (IPv4Address if len(name) == 2 else IPv6Address)("TCP", *name)


def as_twisted(transport: Any) -> Any:
    """Twisted's transport beneath a channel's, or one that looks alike."""
    return transport.twisted if isinstance(transport, OfTwisted) else AsTwisted(transport)
