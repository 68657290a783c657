"""A body sent piece by piece, no faster than the client takes it: server-sent events, NDJSON, or bytes as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from ..codec.pieces import EVENTS, LINES, encoder
from ..message import Stream
from .accept import quality
from .heads import abort

_log = Logger("ropewalk.http")


async def send_stream(request: Any, stream: Stream, accept: str | None, operation: str) -> None:
    """Write `stream` to `request` as its content type or `accept` says; ends with the iterator or the client.

    The head must have been written. A client that goes away ends the iterator where it stands. When the iterator fails,
    the connection breaks off: the client must not take what it has for all.
    """
    content_type = content_type_of(stream, accept)
    if not request.responseHeaders.hasHeader(b"content-type"):
        request.setHeader(b"content-type", content_type.encode())
    flow = Flow()
    request.registerProducer(flow, True)
    try:
        if request.method == b"HEAD":
            flow.stopProducing()
        await write_pieces(stream, content_type, flow, request.write)
    except Exception:
        _log.failure("{operation} failed in the middle of its stream", operation=operation)
        if request.chunked:  # what was sent arrives, and the chunk that would end it does not
            request.chunked = False
            request.channel.loseConnection()
        else:
            abort(request)
    finally:
        if request.channel is not None:  # else the client is gone, and took the producer along
            request.unregisterProducer()


def content_type_of(stream: Stream, accept: str | None) -> str:
    """What it is sent as: its own type, or the one of server-sent events and NDJSON that `accept` would rather have."""
    if stream.content_type is not None:
        return stream.content_type
    return EVENTS if quality(accept, EVENTS) > quality(accept, LINES) else LINES


async def write_pieces(stream: Stream, content_type: str, flow: Flow, write: Callable[[bytes], object]) -> None:
    """Write each piece when `flow` lets it; ends with the iterator, or with the client, and closes the iterator."""
    as_piece = encoder(content_type)
    try:
        if flow.stopped:
            return
        async for value in stream.iterator:
            await flow.may_write()
            if flow.stopped:
                break
            write(as_piece(value))
    finally:
        close = getattr(stream.iterator, "aclose", None)
        if close is not None:
            await close()


@implementer(IPushProducer)
class Flow:
    """Waits while the transport's buffer is full."""

    def __init__(self) -> None:
        self.stopped = False  # the client is gone, and what is written from now on goes nowhere
        self._waiting: Deferred[None] | None = None
        self._paused = False

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        self.stopped = True
        self.resumeProducing()

    async def may_write(self) -> None:
        if self._paused:
            self._waiting = Deferred()
            await self._waiting
