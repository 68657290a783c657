"""What `explain` finds and how it says so; and, with generated types and values, that msgspec agrees."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from itertools import count
from operator import or_
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Required, TypedDict, TypeVar, Union
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct, inspect

from ropewalk.codec.explain import Wrong, describe, explain

# -- a hotel's types: one of each kind that has parts


class Currency(enum.Enum):
    EUR = "EUR"
    USD = "USD"


class Stay(Struct):
    arrival: date
    nights: Annotated[int, Meta(ge=1, le=30)]
    guests: list[Annotated[str, Meta(min_length=1)]] = []


class Booking(Struct, rename="camel", forbid_unknown_fields=True):
    stay: Stay
    paid_in: Currency
    remark: str | None = None


class Card(Struct, tag="card"):
    number: Annotated[str, Meta(pattern="^[0-9]+$")]


class Cash(Struct, tag="cash"):
    amount: Decimal


class Point(Struct, array_like=True):
    x: int
    y: int
    label: str = ""


class Opened(Struct, array_like=True, tag="opened"):
    door: int


class Closed(Struct, array_like=True, tag="closed"):
    door: int
    locked: bool


class Room(Struct):
    name: str
    beside: list[Room] = []


class Range(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is at most high")


@dataclass
class Address:
    street: str
    city: str = "Hamburg"

    def __post_init__(self) -> None:
        if self.street == self.city:
            raise ValueError("a street that is not the city")


@attrs.define
class Guest:
    name: str
    age: int = attrs.field(default=18, validator=attrs.validators.ge(18))


class Options(TypedDict, total=False):
    breakfast: bool
    floor: Required[int]


class Minibar(TypedDict):
    drinks: int
    snacks: NotRequired[int]


class Size(NamedTuple):
    width: int
    height: int
    depth: int = 1


T = TypeVar("T")


class Page(Struct, Generic[T]):
    items: list[T]
    next: str | None = None


EXAMPLES: dict[str, tuple[Any, Any, list[Wrong]]] = {
    "what fits": (
        {"arrival": "2026-05-01", "nights": 3, "unknown": 1},
        Stay,
        [],
    ),
    "every wrong field of a struct": (
        {"arrival": "tomorrow", "nights": 31, "guests": ["Ada", "", 3]},
        Stay,
        [
            Wrong("/arrival", "a date (YYYY-MM-DD)", '"tomorrow"'),
            Wrong("/nights", "an integer, at least 1 and at most 30", "31"),
            Wrong("/guests/1", "a string of at least 1 character", '""'),
            Wrong("/guests/2", "a string of at least 1 character", "3"),
        ],
    ),
    "the missing beside the wrong": (
        {"nights": None},
        Stay,
        [
            Wrong("/arrival", "a date (YYYY-MM-DD) (required)", "nothing"),
            Wrong("/nights", "an integer, at least 1 and at most 30", "null"),
        ],
    ),
    "a struct that is no object": ([1], Stay, [Wrong("", "an object", "[1]")]),
    "the names of JSON, and fields nobody knows": (
        {"stay": {"arrival": "2026-05-01"}, "paidIn": "GBP", "paid_in": "EUR"},
        Booking,
        [
            Wrong("/stay/nights", "an integer, at least 1 and at most 30 (required)", "nothing"),
            Wrong("/paidIn", "one of 'EUR', 'USD'", '"GBP"'),
            Wrong("/paid_in", "nothing of this name", '"EUR"'),
        ],
    ),
    "an optional struct": (
        {"nights": 1},
        Stay | None,
        [Wrong("/arrival", "a date (YYYY-MM-DD) (required)", "nothing")],
    ),
    "neither of two": (1, Stay | None, [Wrong("", "an object or null", "1")]),
    "the struct that the tag names": (
        {"type": "card", "number": "4a", "amount": 1},
        Card | Cash,
        [Wrong("/number", "a string that matches ^[0-9]+$", '"4a"')],
    ),
    "a tag that is missing": (
        {"amount": 1},
        Card | Cash,
        [Wrong("/type", "one of 'card', 'cash' (required)", "nothing")],
    ),
    "a tag that nobody has": ({"type": "gold"}, Card | Cash, [Wrong("/type", "one of 'card', 'cash'", '"gold"')]),
    "a tag beside the only one": (
        {"type": "gold", "number": 1},
        Card,
        [Wrong("/type", "'card'", '"gold"'), Wrong("/number", "a string that matches ^[0-9]+$", "1")],
    ),
    "no tag where there is no choice": ({"number": 1}, Card, [Wrong("/number", "a string that matches ^[0-9]+$", "1")]),
    "a struct as an array": (
        [1],
        Point,
        [Wrong("/1", "an integer (required)", "nothing")],
    ),
    "structs as arrays, told apart": (["closed", 7, 1, 2], Opened | Closed, [Wrong("/2", "true or false", "1")]),
    "an array without its tag": ([], Opened | Closed, [Wrong("/0", "one of 'opened', 'closed' (required)", "nothing")]),
    "an array or an object, each by its shape": (
        [[1, "2"], {"a": "2"}, None],
        list[list[int] | dict[str, int]],
        [
            Wrong("/0/1", "an integer", '"2"'),
            Wrong("/1/a", "an integer", '"2"'),
            Wrong("/2", "an array or an object", "null"),
        ],
    ),
    "a type within itself": (
        {"name": "1", "beside": [{"name": "2", "beside": [{"name": 3}, {}]}]},
        Room,
        [
            Wrong("/beside/0/beside/0/name", "a string", "3"),
            Wrong("/beside/0/beside/1/name", "a string (required)", "nothing"),
        ],
    ),
    "what a struct says of itself": (
        [{"low": 1, "high": 2}, {"low": 2, "high": 1}, {"low": "2", "high": 1}],
        list[Range],
        [Wrong("/1", "low is at most high", '{"low":2,"high":1}'), Wrong("/2/low", "an integer", '"2"')],
    ),
    "what a dataclass says of itself": (
        {"street": "Hamburg"},
        Address | None,
        [Wrong("", "a street that is not the city", '{"street":"Hamburg"}')],
    ),
    "a dataclass": (
        {"city": 1},
        Address,
        [Wrong("/street", "a string (required)", "nothing"), Wrong("/city", "a string", "1")],
    ),
    "what a validator of attrs says": (
        {"name": "Bo", "age": 3},
        Guest,
        [Wrong("", "'age' must be >= 18: 3", '{"name":"Bo","age":3}')],
    ),
    "an attrs class": (
        {"age": "3"},
        Guest,
        [Wrong("/name", "a string (required)", "nothing"), Wrong("/age", "an integer", '"3"')],
    ),
    "a typed dict, total or not": (
        [{"breakfast": 1}, {"snacks": "x"}],
        tuple[Options, Minibar],
        [
            Wrong("/0/breakfast", "true or false", "1"),
            Wrong("/0/floor", "an integer (required)", "nothing"),
            Wrong("/1/drinks", "an integer (required)", "nothing"),
            Wrong("/1/snacks", "an integer", '"x"'),
        ],
    ),
    "a named tuple": (
        ["1"],
        Size,
        [Wrong("/0", "an integer", '"1"'), Wrong("/1", "an integer (required)", "nothing")],
    ),
    "a named tuple that is too long": ([1, 2, 3, 4], Size, [Wrong("/3", "nothing of this name", "4")]),
    "a generic struct": ({"items": [1, "2"]}, Page[int], [Wrong("/items/1", "an integer", '"2"')]),
    "a tuple of fixed length": (
        [1, 2, 3],
        tuple[int, str],
        [Wrong("/1", "a string", "2"), Wrong("/2", "nothing of this name", "3")],
    ),
    "a tuple of any length": ([1, "2"], tuple[int, ...], [Wrong("/1", "an integer", '"2"')]),
    "a list too short, with a wrong item": (
        ["1"],
        Annotated[list[int], Meta(min_length=2)],
        [Wrong("", "an array of at least 2 items", '["1"]'), Wrong("/0", "an integer", '"1"')],
    ),
    "a set that is smaller than it looks": (
        [1, 1],
        Annotated[set[int], Meta(min_length=2)],
        [Wrong("", "an array of at least 2 distinct items", "[1,1]")],
    ),
    "wrong items of a set": ([{}, 1], set[int], [Wrong("/0", "an integer", "{}")]),
    "items that no set can hold": ([[1]], set[Any], [Wrong("", "an array", "[[1]]")]),
    "names and values of a dict": (
        {"1": "a", "one": "b", "2": 3},
        dict[int, str],
        [Wrong("/one", "an integer as its name", '"one"'), Wrong("/2", "a string", "3")],
    ),
    "a dict with too many members": (
        {"a": 1, "b": "2"},
        Annotated[dict[str, int], Meta(max_length=1)],
        [Wrong("", "an object of at most 1 member", '{"a":1,"b":"2"}'), Wrong("/b", "an integer", '"2"')],
    ),
    "names that need escaping": ({"a/b": {"~": 1}}, dict[str, dict[str, str]], [Wrong("/a~1b/~0", "a string", "1")]),
    "a long value": ("x" * 100, int, [Wrong("", "an integer", '"' + "x" * 78 + "…")]),
    "a number for the root": (1.5, int, [Wrong("", "an integer", "1.5")]),
    "anything goes": ({"a": [1, None]}, dict[str, Any], []),
    "raw JSON goes": ({"a": [1, None]}, dict[str, msgspec.Raw], []),
    "integers of any size": ([10**30, 2.0], list[int], [Wrong("/1", "an integer", "2.0")]),
    "titles do not hide the type": (
        {"stay": {"nights": 0, "arrival": "2026-05-01"}},
        dict[str, Annotated[Stay | None, Meta(title="A stay", description="of somebody")]],
        [Wrong("/stay/nights", "an integer, at least 1 and at most 30", "0")],
    ),
}


@pytest.mark.parametrize(("value", "type", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_every_wrong_place_is_named(value: Any, type: Any, expected: list[Wrong]) -> None:
    assert expected == explain(value, type)


LAX_EXAMPLES: dict[str, tuple[Any, Any, list[Wrong]]] = {
    "strings that fit": ({"arrival": "2026-05-01", "nights": "3"}, Stay, []),
    "strings that do not": (
        {"arrival": "2026-05-01", "nights": "40", "guests": ["Ada", ""]},
        Stay,
        [
            Wrong("/nights", "an integer, at least 1 and at most 30", '"40"'),
            Wrong("/guests/1", "a string of at least 1 character", '""'),
        ],
    ),
    "true, null and numbers as text": (["true", "null", "1.5", "1"], list[bool | float | None], []),
    "half a surrogate pair": (["\ud800"], list[int], [Wrong("/0", "an integer", '"?"')]),
    "what a converter of the path made": (
        UUID(int=0),
        date,
        [Wrong("", "a date (YYYY-MM-DD)", '"00000000-0000-0000-0000-000000000000"')],
    ),
    "numbers as names": ({"1": 1, "x": 1}, dict[int, int], [Wrong("/x", "an integer as its name", '"x"')]),
}


@pytest.mark.parametrize(("value", "type", "expected"), LAX_EXAMPLES.values(), ids=LAX_EXAMPLES)
def test_strings_are_read_as_what_they_should_be_when_not_strict(value: Any, type: Any, expected: list[Wrong]) -> None:
    assert expected == explain(value, type, strict=False)


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        (int, "an integer"),
        (Annotated[int, Meta(gt=0, lt=10, multiple_of=3)], "an integer, more than 0, less than 10 and a multiple of 3"),
        (Annotated[float, Meta(ge=0.5)], "a number, at least 0.5"),
        (Annotated[int, Meta(ge=1)] | None, "an integer, at least 1, or null"),
        (bool | int | str, "true or false, an integer or a string"),
        (Annotated[str, Meta(max_length=1)], "a string of at most 1 character"),
        (Annotated[str, Meta(min_length=2, max_length=8)], "a string of at least 2 and at most 8 characters"),
        (
            Annotated[str, Meta(min_length=3, max_length=3, pattern="^[A-Z]")],
            "a string of exactly 3 characters that matches ^[A-Z]",
        ),
        (Annotated[bytes, Meta(max_length=10)], "a base64 string of at most 10 bytes"),
        (Annotated[list[int], Meta(min_length=1, max_length=11)], "an array of at least 1 and at most 11 items"),
        (Annotated[frozenset[str], Meta(max_length=3)], "an array of at most 3 distinct items"),
        (tuple[int, str], "an array of exactly 2 items"),
        (Annotated[dict[str, int], Meta(min_length=1)], "an object of at least 1 member"),
        (Point, "an array"),
        (Card | Cash | None, "an object or null"),
        (Literal["EUR", "USD"], "one of 'EUR', 'USD'"),
        (Literal["EUR"], "'EUR'"),
        (Literal[1, None, True], "one of null, true, 1"),
        (
            enum.IntEnum("Floor", [f"F{n}" for n in range(30)]),
            f"one of {', '.join(map(str, range(1, 21)))}, … (30 in all)",
        ),
        (datetime, "a date and time (RFC 3339)"),
        (Annotated[datetime, Meta(tz=True)], "a date and time (RFC 3339) with a time zone"),
        (Annotated[time, Meta(tz=False)], "a time (HH:MM:SS) without a time zone"),
        (timedelta, "a duration (ISO 8601)"),
        (Decimal, "a decimal number"),
        (UUID, "a UUID"),
        (Any, "anything"),
        (Annotated[date, Meta(description="of arrival")], "a date (YYYY-MM-DD)"),
        (dict, "an object"),
        (object, "a value of a custom type"),
    ],
)
def test_a_type_is_described_in_words(type: Any, expected: str) -> None:
    assert expected == describe(type)


def test_what_msgspec_does_not_support_is_no_fault_of_the_value() -> None:
    with pytest.raises(TypeError, match="more than one str-like type"):
        explain("a", str | date)


def test_the_first_hundred_are_enough() -> None:
    assert [f"/{n}" for n in range(100)] == [wrong.pointer for wrong in explain([None] * 1000, list[int])]


def test_below_a_depth_of_32_the_whole_is_wrong() -> None:
    deep: dict[str, Any] = {"name": 1}
    for _ in range(40):
        deep = {"name": "", "beside": [deep]}

    (wrong,) = explain(deep, Room)

    assert ("/beside/0" * 16, "an object") == (wrong.pointer, wrong.expected)


def test_nesting_that_the_stack_cannot_hold_is_told_as_such() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert [Wrong("", "a value that is nested less deeply", "…")] == explain([deep, 1], tuple[Any, str])


def test_a_wrong_item_is_found_among_many_without_asking_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = count()
    decode = msgspec.json.decode
    monkeypatch.setattr(msgspec.json, "decode", lambda text, **kwargs: (next(questions), decode(text, **kwargs))[1])

    wrongs = explain([*range(70_000), "x", *range(30_000)], list[int])

    assert [Wrong("/70000", "an integer", '"x"')] == wrongs
    assert next(questions) < 50


@pytest.mark.slow
def test_a_pattern_beside_an_array_does_not_bring_the_process_down() -> None:
    """msgspec 0.22 dies when it forgets such a union, so nothing here lets it; in a process that it may take along."""
    script = """if True:
        import os
        from typing import Annotated

        from msgspec import Meta, Struct

        from ropewalk.codec.explain import explain

        Word = Annotated[str, Meta(pattern="^a")]

        class Search(Struct):
            words: Word | list[Word]
            weights: Word | dict[str, int]

        for _ in range(1000):
            explain({"words": ["b"], "weights": {"a": "1"}}, Search)
            explain({"words": "b", "weights": 1}, Search, strict=False)
            wrongs = explain(["b"], Word | list[Word])
        print(*[wrong.pointer for wrong in wrongs], flush=True)
        os._exit(0)
    """
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-c", script], env=paths, capture_output=True, text=True, check=False)

    assert (0, "/0\n") == (done.returncode, done.stdout), done.stderr


# -- whatever the type and the value, msgspec agrees

LEAVES: list[Any] = [None, True, False, 0, 1, 2, -1, 10**30, 0.5, 1.0, -1.5, 1e300, "", "a", "ab", "null", "true", "1"]
LEAVES += ["1.5", "one", "2026-05-01", "2026-05-01T10:00:00Z", "2026-05-01T10:00:00", "10:00:00", "PT1H", "aGk="]
NAMES = st.sampled_from(["a", "b", "c", "A", "type", "1", "1.0", "one", "2026-05-01", "", "~/"])
JSON = st.recursive(
    st.sampled_from(LEAVES),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(NAMES, parts, max_size=3),
    max_leaves=6,
)
FITTING: dict[Any, list[Any]] = {  # some of what each leaf takes, so that not every value fails at once
    inspect.BoolType: [True, False],
    inspect.IntType: [0, 1, 2, 3, 10**30],
    inspect.FloatType: [0, 1.5, 1e300],
    inspect.StrType: ["", "a", "ab", "abc"],
    inspect.BytesType: ["", "aGk=", "aGkgaGk="],
    inspect.DateType: ["2026-05-01"],
    inspect.DateTimeType: ["2026-05-01T10:00:00Z", "2026-05-01T10:00:00"],
    inspect.TimeType: ["10:00:00Z", "10:00:00"],
    inspect.TimeDeltaType: ["PT1H", "P1D"],
    inspect.UUIDType: [str(UUID(int=1))],
    inspect.DecimalType: ["1.5", 1.5, 3],
}


class Word(enum.Enum):
    ONE = "one"
    TWO = "two"


class Digit(enum.IntEnum):
    ONE = 1
    TWO = 2


INTEGERS = st.sampled_from(
    [int, Annotated[int, Meta(ge=1, lt=3)], Annotated[int, Meta(gt=0, multiple_of=2)], Literal[1, 2], Digit]
)
FLOATS = st.sampled_from([float, Annotated[float, Meta(gt=0, le=2)]])
STRINGS = st.sampled_from(
    [str, Annotated[str, Meta(min_length=1, max_length=2)], Word, Literal["a", "one"], UUID, Decimal, bytes, date, time]
) | st.sampled_from([datetime, Annotated[datetime, Meta(tz=True)], Annotated[time, Meta(tz=False)], timedelta])
PATTERN = st.just(Annotated[str, Meta(pattern="^a")])
HASHABLE = INTEGERS | FLOATS | STRINGS | PATTERN
LENGTHS = st.sampled_from([Meta(), Meta(), Meta(min_length=1), Meta(max_length=1), Meta(min_length=2, max_length=2)])
Types = st.SearchStrategy[Any]


@st.composite
def structs(draw: st.DrawFn, /, types: Types, array_like: bool, **options: Any) -> Any:
    names = draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True))
    fields = [(name, draw(types), *draw(st.sampled_from([(), (None,)]))) for name in names]
    options = {
        "rename": draw(st.sampled_from([None, "upper"])),
        "tag": draw(st.sampled_from([None, "a", 1])),
        "forbid_unknown_fields": draw(st.booleans()),
        **options,
    }
    return msgspec.defstruct("S", fields, kw_only=True, array_like=array_like, **options)


@st.composite
def tagged(draw: st.DrawFn, /, types: Types, array_like: bool) -> Any:
    tags = draw(st.sampled_from([("a", "b"), (1, 2), ("a", "b", "c")]))
    return reduce(or_, [draw(structs(types, array_like, tag=tag)) for tag in tags])


@st.composite
def other_objects(draw: st.DrawFn, /, types: Types) -> Any:
    a, b = draw(types), draw(types)
    body = {"__annotations__": {"a": a, "b": b}, "b": None}
    kind = draw(st.sampled_from(["dataclass", "attrs", "typed dict"]))
    if kind == "dataclass":
        return dataclass(type("D", (), body))
    if kind == "attrs":
        return attrs.define(type("A", (), body))
    return TypedDict("T", {"a": a, "b": NotRequired[b]})  # type: ignore[operator]


def arrays(types: Types) -> Types:
    lists = types.map(lambda item: GenericAlias(list, (item,)))
    sets = HASHABLE.map(lambda item: GenericAlias(set, (item,)))
    tuples = types.map(lambda item: GenericAlias(tuple, (item, ...)))
    named = st.tuples(types, types).map(lambda items: NamedTuple("N", list(zip("ab", items, strict=True))))
    return with_length(lists | sets | tuples) | named | structs(types, True) | tagged(types, True)


def objects(types: Types) -> Types:
    dicts = st.tuples(HASHABLE, types).map(lambda parts: GenericAlias(dict, parts))
    return with_length(dicts) | structs(types, False) | tagged(types, False) | other_objects(types)


def with_length(types: Types) -> Types:
    return st.tuples(types, LENGTHS).map(lambda parts: Annotated[parts])


def unions(types: Types) -> Types:
    """With what msgspec 0.22 gets wrong left out: a pattern beside an array or a dict, limits beside a fixed tuple."""
    kinds = [st.just(None), st.just(bool), INTEGERS, FLOATS, STRINGS, arrays(types) | objects(types)]
    several = st.lists(st.sampled_from(kinds), min_size=2, max_size=4, unique_by=id)
    return several.flatmap(lambda members: st.tuples(*members)).map(lambda members: Union.__getitem__(members))


TYPES = st.recursive(
    HASHABLE | st.sampled_from([None, bool, Any, msgspec.Raw, set[Any], Room, Range, object]),
    lambda types: (
        arrays(types)
        | objects(types)
        | unions(types)
        | st.tuples(types, types).map(lambda items: GenericAlias(tuple, items))
    ),
    max_leaves=6,
)


@st.composite
def near(draw: st.DrawFn, info: Any, depth: int = 0) -> Any:
    """JSON that fits the type, but for a place here and there."""
    if depth > 5 or draw(st.integers(0, 9)) == 9:
        return draw(JSON)

    def part(info: Any) -> Any:
        return draw(near(info, depth + 1))

    match info:
        case inspect.UnionType(types=types):
            return part(draw(st.sampled_from(types)))
        case inspect.LiteralType(values=values):
            return draw(st.sampled_from(values))
        case inspect.EnumType(cls=cls):
            return draw(st.sampled_from([member.value for member in cls]))
        case inspect.TupleType(item_types=types):
            return [part(item) for item in types]
        case inspect.CollectionType(item_type=item):
            return [part(item) for _ in range(draw(st.integers(0, 3)))]
        case inspect.DictType(key_type=key, value_type=item):
            return {str(part(key)): part(item) for _ in range(draw(st.integers(0, 2)))}
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
            fields = [(field.encode_name, part(field.type)) for field in info.fields]
            if isinstance(info, inspect.StructType) and info.tag_field is not None:
                fields.insert(0, (info.tag_field, info.tag))
            if isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False):
                return [item for _, item in fields]
            return dict(fields)
    return draw(st.sampled_from(FITTING.get(type(info), LEAVES)))


TYPES_AND_VALUES = TYPES.flatmap(lambda type: st.tuples(st.just(type), near(inspect.type_info(type))))


def refuses(decode: Callable[[], object]) -> bool:
    try:
        decode()
    except (msgspec.ValidationError, TypeError):  # TypeError: an unhashable item of a set
        return True
    return False


def as_text(value: Any) -> Any:
    """As a query or a form would bring it."""
    if isinstance(value, dict):
        return {name: as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def stands(pointer: str, value: Any) -> bool:
    """Whether something stands there; fails when there is not even the place for it."""
    found = True
    for escaped in pointer.split("/")[1:]:
        assert found
        name = escaped.replace("~1", "/").replace("~0", "~")
        members = value if isinstance(value, dict) else {str(n): item for n, item in enumerate(value)}
        found = name in members
        value = members.get(name)
    return found


generated = settings(derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@generated
@given(TYPES_AND_VALUES)
def test_something_is_wrong_exactly_when_the_decoder_refuses(type_and_value: tuple[Any, Any]) -> None:
    type, value = type_and_value

    assert refuses(lambda: msgspec.json.decode(msgspec.json.encode(value), type=type)) == bool(explain(value, type))


@pytest.mark.slow
@generated
@given(TYPES_AND_VALUES, st.booleans())
def test_something_is_wrong_exactly_when_convert_refuses(type_and_value: tuple[Any, Any], text: bool) -> None:
    type, value = type_and_value
    value = as_text(value) if text else value

    assert refuses(lambda: msgspec.convert(value, type, strict=False)) == bool(explain(value, type, strict=False))


@pytest.mark.slow
@generated
@given(TYPES_AND_VALUES, st.booleans())
def test_a_pointer_leads_to_what_came_or_to_the_place_of_what_is_missing(
    type_and_value: tuple[Any, Any], strict: bool
) -> None:
    type, value = type_and_value

    for wrong in explain(value, type, strict=strict):
        assert stands(wrong.pointer, value) == (wrong.got != "nothing")


@pytest.mark.slow
@generated
@given(st.lists(st.sampled_from([1, "x"]), max_size=300))
def test_each_of_many_wrong_items_is_named(items: list[Any]) -> None:
    expected = [f"/{n}" for n, item in enumerate(items) if item == "x"]

    assert expected[:100] == [wrong.pointer for wrong in explain(items, list[int])]
