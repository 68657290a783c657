"""A request's body that an operation takes piece by piece, no faster than it likes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

AHEAD = 64 << 10  # bytes that wait for the operation; then their sender waits
PIECE = 64 << 10  # bytes of a body that is all there


class Source(Protocol):
    """Where pieces come from; `engine.exchange.Exchange` is one."""

    def hold(self) -> None:
        """Let no more come for now."""

    def release(self) -> None:
        """Let it come again."""


class Body:
    """An async iterator of bytes, fed by `add`, and `end` or `fail`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: deque[bytes] = deque()
        self._size = 0  # bytes that wait
        self._held = False
        self._ended = False
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    def add(self, data: bytes) -> None:
        """More of it."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > AHEAD and not self._held:
            self._held = True
            self._source.hold()
        self._wake()

    def end(self) -> None:
        """That was all."""
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest never comes."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._held and not self._pieces:
            self._held = False
            self._source.release()
        return piece

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


async def pieces_of(content: Any, gone: Exception) -> AsyncIterator[bytes]:
    """Those of a body that is all in a file; raises `gone` when that was closed, with its connection."""
    while True:
        if content.closed:
            raise gone
        piece = content.read(PIECE)
        if not piece:
            return
        yield piece
