"""uvloop that hears of resets.

When an error comes together with data, as a reset right behind a request does, libuv stops to watch the descriptor;
uvloop lets what waits be read once, and whoever wants to write there later is refused (`UVPoll._fatal_error`). Whoever
reads on would wait for ever, and with it the end of its process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVarTuple

import uvloop

Args = TypeVarTuple("Args")


class Loop(uvloop.Loop):
    """What was given up is watched again: the next read finds the rest, and then the error."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[int, Callable[[], None]] = {}  # by descriptor
        self._read: list[int] = []  # those that were read in this turn

    def add_reader(self, fd: Any, callback: Callable[[*Args], object], *args: *Args) -> None:
        """As asyncio's."""
        number = fd if isinstance(fd, int) else fd.fileno()

        def read() -> None:
            if not self._read:
                self.call_soon(self._watch_again)
            self._read.append(number)
            callback(*args)

        super().add_reader(fd, read)
        self._readers[number] = read

    def remove_reader(self, fd: Any) -> bool:  # type: ignore[override]  # as asyncio has it, which uvloop's forgets
        """As asyncio's."""
        super().remove_reader(fd)
        return self._readers.pop(fd if isinstance(fd, int) else fd.fileno(), None) is not None

    def add_writer(self, fd: Any, callback: Callable[[*Args], object], *args: *Args) -> None:
        """As asyncio's."""
        try:
            super().add_writer(fd, callback, *args)
        except RuntimeError:
            super().remove_writer(fd)
            super().add_writer(fd, callback, *args)

    def _watch_again(self) -> None:
        numbers, self._read = self._read, []
        for number in numbers:
            read = self._readers.get(number)
            if read is None:
                continue
            try:
                super().add_reader(number, read)  # which is how one learns of it, and else changes nothing
            except RuntimeError:
                super().remove_reader(number)
                super().add_reader(number, read)
