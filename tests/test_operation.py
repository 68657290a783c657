"""What an operation may be, and what is said to whoever declares it wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from uuid import UUID

import attrs
import pytest
from msgspec import Meta, Struct
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from ropewalk import (
    Conflict,
    Context,
    Cookie,
    Form,
    Header,
    NotFound,
    Principal,
    Query,
    Request,
    Response,
    Service,
    Stream,
    Upload,
    delete,
    get,
    given,
    mount,
    operation,
    patch,
    post,
    put,
)
from ropewalk.errors import DeclarationError
from ropewalk.operation import MAX_BODY, Operation
from ropewalk.service import describe


class Stay(Struct, frozen=True):
    hotel: str
    nights: int = 1


class Guest(Struct):
    name: str
    stay: Stay


class Kind(Enum):
    SINGLE = "single"


class Unknown:
    pass


@dataclass
class Holder:
    inside: list[Unknown]


@attrs.define
class Card:
    number: str


class Point(NamedTuple):
    x: int


class Address(TypedDict):
    street: str


class NotOurs(Exception):
    pass


RoomId = NewType("RoomId", int)
MSGSPEC = "use a msgspec type (int, str, date, UUID, Struct, dataclass, ...)."


def declared(function: Callable[..., Any]) -> Operation:
    """The operation that `function`, decorated, becomes in a class `Rooms`."""
    service = type("Rooms", (Service,), {function.__name__: function, "__module__": __name__})
    return describe(service).operations[function.__name__]


def refusal(function: Callable[[], Any]) -> str:
    """What is said of the class that `function` makes."""
    with pytest.raises(DeclarationError) as refused:
        made = function()
        declared(made)
    return str(refused.value)


# -- the facts


def test_the_facts_are_those_of_the_decorator_and_of_the_method():
    @get("/a")
    async def read(self) -> None: ...
    @post("/a")
    async def hold(self) -> int: ...
    @put("/a")
    async def replace(self) -> int: ...
    @patch("/a")
    async def change(self) -> int: ...
    @delete("/a")
    async def remove(self) -> None: ...
    @operation
    async def count(self) -> int: ...

    def facts(function):
        made = declared(function)
        return made.method, made.route, made.status, made.idempotent, made.cancellable, made.access, made.max_body

    assert [
        ("GET", "/a", 204, True, True, "siblings", MAX_BODY),
        ("POST", "/a", 200, False, False, "siblings", MAX_BODY),
        ("PUT", "/a", 200, True, False, "siblings", MAX_BODY),
        ("PATCH", "/a", 200, False, False, "siblings", MAX_BODY),
        ("DELETE", "/a", 204, True, False, "siblings", MAX_BODY),
        (None, None, 200, False, False, "siblings", MAX_BODY),
    ] == [facts(each) for each in (read, hold, replace, change, remove, count)]


def test_all_that_a_decorator_can_say_is_kept():
    @post(
        "/rooms/<int:room_id>/holds",
        status=202,
        raises=[NotFound, Conflict],
        idempotent=True,
        cancellable=True,
        access="user",
        scopes=["rooms:write"],
        priority=3,
        max_body=100,
        background=True,
        aliases=["rooms.keep"],
    )
    async def hold(self, room_id: int, stay: Stay) -> Stay:
        """Keep a room.

        For a while.
        """

    made = declared(hold)

    assert ("rooms.hold", "rooms", "hold", "Keep a room.", "For a while.") == (
        made.id,
        made.service,
        made.name,
        made.summary,
        made.description,
    )
    assert (202, (NotFound, Conflict), True, True, "user", {"rooms:write"}, 3, 100, True, ("rooms.keep",)) == (
        made.status,
        made.raises,
        made.idempotent,
        made.cancellable,
        made.access,
        made.scopes,
        made.priority,
        made.max_body,
        made.background,
        made.aliases,
    )
    assert "<Operation rooms.hold POST /rooms/<int:room_id>/holds>" == repr(made)


def test_operation_is_used_with_and_without_parentheses():
    @operation
    async def count(self) -> int: ...

    @operation(idempotent=True, raises=(NotFound,))
    async def sum(self) -> int: ...

    assert (False, (), True, (NotFound,)) == (
        declared(count).idempotent,
        declared(count).raises,
        declared(sum).idempotent,
        declared(sum).raises,
    )


# -- what it answers


async def a_coroutine(self) -> list[Stay]: ...
async def nothing(self) -> None: ...
async def binary(self) -> bytes: ...
async def a_response(self) -> Response: ...
async def perhaps_a_response(self) -> Response | Stay: ...
def a_deferred(self) -> Deferred[Stay]: ...
def nothing_later(self) -> Deferred[None]: ...
def a_bare_deferred(self) -> Deferred: ...
async def generator(self) -> AsyncIterator[Stay]:
    yield Stay("x")


async def a_stream(self) -> Stream: ...
async def an_iterator(self) -> AsyncIterator[int]: ...
def an_iterator_at_once(self) -> AsyncIterator[int]: ...
def an_iterable_later(self) -> Deferred[AsyncIterable[bytes]]: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [  # returns, status, streams, called without awaiting, says itself what goes out, media type
        (a_coroutine, (list[Stay], 200, False, False, False, "application/json")),
        (nothing, (type(None), 204, False, False, False, "application/json")),
        (binary, (bytes, 200, False, False, False, "application/octet-stream")),
        (a_response, (Response, 200, False, False, True, "application/json")),
        (perhaps_a_response, (Response, 200, False, False, True, "application/json")),
        (a_deferred, (Stay, 200, False, False, False, "application/json")),
        (nothing_later, (type(None), 204, False, False, False, "application/json")),
        (a_bare_deferred, (Any, 200, False, False, False, "application/json")),
        (generator, (AsyncIterator[Stay], 200, True, True, True, "application/json")),
        (a_stream, (Stream, 200, True, False, True, "application/json")),
        (an_iterator, (AsyncIterator[int], 200, True, False, True, "application/json")),
        (an_iterator_at_once, (AsyncIterator[int], 200, True, True, True, "application/json")),
        (an_iterable_later, (AsyncIterable[bytes], 200, True, False, True, "application/json")),
    ],
)
def test_what_it_answers_is_what_its_annotation_says(function, expected):
    made = declared(get("/a")(function))

    assert expected == (made.returns, made.status, made.streams, made.generates, made.raw, made.content_type)


# -- parameters and results of every type a wire can carry

CARRIED = [
    int, float, bool, str, bytes, Decimal, date, datetime, UUID, Kind, RoomId, Stay, Guest, Card, Point, Address, dict[str, int],
    Optional[int], int | None, Literal["a", 1], Annotated[int, Meta(ge=1)], list[Stay], set[int], frozenset[str], tuple[int, ...],
    tuple[int, str], dict[str, Stay], Stay | None, Any,
]  # fmt: skip


@pytest.mark.parametrize("type", CARRIED, ids=str)
def test_what_a_wire_carries_may_be_a_parameter_and_a_result(type):
    async def hold(self, x: type) -> type: ...  # type: ignore[valid-type]

    hold.__annotations__ = {"x": type, "return": type}

    by_id, by_route = declared(operation(hold)), declared(post("/a")(hold))

    assert ["member", type] == [by_id.binding.parameters[0].source, by_id.returns]
    assert by_route.binding.parameters[0].source in ("query", "body")


# -- wrong declarations: each says what would be right


def wrong_route():
    @get("rooms")
    async def read(self) -> int: ...

    return read


def no_route():
    @get
    async def rooms(self) -> int: ...

    return rooms


def half_a_placeholder():
    @get("/rooms/<int:room_id")
    async def read(self, room_id: int) -> int: ...

    return read


def unknown_converter():
    @get("/rooms/<integer:room_id>")
    async def read(self, room_id: int) -> int: ...

    return read


def query_in_the_route():
    @get("/rooms?city=Bari")
    async def read(self) -> int: ...

    return read


def name_without_parameter():
    @get("/rooms/<uuid:room_id>")
    async def read(self, id: UUID) -> int: ...

    return read


def name_in_the_path_taken_from_elsewhere():
    @get("/rooms/<int:room_id>")
    async def read(self, room_id: Annotated[int, Query]) -> int: ...

    return read


def default_in_the_path():
    @get("/rooms/<int:room_id>")
    async def read(self, room_id: int = 1) -> int: ...

    return read


def structure_in_the_path():
    @get("/rooms/<stay>")
    async def read(self, stay: Stay) -> int: ...

    return read


def structure_in_a_header():
    @get("/rooms")
    async def read(self, ids: Annotated[list[int], Header]) -> int: ...

    return read


def no_type():
    @get("/rooms")
    async def read(self, page) -> int: ...

    return read


def star():
    @get("/rooms")
    async def read(self, *pages: int) -> int: ...

    return read


def double_star():
    @get("/rooms")
    async def read(self, **pages: int) -> int: ...

    return read


def by_position_only():
    @get("/rooms")
    async def read(self, page: int, /) -> int: ...

    return read


def unknown_type():
    @post("/rooms")
    async def read(self, thing: Unknown) -> int: ...

    return read


def unknown_type_inside():
    @post("/rooms")
    async def read(self, things: dict[str, Holder] | None = None) -> int: ...

    return read


def two_structs_nobody_can_tell_apart():
    @post("/rooms")
    async def read(self, thing: Stay | Guest) -> int: ...

    return read


def two_bodies():
    @post("/rooms")
    async def read(self, stay: Stay, guests: list[Guest]) -> int: ...

    return read


def body_on_get():
    @get("/rooms")
    async def read(self, stay: Stay) -> int: ...

    return read


def body_on_delete():
    @delete("/rooms")
    async def read(self, stays: list[Stay]) -> int: ...

    return read


def file_on_get():
    @get("/rooms")
    async def read(self, photo: Upload) -> int: ...

    return read


def file_beside_json():
    @post("/rooms")
    async def read(self, stay: Stay, photo: Upload) -> int: ...

    return read


def form_without_names():
    @post("/rooms")
    async def read(self, form: Annotated[list[int], Form]) -> int: ...

    return read


def structure_in_a_query():
    @get("/rooms")
    async def read(self, guest: Annotated[Guest, Query]) -> int: ...

    return read


def dict_in_a_query():
    @get("/rooms")
    async def read(self, limits: Annotated[dict[str, int], Query]) -> int: ...

    return read


def principal_from_the_wire():
    @post("/rooms")
    async def read(self, principal: Principal) -> int: ...

    return read


def request_from_the_wire():
    @post("/rooms")
    async def read(self, request: IRequest) -> int: ...

    return read


def given_by_nobody():
    @get("/rooms")
    async def read(self, page: int = given) -> int: ...

    return read


def plain_def():
    @get("/rooms")
    def read(self) -> int: ...

    return read


def plain_def_without_a_word():
    @get("/rooms")
    def read(self): ...

    return read


def no_result():
    @get("/rooms")
    async def read(self): ...

    return read


def unknown_result():
    @get("/rooms")
    async def read(self) -> list[Unknown]: ...

    return read


def yields_without_saying():
    @get("/rooms")
    async def read(self) -> int:
        yield 1

    return read


def foreign_error():
    @get("/rooms", raises=(NotOurs,))
    async def read(self) -> int: ...

    return read


def one_error():
    @get("/rooms", raises=NotFound)
    async def read(self) -> int: ...

    return read


def one_scope():
    @get("/rooms", scopes="rooms:read")
    async def read(self) -> int: ...

    return read


def unknown_access():
    @get("/rooms", access="private")
    async def read(self) -> int: ...

    return read


def wrong_status():
    @get("/rooms", status=99)
    async def read(self) -> int: ...

    return read


def body_with_204():
    @get("/rooms", status=204)
    async def read(self) -> int: ...

    return read


def wrong_max_body():
    @post("/rooms", max_body=-1)
    async def read(self) -> int: ...

    return read


def wrong_alias():
    @get("/rooms", aliases=("an old name",))
    async def read(self) -> int: ...

    return read


def mount_without_a_path():
    @mount
    def read(self): ...

    return read


def forgotten_import():
    @get("/rooms")
    async def read(self, id: Missing) -> int: ...  # noqa: F821

    return read


def private_name():
    @get("/rooms")
    async def _read(self) -> int: ...

    return _read


def lifecycle_name():
    @post("/rooms")
    async def start(self) -> int: ...

    return start


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (wrong_route, '@get("rooms"): a route starts with a slash: "/rooms".'),
        (no_route, '@get needs its route: `@get("/rooms")`.'),
        (
            half_a_placeholder,
            "rooms.read: malformed url rule: '/rooms/<int:room_id'; a route is like \"/rooms/<int:room_id>\".",
        ),
        (
            unknown_converter,
            "rooms.read: the converter 'integer' does not exist; a route is like \"/rooms/<int:room_id>\".",
        ),
        (
            query_in_the_route,
            "rooms.read: malformed url rule: '/rooms?city=Bari'; a route is like \"/rooms/<int:room_id>\".",
        ),
        (
            name_without_parameter,
            "rooms.read: the route /rooms/<uuid:room_id> names 'room_id'; add a parameter `room_id: UUID`.",
        ),
        (
            name_in_the_path_taken_from_elsewhere,
            "rooms.read: the route /rooms/<int:room_id> names 'room_id'; add a parameter `room_id: int`.",
        ),
        (default_in_the_path, "rooms.read: 'room_id' is part of the path and is always there; remove its default."),
        (
            structure_in_the_path,
            "rooms.read: 'stay' comes from the path, which carries text; Stay does not fit. Take `stay: str`, or move it "
            "to the body.",
        ),
        (
            structure_in_a_header,
            "rooms.read: 'ids' comes from the header, which carries text; list[int] does not fit. Take `ids: str`, or "
            "move it to the body.",
        ),
        (no_type, "rooms.read: the parameter 'page' has no type; say `page: str`, or what it is."),
        (star, "rooms.read: '*pages' has no name on a wire; list the parameters: `pages: str`."),
        (double_star, "rooms.read: '**pages' has no name on a wire; list the parameters: `pages: str`."),
        (by_position_only, "rooms.read: 'page' goes over the wire by its name; remove the `/` after it."),
        (unknown_type, f"rooms.read: 'thing: Unknown' cannot be bound: no wire carries it; {MSGSPEC}"),
        (
            unknown_type_inside,
            f"rooms.read: 'things: dict[str, Holder] | None' cannot be bound: no wire carries Unknown; {MSGSPEC}",
        ),
        (
            two_bodies,
            "rooms.read: a request has one body, and 'stay' and 'guests' are both structured; put them into one "
            "Struct.",
        ),
        (
            body_on_get,
            "rooms.read: a GET request has no body to take 'stay' from; use @post, or take it from the query: "
            "`stay: Annotated[Stay, Query]`.",
        ),
        (
            body_on_delete,
            "rooms.read: a DELETE request has no body to take 'stays' from; use @post.",
        ),
        (file_on_get, "rooms.read: a GET request has no body to take 'photo' from; use @post."),
        (file_beside_json, "rooms.read: a file comes with a form; say `stay: Annotated[Stay, Form]`."),
        (
            form_without_names,
            "rooms.read: a form has named fields; make 'form' a Struct: `form: Annotated[SomeForm, Form]`.",
        ),
        (
            structure_in_a_query,
            "rooms.read: 'stay' of Guest cannot be taken from the query, whose fields are text; take `guest` as the body, "
            "or flatten it.",
        ),
        (
            dict_in_a_query,
            "rooms.read: 'limits: dict[str, int]' cannot be taken from the query, which has named fields; use a Struct.",
        ),
        (
            principal_from_the_wire,
            "rooms.read: 'principal' is supplied, not sent; say `principal: Principal = given`.",
        ),
        (request_from_the_wire, "rooms.read: 'request' is supplied, not sent; say `request: IRequest = given`."),
        (
            given_by_nobody,
            "rooms.read: nothing supplies 'page: int'; `given` is for Principal, Context, Request and IRequest.",
        ),
        *[
            (
                each,
                "rooms.read: an operation is `async def read(...)`, or says that it returns a Deferred: "
                "`def read(...) -> Deferred[...]`.",
            )
            for each in (plain_def, plain_def_without_a_word)
        ],
        (
            no_result,
            "rooms.read: what it answers is part of the contract; add `-> None`, `-> Response` or the result's type.",
        ),
        (
            unknown_result,
            "rooms.read: its result cannot be sent as JSON (no wire carries Unknown); return a Struct, a dataclass or "
            "another msgspec type, or a Response.",
        ),
        (yields_without_saying, "rooms.read: it yields, so it answers a stream: `-> AsyncIterator[int]`."),
        (
            foreign_error,
            f"rooms.read: raises={NotOurs!r} is not an error callers can be told of; subclass one of ropewalk's: "
            "`class NotOurs(Conflict): ...`.",
        ),
        (one_error, f"raises= takes a tuple: `raises=(Conflict,)`; got {NotFound!r}."),
        (one_scope, "scopes= takes a tuple: `scopes=(\"rooms:write\",)`; got 'rooms:read'."),
        (unknown_access, "rooms.read: access is one of public, user, siblings; got 'private'."),
        (wrong_status, "rooms.read: status is a number from 200 to 599; got 99."),
        (body_with_204, "rooms.read: a reply with status 204 has no body; say `-> None`."),
        (wrong_max_body, "rooms.read: max_body is a number of bytes; got -1."),
        (wrong_alias, "rooms.read: an alias is an earlier id like \"rooms.hold\"; got 'an old name'."),
        (mount_without_a_path, '@mount needs the path it serves: `@mount("/legacy")`.'),
        (
            forgotten_import,
            "Rooms.read: name 'Missing' is not defined; its types are needed when the class is made: import them at the "
            "top, not under TYPE_CHECKING.",
        ),
        (private_name, "Rooms._read: an operation is public; call it 'read'."),
        (lifecycle_name, "Rooms.start: on a service 'start' means something else; call the operation otherwise."),
    ],
)
def test_a_wrong_declaration_is_refused_with_the_form_that_would_work(wrong, message):
    assert message == refusal(wrong)


def test_structs_that_nobody_can_tell_apart_are_refused():
    message = refusal(two_structs_nobody_can_tell_apart)

    assert message.startswith("rooms.read: 'thing: Stay | Guest' cannot be bound (")
    assert message.endswith(f"); {MSGSPEC}")


def test_what_the_framework_supplies_needs_no_argument():
    @get("/rooms")
    async def read(
        self,
        page: int = 1,
        principal: Principal = given,
        context: Context = given,
        request: Request = given,
        sid: Annotated[str | None, Cookie] = None,
    ) -> int: ...

    made = declared(read)

    assert (("page", "sid"), {"principal": Principal, "context": Context, "request": Request}) == (
        made.binding.names,
        made.binding.given,
    )
