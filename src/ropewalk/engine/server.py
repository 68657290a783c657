"""What the connections of one listener share: the application, the limits, the deadlines, and their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from .channel import Channel
from .deadlines import Deadlines
from .exchange import Exchange, Receiver
from .heads import PHRASES, Refused, reply_head
from .limits import DEFAULT, Limits


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
    ) -> None:
        """`serve(exchange)` is called when a request's head is there; `clock`: an IReactorTime.

        `told(refused)`: the problem document for one that is not taken.
        """
        self.serve = serve
        self._told = told
        self.limits = limits
        self.seconds: Callable[[], float] = clock.seconds
        self.deadlines = Deadlines(clock)
        self.draining = False
        self.counts: Counter[str] = Counter()
        self.channels: dict[Channel, None] = {}  # in the order they came
        self._peers: Counter[str] = Counter()
        self._closed: list[Deferred[None]] = []

    def admit(self, channel: Channel) -> bool:
        """Whether there is room for it; `lost` gives its place back."""
        peer = channel.peer
        counted = peer != "" and not _is_loopback(peer)
        if len(self.channels) >= self.limits.connections or (counted and self._peers[peer] >= self.limits.per_peer):
            self.counts["no room"] += 1
            return False
        self.channels[channel] = None
        self._peers[peer] += 1
        self.deadlines.add(channel)
        return True

    def lost(self, channel: Channel) -> None:
        """A connection is gone, or was not admitted."""
        self.deadlines.discard(channel)
        if channel not in self.channels:
            return
        del self.channels[channel]
        self._peers[channel.peer] -= 1
        if not self._peers[channel.peer]:
            del self._peers[channel.peer]
        if not self.channels:
            waiting, self._closed = self._closed, []
            for each in waiting:
                each.callback(None)

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


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:  # a name, as a simulated host may have
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
