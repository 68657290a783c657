"""The ports: what the framework asks of the outside.

Adapters provide them; every outcome of every method is said here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from .event import Message
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

    def open(service: str, tables: sqlalchemy.MetaData | None, revisions: Path | None = None) -> Database:
        """A Database for `service`; `tables` are created when it is empty, and it has had all `revisions` then.

        Raises Unavailable when it cannot be opened, store.migrations.Differs when it has other tables than the code,
        and ConfigurationError when it is not this system's, or another process owns it.
        """

    def changing(service: str) -> AbstractContextManager[sqlalchemy.Connection]:
        """A transaction in which nobody else changes the tables of `service`; it commits at its end.

        Raises as `open`, but sqlalchemy's DBAPIError for Unavailable.
        """

    def close() -> None:
        """Give back what the databases hold; the last use."""


class IBroker(Interface):
    """Carries messages from those who publish to those who subscribe: at least once, and in order for each key."""

    keeps_history: bool = Attribute("Whether `history` has what was published before anybody subscribed.")

    async def publish(messages: Sequence[Message]) -> Sequence[str]:
        """Returns when each of them is kept as durably as this broker keeps anything (its documentation says how).

        Returns the ids of those that no group is subscribed to: they are lost here. Of one key a later message is never
        kept when an earlier one of the same call was not. Raises Unavailable when any of them may not be kept; some may
        be, and publishing all of them again is right.
        """

    async def subscribe(
        group: str,
        topics: Collection[str],
        handle: Callable[[Message, int], Awaitable[None]],
        at_once: int,
        from_start: bool = False,
    ) -> ISubscription:
        """Give the messages of `topics` to one of all who subscribe as `group`; returns when none is missed any more.

        `handle(message, attempt)` is called for at most `at_once` messages at a time, and for no message while an
        earlier one of its key is being handled anywhere in the group. When it returns, the message is done; when it
        raises or is cancelled, or this process dies, the message is given again, before later ones of its key, with
        `attempt` one higher where the broker can tell (the first is 1). A message may come more than once all the same.

        What is published while nobody of the group is there waits for it. `from_start`: a new group begins with what
        the broker still has; raises ConfigurationError when it keeps no history. Raises Unavailable when it cannot be
        reached now; a connection lost later is made again by itself. When it is cancelled, nothing is handled.
        """

    def history(topic: str) -> AsyncIterator[Message]:
        """What is still kept of `topic`, the oldest first, up to now; raises ConfigurationError without history."""

    async def close() -> None:
        """Stop all subscriptions and give back what is held; the last use. Closing twice changes nothing."""


class ISubscription(Interface):
    """One member of a group."""

    async def stop() -> None:
        """Take nothing new, and wait for what is being handled; what is then left is somebody else's."""


class IWallClock(Interface):
    """Tells what time people have. It may jump; for durations and deadlines there is IReactorTime."""

    def now() -> datetime:
        """The time in UTC, aware of its zone."""
