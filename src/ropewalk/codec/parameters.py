"""A signature read against a route: where each parameter lies in a message, or what to write so that it lies somewhere.

Everything wrong is a DeclarationError that names the parameter and shows the form that would work.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec import inspect as types_of

from ..context import Context
from ..errors import DeclarationError
from ..message import Principal, Request
from .routes import PLACEHOLDER, Route
from .types import Cookie, Form, Header, Query, Upload, given

Source = Literal["path", "query", "header", "cookie", "body", "member", "form", "upload", "stream", "given"]

_BODYLESS = ("GET", "HEAD", "DELETE")
_SUPPLIED = (Principal, Context, Request)  # on every wire; what else is given only HTTP can give
_STREAMS = (AsyncIterator[bytes], AsyncIterable[bytes])
_MARKERS = (Header, Cookie, Query, Form)
_NAMED = (types_of.StructType, types_of.DataclassType, types_of.TypedDictType)
_OBJECTS = (*_NAMED, types_of.DictType)
_TUPLES = (types_of.VarTupleType, types_of.TupleType)
_COLLECTIONS = (types_of.ListType, types_of.SetType, types_of.FrozenSetType, *_TUPLES)
_STRUCTURED = (*_OBJECTS, *_COLLECTIONS, types_of.NamedTupleType, types_of.AnyType, types_of.RawType)
_TEXT = (types_of.StrType, types_of.BytesType, types_of.ByteArrayType, types_of.MemoryViewType, types_of.AnyType)
_USE = "use a msgspec type (int, str, date, UUID, Struct, dataclass, ...)"


class Parameter(Struct, frozen=True):
    """One parameter: its Python name and type, where it comes from, and what it is called there."""

    name: str
    type: Any
    source: Source
    alias: str
    required: bool
    default: Any = inspect.Parameter.empty
    many: bool = False  # takes every value of a repeated name
    text: bool = True  # text can be meant, so that "" and "null" are values
    nullable: bool = False
    fields: tuple[Parameter, ...] = ()  # of an object that is taken apart: each is a parameter of its own

    @property
    def structured(self) -> bool:
        """Whether its fields are what is sent, instead of itself."""
        return bool(self.fields)

    @property
    def only_http(self) -> bool:
        """Whether no other wire can bring it."""
        if self.source == "given":
            return self.type not in _SUPPLIED
        return self.source in ("header", "cookie", "upload", "stream") or any(f.only_http for f in self.fields)


def parameters_of(
    function: Callable[..., Any], hints: Mapping[str, Any], route: str | None, method: str, where: str
) -> list[Parameter]:
    """The parameters of `function` (without `self`), read against `route`; None means a call by operation name.

    `where` says which operation it is.
    """
    in_path = _in_path(route, where)
    signature = list(inspect.signature(function).parameters.values())[1:]
    parameters = [_parameter(p, hints, in_path, route, method, where) for p in signature]
    named = {p.name for p in parameters if p.source == "path"}
    for name, converter in in_path.items():
        if name not in named:
            type = {"int": "int", "float": "float", "uuid": "UUID"}.get(converter, "str")
            raise DeclarationError(f"{where}: the route {route} names '{name}'; add a parameter `{name}: {type}`.")
    _check_bodies(parameters, route, method, where)
    return parameters


def _in_path(route: str | None, where: str) -> dict[str, str]:
    """The names in the route, each with its converter."""
    if route is None:
        return {}
    try:
        Route(route)
    except ValueError as error:
        raise DeclarationError(f'{where}: {error}; a route is like "/rooms/<int:room_id>".') from error
    return {match["name"]: match["converter"] or "string" for match in PLACEHOLDER.finditer(route)}


def _check_bodies(parameters: Sequence[Parameter], route: str | None, method: str, where: str) -> None:
    bodies = [p for p in parameters if p.source in ("body", "form", "stream")]
    streams = [p for p in bodies if p.source == "stream"]
    if streams and len(bodies) > 1:
        raise DeclarationError(f"{where}: '{streams[0].name}' is all of the body; take the rest from the query.")
    if len(bodies) > 1:
        names = " and ".join(f"'{p.name}'" for p in bodies)
        raise DeclarationError(
            f"{where}: a request has one body, and {names} are both structured; put them into one Struct"
            f"{_or_from_query(bodies[1], where)}."
        )
    uploads = [p for p in parameters if p.source == "upload"]
    for body in bodies:
        if uploads and body.source == "stream":
            raise DeclarationError(
                f"{where}: a file comes with a form, and '{body.name}' is all of the body; keep one."
            )
        if uploads and body.source == "body":
            raise DeclarationError(
                f"{where}: a file comes with a form; say `{body.name}: Annotated[{spelt(body.type)}, Form]`."
            )
    if route is not None and method in _BODYLESS:
        for p in (*bodies, *uploads):
            raise DeclarationError(
                f"{where}: a {method} request has no body to take '{p.name}' from; use @post{_or_from_query(p, where)}."
            )


def _or_from_query(p: Parameter, where: str) -> str:
    """The other way out, for what a query can carry."""
    try:
        if p.source in ("upload", "stream"):
            return ""
        kinds = list(_flat(types_of.type_info(p.type)))
        if not (_is_collection(kinds) or tuple(_fields(p.name, p.type, kinds, "query", where))):
            return ""
    except DeclarationError:
        return ""
    return f", or take it from the query: `{p.name}: Annotated[{spelt(p.type)}, Query]`"


def _parameter(
    p: inspect.Parameter,
    hints: Mapping[str, Any],
    in_path: Mapping[str, str],
    route: str | None,
    method: str,
    where: str,
) -> Parameter:
    if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
        star = "*" if p.kind is p.VAR_POSITIONAL else "**"
        raise DeclarationError(
            f"{where}: '{star}{p.name}' has no name on a wire; list the parameters: `{p.name}: str`."
        )
    if p.kind is p.POSITIONAL_ONLY:
        raise DeclarationError(f"{where}: '{p.name}' goes over the wire by its name; remove the `/` after it.")
    if p.name not in hints:
        raise DeclarationError(f"{where}: the parameter '{p.name}' has no type; say `{p.name}: str`, or what it is.")
    hint, markers = _unmarked(hints[p.name])
    required = p.default is p.empty
    if p.default is given or _is_supplied(hint):
        return _given(p, hint, where)
    if hint in _STREAMS:
        return _stream(p, hint, required, markers, route, where)
    info = _info(p.name, hint, where)
    kinds = list(_flat(info))
    source, alias = _place(p.name, hint, kinds, markers, in_path, route, method)
    if source == "path" and not required:
        raise DeclarationError(f"{where}: '{p.name}' is part of the path and is always there; remove its default.")
    if source in ("path", "header", "cookie") and _has(kinds, _STRUCTURED):
        raise DeclarationError(
            f"{where}: '{p.name}' comes from the {source}, which carries text; {spelt(hint)} does not fit. "
            f"Take `{p.name}: str`, or move it to the body."
        )
    if source == "form" and not _has(kinds, _NAMED):
        raise DeclarationError(
            f"{where}: a form has named fields; make '{p.name}' a Struct: `{p.name}: Annotated[SomeForm, Form]`."
        )
    fields: tuple[Parameter, ...] = ()
    if source == "form" or (source == "query" and _has(kinds, _STRUCTURED) and not _is_collection(kinds)):
        fields = tuple(_fields(p.name, hint, kinds, source, where))
    return Parameter(p.name, hint, source, alias, required, p.default, *_traits(info), fields)


def _stream(
    p: inspect.Parameter, hint: Any, required: bool, markers: Sequence[Any], route: str | None, where: str
) -> Parameter:
    if route is None or markers or not required:
        raise DeclarationError(
            f"{where}: '{p.name}: {spelt(hint)}' is the body of a request as it comes; it has no marker and no "
            'default, and the operation has a route, `@post("/...")`.'
        )
    return Parameter(p.name, hint, "stream", p.name, True)


def _given(p: inspect.Parameter, hint: Any, where: str) -> Parameter:
    if not _is_supplied(hint):
        raise DeclarationError(
            f"{where}: nothing supplies '{p.name}: {spelt(hint)}'; `given` is for Principal, Context, Request and "
            "IRequest."
        )
    if p.default is not given:
        raise DeclarationError(f"{where}: '{p.name}' is supplied, not sent; say `{p.name}: {spelt(hint)} = given`.")
    return Parameter(p.name, hint, "given", p.name, False)


def _place(
    name: str,
    hint: Any,
    kinds: Sequence[types_of.Type],
    markers: Sequence[Any],
    in_path: Mapping[str, str],
    route: str | None,
    method: str,
) -> tuple[Source, str]:
    for marker in markers:
        if isinstance(marker, Header):
            return "header", (marker.name or name.replace("_", "-")).lower()
        if isinstance(marker, (Cookie, Query)):
            return "cookie" if isinstance(marker, Cookie) else "query", marker.name or name
        return "form", name
    if hint is Upload or Upload in get_args(hint):
        return "upload", name
    if route is None:
        return "member", name
    if name in in_path:
        return "path", name
    if _has(kinds, _STRUCTURED) and not (method in _BODYLESS and _is_collection(kinds)):
        return "body", name
    return "query", name


def _fields(name: str, hint: Any, kinds: Sequence[types_of.Type], source: Source, where: str) -> Iterator[Parameter]:
    """The fields of an object that is sent by field; raises DeclarationError for one that text cannot be."""
    named = [kind for kind in kinds if isinstance(kind, _NAMED)]
    if len(kinds) != 1 or not named:
        raise DeclarationError(
            f"{where}: '{name}: {spelt(hint)}' cannot be taken from the {source}, which has named fields; use a Struct."
        )
    for field in named[0].fields:
        inner = list(_flat(field.type))
        items = _items(inner) if _is_collection(inner) else inner
        upload = source == "form" and any(map(_is_upload, items))
        if _has(items, _STRUCTURED) and not upload:
            raise DeclarationError(
                f"{where}: '{field.name}' of {spelt(hint)} cannot be taken from the {source}, whose fields are text; "
                f"take `{name}` as the body, or flatten it."
            )
        default = field.default if field.required or field.default is not msgspec.NODEFAULT else field.default_factory
        if default in (list, set, frozenset, tuple):
            default = ()
        yield Parameter(
            field.encode_name,
            field.type,
            "upload" if upload else source,
            field.encode_name,
            field.required,
            default,
            *_traits(field.type),
        )


# -- what a type is on a wire


def _info(name: str, hint: Any, where: str) -> types_of.Type:
    try:
        info = types_of.type_info(hint)
    except Exception as error:  # msgspec raises TypeError, typing NameError and others: all mean "not a type it knows"
        raise DeclarationError(f"{where}: '{name}: {spelt(hint)}' cannot be bound ({error}); {_USE}.") from error
    custom = unknown(info)
    if custom is not None:
        what = "it" if custom is hint else spelt(custom)
        raise DeclarationError(f"{where}: '{name}: {spelt(hint)}' cannot be bound: no wire carries {what}; {_USE}.")
    return info


def unknown(info: types_of.Type) -> Any:
    """A class within msgspec's description of a type that msgspec does not know; None when there is none."""
    seen: set[int] = set()
    found = [info]
    while found:
        each = found.pop()
        if isinstance(each, types_of.CustomType):
            return each.cls
        if id(each) not in seen:  # a type may hold itself
            seen.add(id(each))
            found.extend(_parts(each))
    return None


def _parts(info: types_of.Type) -> Iterator[types_of.Type]:
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, (types_of.Type, types_of.Field)):
                yield part.type if isinstance(part, types_of.Field) else part


def _union(info: types_of.Type) -> Sequence[types_of.Type]:
    while isinstance(info, types_of.Metadata):
        info = info.type
    return info.types if isinstance(info, types_of.UnionType) else (info,)


def _flat(info: types_of.Type) -> Iterator[types_of.Type]:
    """The members of a union, or the type itself, without null and metadata."""
    for each in _union(info):
        if isinstance(each, (types_of.UnionType, types_of.Metadata)):
            yield from _flat(each)
        elif not isinstance(each, types_of.NoneType):
            yield each


def _has(kinds: Sequence[types_of.Type], those: tuple[type, ...]) -> bool:
    return any(isinstance(kind, those) for kind in kinds)


def _items(kinds: Sequence[types_of.Type]) -> list[types_of.Type]:
    return [each for kind in kinds for item in _parts(kind) for each in _flat(item)]


def _is_upload(kind: types_of.Type) -> bool:
    return getattr(kind, "cls", None) is Upload


def _is_collection(kinds: Sequence[types_of.Type]) -> bool:
    """Whether it is a list, set or tuple of values that fit into text, or of files."""
    return any(
        isinstance(kind, _COLLECTIONS) and not any(_has([i], _STRUCTURED) and not _is_upload(i) for i in _items([kind]))
        for kind in kinds
    )


def _traits(info: types_of.Type) -> tuple[bool, bool, bool]:
    """`many`, `text`, `nullable` of a parameter of this type."""
    kinds = list(_flat(info))
    many = _is_collection(kinds)
    nullable = any(isinstance(each, types_of.NoneType) for each in _union(info))
    return many, any(map(_is_text, _items(kinds) if many else kinds)), nullable


def _is_text(kind: types_of.Type) -> bool:
    """Whether "" and "null" may be values of it."""
    if isinstance(kind, types_of.LiteralType):
        return not {"", "null"}.isdisjoint(kind.values)
    if isinstance(kind, types_of.EnumType):
        return not {"", "null"}.isdisjoint(member.value for member in kind.cls)
    return isinstance(kind, _TEXT)


def _unmarked(hint: Any) -> tuple[Any, list[Any]]:
    """The type without our markers, and the markers; other metadata (msgspec.Meta) stays with the type."""
    if get_origin(hint) is not Annotated:
        return hint, []
    inner, *metadata = get_args(hint)
    markers = [m() if isinstance(m, type) and issubclass(m, _MARKERS) else m for m in metadata]
    kept = [m for m in markers if not isinstance(m, _MARKERS)]
    return (Annotated[(inner, *kept)] if kept else inner), [m for m in markers if isinstance(m, _MARKERS)]


def _is_supplied(hint: Any) -> bool:
    # IRequest by name: codec imports no Twisted.
    return hint in _SUPPLIED or getattr(hint, "__name__", "") == "IRequest" or hasattr(hint, "of_request")


def spelt(hint: Any) -> str:
    """A type as its author wrote it, without modules: `list[Stay] | None`."""
    if hint is type(None):
        return "None"
    if get_origin(hint) is None and hasattr(hint, "__name__"):
        return str(hint.__name__)
    return re.sub(r"(?:[\w<>]+\.)+", "", str(hint))
