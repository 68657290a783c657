"""Connections to servers, kept and used again: the last that became free first, so that the others grow old."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocolNegotiationFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.error import SchemeNotSupported
from zope.interface import implementer

from .client import ClientChannel
from .deadlines import NEVER, Deadlines
from .drivers import ALPN, TwistedDriver
from .limits import IDLE
from .native import connected, loop_of

if TYPE_CHECKING:
    from twisted.web.iweb import IPolicyForHTTPS

LIMIT = 10_000  # connections to one server; further calls wait for one to be free
# Of these, on their way at one time: more than its backlog the server's kernel drops, and they come a second late.
ON_THEIR_WAY = 512
CONNECT = 5.0  # seconds


class Origin(NamedTuple):
    """Where connections go (RFC 9110, section 4.3.1)."""

    scheme: str  # "http" or "https"
    host: str
    port: int


class Pool:
    """Of one process."""

    def __init__(
        self,
        reactor: Any,
        endpoint: Callable[[Origin], IStreamClientEndpoint] | None = None,
        *,
        limit: int = LIMIT,
        kept: int = LIMIT,
    ) -> None:
        """`endpoint`: the way to a server, where it is another than usual; uvloop's own transports go the usual one.

        `limit`: of connections to one server; `kept`: of those that are unused.
        """
        self._reactor = reactor
        self._limit = limit
        self._kept = kept
        self._loop = loop_of(reactor) if endpoint is None else None
        self._endpoint = endpoint if endpoint is not None else Endpoints(reactor)
        self._deadlines = Deadlines(reactor)
        self._free: dict[Origin, list[ClientChannel]] = {}
        self._open: dict[Origin, int] = {}  # how many there are, those on their way included
        self._on_their_way: Counter[Origin] = Counter()
        self._waiting: dict[Origin, deque[_Turn]] = {}
        self._channels: dict[ClientChannel, Origin] = {}
        self._closed: Deferred[None] | None = None

    def peek(self, server: Origin) -> ClientChannel | None:
        """A free connection, which is the caller's now; None when there is none."""
        free = self._free.get(server)
        if not free:
            return None
        channel = free.pop()
        channel.deadline = NEVER
        return channel

    def connect(self, server: Origin) -> Deferred[ClientChannel]:
        """Fires with a connection of the caller's own; fails as endpoints do. Waits while there are `limit` of them."""
        if not self._has_room(server):
            return _Turn(self._waiting.setdefault(server, deque()))
        return self._begin(server)

    def _has_room(self, server: Origin) -> bool:
        return self._open.get(server, 0) < self._limit and self._on_their_way[server] < ON_THEIR_WAY

    def _begin(self, server: Origin) -> Deferred[ClientChannel]:
        self._open[server] = self._open.get(server, 0) + 1
        self._on_their_way[server] += 1
        connecting = maybeDeferred(self._connecting, server)  # an endpoint may raise: there is no way to that server
        return connecting.addCallbacks(self._connected, self._failed, (server,), errbackArgs=(server,))

    def give_back(self, channel: ClientChannel) -> None:
        """It was not used after all."""
        self._freed(channel)

    def close(self) -> Deferred[None]:
        """End the free connections, and cut off those in use; fires when none is left."""
        if self._closed is None:
            self._closed = Deferred()
        for free in self._free.values():
            while free:
                free.pop().transport.close()
        for channel in list(self._channels):
            channel.give_up()
        return self._closed if self._channels else succeed(None)

    def _connecting(self, server: Origin) -> Deferred[Any]:
        channel = ClientChannel(self._freed, self._gone)
        if self._loop is not None and server.scheme == "http" and _is_address(server.host):
            return connected(self._loop, server.host, server.port, channel, CONNECT)
        connecting: Deferred[Any] = self._endpoint(server).connect(_OfOne(channel))
        return connecting

    def _connected(self, driver: Any, server: Origin) -> ClientChannel:
        channel = cast(ClientChannel, driver.channel)
        self._has_come(server)
        if channel.ended:  # before anybody had it
            self._one_less(server)
            raise ConnectionLost()
        self._begin_waiting(server)
        self._channels[channel] = server
        self._deadlines.add(channel)
        return channel

    def _failed(self, failure: Any, server: Origin) -> Any:
        self._has_come(server)
        self._one_less(server)
        return failure

    def _freed(self, channel: ClientChannel) -> None:
        server = self._channels[channel]
        waiting = self._waiting.get(server)
        free = self._free.setdefault(server, [])
        if waiting:
            waiting.popleft().callback(channel)  # between two callers it is never free
        elif self._closed is not None or len(free) >= self._kept:
            channel.transport.close()
        else:
            free.append(channel)
            self._deadlines.set(channel, self._reactor.seconds() + IDLE)

    def _gone(self, channel: ClientChannel) -> None:
        server = self._channels.pop(channel, None)
        if server is None:  # it was not even handed over
            return
        self._deadlines.discard(channel)
        free = self._free.get(server, [])
        if channel in free:
            free.remove(channel)
        self._one_less(server)
        if self._closed is not None and not self._channels:
            closed, self._closed = self._closed, Deferred()
            closed.callback(None)

    def _one_less(self, server: Origin) -> None:
        self._open[server] -= 1
        if not self._open[server]:
            del self._open[server]
        self._begin_waiting(server)
        if server not in self._open:  # it is done with; nobody waits: who did has just begun
            self._free.pop(server, None)
            self._waiting.pop(server, None)

    def _has_come(self, server: Origin) -> None:
        """One that was on its way, or never will."""
        self._on_their_way[server] -= 1
        if not self._on_their_way[server]:
            del self._on_their_way[server]

    def _begin_waiting(self, server: Origin) -> None:
        waiting = self._waiting.get(server)
        if waiting and self._has_room(server):
            waiting.popleft().begin(self._begin(server))


class _Turn(Deferred[ClientChannel]):
    """Of a caller who waits: for a connection that is free, or for one of its own when it may be made."""

    def __init__(self, waiting: deque[_Turn]) -> None:
        super().__init__(lambda _: self._give_up())
        self._waiting = waiting
        self._connecting: Deferred[ClientChannel] | None = None
        waiting.append(self)

    def begin(self, connecting: Deferred[ClientChannel]) -> None:
        """It has left the queue."""
        self._connecting = connecting
        connecting.chainDeferred(self)

    def _give_up(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        else:
            self._waiting.remove(self)


@implementer(IProtocolNegotiationFactory)
class _OfOne(Factory):
    """Of one connection."""

    noisy = False

    def __init__(self, channel: ClientChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: Any) -> TwistedDriver:
        return TwistedDriver(self._channel)

    def acceptableProtocols(self) -> list[bytes]:
        return [ALPN]


class Endpoints:
    """The usual ways to servers."""

    def __init__(
        self, reactor: Any, policy: IPolicyForHTTPS | None = None, timeout: float = CONNECT, bind: Any = None
    ) -> None:
        """`policy`: whom to trust; the platform's authorities when it is None."""
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._bind = bind
        self._resuming: IPolicyForHTTPS | None = None

    def __call__(self, server: Origin) -> Any:
        """The way to one, an IStreamClientEndpoint. Raises SchemeNotSupported."""
        scheme, host, port = server
        if scheme not in ("http", "https"):
            raise SchemeNotSupported(f"An agent asks http:// and https:// URLs; got {scheme}://{host}:{port}.")
        reactor, timeout, bind = self._reactor, self._timeout, self._bind
        endpoint: Any
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(reactor, host, port, timeout, bind)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(reactor, host, port, timeout, bind)
        else:
            endpoint = HostnameEndpoint(reactor, host.encode("idna"), port, timeout, bind)
        if scheme != "https":
            return endpoint
        if self._resuming is None:
            from .tls import Resuming  # OpenSSL comes with it

            self._resuming = Resuming(reactor.seconds, self._policy)
        return wrapClientTLS(self._resuming.creatorForNetloc(host.encode("ascii"), port), endpoint, reactor)


def _is_address(host: str) -> bool:
    return bool(isIPAddress(host) or isIPv6Address(host))
