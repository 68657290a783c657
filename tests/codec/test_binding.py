"""Arguments -> Parts -> arguments: what is taken from where, what is refused and how, and that nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, get_type_hints
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from ropewalk import Cookie, Form, Header, Query, Upload
from ropewalk.codec.binding import Binding, Parts
from ropewalk.codec.parameters import parameters_of, spelt
from ropewalk.errors import BadRequest, RopewalkError, Unprocessable, UnsupportedMediaType

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
ROOM_ID = UUID("6f1a2b3c-0000-4000-8000-000000000001")


class Kind(Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Floor(IntEnum):
    GROUND = 0
    FIRST = 1


class Stay(Struct, frozen=True):
    hotel: str
    nights: Annotated[int, Meta(ge=1, le=30)] = 1


class Search(Struct, frozen=True, kw_only=True):
    city: str
    tags: tuple[str, ...] = ()
    stars: int | None = None
    most: float = 100.0
    kind: Kind | None = Kind.SINGLE


@dataclass
class Guest:
    name: str
    ages: list[int] = field(default_factory=list)


@attrs.define
class Card:
    number: str
    month: int = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Address(TypedDict):
    street: str
    number: int


RoomId = NewType("RoomId", int)


def binding_of(function: Callable[..., Any], route: str | None = "/rooms", method: str = "POST") -> Binding:
    hints = get_type_hints(function, globals(), include_extras=True)
    return Binding(parameters_of(function, hints, route, method, "rooms.read"), route)


def of_type(type: Any, place: str, default: Any = ...) -> Binding:
    """The binding of an operation whose one parameter, `x`, is of that type."""

    def without(self, x): ...
    def with_default(self, x=default): ...

    function = without if default is ... else with_default
    function.__annotations__ = {"x": type}
    route, method = {"path": ("/<x>", "GET"), "query": ("/", "GET"), "body": ("/", "POST"), "member": (None, "POST")}[
        place
    ]
    return binding_of(function, route, method)


def refusal(error: type[RopewalkError], function: Callable[..., Any], parts: Parts, *where: Any) -> RopewalkError:
    with pytest.raises(error) as caught:
        binding_of(function, *where).decode(parts)
    return caught.value


def wrong(pointer: str, place: str, expected: str, got: str) -> dict[str, str]:
    detail = f"Expected {expected}, got {got}."
    return {"pointer": pointer, "in": place, "expected": expected, "got": got, "detail": detail}


# -- where a parameter lies


def by_path(self, room_id: int, stay: Stay, night: date, page: int = 1): ...
def by_query(self, tags: list[str], ids: set[int], floors: Sequence[Floor], near: Annotated[Search, Query]): ...
def by_id(self, stay: Stay, nights: int, tags: list[str]): ...
def by_list(self, stays: list[Stay]): ...
def by_header(self, x_tenant: Annotated[str, Header], agent: Annotated[str, Header("User-Agent")]): ...
def by_cookie(self, sid: Annotated[str, Cookie], theme: Annotated[str, Cookie("ui-theme")]): ...
def by_form(self, form: Annotated[Guest, Form], photo: Upload): ...
def by_alias(self, q: Annotated[str, Query("find")], point: Point | None = None): ...


@pytest.mark.parametrize(
    ("function", "route", "method", "expected"),
    [
        (by_path, "/rooms/<int:room_id>", "PUT", "path room_id, body stay, query night, query page"),
        (by_query, "/rooms", "GET", "query tags, query ids, query floors, query near"),
        (by_id, None, "POST", "member stay, member nights, member tags"),
        (by_list, "/rooms", "POST", "body stays"),
        (by_header, "/rooms", "GET", "header x-tenant, header user-agent"),
        (by_cookie, "/rooms", "GET", "cookie sid, cookie ui-theme"),
        (by_form, "/rooms", "POST", "form form, upload photo"),
        (by_alias, "/rooms", "POST", "query find, body point"),
    ],
)
def test_a_parameter_lies_where_its_name_and_type_say(function, route, method, expected):
    binding = binding_of(function, route, method)

    assert expected == ", ".join(f"{p.source} {p.alias}" for p in binding.parameters)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(by_list, (JSON,)), (by_form, ("multipart/form-data",)), (by_header, ()), (by_alias, (JSON,))],
)
def test_the_media_types_of_the_body_follow_from_the_parameters(function, expected):
    assert expected == binding_of(function).content_types


@pytest.mark.parametrize(
    ("function", "expected"),
    [(by_list, False), (by_header, True), (by_cookie, True), (by_form, True), (by_alias, False)],
)
def test_what_only_http_can_bring_is_known(function, expected):
    assert expected == binding_of(function).http_only


# -- reading


def test_everything_is_read_from_its_place():
    def read(
        self,
        room_id: RoomId,
        stay: Stay,
        kinds: Annotated[list[Kind], Query],
        tenant: Annotated[str, Header("X-Tenant")],
        sid: Annotated[UUID, Cookie],
        night: date,
        page: int = 1,
    ): ...

    parts = Parts(
        path={"room_id": 7},
        query=[("night", "2027-05-01"), ("kinds", "single"), ("kinds", "double"), ("page", "2"), ("unknown", "x")],
        headers={"x-tenant": "north", "accept": "*/*"},
        cookies={"sid": str(ROOM_ID), "other": "1"},
        content_type=JSON,
        body=b'{"hotel": "Galatea", "nights": 3, "unknown": null}',
    )

    arguments = binding_of(read, "/rooms/<int:room_id>").decode(parts)

    assert {
        "room_id": 7,
        "stay": Stay("Galatea", 3),
        "kinds": [Kind.SINGLE, Kind.DOUBLE],
        "tenant": "north",
        "sid": ROOM_ID,
        "night": date(2027, 5, 1),
        "page": 2,
    } == arguments


def test_what_was_left_out_is_left_to_the_default():
    def find(self, page: int = 1, tags: Annotated[list[str], Query] = ["a"], stay: Stay = Stay("x")): ...

    assert {} == binding_of(find).decode(Parts())


@pytest.mark.parametrize(
    ("type", "text", "expected"),
    [
        (int, "-3", -3),
        (int, "9" * 40, int("9" * 40)),
        (float, "1e3", 1000.0),
        (float, "inf", float("inf")),
        (bool, "true", True),
        (bool, "0", False),
        (str, "", ""),
        (str, "a\0b", "a\0b"),
        (str | None, "null", "null"),
        (int | None, "null", None),
        (Decimal, "1.10", Decimal("1.10")),
        (date, "2027-05-01", date(2027, 5, 1)),
        (time, "10:30:00", time(10, 30)),
        (datetime, "2027-05-01T10:30:00Z", datetime(2027, 5, 1, 10, 30, tzinfo=UTC)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (UUID, str(ROOM_ID), ROOM_ID),
        (bytes, "YQ==", b"a"),
        (Kind, "double", Kind.DOUBLE),
        (Floor, "1", Floor.FIRST),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (RoomId, "12", 12),
        (Annotated[int, Meta(ge=1)], "1", 1),
        (int | str, "12", "12"),
    ],
)
def test_text_is_read_as_its_type_has_it(type, text, expected):
    assert {"x": expected} == of_type(type, "query").decode(Parts(query=[("x", text)]))


def test_of_a_repeated_name_the_last_value_counts_unless_all_are_wanted():
    pairs = [("x", "1"), ("x", "2")]

    one, several = of_type(int, "query"), of_type(Collection[int], "query")

    assert ({"x": 2}, {"x": [1, 2]}) == (one.decode(Parts(query=pairs)), several.decode(Parts(query=pairs)))


def test_an_empty_text_where_no_text_can_be_meant_is_nothing():
    pairs = Parts(query=[("x", "")])

    got = [
        of_type(int, "query", default=1).decode(pairs),
        of_type(str, "query", default="a").decode(pairs),
        of_type(list[int], "query").decode(pairs),
        of_type(list[str], "query").decode(pairs),
        of_type(date | None, "query").decode(pairs),
        of_type(Literal["a", "b"], "query", default="a").decode(pairs),
        of_type(Literal["", "b"], "query", default="b").decode(pairs),
    ]

    assert [{}, {"x": ""}, {"x": []}, {"x": [""]}, {"x": None}, {}, {"x": ""}] == got


def test_nothing_is_null_where_null_may_be_and_an_empty_list_where_a_list_must_be():
    got = [of_type(type, "query").decode(Parts()) for type in (int | None, str | None, list[int], list[int] | None)]

    assert [{"x": None}, {"x": None}, {"x": []}, {"x": []}] == got


def test_the_fields_of_a_structured_query_parameter_are_parameters():
    def find(self, search: Annotated[Search, Query], page: int = 1): ...

    query = [("city", "Bari"), ("tags", "sea"), ("tags", "old"), ("stars", ""), ("page", "2"), ("unknown", "1")]

    assert {"search": Search(city="Bari", tags=("sea", "old")), "page": 2} == binding_of(find).decode(
        Parts(query=query)
    )


def test_a_structured_query_parameter_with_a_default_may_be_left_out_as_a_whole():
    def find(self, search: Annotated[Search | None, Query] = None): ...

    assert {} == binding_of(find).decode(Parts(query=[("unknown", "1")]))
    assert {"search": Search(city="Bari")} == binding_of(find).decode(Parts(query=[("city", "Bari")]))


@pytest.mark.parametrize(
    "content_type",
    ["", JSON, "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/vnd.hotel.v1+json"],
)
def test_json_is_read_by_any_of_its_names(content_type):
    parts = Parts(content_type=content_type, body=b'[{"hotel": "x"}]')

    assert {"stays": [Stay("x")]} == binding_of(by_list).decode(parts)


def test_a_whole_number_is_an_integer_however_it_is_written():
    assert {"stay": Stay("x", 2)} == of_body(b'{"hotel": "x", "nights": 2.0}')


def of_body(body: bytes) -> dict[str, Any]:
    def hold(self, stay: Stay): ...

    return binding_of(hold).decode(Parts(content_type=JSON, body=body))


def test_the_body_of_a_call_by_id_may_be_empty_when_nothing_is_required():
    def hold(self, nights: int = 1): ...

    assert {} == binding_of(hold, None).decode(Parts())


def test_a_form_is_read_by_field():
    def sign_in(self, form: Annotated[Guest, Form]): ...

    parts = Parts(content_type=URLENCODED + "; charset=utf-8", body=b"name=Ada+L&ages=3&ages=&ages=5&csrf=1")

    assert {"form": Guest("Ada L", [3, 5])} == binding_of(sign_in).decode(parts)


MULTIPART = "multipart/form-data; boundary=cut"


def multipart(*fields: tuple[str, str | None, str]) -> bytes:
    """(name, filename, content) of each part."""
    parts = []
    for name, filename, content in fields:
        named = f'; filename="{filename}"\r\nContent-Type: text/plain' if filename is not None else ""
        parts.append(f'--cut\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n{content}\r\n')
    return ("".join(parts) + "--cut--\r\n").encode()


class Report(Struct):
    title: str
    pages: list[Upload]
    cover: Upload | None = None


def test_files_come_as_parameters_and_as_fields_of_a_form():
    def files(self, form: Annotated[Guest, Form], photo: Upload, more: list[Upload], cv: Upload | None = None): ...
    def report(self, report: Annotated[Report, Form]): ...

    first, second = Upload("a.txt", "text/plain", b"one"), Upload("b.txt", "text/plain", b"two")
    sent = multipart(
        ("name", None, "Ada"), ("photo", "a.txt", "one"), ("more", "a.txt", "one"), ("more", "b.txt", "two")
    )
    paper = multipart(("title", None, "T"), ("pages", "a.txt", "one"), ("pages", "b.txt", "two"), ("cover", "", ""))

    got = [
        binding_of(files).decode(Parts(content_type=MULTIPART, body=sent)),
        binding_of(report).decode(Parts(content_type=MULTIPART, body=paper)),
    ]

    assert [
        {"form": Guest("Ada"), "photo": first, "more": [first, second]},
        {"report": Report("T", [first, second])},
    ] == got


# -- refusing: 400 what cannot be parsed, 415 what is not read, 422 what is parsed and wrong


def hold(self, stay: Stay): ...


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "A body is needed: application/json."),
        (b"{", "The body is not JSON: Input data was truncated."),
        (b"\xff", "The body is not JSON: JSON is malformed: invalid character (byte 0)."),
        (b'{"hotel": "\xff"}', None),
        (b'{"hotel": "\\ud800"}', None),
        (b'{"hotel": 1} trailing', None),
        (b"[" * 100_000, None),
        (b'{"hotel": NaN}', None),
    ],
)
def test_a_body_that_is_not_json_is_a_bad_request(body, detail):
    error = refusal(BadRequest, hold, Parts(content_type=JSON, body=body))

    assert detail in (None, error.detail)
    assert (400, "caller", "no") == (error.status, error.fault, error.ran)


@pytest.mark.parametrize(
    "content_type", ["text/plain", URLENCODED, "application/jsonp", "application/x-json", "json", ";"]
)
def test_a_body_of_another_media_type_is_unsupported(content_type):
    error = refusal(UnsupportedMediaType, hold, Parts(content_type=content_type, body=b'{"hotel": "x"}'))

    assert (415, f"This operation reads application/json; got {content_type}.") == (error.status, error.detail)


@pytest.mark.parametrize(
    ("content_type", "body", "error", "detail"),
    [
        ("", b"a=1", UnsupportedMediaType, f"This operation reads {URLENCODED} or multipart/form-data; got nothing."),
        (JSON, b"{}", UnsupportedMediaType, f"This operation reads {URLENCODED} or multipart/form-data; got {JSON}."),
        (URLENCODED, b"name=\xff", BadRequest, None),
        (URLENCODED, b"name=%ff", BadRequest, None),
        (URLENCODED, b"&".join([b"x=1"] * 1001), BadRequest, None),
        ("multipart/form-data", b"", BadRequest, "The multipart form names no boundary in its content type."),
        (MULTIPART, b"--cut\r\nnonsense", BadRequest, None),
    ],
)
def test_a_broken_form_is_refused(content_type, body, error, detail):
    def sign_in(self, form: Annotated[Guest, Form]): ...

    refused = refusal(error, sign_in, Parts(content_type=content_type, body=body))

    assert detail in (None, refused.detail)


def test_all_that_is_wrong_is_named_at_once_wherever_it_lies():
    def find(
        self,
        room_id: Annotated[int, Meta(le=9)],
        stay: Stay,
        night: date,
        search: Annotated[Search, Query],
        tenant: Annotated[UUID, Header("X-Tenant")],
        theme: Annotated[Literal["dark", "light"], Cookie],
    ): ...

    parts = Parts(
        {"room_id": 12},
        [("stars", "many")],
        {"x-tenant": "north"},
        {"theme": "blue"},
        JSON,
        b'{"nights": 0}',
    )

    error = refusal(Unprocessable, find, parts, "/rooms/<int:room_id>")

    assert "8 fields are wrong; see `errors`." == error.detail
    assert [
        wrong("/room_id", "path", "an integer, at most 9", '"12"'),
        wrong("/night", "query", "a date (YYYY-MM-DD) (required)", "nothing"),
        wrong("/city", "query", "a string (required)", "nothing"),
        wrong("/stars", "query", "an integer or null", '"many"'),
        wrong("/x-tenant", "header", "a UUID", '"north"'),
        wrong("/theme", "cookie", "one of 'dark', 'light'", '"blue"'),
        wrong("/hotel", "body", "a string (required)", "nothing"),
        wrong("/nights", "body", "an integer, at least 1 and at most 30", "0"),
    ] == error.members["errors"]


def test_one_wrong_field_is_told_in_the_detail():
    error = refusal(Unprocessable, hold, Parts(content_type=JSON, body=b'{"hotel": 1}'))

    assert "/hotel: Expected a string, got 1." == error.detail


def test_a_missing_file_is_named():
    def files(self, photo: Upload, more: list[Upload], cv: Upload | None = None): ...

    error = refusal(Unprocessable, files, Parts(content_type=MULTIPART, body=multipart(("photo", None, "no file"))))

    assert [wrong("/photo", "form", "a file (required)", "nothing")] == error.members["errors"]


# -- writing


@pytest.mark.parametrize(
    ("function", "arguments", "where", "expected"),
    [
        (
            by_path,
            {"room_id": 7, "stay": Stay("x"), "night": date(2027, 5, 1)},
            ("/rooms/<int:room_id>", "PUT"),
            Parts({"room_id": "7"}, [("night", "2027-05-01")], {}, {}, JSON, b'{"hotel":"x","nights":1}'),
        ),
        (
            by_query,
            {"tags": ["a", "b"], "ids": {3}, "floors": [Floor.FIRST], "near": Search(city="é")},
            ("/rooms", "GET"),
            Parts(
                query=[
                    *[("tags", "a"), ("tags", "b"), ("ids", "3"), ("floors", "1")],
                    *[("city", "é"), ("most", "100.0"), ("kind", "single")],
                ]
            ),
        ),
        (
            by_id,
            {"nights": 2, "stay": Stay("x")},
            (None,),
            Parts(query=[], content_type=JSON, body=b'{"nights":2,"stay":{"hotel":"x","nights":1}}'),
        ),
        (by_id, {}, (None,), Parts(query=[], content_type=JSON, body=b"{}")),
        (by_alias, {"q": "a b"}, (), Parts(query=[("find", "a b")])),
        (by_alias, {"q": "", "point": Point(1)}, (), Parts(query=[("find", "")], content_type=JSON, body=b"[1,0]")),
    ],
)
def test_arguments_become_the_parts_that_every_wire_carries(function, arguments, where, expected):
    assert expected == binding_of(function, *where).encode(arguments)


@pytest.mark.parametrize(
    ("type", "route", "value"),
    [
        (int, "/<int:x>", -1),
        (int, "/<int(max=9):x>", 10),
        (float, "/<float:x>", 1e22),
        (str, "/<x>", "a/b"),
        (str, "/<x>", ""),
        (str, "/<string(length=2):x>", "abc"),
        (str, "/<any(a,b):x>", "c"),
        (str, "/<uuid:x>", "no"),
        (str, "/<path:x>", "/a"),
        (str, "/<x>", "\ud800"),
        (str, "/", "\ud800"),
        (object, None, object()),
        (str, None, "\ud800"),
    ],
)
def test_a_value_that_has_no_place_on_the_wire_is_the_callers_type_error(type, route, value):
    def read(self, x): ...

    read.__annotations__ = {"x": Any if type is object else type}

    with pytest.raises(TypeError):
        binding_of(read, route, "GET").encode({"x": value})


def test_a_value_that_does_not_fit_the_route_is_named_with_it():
    with pytest.raises(TypeError, match=r"^room_id=-1 has no place in /rooms/<int:room_id>\.$"):
        binding_of(by_path, "/rooms/<int:room_id>").encode({"room_id": -1})


@pytest.mark.parametrize(
    ("type", "default", "value"), [(str | None, "a", None), (list[int], [1], []), (list[int] | None, None, [])]
)
def test_a_value_that_a_query_cannot_tell_from_nothing_is_a_type_error(type, default, value):
    with pytest.raises(TypeError, match=r"^A query cannot tell x=.* from nothing at all\.$"):
        of_type(type, "query", default=default).encode({"x": value})


# -- a call's arguments


def charge(self, order: Stay, amount: int, currency: str = "EUR"): ...


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2), {}, {"order": 1, "amount": 2}),
        ((1, 2, 3), {}, {"order": 1, "amount": 2, "currency": 3}),
        ((1,), {"amount": 2}, {"order": 1, "amount": 2}),
        ((), {"currency": 3, "amount": 2, "order": 1}, {"currency": 3, "amount": 2, "order": 1}),
    ],
)
def test_arguments_are_taken_by_position_and_by_name(args, kwargs, expected):
    assert expected == binding_of(charge).arguments(args, kwargs, "payments.charge")


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "payments.charge() is missing its argument 'order'"),
        ((1,), {}, "payments.charge() is missing its argument 'amount'"),
        ((1, 2, 3, 4), {}, "payments.charge() takes 3 arguments, 4 were given"),
        ((1, 2), {"order": 3}, "payments.charge() got several values for 'order'"),
        ((1, 2), {"tip": 3}, "payments.charge() has no parameter 'tip'; it has: order, amount, currency"),
    ],
)
def test_a_wrong_call_is_a_type_error_as_in_python(args, kwargs, message):
    with pytest.raises(TypeError) as wrong_call:
        binding_of(charge).arguments(args, kwargs, "payments.charge")

    assert message == str(wrong_call.value)


# -- there and back


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DURATIONS = st.timedeltas(timedelta(days=-9999), timedelta(days=9999))
INSTANTS = st.datetimes(timezones=st.just(UTC))
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: FINITE,
    bool: st.booleans(),
    str: TEXT,
    bytes: st.binary(max_size=20),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    date: st.dates(),
    time: st.times(),
    datetime: INSTANTS,
    timedelta: DURATIONS,
    UUID: st.uuids(),
    Kind: st.sampled_from(Kind),
    Floor: st.sampled_from(Floor),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    RoomId: st.integers(),
}
OPTIONAL: dict[Any, st.SearchStrategy[Any]] = {type | None: st.none() | values for type, values in LEAVES.items()}
SEVERAL: dict[Any, st.SearchStrategy[Any]] = {
    list[int]: st.lists(st.integers(), max_size=4),
    list[str]: st.lists(TEXT, max_size=4),
    set[date]: st.sets(st.dates(), max_size=4),
    frozenset[Kind]: st.frozensets(st.sampled_from(Kind)),
    tuple[float, ...]: st.lists(FINITE, max_size=4).map(tuple),
    Sequence[bool]: st.lists(st.booleans(), max_size=4),
}
PERHAPS_SEVERAL: dict[Any, st.SearchStrategy[Any]] = {
    type | None: st.none() | values for type, values in SEVERAL.items()
}
OBJECTS: dict[Any, st.SearchStrategy[Any]] = {
    Search: st.builds(
        Search,
        city=TEXT,
        tags=st.lists(TEXT, max_size=3).map(tuple),
        stars=st.none() | st.integers(),
        most=FINITE,
        kind=st.sampled_from(Kind) | st.none(),
    ),
    Guest: st.builds(Guest, name=TEXT, ages=st.lists(st.integers(), max_size=3)),
    Card: st.builds(Card, number=TEXT, month=st.integers()),
    Address: st.fixed_dictionaries({"street": TEXT, "number": st.integers()}),
}
STRUCTURED: dict[Any, st.SearchStrategy[Any]] = {
    **OBJECTS,
    Point: st.builds(Point, x=st.integers(), y=st.integers()),
    dict[str, int]: st.dictionaries(TEXT, st.integers(), max_size=3),
    dict[int, Guest]: st.dictionaries(st.integers(), OBJECTS[Guest], max_size=2),
    tuple[int, str]: st.tuples(st.integers(), TEXT),
    list[Search]: st.lists(OBJECTS[Search], max_size=2),
    list[Address] | None: st.none() | st.lists(OBJECTS[Address], max_size=2),
    Any: st.none() | st.booleans() | st.integers() | TEXT | st.lists(st.integers(), max_size=3),
}


def come_back(binding: Binding, values: st.SearchStrategy[Any]) -> None:
    """Whatever `x` is, it comes back; or it is null, which some queries cannot say."""

    @settings(derandomize=True, max_examples=12, deadline=None)
    @generated(values)
    def comes_back(value):
        try:
            parts = binding.encode({"x": value})
        except TypeError as refused:
            assert "from nothing at all" in str(refused)
        else:
            assert {"x": value} == binding.decode(parts)

    comes_back()


BY_PATH = {
    **LEAVES,
    str: SEGMENT,
    bytes: st.binary(min_size=1, max_size=20).filter(lambda b: b"/" not in msgspec.json.encode(b)),
}


EVERY = [
    *[("path", type, values) for type, values in BY_PATH.items()],
    *[
        ("query", type, values)
        for table in (LEAVES, OPTIONAL, SEVERAL, PERHAPS_SEVERAL)
        for type, values in table.items()
    ],
    *[("query", Annotated[type | None, Query], st.none() | values) for type, values in OBJECTS.items()],
    *[("query", Annotated[type, Query], values) for type, values in OBJECTS.items()],
    *[("body", Annotated[type, Form], values) for type, values in OBJECTS.items()],
    *[("body", type, values) for table in (SEVERAL, STRUCTURED) for type, values in table.items()],
    *[("member", type, values) for table in (LEAVES, OPTIONAL, SEVERAL, STRUCTURED) for type, values in table.items()],
]


@pytest.mark.parametrize(("place", "type", "values"), EVERY, ids=[f"{place} {spelt(type)}" for place, type, _ in EVERY])
def test_an_argument_comes_back_as_it_went(place, type, values):
    come_back(of_type(type, place), values)


@pytest.mark.parametrize(
    ("converter", "type", "values"),
    [
        ("int", int, st.integers(min_value=0)),
        ("int(signed=True)", int, st.integers()),
        ("int(fixed_digits=4)", int, st.integers(0, 9999)),
        ("float", float, st.floats(min_value=0, max_value=1e15).filter(lambda value: "e" not in repr(value))),
        ("uuid", UUID, st.uuids()),
        ("uuid", str, st.uuids().map(str)),
        ("path", str, st.from_regex(r"[^/\ud800-\udfff\n][^\ud800-\udfff\n]{0,20}", fullmatch=True)),
        ("any(a,b)", str, st.sampled_from("ab")),
        ("string(maxlength=3)", str, st.text("äbc.;?#%", min_size=1, max_size=3)),
    ],
)
def test_what_a_converter_takes_comes_back_through_it(converter, type, values):
    def read(self, x): ...

    read.__annotations__ = {"x": type}

    come_back(binding_of(read, f"/<{converter}:x>", "GET"), values)
