"""Parameters, as OpenAPI has them: where each lies, what a converter lets through, what may be left out or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from werkzeug.routing.rules import parse_converter_args

from ..codec.parameters import Parameter
from ..codec.routes import PLACEHOLDER
from ..codec.schema import Schema, as_json
from ..operation import Operation


def converter_schema(name: str, options: str = "") -> Schema:
    """What a converter of a route lets through: ("int", "min=1") -> {"type": "integer", "minimum": 1}."""
    args, said = parse_converter_args(options)
    if name in ("int", "float"):
        limits = {word: said[key] for key, word in (("min", "minimum"), ("max", "maximum")) if key in said}
        unsigned = {} if said.get("signed") else {"minimum": 0}
        return {"type": "integer" if name == "int" else "number", **unsigned, **limits}
    if name == "any":
        return {"type": "string", "enum": list(args)}
    if name == "uuid":
        return {"type": "string", "format": "uuid"}
    if name == "path":
        return {"type": "string", "minLength": 1}
    exactly = said.get("length")
    longest = {"maxLength": said["maxlength"]} if said.get("maxlength") else {}
    sizes = {"minLength": said.get("minlength", 1), **longest}
    return {"type": "string", **({"minLength": exactly, "maxLength": exactly} if exactly else sizes)}


def converters(operation: Operation) -> dict[str, Schema]:
    """What the converter of each placeholder lets through."""
    return {
        match["name"]: converter_schema(match["converter"] or "string", match["options"] or "")
        for match in PLACEHOLDER.finditer(operation.route or "")
    }


def sent(operation: Operation) -> Iterator[Parameter]:
    """The parameters a caller sends."""
    return (p for p in operation.binding.parameters if p.source != "given")


def parameter(source: str, alias: str, schema: Schema, required: bool, name: str, *, text: bool = True) -> Schema:
    """The parameter object. `name`: Python's; `text`: an empty text is a value."""
    schema = schema.copy()
    parameter: Schema = {"name": alias, "in": source}
    if "description" in schema and "$ref" not in schema:
        parameter["description"] = schema.pop("description")
    if required:
        parameter["required"] = True
    elif source == "query" and not text:
        parameter["allowEmptyValue"] = True  # it counts as nothing: forms send it
    parameter["schema"] = schema
    if name != alias:
        parameter["x-ropewalk-name"] = name
    return parameter


def is_needed(p: Parameter, schema: Schema) -> bool:
    """Whether a request without it is refused: nothing is null, or an empty list, where these may be."""
    return p.required and not p.nullable and not (p.many and not schema.get("minItems"))


def default(p: Parameter) -> Schema:
    """What is taken when it is left out, to be added to its schema."""
    if p.required:
        return {}
    try:
        return {"default": as_json(p.default)}
    except TypeError:  # it never crosses the wire, so it may be what cannot
        return {}


def narrowed(own: Schema, converter: Schema) -> Schema:
    """What both the converter and the parameter's type let through."""
    if own.get("type") != converter["type"]:
        return own
    both = converter | own
    for limit, narrower in (("minimum", max), ("maximum", min), ("minLength", max), ("maxLength", min)):
        if limit in own and limit in converter:
            both[limit] = narrower(own[limit], converter[limit])
    return both


def may_be_wrong(p: Parameter, schema: Schema, converters: Mapping[str, Schema]) -> bool:
    """Whether what was parsed may still not fit."""
    if p.source in ("member", "form", "upload"):
        return True
    if p.source == "stream":
        return False
    if p.source == "body":
        return bool(schema)
    if p.source != "path":
        return p.structured or is_needed(p, schema) or not _takes_any_text(schema)
    plain = {key: value for key, value in schema.items() if key not in _SAID}
    passed = {key: value for key, value in converters[p.name].items() if key in ("type", "format")}
    return plain != passed and not _takes_any_text(schema)


_SAID = ("default", "description", "examples", "title")


def _takes_any_text(schema: Schema) -> bool:
    if "anyOf" in schema:
        return any(map(_takes_any_text, schema["anyOf"]))
    plain = {key: value for key, value in schema.items() if key not in _SAID}
    items = plain.pop("items", None)
    return plain == {"type": "string"} or (plain == {"type": "array"} and items is not None and _takes_any_text(items))
