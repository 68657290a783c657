"""One connection of a client: a request out, its reply in, then the next. No I/O of its own, as `channel`.

Whatever leaves doubt about where a reply ends (surplus bytes, lengths that contradict each other, a broken chunk) ends
the connection: what comes behind it would be taken for another's reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser
from twisted.internet.error import ConnectionDone

from .deadlines import NEVER
from .heads import BODILESS, Fields

HEAD = 64 << 10  # bytes of a reply's fields; more is none of what a server says
FIELDS = 256
INTERIM = 16  # replies before the reply (1xx); more is a flood
OVER_SOON = "the connection ended before the reply did"


class Broken(Exception):
    """Raised when a connection ends, or has to be ended, before the reply is complete. The request was sent."""


class Head(NamedTuple):
    """The beginning of a reply."""

    status: int
    reason: bytes
    fields: Fields
    version: str
    length: int | None  # of the body; None: its end will tell


class Hearer(Protocol):
    """Who waits for a reply."""

    def head(self, head: Head) -> None:
        """It begins."""

    def chunk(self, data: bytes) -> None:
        """A part of its body."""

    def complete(self) -> None:
        """That was all of it; the connection may be asked again already."""

    def failed(self, error: Broken) -> None:
        """It will not be complete."""


class ClientChannel:
    """See above. `freed(channel)` when it may be asked again, `gone(channel)` when it is no more."""

    __slots__ = (
        "_bodiless", "_done", "_fields", "_freed", "_gone", "_headed", "_hearer", "_interim", "_keeps", "_parser",
        "_reason", "_silent", "_size", "deadline", "ended", "producer", "sending", "transport", "until_close",
    )  # fmt: skip

    def __init__(self, freed: Callable[[ClientChannel], object], gone: Callable[[ClientChannel], object]) -> None:
        self.transport: Any = None  # a Transport, see channel.py
        self.deadline = NEVER  # of its idleness
        self.producer: Any = None  # who makes the request's body, an IBodyProducer
        self.sending = False  # the request is not complete
        self.ended = False
        self._freed = freed
        self._gone = gone
        self._parser: Any = None
        self._hearer: Hearer | None = None
        self._bodiless = False  # the reply has none, whatever its head says
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._silent = 0  # bytes since llhttp last told something
        self._interim = 0
        self._headed = False
        self._done = False
        self._keeps = False
        self.until_close = False  # the end of the connection is that of the reply

    # -- from the driver

    def connection_made(self, transport: Any, peer: str = "") -> None:
        """As an asyncio.Protocol."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """As an asyncio.Protocol."""
        if self._hearer is None:
            self.transport.abort()  # nobody asked for that
            return
        if self._parser is None:  # nor wants more: `leave`
            return
        self._silent += len(data)
        reason = ""
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            cause = error.__context__ if isinstance(error, HttpParserCallbackError) else error
            if isinstance(error, HttpParserCallbackError) and not isinstance(cause, Broken):
                raise
            reason = f"the reply is malformed: {cause}"
        if self._parser is None:
            return
        if self._silent > HEAD and not reason:
            reason = f"the reply has more than {HEAD} bytes without the end of a field"
        if self._done:
            self._finish(clean=not reason)
        elif reason:
            self._break(reason)

    def connection_lost(self, error: Exception | None = None) -> None:
        """As an asyncio.Protocol."""
        self.ended = True
        hearer, self._hearer = self._hearer, None
        parser, self._parser = self._parser, None
        self._gone(self)
        if hearer is None:
            return
        if self._headed and parser is not None and self.until_close and _is_clean(error):
            hearer.complete()
        else:
            hearer.failed(Broken(f"{OVER_SOON}: {error}" if error else OVER_SOON))

    def pause_writing(self) -> None:
        """As an asyncio.Protocol."""
        if self.producer is not None:
            self.producer.pauseProducing()

    def resume_writing(self) -> None:
        """As an asyncio.Protocol."""
        if self.producer is not None:
            self.producer.resumeProducing()

    # -- from whoever asks

    def ask(self, request: bytes, hearer: Hearer, *, bodiless: bool = False) -> None:
        """Send the bytes of a request. `bodiless`: its reply has no body (HEAD)."""
        assert self._hearer is None, "One request at a time."
        self._parser = HttpResponseParser(self)
        self._hearer = hearer
        self._bodiless = bodiless
        self._headed = self._done = self.until_close = False
        self._interim = self._silent = 0
        self.transport.write(request)

    def write(self, data: bytes) -> None:
        """More of the request."""
        self.transport.write(data)

    def abandon(self) -> None:
        """Nobody waits for the reply any more: the connection ends, unless the reply is complete."""
        if self._hearer is not None:
            self._hearer = None
            self.transport.abort()

    def give_up(self) -> None:
        """Likewise, but whoever hears the reply is told that it broke off."""
        if self._hearer is not None:
            self._break("nobody wanted the rest")

    def leave(self) -> None:
        """Likewise, as a transport does: the hearer is told when the connection has ended, and hears nothing before."""
        if self._hearer is not None:
            self._parser = None
            self.transport.abort()

    def late(self, now: float) -> None:
        """It was unused for too long."""
        self.deadline = NEVER
        self.transport.close()

    # -- from llhttp

    def on_message_begin(self) -> None:
        if self._done:
            raise Broken("something comes behind it")
        self._reason, self._fields, self._size, self._silent = b"", [], 0, 0

    def on_status(self, part: bytes) -> None:
        self._silent = 0
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._silent = 0
        self._fields.append((name, value))
        self._size += len(name) + len(value) + 4
        if len(self._fields) > FIELDS or self._size > HEAD:
            raise Broken(f"more than {FIELDS} fields or {HEAD} bytes")

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        self._fields, self._size = [], 0
        status = parser.get_status_code()
        if status == 101:
            raise Broken("the server would speak another protocol")
        if 100 <= status < 200:
            self._interim += 1
            if self._interim > INTERIM:
                raise Broken(f"more than {INTERIM} replies before the reply")
            return
        length, chunked = _length(fields)
        bodiless = self._bodiless or status in BODILESS
        self.until_close = length is None and not chunked and not bodiless
        self._keeps = parser.should_keep_alive() and not self.until_close
        self._headed = True
        if self._hearer is not None:
            version = parser.get_http_version()
            self._hearer.head(Head(status, self._reason, fields, version, 0 if bodiless else length))
        if self._bodiless:
            self._done = True  # llhttp does not know, and waits for a body

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        if self._bodiless:
            raise Broken("it has a body")
        if self._hearer is not None and self._parser is not None:
            self._hearer.chunk(data)

    def on_message_complete(self) -> None:
        self._silent = 0
        self._done = self._headed

    # -- within

    def _finish(self, *, clean: bool) -> None:
        hearer, self._hearer, self._parser = self._hearer, None, None
        if hearer is None:  # it left in the midst of this, and the connection ends
            return
        if clean and self._keeps and not self.sending:
            self._freed(self)
        else:
            self.transport.close()
        hearer.complete()

    def _break(self, reason: str) -> None:
        hearer, self._hearer = self._hearer, None
        self.transport.abort()
        if hearer is not None:
            hearer.failed(Broken(reason))


def _length(fields: Fields) -> tuple[int | None, bool]:
    length, chunked = None, False
    for name, value in fields:
        lower = name.lower()
        if lower == b"content-length":
            length = int(value)
        elif lower == b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked":
                raise Broken(f"its Transfer-Encoding is {value!r}")
            chunked = True
    return length, chunked


def _is_clean(error: Exception | None) -> bool:
    return error is None or isinstance(error, ConnectionDone)
