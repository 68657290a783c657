"""The ports: what the framework asks of the outside.

Adapters provide them; every outcome of every method is said here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from .message import Principal

if TYPE_CHECKING:
    import sqlalchemy

    from .store import Database


class IAuthenticator(Interface):
    """Tells who sent a request, from what came beside its payload."""

    headers: Collection[str] = Attribute(
        "The lower-case names of the headers it reads; it is not asked when none of them is there."
    )

    async def authenticate(metadata: Mapping[str, str]) -> Principal | None:
        """The Principal these headers prove, or None when they hold nothing this authenticator reads.

        Raises Unauthorized when they hold something it reads and must not believe; one for browsers may answer None
        instead, so that whoever brings a stale cookie is a stranger and not refused.
        """


class IStore(Interface):
    """Opens the databases of services."""

    def open(service: str, tables: sqlalchemy.MetaData | None) -> Database:
        """A Database for `service`; `tables` are created when it is empty. Raises Unavailable when it cannot be."""

    def close() -> None:
        """Give back what the databases hold; the last use."""


class IWallClock(Interface):
    """Tells what time people have. It may jump; for durations and deadlines there is IReactorTime."""

    def now() -> datetime:
        """The time in UTC, aware of its zone."""
