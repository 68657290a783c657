"""The network between the hosts: links with their latency and faults, and what is on its way over them.

What two ends of a connection may rely on is what TCP gives: bytes arrive in order, whole or not at all. All else is
the link's: how long they take, whether they are held for now, whether the connection is reset on the way. A partition
holds what is sent (the kernel would send it again) until it heals; who waits longer than his patience gives up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.address import IPv4Address

from .tcp import RST, Connector, End, Flow, Port
from .timeline import Timeline

COINCIDES = 0.2  # the share of what is sent to a host that coincides that does
SOON = 10.0  # seconds that it may come later for that


class Link(Struct, frozen=True):
    """How one host reaches another, one way."""

    latency: tuple[float, float] = (0.0002, 0.001)  # seconds, uniformly between; a data centre's
    bandwidth: float | None = None  # bytes a second; None: as much as one likes
    loss: float = 0.0  # probability that a segment resets its connection
    split: float = 0.05  # probability that a segment arrives in two pieces
    blocked: bool = False  # whether everything is held back

    def __post_init__(self) -> None:
        low, high = self.latency
        if not 0 <= low <= high:
            raise ValueError(f"latency: expected (low, high) in seconds, 0 <= low <= high; got {self.latency!r}.")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth: expected bytes a second above 0, or None; got {self.bandwidth!r}.")
        if not (0 <= self.loss <= 1 and 0 <= self.split <= 1):
            raise ValueError(f"loss, split: expected a probability from 0 to 1; got {self.loss!r}, {self.split!r}.")


class Network:
    """All links of a World, and what is on its way over them."""

    def __init__(self, timeline: Timeline, seed: object) -> None:
        """Each link's chance is its own, drawn from `seed`: a fault on one changes nothing on another."""
        self.timeline = timeline
        self._seed = seed
        self._links: dict[tuple[Any, Any], Link] = {}
        self._randoms: dict[tuple[Any, Any], Random] = {}
        self._usual = Link()
        self._free: dict[tuple[Any, Any], float] = {}  # when a link of limited bandwidth has sent what it was given
        self._held: dict[tuple[Any, Any], deque[Callable[[], object]]] = {}
        self.ports: dict[tuple[str, int], Port] = {}  # by address and port number
        self.hosts: dict[str, Any] = {}  # by address
        self.connections: dict[End, None] = {}  # of every open connection, both ends

    # -- links

    def link(self, source: Any, target: Any) -> Link:
        """How `source` reaches `target` at the moment."""
        return self._links.get((source, target), self._usual)

    def change(self, source: Any, target: Any, **changes: Any) -> None:
        """Change the link; what was held back goes on its way when it is no longer blocked."""
        key = (source, target)
        self._links[key] = msgspec.structs.replace(self.link(source, target), **changes)
        if self.passes(source, target):
            self._release(key)

    def passes(self, source: Any, target: Any) -> bool:
        """Whether what `source` sends arrives at the moment; if not, it is sent again until it does."""
        return target.powered and not self.link(source, target).blocked

    def powered(self, host: Any) -> None:
        """A machine is on again, and hears what was sent to it again and again."""
        for key in [key for key in self._held if key[1] is host and self.passes(*key)]:
            self._release(key)

    def usual(self) -> None:
        """Every link is as at the beginning."""
        for source, target in list(self._links):
            self.change(source, target, **msgspec.structs.asdict(self._usual))
        self._links.clear()

    def random(self, source: Any, target: Any) -> Random:
        """The chance of one link."""
        key = (source, target)
        if key not in self._randoms:
            self._randoms[key] = Random(f"{self._seed}/link/{source.name}/{target.name}")
        return self._randoms[key]

    def arrival(self, source: Any, target: Any, size: int = 0) -> float:
        """The moment at which `size` bytes, sent now from `source`, have arrived at `target`."""
        link = self.link(source, target)
        low, high = link.latency
        latency = low + (high - low) * self.random(source, target).random()
        at = self.timeline.now + latency + self.transmission(source, target, size)
        if target.coincides and self.random(source, target).random() < COINCIDES:
            return next((timer.at for timer in self.timeline.pending(target.reactor) if at < timer.at < at + SOON), at)
        return at

    def transmission(self, source: Any, target: Any, size: int) -> float:
        """Seconds until `size` more bytes have left, those before them first."""
        bandwidth = self.link(source, target).bandwidth
        if not bandwidth:
            return 0.0
        key, now = (source, target), self.timeline.now
        self._free[key] = max(now, self._free.get(key, 0.0)) + size / bandwidth
        return self._free[key] - now

    def send(self, source: Any, target: Any, arrive: Callable[[], object], size: int = 0) -> None:
        """Call `arrive` when what `source` sends now has reached `target`; it is held while the link is blocked."""
        self.timeline.call_at(self.arrival(source, target, size), target, self._arrive, (source, target, arrive, size))

    def _arrive(self, source: Any, target: Any, arrive: Callable[[], object], size: int) -> None:
        if self.passes(source, target):
            arrive()
        else:
            self.hold(source, target, partial(self.send, source, target, arrive, size))

    def hold(self, source: Any, target: Any, send: Callable[[], object]) -> None:
        """Call `send` when what `source` sends arrives again."""
        self._held.setdefault((source, target), deque()).append(send)

    def _release(self, key: tuple[Any, Any]) -> None:
        for send in self._held.pop(key, ()):
            send()

    # -- connections

    def connect(self, connector: Connector) -> None:
        """The first packet of a connection is on its way."""
        source = connector.reactor.host
        target = self.hosts.get(connector.host)
        if target is None:
            return  # nobody has that address: no answer ever comes
        self.send(source, target, lambda: self._asked(connector, source, target))

    def _asked(self, connector: Connector, source: Any, target: Any) -> None:
        port = self.ports.get((connector.host, connector.port)) if target.up else None
        client_address = IPv4Address("TCP", source.address, source.next_port())
        if port is None:
            self.send(target, source, lambda: connector.reactor.soon(connector.refused))
            return
        server = End(self, port.reactor, None, port.getHost(), client_address)
        client = End(self, connector.reactor, None, client_address, port.getHost())
        server.peer, client.peer = client, server
        server.flow, client.flow = Flow(self, server, client), Flow(self, client, server)
        # The kernel answers for a process that is paused; that one accepts when it can.
        self.send(target, source, lambda: connector.reactor.soon(connector.connected, client))
        port.reactor.soon(port.accept, server)

    def lose(self, reactor: Any, *, silently: bool) -> None:
        """A reactor is no more. Its kernel resets its connections, unless the whole machine went `silently`."""
        for end in [end for end in self.connections if end.reactor is reactor]:
            self.connections.pop(end)
            end.gone = True
            reactor.keep(end)
            if not silently:
                end.flow.send(RST)
        self.ports = {key: port for key, port in self.ports.items() if port.reactor is not reactor}
