"""Types -> JSON Schema (2020-12, as OpenAPI 3.1 takes it), with what several types share as named components.

Not `msgspec.json.schema_components`, though it says the same of most types, because a reader must be able to trust the
document: that one leaves out what the decoder refuses (a date-time without a zone has no format, a `dict[int, ...]`
takes any key, a decimal any text), and two classes of one name in one module make it fail.

>>> class Stay(msgspec.Struct):
...     hotel: str
...     nights: int = 1
>>> schemas = Schemas([list[Stay]])
>>> schemas.of(list[Stay])
{'type': 'array', 'items': {'$ref': '#/components/schemas/Stay'}}
>>> schemas.components["Stay"]["properties"]
{'hotel': {'type': 'string'}, 'nights': {'type': 'integer', 'default': 1}}

Examples are said where the type is said: `Annotated[date, Meta(examples=["2027-05-01"])]`; whatever else a schema
should hold, in `Meta(extra_json_schema={...})`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import dedent
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from .types import Upload

Schema: TypeAlias = dict[str, Any]

REF = "#/components/schemas/"

BINARY: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
"""A file in a form: OpenAPI 3.1 reads the media type, OpenAPI 3.0's tools the format."""

_LEAVES: Mapping[type[inspect.Type], Schema] = {
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.IntType: {"type": "integer"},
    inspect.FloatType: {"type": "number"},
    inspect.StrType: {"type": "string"},
    inspect.DateTimeType: {"type": "string", "format": "date-time"},
    inspect.TimeType: {"type": "string", "format": "time"},
    inspect.DateType: {"type": "string", "format": "date"},
    inspect.UUIDType: {"type": "string", "format": "uuid"},
    # Not the format "duration": that is RFC 3339's, which has no fractions and no sign. So many digits are in range.
    inspect.TimeDeltaType: {
        "type": "string",
        "format": "iso-duration",
        "pattern": r"^[-+]?P(?=\d|T\d)(\d{1,8}D)?(T(?=\d)(\d{1,9}H)?(\d{1,9}M)?(\d{1,9}(\.\d{1,6})?S)?)?$",
    },
    # Sent as text, so that no digit is lost; read from a number, too.
    inspect.DecimalType: {
        "type": ["string", "number"],
        "format": "decimal",
        "pattern": r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,6})?$",
    },
}
_BASE64: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
_BYTES = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)
_OBJECTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)
_DICTS = (inspect.DictType, inspect.FrozenDictType)
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_SIZES = {  # the JSON type -> the names of its smallest and largest size
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


class Schemas:
    """The schemas of a set of types, and the components they refer to.

    A component is named like its class; of several classes with one name, each by its module too. All of it depends on
    `types` and their order alone.
    """

    def __init__(self, types: Iterable[Any]) -> None:
        """Raises TypeError for a type msgspec does not know."""
        self._classes: dict[Any, Any] = {}  # by class, in order of first use
        for info in inspect.multi_type_info(types):
            self._collect(info)
        self._names = _names(list(self._classes))

    def of(self, type: Any) -> Schema:
        """The schema of `type`: what a class is named for is a reference."""
        return self._schema(inspect.type_info(type))

    @property
    def components(self) -> dict[str, Schema]:
        """By name, sorted."""
        named = {self._names[cls]: self._definition(info) for cls, info in self._classes.items()}
        return dict(sorted(named.items()))

    def _collect(self, info: Any) -> None:
        cls = getattr(info, "cls", None)
        if isinstance(info, (*_OBJECTS, inspect.EnumType)) and cls is not Upload:
            if cls in self._classes:
                return
            self._classes[cls] = info
        for part in _parts(info):
            self._collect(part)

    def _schema(self, info: Any) -> Schema:
        said: Schema = {}
        while isinstance(info, inspect.Metadata):
            said.update(info.extra_json_schema or {})
            info = info.type
        cls = getattr(info, "cls", None)
        if cls in self._names:
            return {"$ref": REF + self._names[cls], **said}
        return {**self._plain(info), **said}

    def _plain(self, info: Any) -> Schema:
        leaf = _LEAVES.get(type(info))
        if isinstance(info, _BYTES):
            return _BASE64 | {name: 4 * ((value + 2) // 3) for name, value in _sizes(info, "string").items()}
        if leaf is not None:
            if getattr(info, "tz", None) is False:
                leaf = leaf | {"format": f"{leaf['format']}-local"}  # as the OpenAPI registry of formats has it
            return leaf | _limits(info) | _sizes(info, "string")
        if isinstance(info, inspect.LiteralType):
            return {"enum": list(info.values)}
        if isinstance(info, inspect.UnionType):
            return self._union(info)
        if isinstance(info, inspect.TupleType):
            size = len(info.item_types)
            items = {"prefixItems": [self._schema(item) for item in info.item_types]} if size else {}
            return {"type": "array", **items, "minItems": size, "maxItems": size}
        if isinstance(info, inspect.CollectionType):
            unique = {"uniqueItems": True} if isinstance(info, (inspect.SetType, inspect.FrozenSetType)) else {}
            return {"type": "array", **self._unless_any("items", info.item_type), **unique, **_sizes(info, "array")}
        if isinstance(info, _DICTS):
            values = self._unless_any("additionalProperties", info.value_type)
            return {"type": "object", **self._keys(info.key_type), **values, **_sizes(info, "object")}
        return BINARY.copy() if getattr(info, "cls", None) is Upload else {}  # else Any, Raw, a custom type

    def _unless_any(self, name: str, info: Any) -> Schema:
        return {} if isinstance(info, inspect.AnyType) else {name: self._schema(info)}

    def _keys(self, info: Any) -> Schema:
        """Names in JSON are text, whatever the keys are."""
        schema = self._schema(info)
        if schema.get("type") == "integer":
            schema = {"pattern": r"^(0|-?[1-9][0-9]*)$"}
        elif schema.get("type") == "number":
            schema = {"pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$"}
        elif schema.get("type") == "string":
            del schema["type"]
        return {"propertyNames": schema} if schema else {}

    def _union(self, info: inspect.UnionType) -> Schema:
        """The alternatives: null last; structs that a tag tells apart together, for the discriminator's sake."""
        structs = [each for each in info.types if _is_struct(each)]
        null = [each for each in info.types if isinstance(_bare(each), inspect.NoneType)]
        others = [each for each in info.types if each not in null and not _is_struct(each)]
        options = [self._schema(each) for each in others]
        if len(structs) > 1:
            tagged = [_bare(each) for each in structs]
            mapping = {str(each.tag): REF + self._names[each.cls] for each in tagged}
            told_apart = {
                "anyOf": [self._schema(each) for each in structs],
                "discriminator": {"propertyName": tagged[0].tag_field, "mapping": mapping},
            }
            if not others and not null:
                return told_apart
            options.append(told_apart)
        else:
            options += map(self._schema, structs)
        return {"anyOf": options + [self._schema(each) for each in null]}

    def _definition(self, info: Any) -> Schema:
        head: Schema = {"title": _class_name(info.cls)}
        text = _doc(info.cls)
        if text:
            head["description"] = text
        if isinstance(info, inspect.EnumType):
            values = [member.value for member in info.cls]
            names = [member.name for member in info.cls]
            kind = "integer" if isinstance(values[0], int) else "string"
            return {**head, "type": kind, "enum": values, "x-enum-varnames": names}
        properties: dict[str, Schema] = {}
        required: list[str] = []
        tag = getattr(info, "tag_field", None)
        if tag is not None:
            properties[tag] = {"const": info.tag}
            required.append(tag)
        for field in info.fields:
            properties[field.encode_name] = self._schema(field.type) | _default(field)
            if field.required:
                required.append(field.encode_name)
        closed = getattr(info, "forbid_unknown_fields", False)
        if isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False):
            positions = list(properties)
            last = max((positions.index(name) for name in required), default=-1)
            most = {"maxItems": len(positions)} if closed or isinstance(info, inspect.NamedTupleType) else {}
            return {**head, "type": "array", "prefixItems": list(properties.values()), "minItems": last + 1, **most}
        return {
            **head,
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            **({"additionalProperties": False} if closed else {}),
        }


def as_json(value: Any) -> Any:
    """`value` as JSON has it: builtins alone, lists for tuples, text for dates; raises TypeError for what it cannot."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _parts(info: Any) -> Iterator[Any]:
    if isinstance(info, inspect.Metadata):
        yield info.type
    elif isinstance(info, _OBJECTS):
        if info.cls is not Upload:
            yield from (field.type for field in info.fields)
    elif isinstance(info, inspect.UnionType):
        yield from info.types
    elif isinstance(info, inspect.TupleType):
        yield from info.item_types
    elif isinstance(info, inspect.CollectionType):
        yield info.item_type
    elif isinstance(info, _DICTS):
        yield from (info.key_type, info.value_type)


def _bare(info: Any) -> Any:
    return _bare(info.type) if isinstance(info, inspect.Metadata) else info


def _is_struct(info: Any) -> bool:
    info = _bare(info)
    return isinstance(info, inspect.StructType) and not info.array_like


def _limits(info: Any) -> Schema:
    return {name: value for limit, name in _LIMITS.items() if (value := getattr(info, limit, None)) is not None}


def _sizes(info: Any, kind: str) -> Schema:
    sizes = zip(("min_length", "max_length"), _SIZES[kind], strict=True)
    return {name: value for limit, name in sizes if (value := getattr(info, limit, None)) is not None}


def _default(field: inspect.Field) -> Schema:
    """What a missing field is taken for. A factory of the author's own is not called: it may roll dice."""
    if field.default is not msgspec.NODEFAULT:
        return {"default": as_json(field.default)}
    if field.default_factory in (list, set, frozenset, tuple):
        return {"default": []}
    return {"default": {}} if field.default_factory is dict else {}


def _names(classes: Sequence[Any]) -> dict[Any, str]:
    """A name for each: the class's own; where that is not enough, with its module; where even that is not, numbered."""
    names: dict[Any, str] = {}
    for spelt in (_class_name, lambda cls: f"{cls.__module__}.{_class_name(cls)}"):
        proposed = {cls: _component(spelt(cls)) for cls in classes if cls not in names}
        count = Counter([*proposed.values(), *names.values()])
        names.update({cls: name for cls, name in proposed.items() if count[name] == 1})
    taken = set(names.values())
    for cls in classes:
        if cls not in names:
            name = _component(f"{cls.__module__}.{_class_name(cls)}")
            number = next(n for n in range(1, len(classes) + 1) if f"{name}.{n}" not in taken)
            names[cls] = f"{name}.{number}"
            taken.add(names[cls])
    return names


def _class_name(cls: Any) -> str:
    """`Room`, `Page[Room]`."""
    arguments = getattr(cls, "__args__", ())
    name: str = getattr(cls, "__origin__", cls).__name__
    return f"{name}[{', '.join(map(_class_name_or_repr, arguments))}]" if arguments else name


def _class_name_or_repr(argument: Any) -> str:
    return _class_name(argument) if hasattr(argument, "__name__") else repr(argument)


def _component(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9._-]+", "_", name).strip("_")


def _doc(cls: Any) -> str:
    cls = getattr(cls, "__origin__", cls)
    text = dedent(vars(cls).get("__doc__") or "").strip()
    generated = text.startswith(f"{cls.__name__}(") and text.endswith(")")  # a dataclass's or a named tuple's
    return "" if generated or text == "An enumeration." else text
