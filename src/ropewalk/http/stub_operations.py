"""Operations of an OpenAPI document -> methods of a contract: what each is called, takes, answers and raises.

What a contract cannot say is left out, and `left_out` or the method's notes say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from ..codec.binding import BINARY as OCTETS
from ..codec.binding import JSON
from ..codec.forms import MULTIPART, URLENCODED
from ..codec.pieces import EVENTS, LINES
from ..codec.problem import CONTENT_TYPE as PROBLEM
from ..codec.routes import PLACEHOLDER, Route, shape
from ..telemetry.propagation import KEY
from .openapi_parameters import converter_schema
from .stub_errors import Errors
from .stub_layout import Bracketed, Either, Expression, camel, flat, identifier, quoted, snake, unused
from .stub_members import Member, Schema, is_structured, words_of
from .stub_types import Types

_VERBS = ("get", "post", "put", "patch", "delete")
_OTHER_METHODS = ("head", "options", "trace", "query")
_WITHOUT_BODY = ("get", "delete")
_TAKEN = ("app", "resource", "start", "stop", "tables")  # what a Service means by them
_BODYLESS = (204, 205, 304)
_OWN_HEADERS = (KEY, "accept", "authorization", "content-type")  # an operation has them without saying so


class Argument(Struct):
    """One parameter of a method."""

    name: str
    type: Expression
    default: Expression | None = None
    marker: Expression | None = None  # `Query("page-size")`: goes with the type into an Annotated


class Method(Struct):
    """One operation."""

    name: str
    verb: str  # the decorator's name
    route: str | None
    result: Expression
    doc: str
    arguments: list[Argument] = field(default_factory=list)
    options: list[Expression] = field(default_factory=list)  # of the decorator, after the route
    notes: list[str] = field(default_factory=list)  # what a reader should know of what it cannot do


class _Unsayable(Exception):
    """Raised when a contract has no word for an operation; the message says why."""


class Operations:
    """Reads every operation of a document."""

    def __init__(self, document: Schema, types: Types, errors: Errors, service: str) -> None:
        self.left_out: list[str] = []
        self._document = document
        self._types = types
        self._errors = errors
        self._service = service
        self._routes: dict[tuple[str, str], str] = {}  # the first method of each

    def methods(self) -> list[Method]:
        """In the document's order."""
        return [method for each in self._operations() if (method := self._method(*each)) is not None]

    def _operations(self) -> Iterator[tuple[str, str, Schema, str]]:
        """(path, method, operation with the path's parameters, name), in the document's order."""
        found: list[tuple[str, str, Schema]] = []
        for path, item in (self._document.get("paths") or {}).items():
            item = self._types.resolve(item)
            shared = item.get("parameters", ())
            for method, operation in item.items():
                if method in _VERBS:
                    own = [self._types.resolve(each) for each in operation.get("parameters", ())]
                    named = {(each.get("in"), each.get("name")) for each in own}
                    others = [self._types.resolve(each) for each in shared]
                    others = [each for each in others if (each.get("in"), each.get("name")) not in named]
                    found.append((path, method, {**operation, "parameters": [*others, *own]}))
                elif method in _OTHER_METHODS:
                    self.left_out.append(f"Left out: {method.upper()} {path}; a contract has no such operation.")
        short = [_name(path, method, operation, short=True) for path, method, operation in found]
        taken = set(_TAKEN)
        for (path, method, operation), name in zip(found, short, strict=True):
            if short.count(name) > 1:
                name = _name(path, method, operation, short=False)
            name = unused(name, taken)
            taken.add(name)
            yield path, method, operation, name

    def _method(self, path: str, method: str, operation: Schema, name: str) -> Method | None:
        try:
            return self._read(path, method, operation, name)
        except _Unsayable as reason:
            self.left_out.append(f"Left out: {name}, {method.upper()} {path}; {reason}.")
            return None

    def _read(self, path: str, method: str, operation: Schema, name: str) -> Method:
        hint = camel(name)
        prefix = f"/-/{self._service}/"
        by_id = "x-ropewalk-operation" in operation and "x-ropewalk-route" not in operation and path.startswith(prefix)
        status, answer = self._success(operation)
        ours = "x-ropewalk-operation" in operation
        result = "None" if status in _BODYLESS else self._result(answer, f"{hint}Result", ours=ours)
        made = Method(name, "operation" if by_id else method, None, result, _doc(operation))
        names: dict[str, str] = {}
        self._parameters(made, operation, names, hint)
        if not by_id:
            for placeholder in _PLACEHOLDER.findall(path):
                if placeholder not in names:  # the document forgot to describe it
                    names[placeholder] = unused(snake(placeholder), [argument.name for argument in made.arguments])
                    made.arguments.append(Argument(names[placeholder], "str"))
            made.route = str(operation.get("x-ropewalk-route") or _route(path, names))
            self._check_route(made)
        self._body(made, operation, method, hint)
        order = operation.get("x-ropewalk-parameters", ())
        if sorted(order) == sorted(argument.name for argument in made.arguments):
            made.arguments.sort(key=lambda argument: order.index(argument.name))
        self._facts(made, operation, status)
        return made

    def _check_route(self, made: Method) -> None:
        route = made.route or ""
        try:
            Route(route)
        except ValueError as error:
            raise _Unsayable(f"its path is no route ({error})") from error
        first = self._routes.setdefault((made.verb, shape(route)), made.name)
        if first != made.name:
            raise _Unsayable(f"{first} has the same path")

    def _parameters(self, made: Method, operation: Schema, names: dict[str, str], hint: str) -> None:
        """Add the parameters; `names` is told what each placeholder of the path is called."""
        structured = operation.get("x-ropewalk-query", {})
        hidden = {
            field
            for schema in structured.values()
            for part in (schema, *schema.get("anyOf", ()))
            for field in (self._types.resolve(part).get("properties") or ())
        }
        for each in operation["parameters"]:
            place, wire = str(each.get("in")), str(each.get("name"))
            if (place == "query" and wire in hidden) or (place == "header" and wire.lower() in _OWN_HEADERS):
                continue
            schema, reason = _plainly_sent(each, self._types.resolve)
            if place == "query" and not reason and not self._types.is_text(self._text(schema, hint + camel(wire))[1]):
                reason = f"the query parameter {wire}, which is no text"
            if place in ("header", "cookie") and "x-ropewalk-operation" not in operation:
                reason = f"the {place} {wire}"
            if reason and not each.get("required"):
                made.notes.append(f"Not sent: {reason}.")
            elif reason and place not in ("header", "cookie"):
                raise _Unsayable(f"it needs {reason}")
            else:
                if reason:
                    made.notes.append(f"Not on the client: it cannot do without {reason}.")
                self._parameter(made, operation, each, schema, names, hint)
        for name, schema in structured.items():
            default = None
            if "default" in schema:
                default = self._types.value(schema["default"], schema) or "..."
            made.arguments.append(Argument(name, self._types.type(schema, hint + camel(name)), default, "Query"))

    def _parameter(
        self, made: Method, operation: Schema, each: Schema, schema: Any, names: dict[str, str], hint: str
    ) -> None:
        place, wire = str(each.get("in")), str(each.get("name"))
        wanted = identifier(each.get("x-ropewalk-name") or (wire if wire.isidentifier() else snake(wire)))
        name = unused(wanted, ["self", *(argument.name for argument in made.arguments)])
        if place == "path":
            names[wire] = name
            schema = _without(schema, _converters(operation).get(name, {}))
        type, members = self._text(schema, hint + camel(wire), plain=place != "query")
        default: Expression | None = None
        if place != "path" and not each.get("required"):
            default = (self._types.value(schema["default"], schema) or "...") if "default" in schema else "None"
            if default == "None" and all(member.kind not in ("null", "any") for member in members):
                type = Either((*(type.members if isinstance(type, Either) else (type,)), "None"))
        made.arguments.append(Argument(name, type, default, self._marker(place, wire, name, members)))

    def _text(self, schema: Any, hint: str, *, plain: bool = False) -> tuple[Expression, list[Member]]:
        """As `_typed`; what may be anything is text where all is text, and so is what is not `plain`, if it must be."""
        members = self._types.members(schema, hint)
        if any(member.kind == "any" for member in members) or (plain and is_structured(members)):
            schema = {"type": "string"}
        return self._typed(schema, hint)

    def _typed(self, schema: Any, hint: str) -> tuple[Expression, list[Member]]:
        return self._types.type(schema, hint), self._types.members(schema, hint)

    def _marker(self, place: str, wire: str, name: str, members: list[Member]) -> Expression | None:
        if place == "query":
            if wire != name:
                return Bracketed("Query(", (quoted(wire),))
            return "Query" if is_structured(members) else None
        if place == "header":
            same = name.replace("_", "-").lower() == wire.lower()
            return "Header" if same else Bracketed("Header(", (quoted(wire),))
        if place == "cookie":
            return "Cookie" if name == wire else Bracketed("Cookie(", (quoted(wire),))
        return None

    # -- bodies

    def _body(self, made: Method, operation: Schema, method: str, hint: str) -> None:
        body = self._types.resolve(operation.get("requestBody"))
        if not body or not body.get("content"):
            return None
        content = body["content"]
        required = bool(body.get("required"))
        media = next((each for each in content if _is_json(each)), None)
        form = next((each for each in (URLENCODED, MULTIPART) if each in content), None)
        if made.verb in _WITHOUT_BODY:
            return self._without_body(made, required, f"a {method.upper()} request has no body here")
        if media is None and form is None:
            what = " or ".join(sorted(content))
            return self._without_body(made, required, f"its body is {what}, and a contract has JSON and forms")
        schema = content[media or form].get("schema", {})
        schema = schema if isinstance(schema, Mapping) else {}
        name = body.get("x-ropewalk-name")
        if made.verb == "operation":
            self._members(made, schema)
        elif media is not None:
            self._json(made, schema, name, required, hint)
        else:
            self._form(made, schema, name, required, hint)
        return None

    def _without_body(self, made: Method, required: bool, reason: str) -> None:
        if required:
            raise _Unsayable(reason)
        made.notes.append("Not sent: the body.")

    def _members(self, made: Method, schema: Schema) -> None:
        """Of an operation without a route: each argument is a member of the body."""
        for name, each in schema.get("properties", {}).items():
            type = self._types.type(each, camel(made.name) + camel(name))
            default = None
            if name not in schema.get("required", ()):
                default = (self._types.value(each["default"], each) if "default" in each else None) or "..."
            made.arguments.append(Argument(name, type, default))

    def _json(self, made: Method, schema: Any, name: str | None, required: bool, hint: str) -> None:
        type, members = self._typed(schema, f"{hint}Body")
        if not all(is_structured([member]) or member.kind == "null" for member in members):
            made.notes.append(f"Its body is {flat(type)}.")  # a parameter of that type would be sent in the query
            type, members = "Any", []
        cls = next((member.cls for member in members if member.cls is not None), None)
        wanted = name or (snake(cls.name).removesuffix("_input") if cls is not None and len(members) == 1 else "body")
        default: Expression | None = None
        if not required:
            default = "None" if any(member.kind in ("null", "any") for member in members) or not members else "..."
            if isinstance(schema, Mapping) and "default" in schema:
                default = self._types.value(schema["default"], schema) or default
        self._add(made, wanted, type, default)

    def _form(self, made: Method, schema: Any, name: str | None, required: bool, hint: str) -> None:
        whole = self._types.merged(self._types.resolve(schema))
        properties = whole.get("properties", {})
        files = {key: each for key, each in properties.items() if self._is_file(each, hint)}
        if name is not None and "properties" not in schema:  # ours: files may be fields of the form's class
            files = {}
        needed = whole.get("required", ())
        form: Any = schema
        if files:
            left = {key: each for key, each in properties.items() if key not in files}
            form = {"type": "object", "properties": left, "required": [key for key in needed if key in left]}
            if name is not None:  # ours: what is no file is one class
                form = next(iter(schema.get("allOf", ())), {})
        type: Expression = ""
        members: list[Member] = []
        if not files or form.get("properties") or "$ref" in form:
            type, members = self._typed(form, f"{hint}Form")
            for member in members:
                if member.cls is not None:
                    member.cls.form = True
            if [member.kind for member in members] != ["struct"] or not self._types.is_text(members):
                return self._without_body(made, required, "its form has fields that are no text, or none at all")
        for key, each in files.items():
            type_of_file = self._types.type(each, hint + camel(key), form=True)
            self._add(made, key, type_of_file, None if key in needed else "...")
        if members:
            default: Expression | None = None if required else "..."
            if not required and isinstance(schema, Mapping) and "default" in schema:
                default = self._types.value(schema["default"], schema) or default
            self._add(made, name or "form", type, default, "Form")
        if files and name is None:
            made.notes.append("Not on the client: it cannot do without a file.")
        return None

    def _is_file(self, schema: Any, hint: str) -> bool:
        return "Upload" in words_of(self._types.type(schema, f"{hint}File", form=True))

    def _add(
        self, made: Method, wanted: str, type: Expression, default: Expression | None, marker: str | None = None
    ) -> None:
        name = unused(identifier(wanted), ["self", *(argument.name for argument in made.arguments)])
        made.arguments.append(Argument(name, type, default, marker))

    # -- answers

    def _success(self, operation: Schema) -> tuple[int, Schema]:
        """The first good answer; what only `default` describes counts as 200."""
        responses = {str(status): response for status, response in (operation.get("responses") or {}).items()}
        for status in sorted(responses):
            if re.fullmatch(r"[23](\d\d|XX)", status, re.IGNORECASE):
                code = int(status.upper().replace("XX", "00"))
                answer = self._types.resolve(responses[status])
                # A redirect says nothing of what it leads to.
                return code, answer if code < 300 else {"content": {"*/*": {}}}
        if "default" in responses and "x-ropewalk-operation" not in operation:
            return 200, self._types.resolve(responses["default"])
        return 200, {}

    def _result(self, answer: Schema, hint: str, *, ours: bool) -> Expression:
        content = answer.get("content") or {}
        if not content:
            return "None"
        media = next((each for each in content if _is_json(each)), None)
        if media is not None:
            return self._types.type(content[media].get("schema", {}), hint)
        if LINES in content or EVENTS in content:
            if "*/*" in content:
                return "Stream"
            lines = content.get(LINES, {})
            item: Expression = "bytes"
            if LINES in content:
                item = self._types.type(lines.get("x-ropewalk-item", lines.get("schema", {})), f"{hint}Item")
            return Bracketed("AsyncIterator[", (item,))
        if ours and OCTETS in content:
            return Bracketed("AsyncIterator[", ("bytes",)) if "x-ropewalk-item" in content[OCTETS] else "bytes"
        return "Response"

    # -- facts

    def _facts(self, made: Method, operation: Schema, status: int) -> None:
        ordinary = 204 if made.result == "None" else 200
        if status != ordinary and made.verb != "operation":
            made.options.append(f"status={status}")
        raises = list(dict.fromkeys(self._errors.of(operation)))
        if raises:
            made.options.append(_tuple("raises", raises))
        idempotent = operation.get("x-ropewalk-idempotent")
        if isinstance(idempotent, bool):
            made.options.append(f"idempotent={idempotent}")
        access = operation.get("x-ropewalk-access")
        if access in ("public", "user"):
            made.options.append(f"access={quoted(access)}")
        scopes = [scope for each in operation.get("security", ()) for scope in each.get("bearer", ())]
        if scopes and access is not None:
            made.options.append(_tuple("scopes", [quoted(scope) for scope in scopes]))


def _tuple(name: str, items: list[str]) -> Expression:
    return f"{name}=({items[0]},)" if len(items) == 1 else Bracketed(f"{name}=(", tuple(items))


def _name(path: str, method: str, operation: Schema, *, short: bool) -> str:
    """What the method is called: the operationId, in a short form without the path that FastAPI appends to it."""
    said = operation.get("operationId")
    if not isinstance(said, str) or not said:
        return re.sub("_+", "_", snake(f"{method}_{path}"))
    if "x-ropewalk-operation" in operation:
        return said
    appended = re.sub(r"\W", "_", path) + "_" + method
    if short and said.endswith(appended) and len(said) > len(appended):
        said = said[: -len(appended)]
    name = snake(said).lstrip("_")
    return name if name[:1].isalpha() else f"{method}_{name}".rstrip("_")


_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def _route(path: str, names: Mapping[str, str]) -> str:
    """The path in Werkzeug's syntax. OpenAPI does not say that a value may have slashes; its name and place do."""

    def placeholder(match: re.Match[str]) -> str:
        name = names[match[1]]
        whole = match.end() == len(path) and name.endswith("path")
        return f"<path:{name}>" if whole else f"<{name}>"

    return "/" + _PLACEHOLDER.sub(placeholder, path).removeprefix("/")


def _converters(operation: Schema) -> dict[str, Schema]:
    return {
        match["name"]: converter_schema(match["converter"] or "string", match["options"] or "")
        for match in PLACEHOLDER.finditer(operation.get("x-ropewalk-route", ""))
    }


def _plainly_sent(parameter: Schema, resolve: Callable[[Any], Any]) -> tuple[Any, str]:
    """(the schema, "") of a parameter that is sent as ours are, else (Any, what is special about it)."""
    schema = parameter.get("schema", {})
    if not isinstance(schema, Mapping):
        schema = {}
    place, name = parameter.get("in"), parameter.get("name")
    if "content" in parameter:
        return {}, f"the {place} parameter {name}, as {next(iter(parameter['content']), 'something else')}"
    if place == "query":
        style = parameter.get("style", "form")
        plain = resolve(schema)
        kind = plain.get("type") if isinstance(plain, Mapping) else None
        if kind in ("array", "object") and (style != "form" or parameter.get("explode") is False):
            return {}, f"the query parameter {name}, in the style {style}"
    return schema, ""


def _without(schema: Any, converter: Schema) -> Any:
    """What the parameter's own type says beside its converter."""
    if not isinstance(schema, Mapping) or not converter:
        return schema
    return {key: value for key, value in schema.items() if key in ("type", "format") or converter.get(key) != value}


def _doc(operation: Schema) -> str:
    summary, description = str(operation.get("summary") or ""), str(operation.get("description") or "")
    return f"{summary}\n\n{description}" if summary and description else summary or description


def _is_json(media_type: str) -> bool:
    bare = media_type.partition(";")[0].strip().lower()
    return bare == JSON or (bare.endswith("+json") and bare != PROBLEM)
