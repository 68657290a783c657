"""What a listener bears of its peers: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

IDLE = 50.0  # seconds our clients keep an unused connection: less than servers do, so that none is used as it ends


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one listener. What goes beyond is refused with the status in brackets, or closed."""

    target: int = 8 << 10  # bytes of a request's target (414); nginx's large_client_header_buffers
    head: int = 16 << 10  # bytes of all fields of a head, or of a body's trailers (431)
    fields: int = 100  # in a head, or in trailers (431); Apache's LimitRequestFields
    body: int = 1 << 20  # bytes, unless the application says otherwise (413)
    connections: int = 10_000  # at once; further ones are closed unread
    per_peer: int = 512  # of them from one address
    count_loopback: bool = False  # whether loopback is a peer, too: off, because siblings and proxies call from there
    head_time: float = 10.0  # from a head's first byte to its last (408)
    body_grace: float = 20.0  # before a body is late, and ...
    body_rate: float = 500.0  # bytes a second that it has to come with on the whole (408); Apache's RequestReadTimeout
    idle: float = 60.0  # between two requests, or two reads of a body; above what our own clients keep a connection
    write: float = 30.0  # without the peer taking what waits for it
    linger: float = 5.0  # that a refused request is read on, so that its sender hears why; nginx's lingering_timeout


DEFAULT = Limits()
