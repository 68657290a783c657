"""Where each parameter of an operation lies in a message, compiled once: arguments -> `Parts` -> arguments.

A caller's stub encodes, the callee decodes, and both use the same `Parts` whether a socket lies between them or not;
that is why a colocated call means what a remote one means. Contents, in the order a reader needs them:

* `Parts`: the message. * `Binding`: encode, decode. * How a parameter is found among names and values, and put there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Union

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..errors import BadRequest, NotFound, Unprocessable, UnsupportedMediaType
from .explain import Wrong, explain
from .forms import MULTIPART, URLENCODED, read_form, write_form
from .parameters import Parameter
from .routes import Route
from .types import Upload

JSON = "application/json"
BINARY = "application/octet-stream"


class Parts(Struct):
    """An operation's arguments in the form every wire carries."""

    path: Mapping[str, Any] = {}  # by name, as text or as the route's converter made it
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = {}  # lower-case names
    cookies: Mapping[str, str] = {}
    content_type: str = ""
    body: bytes = b""
    form: Sequence[tuple[str, str | Upload]] | None = None  # the body's fields, when somebody has read them already
    stream: AsyncIterator[bytes] | None = None  # in place of the body, as it comes


class Binding:
    """The compiled form of one operation's parameters."""

    def __init__(self, parameters: Sequence[Parameter], route: str | None = None) -> None:
        self.parameters = tuple(parameters)
        self._route = Route(route) if route is not None else None
        self.given = {p.name: p.type for p in parameters if p.source == "given"}
        self.names = tuple(p.name for p in parameters if p.source != "given")
        self.http_only = any(p.only_http for p in parameters)
        self._by_name = {p.name: p for p in parameters}
        self._lax = [p for p in parameters if p.source in ("path", "query", "header", "cookie")]
        self._numbers = {p.alias for p in self._lax if p.source == "path" and p.type is int}
        self._only_numbers = len(self._numbers) == len(self._lax)
        self._lax_type = _struct("Parameters", self._lax) if self._lax else None
        self._body = next((p for p in parameters if p.source in ("body", "form")), None)
        self._members = [p for p in parameters if p.source == "member"]
        self._uploads = [p for p in parameters if p.source == "upload"]
        self._stream = next((p.name for p in parameters if p.source == "stream"), None)
        if self._members:
            self._body_type: Any = _struct("Arguments", self._members)
        elif self._body is not None:
            self._body_type = self._body.type
        else:
            self._body_type = None
        reads_json = self._members or (self._body is not None and self._body.source == "body")
        self._decode_body = msgspec.json.Decoder(self._body_type).decode if reads_json else None

    @property
    def reads_form(self) -> bool:
        """Whether it takes its arguments from an HTML form."""
        return MULTIPART in self.content_types

    @property
    def streams(self) -> bool:
        """Whether it takes the body piece by piece, as it comes."""
        return self._stream is not None

    @property
    def content_types(self) -> tuple[str, ...]:
        """The media types of bodies it reads; empty when it reads none."""
        if self._decode_body is not None:
            return (JSON,)
        if self._uploads:
            return (MULTIPART,)
        if self.streams:
            return (BINARY,)  # whatever is said: it is not looked into
        return (URLENCODED, MULTIPART) if self._body is not None else ()

    # -- the callee's side

    def decode(self, parts: Parts) -> dict[str, Any]:
        """The arguments by name; those the caller left out are left out.

        Raises BadRequest for what cannot be parsed, UnsupportedMediaType for a body of another media type and
        Unprocessable, with every wrong field in `errors`, for what is parsed and wrong.
        """
        arguments: dict[str, Any] = {}
        wrong: list[dict[str, str]] = []
        if self._lax_type is not None:
            self._decode_lax(parts, arguments, wrong)
        if self._decode_body is not None:
            self._decode_json(parts, arguments, wrong)
        elif self._body is not None or self._uploads:
            self._decode_form(parts, arguments, wrong)
        elif self._stream is not None:
            arguments[self._stream] = parts.stream
        if wrong:
            raise Unprocessable(_summary(wrong), errors=wrong)
        return arguments

    def _decode_lax(self, parts: Parts, arguments: dict[str, Any], wrong: list[dict[str, str]]) -> None:
        values = self._collect(parts)
        if self._only_numbers and {*map(type, values.values())} == {int}:
            arguments.update(values)  # converters made what is meant
            return
        try:
            decoded = msgspec.convert(values, self._lax_type, strict=False)
        except (msgspec.ValidationError, UnicodeError):
            for each in explain(values, self._lax_type, strict=False):
                name, _, rest = each.pointer[1:].partition("/")
                p = self._by_name[name]
                # A structured query parameter is not seen as an object: its fields are the parameters.
                inside = "" if p.structured else "/" + p.alias.replace("~", "~0").replace("/", "~1")
                wrong.append(_entry(Wrong(inside + (rest and "/" + rest), each.expected, each.got), p.source))
            return
        for parameter in self._lax:
            value = getattr(decoded, parameter.name)
            if value is not UNSET:
                arguments[parameter.name] = value

    def _collect(self, parts: Parts) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for p in self._lax:
            if p.source == "query":
                value = _taken(p, parts.query)
            elif p.source == "path":
                value = self._from_path(p.alias, parts.path[p.alias])
            else:
                place = parts.headers if p.source == "header" else parts.cookies
                value = place.get(p.alias, None if p.nullable and p.required else UNSET)
            if value is not UNSET:
                values[p.name] = value
        return values

    def _from_path(self, name: str, value: Any) -> Any:
        if type(value) is int and name in self._numbers:
            return value  # a converter made what is meant; other values go by their text
        assert self._route is not None
        try:
            return _text(self._route.value(name, value) if isinstance(value, str) else value)
        except ValueError:
            raise NotFound("Nothing is here.") from None

    def _decode_json(self, parts: Parts, arguments: dict[str, Any], wrong: list[dict[str, str]]) -> None:
        assert self._decode_body is not None
        if not parts.body and not any(p.required for p in self._members or (self._body,) if p is not None):
            return
        media_type = parts.content_type
        if media_type and media_type != JSON and not _is_json(media_type):
            raise UnsupportedMediaType(f"This operation reads {JSON}; got {media_type}.")
        try:
            try:
                decoded = self._decode_body(parts.body)
            except msgspec.ValidationError as error:
                # It may not be JSON at all: the decoder stops at what is wrong, before it has read the rest.
                values = _with_integers(msgspec.json.decode(parts.body))
                try:
                    decoded = self._decode_body(msgspec.json.encode(values))
                except msgspec.ValidationError:
                    found = explain(values, self._body_type) or [Wrong("", str(error), "")]
                    wrong.extend(_entry(each, "body") for each in found)
                    return
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadRequest(_unparsed(parts.body, error)) from error
        if self._body is not None:
            arguments[self._body.name] = decoded
        else:
            for parameter in self._members:
                value = getattr(decoded, parameter.name)
                if value is not UNSET:
                    arguments[parameter.name] = value

    def _decode_form(self, parts: Parts, arguments: dict[str, Any], wrong: list[dict[str, str]]) -> None:
        fields = parts.form
        if fields is None:  # nothing at all is a form without fields, as a button without any sends it
            fields = read_form(parts.content_type, parts.body) if parts.body or parts.content_type else []
        for p in self._uploads:
            found = _taken(p, [(name, value) for name, value in fields if isinstance(value, Upload)])
            if found is not UNSET:
                arguments[p.name] = found
            elif p.required:
                wrong.append(_entry(Wrong(f"/{p.alias}", "a file (required)", "nothing"), "form"))
        values = _taken(self._body, fields) if self._body is not None else UNSET
        if self._body is None or values is UNSET:
            return
        try:
            arguments[self._body.name] = msgspec.convert(values, self._body.type, strict=False)
        except (msgspec.ValidationError, UnicodeError):
            wrong.extend(_entry(each, "form") for each in explain(values, self._body.type, strict=False))

    # -- the caller's side

    def encode(self, arguments: Mapping[str, Any]) -> Parts:
        """The message of these arguments; raises TypeError for a value that has no wire form."""
        path: dict[str, str] = {}
        query: list[tuple[str, str]] = []
        members: dict[str, Any] = {}
        content_type, body = "", b""
        try:
            for name, value in arguments.items():
                p = self._by_name[name]
                if p.source == "path":
                    path[p.alias] = self._in_path(p.alias, value)
                elif p.source == "query":
                    query.extend(_pairs(p, value))
                elif p.source == "member":
                    members[p.name] = value
                elif p.source == "body":
                    content_type, body = JSON, msgspec.json.encode(value)
                elif p.source == "form":
                    content_type, body = URLENCODED, write_form(_pairs(p, value))
            if self._members:
                content_type, body = JSON, msgspec.json.encode(members)
        except UnicodeEncodeError as error:
            raise TypeError(f"There is a text that cannot be sent: {error}.") from error
        return Parts(path, query, {}, {}, content_type, body)

    def fill(self, path: Mapping[str, str]) -> str:
        """The path of a request with these parts, quoted."""
        assert self._route is not None
        return self._route.fill(path)

    def _in_path(self, name: str, value: Any) -> str:
        assert self._route is not None
        try:
            return self._route.text(name, _text(value))
        except UnicodeEncodeError:
            raise
        except ValueError as error:
            raise TypeError(f"{name}={value!r} has no place in {self._route}.") from error

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], operation: str) -> dict[str, Any]:
        """What a call's positional and keyword arguments are by name; raises TypeError as Python would."""
        if len(args) == len(self.names) and not kwargs:  # nearly always
            return dict(zip(self.names, args, strict=True))
        if len(args) > len(self.names):
            raise TypeError(f"{operation}() takes {len(self.names)} arguments, {len(args)} were given")
        arguments = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self._by_name or name in self.given:
                raise TypeError(f"{operation}() has no parameter '{name}'; it has: {', '.join(self.names) or 'none'}")
            if name in arguments:
                raise TypeError(f"{operation}() got several values for '{name}'")
            arguments[name] = value
        for p in self.parameters:
            if p.required and p.name not in arguments and p.source != "given":
                raise TypeError(f"{operation}() is missing its argument '{p.name}'")
        return arguments


# -- small conversions


def _struct(name: str, parameters: Sequence[Parameter]) -> Any:
    fields = [
        (p.name, p.type if p.required else Union[p.type, UnsetType], *(() if p.required else (UNSET,)))  # noqa: UP007
        for p in parameters
    ]
    return msgspec.defstruct(name, fields, kw_only=True)


def _taken(p: Parameter, pairs: Sequence[tuple[str, Any]]) -> Any:
    """What `p` takes from names and values; of a repeated name the last one counts. UNSET: the default, or an error.

    An empty text where no text can be meant is nothing: forms send it.
    """
    if p.fields:
        names = {field.alias for field in p.fields}
        if (p.nullable or not p.required) and not any(name in names for name, _ in pairs):
            return _nothing(p)
        return {f.alias: value for f in p.fields if (value := _taken(f, pairs)) is not UNSET}
    found = [value for name, value in pairs if name == p.alias and (value != "" or p.text)]
    if found:
        return found if p.many else found[-1]
    return _nothing(p)


def _nothing(p: Parameter) -> Any:
    """What nothing of its name means for `p`, where something must be."""
    if not p.required:
        return UNSET
    return [] if p.many else None if p.nullable else UNSET


def _pairs(p: Parameter, value: Any) -> list[tuple[str, str]]:
    """The names and values from which `_taken` takes `value`; raises TypeError when there are none."""
    if value is None:
        pairs = [] if p.required or p.default is None or p.text or p.fields else [(p.alias, "null")]
    elif p.fields:
        plain = msgspec.to_builtins(value)
        pairs = [pair for f in p.fields if f.alias in plain for pair in _pairs(f, plain[f.alias])]
        if not pairs and p.required and not p.nullable:
            return []
    else:
        pairs = [(p.alias, _text(each)) for each in (value if p.many else (value,))]
    if not pairs:
        meant = _nothing(p) if p.required else p.default
        same = value is meant if value is None or meant is None else (p.many and not meant) or value == meant
        if not same:
            raise TypeError(f"A query cannot tell {p.alias}={value!r} from nothing at all.")
    return pairs


def _text(value: Any) -> str:
    if type(value) is int:
        return str(value)
    plain = value if isinstance(value, str) else msgspec.to_builtins(value)
    if isinstance(plain, str):
        return plain if plain.isascii() else plain.encode().decode()  # which refuses half a surrogate pair
    return repr(plain) if isinstance(plain, float) else msgspec.json.encode(plain).decode()  # inf; true, null, 12


def _with_integers(value: Any) -> Any:
    """`value` with 24.0 as 24: to JSON Schema (validation, 6.1.1), and so to those who read ours, it is an integer."""
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:  # beyond, a float is no exact number
        return int(value)
    return value


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == JSON or media_type.endswith("+json")


def _entry(wrong: Wrong, place: str) -> dict[str, str]:
    return {
        "pointer": wrong.pointer,
        "in": place,
        "expected": wrong.expected,
        "got": wrong.got,
        "detail": f"Expected {wrong.expected}, got {wrong.got}.",
    }


def _summary(wrong: Sequence[Mapping[str, str]]) -> str:
    if len(wrong) == 1:
        return f"{wrong[0]['pointer'] or 'The ' + wrong[0]['in']}: {wrong[0]['detail']}"
    return f"{len(wrong)} fields are wrong; see `errors`."


def _unparsed(body: bytes, error: Exception) -> str:
    return f"The body is not JSON: {error}." if body else f"A body is needed: {JSON}."
