"""What the connections of one listener share: the application, the limits, the deadlines, and their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from .channel import Channel
from .deadlines import Deadlines
from .exchange import Exchange, Receiver
from .heads import PHRASES, Refused, reply_head
from .limits import DEFAULT, Limits
from .proxies import Client, Preamble, Proxies, address_in


def problem(refused: Refused) -> bytes:
    """A problem document (RFC 9457) that says no more than the status and the reason."""
    said = {"type": "about:blank", "title": PHRASES[refused.status], "status": refused.status, "detail": str(refused)}
    return msgspec.json.encode(said)


class Server:
    """Of one listener. `counts`: what was refused or cut off, by what for."""

    def __init__(
        self,
        serve: Callable[[Exchange], Receiver],
        clock: Any,
        limits: Limits = DEFAULT,
        told: Callable[[Refused], bytes] = problem,
        proxies: Proxies | None = None,
    ) -> None:
        """`serve(exchange)` is called when a request's head is there; `clock`: an IReactorTime.

        `told(refused)`: the problem document for one that is not taken. `proxies`: those in front, whose word is taken.
        """
        self.proxies = proxies
        self.serve = serve
        self._told = told
        self.limits = limits
        self.seconds: Callable[[], float] = clock.seconds
        self.deadlines = Deadlines(clock)
        self.draining = False
        self.counts: Counter[str] = Counter()
        self.channels: dict[Channel, None] = {}  # in the order they came
        self.nameless: dict[Preamble, None] = {}  # connections that have not said yet whose they are
        self._peers: Counter[str] = Counter()
        self._closed: list[Deferred[None]] = []

    def admit(self, channel: Channel) -> bool:
        """Whether there is room for it; `lost` gives its place back."""
        peer = channel.peer
        crowded = channel.proxy is None and self._is_crowded(peer)
        if self.is_full() or crowded:
            self.counts["no room"] += 1
            return False
        self.channels[channel] = None
        self._peers[peer] += 1
        self.deadlines.add(channel)
        return True

    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.channels) + len(self.nameless) >= self.limits.connections

    def lost(self, channel: Channel) -> None:
        """A connection is gone, or was not admitted."""
        self.deadlines.discard(channel)
        if channel not in self.channels:
            return
        del self.channels[channel]
        self._leave(channel.peer)
        if not self.channels:
            waiting, self._closed = self._closed, []
            for each in waiting:
                each.callback(None)

    def hear_of_client(self, channel: Channel, fields: list[tuple[bytes, bytes]]) -> Client:
        """What a trusted proxy says of a request; the connection counts as that client's from now on.

        The Host is the one that the client asked for. Raises Refused when the client has too many connections.
        """
        assert self.proxies is not None
        assert channel.proxy is not None
        client = self.proxies.client(channel.proxy, fields)
        if client.address != channel.peer:
            if client.address != channel.proxy and self._is_crowded(client.address):
                self.counts["no room"] += 1
                raise Refused(429, f"{client.address} has {self.limits.per_peer} connections already.")
            self._leave(channel.peer)
            channel.peer = client.address
            self._peers[channel.peer] += 1
        if client.host:
            fields[:] = [field for field in fields if field[0].lower() != b"host"]
            fields.insert(0, (b"Host", client.host))
        return client

    def _is_crowded(self, peer: str) -> bool:
        limits = self.limits
        if peer == "" or self._peers[peer] < limits.per_peer:
            return False
        return limits.count_loopback or not _is_loopback(peer)

    def _leave(self, peer: str) -> None:
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def refusal(self, refused: Refused) -> bytes:
        """The reply to what no application is asked."""
        body = self._told(refused)
        fields = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        return reply_head(refused.status, fields) + body

    def drain(self) -> None:
        """From now on each connection ends with the reply to its next request, or when it has none."""
        self.draining = True
        for channel in list(self.channels):
            channel.drain()
        for nameless in list(self.nameless):
            nameless.abort()

    def wait_until_closed(self) -> Deferred[None]:
        """Fires when no connection is left."""
        closed: Deferred[None] = Deferred(self._closed.remove)
        if self.channels:
            self._closed.append(closed)
        else:
            closed.callback(None)
        return closed

    def abort(self) -> None:
        """Cut off the connections that are left."""
        for channel in list(self.channels):
            channel.abort()
        for nameless in list(self.nameless):
            nameless.abort()


def _is_loopback(peer: str) -> bool:
    address = address_in(peer)
    return address is not None and bool(address.is_loopback)
