"""An operation: one typed thing a service does, with the facts its callee states.

`get`, `post`, `put`, `patch`, `delete` give it a route; `operation` leaves it callable by its id alone; `mount` serves
a foreign application beneath a path. The decorators only note a `Declaration`; `Operation`s are made of it, and
checked, when the class is made (`service.py`).
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

import msgspec
from msgspec import Struct
from msgspec import inspect as types_of

from .codec.binding import BINARY, JSON, Binding
from .codec.parameters import parameters_of, spelt, unknown
from .codec.pieces import decoded
from .errors import DeclarationError, RopewalkError, Unavailable
from .message import Accepted, Response, Stream

F = TypeVar("F", bound=Callable[..., Any])
Access = Literal["public", "user", "siblings"]

MAX_BODY = 1 << 20  # bytes, unless the operation says more: generous for JSON, small enough to hold many in memory
_ACCESS = ("public", "user", "siblings")
_BODYLESS = (204, 205, 304)  # RFC 9110, sections 15.3.5, 15.3.6, 15.4.5
_OF_THE_CONNECTION = ("connection", "content-length", "date", "server", "set-cookie", "transfer-encoding")
_ALIAS = re.compile(r"[a-z][a-z0-9-]*\.[A-Za-z]\w*")


class Declaration(Struct, frozen=True):
    """What a decorator was told; the attribute `__ropewalk__` of the function."""

    method: str | None  # None: by id alone
    route: str | None
    status: int | None = None
    raises: tuple[type[RopewalkError], ...] = ()
    idempotent: bool | None = None
    cancellable: bool | None = None
    access: Access = "siblings"
    scopes: frozenset[str] = frozenset()
    priority: int = 0
    max_body: int = MAX_BODY
    background: bool = False
    aliases: tuple[str, ...] = ()
    mounted: bool = False
    # What `durable.py` declares: an operation that nobody calls.
    delivery: Any = None  # durable.Delivery
    schedule: Any = None  # durable.Timing
    saga: bool = False


_IDEMPOTENT = ("GET", "PUT", "DELETE")  # by the method's own definition: RFC 9110, section 9.2.2


def _verb(method: str) -> Callable[..., Callable[[F], F]]:
    def declare(
        route: str,
        *,
        status: int | None = None,
        raises: Sequence[type[RopewalkError]] = (),
        idempotent: bool | None = None,
        cancellable: bool | None = None,
        access: Access = "siblings",
        scopes: Sequence[str] = (),
        priority: int = 0,
        max_body: int = MAX_BODY,
        background: bool = False,
        aliases: Sequence[str] = (),
    ) -> Callable[[F], F]:
        verb = method.lower()
        if not isinstance(route, str):
            name = getattr(route, "__name__", "rooms")
            raise DeclarationError(f'@{verb} needs its route: `@{verb}("/{name}")`.')
        if not route.startswith("/"):
            raise DeclarationError(f'@{verb}("{route}"): a route starts with a slash: "/{route}".')
        return noting(
            Declaration(
                method,
                route,
                status,
                _several("raises", raises, "Conflict"),
                idempotent,
                cancellable,
                access,
                frozenset(_several("scopes", scopes, '"rooms:write"')),
                priority,
                max_body,
                background,
                _several("aliases", aliases, '"rooms.hold"'),
            )
        )

    declare.__name__ = declare.__qualname__ = method.lower()
    declare.__doc__ = f"""Declare an operation reached by {method} at `route`, like "/rooms/<int:room_id>".

    `status`: of a plain result, by default 200, or 204 when the operation returns None. `raises`: the errors a caller
    should expect. `idempotent`: may be repeated (default: {method in _IDEMPOTENT}; True on a POST or PATCH: under its
    key). `cancellable`: stop when the client is gone (default: {method == "GET"}). `access`: "siblings" (default),
    "user" or "public"; `scopes`: what the principal must hold; `priority`: a ceiling; `max_body`: bytes;
    `aliases`: earlier ids.
    """
    return declare


get = _verb("GET")
post = _verb("POST")
put = _verb("PUT")
patch = _verb("PATCH")
delete = _verb("DELETE")


@overload
def operation(function: F) -> F: ...


@overload
def operation(
    *,
    raises: Sequence[type[RopewalkError]] = (),
    idempotent: bool = False,
    cancellable: bool = False,
    scopes: Sequence[str] = (),
    priority: int = 0,
    max_body: int = MAX_BODY,
    background: bool = False,
    aliases: Sequence[str] = (),
) -> Callable[[F], F]: ...


def operation(
    function: F | None = None,
    *,
    raises: Sequence[type[RopewalkError]] = (),
    idempotent: bool = False,
    cancellable: bool = False,
    scopes: Sequence[str] = (),
    priority: int = 0,
    max_body: int = MAX_BODY,
    background: bool = False,
    aliases: Sequence[str] = (),
) -> Any:
    """Declare an operation without a route: siblings call it by its id, `POST /-/<service>/<major>/<operation>`.

    The keywords are those of `get`. Used with or without parentheses.
    """
    declaration = Declaration(
        None,
        None,
        None,
        _several("raises", raises, "Conflict"),
        idempotent,
        cancellable,
        "siblings",
        frozenset(_several("scopes", scopes, '"rooms:write"')),
        priority,
        max_body,
        background,
        _several("aliases", aliases, '"rooms.hold"'),
    )
    return noting(declaration)(function) if function is not None else noting(declaration)


def mount(route: str, *, access: Access = "siblings") -> Callable[[F], F]:
    """Serve what the method returns (an IResource, a WSGI or an ASGI application) at `route` and all beneath it.

    The method is called once, when the service starts.
    """
    if not isinstance(route, str) or not route.startswith("/"):
        raise DeclarationError('@mount needs the path it serves: `@mount("/legacy")`.')
    return noting(Declaration(None, route.rstrip("/") or "/", access=access, mounted=True))


def _several(name: str, values: Any, example: str) -> tuple[Any, ...]:
    if isinstance(values, (str, type)):
        raise DeclarationError(f"{name}= takes a tuple: `{name}=({example},)`; got {values!r}.")
    return tuple(values)


def noting(declaration: Declaration) -> Callable[[F], F]:
    """A decorator that leaves `declaration` with the function."""

    def note(function: F) -> F:
        function.__ropewalk__ = declaration  # type: ignore[attr-defined]
        return function

    return note


class Operation:
    """One operation of a service or contract, compiled: its facts, where its parameters lie, what it answers."""

    def __init__(
        self,
        service: str,
        name: str,
        function: Callable[..., Any],
        declared: Declaration,
        hints: Mapping[str, Any],
        doc: str,
    ) -> None:
        """Raises DeclarationError for what cannot work, with the form that would."""
        where = f"{service}.{name}"
        method = declared.method
        self.service = service
        self.name = name
        self.id = where
        self.method = method
        self.route = declared.route
        self.raises = declared.raises
        self.idempotent = declared.idempotent if declared.idempotent is not None else method in _IDEMPOTENT
        self.safe = method == "GET"
        self.keyed = self.idempotent and method not in _IDEMPOTENT  # may be repeated, under a key
        self.cancellable = declared.cancellable if declared.cancellable is not None else method == "GET"
        self.access = declared.access
        self.scopes = declared.scopes
        self.priority = declared.priority
        self.max_body = declared.max_body
        self.background = declared.background
        self.aliases = declared.aliases
        self.binding = Binding(parameters_of(function, hints, declared.route, method or "POST", where), declared.route)
        self.takes_stream = self.binding.streams  # of bytes, its body as it comes
        self.returns, self.generates = _answer(function, hints, where)
        self.comes_to = self.returns  # what is answered in the end; differs of what is done in the background
        if declared.background:
            self.returns = Accepted
        self.streams = _is_stream(self.comes_to)
        self.raw = self.comes_to is Response or self.streams  # says itself what goes out
        self.content_type = BINARY if self.returns is bytes else JSON  # of a plain result
        self._plain = (("content-type", self.content_type),)
        self.status = 202 if declared.background else declared.status or (204 if self.returns is type(None) else 200)
        self.item = next(iter(get_args(self.returns)), Any) if self.streams else None  # the type of a stream's pieces
        self._decode = _decoder(Any if self.returns is Response else self.item or self.returns, where)
        _check_facts(self, where)
        self.summary, _, rest = doc.partition("\n")
        self.description = rest.strip()

    def __repr__(self) -> str:
        return f"<Operation {self.id} {self.method or 'CALL'} {self.route or ''}>"

    @property
    def accepts_any(self) -> bool:
        """Whether its answers' media type is its own affair, so that `Accept` cannot refuse it."""
        return self.raw

    def sent(self, response: Response) -> tuple[tuple[tuple[str, str], ...], bytes]:
        """The headers (lower-case names) and bytes of an answer that is no stream.

        Raises what msgspec raises for a value that is no JSON.
        """
        body = response.body
        if not self.raw and not response.headers:  # nearly always
            data = b"" if body is None and response.status in _BODYLESS else self.encode_result(body)
            return self._plain if data else (), data
        headers = [(name.lower(), value) for name, value in response.headers]
        said = dict(headers).get("content-type", "")
        kind = said
        if isinstance(body, str) and said:
            data = body.encode()
            kind += "; charset=utf-8" * (said.startswith("text/") and "charset=" not in said.lower())
        elif isinstance(body, (bytes, bytearray)) and (said or self.raw or self.returns is bytes):
            data, kind = bytes(body), said or BINARY
        elif body is None and (self.raw or response.status in _BODYLESS):
            data = b""
        else:
            data, kind = self.encode_result(body), said or self.content_type
        if kind != said and data:
            headers = [(name, value) for name, value in headers if name != "content-type"] + [("content-type", kind)]
        return tuple(headers), data

    def received(self, status: int, headers: Iterable[tuple[str, str]], data: bytes | AsyncIterator[bytes]) -> Response:
        """The answer that a callee's `headers` (lower-case names) and `data` stand for: the other end of `sent`.

        `data` is an iterator when the operation streams. Raises Unavailable when they are not what it answers.
        """
        kept = [header for header in headers if header[0] not in _OF_THE_CONNECTION]
        cookies = tuple([value for name, value in headers if name == "set-cookie"])
        if not isinstance(data, bytes):
            body: Any = decoded(data, dict(kept).get("content-type", ""), self.decode_item)
        else:
            body = data if self.raw else self.decode_result(data)
        return Response(body, status, kept, cookies)

    def encode_result(self, body: Any) -> bytes:
        """The bytes of a plain result, of `content_type`."""
        if self.returns is type(None):
            return b""
        return bytes(body) if self.returns is bytes else msgspec.json.encode(body)

    def decode_result(self, body: bytes) -> Any:
        """The result that a callee's bytes stand for, by the declared type; raises Unavailable for others."""
        if self.returns is type(None):
            return None
        return body if self.returns is bytes else self._decoded(body)

    def decode_item(self, line: bytes) -> Any:
        """The piece of a stream that a line of JSON stands for; raises Unavailable for others."""
        return self._decoded(line)

    def _decoded(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Unavailable(f"{self.id} was answered with what is not its result: {error}.") from error


def _check_facts(operation: Operation, where: str) -> None:
    if operation.access not in _ACCESS:
        raise DeclarationError(f"{where}: access is one of {', '.join(_ACCESS)}; got {operation.access!r}.")
    for error in operation.raises:
        if not (isinstance(error, type) and issubclass(error, RopewalkError)):
            raise DeclarationError(
                f"{where}: raises={error!r} is not an error callers can be told of; subclass one of ropewalk's: "
                f"`class {getattr(error, '__name__', 'SoldOut')}(Conflict): ...`."
            )
    if operation.status not in range(200, 600):
        raise DeclarationError(f"{where}: status is a number from 200 to 599; got {operation.status!r}.")
    if operation.status in _BODYLESS and operation.returns not in (type(None), Response):
        raise DeclarationError(f"{where}: a reply with status {operation.status} has no body; say `-> None`.")
    if operation.background and (operation.raw or operation.safe or operation.binding.http_only):
        raise DeclarationError(
            f"{where}: what is done in the background is kept with its arguments and its result: no GET, no stream, no "
            "Response, and nothing that only HTTP can bring."
        )
    if not isinstance(operation.max_body, int) or operation.max_body < 0:
        raise DeclarationError(f"{where}: max_body is a number of bytes; got {operation.max_body!r}.")
    if operation.takes_stream and operation.keyed:
        raise DeclarationError(
            f"{where}: its body is gone when it has been read, so it cannot be repeated under a key; leave "
            "`idempotent=True` out, or make it a PUT."
        )
    for alias in operation.aliases:
        if not (isinstance(alias, str) and _ALIAS.fullmatch(alias)):
            raise DeclarationError(f'{where}: an alias is an earlier id like "rooms.hold"; got {alias!r}.')


def _answer(function: Callable[..., Any], hints: Mapping[str, Any], where: str) -> tuple[Any, bool]:
    """What it answers, and whether a call gives an iterator at once, where others give something to await."""
    name = function.__name__
    returns = hints.get("return", inspect.Signature.empty)
    outer = getattr(get_origin(returns) or returns, "__name__", "")
    awaited = inspect.iscoroutinefunction(function)
    yields = inspect.isasyncgenfunction(function)
    if not awaited and not yields and outer not in (*_AWAITABLE, *_ITERABLE):
        raise DeclarationError(
            f"{where}: an operation is `async def {name}(...)`, or says that it returns a Deferred: "
            f"`def {name}(...) -> Deferred[...]`."
        )
    if returns is inspect.Signature.empty:
        raise DeclarationError(
            f"{where}: what it answers is part of the contract; add `-> None`, `-> Response` or the result's type."
        )
    if yields and outer not in _ITERABLE:
        raise DeclarationError(f"{where}: it yields, so it answers a stream: `-> AsyncIterator[{spelt(returns)}]`.")
    if not awaited and outer in _AWAITABLE:
        awaited = True
        returns = (get_args(returns) or (Any,))[-1]
    if get_origin(returns) in (Union, types.UnionType) and Response in get_args(returns):
        returns = Response
    return type(None) if returns is None else returns, not awaited


_AWAITABLE = ("Deferred", "Awaitable", "Coroutine")
_ITERABLE = ("AsyncIterator", "AsyncGenerator", "AsyncIterable")


def _is_stream(returns: Any) -> bool:
    origin = get_origin(returns) or returns
    return origin is Stream or (isinstance(origin, type) and issubclass(origin, AsyncIterable))


def _decoder(returns: Any, where: str) -> Callable[[bytes], Any]:
    try:
        custom = unknown(types_of.type_info(returns))
        if custom is not None:
            raise TypeError(f"no wire carries {spelt(custom)}")
        return msgspec.json.Decoder(returns).decode
    except TypeError as error:
        raise DeclarationError(
            f"{where}: its result cannot be sent as JSON ({error}); return a Struct, a dataclass or another msgspec "
            "type, or a Response."
        ) from error


def differences(promised: Operation, kept: Operation) -> Iterator[tuple[str, str]]:
    """What callers of `promised` would miss in `kept`: (what was expected, what is there instead)."""
    if (kept.method, kept.route) != (promised.method, promised.route):
        yield _decorator(promised), _decorator(kept)
    mine = {p.name: p for p in kept.binding.parameters}
    theirs = {p.name: p for p in promised.binding.parameters if p.source != "given"}
    for p in theirs.values():
        found = mine.pop(p.name, None)
        if found is None or found.source == "given":
            yield f"`{p.name}: {spelt(p.type)}`", "nothing"
        elif found.type != p.type:
            yield f"`{p.name}: {spelt(p.type)}`", f"`{p.name}: {spelt(found.type)}`"
        elif (found.source, found.alias) != (p.source, p.alias):
            yield f"'{p.name}' in the {p.source} as {p.alias!r}", f"in the {found.source} as {found.alias!r}"
        elif found.required and not p.required:
            yield f"a default for '{p.name}', which its callers may leave out", "none"
    for p in mine.values():
        if p.required:
            yield f"a default for '{p.name}', which its callers do not know", "none"
    if kept.returns != promised.returns:
        yield f"`-> {spelt(promised.returns)}`", f"`-> {spelt(kept.returns)}`"
    if kept.binding.http_only and not promised.binding.http_only:
        yield "what a sibling can send", "a parameter that only HTTP can bring"


def _decorator(operation: Operation) -> str:
    return f'`@{operation.method.lower()}("{operation.route}")`' if operation.method else "`@operation`"
