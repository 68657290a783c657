"""What passes between handlers: Request, Response, Principal. Operation-level values; no wire is known here."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from .context import NOWHERE, Context, ambient
from .errors import RopewalkError


class Principal(Struct, frozen=True, gc=False):
    """Who asks. Set by the authentication filter alone; authorization reads this and nothing else."""

    service: str | None = None  # the calling service, when it said who it is
    subject: str | None = None  # the person or machine on whose behalf, as the authenticator names it
    scopes: frozenset[str] = frozenset()

    def has(self, *scopes: str) -> bool:
        """Whether every one of `scopes` was granted."""
        return self.scopes.issuperset(scopes)


ANONYMOUS = Principal()

_caller: contextvars.ContextVar[Principal] = contextvars.ContextVar("ropewalk_principal", default=ANONYMOUS)
caller = _caller.get  # on whose behalf the running operation calls its siblings; never read to authorize
enter_principal = _caller.set


class Called(Protocol):
    """What a filter may know of the operation that is called; `operation.Operation` provides it."""

    @property
    def id(self) -> str: ...  # "payments.charge"
    @property
    def idempotent(self) -> bool: ...
    @property
    def safe(self) -> bool: ...  # changes nothing
    @property
    def keyed(self) -> bool: ...  # may be repeated under its key
    @property
    def raises(self) -> tuple[type[RopewalkError], ...]: ...
    @property
    def cancellable(self) -> bool: ...
    @property
    def takes_stream(self) -> bool: ...  # its body comes while it runs
    @property
    def access(self) -> str: ...  # "public" | "user" | "siblings"
    @property
    def scopes(self) -> frozenset[str]: ...


class Payload(Protocol):
    """Arguments that are still on the wire."""

    async def read(self) -> Mapping[str, Any]:
        """The arguments by name, read and decoded now; raises BadRequest, Unprocessable, ContentTooLarge, ..."""

    def supply(self, type: Any) -> Any:
        """What the wire itself gives to a parameter whose default is `given`: the raw IRequest, for one."""


class Request(Struct, frozen=True):
    """One call of one operation."""

    operation: Called
    payload: Mapping[str, Any] | Payload  # arguments by name, or what reads and decodes them when first asked
    context: Context = NOWHERE
    principal: Principal = ANONYMOUS
    metadata: Mapping[str, str] = {}  # lower-case names: what the wire said beside the payload (HTTP: its headers)

    @property
    def attempt(self) -> int:
        """Which try this is; 1 is the first."""
        return self.context.attempt

    def replace(self, **changes: Any) -> Request:
        """A copy with these fields changed."""
        return msgspec.structs.replace(self, **changes)


Entered = tuple[contextvars.Token[Context], contextvars.Token[Principal]]


def enter(request: Request) -> Entered:
    """Make the context and the principal of `request` those of the running coroutine, until `leave` is given this."""
    return ambient.set(request.context), _caller.set(request.principal)


def leave(entered: Entered) -> None:
    """Undo `enter`, where that was done: a coroutine that all have forgotten is closed in whichever context."""
    context, principal = entered
    try:
        _caller.reset(principal)
        ambient.reset(context)
    except ValueError:  # contextlib.suppress costs more than both
        return


class Response(Struct, frozen=True):
    """What a handler answers; an operation that returns a plain `v` has answered `Response(body=v, status=<declared>)`.

    A `body` of bytes goes out as it is, text when `headers` gives it a content type of its own, a `Stream` piece by
    piece; anything else becomes JSON.
    """

    body: Any = None
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()  # (name, value), in order; a name may repeat
    cookies: Sequence[str] = ()  # values for Set-Cookie, one each


class Accepted(Struct, frozen=True):
    """What an operation answers that works in the background: it will be done, whatever happens to this process."""

    id: str
    status: str  # the path at which the same service says what became of it


class Stream(Struct, frozen=True):
    """A body that is sent piece by piece as `iterator` yields.

    Pieces of bytes or text go out as they are under `content_type`; when that is None, values become server-sent
    events or NDJSON lines, as the caller's `Accept` prefers (NDJSON unless it asks for `text/event-stream`).
    """

    iterator: AsyncIterator[Any]
    content_type: str | None = None
