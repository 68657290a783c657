"""Types as JSON Schema: each kind, its limits and examples, what is named; and that a schema says what is read."""

from __future__ import annotations

import enum
import json
from collections import namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import UNSET, Meta, Struct, UnsetType, field

from ropewalk import Upload
from ropewalk.codec.schema import BINARY, Schemas

T = TypeVar("T")


class Color(enum.Enum):
    """What a room is painted in."""

    RED = "red"
    NIGHT_BLUE = "night-blue"


class Floor(enum.IntEnum):
    GROUND = 0
    ROOF = 9


class Room(Struct):
    """A room to let."""

    number: int
    color: Color = Color.RED


class Suite(Struct, forbid_unknown_fields=True):
    rooms: list[Room]
    above: Suite | None = None


class Cat(Struct, tag="cat"):
    lives: int = 9


class Dog(Struct, tag="dog"):
    name: str


class Page(Struct, Generic[T]):
    items: list[T]


class Point(Struct, array_like=True):
    x: int
    y: int = 0


@dataclass
class Guest:
    name: str
    vip: bool = False


class Address(TypedDict, total=False):
    city: str


class Span(NamedTuple):
    low: int
    high: int = 9


def described(type: Any) -> dict[str, Any]:
    """The schema of one type, which refers to nothing."""
    schemas = Schemas([type])
    assert schemas.components == {}
    return schemas.of(type)


def component(type: Any, name: str) -> dict[str, Any]:
    return Schemas([type]).components[name]


def decoded(type: Any, value: Any) -> bool:
    """Whether msgspec reads `value` as `type`."""
    try:
        msgspec.json.decode(json.dumps(value), type=type)
    except msgspec.ValidationError:
        return False
    return True


def valid(type: Any, value: Any) -> bool:
    """Whether the schema of `type` admits `value`."""
    schemas = Schemas([type])
    whole = {**schemas.of(type), "components": {"schemas": schemas.components}}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).is_valid(value)


# -- kinds


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        (Any, {}),
        (msgspec.Raw, {}),
        (None, {"type": "null"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (date, {"type": "string", "format": "date"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Annotated[datetime, Meta(tz=True)], {"type": "string", "format": "date-time"}),
        (Annotated[datetime, Meta(tz=False)], {"type": "string", "format": "date-time-local"}),
        (time, {"type": "string", "format": "time"}),
        (Annotated[time, Meta(tz=False)], {"type": "string", "format": "time-local"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Upload, BINARY),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Literal[1, None], {"enum": [None, 1]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list[Any], {"type": "array"}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (dict[str, Any], {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[UUID, Any], {"type": "object", "propertyNames": {"format": "uuid"}}),
        (int | str | None, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        (Annotated[int, Meta(ge=1, le=30)], {"type": "integer", "minimum": 1, "maximum": 30}),
        (
            Annotated[float, Meta(gt=0, lt=1, multiple_of=0.25)],
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.25},
        ),
        (
            Annotated[str, Meta(min_length=1, max_length=9, pattern="^a")],
            {"type": "string", "pattern": "^a", "minLength": 1, "maxLength": 9},
        ),
        (Annotated[list[int], Meta(min_length=1)], {"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        (Annotated[dict[str, Any], Meta(max_length=3)], {"type": "object", "maxProperties": 3}),
        (
            Annotated[date, Meta(title="Arrival", description="The first night.", examples=["2027-05-01"])],
            {
                "type": "string",
                "format": "date",
                "title": "Arrival",
                "description": "The first night.",
                "examples": ["2027-05-01"],
            },
        ),
        (Annotated[str, Meta(extra_json_schema={"format": "email"})], {"type": "string", "format": "email"}),
    ],
)
def test_each_kind_of_type_has_its_schema(type, expected):
    assert expected == described(type)


# -- what is named


@pytest.mark.parametrize(
    ("type", "name", "expected"),
    [
        (
            Color,
            "Color",
            {
                "title": "Color",
                "description": "What a room is painted in.",
                "type": "string",
                "enum": ["red", "night-blue"],
                "x-enum-varnames": ["RED", "NIGHT_BLUE"],
            },
        ),
        (
            Floor,
            "Floor",
            {"title": "Floor", "type": "integer", "enum": [0, 9], "x-enum-varnames": ["GROUND", "ROOF"]},
        ),
        (
            Room,
            "Room",
            {
                "title": "Room",
                "description": "A room to let.",
                "type": "object",
                "properties": {
                    "number": {"type": "integer"},
                    "color": {"$ref": "#/components/schemas/Color", "default": "red"},
                },
                "required": ["number"],
            },
        ),
        (
            Suite,
            "Suite",
            {
                "title": "Suite",
                "type": "object",
                "properties": {
                    "rooms": {"type": "array", "items": {"$ref": "#/components/schemas/Room"}},
                    "above": {"anyOf": [{"$ref": "#/components/schemas/Suite"}, {"type": "null"}], "default": None},
                },
                "required": ["rooms"],
                "additionalProperties": False,
            },
        ),
        (
            Cat,
            "Cat",
            {
                "title": "Cat",
                "type": "object",
                "properties": {"type": {"const": "cat"}, "lives": {"type": "integer", "default": 9}},
                "required": ["type"],
            },
        ),
        (
            Page[Room],
            "Page_Room",
            {
                "title": "Page[Room]",
                "type": "object",
                "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Room"}}},
                "required": ["items"],
            },
        ),
        (
            Point,
            "Point",
            {
                "title": "Point",
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "integer", "default": 0}],
                "minItems": 1,
            },
        ),
        (
            Span,
            "Span",
            {
                "title": "Span",
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "integer", "default": 9}],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
        (
            Guest,
            "Guest",
            {
                "title": "Guest",
                "type": "object",
                "properties": {"name": {"type": "string"}, "vip": {"type": "boolean", "default": False}},
                "required": ["name"],
            },
        ),
        (
            Address,
            "Address",
            {"title": "Address", "type": "object", "properties": {"city": {"type": "string"}}},
        ),
    ],
)
def test_each_class_is_a_component(type, name, expected):
    assert expected == component(type, name)


def test_what_is_named_is_referred_to_and_may_be_said_more_of():
    type = Annotated[Room, Meta(description="The best one.")]

    assert {"$ref": "#/components/schemas/Room", "description": "The best one."} == Schemas([type]).of(type)


def test_what_the_types_share_is_there_once_and_sorted():
    assert ["Color", "Room", "Suite"] == list(Schemas([Suite, list[Room], dict[str, Color]]).components)


def test_structs_are_told_apart_by_their_tags():
    told_apart = {
        "anyOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
        "discriminator": {
            "propertyName": "type",
            "mapping": {"cat": "#/components/schemas/Cat", "dog": "#/components/schemas/Dog"},
        },
    }

    assert told_apart == Schemas([Cat | Dog]).of(Cat | Dog)
    assert {"anyOf": [told_apart, {"type": "null"}]} == Schemas([Cat | Dog | None]).of(Cat | Dog | None)
    assert {"anyOf": [{"type": "integer"}, told_apart]} == Schemas([Cat | Dog | int]).of(Cat | Dog | int)


def test_a_field_says_what_is_taken_when_it_is_missing():
    class Plan(Struct):
        nights: int = 1
        tags: list[str] = []
        by_day: dict[str, int] = {}
        note: str | UnsetType = UNSET
        rolled: int = field(default_factory=lambda: 4)
        wire: int = field(name="wireName", default=7)
        size: tuple[int, ...] = (1, 2)
        room: Room = field(default_factory=lambda: Room(7))
        day: date = date(2027, 5, 1)

    assert {
        "nights": {"type": "integer", "default": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "by_day": {"type": "object", "additionalProperties": {"type": "integer"}, "default": {}},
        "note": {"type": "string"},
        "rolled": {"type": "integer"},
        "wireName": {"type": "integer", "default": 7},
        "size": {"type": "array", "items": {"type": "integer"}, "default": [1, 2]},
        "room": {"$ref": "#/components/schemas/Room"},
        "day": {"type": "string", "format": "date", "default": "2027-05-01"},
    } == component(Plan, "Plan")["properties"]


# -- names


def test_classes_of_one_name_are_told_apart_by_their_modules():
    here, there = Struct.__class__("Key", (Struct,), {"__module__": "hotel.rooms"}), namedtuple("Key", "a")
    there.__module__ = "hotel.safes"
    there.__annotations__ = {"a": int}

    assert ["hotel.rooms.Key", "hotel.safes.Key"] == list(Schemas([here, there]).components)


def test_classes_of_one_name_in_one_module_are_numbered_in_the_order_of_their_use():
    def made(field: str) -> Any:
        return msgspec.defstruct("Key", [(field, int)], module="hotel.rooms")

    first, second = made("a"), made("b")
    schemas = Schemas([first, second])

    assert {"hotel.rooms.Key.1": ["a"], "hotel.rooms.Key.2": ["b"]} == {
        name: schema["required"] for name, schema in schemas.components.items()
    }
    assert "#/components/schemas/hotel.rooms.Key.2" == schemas.of(second)["$ref"]


def test_a_generic_class_is_named_by_what_it_is_made_of():
    assert ["Page_Room", "Page_int", "Page_list_int", "Room"] == [
        name for name in Schemas([Page[int], Page[Room], Page[list[int]]]).components if name != "Color"
    ]


def test_the_same_types_give_the_same_schemas():
    first, second = Schemas([Suite, Cat | Dog]), Schemas([Suite, Cat | Dog])

    assert json.dumps(first.components) == json.dumps(second.components)


# -- a schema says what is read


@pytest.mark.parametrize(
    ("type", "read", "refused"),
    [
        (Decimal, ["1", "-1.50", "1e3", ".5", 12, 0.25], ["", "x", "1,5", True]),
        (timedelta, ["P1D", "PT1H3S", "-P2DT0.25S", "PT1M"], ["", "P", "PT", "P1W", "P1Y", "P1DT", "1h", 3]),
        (bytes, ["", "MTI=", "MTIz"], ["M", "MTI", "MT*=", 3]),
        (dict[int, str], [{}, {"1": "a", "-2": "b"}], [{"a": "b"}, {"01": "x"}, {"1.5": "x"}]),
        (dict[float, str], [{"1.5": "a", "-2": "b"}], [{"a": "b"}]),
        (dict[Color, int], [{"red": 1}], [{"green": 1}]),
        (Annotated[bytes, Meta(max_length=3)], ["MTIz"], ["MTIzNA=="]),
        (Suite, [{"rooms": []}, {"rooms": [], "above": {"rooms": []}}], [{}, {"rooms": [], "more": 1}]),
        (Point, [[1], [1, 2]], [[], ["a"], {"x": 1}]),
        (Cat | Dog, [{"type": "cat"}, {"type": "dog", "name": "Rex"}], [{"type": "cow"}, {"type": "dog"}, {}]),
        (tuple[int, str], [[1, "a"]], [[1], [1, "a", 2], ["a", 1]]),
    ],
)
def test_the_schema_admits_what_msgspec_reads_and_refuses_what_it_refuses(type, read, refused):
    assert [True] * len(read) == [decoded(type, value) for value in read]
    assert [True] * len(read) == [valid(type, value) for value in read]
    assert [False] * len(refused) == [decoded(type, value) for value in refused]
    assert [False] * len(refused) == [valid(type, value) for value in refused]
