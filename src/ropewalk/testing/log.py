"""What happened: a rolling digest of every turn and every delivered byte, and the few events that people read."""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b

from .values import Event

KEPT = 4000  # events; the oldest go
_turn = struct.Struct("<dH").pack


class Log:
    """The log of one World. Two runs of one seed have equal digests, in any process."""

    def __init__(self, trace: Callable[[str], object] | None = None) -> None:
        """`trace` is given a line for everything that enters the digest."""
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()
        self._hash = blake2b(digest_size=16)
        self._trace = trace

    def digest(self) -> str:
        """32 hex digits for all that happened so far."""
        return self._hash.hexdigest()

    def turn(self, at: float, host: int, what: str) -> None:
        """Something fires at a host."""
        self._hash.update(_turn(at, host) + what.encode())
        if self._trace is not None:
            self._trace(f"{at:.9f} host {host} {what}")

    def bytes(self, at: float, host: int, data: bytes) -> None:
        """Bytes are delivered to a host."""
        self.counts["bytes"] += len(data)
        self._hash.update(_turn(at, host))
        self._hash.update(data)
        if self._trace is not None:
            self._trace(f"{at:.9f} host {host} receives {data!r}")

    def tell(self, event: Event) -> None:
        """Something that people read."""
        self.counts[event.kind] += 1
        self.events.append(event)
        self._hash.update(f"{event.at!r} {event.host} {event.kind} {event.text} {event.peer}".encode())
        if self._trace is not None:
            self._trace(f"{event.at:.9f} {event.host} {event.kind} {event.text} {event.peer}")
