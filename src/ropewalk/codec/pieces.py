"""The pieces of a stream <-> bytes: values as lines of JSON or server-sent events, or bytes and text as they are.

https://github.com/ndjson/ndjson-spec ; https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


def encoder(content_type: str) -> Callable[[Any], bytes]:
    """What makes a piece of that media type of a value."""
    return {EVENTS: _event, LINES: _line}.get(content_type, _plain)


async def decoded(
    pieces: AsyncIterator[bytes], content_type: str, decode: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    """The values of lines, each by `decode`, wherever `pieces` break them; pieces of another media type as they are.

    Whoever closes this closes `pieces`: else a collector would, when and where it likes.
    """
    try:
        if not content_type.startswith(LINES):
            async for piece in pieces:
                yield piece
            return
        rest = b""
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                yield decode(line)
        if rest:
            yield decode(rest)
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _line(value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgspec.json.encode(value) + b"\n"


def _event(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(f"data: {line}\n" for line in text.splitlines() or [""]).encode() + b"\n"


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
