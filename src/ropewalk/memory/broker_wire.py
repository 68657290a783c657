"""What the processes of one system say to the one that owns the built-in broker, over a UNIX socket: framed msgpack.

A client asks with a number, and is answered with it; what it is given to handle has a number of the owner's. When the
connection is lost, what was asked has no answer, and what was given and not handled is given to another one.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

FRAME = 64 * 1024 * 1024  # bytes; the longest is a page of events


# -- a client says


class Publish(Struct, frozen=True, tag=True):
    """Keep these."""

    ask: int
    messages: list[bytes]


class Join(Struct, frozen=True, tag=True):
    """Give me what comes to a group; `ask` is the member's number from then on."""

    ask: int
    group: str
    topics: list[str]
    at_once: int
    from_start: bool


class Leave(Struct, frozen=True, tag=True):
    """Give that member nothing new."""

    member: int


class Handled(Struct, frozen=True, tag=True):
    """What was given was handled, or was not."""

    given: int
    well: bool


class History(Struct, frozen=True, tag=True):
    """Send all there is of a topic."""

    ask: int
    topic: str


# -- the owner says


class Answer(Struct, frozen=True, tag=True):
    """It is done; `lost`: ids that nobody has subscribed to; `messages`: of a history, more to come unless `last`."""

    ask: int
    lost: list[str] = []
    messages: list[bytes] = []
    last: bool = True


class Refusal(Struct, frozen=True, tag=True):
    """It is not."""

    ask: int
    reason: str
    ran: str


class Given(Struct, frozen=True, tag=True):
    """Handle this."""

    given: int
    member: int
    attempt: int
    message: bytes


FromClient = Publish | Join | Leave | Handled | History
FromOwner = Answer | Refusal | Given

_encode = msgspec.msgpack.Encoder().encode


class Frames(Int32StringReceiver):
    """One end: `heard(message)` of each that came, `lost()` once."""

    MAX_LENGTH = FRAME

    def __init__(self, decode: Any, heard: Any, lost: Any) -> None:
        self._decode = decode
        self._heard = heard
        self._lost = lost

    def say(self, message: FromClient | FromOwner) -> None:
        """Send it, if somebody is there."""
        if self.connected and self.transport is not None:
            self.sendString(_encode(message))

    def stringReceived(self, string: bytes) -> None:
        """A frame came; one that is no message ends the connection."""
        try:
            message = self._decode(string)
        except msgspec.DecodeError:
            self.end()
            return
        self._heard(message)

    def lengthLimitExceeded(self, length: int) -> None:
        """A frame is too long."""
        self.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody is there any more."""
        self._lost()

    def end(self) -> None:
        """Break it off."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


decode_client = msgspec.msgpack.Decoder(FromClient).decode
decode_owner = msgspec.msgpack.Decoder(FromOwner).decode
