"""Answers, as OpenAPI has them: the one an operation was made for, what it raises, what is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import count
from typing import Annotated, Any, get_origin

from msgspec import UNSET, Meta, Struct, UnsetType, field

from ..codec.binding import BINARY as OCTETS
from ..codec.pieces import EVENTS, LINES
from ..codec.problem import CONTENT_TYPE as PROBLEM
from ..codec.problem import to_problem
from ..codec.schema import REF, Schema, Schemas
from ..errors import (
    BadRequest,
    ContentTooLarge,
    Forbidden,
    InFlight,
    NotAcceptable,
    NotFound,
    RopewalkError,
    Unauthorized,
    Unprocessable,
    UnsupportedMediaType,
)
from ..message import Response, Stream
from ..operation import Operation
from .openapi_parameters import converters, may_be_wrong, sent

ANY = "*/*"
_RESPONSES = "#/components/responses/"
_FAILURE = "Failure"


class Problem(Struct):
    """What went wrong, as RFC 9457 says it; what is particular to its type stands in further members."""

    type: Annotated[str, Meta(description="Which problem it is.", extra_json_schema={"format": "uri-reference"})]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What happened this time, for people.")] | UnsetType = UNSET


class WrongField(Struct):
    """One place of a request that does not fit."""

    pointer: Annotated[str, Meta(description='Where: a JSON pointer (RFC 6901), like "/stay/nights".')]
    place: Annotated[str, Meta(description="In the body, query, path, ...")] = field(name="in")
    expected: str
    got: str
    detail: str


class ValidationProblem(Problem, kw_only=True):
    """A request that was read and is wrong: every wrong field is listed."""

    errors: list[WrongField] | UnsetType = UNSET


class Answers:
    """Writes them, and collects what they share."""

    def __init__(self, schemas: Schemas, components: dict[str, Schema]) -> None:
        """`components`: those of `schemas`, to which each error of a service's own is added."""
        self.responses: dict[str, Any] = {}  # by name
        self._schemas = schemas
        self._components = components
        self._names: dict[type[RopewalkError], str] = {}  # of the errors' components
        self._problem = schemas.of(Problem)
        self._validation = schemas.of(ValidationProblem)

    def of(self, operation: Operation) -> dict[str, Any]:
        """The responses of an operation, by status."""
        answers: dict[str, Any] = {str(operation.status): self._success(operation)}
        own = {cls.status: cls for cls in self._refusals(operation)}
        said: dict[int, list[type[RopewalkError]]] = {}
        for error in operation.raises:
            said.setdefault(error.status, []).append(error)
        for status in sorted({*own, *said}):
            classes = list(dict.fromkeys([*([own[status]] if status in own else []), *said.get(status, ())]))
            answers[str(status)] = self._refusal(classes, anything=operation.returns is Response)
        if operation.returns is Response:
            answers["default"] = {
                "description": "What the operation chose to answer, or a problem.",
                "content": {PROBLEM: {"schema": self._problem}, ANY: {}},
            }
        else:
            answers["default"] = {"$ref": _RESPONSES + _FAILURE}
            self.responses[_FAILURE] = {
                "description": "What may befall any request: it is no good HTTP (400), its service failed (500, 502), "
                "cannot answer now (503) or not before the deadline (504).",
                "content": {PROBLEM: {"schema": self._problem, "example": to_problem(RopewalkError())}},
            }
        return answers

    def _success(self, operation: Operation) -> dict[str, Any]:
        answer: dict[str, Any] = {"description": _PHRASES.get(operation.status, "Done")}
        returns = operation.returns
        if operation.streams:
            content: dict[str, Any] = {OCTETS: {}} if operation.item is bytes else {LINES: {}, EVENTS: {}}
            if operation.item is not Any:
                next(iter(content.values()))["x-ropewalk-item"] = self._schemas.of(operation.item)
            if (get_origin(returns) or returns) is Stream:
                content[ANY] = {}
            answer["content"] = content
        elif returns is Response:
            answer["content"] = {ANY: {}}
        elif returns is bytes:
            answer["content"] = {operation.content_type: {}}
        elif returns is not type(None):
            answer["content"] = {operation.content_type: {"schema": self._schemas.of(returns)}}
        return answer

    def _refusals(self, operation: Operation) -> Iterator[type[RopewalkError]]:
        """What the framework answers before the operation has begun."""
        binding = operation.binding
        sources = {p.source for p in binding.parameters}
        if operation.keyed or binding.content_types or sources & {"path", "query"}:
            yield BadRequest
        if binding.content_types:
            yield ContentTooLarge
            yield UnsupportedMediaType
        passed = converters(operation)
        if operation.keyed or any(may_be_wrong(p, self._schemas.of(p.type), passed) for p in sent(operation)):
            yield Unprocessable
        if operation.access == "user" or operation.scopes:
            yield Unauthorized
        if operation.scopes or binding.reads_form:  # a form may come from another site, or another session
            yield Forbidden
        if passed:
            yield NotFound
        if operation.keyed:
            yield InFlight
        if not operation.accepts_any:
            yield NotAcceptable

    def _refusal(self, classes: Sequence[type[RopewalkError]], *, anything: bool) -> dict[str, Any]:
        """The response of one status; what is the framework's alone is shared."""
        only = classes[0]
        if len(classes) == 1 and not anything and _is_built_in(only):
            self.responses.setdefault(only.__name__, self._content(classes))
            return {"$ref": _RESPONSES + only.__name__}
        response = self._content(classes)
        if anything:
            response["content"][ANY] = {}
        return response

    def _content(self, classes: Sequence[type[RopewalkError]]) -> dict[str, Any]:
        schemas: list[Schema] = []
        for cls in classes:
            schema = self._problem_schema(cls)
            if schema not in schemas:
                schemas.append(schema)
        response: dict[str, Any] = {"description": " ".join(_said(cls) for cls in classes)}
        if Unauthorized in classes:
            response["headers"] = {
                "WWW-Authenticate": {"description": "How to say who asks.", "schema": {"type": "string"}}
            }
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        examples = {cls.__name__: {"value": to_problem(cls())} for cls in classes if _is_built_in(cls)}
        response["content"] = {PROBLEM: {"schema": schema, **({"examples": examples} if examples else {})}}
        return response

    def _problem_schema(self, cls: type[RopewalkError]) -> Schema:
        if _is_built_in(cls):
            return self._validation if cls is Unprocessable else self._problem
        name = self._names.get(cls)
        if name is None:
            name = next(name for name in _spellings(cls.__name__) if name not in self._components)
            self._names[cls] = name
            # Who lists a class lists its subclasses; those known by now are the ones that can be raised.
            known: Mapping[str, Any] = RopewalkError.registry
            types = sorted({cls.type, *(type for type, each in known.items() if issubclass(each, cls))})
            self._components[name] = {
                "title": cls.title,
                "description": _said(cls),
                "allOf": [self._validation if issubclass(cls, Unprocessable) else self._problem],
                "properties": {"type": {"const": cls.type} if len(types) == 1 else {"enum": types}},
            }
        return {"$ref": REF + name}


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def _is_built_in(cls: type[RopewalkError]) -> bool:
    return cls.__module__ == RopewalkError.__module__


def _said(cls: type[RopewalkError]) -> str:
    """What its docstring says: "Raised when no room is left." -> "No room is left."."""
    text = " ".join((cls.__dict__.get("__doc__") or "").partition("\n\n")[0].split()).removeprefix("Raised when ")
    return text[:1].upper() + text[1:] if text else f"{cls.title}."


def _spellings(name: str) -> Iterator[str]:
    yield name
    yield f"{name}Problem"
    yield from (f"{name}Problem{n}" for n in count(2))
