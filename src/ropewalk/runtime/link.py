"""What a process and the one that started it say to each other, and over which file descriptors.

Two pipes, one for each direction, carry lines of JSON. They are the lifeline, too: when one side is gone, in whatever
way, the other one reads an end. `Given` is what the child is told from the beginning, in one environment variable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

VARIABLE = "ROPEWALK_PARENT"  # no "__": this is no configuration
FROM_PARENT, TO_PARENT = 3, 4  # a child's descriptors
FIRST_LISTENER = 5  # and from here on its listening sockets, in the order of `Given.listeners`

EX_CONFIG = 78  # sysexits.h: the configuration cannot be used; another try would end the same
EX_TEMPFAIL = 75  # what it needs cannot be reached now; another try may
LINE_LIMIT = 16 * 1024 * 1024  # bytes; the longest line is a page of metrics


class Given(Struct, frozen=True):
    """What a child is told by whoever starts it."""

    listeners: tuple[str, ...] = ()  # the endpoint descriptions whose sockets come along
    worker: int | None = None  # which of its process's workers it is
    watched: bool = False  # its source is looked after: it reports which files it loaded


# -- a child says


class Ready(Struct, frozen=True, tag=True):
    """It serves."""


class Draining(Struct, frozen=True, tag=True):
    """It takes nothing new and will end."""


class Failed(Struct, frozen=True, tag=True):
    """It could not start; `status` is what it ends with."""

    status: int
    line: str


class Loaded(Struct, frozen=True, tag=True):
    """The source files it runs."""

    files: tuple[str, ...]


class Page(Struct, frozen=True, tag=True):
    """Its own metrics: asked for, or its last ones."""

    page: str
    last: bool = False


class AskForAll(Struct, frozen=True, tag=True):
    """It is asked for the metrics of all workers."""


# -- a parent says


class AskForPage(Struct, frozen=True, tag=True):
    """Send your own metrics."""


class All(Struct, frozen=True, tag=True):
    """The metrics of all workers, as one page."""

    page: str


class Kill(Struct, frozen=True, tag=True):
    """End now, and take your own children with you."""


FromChild = Ready | Draining | Failed | Loaded | Page | AskForAll
FromParent = AskForPage | All | Kill

_encode = msgspec.json.Encoder().encode


def line_of(message: FromChild | FromParent) -> bytes:
    """One message as it travels."""
    return _encode(message) + b"\n"


class Lines:
    """Cuts what arrives into lines; the last one may still be on its way."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        """`limit`: bytes; a longer line is cut in two."""
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts, self._held = [], 0
        self._parts.append(rest)
        self._held += len(rest)
        if self._held > self._limit:
            lines.extend(self.rest())
        return lines

    def rest(self) -> list[bytes]:
        """What is left when nothing more will come."""
        rest = b"".join(self._parts)
        self._parts, self._held = [], 0
        return [rest] if rest else []


class Messages(Protocol):
    """A child's end of the link: what its parent says, and that it is gone."""

    def __init__(self, heard: Callable[[FromParent], object], lost: Callable[[], object]) -> None:
        self._heard = heard
        self._lost = lost
        self._lines = Lines()
        self._decode = msgspec.json.Decoder(FromParent).decode

    def dataReceived(self, data: bytes) -> None:
        """Some bytes of it."""
        for line in self._lines.cut(data):
            heard(line, self._decode, self._heard)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """There is nobody at the other end any more."""
        self._lost()


def heard(line: bytes, decode: Callable[[bytes], Any], hear: Callable[[Any], object]) -> None:
    """Hand one line to `hear`; what is no message is logged and nothing else."""
    try:
        message = decode(line)
    except msgspec.DecodeError as error:
        _log.warn("the link carried what is no message: {error}", error=str(error))
        return
    hear(message)


def literal(text: str) -> str:
    """`text` as a format of twisted.logger's that says just that."""
    return text.replace("{", "{{").replace("}", "}}")


_log = Logger("ropewalk.runtime")
