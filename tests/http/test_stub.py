"""Contracts written from documents: ours, which come back as they were; FastAPI's, which are called; oddities."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from textwrap import dedent
from threading import Thread
from types import ModuleType
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType, field

from ropewalk import (
    Conflict,
    Cookie,
    Form,
    Header,
    NotFound,
    Query,
    Response,
    RopewalkError,
    Service,
    Stream,
    Unprocessable,
    Upload,
    delete,
    get,
    operation,
    patch,
    post,
    put,
)
from ropewalk.engine.pool import Pool
from ropewalk.errors import ConfigurationError
from ropewalk.http.client import HTTPConnection
from ropewalk.http.openapi import document
from ropewalk.http.stub import read, stub
from ropewalk.service import describe
from ropewalk.sibling import client_of

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """`imported(source)`: the module; what it registered is forgotten when the test ends."""
    known = dict(RopewalkError.registry)

    def imported(source: str) -> ModuleType:
        path = tmp_path / "generated.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("generated", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["generated"] = module
        spec.loader.exec_module(module)
        return module

    yield imported
    sys.modules.pop("generated", None)
    RopewalkError.registry.clear()
    RopewalkError.registry.update(known)


def documented(paths: dict[str, Any], schemas: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A document of someone else."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pet Shop", "version": "1.4"},
        "paths": paths,
        "components": {"schemas": schemas or {}},
        **more,
    }


def answering(schema: Any) -> dict[str, Any]:
    return {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}


def taking(**operation: Any) -> dict[str, Any]:
    return {"responses": {"204": {"description": "Done"}}, **operation}


def contract(source: str) -> str:
    """The class in the source, without its head and docstring."""
    return source[re.search(r'\(Contract, .*\n    """.*"""\n', source).end() :]  # type: ignore[union-attr]


# -- our own documents


class Color(StrEnum):
    RED = "red"
    NIGHT_BLUE = "night-blue"


class Floor(IntEnum):
    GROUND = 0
    ROOF = 9


class Stay(Struct, frozen=True, kw_only=True):
    """A stay at a hotel."""

    arrival: date
    nights: Annotated[int, Meta(ge=1, le=30)]
    color: Color = Color.RED
    floor: Floor | None = None
    note: str | UnsetType = UNSET
    tags: list[str] = []
    codes: set[int] = set()
    by_day: dict[int, Decimal] = {}
    at: datetime | None = None
    until: time | None = None
    lasts: timedelta | None = None
    key: bytes = b"rope"
    wire: int = field(name="wireName", default=3)
    pair: tuple[int, str] | None = None
    above: Stay | None = None


class Cat(Struct, frozen=True, kw_only=True, tag="cat"):
    lives: int = 9


class Dog(Struct, frozen=True, kw_only=True, tag="dog", forbid_unknown_fields=True):
    name: str
    born: date = date(2020, 2, 29)


class Search(Struct, frozen=True, kw_only=True):
    text: str
    limit: Annotated[int, Meta(ge=1, le=100)] = 10


class Login(Struct, frozen=True, kw_only=True):
    name: str


class Pressed(Struct, frozen=True, kw_only=True):
    """A form that is a button."""


class SoldOut(Conflict):
    """Raised when no room of that kind is left."""


class TooFar(Unprocessable, type="https://hotel.example/problems/too-far"):
    """Raised when the arrival is too far away."""


class Teapot(RopewalkError, title="I am a teapot"):
    """Raised when coffee is asked for."""

    status = 418


get_ = get


class Hotels(Service, name="hotels", version="2.1.0-rc.1"):
    """Hotels and "their" rooms."""

    @get("/rooms/<int:room_id>", raises=(NotFound,))
    async def room(self, room_id: Annotated[int, Meta(le=99)], expand: bool = False) -> Stay:
        r"""One room.

        With "all" its \beds.
        """

    @get("/rooms/<any(small,large):size>/<path:where>")
    async def list(self, size: str, where: str, tag: list[str] = ["a"]) -> list[Stay]: ...

    @get("/search")
    async def search(self, search: Annotated[Search, Query], page: Annotated[int, Query("page-no")] = 1) -> int: ...

    @post("/stays", status=201, raises=(SoldOut, Conflict, TooFar, Teapot), idempotent=True, access="public")
    async def book(self, stay: Stay) -> Stay:
        """Book a stay."""

    @put("/pets/<float(signed=True):weight>")
    async def keep(self, pet: Cat | Dog, weight: float) -> Cat | Dog | None: ...

    @delete("/pets/<pet>", access="user", scopes=("pets:write", "pets:read"), idempotent=False)
    async def drop(self, pet: Literal["cat", "dog"]) -> None: ...

    @operation(raises=(NotFound,))
    async def merge(self, a: int, b: Stay | None = None, c: Annotated[str, Meta(pattern=r"^\d+$")] = "1") -> dict: ...

    @operation
    async def plain(self) -> None: ...

    @post("/login", status=303)
    async def login(self, form: Annotated[Login, Form], remember: bool = False) -> Response: ...

    @post("/logout")
    async def logout(self, form: Annotated[Pressed, Form] = Pressed()) -> None: ...

    @post("/photos")
    async def photo(self, photo: Upload, form: Annotated[Login, Form], title: str = "") -> str: ...

    @get("/feed")
    async def feed(self) -> AsyncIterator[Stay]: ...

    @get("/rows")
    async def rows(self) -> Stream: ...

    @get("/pieces")
    async def pieces(self) -> AsyncIterator[bytes]: ...

    @get("/raw")
    async def raw(self) -> bytes: ...

    @get("/heads")
    async def heads(
        self, trace: Annotated[str, Header("X-Trace")], sid: Annotated[str | None, Cookie] = None
    ) -> Literal["a", "b"]: ...

    @patch("/stays", status=202)
    async def change(self, changes: dict[str, Any], day: date = date(2027, 5, 1), color: Color = Color.RED) -> Any: ...

    @get_("/rooms/<uuid:id>")
    async def get(self, id: UUID) -> list[Stay] | None: ...


def test_a_contract_of_ours_comes_back_as_it_was(imported):
    described = document(describe(Hotels))

    back = imported(stub(described)).Hotels

    assert described == document(describe(back))


def test_its_operations_have_the_same_ids_parameters_and_facts(imported):
    back = describe(imported(stub(document(describe(Hotels)))).Hotels)

    def said(description: Any) -> list[Any]:
        return [
            (
                each.id,
                each.method,
                each.route,
                each.status,
                each.idempotent,
                each.access,
                each.scopes,
                [error.type for error in each.raises],
                [error.status for error in each.raises],
                [(p.name, p.alias, p.source, p.required, repr(p.default)) for p in each.binding.parameters],
                each.streams,
                each.raw,
            )
            for each in description.operations.values()
        ]

    assert sorted(said(describe(Hotels)), key=str) == sorted(said(back), key=str)
    assert ("hotels", "2.1.0-rc.1") == (back.name, back.version)


def test_the_source_is_what_a_person_would_have_written():
    class Room(Struct, frozen=True, kw_only=True):
        """A room to let."""

        number: int
        beds: Annotated[int, Meta(ge=1, description="Cots are not counted.")] = 1

    class Rooms(Service, name="booking-rooms", version="1.0.0"):
        """Rooms to let."""

        @get("/rooms/<int:number>", raises=(NotFound,))
        async def room(self, number: int, expand: bool = False) -> Room:
            """One room."""

        @post("/rooms", status=201, raises=(SoldOut,))
        async def add(self, room: Room) -> None: ...

    assert '''"""The contract of booking-rooms 1.0.0, written by `ropewalk stub`."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from ropewalk import Conflict, Contract, NotFound, get, post


class Room(Struct, frozen=True, kw_only=True):
    """A room to let."""

    number: int
    # Cots are not counted.
    beds: Annotated[int, Meta(ge=1)] = 1


class SoldOut(Conflict):
    """Raised when no room of that kind is left."""


class BookingRooms(Contract, name="booking-rooms", version="1.0.0"):
    """Rooms to let."""

    @get("/rooms/<int:number>", raises=(NotFound,))
    async def room(self, number: int, expand: bool = False) -> Room:
        """One room."""

    @post("/rooms", status=201, raises=(SoldOut,))
    async def add(self, room: Room) -> None: ...
''' == stub(document(describe(Rooms)))


def test_an_operation_does_not_hide_what_the_class_means_by_its_name():
    class Shelf(Service, name="shelf", version="1.0.0"):
        @get("/")
        async def list(self) -> list[int]: ...

        @get("/one")
        async def get(self, many: list[int] = []) -> int: ...

    assert '''
get_ = get
list_ = list


class Shelf(Contract, name="shelf", version="1.0.0"):
    """shelf."""

    @get_("/")
    async def list(self) -> list_[int]: ...

    @get_("/one")
    async def get(self, many: Annotated[list_[int], Query] = []) -> int: ...
''' in stub(document(describe(Shelf)))


# -- types


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "Any"),
        (True, "Any"),
        ({"description": "Nobody knows."}, "Any"),
        ({"type": "null"}, "None"),
        ({"type": "boolean"}, "bool"),
        ({"type": "integer", "format": "int64"}, "int"),
        ({"type": "number", "format": "double"}, "float"),
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 10}, "Annotated[int, Meta(ge=1, lt=10)]"),
        ({"type": "integer", "minimum": 1.0, "exclusiveMinimum": True}, "Annotated[int, Meta(gt=1)]"),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": False}, "Annotated[float, Meta(ge=0)]"),
        ({"type": "integer", "maximum": 2**64}, "int"),
        ({"type": "number", "multipleOf": 0.5}, "Annotated[float, Meta(multiple_of=0.5)]"),
        ({"type": "string"}, "str"),
        ({"type": "string", "minLength": 0}, "str"),
        ({"type": "string", "minLength": 1, "maxLength": 3}, "Annotated[str, Meta(min_length=1, max_length=3)]"),
        ({"type": "string", "pattern": "^\\d+$"}, 'Annotated[str, Meta(pattern=r"^\\d+$")]'),
        ({"type": "string", "pattern": "\\p{L}"}, "str"),
        ({"type": "string", "format": "email"}, "str"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "format": "date-time"}, "datetime"),
        ({"type": "string", "format": "time"}, "time"),
        ({"type": "string", "format": "duration"}, "timedelta"),
        ({"type": "string", "format": "uuid"}, "UUID"),
        ({"type": "string", "format": "byte"}, "bytes"),
        ({"type": "string", "contentEncoding": "base64"}, "bytes"),
        ({"type": ["string", "number"], "format": "decimal"}, "Decimal"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"type": "string", "nullable": True}, "str | None"),
        ({"enum": ["a", "b"]}, 'Literal["a", "b"]'),
        ({"enum": ["a", 1, None]}, 'Literal["a"] | Literal[1] | None'),
        ({"const": "it's"}, 'Literal["it\'s"]'),
        ({"enum": [True]}, "bool"),
        ({"enum": [1.5]}, "float"),
        ({"enum": [{}]}, "Any"),
        ({"type": "array"}, "list[Any]"),
        ({"items": {"type": "integer"}}, "list[int]"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "Annotated[list[int], Meta(min_length=1)]"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "set[str]"),
        ({"type": "array", "items": {"type": "object"}, "uniqueItems": True}, "list[dict[str, Any]]"),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
            "tuple[int, str]",
        ),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, "list[Any]"),
        ({"type": "object"}, "dict[str, Any]"),
        ({"additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"type": "object", "additionalProperties": False}, "dict[str, Any]"),
        (
            {"type": "object", "propertyNames": {"format": "uuid"}, "additionalProperties": {"type": "integer"}},
            "dict[UUID, int]",
        ),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "int | str"),
        ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, "int | None"),
        ({"anyOf": [{"type": "integer"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}]}, "int | str | None"),
        ({"anyOf": [{"type": "integer"}, {"type": "integer"}]}, "int"),
        ({"anyOf": [{"type": "integer"}, {}]}, "Any"),
        ({"anyOf": [{"type": "string", "format": "date"}, {"type": "string"}]}, "str"),
        ({"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]}, 'Literal["a", "b"]'),
        ({"anyOf": [{"type": "integer", "minimum": 3}, {"enum": [1]}]}, "int"),
        ({"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array"}]}, "list[Any]"),
        ({"anyOf": [{"type": "object"}, {"$ref": "#/components/schemas/Pet"}]}, "dict[str, Any]"),
        ({"anyOf": [{"$ref": "#/components/schemas/Pet"}, {"$ref": "#/components/schemas/Toy"}]}, "dict[str, Any]"),
        ({"$ref": "#/components/schemas/Pet"}, "Pet"),
        ({"$ref": "#/components/schemas/Id"}, "UUID"),
        ({"$ref": "#/components/schemas/Ids"}, "list[UUID]"),
        ({"$ref": "#/components/schemas/Json"}, "list[Any] | str"),
        ({"$ref": "#/components/schemas/MaybePet"}, "Pet | None"),
        ({"allOf": [{"$ref": "#/components/schemas/Pet"}], "description": "Mine."}, "Pet"),
        ({"allOf": [{"$ref": "#/components/schemas/Pet"}], "nullable": True}, "Pet | None"),
        ({"$ref": "#/components/schemas/size~1of%20it"}, "SizeOfIt"),
        ({"$ref": "#/components/schemas/Response"}, "ResponseModel"),
        ({"properties": {"a": {"type": "integer"}}, "title": "Ignored"}, "FindResult"),
    ],
)
def test_a_schema_is_the_type_that_msgspec_can_read(imported, schema, expected):
    schemas = {
        "Pet": {"type": "object", "properties": {"name": {"type": "string"}}},
        "Toy": {"type": "object", "properties": {"price": {"type": "number"}}},
        "Id": {"type": "string", "format": "uuid"},
        "Ids": {"type": "array", "items": {"$ref": "#/components/schemas/Id"}},
        "Json": {"anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/Json"}}, {"type": "string"}]},
        "MaybePet": {"anyOf": [{"$ref": "#/components/schemas/Pet"}, {"type": "null"}]},
        "size/of it": {"type": "string", "enum": ["small", "large"]},
        "Response": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }
    source = stub(documented({"/": {"get": {"operationId": "find", "responses": answering(schema)}}}, schemas))

    assert expected == re.search(r"async def find\(self\) -> (.*): \.\.\.", source)[1]  # type: ignore[index]
    assert "find" in describe(imported(source).PetShop).operations


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]},
            """
            class Thing(Struct, frozen=True, kw_only=True):
                a: int | UnsetType = UNSET
                b: int
            """,
        ),
        (
            {
                "description": "What is sold.",
                "properties": {
                    "item-id": {"type": "string", "description": "Which\none."},
                    "class": {"type": "integer", "default": 1},
                    "date": {"type": "string", "format": "date"},
                },
                "required": ["item-id", "date"],
            },
            '''
            class Thing(Struct, frozen=True, kw_only=True):
                """What is sold."""

                # Which one.
                item_id: str = field(name="item-id")
                class_: int = field(name="class", default=1)
                date_: date = field(name="date")
            ''',
        ),
        (
            {
                "properties": {
                    "flag": {"type": "boolean", "default": True},
                    "size": {"type": "number", "default": 1.5},
                    "name": {"type": "string", "default": 'a "b"'},
                    "color": {"$ref": "#/components/schemas/Color", "default": "on-hold"},
                    "level": {"$ref": "#/components/schemas/Level", "default": -1},
                    "day": {"type": "string", "format": "date", "default": "2027-05-01"},
                    "id": {"type": "string", "format": "uuid", "default": "8c1f1f0e-0d4c-4f2c-9a7e-0d0e8a1f6b11"},
                    "long": {"type": "string", "format": "duration", "default": "PT90S"},
                    "raw": {"type": "string", "format": "byte", "default": "MTIz"},
                    "tags": {"type": "array", "items": {"type": "string"}, "default": ["a"]},
                    "none": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    "odd": {"type": "string", "format": "date", "default": "soon"},
                    "kind": {"const": "x"},
                    "sub": {"properties": {"a": {"type": "integer"}}, "default": {"a": 1}},
                    "base": {"$ref": "#/components/schemas/Base", "default": {"id": 3}},
                    "bases": {"type": "array", "items": {"$ref": "#/components/schemas/Base"}, "default": [{"id": 3}]},
                }
            },
            """
            class Thing(Struct, frozen=True, kw_only=True):
                flag: bool = True
                size: float = 1.5
                name: str = 'a "b"'
                color: Color = Color.ON_HOLD
                level: Level = Level.MINUS_1
                day: date = date.fromisoformat("2027-05-01")
                id: UUID = UUID("8c1f1f0e-0d4c-4f2c-9a7e-0d0e8a1f6b11")
                long: timedelta = timedelta(seconds=90.0)
                raw: bytes = b"123"
                tags: list[str] = field(default_factory=lambda: ["a"])
                none: str | None = None
                odd: date | UnsetType = UNSET
                kind: Literal["x"] = "x"
                sub: ThingSub | UnsetType = UNSET
                base: Base = field(default_factory=lambda: Base(id=3))
                bases: list[Base] = field(default_factory=lambda: [Base(id=3)])
            """,
        ),
        (
            {
                "allOf": [
                    {"$ref": "#/components/schemas/Base"},
                    {"properties": {"more": {"type": "integer"}}, "required": ["more"]},
                ]
            },
            """
            class Thing(Struct, frozen=True, kw_only=True):
                id: int
                more: int
            """,
        ),
        (
            {"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
            """
            class Thing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
                a: int
            """,
        ),
    ],
)
def test_an_object_is_a_struct(imported, schema, expected):
    schemas = {
        "Thing": {"type": "object", **schema},
        "Color": {"type": "string", "enum": ["red", "on-hold"]},
        "Level": {"type": "integer", "enum": [-1, 1]},
        "Base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    }
    answer = answering({"$ref": "#/components/schemas/Thing"})
    source = stub(documented({"/": {"get": {"operationId": "find", "responses": answer}}}, schemas))

    found = re.search(r"class Thing\((?s:.*?)\n(?=\n\n)", source)
    assert found is not None
    assert dedent(expected).lstrip() == found[0]
    imported(source)


@pytest.mark.parametrize(
    "discriminator",
    [
        {},
        {"discriminator": {"propertyName": "kind"}},
        {"discriminator": {"propertyName": "kind", "mapping": {"cat": "#/components/schemas/Cat", "dog": "Dog"}}},
    ],
)
def test_objects_with_a_tag_are_told_apart(imported, discriminator):
    def animal(kind: str) -> dict[str, Any]:
        properties = {"kind": {"type": "string", "const": kind}, f"is_{kind}": {"type": "boolean"}}
        return {"type": "object", "properties": properties, "required": ["kind"]}

    references = [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]
    schema = {"oneOf": references, **discriminator}
    source = stub(
        documented(
            {"/": {"get": {"operationId": "find", "responses": answering(schema)}}},
            {"Cat": animal("cat"), "Dog": animal("dog")},
        )
    )

    module = imported(source)
    decode = describe(module.PetShop).operations["find"].decode_result
    assert "-> Cat | Dog" in source
    assert module.Dog(is_dog=True) == decode(b'{"kind": "dog", "is_dog": true}')


def test_a_discriminator_without_a_mapping_has_the_schemas_names_as_values(imported):
    def animal() -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}

    schema = {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
        "discriminator": {"propertyName": "kind"},
    }
    module = imported(
        stub(
            documented(
                {"/": {"get": {"operationId": "find", "responses": answering(schema)}}},
                {"Cat": animal(), "Dog": animal()},
            )
        )
    )

    assert module.Dog() == describe(module.PetShop).operations["find"].decode_result(b'{"kind": "Dog"}')


# -- operations of others


@pytest.mark.parametrize(
    ("path", "method", "operation", "expected"),
    [
        (
            "/a",
            "get",
            taking(operationId="listPets"),
            """
            @get("/a")
            async def list_pets(self) -> None: ...
            """,
        ),
        (
            "/a/{x}",
            "get",
            taking(),
            """
            @get("/a/<x>")
            async def get_a_x(self, x: str) -> None: ...
            """,
        ),
        (
            "/items/{item_id}",
            "get",
            taking(
                operationId="read_item_items__item_id__get",
                parameters=[{"name": "item_id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            ),
            """
            @get("/items/<item_id>")
            async def read_item(self, item_id: int) -> None: ...
            """,
        ),
        (
            "/a/{item-id}",
            "post",
            taking(
                operationId="go",
                summary="Go there.",
                parameters=[
                    {"name": "item-id", "in": "path", "required": True, "schema": {"type": "integer"}},
                    {"name": "page[size]", "in": "query", "schema": {"type": "integer", "default": 5}},
                    {"name": "q", "in": "query", "required": True, "schema": {"type": "string"}},
                    {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                ],
            ),
            '''
            @post("/a/<item_id>")
            async def go(
                self,
                item_id: int,
                q: str,
                page_size: Annotated[int, Query("page[size]")] = 5,
                tags: Annotated[list[str] | None, Query] = None,
            ) -> None:
                """Go there."""
            ''',
        ),
        (
            "/a",
            "get",
            taking(
                operationId="go",
                parameters=[
                    {"name": "X-Token", "in": "header", "schema": {"type": "string"}},
                    {"name": "sid", "in": "cookie", "schema": {"type": "string"}},
                    {"name": "Accept", "in": "header", "required": True, "schema": {"type": "string"}},
                    {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                    {"name": "ids", "in": "query", "explode": False, "schema": {"type": "array", "items": {}}},
                    {"name": "where", "in": "query", "content": {"application/json": {}}},
                    {"name": "any", "in": "query", "schema": {"title": "Any"}},
                    {
                        "name": "span",
                        "in": "query",
                        "schema": {"type": "object", "properties": {"low": {"type": "integer"}}},
                    },
                ],
            ),
            """
            # Not sent: the header X-Token.
            # Not sent: the cookie sid.
            # Not sent: the query parameter filter, in the style deepObject.
            # Not sent: the query parameter ids, in the style form.
            # Not sent: the query parameter where, as application/json.
            @get("/a")
            async def go(self, any: str | None = None, span: Annotated[GoSpan | None, Query] = None) -> None: ...
            """,
        ),
        (
            "/a",
            "get",
            taking(
                operationId="go",
                parameters=[{"name": "X-Key", "in": "header", "required": True, "schema": {"type": "string"}}],
            ),
            """
            # Not on the client: it cannot do without the header X-Key.
            @get("/a")
            async def go(self, x_key: Annotated[str, Header]) -> None: ...
            """,
        ),
        (
            "/a",
            "put",
            taking(
                operationId="go",
                requestBody={
                    "required": True,
                    "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            ),
            """
            @put("/a")
            async def go(self, pet: Pet) -> None: ...
            """,
        ),
        (
            "/a",
            "put",
            taking(operationId="go", requestBody={"content": {"application/json": {"schema": {"type": "object"}}}}),
            """
            @put("/a")
            async def go(self, body: dict[str, Any] = ...) -> None: ...
            """,
        ),
        (
            "/a",
            "put",
            taking(
                operationId="go",
                requestBody={"required": True, "content": {"application/json": {"schema": {"type": "integer"}}}},
            ),
            """
            # Its body is int.
            @put("/a")
            async def go(self, body: Any) -> None: ...
            """,
        ),
        (
            "/a",
            "post",
            taking(
                operationId="go",
                requestBody={
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {"schema": {"properties": {"a": {"type": "integer"}}}}
                    },
                },
            ),
            """
            @post("/a")
            async def go(self, form: Annotated[GoForm, Form]) -> None: ...
            """,
        ),
        (
            "/a",
            "post",
            taking(
                operationId="go",
                requestBody={
                    "required": True,
                    "content": {
                        "multipart/form-data": {
                            "schema": {
                                "properties": {
                                    "photo": {"type": "string", "format": "binary"},
                                    "title": {"type": "string"},
                                },
                                "required": ["photo"],
                            }
                        }
                    },
                },
            ),
            """
            # Not on the client: it cannot do without a file.
            @post("/a")
            async def go(self, photo: Upload, form: Annotated[GoForm, Form]) -> None: ...
            """,
        ),
        (
            "/a",
            "get",
            {"operationId": "go", "responses": {"200": {"description": "", "content": {"text/html": {}}}}},
            """
            @get("/a")
            async def go(self) -> Response: ...
            """,
        ),
        (
            "/a",
            "get",
            {"operationId": "go", "responses": {"2XX": answering({"type": "integer"})["200"]}},
            """
            @get("/a")
            async def go(self) -> int: ...
            """,
        ),
        (
            "/a",
            "get",
            {"operationId": "go", "responses": {"default": answering({"type": "integer"})["200"]}},
            """
            @get("/a")
            async def go(self) -> int: ...
            """,
        ),
        (
            "/a",
            "post",
            {"operationId": "go", "responses": {"204": {}, "202": answering({"type": "integer"})["200"]}},
            """
            @post("/a", status=202)
            async def go(self) -> int: ...
            """,
        ),
        (
            "/a",
            "post",
            {"operationId": "go", "responses": {"302": {"description": "Found"}}},
            """
            @post("/a", status=302)
            async def go(self) -> Response: ...
            """,
        ),
        (
            "/a",
            "get",
            {
                "operationId": "go",
                "responses": {"200": {"description": "", "content": {"application/x-ndjson": {"schema": {}}}}},
            },
            """
            @get("/a")
            async def go(self) -> AsyncIterator[Any]: ...
            """,
        ),
        (
            "/a",
            "get",
            {"operationId": "go", "responses": {"200": {"description": "", "content": {"text/event-stream": {}}}}},
            """
            @get("/a")
            async def go(self) -> AsyncIterator[bytes]: ...
            """,
        ),
        (
            "/a",
            "get",
            {"operationId": "go", "responses": {"204": {}, "404": {}, "409": {}, "500": {}, "default": {}}},
            """
            @get("/a", raises=(NotFound, Conflict))
            async def go(self) -> None: ...
            """,
        ),
    ],
)
def test_an_operation_of_others_is_a_method(imported, path, method, operation, expected):
    schemas = {"Pet": {"type": "object", "properties": {"name": {"type": "string"}}}}
    source = stub(documented({path: {method: operation}}, schemas))

    assert dedent(expected) == dedent(contract(source))
    imported(source)


@pytest.mark.parametrize(
    ("path", "method", "operation", "expected"),
    [
        ("/a", "head", taking(), "Left out: HEAD /a; a contract has no such operation."),
        (
            "/a",
            "delete",
            taking(
                operationId="go",
                requestBody={"required": True, "content": {"application/json": {"schema": {}}}},
            ),
            "Left out: go, DELETE /a; a DELETE request has no body here.",
        ),
        (
            "/a",
            "post",
            taking(operationId="go", requestBody={"required": True, "content": {"text/csv": {}}}),
            "Left out: go, POST /a; its body is text/csv, and a contract has JSON and forms.",
        ),
        (
            "/a",
            "get",
            taking(
                operationId="go",
                parameters=[
                    {
                        "name": "ids",
                        "in": "query",
                        "required": True,
                        "style": "pipeDelimited",
                        "schema": {"type": "array"},
                    }
                ],
            ),
            "Left out: go, GET /a; it needs the query parameter ids, in the style pipeDelimited.",
        ),
        (
            "/a",
            "get",
            taking(
                operationId="go",
                parameters=[{"name": "where", "in": "query", "required": True, "schema": {"type": "object"}}],
            ),
            "Left out: go, GET /a; it needs the query parameter where, which is no text.",
        ),
        (
            "/a",
            "post",
            taking(
                operationId="go",
                requestBody={
                    "required": True,
                    "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}},
                },
            ),
            "Left out: go, POST /a; its form has fields that are no text, or none at all.",
        ),
    ],
)
def test_what_a_contract_cannot_say_is_left_out_and_said(imported, path, method, operation, expected):
    source = stub(documented({path: {method: operation}}))

    assert f"\n    # {expected}\n" == contract(source)
    imported(source)


def test_parameters_and_answers_are_followed_to_where_they_stand():
    source = stub(
        documented(
            {
                "/a/{id}": {
                    "parameters": [{"$ref": "#/components/parameters/Id"}],
                    "get": {"operationId": "go", "responses": {"200": {"$ref": "#/components/responses/Number"}}},
                }
            },
            components={
                "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
                "responses": {"Number": answering({"type": "integer"})["200"]},
            },
        )
    )

    assert '\n    @get("/a/<id>")\n    async def go(self, id: int) -> int: ...\n' == contract(source)


def test_names_that_would_be_one_stay_two(imported):
    paths = {
        "/a": {"get": taking(operationId="find_a_get"), "post": taking(operationId="find_a_post")},
        "/b": {"get": taking(operationId="class"), "post": taking(operationId="Class")},
    }

    operations = describe(imported(stub(documented(paths))).PetShop).operations

    assert ["find_a_get", "find_a_post", "class_", "class__"] == list(operations)


def test_problems_of_others_are_errors_of_the_contract(imported):
    def problem(schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": "", "content": {"application/problem+json": {"schema": schema}}}

    source = stub(
        documented(
            {
                "/a": {
                    "post": taking(
                        operationId="go",
                        responses={
                            "204": {},
                            "404": problem({"$ref": "#/components/schemas/Problem"}),
                            "409": problem({"$ref": "#/components/schemas/OutOfStock"}),
                            "410": problem({"properties": {"type": {"enum": ["https://shop.example/recalled"]}}}),
                        },
                    )
                }
            },
            {
                "Problem": {"type": "object", "properties": {"type": {"type": "string"}}},
                "OutOfStock": {
                    "title": "Out of stock",
                    "description": "There are none left.",
                    "allOf": [{"$ref": "#/components/schemas/Problem"}],
                    "properties": {"type": {"const": "https://shop.example/out-of-stock"}},
                },
            },
        )
    )

    module = imported(source)
    raises = describe(module.PetShop).operations["go"].raises
    assert [
        ("NotFound", "urn:ropewalk:problem:not-found", 404, "Not found"),
        ("OutOfStock", "https://shop.example/out-of-stock", 409, "Out of stock"),
        ("Recalled", "https://shop.example/recalled", 410, "Recalled"),
    ] == [(error.__name__, error.type, error.status, error.title) for error in raises]
    assert "Raised when there are none left." == module.OutOfStock.__doc__


@pytest.mark.parametrize(
    ("title", "version", "expected"),
    [
        ("Pet Shop", "1.4", ("PetShop", "pet-shop", "1.4.0")),
        ("FastAPI", "0.1.0", ("FastAPI", "fast-api", "0.1.0")),
        ("3 pets!", "v2", ("_3Pets", "service-3-pets", "2.0.0")),
        ("Contract", "", ("ContractContract", "contract", "1.0.0")),
        ("été", "1.2.3.4", ("T", "t", "1.2.3.4")),
    ],
)
def test_the_contract_is_named_by_its_title(imported, title, version, expected):
    source = stub(documented({}, info={"title": title, "version": version}))

    name, service, exact = expected
    description = describe(getattr(imported(source), name))
    assert (service, exact) == (description.name, description.version)


def test_the_class_may_be_given_another_name():
    assert "class Shop(Contract, name=" in stub(documented({}), "Shop")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"swagger": "2.0"}, 'A stub is made of an OpenAPI 3 document ("openapi": "3.1.0"); got None.'),
        (
            documented({"/": {"get": {"responses": answering({"$ref": "pets.yaml#/Pet"})}}}),
            "pets.yaml#/Pet lies outside of the document; bundle it first, so that it is in one file.",
        ),
        (
            documented({"/": {"get": {"responses": answering({"$ref": "#/components/schemas/Pet"})}}}),
            "The document refers to #/components/schemas/Pet, and there is no 'Pet' there.",
        ),
        (
            documented({"/": {"get": {"responses": answering({"$ref": "#/components/schemas/A"})}}})
            | {"components": {"schemas": {"A": {"$ref": "#/components/schemas/A"}}}},
            "The reference #/components/schemas/A leads back to itself.",
        ),
    ],
)
def test_what_is_no_whole_document_is_refused(document, message):
    with pytest.raises(ConfigurationError) as caught:
        stub(document)

    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"openapi": "3.1.0"}', {"openapi": "3.1.0"}),
        (b"openapi: 3.0.3\npaths: {/: {get: {responses: {200: {}}}}}", {
            "openapi": "3.0.3",
            "paths": {"/": {"get": {"responses": {"200": {}}}}},
        }),
        (b"day: 2027-05-01", {"day": "2027-05-01"}),
    ],
)  # fmt: skip
def test_a_document_is_read_from_json_or_yaml(require, text, expected):
    require("yaml", importlib.util.find_spec("yaml"), "PyYAML is not installed")

    assert expected == read(text)


@pytest.mark.parametrize("text", [b"[1]", b"a: b: c", b"\xff"])
def test_what_is_no_document_cannot_be_read(require, text):
    require("yaml", importlib.util.find_spec("yaml"), "PyYAML is not installed")

    with pytest.raises(ConfigurationError):
        read(text)


# -- whatever there is

NAMES = st.sampled_from(
    ["a", "date", "list", "class", "item-id", "Struct", "kind", "type", "_x", "1st", "é", "", "self"]
)
LEAVES = st.sampled_from(
    [
        *({}, True, {"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "null"}, {"const": "x"}),
        *({"enum": ["a", None, 1]}, {"enum": []}, {"type": "integer", "enum": [1, 2]}, {"type": ["integer", "null"]}),
        *({"type": "string", "format": "date"}, {"type": "string", "format": "binary"}, {"type": "array"}),
        *({"type": "string", "pattern": "(", "description": 'x"""\\'}, {"type": "object"}, {"type": "boolean"}),
        *(
            {"$ref": "#/components/schemas/A"},
            {"$ref": "#/components/schemas/B"},
            {"$ref": "#/components/schemas/date"},
        ),
    ]
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(
            lambda properties, needed: {"properties": properties, "required": sorted(needed & set(properties))},
            st.dictionaries(NAMES, inner, max_size=4),
            st.sets(NAMES),
        ),
        st.builds(lambda items, unique: {"type": "array", "items": items, "uniqueItems": unique}, inner, st.booleans()),
        st.builds(lambda items: {"type": "array", "prefixItems": items, "minItems": 2}, several),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner),
        st.builds(lambda parts, word: {word: parts}, several, st.sampled_from(["anyOf", "oneOf", "allOf"])),
        st.builds(lambda parts: {"oneOf": parts, "discriminator": {"propertyName": "kind"}}, several),
        st.builds(
            lambda schema, default: {**schema, "default": default} if isinstance(schema, dict) else schema,
            inner,
            st.sampled_from([None, 1, "a", "'\"\\", [], {}, ["a"], {"a": 1}, True, 1.5]),
        ),
    )


SCHEMAS = st.recursive(LEAVES, larger, max_leaves=8)
MEDIA = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
PARAMETERS = st.builds(
    lambda name, place, schema, required: {
        "name": name,
        "in": place,
        "schema": schema,
        "required": required or place == "path",
    },
    NAMES,
    st.sampled_from(["query", "path", "header", "cookie"]),
    SCHEMAS,
    st.booleans(),
)
OPERATIONS = st.builds(
    lambda name, parameters, body, media, required, answer, status: {
        "operationId": name,
        "parameters": parameters,
        "requestBody": {"required": required, "content": {media: {"schema": body}}},
        "responses": {status: {"description": "", "content": {"application/json": {"schema": answer}}}},
    },
    NAMES,
    st.lists(PARAMETERS, max_size=3),
    SCHEMAS,
    MEDIA,
    st.booleans(),
    SCHEMAS,
    st.sampled_from(["200", "201", "204", "302", "404", "default"]),
)


@pytest.mark.slow
@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    paths=st.dictionaries(
        st.sampled_from(["/", "/a/{a}", "/a/{item-id}/x", "/{a}/{date}", "x#y", "/{a}/{a}"]),
        st.dictionaries(st.sampled_from(["get", "post", "put", "head"]), OPERATIONS, max_size=3),
        max_size=3,
    ),
    a=SCHEMAS,
    b=SCHEMAS,
)
def test_whatever_a_document_holds_its_stub_is_a_contract(paths, a, b):
    schemas = {"A": a, "B": b, "date": {"properties": {"date": {"type": "string", "format": "date"}}}}
    module = ModuleType("generated")
    sys.modules["generated"] = module

    try:
        exec(stub(documented(paths, schemas)), vars(module))
        assert "pet-shop" == describe(module.PetShop).name
    except ConfigurationError:  # a reference that leads back to itself
        assert {"$ref": "#/components/schemas/A"} in (a, b) or {"$ref": "#/components/schemas/B"} in (a, b)
    finally:
        del sys.modules["generated"]


# -- form


def sources() -> dict[str, str]:
    """Stubs of very different documents, by file name."""
    words = [f"a-rather-long-alternative-{n}" for n in range(9)]
    long = {
        "type": "object",
        "properties": {
            "choices": {"enum": words},
            "list_of_choices": {"type": "array", "items": {"enum": words[:3]}},
            "some": {"type": "array", "items": {"enum": words[:3]}, "minItems": 1, "default": words[:1]},
            "nearly_too_long_for_a_line_of_code": {"anyOf": [{"enum": words[:2]}, {"type": "integer", "minimum": 10}]},
            "just_a_little_longer_than_one_line": {
                "enum": [words[0], words[1], "an-even-longer-one"],
                "default": words[0],
            },
            "a_name_and_its_default_do_not_fit_into_one_line": {"type": "string", "default": "x" * 60},
            "pattern": {"type": "string", "pattern": "^" + "[a-z]{1,3}" * 12 + "$", "description": "word " * 60},
        },
        "required": ["choices"],
    }
    parameters = [{"name": f"parameter_{n}", "in": "query", "schema": long["properties"][name]}
                  for n, name in enumerate(long["properties"])]  # fmt: skip
    return {
        "ours.py": stub(document(describe(Hotels))),
        "long.py": stub(
            documented(
                {
                    f"/{'segment/' * 12}": {
                        "get": {
                            "operationId": "one",
                            "parameters": parameters,
                            "responses": {
                                "404": {}, "409": {}, "422": {}, "429": {}, "403": {}, "401": {}, "400": {}, "410": {},
                                **answering({"items": {"anyOf": [{"enum": words}, {"type": "integer"}]}}),
                            },
                        }
                    }
                },
                {"Long": long},
            )
            | {"components": {"schemas": {"Long": long}}}
        ),
        "fastapi.py": stub(shop().openapi()),
        "empty.py": stub(documented({})),
    }  # fmt: skip


def test_the_source_is_formatted(require, tmp_path):
    require("ruff", importlib.util.find_spec("ruff"), "ruff is not installed; it comes with ropewalk[dev]")
    for name, source in sources().items():
        (tmp_path / name).write_text(source)

    ruff = [sys.executable, "-m", "ruff"]
    isolated = ["--isolated", "--no-cache", "--line-length", "120", str(tmp_path)]
    formatted = subprocess.run([*ruff, "format", "--diff", *isolated], capture_output=True, text=True, cwd=tmp_path)
    checked = subprocess.run(
        [*ruff, "check", "--select", "E4,E7,E9,F,I,W,UP,PIE", *isolated], capture_output=True, text=True, cwd=tmp_path
    )

    assert "" == formatted.stdout
    assert (0, "All checks passed!\n") == (checked.returncode, checked.stdout)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_source_is_typed(require, tmp_path):
    require("mypy", importlib.util.find_spec("mypy"), "mypy is not installed; it comes with ropewalk[dev]")
    for name, source in sources().items():
        (tmp_path / name).write_text(source)

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path), *sources()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(CHECKOUT / "src")},
    )

    assert "Success: no issues found in 4 source files\n" == checked.stdout


# -- a service of another framework


def shop() -> Any:
    """A FastAPI application as one finds them."""
    from fastapi import Body, FastAPI, HTTPException
    from fastapi import Header as FastHeader
    from fastapi import Query as FastQuery
    from fastapi.responses import PlainTextResponse
    from pydantic import BaseModel, Field

    class Size(StrEnum):
        SMALL = "small"
        EXTRA_LARGE = "extra-large"

    class Image(BaseModel):
        url: str
        width: int = Field(gt=0, le=10_000)
        alt: str | None = None

    class Kitten(BaseModel):
        kind: Literal["cat"]
        lives: int = 9

    class Puppy(BaseModel):
        kind: Literal["dog"]
        barks: bool

    class Item(BaseModel):
        """An item of the shop."""

        name: str = Field(min_length=1, max_length=50, description="What it is called.")
        price: float
        size: Size = Size.SMALL
        images: list[Image] = []
        tags: set[str] = set()
        attributes: dict[str, int] = {}
        pet: Annotated[Kitten | Puppy, Field(discriminator="kind")] | None = None
        either: int | str = 0
        made: date | None = None
        within: Item | None = None
        class_: str = Field("plain", alias="class")

    class Stored(Item):
        id: UUID
        created: datetime

    for model in (Item, Stored):
        model.model_rebuild(_types_namespace=locals() | globals())
    app = FastAPI(title="Shop of Things", version="1.2")
    stored: dict[UUID, Any] = {}
    # Annotations are texts here, and FastAPI looks for what they name in the module.
    local = {"item": Item, "UUID": UUID}

    def annotated(**types: Any) -> Callable[[Any], Any]:
        def annotate(function: Any) -> Any:
            function.__annotations__ = types
            return function

        return annotate

    @app.post("/items", status_code=201, response_model=Stored)
    @annotated(item=Item)
    async def create_item(item):
        id = UUID(int=len(stored) + 1)
        stored[id] = Stored(**item.model_dump(by_alias=True), id=id, created=datetime(2027, 5, 1, 12, 30))
        return stored[id]

    @app.get("/items/{item_id}", response_model=Stored, responses={404: {"description": "There is none."}})
    @annotated(item_id=UUID, x_token=Annotated[str | None, FastHeader()])
    async def read_item(item_id, x_token=None):
        """Read one item."""
        if item_id not in stored:
            raise HTTPException(404, "There is no such item.")
        return stored[item_id]

    @app.get("/items", response_model=list[Stored])
    @annotated(
        q=str | None,
        limit=Annotated[int, FastQuery(ge=1, le=100)],
        size=Annotated[list[Size], FastQuery()],
        since=date | None,
        page_size=Annotated[int, FastQuery(alias="page-size")],
    )
    async def list_items(q=None, limit=10, size=(), since=None, page_size=5):
        found = [item for item in stored.values() if (not size or item.size in size) and (q or "") in item.name]
        return [item for item in found if since is None or (item.made or since) >= since][: min(limit, page_size)]

    @app.put("/items/{item_id}/pet", response_model=Kitten | Puppy)
    @annotated(item_id=UUID, pet=Annotated[Kitten | Puppy, Body(discriminator="kind")])
    async def set_pet(item_id, pet):
        return pet

    @app.delete("/items/{item_id}", status_code=204)
    @annotated(item_id=UUID)
    async def delete_item(item_id):
        stored.pop(item_id, None)

    @app.get("/text/{file_path:path}", response_class=PlainTextResponse)
    @annotated(file_path=str)
    async def read_text(file_path):
        return file_path

    @app.get("/secret")
    @annotated(x_key=Annotated[str, FastHeader()])
    async def secret(x_key):
        return x_key

    del local
    return app


@pytest.fixture
def shop_url() -> Iterator[str]:
    """The shop, served by uvicorn in a thread of its own."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(shop(), log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Listening already: whoever connects before uvicorn runs waits in the backlog.
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_fastapi_application_is_called_like_a_sibling(imported, shop_url, running):
    module = imported(stub(json.loads(json.dumps(shop().openapi()))))
    things = module.ShopOfThings
    pool = Pool(running)
    connection = HTTPConnection(pool, shop_url, "shop-of-things", 1, running.seconds)
    client = client_of(things, connection)
    lamp = module.ItemInput(
        name="Lamp",
        price=9.5,
        size=module.Size.EXTRA_LARGE,
        images=[module.Image(url="/lamp.png", width=200, alt="A lamp")],
        tags={"light"},
        attributes={"watts": 7},
        pet=module.Puppy(barks=True),
        made=date(2027, 4, 30),
        within=module.ItemInput(name="Box", price=1),
        class_="fragile",
    )

    try:
        stored = await client.create_item(lamp)
        found = await client.read_item(stored.id)
        several = await client.list_items(
            q="am", limit=3, size=[module.Size.EXTRA_LARGE], since=date(2027, 1, 1), page_size=2
        )
        nothing = await client.list_items(size=[module.Size.SMALL])
        pet = await client.set_pet(stored.id, module.Kitten(lives=3))
        text = await client.read_text("a/b c")
        gone = await client.delete_item(stored.id)
        with pytest.raises(NotFound):
            await client.read_item(stored.id)
        with pytest.raises(Unprocessable):
            await client.create_item(module.ItemInput(name="", price=1))
    finally:
        await pool.close()

    assert stored == found
    assert ("Lamp", module.Size.EXTRA_LARGE, module.Puppy(barks=True), "fragile") == (
        stored.name,
        stored.size,
        stored.pet,
        stored.class_,
    )
    assert (UUID(int=1), datetime(2027, 5, 1, 12, 30), date(2027, 4, 30)) == (stored.id, stored.created, stored.made)
    assert "Box" == stored.within.name
    assert [stored] == several
    assert [] == nothing
    assert module.Kitten(lives=3) == pet
    assert b"a/b c" == text.body
    assert gone is None
    with pytest.raises(AttributeError, match="'secret'"):
        _ = client.secret
