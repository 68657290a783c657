"""Ropewalk: systems of small services on Twisted. The names code outside this repository uses, and nothing else.

Importing this loads no reactor, no Klein, no treq and no SQLAlchemy: what needs them is fetched when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codec.types import Cookie, Form, Header, Query, Upload, given
from .context import Context, bound, current_context
from .driver import from_asyncio, settled, wait
from .durable import at, every, saga, subscribe
from .errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Gone,
    InFlight,
    KeyCancelled,
    KeyReused,
    NotFound,
    RopewalkError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from .event import Event
from .handler import Filter, Handler, compose
from .message import Accepted, Principal, Request, Response, Stream
from .operation import delete, get, mount, operation, patch, post, put
from .service import Client, Contract, Service

if TYPE_CHECKING:
    from .events import Publisher
    from .runtime.settings import Secret, Settings
    from .runtime.workers import Workers
    from .sagas import Flow, Sagas
    from .store import Database, Transaction

_LATE = {
    "Publisher": "ropewalk.events",
    "Flow": "ropewalk.sagas",
    "Sagas": "ropewalk.sagas",
    "Database": "ropewalk.store",
    "Transaction": "ropewalk.store",
    "Settings": "ropewalk.runtime.settings",
    "Secret": "ropewalk.runtime.settings",
    "Workers": "ropewalk.runtime.workers",
}

__all__ = [
    "Accepted",
    "BadRequest",
    "Client",
    "Conflict",
    "Context",
    "Contract",
    "Cookie",
    "Database",
    "DeadlineExceeded",
    "Event",
    "Filter",
    "Flow",
    "Forbidden",
    "Form",
    "Gone",
    "Handler",
    "Header",
    "InFlight",
    "KeyCancelled",
    "KeyReused",
    "NotFound",
    "Principal",
    "Publisher",
    "Query",
    "Request",
    "Response",
    "RopewalkError",
    "Sagas",
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
    "at",
    "bound",
    "compose",
    "current_context",
    "delete",
    "every",
    "from_asyncio",
    "get",
    "given",
    "mount",
    "operation",
    "patch",
    "post",
    "put",
    "saga",
    "settled",
    "subscribe",
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
