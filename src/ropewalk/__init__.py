"""Ropewalk: systems of small services on Twisted. The names code outside this repository uses, and nothing else.

Importing this loads no reactor, no Klein, no treq and no SQLAlchemy: what needs them is fetched when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codec.types import Cookie, Form, Header, Query, Upload, given
from .context import Context, bound, current_context
from .driver import from_asyncio, settled, wait
from .errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Gone,
    InFlight,
    KeyReused,
    NotFound,
    RopewalkError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from .handler import Filter, Handler, compose
from .message import Principal, Request, Response, Stream
from .operation import delete, get, mount, operation, patch, post, put
from .service import Client, Contract, Service

if TYPE_CHECKING:
    from .runtime.settings import Secret, Settings
    from .runtime.workers import Workers
    from .store import Database, Transaction

_LATE = {
    "Database": "ropewalk.store",
    "Transaction": "ropewalk.store",
    "Settings": "ropewalk.runtime.settings",
    "Secret": "ropewalk.runtime.settings",
    "Workers": "ropewalk.runtime.workers",
}

__all__ = [
    "BadRequest",
    "Client",
    "Conflict",
    "Context",
    "Contract",
    "Cookie",
    "Database",
    "DeadlineExceeded",
    "Filter",
    "Forbidden",
    "Form",
    "Gone",
    "Handler",
    "Header",
    "InFlight",
    "KeyReused",
    "NotFound",
    "Principal",
    "Query",
    "Request",
    "Response",
    "RopewalkError",
    "Secret",
    "Service",
    "Settings",
    "Stream",
    "TooManyRequests",
    "Transaction",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "Upload",
    "Workers",
    "bound",
    "compose",
    "current_context",
    "delete",
    "from_asyncio",
    "get",
    "given",
    "mount",
    "operation",
    "patch",
    "post",
    "put",
    "settled",
    "wait",
]


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return __all__
