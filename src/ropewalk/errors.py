"""Every error a caller may meet, one tree. Each is an RFC 9457 problem and answers three questions.

*Whose fault*: `caller`, `callee` or `network`. *Did it run*: `no`, `maybe` or `yes`. *May it be repeated*:
`retryable`, which holds only at the hop that met the error and is cleared when it leaves an operation.

A service adds its own by subclassing; the class is then found by its problem `type` wherever it is known:

>>> class SoldOut(Conflict):
...     '''Raised when no room of that kind is left.'''
>>> SoldOut.type
'urn:ropewalk:problem:sold-out'
>>> SoldOut("No double room on 1 May.", room_kind="double").members
{'room_kind': 'double'}
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

Fault = Literal["caller", "callee", "network"]
Ran = Literal["no", "maybe", "yes"]

_PREFIX = "urn:ropewalk:problem:"


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


class DeclarationError(TypeError):
    """Raised when a service, a contract or an operation is declared wrongly; the message shows the right form."""


class ConfigurationError(ValueError):
    """Raised when the system file, the environment or the command line holds a value that cannot be used."""


class RopewalkError(Exception):
    """Raised when an operation fails in a way its caller should see; the base of every error that crosses the wire.

    `detail` is for people. Further keywords become members of the problem document. `status` defaults to the class's;
    `headers` are (name, value) pairs for the reply.
    """

    status: int = 500
    title: ClassVar[str] = "Internal Server Error"
    type: ClassVar[str] = _PREFIX + "internal-server-error"
    fault: Fault = "callee"
    ran: Ran = "maybe"
    retryable: bool = False
    met_at: str = ""  # the sibling that answered with it, while it is inside the operation that called

    registry: ClassVar[dict[str, builtins.type[RopewalkError]]] = {}

    def __init_subclass__(cls, type: str | None = None, title: str | None = None, **kwargs: Any) -> None:
        """`type`: the problem's URI, by default made of the class's name; `title`: a short summary for people."""
        super().__init_subclass__(**kwargs)
        cls.type = type or _PREFIX + _kebab(cls.__name__)
        if title or "title" not in cls.__dict__:
            cls.title = title or _kebab(cls.__name__).replace("-", " ").capitalize()
        # A class that shares a built-in's name is found by whoever declares it in `raises`, and displaces nothing.
        if getattr(RopewalkError.registry.get(cls.type), "__module__", None) != __name__:
            RopewalkError.registry[cls.type] = cls

    def __init__(
        self,
        detail: str = "",
        *,
        status: int | None = None,
        headers: Iterable[tuple[str, str]] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members
        self.headers = tuple(headers)
        if status is not None:
            self.status = status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.detail!r} fault={self.fault} ran={self.ran}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process pools whole: members and instance attributes included."""
        return (_rebuilt, (type(self), self.detail, self.__dict__.copy()))


def _rebuilt(cls: type[RopewalkError], detail: str, state: dict[str, Any]) -> RopewalkError:
    error = cls.__new__(cls, detail)
    Exception.__init__(error, detail)
    error.__dict__.update(state)
    return error


RopewalkError.registry[RopewalkError.type] = RopewalkError


class _CallerError(RopewalkError):
    """Raised when the request itself is at fault; repeating it unchanged cannot help."""

    fault = "caller"
    ran = "no"


class BadRequest(_CallerError):
    """Raised when a request cannot be parsed: malformed JSON, a broken form, bytes that are not UTF-8."""

    status = 400


class Unauthorized(_CallerError):
    """Raised when an operation needs to know who asks and nobody valid was named."""

    status = 401


class Forbidden(_CallerError):
    """Raised when the principal is known and may not do this."""

    status = 403


class NotFound(_CallerError):
    """Raised when what was asked for does not exist, or must not be known to exist."""

    status = 404


class MethodNotAllowed(_CallerError):
    """Raised when the path exists and not for this method; the reply's `Allow` lists the methods that do."""

    status = 405


class NotAcceptable(_CallerError):
    """Raised when the operation cannot answer in any of the media types the caller accepts."""

    status = 406


class Conflict(_CallerError):
    """Raised when the request does not fit the state things are in."""

    status = 409


class InFlight(Conflict):
    """Raised when a request under the same idempotency key is being answered; `Retry-After` says when to ask again."""

    retryable = True


class KeyCancelled(Conflict):
    """Raised when an idempotency key was taken back before its request ran: nothing was done, and nothing will be."""


class Gone(_CallerError):
    """Raised when what was asked for existed and will not come back."""

    status = 410


class ContentTooLarge(_CallerError):
    """Raised when a request's body is longer than the operation's `max_body`."""

    status = 413


class UnsupportedMediaType(_CallerError):
    """Raised when the body's content type is not one the operation reads."""

    status = 415


class Unprocessable(_CallerError):
    """Raised when a request was parsed and is wrong; `errors` names every wrong field."""

    status = 422


class KeyReused(Unprocessable):
    """Raised when an idempotency key stands for another request already; a new request needs a new key."""


class TooManyRequests(_CallerError):
    """Raised when the caller asks more often than it may; `Retry-After` says when to come back."""

    status = 429
    retryable = True


class Unavailable(RopewalkError):
    """Raised when a service cannot answer now: it is down, draining, overloaded, or a sibling of its failed.

    `cause` in the members names what it met. Whether the operation ran is told by `ran`.
    """

    status = 503


class DeadlineExceeded(RopewalkError):
    """Raised when an answer did not come before the deadline."""

    status = 504
    title = "Deadline exceeded"
