"""The Site a listener serves with: body limits, and an end that loses no request.

`drain` makes every further reply say `Connection: close` and closes each connection once it waits for nothing;
`wait_until_closed` tells when the last one is gone, its last byte sent.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request as ServerRequest
from twisted.web.server import Site as ServerSite

from ..buggify import buggify
from ..codec.forms import MULTIPART, URLENCODED, read_form
from ..codec.types import Upload
from ..errors import ContentTooLarge
from .heads import write_problem

FLOOD = 8  # times the limit: a body beyond it is not even read to its end
# Seconds without a byte after which a draining connection is closed. One that was used: whoever sends at the same
# moment learns it by the close and may send again. One that was not: its first request is on its way, on a busy machine
# slowly, and its client has no reason to expect a close.
USED_GRACE = 0.25
FRESH_GRACE = 1.0


class _Request(ServerRequest):
    _length = 0
    site: Site

    def gotLength(self, length: int | None) -> None:
        channel: Any = self.channel
        self._site = channel.site
        self._length = 0
        super().gotLength(None if length is not None and length > self._site.max_body else length)

    def handleContentChunk(self, data: bytes) -> None:
        self._length += len(data)
        if self._length <= self._site.max_body:
            super().handleContentChunk(data)
        elif self._length > self._site.max_body * FLOOD:
            channel: Any = self.channel
            channel.transport.abortConnection()  # or else memory would be theirs to fill and time theirs to take

    def process(self) -> None:
        site: Site = self._site
        if self._length > site.max_body:
            too_large = ContentTooLarge(f"This listener takes {site.max_body} bytes, the body has {self._length}.")
            self.write(write_problem(self, too_large))
            self.finish()
            return
        super().process()

    def fill_args(self) -> None:
        """Put the fields of a posted form into `args`, as raw code expects; raises BadRequest when it is broken.

        Twisted would have done it before any route was known, for operations too, and answered a bare 400.
        """
        content_type = (self.getHeader(b"content-type") or b"").decode("latin-1")
        if self.method != b"POST" or not content_type.lower().startswith((URLENCODED, MULTIPART)):
            return
        content: Any = self.content
        for name, value in read_form(content_type, content.read()):
            each = value.content if isinstance(value, Upload) else value.encode()
            self.args.setdefault(name.encode(), []).append(each)
        content.seek(0)

    def write(self, data: bytes) -> None:
        if not self.startedWriting and self._site.draining:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])
            self.channel.persistent = False
        super().write(data)


class _Channel(HTTPChannel):
    site: Site
    _used = False
    _closing: Any = None

    def connectionMade(self) -> None:
        self.site.channels[self] = None
        super().connectionMade()
        if self.site.draining:
            self.close_when_idle()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self._closing is not None:
            self.close_when_idle()  # from now on again: this may be half of a request's first line

    def requestDone(self, request: Any) -> None:
        self._used = True
        super().requestDone(request)
        if self.site.draining and self.persistent:  # else it is being closed
            self.close_when_idle()
        elif not self.requests and self.persistent and buggify("http server: an idle connection is closed at once"):
            self.loseConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._keep()
        super().connectionLost(reason)
        self.site.lost(self)

    def close_when_idle(self) -> None:
        """Close it when no request has begun for a moment; while one is answered, `requestDone` asks again."""
        self._keep()
        if not self.requests:
            self._closing = self.callLater(USED_GRACE if self._used else FRESH_GRACE, self._close)

    def _close(self) -> None:
        self._closing = None
        self.loseConnection()

    def _keep(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()


class Site(ServerSite):
    """A `twisted.web` Site for one listener."""

    protocol = _Channel  # type: ignore[assignment]  # Twisted's own also speaks HTTP/2, where TLS asks for it
    displayTracebacks = False

    def __init__(self, resource: IResource, reactor: Any, max_body: int) -> None:
        """`max_body`: bytes, of any request."""
        super().__init__(resource, _Request, reactor=reactor, parsePOSTFormSubmission=False)
        self.max_body = max_body
        self.draining = False
        self.channels: dict[_Channel, None] = {}  # in the order they came
        self._closed: list[Deferred[None]] = []

    def log(self, request: Any) -> None:
        """Nothing: the trace filter says more."""

    def _updateLogDateTime(self) -> None:
        """Nothing, and no timer every second: `log` writes no line that wants a date."""

    def drain(self) -> None:
        """From now on each connection ends with the reply to its next request, or when it has none."""
        self.draining = True
        for channel in self.channels:
            channel.close_when_idle()

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
            transport: Any = channel.transport
            transport.abortConnection()

    def lost(self, channel: _Channel) -> None:
        """A connection is gone."""
        self.channels.pop(channel, None)
        if not self.channels:
            waiting, self._closed = self._closed, []
            for each in waiting:
                each.callback(None)
