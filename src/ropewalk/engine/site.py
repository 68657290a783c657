"""`Site(resource)`: any IResource, a Klein application's among them, served through our channel.

What it serves gets an authentic `twisted.web.server.Request`, so that whatever worked, works. Only the channel that the
request knows is another: `_Answering`, one for each request, as Twisted's own is for HTTP/2.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from copy import copy
from typing import Any, cast

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, ISSLTransport
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.server import Site as TwistedSite

from .channel import Channel
from .drivers import ALPN, AsyncioDriver, OfTwisted, TwistedDriver, as_twisted
from .exchange import Exchange, Receiver
from .heads import Fields, Refused
from .limits import DEFAULT, Limits
from .proxies import Client, Preamble, Proxies
from .server import Server, problem

_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class Site(TwistedSite):
    """A protocol factory for `listenTCP`, `listenSSL` and endpoints; a drop-in for `twisted.web.server.Site`."""

    displayTracebacks = False

    def __init__(
        self,
        resource: IResource,
        requestFactory: Any = Request,
        *args: Any,
        reactor: Any = None,
        limits: Limits = DEFAULT,
        proxies: Proxies | None = None,
        **kwargs: Any,
    ) -> None:
        """The arguments of `twisted.web.server.Site`, and `limits`; `proxies`: those in front, whose word is taken."""
        if reactor is None:
            from twisted.internet import reactor
        compiled = _compiled(resource)
        if compiled is not None and requestFactory is Request:
            requestFactory = compiled.request
        super().__init__(resource, requestFactory, *args, reactor=reactor, **kwargs)
        self._compiled = compiled
        self.server = Server(self.serve, reactor, limits, self.told, proxies)

    def buildProtocol(self, addr: Any) -> IProtocol:  # type: ignore[override]  # Twisted's says: its own channel
        """As IProtocolFactory."""
        driver = TwistedDriver(self._channel())
        driver.factory = self
        return driver

    def getResourceFor(self, request: Any) -> IResource:
        """As `twisted.web.server.Site`."""
        if self._compiled is None:
            return cast(IResource, super().getResourceFor(request))
        request.site = self
        request.sitepath = copy(request.prepath)
        return cast(IResource, self._compiled)

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may agree on: not HTTP/2, where Twisted would speak it."""
        return [ALPN]

    def asyncio_protocol(self) -> AsyncioDriver:
        """The same for `loop.create_server(site.asyncio_protocol, ...)`: quicker, where the reactor runs on uvloop."""
        return AsyncioDriver(self._channel())

    def _channel(self) -> Channel | Preamble:
        channel, proxies = Channel(self.server), self.server.proxies
        return Preamble(channel, proxies) if proxies is not None and proxies.protocol else channel

    def serve(self, exchange: Exchange) -> Receiver:
        """Who takes the body of a request, and answers it."""
        return _Answering(self, exchange)

    def told(self, refused: Refused) -> bytes:
        """The problem document for a request that is not taken."""
        return problem(refused)


def _compiled(resource: IResource) -> Any:
    """The same application with its routes compiled, when `resource` is a Klein application's own."""
    klein = sys.modules.get("klein._resource")  # who has one has imported it
    if klein is None or type(resource) is not klein.KleinResource:
        return None
    from .klein import CompiledResource

    return CompiledResource(resource._app)  # type: ignore[attr-defined]


class _View:
    """A connection as its requests see it: found out once."""

    __slots__ = ("host", "peer", "secure", "transport")

    def __init__(self, transport: Any, peer: str) -> None:
        """`peer`: the address it is from, which may be another than the transport's."""
        self.transport = transport
        self.peer = transport.getPeer()
        if peer and peer != getattr(self.peer, "host", peer):
            self.peer = _address(peer)
        self.host = transport.getHost()
        self.secure = ISSLTransport(transport, None) is not None

    def of(self, client: Client, proxy: str | None, fields: Fields) -> _View:
        """The same as the client sees it that the proxy in front has named."""
        view = copy(self)
        if client.address != proxy:
            view.peer = _address(client.address)
        if client.secure is not None:
            view.secure = client.secure
            _, _, port = next((value for name, value in fields if name.lower() == b"host"), b"").rpartition(b":")
            if not isinstance(self.host, UNIXAddress):
                usual = 443 if client.secure else 80
                view.host = _address(self.host.host, int(port) if port.isdigit() else usual)
        return view


def _address(host: str, port: int = 0) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class _Answering:
    """What a `twisted.web` Request takes for its channel, and what an exchange takes for its receiver."""

    def __init__(self, site: Site, exchange: Exchange) -> None:
        self.site = self.factory = site
        connection = exchange.connection
        if connection.view is None:
            connection.view = _View(as_twisted(connection.transport), connection.proxy or connection.peer)
        view: _View = connection.view
        if exchange.client is not None:
            view = view.of(exchange.client, connection.proxy, exchange.fields)
        self._view = view
        self.transport = self._view.transport
        self._exchange = exchange
        self._producer: Any = None
        self._pulled = False
        self._request = request = site.requestFactory(self)
        headers = request.requestHeaders
        for name, value in exchange.fields:
            headers.addRawHeader(name, value)
        request.gotLength(exchange.length)
        if headers.hasHeader(b"cookie"):
            request.parseCookies()

    # -- the exchange's receiver

    def chunk(self, data: bytes) -> None:
        """As Receiver."""
        self._request.handleContentChunk(data)

    def complete(self) -> None:
        """As Receiver."""
        exchange = self._exchange
        self._request.requestReceived(exchange.method, exchange.target, _VERSIONS[exchange.version])

    def lost(self) -> None:
        """As Receiver."""
        if self._producer is not None:
            self._producer.stopProducing()
        self._request.connectionLost(Failure(ConnectionDone()))

    def pause(self) -> None:
        """As Receiver."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """As Receiver."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # -- the request's channel; the names are Twisted's

    def getPeer(self) -> Any:
        """Where the client is."""
        return self._view.peer

    def getHost(self) -> Any:
        """Where it reached us."""
        return self._view.host

    def isSecure(self) -> bool:
        """Whether by TLS."""
        return self._view.secure

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """The reply's head; the request frames the body itself."""
        fields = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self._exchange.start(int(code), fields, reason, framed=True)

    def write(self, data: bytes) -> None:
        """Some of its body, framed."""
        try:
            self._exchange.write(data)
        except ValueError:  # more than was promised, as of a file that has grown: no end would be a clean one
            self._exchange.abort()
            raise

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Likewise."""
        self.write(b"".join(data))

    def requestDone(self, request: Any) -> None:
        """The reply is complete."""
        self._exchange.end()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`producer` makes the body, as fast as the client takes it."""
        if self._producer is not None:
            raise RuntimeError(
                f"{self._producer!r} is the producer of this reply already; {producer!r} cannot be, too."
            )
        self._pulled = not streaming
        self._producer = producer if streaming else _PullToPush(producer, self)
        if not streaming:
            self._producer.startStreaming()
        if self._exchange.paused:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """It has made all of it."""
        self._stop_pulling()
        self._producer = None

    def loseConnection(self) -> None:
        """End the connection, whatever of the reply is missing."""
        self._exchange.close()

    def abortConnection(self) -> None:
        """At once."""
        self._exchange.abort()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # What Twisted calls for a form that cannot be read.
        self._exchange.keeps = False
        self._exchange.reply(400, ())

    def _protocolUpgradeForWebsockets(self, protocol: IProtocol) -> None:
        # What Twisted's own WebSocket calls; it writes the reply's head itself.
        self._exchange.upgrade(_Upgraded(protocol, self.transport))

    def _stop_pulling(self) -> None:
        if self._producer is not None and self._pulled:
            self._producer.stopStreaming()


class _Upgraded(asyncio.Protocol):
    """A Twisted protocol that a connection has become."""

    def __init__(self, protocol: Any, transport: Any) -> None:
        self._protocol = protocol
        self._transport = transport

    def connection_made(self, transport: Any) -> None:
        if isinstance(transport, OfTwisted):
            transport.unregister()
        self._protocol.makeConnection(self._transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connectionLost(Failure(error or ConnectionDone()))
