"""A value of a declared type, drawn by chance: `example(type, random)` honours every constraint the type states."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as types_of

from ..codec.parameters import spelt

_TRIES = 100  # draws until the constraints hold, those that only the type itself knows included
_DEEP = 4  # nested so far, what may be left out is left out: a type may hold itself
_LETTERS = string.ascii_lowercase
_PRINTABLE = string.ascii_letters + string.digits + " -_.,:"
_SPAN = 1000  # the width of a range that is open


def example(type: Any, random: Random) -> Any:
    """A value of `type`, any that an operation may declare; what `Meta` says of it holds.

    Raises TypeError for a type without values to draw (a custom class), or whose constraints no draw has met.

    >>> from typing import Annotated
    >>> from msgspec import Meta
    >>> example(Annotated[str, Meta(pattern="^[A-Z][0-9]{2}$")], Random(3))
    'H59'
    >>> example(dict[date, Annotated[int, Meta(ge=1, le=3)]], Random(3))
    {datetime.date(2026, 2, 7): 3}
    """
    info = types_of.type_info(type)
    why: Exception | None = None
    for _ in range(_TRIES):
        try:
            return msgspec.convert(_draw(info, random, 0), type)
        except msgspec.ValidationError as error:
            why = error
    raise TypeError(f"No draw of {_TRIES} was a {spelt(type)}: {why}.") from why


def _draw(info: types_of.Type, random: Random, depth: int) -> Any:
    """A value that converts to the type, or nearly always does."""
    if isinstance(info, types_of.Metadata):
        return _draw(info.type, random, depth)
    draw = _DRAWN.get(type(info))
    if draw is None:
        kind = getattr(info, "cls", None) or type(info)
        raise TypeError(f"There is no example of {spelt(kind)}.")
    return draw(info, random, depth)


def _integer(info: types_of.IntType, random: Random, depth: int) -> int:
    low = info.ge if info.ge is not None else info.gt + 1 if info.gt is not None else None
    high = info.le if info.le is not None else info.lt - 1 if info.lt is not None else None
    step = info.multiple_of or 1
    first, last = _range(low, high, _SPAN * step)
    least, most = math.ceil(first / step), math.floor(last / step)
    if least > most:
        raise TypeError(f"No int is between {first} and {last} and a multiple of {step}.")
    return random.randint(least, most) * step


def _float(info: types_of.FloatType, random: Random, depth: int) -> float:
    low, high = info.ge if info.ge is not None else info.gt, info.le if info.le is not None else info.lt
    step = info.multiple_of
    first, last = _range(low, high, _SPAN * (step or 1))
    if step:
        return random.randint(math.ceil(first / step), math.floor(last / step)) * step
    value = random.uniform(first, last)
    short = round(value, 2)
    return short if first < short < last else value


def _range(low: Any, high: Any, span: Any) -> tuple[Any, Any]:
    """From zero on where that is allowed."""
    if low is None:
        low = 0 if high is None or high >= 0 else high - span
    return low, low + span if high is None else high


def _text(info: types_of.StrType, random: Random, depth: int) -> str:
    if info.pattern is not None:
        parsed = import_module("re._parser").parse(info.pattern)  # as `re` itself reads it; it has no public name
        return _matching(parsed, random, {})
    return "".join(random.choices(_LETTERS, k=_length(info, random, 1, 12)))


def _bytes(info: Any, random: Random, depth: int) -> bytes:
    return random.randbytes(_length(info, random, 0, 12))


def _length(info: Any, random: Random, least: int, more: int) -> int:
    low = max(info.min_length or 0, least) if info.max_length is None else min(info.max_length, least)
    low = max(low, info.min_length or 0)
    high = low + more
    return random.randint(low, high if info.max_length is None else min(high, info.max_length))


def _date(info: Any, random: Random, depth: int) -> date:
    return date(2020, 1, 1) + timedelta(days=random.randrange(3650))


def _time(info: types_of.TimeType, random: Random, depth: int) -> time:
    return _instant(info, random, depth).timetz()


def _instant(info: Any, random: Random, depth: int) -> datetime:
    naive = datetime(2020, 1, 1) + timedelta(seconds=random.randrange(315_360_000))
    return naive if info.tz is False else naive.replace(tzinfo=UTC)


def _items(info: Any, random: Random, depth: int) -> list[Any]:
    count = _length(info, random, 0, 0 if depth > _DEEP else 3)
    if not isinstance(info, (types_of.SetType, types_of.FrozenSetType)):
        return [_draw(info.item_type, random, depth + 1) for _ in range(count)]
    different: list[Any] = []  # no set: what is drawn for a frozen Struct is a dict
    for _ in range(_TRIES):
        if len(different) == count:
            break
        drawn = _draw(info.item_type, random, depth + 1)
        if drawn not in different:
            different.append(drawn)
    return different


def _mapping(info: Any, random: Random, depth: int) -> dict[Any, Any]:
    count = _length(info, random, 0, 0 if depth > _DEEP else 3)
    drawn: dict[Any, Any] = {}
    for _ in range(_TRIES):
        if len(drawn) == count:
            break
        drawn[_draw(info.key_type, random, depth + 1)] = _draw(info.value_type, random, depth + 1)
    return drawn


def _struct(info: types_of.StructType, random: Random, depth: int) -> Any:
    if info.array_like:
        tag = [info.tag] if info.tag_field is not None else []
        return tag + [_draw(field.type, random, depth + 1) for field in info.fields]
    tagged = {info.tag_field: info.tag} if info.tag_field is not None else {}
    return tagged | _named(info, random, depth)


def _named(info: Any, random: Random, depth: int) -> dict[str, Any]:
    return {
        field.encode_name: _draw(field.type, random, depth + 1)
        for field in info.fields
        if field.required or depth <= _DEEP
    }


def _union(info: types_of.UnionType, random: Random, depth: int) -> Any:
    members = info.types
    if depth > _DEEP:
        members = tuple(each for each in members if not isinstance(each, _NESTING)) or members
        members = tuple(each for each in members if isinstance(each, types_of.NoneType)) or members
    return _draw(random.choice(members), random, depth)


_NESTING = (types_of.StructType, types_of.DataclassType, types_of.TypedDictType, types_of.NamedTupleType)

_DRAWN: dict[type, Callable[[Any, Random, int], Any]] = {
    types_of.AnyType: lambda info, random, depth: "".join(random.choices(_LETTERS, k=6)),
    types_of.NoneType: lambda info, random, depth: None,
    types_of.BoolType: lambda info, random, depth: random.random() < 0.5,
    types_of.IntType: _integer,
    types_of.FloatType: _float,
    types_of.StrType: _text,
    types_of.BytesType: _bytes,
    types_of.ByteArrayType: _bytes,
    types_of.DateType: _date,
    types_of.TimeType: _time,
    types_of.DateTimeType: _instant,
    types_of.TimeDeltaType: lambda info, random, depth: timedelta(seconds=random.randrange(86_400)),
    types_of.UUIDType: lambda info, random, depth: UUID(int=random.getrandbits(128), version=4),
    types_of.DecimalType: lambda info, random, depth: Decimal(random.randrange(100_000)) / 100,
    types_of.EnumType: lambda info, random, depth: random.choice(list(info.cls)).value,
    types_of.LiteralType: lambda info, random, depth: random.choice(info.values),
    types_of.UnionType: _union,
    types_of.ListType: _items,
    types_of.SetType: _items,
    types_of.FrozenSetType: _items,
    types_of.VarTupleType: _items,
    types_of.TupleType: lambda info, random, depth: [_draw(item, random, depth + 1) for item in info.item_types],
    types_of.DictType: _mapping,
    types_of.StructType: _struct,
    types_of.DataclassType: _named,
    types_of.TypedDictType: _named,
    types_of.NamedTupleType: lambda info, random, depth: [_draw(f.type, random, depth + 1) for f in info.fields],
}


def _matching(parsed: Any, random: Random, groups: dict[int, str]) -> str:
    """A text that a parsed pattern matches, but for what looks around; `groups`: those matched so far."""
    return "".join([_matched(str(op), argument, random, groups) for op, argument in parsed])


def _matched(op: str, argument: Any, random: Random, groups: dict[int, str]) -> str:
    match op:
        case "LITERAL":
            return chr(argument)
        case "ANY":
            return random.choice(_PRINTABLE)
        case "NOT_LITERAL":
            return random.choice(_printable_but(chr(argument)))
        case "IN":
            return random.choice(_of_class(argument))
        case "BRANCH":
            return _matching(random.choice(argument[1]), random, groups)
        case "SUBPATTERN":
            groups[argument[0]] = _matching(argument[3], random, groups)
            return groups[argument[0]]
        case "ATOMIC_GROUP":
            return _matching(argument, random, groups)
        case "GROUPREF":
            return groups.get(argument, "")
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = argument
            count = random.randint(least, min(int(most), least + 6))
            return "".join([_matching(inner, random, groups) for _ in range(count)])
        case _:  # anchors, and what looks around: the whole is checked by whoever draws
            return ""


_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
}


def _of_class(members: Sequence[tuple[Any, Any]]) -> str:
    """The characters of a class like [^a-z0-9_]; of a negated one those that can be printed."""
    found = ""
    for op, argument in members:
        match str(op):
            case "LITERAL":
                found += chr(argument)
            case "RANGE":
                found += "".join(map(chr, range(argument[0], min(argument[1], argument[0] + _SPAN) + 1)))
            case "CATEGORY":
                name = str(argument)
                inside = _CATEGORIES[name.replace("_NOT_", "_")]
                found += _printable_but(inside) if "_NOT_" in name else inside
    return _printable_but(found) if str(members[0][0]) == "NEGATE" else found


def _printable_but(these: str) -> str:
    return "".join(each for each in _PRINTABLE if each not in these)
