"""What a schema says by itself: which kind of value, under which limits, told apart by what; how a default is written.

Pure functions and tables; `stub_types` follows the references and names the classes.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from .stub_layout import Bracketed, Either, Expression, flat, identifier, quoted, unused

Schema: TypeAlias = Mapping[str, Any]

# Where the names that a stub may use come from; "" for those that are always there.
NAMES: Mapping[str, Sequence[str]] = {
    "": ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"),
    "collections.abc": ("AsyncIterator",),
    "datetime": ("date", "datetime", "time", "timedelta"),
    "decimal": ("Decimal",),
    "enum": ("IntEnum", "StrEnum"),
    "typing": ("Annotated", "Any", "Literal"),
    "uuid": ("UUID",),
    "msgspec": ("Meta", "Struct", "UNSET", "UnsetType", "field"),
    "ropewalk": (
        *("Contract", "Cookie", "Form", "Header", "Query", "Response", "Stream", "Upload"),
        *("delete", "get", "operation", "patch", "post", "put"),
    ),
}
HOME = {name: module for module, names in NAMES.items() for name in names}

# format -> the type and how its default is written
_FORMATS = {
    "date": "date",
    "date-time": "datetime",
    "date-time-local": "datetime",
    "time": "time",
    "time-local": "time",
    "uuid": "UUID",
    "duration": "timedelta",
    "iso-duration": "timedelta",
    "decimal": "Decimal",
    "byte": "bytes",
    "binary": "Upload",
}
_LIMITS = {  # keyword -> msgspec.Meta's
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_SIZES = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
_TEXTS = (
    "str",
    "date",
    "datetime",
    "time",
    "UUID",
    "timedelta",
    "Decimal",
    "bytes",
    "Upload",
    "enum:str",
    "literal:str",
)
_INTEGERS = ("int", "enum:int", "literal:int")
INTEGER_KEYS = r"^(0|-?[1-9][0-9]*)$"  # as codec/schema.py writes them


class Member(Struct, frozen=True):
    """One alternative of a type: what is written, and what kind of value it is."""

    kind: str  # "int", "str", "date", "enum:str", "literal:int", "array", "object", "struct", "null", "any", ...
    expression: Expression
    cls: Class | None = None
    values: tuple[Any, ...] = ()  # of a literal
    items: tuple[Member, ...] = ()  # of an array whose items are all of one type


class Class(Struct, eq=False):
    """A class that the stub defines."""

    name: str
    schema: Schema  # of an enumeration, or an object with its `allOf` merged
    tag: tuple[str, str | int] | None = None  # the property that tells it from others, and its value
    united: bool = False  # a union needs that tag
    form: bool = False  # its fields may be files

    @property
    def is_enum(self) -> bool:
        """Whether it is an enumeration."""
        return "enum" in self.schema


def expression_of(members: Sequence[Member]) -> Expression:
    """The union of the members."""
    expressions: list[Expression] = []
    for member in members:
        if member.expression not in expressions:
            expressions.append(member.expression)
    return expressions[0] if len(expressions) == 1 else Either(tuple(expressions))


def is_structured(members: Sequence[Member]) -> bool:
    """Whether it is more than text can carry: such a parameter is bound to the body, unless it says otherwise."""
    return any(member.kind in ("array", "object", "struct", "any") for member in members)


# -- members


def plain(name: str) -> Member:
    return Member(name, name)


NULL = Member("null", "None")
ANY = Member("any", "Any")


def member_of(cls: Class) -> Member:
    if not cls.is_enum:
        return Member("struct", cls.name, cls)
    return Member("enum:str" if isinstance(cls.schema["enum"][0], str) else "enum:int", cls.name, cls)


def choices(values: Sequence[Any]) -> Iterator[Member]:
    """A Literal for the texts, one for the integers, and null; other constants have no type of their own."""
    texts = tuple(value for value in values if isinstance(value, str))
    integers = tuple(value for value in values if isinstance(value, int) and not isinstance(value, bool))
    if texts:
        yield _choice("literal:str", texts)
    if integers:
        yield _choice("literal:int", integers)
    for value in values:
        if value is None:
            yield NULL
        elif isinstance(value, bool):
            yield plain("bool")
        elif isinstance(value, float):
            yield plain("float")
        elif not isinstance(value, str | int):
            yield ANY


def _choice(kind: str, values: tuple[Any, ...]) -> Member:
    return Member(kind, Bracketed("Literal[", tuple(map(literal_value, dict.fromkeys(values)))), values=values)


def number(schema: Schema, kind: str) -> Member:
    limits: dict[str, Any] = {}
    for word, limit in _LIMITS.items():
        value = schema.get(word)
        if value is True:  # OpenAPI 3.0: the other bound is meant exclusively
            value = limits.pop({"gt": "ge", "lt": "le"}[limit], None)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if kind == "integer":
                value = {"ge": math.ceil, "gt": math.floor, "le": math.floor, "lt": math.ceil}.get(limit, int)(value)
            if abs(value) < 2**63 and not (limit == "multiple_of" and value <= 0):  # msgspec's range
                limits[limit] = value
    # Of two bounds on a side msgspec takes one.
    for open_bound, closed in (("gt", "ge"), ("lt", "le")):
        if open_bound in limits:
            limits.pop(closed, None)
    name = "int" if kind == "integer" else "float"
    return Member(name, _annotated(name, [f"{limit}={value!r}" for limit, value in limits.items()]))


def string(schema: Schema, *, form: bool = False) -> Member:
    """A text, or what is written as one; files are in forms alone."""
    format = schema.get("format")
    name = _FORMATS.get(format, "str") if isinstance(format, str) else "str"
    if schema.get("contentEncoding") == "base64":
        name = "bytes"
    elif name == "str" and "contentMediaType" in schema and "contentEncoding" not in schema:
        name = "Upload" if schema["contentMediaType"] == "application/octet-stream" else "str"
    if name == "Upload" and not form:
        name = "str"
    if name == "str":
        return Member("str", limited("str", schema, "string"))
    if isinstance(format, str) and format.endswith("-local"):
        return Member(name, _annotated(name, ["tz=False"]))
    return Member(name, name)


def limited(type: Expression, schema: Schema, kind: str) -> Expression:
    said: list[Expression] = []
    for word, limit in zip(_SIZES[kind], ("min_length", "max_length"), strict=True):
        value = schema.get(word)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value >= 0
            and not (value == 0 and "min" in word)
        ):
            said.append(f"{limit}={int(value)}")
    pattern = schema.get("pattern")
    if kind == "string" and isinstance(pattern, str) and _compiles(pattern):
        said.append(f"pattern={_raw(pattern)}")
    return _annotated(type, said)


def _annotated(type: Expression, said: Sequence[Expression]) -> Expression:
    return Bracketed("Annotated[", (type, Bracketed("Meta(", tuple(said)))) if said else type


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError):  # an expression of another dialect
        return False
    return True


def _raw(pattern: str) -> str:
    if "\\" in pattern and '"' not in pattern and not pattern.endswith("\\") and pattern.isprintable():
        return f'r"{pattern}"'
    return quoted(pattern)


# -- unions


def sort_of(member: Member) -> str:
    """Of these msgspec can tell one per union from the others."""
    if member.kind in _TEXTS:
        return "text"
    if member.kind in _INTEGERS:
        return "integer"
    if member.kind in ("object", "struct"):
        return "object"
    return member.kind if member.kind == "array" else "other"


def told_apart(members: Sequence[Member], sort: str, widen: Callable[[Sequence[Member]], list[Member]]) -> list[Member]:
    """The members of one sort: as they are while they can be told apart, else what `widen` makes of them."""
    mine = [member for member in members if sort_of(member) == sort]
    if len({flat(member.expression) for member in mine}) < 2:
        return mine[:1]
    if all(member.values for member in mine):
        return [_choice(mine[0].kind, tuple(value for member in mine for value in member.values))]
    return widen(mine)


def tags_of(schema: Schema) -> Iterator[tuple[str, str | int]]:
    """The properties of an object that always have one and the same value, with that value."""
    for name, each in schema.get("properties", {}).items():
        if isinstance(each, Mapping):
            values = [each["const"]] if "const" in each else each.get("enum", ())
            always = name in schema.get("required", ()) or each.get("default") in list(values)
            if len(values) == 1 and always and isinstance(values[0], str | int) and not isinstance(values[0], bool):
                yield name, values[0]


def common(
    classes: Sequence[Class], discriminator: tuple[str | None, dict[str, Class]]
) -> list[tuple[Class, tuple[str, str | int]]] | None:
    """A tag for each class, all in one property and all different; None when there is no such property."""
    name, by_value = discriminator
    by_class = {cls.name: value for value, cls in reversed(by_value.items())}
    names = [name] if name is not None else [tag for tag, _ in tags_of(classes[0].schema)]
    for each in names:
        tags: list[tuple[str, str | int]] = []
        for cls in classes:
            said = dict(tags_of(cls.schema))
            if each in said:
                tags.append((each, said[each]))
            elif cls.name in by_class:
                tags.append((each, by_class[cls.name]))
        if len(tags) == len(set(tags)) == len(classes) and len({type(value) for _, value in tags}) == 1:
            return list(zip(classes, tags, strict=True))
    return None


def discriminators(schema: Any, resolve: Any) -> Iterator[Schema]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("discriminator"), Mapping):
            yield schema["discriminator"]
        for alternative in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            if isinstance(alternative, Mapping) and ("anyOf" in alternative or "oneOf" in alternative):
                yield from discriminators(alternative, resolve)


# -- values


def alternatives(schema: Any, resolve: Any) -> Iterator[Schema]:
    if not isinstance(schema, Mapping):
        return
    inner = schema.get("anyOf") or schema.get("oneOf")
    if inner is None and len(schema.get("allOf", ())) == 1:
        inner = schema["allOf"]
    if inner is None:
        yield schema
    for each in inner or ():
        yield from alternatives(each, resolve)


_ISO = ("date", "datetime", "time")
_PARSED: Mapping[str, Any] = {"date": date, "datetime": datetime, "time": time, "UUID": UUID, "Decimal": Decimal}


def text_value(value: str, schema: Schema) -> Expression | None:
    members = list(choices([value])) if "enum" in schema or "const" in schema else [string(schema)]
    name = members[0].kind
    try:
        if name in _PARSED:
            msgspec.convert(value, _PARSED[name])
        if name in _ISO:
            return Bracketed(f"{name}.fromisoformat(", (quoted(value),))
        if name == "timedelta":
            return Bracketed("timedelta(", (f"seconds={msgspec.convert(value, timedelta).total_seconds()!r}",))
        if name == "bytes":
            return f"b{quoted(base64.b64decode(value).decode('ascii'))}"
    except ValueError:
        return None
    if name in ("UUID", "Decimal"):
        return Bracketed(f"{name}(", (quoted(value),))
    return quoted(value) if name in ("str", "literal:str") else None


def factory(default: Expression, late: bool) -> Expression:
    """How `field` is told of a default; `late`: it is made when it is needed."""
    text = flat(default)
    made = {"[]": "list", "{}": "dict", "set()": "set"}.get(text, f"lambda: {text}" if late else "")
    return f"default_factory={made}" if made else f"default={text}"


def literal_value(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


# -- schemas


def inferred(schema: Schema) -> str | None:
    """The type of a schema that does not say it."""
    if "properties" in schema or isinstance(schema.get("additionalProperties"), Mapping):
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else None


def is_struct(schema: Schema) -> bool:
    return "properties" in schema and (schema.get("type") or "object") == "object" and "nullable" not in schema


def is_enum(schema: Schema) -> bool:
    values = schema.get("enum")
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(value, str) for value in values) or all(type(value) is int for value in values)


def enum_names(schema: Schema) -> dict[Any, str]:
    """The members' names by their values: "on-hold" -> ON_HOLD, unless the document names them."""
    values = schema["enum"]
    said = schema.get("x-enum-varnames", ())
    if len(said) == len(set(said)) == len(values) and all(str(name).isidentifier() for name in said):
        return dict(zip(values, map(identifier, said), strict=True))
    names: dict[Any, str] = {}
    for value in values:
        words = re.sub(
            r"(?<=[a-z0-9])(?=[A-Z])", "_", str(value).replace("-", "_" if isinstance(value, str) else "MINUS_")
        )
        name = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_").upper()
        if not name or not name[0].isalpha():
            name = f"VALUE_{name}".rstrip("_")
        names[value] = unused(name, names.values())
    return names


def description_of(schema: Any) -> str:
    return str(schema.get("description") or "") if isinstance(schema, Mapping) else ""


def words_of(expression: Expression | None) -> list[str]:
    """The names it uses, without what stands in quotes."""
    text = flat(expression) if expression is not None else ""
    return re.findall(r"(?<![.\w])[A-Za-z_]\w*", re.sub(r"r?\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", "", text))
