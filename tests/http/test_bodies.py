"""A body that an operation takes as it comes: when it begins, who waits for whom, and what becomes of a broken one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from random import Random
from typing import Annotated, Any

import pytest
from msgspec import Struct
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.server import Site as TwistedSite

from ropewalk import Form, Query, Service, Unavailable, Upload, operation, post, put
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.errors import DeclarationError
from ropewalk.handler import compose
from ropewalk.http.bodies import AHEAD
from ropewalk.http.openapi import document
from ropewalk.http.site import Site
from ropewalk.http.surface import surface
from ropewalk.runtime.stacks import server_stack
from ropewalk.service import describe
from ropewalk.telemetry.metrics import Calls

LARGEST = 10 * AHEAD


class Note(Struct):
    text: str


class Shelf(Service, name="shelf"):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.pieces: list[bytes] = []
        self.errors: list[Exception] = []
        self.let_go: Deferred[None] | None = None  # who is waited for before each piece

    @put("/books/<name>", max_body=LARGEST)
    async def keep(self, name: str, pages: AsyncIterator[bytes]) -> int:
        """How many bytes it has."""
        self.begun.append(name)
        try:
            while True:
                if self.let_go is not None:
                    await self.let_go
                self.pieces.append(await anext(pages))
        except StopAsyncIteration:
            return sum(map(len, self.pieces))
        except Exception as error:
            self.errors.append(error)
            raise

    @post("/notes", max_body=20)
    async def note(self, note: Note) -> int:
        """How long it is."""
        self.begun.append(note.text)
        return len(note.text)

    @post("/unread")
    async def refuse(self, pages: AsyncIterable[bytes]) -> str:
        """Wants none of it."""
        return "no"


class House:
    """A shelf, served by our Site or by Twisted's, on virtual time."""

    def __init__(self, kind: str) -> None:
        self.clock = Clock()
        self.shelf = Shelf()
        stack = server_stack(clock=self.clock, random=Random(1), meter=Calls("shelf", "Requests"))
        handler = compose(stack, dispatch(self.shelf))
        resource = surface(self.shelf, handler, Driver.of(self.clock), self.clock.seconds)
        if kind == "ours":
            self.site: Any = Site(resource, self.clock, LARGEST)
        else:
            self.site = TwistedSite(resource, reactor=self.clock)
            self.site.log = lambda request: None
        self.wire = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", "192.0.2.7", 5))
        self.wire.protocol = self.site.buildProtocol(self.wire.getPeer())
        self.wire.protocol.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        """Bytes from the client."""
        self.wire.protocol.dataReceived(data)
        self.clock.pump([0] * 3)

    def reply(self) -> tuple[int, Any]:
        """Its status, and what it says."""
        head, _, body = self.wire.value().rpartition(b"\r\n\r\n")
        _, _, status = head.rpartition(b"HTTP/1.1 ")
        return int(status[:3]), json.loads(body)


@pytest.fixture(params=["ours", "twisted.web"])
def anywhere(request):
    return House(request.param)


@pytest.fixture
def house():
    return House("ours")


def head(length: int, path: str = "/books/a", method: str = "PUT", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: shelf\r\nContent-Length: {length}\r\n{more}\r\n".encode()


# -- wherever it is served


def test_the_pieces_are_the_body(anywhere):
    anywhere.send(head(11) + b"hello")
    anywhere.send(b" world")

    assert anywhere.reply() == (200, 11)
    assert b"".join(anywhere.shelf.pieces) == b"hello world"


def test_a_body_of_nothing_has_no_piece(anywhere):
    anywhere.send(head(0))

    assert (anywhere.reply(), anywhere.shelf.pieces) == ((200, 0), [])


def test_a_key_is_refused_for_what_is_read_once(anywhere):
    anywhere.send(head(2, more="Idempotency-Key: one\r\n") + b"ab")

    status, problem = anywhere.reply()
    assert (status, anywhere.shelf.begun) == (400, [])
    assert "Idempotency-Key" in problem["detail"]


def test_a_compressed_body_is_refused(anywhere):
    anywhere.send(head(2, more="Content-Encoding: gzip\r\n") + b"ab")

    assert (anywhere.reply()[0], anywhere.shelf.begun) == (415, [])
    assert b"accept-encoding: identity" in anywhere.wire.value().lower()


def test_a_longer_body_than_is_taken_is_refused_before_the_operation_begins(anywhere):
    anywhere.send(head(LARGEST + 1) + b"a" * (LARGEST + 1))

    assert (anywhere.reply()[0], anywhere.shelf.begun) == (413, [])


def test_a_small_body_is_whole_when_its_operation_begins(house):
    house.send(head(14, "/notes", "POST") + b'{"text":')
    assert house.shelf.begun == []

    house.send(b'"abc"}')

    assert house.reply() == (200, 3)


def test_of_a_body_that_another_operation_would_take_no_more_is_kept_than_its_own_takes(house):
    house.send(head(AHEAD, "/notes", "POST") + b"a" * 15)
    for _ in range(3):
        house.send(b"a" * 15)
    (channel,) = house.site.server.channels
    kept = sum(map(len, channel._current.receiver._body))

    house.send(b"a" * (AHEAD - 60))

    status, problem = house.reply()
    assert (kept, status, problem["max_body"], house.shelf.begun) == (15, 413, 20, [])
    assert str(AHEAD) in problem["detail"]


# -- as it comes


def test_the_operation_begins_with_the_head_and_has_each_piece_when_it_comes(house):
    house.send(head(4))
    assert house.shelf.begun == ["a"]

    house.send(b"ab")
    assert house.shelf.pieces == [b"ab"]

    house.send(b"cd")
    assert house.reply() == (200, 4)


def test_who_waits_for_leave_to_send_has_it(house):
    house.send(head(2, more="Expect: 100-continue\r\n"))

    assert house.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_chunks_are_taken_as_well(house):
    house.send(b"PUT /books/a HTTP/1.1\r\nHost: shelf\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert house.shelf.pieces == [b"abc"]

    house.send(b"2\r\nde\r\n0\r\n\r\n")

    assert house.reply() == (200, 5)


def test_who_sends_faster_than_it_is_taken_is_made_to_wait(house):
    house.shelf.let_go = Deferred()
    house.send(head(3 * AHEAD))
    house.send(b"a" * AHEAD)
    assert house.wire.producerState == "producing"

    house.send(b"a")
    assert house.wire.producerState == "paused"

    let_go, house.shelf.let_go = house.shelf.let_go, None
    let_go.callback(None)
    house.clock.pump([0] * 3)

    assert house.wire.producerState == "producing"
    house.send(b"a" * (2 * AHEAD - 1))
    assert house.reply() == (200, 3 * AHEAD)


def test_chunks_beyond_what_is_taken_end_it(house):
    house.send(b"PUT /books/a HTTP/1.1\r\nHost: shelf\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(11):
        house.send(b"%x\r\n%b\r\n" % (AHEAD, b"a" * AHEAD))

    assert house.reply()[0] == 413
    assert [Unavailable] == [type(error) for error in house.shelf.errors]


def test_of_a_client_that_leaves_the_operation_hears_where_it_waits(house):
    house.send(head(4) + b"ab")

    house.wire.loseConnection()
    house.clock.pump([0] * 3)

    assert house.shelf.pieces == [b"ab"]
    assert [Unavailable] == [type(error) for error in house.shelf.errors]


def test_an_answer_before_the_body_is_read_is_the_last_on_its_connection(house):
    house.send(head(4, "/unread", "POST") + b"ab")

    assert house.reply() == (200, "no")
    assert b"connection: close" in house.wire.value()


def test_a_slow_body_is_given_the_time_that_the_wire_gives_it(house):
    house.send(head(200))
    for _ in range(199):  # longer than a call's usual deadline, and no faster than a body must come
        house.send(b"a")
        house.clock.advance(0.1)
    house.send(b"a")

    assert house.reply() == (200, 200)


def test_a_body_that_stops_coming_is_given_up(house):
    house.send(head(4) + b"ab")

    for _ in range(50):
        house.clock.advance(0.5)

    assert house.reply()[0] == 408
    assert [Unavailable] == [type(error) for error in house.shelf.errors]


def test_the_next_request_on_the_connection_is_answered(house):
    house.send(head(2) + b"ab" + head(3, "/books/b") + b"cde")

    assert house.wire.value().count(b"HTTP/1.1 200 OK") == 2
    assert house.shelf.begun == ["a", "b"]


# -- what is said of it


def test_its_document_has_a_binary_body():
    found = document(describe(Shelf))

    (content,) = found["paths"]["/books/{name}"]["put"]["requestBody"]["content"].items()
    assert ("application/octet-stream", "binary") == (content[0], content[1]["schema"]["format"])


class Fields(Struct):
    title: str


_NONE: Any = None


async def with_default(self: Any, pages: AsyncIterator[bytes] = _NONE) -> None: ...
async def marked(self: Any, pages: Annotated[AsyncIterator[bytes], Query]) -> None: ...
async def plain(self: Any, pages: AsyncIterator[bytes]) -> None: ...
async def unrouted(self: Any, pages: AsyncIterator[bytes]) -> None: ...
async def twice(self: Any, pages: AsyncIterator[bytes], more: AsyncIterator[bytes]) -> None: ...
async def with_struct(self: Any, pages: AsyncIterator[bytes], fields: Fields) -> None: ...
async def with_form(self: Any, pages: AsyncIterator[bytes], fields: Annotated[Fields, Form]) -> None: ...
async def with_file(self: Any, pages: AsyncIterator[bytes], file: Upload) -> None: ...
async def of_text(self: Any, pages: AsyncIterator[str]) -> None: ...


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (post("/a")(with_default), "no default"),
        (post("/a")(marked), "no marker"),
        (operation(unrouted), "has a route"),
        (post("/a", idempotent=True)(plain), "cannot be repeated under a key"),
        (post("/a")(twice), "all of the body"),
        (post("/a")(with_struct), "all of the body"),
        (post("/a")(with_form), "all of the body"),
        (post("/a")(with_file), "all of the body"),
        (post("/a")(of_text), "cannot be bound"),
    ],
    ids=["default", "marker", "no route", "key", "two", "struct", "form", "file", "text"],
)
def test_what_cannot_be_is_refused_when_the_class_is_made(declared, said):
    with pytest.raises(DeclarationError, match=said):
        type("Wrong", (Service,), {"take": declared})
