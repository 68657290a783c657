"""However a reply's bytes are cut, and whatever is wrong with them, its outcome is one and the same, and it has one."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from ropewalk.engine.client import Broken, ClientChannel, Head

HEADS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 500 \r\n", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 20 OK\r\n",
)  # fmt: skip
FIELDS = (
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"A: b\r\n", b"A : b\r\n", b"A: b\n", b" folded\r\n", b"Content-Length: +5\r\n", b"Transfer-Encoding: gzip\r\n",
)  # fmt: skip
BODIES = (
    b"hello",
    b"",
    b"hell",
    b"hello!",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"x\r\n",
)


class Heard:
    """A transport and the hearer of one reply: all that became of it."""

    def __init__(self, parts: list[bytes]) -> None:
        self.status = 0
        self.body = b""
        self.ends: list[str] = []
        self.state = "open"
        channel = ClientChannel(lambda _: self.becomes("free"), lambda _: None)
        channel.connection_made(self)
        channel.ask(b"GET / HTTP/1.1\r\n\r\n", self)
        for part in parts:
            if self.state not in ("closed", "aborted"):
                channel.data_received(part)
        if self.state != "free":
            channel.connection_lost(None)

    def becomes(self, state: str) -> None:
        self.state = state

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def head(self, head: Head) -> None:
        self.status = head.status

    def chunk(self, data: bytes) -> None:
        self.body += data

    def complete(self) -> None:
        self.ends.append("complete")

    def failed(self, error: Broken) -> None:
        self.ends.append("failed")

    @property
    def outcome(self) -> tuple[Any, ...]:
        ended = self.ends[0]
        return (ended, self.status, self.body) if ended == "complete" else (ended,)


def drawn(random: Random) -> bytes:
    said = b"".join(random.choices(HEADS, (8, 1, 2, 2, 1, 1, 1, 1), k=1))
    said += b"".join(random.choices(FIELDS, (6, 2, 4, 2, 4, 1, 1, 1, 1, 1), k=random.randint(0, 3)))
    said += b"\r\n" + random.choice(BODIES)
    if random.random() < 0.3:
        at = random.randrange(len(said))
        said = said[:at] + bytes([random.randrange(256)]) + said[at + random.randrange(2) :]
    return said


def cut(random: Random, said: bytes) -> list[bytes]:
    if random.random() < 0.3:
        return [said[at : at + 1] for at in range(len(said))]
    places = sorted({0, len(said), *(random.randrange(len(said)) for _ in range(random.randint(1, 4)))})
    return [said[begin:end] for begin, end in pairwise(places)]


@pytest.mark.parametrize("seed", range(20))
def test_a_reply_has_one_outcome_however_it_is_cut(seed):
    random, kinds = Random(seed), set()

    for _ in range(300):
        said = drawn(random)
        whole = Heard([said])
        parts = Heard(cut(random, said))
        kinds.add(whole.ends[0])

        assert (1, 1) == (len(whole.ends), len(parts.ends)), said
        assert whole.outcome == parts.outcome, said

    assert {"complete", "failed"} == kinds


def test_a_connection_is_free_only_behind_a_reply_that_ends_where_it_says():
    random = Random(0)

    for _ in range(3000):
        said = drawn(random)
        first = Heard([said])
        if first.state == "free":
            assert "closed" == Heard([said + b"x"]).state, said
