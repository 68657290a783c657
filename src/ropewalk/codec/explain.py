"""Names every wrong place of a value that msgspec refused. The slow second walk: what it decodes, it throws away.

msgspec stops at the first error; whoever fills in a form wants all of them. `explain` walks the value beside its type
and asks msgspec itself about each part, so that the two cannot disagree: a part is wrong when msgspec refuses it, and
a refused whole without a wrong part is wrong itself.

>>> class Stay(msgspec.Struct):
...     hotel: str
...     nights: Annotated[int, msgspec.Meta(ge=1, le=30)]
>>> for wrong in explain({"nights": 0}, Stay):
...     print(f"{wrong.pointer}: expected {wrong.expected}, got {wrong.got}")
/hotel: expected a string (required), got nothing
/nights: expected an integer, at least 1 and at most 30, got 0
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, reduce
from itertools import islice
from operator import or_
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import inspect
from msgspec.structs import replace

_MAX_WRONGS = 100  # more than a person reads, and bounds the answer to some ten kilobytes
_MAX_DEPTH = 32  # each level above a wrong place is decoded once more: bounds the time to that many readings
_MAX_GOT = 80  # characters: about a line
_MAX_CHOICES = 20  # of an enumeration: all countries of the world would be a page, once for each wrong place


class Wrong(msgspec.Struct, frozen=True):
    """One place that does not fit."""

    pointer: str  # RFC 6901 JSON pointer: "/stay/nights", "" for the root; of what is missing, where it would stand
    expected: str  # in words, for people: "an integer, at least 1 and at most 30"
    got: str  # what came, as JSON of at most 80 characters; "nothing" when it is missing


def explain(value: object, type: Any, *, strict: bool = True) -> list[Wrong]:
    """Every place where `value` does not fit `type`: the first 100, those of an object in the order of its type.

    `value` is made of builtins. With `strict` they are what a JSON text was decoded to, and the list is empty exactly
    when `msgspec.json.decode` accepts that text as `type`; else they come from a query, a path or a form (leaves are
    strings), and it is empty exactly when `msgspec.convert(value, type, strict=False)` accepts them. What only the
    text could tell is not seen: of a name that stands twice in an object, the last value counts.

    Raises TypeError when msgspec does not support `type`.
    """
    info = _info(type)
    try:
        return list(islice(_Walk(strict).wrongs(value, info, ""), _MAX_WRONGS))
    except RecursionError:  # the decoder, on a shallower stack, coped with this nesting
        return [Wrong("", "a value that is nested less deeply", "…")]


def describe(type: Any) -> str:
    """What `type` expects, in words: "a date (YYYY-MM-DD) or null"."""
    return _words(_info(type))


class _Kind(NamedTuple):
    python: Any  # the type, before items and constraints; None when the description names it as `cls`
    words: str
    unit: str = ""  # what its length counts
    shape: type | None = None  # list or dict when its values have parts in JSON


_KINDS: dict[type[inspect.Type], _Kind] = {
    inspect.AnyType: _Kind(Any, "anything"),
    inspect.RawType: _Kind(msgspec.Raw, "anything"),
    inspect.NoneType: _Kind(type(None), "null"),
    inspect.BoolType: _Kind(bool, "true or false"),
    inspect.IntType: _Kind(int, "an integer"),
    inspect.FloatType: _Kind(float, "a number"),
    inspect.DecimalType: _Kind(Decimal, "a decimal number"),
    inspect.StrType: _Kind(str, "a string", "character"),
    inspect.BytesType: _Kind(bytes, "a base64 string", "byte"),
    inspect.ByteArrayType: _Kind(bytearray, "a base64 string", "byte"),
    inspect.MemoryViewType: _Kind(memoryview, "a base64 string", "byte"),
    inspect.DateTimeType: _Kind(datetime, "a date and time (RFC 3339)"),
    inspect.DateType: _Kind(date, "a date (YYYY-MM-DD)"),
    inspect.TimeType: _Kind(time, "a time (HH:MM:SS)"),
    inspect.TimeDeltaType: _Kind(timedelta, "a duration (ISO 8601)"),
    inspect.UUIDType: _Kind(UUID, "a UUID"),
    inspect.ExtType: _Kind(msgspec.msgpack.Ext, "a MessagePack extension"),
    inspect.CustomType: _Kind(None, "a value of a custom type"),
    inspect.EnumType: _Kind(None, ""),  # the words of these three are their choices
    inspect.LiteralType: _Kind(None, ""),
    inspect.UnionType: _Kind(None, ""),
    inspect.ListType: _Kind(list, "an array", "item", list),
    inspect.VarTupleType: _Kind(tuple, "an array", "item", list),
    inspect.SetType: _Kind(set, "an array", "distinct item", list),
    inspect.FrozenSetType: _Kind(frozenset, "an array", "distinct item", list),
    inspect.TupleType: _Kind(tuple, "an array", "item", list),
    inspect.NamedTupleType: _Kind(None, "an array", "item", list),
    inspect.DictType: _Kind(dict, "an object", "member", dict),
    inspect.FrozenDictType: _Kind(dict, "an object", "member", dict),
    inspect.StructType: _Kind(None, "an object", "field", dict),
    inspect.DataclassType: _Kind(None, "an object", "field", dict),
    inspect.TypedDictType: _Kind(None, "an object", "field", dict),
}
_LIMITS = {
    "min_length": "at least {}",
    "max_length": "at most {}",
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
}
_ANYTHING = inspect.AnyType()


class _Walk:
    """The walk over one value; its methods yield what is wrong at or below `pointer`."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def refusal(self, value: object, type: Any) -> Exception | None:
        """Why msgspec refuses `value` as `type`, or None. The one judge of all that follows."""
        try:
            if self.strict:
                # By way of the text: `convert` treats Raw, the names of a dict and the length of a set differently.
                msgspec.json.decode(msgspec.json.encode({"part": value}), type=_holder(type))
            else:
                msgspec.convert({"part": value}, _holder(type), strict=False)
        except (msgspec.ValidationError, TypeError, UnicodeError) as error:
            # TypeError: an unhashable item of a set. UnicodeError: half a surrogate pair, which a form can bring.
            return error
        return None

    def wrongs(self, value: object, info: inspect.Type, pointer: str) -> Iterator[Wrong]:
        refusal = self.refusal(value, _annotation(info))
        if refusal is None:
            return
        found = False
        if pointer.count("/") < _MAX_DEPTH:
            for wrong in self.inside(value, _bare(info), pointer):
                found = True
                yield wrong
        if not found:
            # The cause is what a `__post_init__` or a validator raised; it says more than the type can.
            yield Wrong(pointer, str(refusal.__cause__ or "") or _words(info), _short(value))

    def inside(self, value: Any, info: Any, pointer: str) -> Iterator[Wrong]:
        shape = type(value)
        if isinstance(info, inspect.UnionType):
            yield from self.member(value, [m for m in map(_bare, info.types) if _kind(m).shape is shape], pointer)
        elif _kind(info).shape is not shape:
            return
        elif isinstance(info, inspect.CollectionType):
            yield from self.size(value, replace(info, item_type=_ANYTHING), pointer)
            yield from self.items(value, range(len(value)), info.item_type, pointer)
        elif isinstance(info, inspect.DictType | inspect.FrozenDictType):
            yield from self.size(value, replace(info, key_type=_ANYTHING, value_type=_ANYTHING), pointer)
            yield from self.names(list(value), info.key_type, pointer)
            yield from self.items(list(value.values()), list(value), info.value_type, pointer)
        else:
            fixed = isinstance(info, inspect.TupleType | inspect.NamedTupleType)
            closed = fixed or getattr(info, "forbid_unknown_fields", False)
            yield from self.fields(_named(value), _fields(info), pointer, closed=closed)

    def member(self, value: Any, members: Sequence[inspect.Type], pointer: str) -> Iterator[Wrong]:
        """In a union: the member with the shape of `value`. Only structs may share one; their tags tell them apart."""
        if len(members) > 1:
            named = _named(value)
            tagged = {m.tag: m for m in members if isinstance(m, inspect.StructType)}
            place = next("0" if m.array_like else str(m.tag_field) for m in tagged.values())
            members = [m for tag, m in tagged.items() if place in named and named[place] == tag]
            if not members:
                tag = inspect.Field("", place, inspect.LiteralType(tuple(tagged)))
                yield from self.fields(named, {place: tag}, pointer)
        for member in members:
            yield from self.inside(value, member, pointer)

    def fields(
        self, named: Mapping[str, Any], fields: Mapping[str, inspect.Field], pointer: str, *, closed: bool = False
    ) -> Iterator[Wrong]:
        for name, field in fields.items():
            if name in named:
                yield from self.wrongs(named[name], field.type, _below(pointer, name))
            elif field.required:
                yield Wrong(_below(pointer, name), f"{_words(field.type)} (required)", "nothing")
        for name in named:
            if closed and name not in fields:
                yield Wrong(_below(pointer, name), "nothing of this name", _short(named[name]))

    def items(self, items: Sequence[Any], names: Sequence[Any], info: inspect.Type, pointer: str) -> Iterator[Wrong]:
        several = GenericAlias(list, (_annotation(info),))
        for n in _sift(len(items), lambda part: self.refusal(items[part], several) is not None):
            yield from self.wrongs(items[n], info, _below(pointer, names[n]))

    def names(self, names: Sequence[str], info: inspect.Type, pointer: str) -> Iterator[Wrong]:
        several = GenericAlias(dict, (_annotation(info), Any))
        for n in _sift(len(names), lambda part: self.refusal(dict.fromkeys(names[part]), several) is not None):
            yield Wrong(_below(pointer, names[n]), f"{_words(info)} as its name", _short(names[n]))

    def size(self, value: object, of_anything: inspect.Type, pointer: str) -> Iterator[Wrong]:
        """The length alone, so that wrong items do not hide it; where there is a limit to it."""
        if _constraints(of_anything) and isinstance(
            self.refusal(value, _annotation(of_anything)), msgspec.ValidationError
        ):
            yield Wrong(pointer, _words(of_anything), _short(value))


def _sift(size: int, is_wrong: Callable[[slice], bool]) -> Iterator[int]:
    """The indices of the wrong ones, in order, by halving: one among a million good ones costs forty questions."""
    parts = [(0, size)]
    while parts:
        low, high = parts.pop()
        if is_wrong(slice(low, high)):
            if high - low == 1:
                yield low
            else:
                middle = (low + high) // 2
                parts += [(middle, high), (low, middle)]


@cache
def _holder(type: Any) -> Any:
    """A struct whose field `part` has that type.

    Kept for good, as many as the program has types and their parts: quicker, and msgspec 0.22 frees the wrong memory
    when it forgets a union of a string that has a pattern and an array or dict. Of a struct it forgets nothing.
    """
    return msgspec.defstruct("Holder", [("part", type)])


@cache
def _info(type: Any) -> inspect.Type:
    holder: Any = inspect.type_info(_holder(type))
    info: inspect.Type = holder.fields[0].type
    return info


def _bare(info: inspect.Type) -> Any:
    """Without title, description and examples."""
    return info.type if isinstance(info, inspect.Metadata) else info


def _kind(info: inspect.Type) -> _Kind:
    in_array = isinstance(info, inspect.StructType) and info.array_like
    return _KINDS[inspect.NamedTupleType if in_array else type(info)]


def _named(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {str(n): item for n, item in enumerate(value)}


def _fields(info: Any) -> dict[str, inspect.Field]:
    """The fields of an object by their names in JSON, those of an array by their indices."""
    if isinstance(info, inspect.TupleType):
        return {str(n): inspect.Field("", "", item) for n, item in enumerate(info.item_types)}
    fields, in_array = list(info.fields), _kind(info).shape is list
    if isinstance(info, inspect.StructType) and info.tag_field is not None:
        # An object needs its tag only where structs have to be told apart, which `member` sees to.
        fields.insert(0, inspect.Field("", info.tag_field, inspect.LiteralType((info.tag,)), required=in_array))
    return {str(n) if in_array else field.encode_name: field for n, field in enumerate(fields)}


def _below(pointer: str, name: object) -> str:
    return f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}"


def _constraints(info: inspect.Type) -> dict[str, Any]:
    values = {name: getattr(info, name, None) for name in (*_LIMITS, "pattern", "tz")}
    return {name: value for name, value in values.items() if value is not None}


def _annotation(info: Any) -> Any:
    """The way back from msgspec's description of a type to the type."""
    info = _bare(info)
    python = _kind(info).python
    match info:
        case inspect.UnionType(types=types):
            return reduce(or_, map(_annotation, types))
        case inspect.LiteralType(values=values):
            return Literal[values]
        case inspect.TupleType(item_types=types):
            return GenericAlias(tuple, tuple(map(_annotation, types)))
        case inspect.VarTupleType(item_type=item):
            python = GenericAlias(tuple, (_annotation(item), ...))
        case inspect.CollectionType(item_type=item):
            python = GenericAlias(python, (_annotation(item),))
        case inspect.DictType(key_type=key, value_type=item) | inspect.FrozenDictType(key_type=key, value_type=item):
            python = GenericAlias(dict, (_annotation(key), _annotation(item)))
        case _ if python is None:
            return info.cls
    constraints = _constraints(info)
    return Annotated[python, msgspec.Meta(**constraints)] if constraints else python


def _words(info: inspect.Type) -> str:
    info = _bare(info)
    kind, constraints = _kind(info), _constraints(info)
    match info:
        case inspect.UnionType(types=types):
            return _listed(dict.fromkeys(map(_words, types)), "or")
        case inspect.LiteralType(values=values):
            return _choice(values)
        case inspect.EnumType(cls=cls):
            return _choice([member.value for member in cls])
        case inspect.TupleType(item_types=types):
            constraints = {"min_length": len(types), "max_length": len(types)}
    limits = [phrase.format(constraints[name]) for name, phrase in _LIMITS.items() if name in constraints]
    if len(limits) == 2 and constraints.get("min_length") == constraints.get("max_length", ...):
        limits = [f"exactly {constraints['min_length']}"]
    words = kind.words
    if limits and kind.unit:
        words += f" of {_listed(limits, 'and')} {kind.unit}{'' if limits[-1].endswith(' 1') else 's'}"
    elif limits:
        words += f", {_listed(limits, 'and')}"
    if "pattern" in constraints:
        words += f" that matches {constraints['pattern']}"
    if "tz" in constraints:
        words += " with a time zone" if constraints["tz"] else " without a time zone"
    return words


def _listed(words: Iterable[str], conjunction: str) -> str:
    """`a`; `a or b`; `a, b or c`. With commas in them already, `a, of 1, or b`."""
    *firsts, last = words
    comma = "," if any("," in word for word in firsts) else ""
    return f"{', '.join(firsts)}{comma} {conjunction} {last}" if firsts else last


def _choice(values: Sequence[Any]) -> str:
    shown = [repr(v) if isinstance(v, str) else json.dumps(v) for v in values[:_MAX_CHOICES]]
    more = [f"… ({len(values)} in all)"] if len(values) > _MAX_CHOICES else []
    return "one of " + ", ".join(shown + more) if len(values) > 1 else shown[0]


def _short(value: object) -> str:
    # The encoder that takes whatever a path or a form brought: an upload, half a surrogate pair.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _MAX_GOT else text[: _MAX_GOT - 1] + "…"
