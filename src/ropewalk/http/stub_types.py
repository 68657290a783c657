"""JSON Schemas -> Python types: annotations, and the classes they name, as source.

What a schema says and msgspec cannot decode (two objects that no tag tells apart, say) becomes the next wider type that
can hold it. References are followed within the document alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ..errors import ConfigurationError
from .stub_layout import (
    INDENT,
    Bracketed,
    Either,
    Expression,
    assigned,
    camel,
    comment,
    docstring,
    flat,
    identifier,
    laid,
    quoted,
    unused,
)
from .stub_members import (
    ANY,
    HOME,
    INTEGER_KEYS,
    NULL,
    Class,
    Member,
    Schema,
    alternatives,
    choices,
    common,
    description_of,
    discriminators,
    enum_names,
    expression_of,
    factory,
    inferred,
    is_enum,
    is_struct,
    is_structured,
    limited,
    literal_value,
    member_of,
    number,
    plain,
    sort_of,
    string,
    tags_of,
    text_value,
    told_apart,
    words_of,
)


def last_of(pointer: str) -> str:
    """What a reference calls its target: "#/components/schemas/Pet" -> "Pet"."""
    return _unescaped(pointer.rpartition("/")[2])


def _unescaped(step: str) -> str:
    return unquote(step).replace("~1", "/").replace("~0", "~")


class Types:
    """Writes types, and remembers which classes and imports they need."""

    def __init__(self, document: Schema, reserved: Sequence[str]) -> None:
        """`reserved`: names the stub uses for other things."""
        self.used: set[str] = set()  # names that must be imported
        self._document = document
        self._reserved = {*HOME, *reserved}
        self._by_pointer: dict[str, Class] = {}
        self._classes: list[Class] = []
        self._open: list[str] = []  # the references that are being followed
        self._form = False  # whether a form is being looked at

    @property
    def names(self) -> set[str]:
        """Of the classes so far."""
        return {cls.name for cls in self._classes}

    def use(self, expression: Expression | None) -> None:
        """Remember the names it needs; only what is written is imported."""
        self.used |= set(words_of(expression)) & set(HOME)

    # -- references

    def resolve(self, value: Any) -> Any:
        """What `value` refers to, or itself; raises ConfigurationError for a reference that leads nowhere or away."""
        seen: list[str] = []
        while isinstance(value, Mapping) and isinstance(pointer := value.get("$ref"), str):
            if pointer in seen:
                raise ConfigurationError(f"The reference {pointer} leads back to itself.")
            seen.append(pointer)
            value = self._at(pointer)
        return value

    def _at(self, pointer: str) -> Any:
        if not pointer.startswith("#"):
            raise ConfigurationError(
                f"{pointer} lies outside of the document; bundle it first, so that it is in one file."
            )
        value: Any = self._document
        for step in pointer.lstrip("#").split("/")[1:]:
            step = _unescaped(step)
            try:
                value = value[int(step)] if isinstance(value, list) else value[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ConfigurationError(f"The document refers to {pointer}, and there is no '{step}' there.") from None
        return value

    # -- types

    def type(self, schema: Any, hint: str, *, form: bool = False) -> Expression:
        """The annotation for `schema`; `hint` names the class of an object that has no name.

        `form`: of a form's field, which may be a file.
        """
        outer, self._form = self._form, form
        try:
            return expression_of(self.members(schema, hint))
        finally:
            self._form = outer

    def members(self, schema: Any, hint: str) -> list[Member]:
        """The alternatives that msgspec can tell apart, null last."""
        found = list(self._members(schema, hint))
        null = [member for member in found if member.kind == "null"][:1]
        others = [member for member in found if member.kind != "null"]
        if any(member.kind == "any" for member in others):
            return [ANY]
        merged = [
            *told_apart(others, "text", lambda members: [plain("str")]),
            *told_apart(others, "integer", lambda members: [plain("int")]),
            *told_apart(others, "array", lambda members: [Member("array", Bracketed("list[", ("Any",)))]),
            *told_apart(others, "object", lambda members: self._objects(members, schema)),
            *(member for member in others if sort_of(member) == "other"),
        ]
        # In the order of the schema, as far as they are still there.
        order = {id(member): n for n, member in enumerate(others)}
        merged.sort(key=lambda member: order.get(id(member), len(order)))
        return merged + null or [ANY]

    def is_text(self, members: Sequence[Member]) -> bool:
        """Whether a query or a form can carry it: plain values, lists of them, or one object whose fields are such."""
        kinds = [member for member in members if member.kind != "null"]
        if len(kinds) == 1 and kinds[0].cls is not None and kinds[0].kind == "struct":
            properties = kinds[0].cls.schema.get("properties", {})
            fields = [self.members(each, kinds[0].cls.name + camel(name)) for name, each in properties.items()]
            return all(self._is_plain(field) for field in fields)
        return self._is_plain(kinds)

    def _is_plain(self, members: Sequence[Member]) -> bool:
        return not is_structured([member for member in members if member.kind != "array"]) and all(
            member.items and not is_structured(member.items) for member in members if member.kind == "array"
        )

    def _members(self, schema: Any, hint: str) -> Iterator[Member]:
        if not isinstance(schema, Mapping):
            yield ANY
            return
        pointer = schema.get("$ref")
        if isinstance(pointer, str):
            yield from self._named(pointer, schema, hint)
            return
        if schema.get("nullable") is True:
            yield NULL
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if alternatives:
            for n, alternative in enumerate(alternatives, 1):
                yield from self._members(alternative, f"{hint}{n}" if n > 1 else hint)
            return
        if "allOf" in schema:
            schema = self.merged(schema)
            if "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
                yield from self._members(schema, hint)
                return
        kinds = schema.get("type")
        if isinstance(kinds, list) and schema.get("format") != "decimal":
            for kind in kinds:
                yield from self._members({**schema, "type": kind, "nullable": False}, hint)
            return
        yield from self._single(schema, "string" if isinstance(kinds, list) else kinds or inferred(schema), hint)

    def _named(self, pointer: str, schema: Schema, hint: str) -> Iterator[Member]:
        """A reference: a class when it is an object or an enumeration, else what it stands for."""
        target = self.resolve(schema)
        name = last_of(pointer)
        known = self._by_pointer.get(pointer)
        if known is None and isinstance(target, Mapping):
            merged = self.merged(target)
            if is_enum(merged) or is_struct(merged):
                known = self._by_pointer[pointer] = self._define(name, merged)
        if known is not None:
            yield member_of(known)
        elif pointer in self._open:  # a type that consists of itself cannot be said without a name
            yield ANY
        else:
            self._open.append(pointer)
            try:
                yield from self.members(target, camel(name))
            finally:
                self._open.pop()

    def _define(self, name: str, schema: Schema) -> Class:
        taken = {*self._reserved, *self.names}
        cls = Class(unused(camel(name), taken, ("{}Model",)), schema)
        if not cls.is_enum:
            cls.tag = next(iter(tags_of(schema)), None)
        self._classes.append(cls)
        return cls

    def merged(self, schema: Schema) -> Schema:
        """`schema` with its `allOf` in it; a single reference stays one."""
        parts = schema.get("allOf")
        if not parts:
            return schema
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        if len(parts) == 1 and isinstance(parts[0], Mapping) and "$ref" in parts[0] and "properties" not in rest:
            return {"$ref": parts[0]["$ref"]}
        whole: dict[str, Any] = {"properties": {}, "required": []}
        for part in (*parts, rest):
            part = self.merged(self.resolve(part)) if isinstance(part, Mapping) else {}
            if "$ref" in part:
                part = self.merged(self.resolve(part))
            whole = {
                **whole,
                **part,
                "properties": {**whole["properties"], **part.get("properties", {})},
                "required": [*whole["required"], *part.get("required", ())],
            }
        return {key: value for key, value in whole.items() if value or key not in ("properties", "required")}

    def _single(self, schema: Schema, kind: str | None, hint: str) -> Iterator[Member]:
        if "const" in schema or "enum" in schema:
            yield from choices([schema["const"]] if "const" in schema else schema["enum"])
        elif kind == "null":
            yield NULL
        elif kind == "boolean":
            yield plain("bool")
        elif kind in ("integer", "number"):
            yield number(schema, kind)
        elif kind == "string":
            yield string(schema, form=self._form)
        elif kind == "array":
            yield self._array(schema, hint)
        elif kind == "object":
            yield self._object(schema, hint)
        else:
            yield ANY

    def _array(self, schema: Schema, hint: str) -> Member:
        first = schema.get("prefixItems")
        if first is not None and (schema.get("minItems") == len(first) or schema.get("items") is False):
            items = [self.type(each, f"{hint}{n}") for n, each in enumerate(first, 1)]
            return Member("array", Bracketed("tuple[", tuple(items or ["()"])))
        item = schema.get("items", {}) if first is None else {}
        members = self.members(item, f"{hint}Item")
        hashable = not is_structured(members)
        container = "set" if schema.get("uniqueItems") and hashable else "list"
        expression = limited(Bracketed(f"{container}[", (expression_of(members),)), schema, "array")
        return Member("array", expression, items=tuple(members))

    def _object(self, schema: Schema, hint: str) -> Member:
        if schema.get("properties"):
            known = next((each for each in self._classes if each.schema is schema or each.schema == schema), None)
            return member_of(known or self._define(hint, schema))
        values = schema.get("additionalProperties", {})
        value = "Any" if isinstance(values, bool) else self.type(values, f"{hint}Value")
        names = schema.get("propertyNames")
        key: Expression = "str"
        if isinstance(names, Mapping):
            is_integer = names.get("pattern") == INTEGER_KEYS
            key = "int" if is_integer else self.type({"type": "string", **names}, f"{hint}Key")
        return Member("object", limited(Bracketed("dict[", (key, value)), schema, "object"))

    def _objects(self, members: Sequence[Member], schema: Any) -> list[Member]:
        """Several objects: kept apart when each is a class with a tag of its own, in one and the same property."""
        classes = [member.cls for member in members if member.cls is not None]
        if len(classes) == len(members):
            tags = common(classes, self._mapping(schema))
            if tags is not None and not any(cls.united and cls.tag != tag for cls, tag in tags):
                for cls, tag in tags:
                    cls.tag, cls.united = tag, True
                return list(members)
        return [Member("object", Bracketed("dict[", ("str", "Any")))]

    def _mapping(self, schema: Any) -> tuple[str | None, dict[str, Class]]:
        """The discriminator's property, and its values' classes."""
        found = next(discriminators(self.resolve(schema), self.resolve), None)
        if found is None:
            return None, {}
        by_value: dict[str, Class] = {}
        for value, target in found.get("mapping", {}).items():
            pointer = target if "/" in target else f"#/components/schemas/{target}"
            if pointer in self._by_pointer:
                by_value[value] = self._by_pointer[pointer]
        if not by_value:  # then the names of the schemas are the values
            by_value = {last_of(pointer): cls for pointer, cls in self._by_pointer.items()}
        return found.get("propertyName"), by_value

    # -- defaults

    def value(self, value: Any, schema: Any) -> Expression | None:
        """The Python for a value of this type; None when there is no simple one."""
        if value is None:
            return "None"
        for alternative in alternatives(schema, self.resolve):
            found = self._value(value, alternative)
            if found is not None:
                return found
        return None

    def _value(self, value: Any, schema: Schema) -> Expression | None:
        pointer = str(schema.get("$ref", ""))
        cls = self._by_pointer.get(pointer)
        if cls is not None and cls.is_enum:
            names = enum_names(cls.schema)
            return f"{cls.name}.{names[value]}" if value in names else None
        schema = self.merged(self.resolve(schema))
        kind = schema.get("type") or inferred(schema)
        if isinstance(value, bool):
            return repr(value) if kind in ("boolean", None) else None
        if isinstance(value, int | float):
            return repr(value) if kind in ("integer", "number", None) or "enum" in schema else None
        if isinstance(value, str):
            return text_value(value, schema) if kind in ("string", ["string", "number"], None) else None
        if isinstance(value, list) and kind == "array":
            return self._list_value(value, schema)
        if isinstance(value, dict):
            if cls is not None:
                return self._struct_value(value, cls)
            return "{}" if not value and kind in ("object", None) and not schema.get("properties") else None
        return None

    def _struct_value(self, value: Mapping[str, Any], cls: Class) -> Expression | None:
        properties = cls.schema.get("properties", {})
        given: list[Expression] = []
        for name, each in value.items():
            if cls.tag is not None and name == cls.tag[0]:
                continue
            said = self.value(each, properties[name]) if name in properties and identifier(name) == name else None
            if said is None:
                return None
            given.append(f"{name}={flat(said)}")
        return Bracketed(f"{cls.name}(", tuple(given))

    def _list_value(self, value: list[Any], schema: Schema) -> Expression | None:
        if schema.get("uniqueItems") or "prefixItems" in schema:
            return "set()" if not value and "prefixItems" not in schema else None
        items = [self.value(each, schema.get("items", {})) for each in value]
        return Bracketed("[", tuple(each for each in items if each is not None)) if None not in items else None

    # -- classes

    def define(self) -> list[str]:
        """The source of every class that is needed: enumerations, then the rest, each sorted by name."""
        # Looked through once before anything is written: a field may call for another class, or for another's tag.
        for cls in self._classes:
            for name, schema in cls.schema.get("properties", {}).items():
                self.type(schema, cls.name + camel(name), form=cls.form)
        classes = sorted(self._classes, key=lambda cls: (not cls.is_enum, cls.name))
        return [self._enum(cls) if cls.is_enum else self._struct(cls) for cls in classes]

    def _enum(self, cls: Class) -> str:
        names = enum_names(cls.schema)
        base = "StrEnum" if isinstance(next(iter(names)), str) else "IntEnum"
        self.use(base)
        head = [f"class {cls.name}({base}):", *docstring(cls.schema.get("description", ""), INDENT)]
        if len(head) > 1:
            head.append("")
        return "\n".join([*head, *(f"{INDENT}{name} = {literal_value(value)}" for value, name in names.items())])

    def _struct(self, cls: Class) -> str:
        required = cls.schema.get("required", ())
        properties = dict(cls.schema.get("properties", {}))
        bases = ["Struct", "frozen=True", "kw_only=True"]
        self.use("Struct")
        if cls.tag is not None:
            name, value = cls.tag
            properties.pop(name, None)
            if name != "type":
                bases.append(f"tag_field={quoted(name)}")
            bases.append(f"tag={literal_value(value)}")
        if cls.schema.get("additionalProperties") is False:
            bases.append("forbid_unknown_fields=True")
        fields = [
            (name, schema, self._field(cls, name, schema, name in required)) for name, schema in properties.items()
        ]
        # A field called `date` would stand between its class and the type of that name.
        said = {word for _, _, (type, default) in fields for each in (type, default) for word in words_of(each)}
        said &= {*HOME, *self.names}
        lines = [laid("class ", Bracketed(f"{cls.name}(", tuple(bases)), ":", "")]
        lines += docstring(cls.schema.get("description", ""), INDENT)
        if len(lines) > 1 and fields:
            lines.append("")
        taken: set[str] = set()
        for name, schema, (type, default) in fields:
            python = unused(identifier(name), taken | said)
            taken.add(python)
            # A list is made anew for each value, and a class may stand further down.
            late = isinstance(default, Bracketed) and default.head[:-1] in ("", *self.names) and flat(default) != "[]"
            if python != name or late:
                options: list[Expression] = [f"name={quoted(name)}"] if python != name else []
                options += [factory(default, late)] if default is not None else []
                default = Bracketed("field(", tuple(options))
            lines += comment(description_of(schema), INDENT)
            self.use(type)
            self.use(default)
            lines.append(assigned(python, type, default, INDENT))
        if len(lines) == 1:
            lines.append(f"{INDENT}pass")
        return "\n".join(lines)

    def _field(self, cls: Class, name: str, schema: Any, required: bool) -> tuple[Expression, Expression | None]:
        type = self.type(schema, cls.name + camel(name), form=cls.form)
        resolved = schema if isinstance(schema, Mapping) else {}
        if "default" in resolved:
            default = self.value(resolved["default"], schema)
            if default is not None:
                return type, default
        if "const" in resolved:
            return type, literal_value(resolved["const"])
        if required:
            return type, None
        members = type.members if isinstance(type, Either) else (type,)
        return Either((*members, "UnsetType")), "UNSET"
