"""The OpenAPI 3.1 document of a service: what its operations take, answer and refuse, and nothing that cannot happen.

`document(describe(Hotels))` is pure: the same class gives the same document. Every status an operation is known to
answer with is listed; what may befall any request (a failure, an overload, broken HTTP) is its `default` response.
A service's raw Klein application and its mounts are not described.

What OpenAPI has no word for stands in extensions, so that `stub` can write the same contract again:
`x-ropewalk-operation` (the permanent id), `-route` (with its converters), `-parameters` (in the signature's order),
`-name` (the Python name of a parameter), `-query` (a structured parameter whose fields are the query's), `-item` (of a
stream), `-raises` (problem types), `-access` and `-idempotent`.

Examples are said where a type is said, see `codec/schema.py`. `openapi_parameters` says what may be sent, and
`openapi_answers` what comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

from ..codec.parameters import Parameter
from ..codec.routes import PLACEHOLDER
from ..codec.schema import BINARY, REF, Schema, Schemas, as_json
from ..message import Response
from ..operation import Operation
from ..service import Description
from ..telemetry.propagation import KEY, LONGEST_KEY
from .openapi_answers import Answers, Problem, ValidationProblem
from .openapi_parameters import converters, default, is_needed, narrowed, parameter, sent

SESSION_COOKIE = "session"  # what `Sessions` calls it unless told otherwise


def document(description: Description, *, server: str = "/", public: bool = False) -> dict[str, Any]:
    """The document of a service, of builtins alone. `server`: the URL its paths are relative to.

    `public`: as a public listener shows it, with the operations declared for the outside and no others.
    """
    shown = [
        operation
        for operation in description.operations.values()
        if not public or (operation.route is not None and operation.access != "siblings")
    ]
    writer = _Writer(description, shown)
    for operation in shown:
        writer.add(operation)
    info = {"title": description.name, "version": description.version}
    if description.summary:
        info["description"] = description.summary
    whole: dict[str, Any] = as_json(  # examples may be values of any type
        {
            "openapi": "3.1.0",
            "info": info,
            "servers": [{"url": server}],
            "tags": [{"name": description.name}],
            "paths": writer.paths,
            "components": writer.components(),
        }
    )
    return whole


class _Writer:
    """Collects what the operations share while they are written one by one."""

    def __init__(self, description: Description, operations: Sequence[Operation]) -> None:
        self.paths: dict[str, dict[str, Any]] = {}
        self._description = description
        self._schemas = Schemas([*_types(operations), Problem, ValidationProblem])
        self._components = self._schemas.components
        self._answers = Answers(self._schemas, self._components)
        self._security: dict[str, Any] = {}
        self._placed: dict[str, list[tuple[str, list[str]]]] = {}  # shape -> (path, its placeholders)

    def components(self) -> dict[str, Any]:
        """Those that were used, by name, sorted."""
        used: set[str] = set()
        found = set(_references([self.paths, self._answers.responses]))
        while found:
            used |= found
            found = {name for each in found for name in _references(self._components[each])} - used
        kinds = {
            "schemas": {name: self._components[name] for name in used},
            "responses": self._answers.responses,
            "securitySchemes": self._security,
        }
        return {kind: dict(sorted(named.items())) for kind, named in kinds.items() if named}

    def add(self, operation: Operation) -> None:
        """Write one operation to its path."""
        path, names = self._place(operation)
        parameters, structured = self._parameters(operation, names)
        entry: dict[str, Any] = {
            "operationId": operation.name,
            "x-ropewalk-operation": operation.id,
            "x-ropewalk-access": operation.access,
            "tags": [self._description.name],
        }
        if operation.summary:
            entry["summary"] = operation.summary
        if operation.description:
            entry["description"] = operation.description
        if names:
            entry["x-ropewalk-route"] = operation.route
        if operation.idempotent != (operation.method in ("GET", "PUT", "DELETE")):
            entry["x-ropewalk-idempotent"] = operation.idempotent
        if operation.raises:
            entry["x-ropewalk-raises"] = [error.type for error in operation.raises]
        signature = [p.name for p in sent(operation)]
        if len(signature) > 1:
            entry["x-ropewalk-parameters"] = signature
        if parameters:
            entry["parameters"] = parameters
        if structured:
            entry["x-ropewalk-query"] = structured
        body = self._body(operation)
        if body is not None:
            entry["requestBody"] = body
        entry["responses"] = self._answers.of(operation)
        if operation.access == "user" or operation.scopes:
            entry["security"] = self._secured(sorted(operation.scopes))
        self.paths[path][(operation.method or "POST").lower()] = entry

    # -- paths and parameters

    def _place(self, operation: Operation) -> tuple[str, dict[str, str]]:
        """The operation's path, and what each of its placeholders is called there.

        Two routes that differ in their placeholders alone are one path to OpenAPI, and share it; only when they answer
        the same method, too, does the later one get a path of its own, for which other names of placeholders must do.
        """
        service = self._description
        route = operation.route or f"/-/{service.name}/{service.major}/{operation.name}"
        own = [match["name"] for match in PLACEHOLDER.finditer(route)]
        shape = PLACEHOLDER.sub("{}", route.replace("{", "%7B").replace("}", "%7D"))
        placed = self._placed.setdefault(shape, [])
        for path, names in placed:
            if (operation.method or "POST").lower() not in self.paths[path]:
                return path, dict(zip(own, names, strict=True))
        spellings = chain([own], ([f"{name}_{n}" for name in own] for n in count(2)))
        names = next(names for names in spellings if _fill(shape, names) not in self.paths)
        path = _fill(shape, names)
        placed.append((path, names))
        self.paths[path] = {}
        return path, dict(zip(own, names, strict=True))

    def _parameters(self, operation: Operation, names: Mapping[str, str]) -> tuple[list[Schema], dict[str, Schema]]:
        passed = converters(operation)
        parameters: list[Schema] = []
        structured: dict[str, Schema] = {}
        for p in operation.binding.parameters:
            if p.source == "query" and p.structured:
                structured[p.name] = self._schemas.of(p.type) | default(p)
                parameters += self._fields(p, structured[p.name])
            elif p.source == "path":
                schema = narrowed(self._schemas.of(p.type), passed[p.name])
                parameters.append(parameter("path", names[p.name], schema, True, p.name))
            elif p.source in ("query", "header", "cookie"):
                schema = self._schemas.of(p.type) | ({} if p.default is None else default(p))
                needed = is_needed(p, schema)
                if p.required and p.many and not needed:
                    schema["default"] = []
                parameters.append(parameter(p.source, p.alias, schema, needed, p.name, text=p.text))
        if operation.idempotent and operation.method in (None, "POST", "PATCH"):
            parameters.append(_KEY_PARAMETER)
        return parameters, structured

    def _fields(self, p: Parameter, schema: Schema) -> Iterator[Schema]:
        (name,) = _references(schema)
        properties = self._components[name]["properties"]
        for each in p.fields:
            needed = p.required and is_needed(each, properties[each.alias])
            yield parameter("query", each.alias, properties[each.alias], needed, each.alias, text=each.text)

    # -- bodies

    def _body(self, operation: Operation) -> dict[str, Any] | None:
        binding = operation.binding
        if not binding.content_types:
            return None
        if binding.streams:
            return {"content": {each: {"schema": BINARY.copy()} for each in binding.content_types}}
        parts = [p for p in binding.parameters if p.source in ("body", "form", "member", "upload")]
        whole = next((p for p in parts if p.source in ("body", "form")), None)
        named = [p for p in parts if p.source in ("member", "upload")]
        schema: Schema = {}
        if named:
            schema["type"] = "object"
            schema["properties"] = {
                p.name: BINARY.copy() if p.source == "upload" else self._schemas.of(p.type) | default(p) for p in named
            }
            required = [p.name for p in named if p.required]
            if required:
                schema["required"] = required
            if whole is not None:
                schema["allOf"] = [self._schemas.of(whole.type)]
        elif whole is not None:
            schema = self._schemas.of(whole.type) | (default(whole) if whole.default is not None else {})
        body: dict[str, Any] = {"content": {each: {"schema": schema} for each in binding.content_types}}
        if any(p.required for p in parts):
            body["required"] = True
        if whole is not None:
            body["x-ropewalk-name"] = whole.name
        return body

    def _secured(self, scopes: list[str]) -> list[dict[str, list[str]]]:
        self._security["bearer"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        self._security["session"] = {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE}
        return [{"bearer": scopes}, {"session": scopes}]


_KEY_PARAMETER: Schema = {
    "name": "-".join(word.capitalize() for word in KEY.split("-")),
    "in": "header",
    "description": f"May be anything of {LONGEST_KEY} characters at most that is not used twice: a request that is "
    "repeated under its key has its effect once.",
    "schema": {"type": "string"},
}


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    for operation in operations:
        for p in sent(operation):
            yield p.type
        if operation.streams:
            yield operation.item
        elif operation.returns is not Response:
            yield operation.returns


def _fill(shape: str, names: Sequence[str]) -> str:
    for name in names:
        shape = shape.replace("{}", f"{{{name}}}", 1)
    return shape


def _references(value: Any) -> Iterator[str]:
    """The names of the schemas it refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str) and inner.startswith(REF):
                yield inner.removeprefix(REF)
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
