"""The OpenAPI document: what it says of each kind of operation, and that a service never does what it does not say."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
import pytest_twisted
from msgspec import Meta, Struct
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from twisted.internet.utils import getProcessOutputAndValue

from ropewalk import (
    BadRequest,
    Conflict,
    Cookie,
    Form,
    Header,
    NotFound,
    Principal,
    Query,
    Response,
    RopewalkError,
    Service,
    Stream,
    Unauthorized,
    Unprocessable,
    Upload,
    delete,
    get,
    given,
    operation,
    patch,
    post,
    put,
)
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.filters.authenticate import Authenticate
from ropewalk.handler import compose
from ropewalk.http.openapi import document
from ropewalk.http.openapi_parameters import converter_schema
from ropewalk.http.site import Site
from ropewalk.http.surface import surface
from ropewalk.service import describe


class Bed(Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Stay(Struct, frozen=True):
    """A stay at a hotel."""

    arrival: date
    nights: Annotated[int, Meta(ge=1, le=30)]


class Search(Struct, frozen=True):
    text: str
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    beds: list[Bed] = []


ANYTHING = Search("")


class Login(Struct, frozen=True):
    name: str
    password: str = ""


class SoldOut(Conflict):
    """Raised when no room of that kind is left."""


class TooFarAhead(Unprocessable):
    """Raised when the arrival is more than a year away."""


class Teapot(RopewalkError, type="https://hotel.example/problems/teapot"):
    status = 418


FAILURE = {"$ref": "#/components/responses/Failure"}


def shared(*names: str) -> dict[str, Any]:
    """The responses that several operations share, by status."""
    return {
        status: {"$ref": f"#/components/responses/{name}"}
        for name, status in {
            "BadRequest": "400",
            "Unauthorized": "401",
            "Forbidden": "403",
            "NotFound": "404",
            "InFlight": "409",
            "NotAcceptable": "406",
            "Conflict": "409",
            "ContentTooLarge": "413",
            "UnsupportedMediaType": "415",
            "Unprocessable": "422",
        }.items()
        if name in names
    } | {"default": FAILURE}


READS_A_BODY = ("BadRequest", "NotAcceptable", "ContentTooLarge", "UnsupportedMediaType", "Unprocessable")


def described(service: type[Service], **options: Any) -> dict[str, Any]:
    """The document of `service`, which is valid."""
    found = document(describe(service), **options)
    validate(found, cls=OpenAPIV31SpecValidator)
    return found


def entry(service: type[Service], name: str) -> dict[str, Any]:
    """What the document says of one operation."""
    return next(
        operation
        for item in described(service)["paths"].values()
        for operation in item.values()
        if operation["operationId"] == name
    )


def parameters(service: type[Service], name: str) -> list[tuple[str, str, bool, dict[str, Any]]]:
    """(place, name, required, schema) of each parameter of one operation."""
    return [
        (each["in"], each["name"], each.get("required", False), each["schema"])
        for each in entry(service, name).get("parameters", ())
    ]


# -- the whole of it


def test_a_document_says_what_the_class_says():
    class Hotels(Service, name="hotels", version="2.1.0"):
        """Hotels and their rooms."""

        @get("/rooms/<int:room_id>", raises=(NotFound,))
        async def room(self, room_id: int, expand: bool = False) -> Stay:
            """One room.

            With all its beds.
            """

    assert {
        "openapi": "3.1.0",
        "info": {"title": "hotels", "version": "2.1.0", "description": "Hotels and their rooms."},
        "servers": [{"url": "https://hotel.example/api"}],
        "tags": [{"name": "hotels"}],
        "paths": {
            "/rooms/{room_id}": {
                "get": {
                    "operationId": "room",
                    "x-ropewalk-operation": "hotels.room",
                    "x-ropewalk-access": "siblings",
                    "tags": ["hotels"],
                    "summary": "One room.",
                    "description": "With all its beds.",
                    "x-ropewalk-route": "/rooms/<int:room_id>",
                    "x-ropewalk-raises": ["urn:ropewalk:problem:not-found"],
                    "x-ropewalk-parameters": ["room_id", "expand"],
                    "parameters": [
                        {
                            "name": "room_id",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "integer", "minimum": 0},
                        },
                        {
                            "name": "expand",
                            "in": "query",
                            "allowEmptyValue": True,
                            "schema": {"type": "boolean", "default": False},
                        },
                    ],
                    "responses": {
                        "200": {
                            "description": "OK",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Stay"}}},
                        },
                        **shared("BadRequest", "NotFound", "NotAcceptable", "Unprocessable"),
                    },
                }
            }
        },
    } == {
        key: value
        for key, value in described(Hotels, server="https://hotel.example/api").items()
        if key != "components"
    }


def test_components_are_those_that_are_used_by_name():
    class Hotels(Service):
        @post("/stays", raises=(SoldOut,))
        async def book(self, stay: Stay) -> None: ...

    components = described(Hotels)["components"]

    assert {
        "schemas": ["Problem", "SoldOut", "Stay", "ValidationProblem", "WrongField"],
        "responses": ["BadRequest", "ContentTooLarge", "Failure", *READS_A_BODY[1:2], *READS_A_BODY[4:2:-1]],
    } == {kind: list(named) for kind, named in components.items()}


def test_a_problem_is_described_as_rfc_9457_has_it():
    class Hotels(Service):
        @post("/stays")
        async def book(self, stay: Stay) -> None: ...

    components = described(Hotels)["components"]

    assert ["type", "title", "status"] == components["schemas"]["Problem"]["required"]
    assert ["pointer", "in", "expected", "got", "detail"] == components["schemas"]["WrongField"]["required"]
    assert {
        "description": "A request was parsed and is wrong; `errors` names every wrong field.",
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/ValidationProblem"},
                "examples": {
                    "Unprocessable": {
                        "value": {
                            "type": "urn:ropewalk:problem:unprocessable",
                            "title": "Unprocessable",
                            "status": 422,
                        }
                    }
                },
            }
        },
    } == components["responses"]["Unprocessable"]


def test_the_same_class_gives_the_same_document():
    class Hotels(Service):
        @post("/stays", raises=(SoldOut, TooFarAhead))
        async def book(self, stay: Stay, search: Annotated[Search, Query]) -> dict[str, Stay]: ...

    assert json.dumps(described(Hotels)) == json.dumps(described(Hotels))


# -- which operations


def test_an_operation_without_a_route_is_called_by_its_id():
    class Hotels(Service, name="hotels", version="2.0.0"):
        @operation(idempotent=True)
        async def merge(self, first: int, other: Stay | None = None) -> int: ...

    assert {
        "operationId": "merge",
        "x-ropewalk-operation": "hotels.merge",
        "x-ropewalk-access": "siblings",
        "tags": ["hotels"],
        "x-ropewalk-idempotent": True,
        "x-ropewalk-parameters": ["first", "other"],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": (
                    "May be anything of 255 characters at most that is not used twice: "
                    "a request that is repeated under its key has its effect once."
                ),
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "first": {"type": "integer"},
                            "other": {
                                "anyOf": [{"$ref": "#/components/schemas/Stay"}, {"type": "null"}],
                                "default": None,
                            },
                        },
                        "required": ["first"],
                    }
                }
            },
            "required": True,
        },
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "integer"}}}},
            **shared(*READS_A_BODY),
            **shared("InFlight"),
        },
    } == described(Hotels)["paths"]["/-/hotels/2/merge"]["post"]


def test_the_public_document_has_what_is_declared_for_the_outside_and_no_more():
    class Hotels(Service):
        @get("/open", access="public")
        async def open(self) -> int: ...

        @get("/mine", access="user")
        async def mine(self) -> Stay: ...

        @get("/inside")
        async def inside(self) -> Search: ...

        @operation
        async def by_id(self) -> Bed: ...

    public = described(Hotels, public=True)

    assert ["/open", "/mine"] == list(public["paths"])
    assert ["Problem", "Stay"] == list(public["components"]["schemas"])


def test_methods_of_one_path_stand_together_however_they_call_its_placeholder():
    class Hotels(Service):
        @get("/rooms/<int:room_id>")
        async def room(self, room_id: int) -> int: ...

        @delete("/rooms/<int:number>")
        async def close(self, number: int) -> None: ...

    item = described(Hotels)["paths"]["/rooms/{room_id}"]

    assert ["get", "delete"] == list(item)
    assert [
        {
            "name": "room_id",
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
            "x-ropewalk-name": "number",
        }
    ] == item["delete"]["parameters"]


def test_routes_that_only_their_converters_tell_apart_have_paths_of_their_own():
    class Hotels(Service):
        @get("/rooms/<int:room>")
        async def by_number(self, room: int) -> int: ...

        @get("/rooms/<room>")
        async def by_name(self, room: str) -> int: ...

        @get("/rooms/<uuid:id>")
        async def by_id(self, id: UUID) -> int: ...

    assert ["/rooms/{room}", "/rooms/{room_2}", "/rooms/{id}"] == list(described(Hotels)["paths"])


def test_braces_of_a_route_are_no_placeholder():
    class Hotels(Service):
        @get("/{odd}/<name>")
        async def odd(self, name: str) -> int: ...

    assert ["/%7Bodd%7D/{name}"] == list(described(Hotels)["paths"])


# -- parameters


@pytest.mark.parametrize(
    ("converter", "options", "expected"),
    [
        ("string", "", {"type": "string", "minLength": 1}),
        ("string", "minlength=2,maxlength=5", {"type": "string", "minLength": 2, "maxLength": 5}),
        ("string", "length=2", {"type": "string", "minLength": 2, "maxLength": 2}),
        ("path", "", {"type": "string", "minLength": 1}),
        ("any", "bed,breakfast", {"type": "string", "enum": ["bed", "breakfast"]}),
        ("int", "", {"type": "integer", "minimum": 0}),
        ("int", "signed=True", {"type": "integer"}),
        ("int", "min=3,max=9", {"type": "integer", "minimum": 3, "maximum": 9}),
        ("float", "max=1.5", {"type": "number", "minimum": 0, "maximum": 1.5}),
        ("uuid", "", {"type": "string", "format": "uuid"}),
    ],
)
def test_a_converter_lets_some_texts_through(converter, options, expected):
    assert expected == converter_schema(converter, options)


def test_a_path_parameter_is_what_both_its_converter_and_its_type_let_through():
    class Hotels(Service):
        @get("/a/<int(max=20):n>/<word>/<bed>/<b>")
        async def a(
            self,
            n: Annotated[int, Meta(ge=3, le=30, description="Which one.")],
            word: Annotated[str, Meta(max_length=4)],
            bed: Bed,
            b: bool,
        ) -> int: ...

    assert [
        ("path", "n", True, {"type": "integer", "minimum": 3, "maximum": 20}),
        ("path", "word", True, {"type": "string", "minLength": 1, "maxLength": 4}),
        ("path", "bed", True, {"$ref": "#/components/schemas/Bed"}),
        ("path", "b", True, {"type": "boolean"}),
    ] == parameters(Hotels, "a")
    assert "Which one." == entry(Hotels, "a")["parameters"][0]["description"]


def test_parameters_say_where_they_are_and_what_is_taken_when_they_are_not():
    class Hotels(Service):
        @get("/a")
        async def a(
            self,
            q: str,
            page: Annotated[int, Query("page-no")] = 1,
            bed: Bed | None = None,
            tag: list[str] = [],
            day: date = date(2027, 5, 1),
            trace: Annotated[str, Header("X-Trace")] = "",
            sid: Annotated[str | None, Cookie] = None,
            who: Principal = given,
        ) -> int: ...

    bed = {"anyOf": [{"$ref": "#/components/schemas/Bed"}, {"type": "null"}]}
    assert [
        ("query", "q", True, {"type": "string"}),
        ("query", "page-no", False, {"type": "integer", "default": 1}),
        ("query", "bed", False, bed),
        ("query", "tag", False, {"type": "array", "items": {"type": "string"}, "default": []}),
        ("query", "day", False, {"type": "string", "format": "date", "default": "2027-05-01"}),
        ("header", "x-trace", False, {"type": "string", "default": ""}),
        ("cookie", "sid", False, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ] == parameters(Hotels, "a")


def test_what_may_be_null_or_empty_need_not_be_sent():
    class Hotels(Service):
        @get("/a")
        async def a(self, n: int | None, tag: list[str], some: Annotated[list[int], Meta(min_length=1)]) -> int: ...

    assert [("n", False), ("tag", False), ("some", True)] == [
        (name, required) for _, name, required, _ in parameters(Hotels, "a")
    ]


def test_an_empty_text_where_none_can_be_meant_is_nothing():
    class Hotels(Service):
        @get("/a")
        async def a(self, q: str = "", n: int = 1, bed: Bed | None = None) -> int: ...

    assert [("q", False), ("n", True), ("bed", True)] == [
        (each["name"], each.get("allowEmptyValue", False)) for each in entry(Hotels, "a")["parameters"]
    ]


def test_the_fields_of_a_structured_query_are_parameters():
    class Hotels(Service):
        @get("/a")
        async def a(self, search: Annotated[Search, Query]) -> int: ...

        @get("/b")
        async def b(self, search: Annotated[Search, Query] = ANYTHING) -> int: ...

    beds = {"type": "array", "items": {"$ref": "#/components/schemas/Bed"}, "default": []}
    limit = {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}
    assert [
        ("query", "text", True, {"type": "string"}),
        ("query", "limit", False, limit),
        ("query", "beds", False, beds),
    ] == parameters(Hotels, "a")
    assert [False, False, False] == [required for _, _, required, _ in parameters(Hotels, "b")]
    assert {"search": {"$ref": "#/components/schemas/Search"}} == entry(Hotels, "a")["x-ropewalk-query"]


# -- bodies


def body(service: type[Service], name: str) -> tuple[bool, dict[str, Any]]:
    """(required, schema by media type)."""
    found = entry(service, name)["requestBody"]
    return found.get("required", False), {media: each["schema"] for media, each in found["content"].items()}


def test_a_structured_parameter_is_the_body():
    class Hotels(Service):
        @post("/a")
        async def a(self, stay: Annotated[Stay, Meta(examples=[Stay(date(2027, 5, 1), 2)])]) -> None: ...

        @put("/b")
        async def b(self, stays: list[Stay] | None = None) -> None: ...

    stay = {"$ref": "#/components/schemas/Stay"}
    assert (
        True,
        {"application/json": {**stay, "examples": [{"arrival": "2027-05-01", "nights": 2}]}},
    ) == body(Hotels, "a")
    assert (
        False,
        {"application/json": {"anyOf": [{"type": "array", "items": stay}, {"type": "null"}]}},
    ) == body(Hotels, "b")
    assert ["stay", "stays"] == [entry(Hotels, name)["requestBody"]["x-ropewalk-name"] for name in "ab"]


def test_forms_and_files_are_bodies_too():
    class Hotels(Service):
        @post("/a")
        async def a(self, form: Annotated[Login, Form]) -> None: ...

        @post("/b")
        async def b(self, photo: Upload, form: Annotated[Login, Form], title: str = "") -> None: ...

    login = {"$ref": "#/components/schemas/Login"}
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    assert (True, {"application/x-www-form-urlencoded": login, "multipart/form-data": login}) == body(Hotels, "a")
    assert (
        True,
        {
            "multipart/form-data": {
                "type": "object",
                "properties": {"photo": file},
                "required": ["photo"],
                "allOf": [login],
            }
        },
    ) == body(Hotels, "b")


# -- answers


def answers(service: type[Service], name: str) -> dict[str, Any]:
    return entry(service, name)["responses"]


def test_an_answer_is_what_the_operation_returns():
    class Hotels(Service):
        @get("/number")
        async def number(self) -> int | None: ...

        @post("/nothing")
        async def nothing(self) -> None: ...

        @post("/created", status=201)
        async def created(self) -> Stay: ...

        @get("/bytes")
        async def content(self) -> bytes: ...

        @get("/odd", status=299)
        async def odd(self) -> str: ...

    def json_of(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    acceptable = shared("NotAcceptable")
    number = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert {"200": {"description": "OK", "content": json_of(number)}, **acceptable} == answers(Hotels, "number")
    assert {"204": {"description": "No Content"}, **acceptable} == answers(Hotels, "nothing")
    stay = json_of({"$ref": "#/components/schemas/Stay"})
    assert {"201": {"description": "Created", "content": stay}, **acceptable} == answers(Hotels, "created")
    octets: dict[str, Any] = {"application/octet-stream": {}}
    assert {"200": {"description": "OK", "content": octets}, **acceptable} == answers(Hotels, "content")
    assert {"299": {"description": "Done", "content": json_of({"type": "string"})}, **acceptable} == answers(
        Hotels, "odd"
    )


def test_a_response_may_be_anything_and_so_may_its_refusals():
    class Hotels(Service):
        @get("/pages/<name>")
        async def page(self, name: str) -> Response: ...

    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    found = answers(Hotels, "page")
    assert ["200", "400", "404", "default"] == list(found)
    assert {"*/*": {}} == found["200"]["content"]
    assert ["application/problem+json", "*/*"] == list(found["404"]["content"])
    assert {"application/problem+json": problem, "*/*": {}} == found["default"]["content"]


def test_a_stream_is_sent_in_the_form_its_reader_asks_for():
    class Hotels(Service):
        @get("/stays")
        async def stays(self) -> AsyncIterator[Stay]: ...

        @get("/any")
        async def any(self) -> Stream: ...

        @get("/bytes")
        async def pieces(self) -> AsyncIterator[bytes]: ...

    stay = {"$ref": "#/components/schemas/Stay"}
    lines, events = "application/x-ndjson", "text/event-stream"
    assert {
        "200": {"description": "OK", "content": {lines: {"x-ropewalk-item": stay}, events: {}}},
        "default": FAILURE,
    } == answers(Hotels, "stays")
    assert {
        "200": {"description": "OK", "content": {lines: {}, events: {}, "*/*": {}}},
        "default": FAILURE,
    } == answers(Hotels, "any")
    assert ["application/octet-stream"] == list(answers(Hotels, "pieces")["200"]["content"])


class Refusing(Service, name="refusing"):
    """Operations that refuse for all there is."""

    @get("/nothing")
    async def nothing(self) -> int: ...

    @get("/any-text")
    async def any_text(self, q: str = "", tags: list[str] = []) -> int: ...

    @get("/wanted-text")
    async def wanted_text(self, q: str) -> int: ...

    @get("/number")
    async def number(self, n: int = 1) -> int: ...

    @get("/path/<name>")
    async def path(self, name: str) -> int: ...

    @get("/int/<int:n>")
    async def converted(self, n: int) -> int: ...

    @get("/limited/<int:n>")
    async def limited(self, n: Annotated[int, Meta(le=3)]) -> int: ...

    @get("/header")
    async def header(self, trace: Annotated[str, Header] = "") -> int: ...

    @post("/body")
    async def body(self, stay: Stay) -> int: ...

    @post("/anything")
    async def anything(self, value: Any) -> int: ...

    @post("/form")
    async def form(self, form: Annotated[Login, Form]) -> int: ...

    @get("/user", access="user")
    async def user(self) -> int: ...

    @get("/scopes", scopes=("rooms:read",))
    async def scopes(self) -> int: ...

    @get("/rows")
    async def rows(self) -> Stream: ...

    @get("/raises", raises=(NotFound, Conflict, BadRequest))
    async def raises(self) -> int: ...


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", ["406"]),
        ("any_text", ["400", "406"]),
        ("wanted_text", ["400", "406", "422"]),
        ("number", ["400", "406", "422"]),
        ("path", ["400", "404", "406"]),
        ("converted", ["400", "404", "406"]),
        ("limited", ["400", "404", "406", "422"]),
        ("header", ["406"]),
        ("body", ["400", "406", "413", "415", "422"]),
        ("anything", ["400", "406", "413", "415"]),
        ("form", ["400", "403", "406", "413", "415", "422"]),
        ("user", ["401", "406"]),
        ("scopes", ["401", "403", "406"]),
        ("rows", []),
        ("raises", ["400", "404", "406", "409"]),
    ],
)
def test_an_operation_is_said_to_refuse_what_it_can_refuse(name, expected):
    assert ["200", *expected, "default"] == list(answers(Refusing, name))


def test_errors_of_the_service_are_told_by_their_type():
    class Hotels(Service):
        @post("/stays", raises=(SoldOut, TooFarAhead, Teapot))
        async def book(self, stay: Stay) -> None: ...

    found = described(Hotels)
    responses = found["paths"]["/stays"]["post"]["responses"]

    assert {
        "description": "No room of that kind is left.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/SoldOut"}}},
    } == responses["409"]
    assert {
        "title": "Sold out",
        "description": "No room of that kind is left.",
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "properties": {"type": {"const": "urn:ropewalk:problem:sold-out"}},
    } == found["components"]["schemas"]["SoldOut"]
    assert [
        {"$ref": "#/components/schemas/ValidationProblem"},
        {"$ref": "#/components/schemas/TooFarAhead"},
    ] == responses["422"]["content"]["application/problem+json"]["schema"]["anyOf"]
    assert "Teapot." == responses["418"]["description"]


def test_an_error_that_is_listed_stands_for_its_subclasses():
    class Full(Conflict):
        """Raised when there is no room."""

    class FullForever(Full):
        """Raised when there will be no room."""

    class Hotels(Service):
        @post("/stays", raises=(Full,))
        async def book(self) -> None: ...

    assert {"type": {"enum": [Full.type, FullForever.type]}} == described(Hotels)["components"]["schemas"]["Full"][
        "properties"
    ]


def test_an_error_called_like_a_type_has_another_name():
    class Gone(Struct):
        at: int

    gone = Gone

    class Hotels(Service):
        @get("/stays", raises=(type("Gone", (Conflict,), {}),))
        async def book(self) -> gone: ...

    assert ["Gone", "GoneProblem", "Problem"] == list(described(Hotels)["components"]["schemas"])


def test_who_may_is_said_in_words_that_tools_know():
    class Hotels(Service):
        @get("/mine", access="user")
        async def mine(self) -> int: ...

        @get("/theirs", scopes=("b", "a"))
        async def theirs(self) -> int: ...

    found = described(Hotels)
    assert [{"bearer": []}, {"session": []}] == entry(Hotels, "mine")["security"]
    assert [{"bearer": ["a", "b"]}, {"session": ["a", "b"]}] == entry(Hotels, "theirs")["security"]
    assert {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "session": {"type": "apiKey", "in": "cookie", "name": "session"},
    } == found["components"]["securitySchemes"]


# -- it is so


class Bearer:
    """Knows one token."""

    headers = frozenset({"authorization"})

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal | None:
        if metadata.get("authorization") != "Bearer right":
            raise Unauthorized("That is no token of ours.", headers=[("www-authenticate", "Bearer")])
        return Principal(subject="ada", scopes=frozenset({"rooms:write"}))


class Kept(Struct, frozen=True):
    number: int
    stay: Stay
    bed: Bed = Bed.SINGLE
    tags: dict[str, list[int]] = {}
    before: Kept | None = None


class Busy(Service, name="busy", version="3.0.0"):
    """Does something of every kind, and keeps nothing."""

    @get("/rooms/<int:number>", raises=(NotFound,))
    async def room(self, number: Annotated[int, Meta(le=1000)], bed: Bed | None = None, wide: bool = False) -> Kept:
        if number > 500:
            raise NotFound("There is no such room.")
        return Kept(number, Stay(date(2027, 5, 1), 1), bed or Bed.DOUBLE)

    @get("/rooms")
    async def rooms(self, search: Annotated[Search, Query], tag: list[str] = []) -> list[str]:
        return [search.text, *tag]

    @post("/stays", status=201, raises=(SoldOut,), idempotent=True)
    async def book(self, stay: Stay) -> Kept:
        if stay.nights == 13:
            raise SoldOut("Nobody stays that long.", nights=13)
        return Kept(1, stay)

    @put("/kept/<uuid:id>")
    async def keep(self, id: UUID, room: Kept) -> Kept:
        return room

    @delete("/kept/<uuid:id>", access="user", scopes=("rooms:write",))
    async def drop(self, id: UUID) -> None: ...

    @patch("/kept/<uuid:id>")
    async def change(self, id: UUID, changes: dict[str, int | None]) -> dict[str, int | None]:
        return changes

    @get("/names/<name>")
    async def name(self, name: str, trace: Annotated[str, Header("X-Trace")] = "") -> str:
        return name

    @post("/login")
    async def login(self, form: Annotated[Login, Form]) -> Response:
        return Response(form.name, headers=[("content-type", "text/plain")])

    @get("/feed")
    async def feed(self) -> AsyncIterator[Stay]:
        yield Stay(date(2027, 5, 1), 1)

    @operation
    async def sum(self, first: int, others: list[float] = []) -> float:
        return first + sum(others)


@pytest.mark.parametrize(
    ("examples", "phases"),
    [
        pytest.param(5, "fuzzing", marks=pytest.mark.slow, id="a few requests of each kind"),
        pytest.param(
            150, "examples,coverage,fuzzing,stateful", marks=[pytest.mark.long, pytest.mark.timeout(300)], id="many"
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_schemathesis_finds_nothing_the_document_does_not_say(
    running: Any, tmp_path: Path, examples: int, phases: str
):
    handler = compose([Authenticate([Bearer()])], dispatch(Busy()))
    site = Site(surface(Busy(), handler, Driver.of(running), running.seconds), running, 1 << 20)
    port = running.listenTCP(0, site, interface="127.0.0.1")

    try:
        out, _, code = await getProcessOutputAndValue(
            sys.executable,
            [
                *("-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port.getHost().port}/openapi.json"),
                *("--checks", "all", "--phases", phases, "--max-examples", str(examples), "--seed", "7"),
                *("-H", "Authorization: Bearer right", "--suppress-health-check", "all", "--no-color"),
            ],
            env={"PATH": "", "HOME": str(tmp_path), "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
            path=str(tmp_path),
            reactor=running,
        )
    finally:
        await port.stopListening()

    assert 0 == code, out.decode()
    assert b"10 selected / 10 total" in out, out.decode()
