"""One connection of a server: bytes in, exchanges to the application one after the other, their replies out in order.

No I/O and no clock of its own: a driver brings the transport and calls `connection_made`, `data_received`,
`connection_lost`, `pause_writing`, `resume_writing`, as asyncio does. llhttp reads; what it lets pass and should not is
refused by `heads.examine`. However the bytes are cut, the outcome is the same; but for what nobody sends: blanks, chunk
extensions or a broken target beyond the limits, which are noticed where a cut shows them, and else may pass.

    fresh -> head -> body -> answer -> idle -> head ...     each with its deadline: `_due`
    refused, or the last -> linger                          read on, so that the peer reads the answer; then gone
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Protocol

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from twisted.logger import Logger

from ..buggify import buggify
from .deadlines import NEVER
from .exchange import Exchange
from .heads import Fields, Refused, examine, origin_form

if TYPE_CHECKING:
    from .server import Server

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE = 64 << 10  # bytes that a transport is given at once: when it has room again, the peer has taken some
# Seconds without a byte after which a draining connection is closed. One that was used: whoever sends at the same
# moment learns it by the close and may send again. One that was not: its first request is on its way, on a busy machine
# slowly, and its client has no reason to expect a close.
USED_GRACE = 0.25
FRESH_GRACE = 1.0

_NONE: deque[Any] = deque(maxlen=0)  # of most connections nothing ever waits; one of its own takes 600 bytes
Reason = Literal["queue", "body"]  # not to read on: requests wait; the application takes no more


class Transport(Protocol):
    """What a driver gives a channel to write to; the names are asyncio's."""

    def write(self, data: bytes) -> None:
        """Send it, when it can be sent."""

    def can_write_eof(self) -> bool:
        """Whether `write_eof` may be called; it may not over TLS."""

    def write_eof(self) -> None:
        """Nothing more will be sent; the peer may still send."""

    def close(self) -> None:
        """Send what waits, and end."""

    def abort(self) -> None:
        """End now."""

    def pause_reading(self) -> None:
        """Call no `data_received` for now."""

    def resume_reading(self) -> None:
        """Call it again."""


class Channel:
    """See above."""

    __slots__ = (
        "_behind", "_current", "_end", "_fields", "_heading", "_held_since", "_holds", "_out", "_parser", "_paused",
        "_protocol", "_queue", "_read", "_reading", "_refusal", "_silent", "_since", "_size", "_stuck", "_stuck_since",
        "_surplus", "_turning", "_url", "_used", "deadline", "peer", "proxy", "server", "transport", "view",
    )  # fmt: skip  # thousands of them are open at once

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: Any = None  # a Transport
        self.peer = ""  # its address; of a trusted proxy's, that of the client it said last
        self.proxy: str | None = None  # the address of a trusted proxy that says with each request whose it is
        self.view: Any = None  # what an application keeps of the connection from one request to the next
        self.deadline = NEVER
        self._parser: Any = None  # None: no further request is read
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0  # bytes of these fields
        self._silent = 0  # bytes that llhttp took and told nothing of: it may hold them
        self._heading = False  # a head has begun
        self._reading: Exchange | None = None  # whose body comes
        self._current: Exchange | None = None  # who is answered
        self._queue: deque[Exchange] = _NONE  # who waits for it
        self._turning = False  # `_next` is at work
        self._refusal: Refused | None = None  # the answer after theirs
        self._read: Exchange | None = None  # its head came before an upgrade that is none
        self._behind: bytes | None = None  # what came behind a request that may become another protocol's
        self._protocol: Any = None  # which that is
        self._out: deque[bytes] = _NONE  # pieces that the transport has no room for
        self._end: Any = None  # what of the transport to call when they are sent
        self._used = False
        self._surplus = False  # bytes came that nobody reads
        self._stuck = False  # the transport has no room
        self._stuck_since = 0.0
        self._paused = False  # nor had it since the application was told so
        self._holds: set[Reason] = set()
        self._held_since = 0.0
        self._since = 0.0  # when this stage began

    # -- from the driver

    def connection_made(self, transport: Any, peer: str = "") -> None:
        """`transport`: a Transport; `peer`: its address, "" for one that is not counted."""
        self.transport, self.peer = transport, peer
        proxies = self.server.proxies
        if proxies is not None and not proxies.protocol and proxies.trusts(peer):
            self.proxy = peer
        if not self.server.admit(self):
            transport.abort()
            return
        self._parser = HttpRequestParser(self)
        self._begin_stage()

    def data_received(self, data: bytes) -> None:
        """Bytes, however they are cut."""
        if self._parser is not None:
            self._feed(data)
        elif self._protocol is not None:
            self._protocol.data_received(data)
        elif self._behind is not None:
            self._behind += data
            self.hold("queue")
        else:
            self._surplus = True

    def connection_lost(self, error: Exception | None = None) -> None:
        """It is gone."""
        current, protocol = self._current, self._protocol
        self._parser = self._current = self._reading = self._protocol = None
        self._queue.clear()
        self._out.clear()
        self.server.lost(self)
        if protocol is not None:
            protocol.connection_lost(error)
        if current is not None and not current.ended:
            _lose(current)

    def pause_writing(self) -> None:
        """The transport has no room."""
        if self._protocol is not None:
            self._protocol.pause_writing()
            return
        # Reading goes on, to hear when the peer is gone. What it asks meanwhile waits in the queue.
        told, self._paused = self._paused, True
        self._stuck, self._stuck_since = True, self.server.seconds()
        self._look()
        if not told and self._current is not None and self._current.receiver is not None:
            self._current.receiver.pause()

    def resume_writing(self) -> None:
        """It has: the peer has taken something."""
        if self._protocol is not None:
            self._protocol.resume_writing()
            return
        self._stuck = False
        while self._out and not self._stuck:
            self.transport.write(self._out.popleft())
        if self._stuck:
            return
        self._paused = False
        self._look()
        if self._end is not None:
            self._end()
        elif self._current is None:
            self._next()
        elif self._current.receiver is not None:
            self._current.receiver.resume()

    # -- from llhttp

    def on_message_begin(self) -> None:
        if self._parser is None:
            raise Refused(400, "Behind the last request there is none.")
        self._url, self._fields, self._size, self._silent = b"", [], 0, 0
        self._heading = True

    def on_url(self, part: bytes) -> None:
        self._silent = 0
        self._url += part
        if len(self._url) > self.server.limits.target:
            raise Refused(414, f"A request's target has at most {self.server.limits.target} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._silent = 0
        self._fields.append((name, value.rstrip(b" \t")))  # llhttp leaves what is behind it
        self._size += len(name) + len(value) + 4
        limits = self.server.limits
        if len(self._fields) > limits.fields or self._size > limits.head:
            raise Refused(431, f"A head has at most {limits.fields} fields and {limits.head} bytes.")

    def on_headers_complete(self) -> None:
        self._heading = False
        fields, self._fields, self._size = self._fields, [], 0  # from here on the trailers'
        if self._read is not None:  # the head stands for one that was read already
            self._reading, self._read = self._read, None
            return
        parser = self._parser
        version, method, url = parser.get_http_version(), parser.get_method(), self._url
        length, expects = examine(version, method, url, fields)
        # A handshake has no body: what stands in its place would be the other protocol's, or be taken for a request.
        upgrades = length == 0 and version == "1.1" and parser.should_upgrade() and _may(method, fields)
        exchange = Exchange(
            self, method, origin_form(url), version, fields, length, self.server.limits.body,
            expects=expects, keeps=parser.should_keep_alive(), upgrades=upgrades,
        )  # fmt: skip
        if self.proxy is not None:
            exchange.client = self.server.hear_of_client(self, fields)
        if not exchange.complete:
            self._reading = exchange
            self._begin_stage()
        if self._current is not None or self._queue or self._stuck:
            self._queue = self._queue or deque()
            self._queue.append(exchange)
            self.hold("queue")
        else:
            self._start(exchange)

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        exchange = self._reading
        if exchange is None:
            return
        exchange.received += len(data)
        if exchange is not self._current:
            exchange.held = exchange.held or []
            exchange.held.append(data)
        elif exchange.received > exchange.max_body:
            raise _too_large(exchange)
        else:
            try:
                exchange.receiver.chunk(data)  # type: ignore[union-attr]  # the current one has a receiver
            except Exception:
                self._fail(exchange)

    def on_message_complete(self) -> None:
        self._silent = 0
        exchange = self._reading
        if exchange is None or self._parser.should_upgrade():
            return  # the latter's body is still to be read: `_meet_upgrade`
        self._reading = None
        exchange.complete = True
        if exchange is self._current:
            try:
                exchange.receiver.complete()  # type: ignore[union-attr]  # as above
            except Exception:
                self._fail(exchange)

    # -- from an exchange

    @property
    def stuck(self) -> bool:
        """Whether the peer takes no more for now."""
        return self._stuck

    def write(self, data: bytes) -> None:
        """Some of the current reply."""
        if not self._out and len(data) <= PIECE:
            self.transport.write(data)
            return
        self._out = self._out or deque()
        self._out.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
        while self._out and not self._stuck:
            self.transport.write(self._out.popleft())

    def ended(self, exchange: Exchange) -> None:
        """Its reply is complete."""
        self._current = exchange.receiver = None  # they know each other: else a collector would have to part them
        self._used = True
        if self._holds:
            self.release("body")
        if exchange.closes:
            self._close(linger=not exchange.complete or self._surplus or bool(self._queue))
            return
        if exchange.upgrades and self._behind is not None:  # it has become no other protocol's
            behind, self._behind = self._behind, None
            self._parser = HttpRequestParser(self)
            self.release("queue")
            self._feed(behind)
        self._next()

    def upgrade(self, protocol: Any) -> None:
        """The current exchange has become `protocol`'s."""
        self._parser = self._current = None
        self._protocol = protocol
        self.server.deadlines.set(self, NEVER)
        protocol.connection_made(self.transport)
        for reason in tuple(self._holds):
            self.release(reason)
        if not self._turning:
            self._hand_over()

    def abort(self) -> None:
        """Cut it off."""
        self._parser = self._reading = None
        self._end = self.transport.abort
        self._end()

    def hold(self, reason: Reason) -> None:
        """Read no more for now."""
        if not self._holds:
            self._held_since = self.server.seconds()
            self.transport.pause_reading()
        self._holds.add(reason)
        self._look()

    def release(self, reason: Reason) -> None:
        """Read on, if that was the last reason not to."""
        if reason in self._holds:
            self._holds.discard(reason)
            if not self._holds:
                self._since += self.server.seconds() - max(self._held_since, self._since)  # that was not the peer's
                self._look()
                self.transport.resume_reading()

    # -- from the server

    def drain(self) -> None:
        """End with the reply under way, or when no request has begun for a moment."""
        if self._current is None:
            self._begin_stage()

    def late(self, now: float) -> None:
        """Its deadline has passed."""
        if self._stuck or self._end is not None:
            self.server.counts["did not read"] += self._stuck
            self.transport.abort()
        elif self._reading is not None:
            self._refuse(Refused(408, "The body came too slowly."), self._reading)
        elif self._begun():
            self._refuse(Refused(408, f"A head comes within {self.server.limits.head_time:g} seconds."))
        else:
            self._close(linger=False)

    # -- within

    def _feed(self, data: bytes) -> None:
        began = self._begun()
        while data:
            data = self._parse(data)
        begun = self._begun()
        if begun and not began:
            self._begin_stage()
        elif begun or self._reading is not None or self._current is not None:
            self._look()

    def _parse(self, data: bytes) -> bytes:
        """What another parser is to read."""
        self._silent += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return self._meet_upgrade(data[upgrade.args[0] :])
        except HttpParserError as error:
            cause = error.__context__ if isinstance(error, HttpParserCallbackError) else Refused(400, f"{error}.")
            if not isinstance(cause, Refused):
                raise  # of ours: the application's are met where it is called
            self._refuse(cause, self._reading)
        else:
            # Twice: all that `on_header` lets pass must have come by then.
            if self._silent > 2 * self.server.limits.head and self._parser is not None:
                self._refuse(
                    Refused(431, f"A field, or what stands before one, has more than {self.server.limits.head} bytes."),
                    self._reading,
                )
        return b""

    def _begun(self) -> bool:
        """Whether a head has, and is not complete."""
        return self._heading or (self._silent > 0 and self._reading is None and self._current is None)

    def _meet_upgrade(self, behind: bytes) -> bytes:
        if self._protocol is not None:  # it became that at once
            self._behind = behind
            self._hand_over()
            return b""
        if self._parser is None:  # it was the last
            return b""
        exchange = self._reading
        last = self._queue[-1] if self._queue else self._current
        if exchange is None and last is not None and last.upgrades:
            self._parser, self._behind = None, behind
            return b""
        # An upgrade that is not wanted is ignored (RFC 9110, section 7.8). llhttp has stopped for it; another one reads
        # on, and the body by a head that frames it alike.
        self._parser, self._read = HttpRequestParser(self), exchange
        if exchange is None:
            return behind
        frame = b"content-length: %d" % exchange.length if exchange.length is not None else _CHUNKED
        return b"POST / HTTP/1.1\r\nhost:\r\n%b\r\n\r\n" % frame + behind

    def _hand_over(self) -> None:
        behind, self._behind = self._behind, None
        if behind and self._protocol is not None:
            self._protocol.data_received(behind)

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        try:
            exchange.receiver = receiver = self.server.serve(exchange)
            if exchange.ended:
                return
            if max(exchange.length or 0, exchange.received) > exchange.max_body:
                raise _too_large(exchange)
            if exchange.expects and not (exchange.complete or exchange.received or exchange.started):
                self.write(CONTINUE)
            if exchange.held is not None:
                held, exchange.held = exchange.held, None
                for data in held:
                    receiver.chunk(data)
                    if exchange.ended:
                        return
            if exchange.complete:
                receiver.complete()
        except Refused as refused:
            self._refuse(refused, exchange)
        except Exception:
            self._fail(exchange)

    def _next(self) -> None:
        if self._turning:  # the application answers at once, many times: no deeper, but the next in the loop
            return
        self._turning = True
        try:
            while self._queue and self._current is None and not self._stuck:
                self._start(self._queue.popleft())
        finally:
            self._turning = False
        if self._protocol is not None:
            self._hand_over()
            return
        if self._holds and not self._queue:
            self.release("queue")
        if self._current is not None or self._queue or self._end is not None:
            return
        if self._refusal is not None:
            self._answer_refusal()
        elif self._surplus:  # behind the last request
            self._close(linger=True)
        elif not self._begun() and buggify("http server: an idle connection is closed at once"):
            self._close(linger=False)
        else:
            self._begin_stage()

    def _refuse(self, refused: Refused, exchange: Exchange | None = None) -> None:
        """Read no more requests, and answer this one so in its turn; `exchange`: what it is by now, if anything."""
        last = self._queue[-1] if self._queue else self._current
        self._parser = self._reading = None
        if self._end is not None or (exchange is None and last is not None and not last.keeps):
            self._surplus = True  # behind a request that was the last
            return
        self._refusal, self._heading = refused, False
        self.server.counts[f"refused {refused.status}"] += 1
        if exchange is not None and exchange is self._current:
            self._current = None
            self._queue.clear()
            _lose(exchange)
            if exchange.started:
                self.abort()
                return
        elif exchange is not None:
            self._queue.pop()
        if self._current is None and not self._queue:
            self._answer_refusal()

    def _fail(self, exchange: Exchange) -> None:
        """The application has, in the `except` that calls this."""
        _log.failure("An application raised where it takes a request")
        if not exchange.ended:
            self._refuse(Refused(500, "The application failed."), exchange)

    def _answer_refusal(self) -> None:
        refused, self._refusal = self._refusal, None
        assert refused is not None
        self.write(self.server.refusal(refused))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        self._parser = self._reading = self._current = self._behind = None
        self._queue.clear()
        self._end = self._linger if linger else self._finish
        if not self._out and not self._stuck:
            self._end()

    def _linger(self) -> None:
        self._begin_stage()
        for reason in tuple(self._holds):
            self.release(reason)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # that of TLS says so, and waits for the peer to say the same

    def _finish(self) -> None:
        self._begin_stage()
        self.transport.close()

    # -- its deadline

    def _begin_stage(self) -> None:
        self._since = self.server.seconds()
        self._look()

    def _look(self) -> None:
        self.server.deadlines.set(self, self._due())

    def _due(self) -> float:
        limits, since = self.server.limits, self._since
        if self._protocol is not None:
            return NEVER
        if self._stuck:
            return self._stuck_since + limits.write
        if self._end is not None:
            return since + (limits.linger if self._end == self._linger else limits.write)
        if self._holds:
            return NEVER
        if self._reading is not None:
            whole = since + limits.body_grace + self._reading.received / limits.body_rate
            return min(whole, self.server.seconds() + limits.idle)  # much at once does not earn a long silence
        if self._current is not None:
            return NEVER
        if self._begun():
            return since + limits.head_time
        if self.server.draining:
            return since + (USED_GRACE if self._used else FRESH_GRACE)
        return since + (limits.idle if self._used else limits.head_time)


_CHUNKED = b"transfer-encoding: chunked"
_log = Logger("ropewalk.engine")


def _lose(exchange: Exchange) -> None:
    """Nobody reads its reply."""
    exchange.ended = exchange.gone = True
    if exchange.receiver is not None:
        try:
            exchange.receiver.lost()
        except Exception:
            _log.failure("An application raised where it is told that a connection is lost")


def _may(method: bytes, fields: Fields) -> bool:
    """Whether an application may make another protocol of a request: a WebSocket's handshake (RFC 6455, 4.1)."""
    return method == b"GET" and any(
        name.lower() == b"upgrade" and value.lower() == b"websocket" for name, value in fields
    )


def _too_large(exchange: Exchange) -> Refused:
    size = exchange.length or exchange.received
    return Refused(413, f"At most {exchange.max_body} bytes are taken here; the body has {size} or more.")
