"""One request and its reply: what an application is given, and what writes the reply in its frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from .heads import BODILESS, Fields, reply_head, usual_head

if TYPE_CHECKING:
    from .channel import Channel
    from .proxies import Client

LAST_CHUNK = b"0\r\n\r\n"


class Receiver(Protocol):
    """Who takes a request's body, and answers: made by the application for each exchange."""

    def chunk(self, data: bytes) -> None:
        """A part of the body."""

    def complete(self) -> None:
        """That was all of it."""

    def lost(self) -> None:
        """The connection is gone, or the rest of the request cannot be taken; nobody reads an answer."""

    def pause(self) -> None:
        """The peer takes no more for now."""

    def resume(self) -> None:
        """It does again."""


class Exchange:
    """A request, from its head on, and its reply."""

    # What most exchanges never change costs them nothing here.
    client: Client | None = None  # whose it is, when a trusted proxy has handed it on
    receiver: Receiver | None = None
    held: list[bytes] | None = None  # what came of the body before its turn
    received = 0  # bytes of the body
    started = False  # the reply's head is written
    ended = False  # and all of it
    gone = False  # nobody reads it, and nothing that is written is sent
    closes = False  # the connection ends with this reply
    _chunked = False
    _bodiless = False
    _left = -1  # bytes of the body that were promised and not written; -1: none were

    def __init__(
        self,
        channel: Channel,
        method: bytes,
        target: bytes,
        version: str,
        fields: Fields,
        length: int | None,
        max_body: int,
        *,
        expects: bool,
        keeps: bool,
        upgrades: bool,
    ) -> None:
        self._channel = channel
        self.method = method
        self.target = target
        self.version = version  # "1.1" or "1.0"
        self.fields = fields  # as they came
        self.length = length  # of the body, in bytes; None: its end will tell
        self.max_body = max_body  # bytes; the application may set another while it is given the exchange
        self.expects = expects  # its sender waits for 100 Continue before it sends the body
        self.keeps = keeps  # its sender would keep the connection
        self.upgrades = upgrades  # its sender would speak WebSocket on it
        self.complete = length == 0  # all of the request is here

    @property
    def connection(self) -> Channel:
        """Its connection, the same for all of a peer's requests on it."""
        return self._channel

    @property
    def paused(self) -> bool:
        """The peer takes no more for now."""
        return self._channel.stuck

    def reply(self, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """All of the reply, which is no stream; `fields` without those of its frame.

        Raises ValueError when a field would break out of the head; nothing is written then.
        """
        if self.gone:
            return
        channel = self._channel
        fields = tuple(fields)
        bodiless = status in BODILESS
        plain = self.keeps and self.complete and self.version == "1.1" and not (channel.server.draining or self.started)
        head = usual_head(status, fields) if plain and not bodiless else None
        if head is not None:
            head = head % len(body)
            self.started = True
        else:
            length = () if bodiless else ((b"content-length", b"%d" % len(body)),)
            head = self._head(status, [*fields, *length], None)
        channel.write(head if bodiless or self.method == b"HEAD" else head + body)
        self.ended = True
        channel.ended(self)

    def start(
        self,
        status: int,
        fields: Iterable[tuple[bytes, bytes]],
        reason: bytes | None = None,
        *,
        framed: bool = False,
    ) -> None:
        """The head of a reply whose body is still to come, by `write` and `end`.

        Without a Content-Length among `fields` it is sent in chunks, to HTTP/1.0 until the connection ends. `framed`:
        the application has done that, and says so in `fields`. Raises ValueError when a field would break out of the
        head, or is no Content-Length; nothing is written then.
        """
        if self.gone:
            return
        frame: list[tuple[bytes, bytes]] = []
        lengths: set[bytes] = set()
        chunked = False
        for name, value in fields:
            lower = name.lower()
            if lower == b"transfer-encoding":
                if not framed:
                    continue
                chunked = True
            elif lower == b"content-length":
                lengths.add(value)
            frame.append((name, value))
        if len(lengths) > 1 or not all(each.isdigit() for each in lengths):
            raise ValueError(f"A reply's Content-Length is one number of bytes, not {sorted(lengths)}.")
        bodiless = status in BODILESS or self.method == b"HEAD"
        if not (lengths or bodiless or chunked):
            chunked = self.version == "1.1" and not framed
            if chunked:
                frame.append((b"transfer-encoding", b"chunked"))
            else:
                self.keeps = False
        head = self._head(status, frame, reason)
        self._left = int(lengths.pop()) if lengths else -1
        self._chunked, self._bodiless = chunked and not framed, bodiless
        self._channel.write(head)

    def write(self, data: bytes) -> None:
        """More of the body. Raises ValueError for more than Content-Length promised; nothing of it is written then."""
        if not data or self._bodiless or self.ended:
            return
        if not self.started:
            raise RuntimeError("A reply's head is written before its body.")
        if self._left >= 0:
            if len(data) > self._left:
                raise ValueError(f"The reply has {len(data) - self._left} bytes more than its Content-Length says.")
            self._left -= len(data)
        self._channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The reply is complete. One that is shorter than was promised ends its connection, for all to see."""
        if self.ended:
            return
        if not self.started:
            raise RuntimeError("A reply has a head.")
        self.ended = True
        if self._left > 0 and not self._bodiless:
            self._channel.abort()
            return
        if self._chunked:
            self._channel.write(LAST_CHUNK)
        self._channel.ended(self)

    def abort(self) -> None:
        """Cut the connection off: a clean end would pass for the whole of the reply."""
        if not self.ended:
            self._channel.abort()

    def upgrade(self, protocol: Any) -> None:
        """Let `protocol`, an asyncio.Protocol, have the connection, and what came behind this request.

        Only where `upgrades` is true, and after `start` with status 101.
        """
        if not self.upgrades:
            raise RuntimeError("This request asks for no other protocol.")
        if not self.ended:
            self.ended = True
            self._channel.upgrade(protocol)

    def close(self) -> None:
        """End the connection behind what is written."""
        if not self.ended:
            self.ended = self.closes = True
            self._channel.ended(self)

    def hold(self) -> None:
        """Let no more of the body come for now."""
        if not self.ended:
            self._channel.hold("body")

    def release(self) -> None:
        """Let it come again."""
        if not self.ended:
            self._channel.release("body")

    def _head(self, status: int, fields: list[tuple[bytes, bytes]], reason: bytes | None) -> bytes:
        if self.started:
            raise RuntimeError("This request has been answered.")
        closes = not self.keeps or not self.complete or self._channel.server.draining
        said = b""
        for name, value in fields:
            if len(name) == 10 and name.lower() == b"connection":
                said += value.lower()
        if b"close" in said:
            closes = True
        elif closes and status != 101:
            fields.append((b"connection", b"close"))
        elif self.version == "1.0" and not said:
            fields.append((b"connection", b"keep-alive"))
        head = reply_head(status, fields, reason)
        self.started = True
        self.closes = closes
        return head
