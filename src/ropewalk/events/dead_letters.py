"""Dead letters: events that could not be handled, and those of the same key that wait behind one.

They lie in the subscriber's own database, so that they can be listed, read, replayed and dropped whatever the broker
is. `DeadLetters` is what people and commands use; the functions are one transaction each, for the subscription itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from ..errors import NotFound
from ..event import Message
from ..store import Database, Transaction, outbox
from ..store.tables import dead_letters

MOST = 1000  # of one subscription; then it takes no more events until somebody has looked
PAGE = 100


class DeadLetter(Struct, frozen=True):
    """An event that was not handled."""

    number: int
    subscription: str  # "" when nobody had subscribed
    key: str
    event: str  # its id
    topic: str
    attempts: int  # 0: it waits behind another one of its key
    error: str  # what was raised last
    replay: bool  # it is about to be tried again
    at: datetime
    message: bytes = b""  # the CloudEvent


class Standing(Struct, frozen=True):
    """How many there are of one subscription."""

    letters: int = 0
    keys: int = 0  # that are parked


class DeadLetters:
    """Those of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, subscription: str | None = None) -> Sequence[DeadLetter]:
        """The oldest hundred, without their messages."""
        return await self._database.apart(_list, subscription)

    async def read(self, number: int) -> DeadLetter:
        """One of them, with its message; raises NotFound."""
        return await self._database.apart(_read, number)

    async def standing(self) -> dict[str, Standing]:
        """By subscription; "": that nobody had subscribed to."""
        return await self._database.apart(standing)

    async def replay(self, number: int | None = None, subscription: str | None = None) -> int:
        """Have one tried again, or all of a subscription, or all: in order, each with what waits behind it; how many.

        What fails again is a dead letter again.
        """
        return await self._database.apart(_replay, number, subscription)

    async def drop(self, number: int) -> DeadLetter:
        """Forget one, as it is returned: it is as if it had been handled. Raises NotFound."""
        return await self._database.apart(_drop, number)


def bury(tx: Transaction, subscription: str, message: Message, attempts: int, error: str, parks: bool = True) -> None:
    """Write one down, or that it failed once more; `parks`: later ones of its key wait behind it."""
    tx.in_turn(f"dead letters of {subscription}")  # two processes may have the same event
    changed = {"attempts": attempts, "error": error, "replay": False}
    mine = (dead_letters.c.subscription == subscription, dead_letters.c.event == message.id)
    if tx.execute(dead_letters.update().where(*mine).values(**changed)).rowcount:
        return
    tx.execute(
        dead_letters.insert().values(
            subscription=subscription,
            key=message.key if parks else "",
            event=message.id,
            topic=message.topic,
            message=message.encoded(),
            at=int(tx.database.now()),
            **changed,
        )
    )


def wait_behind(tx: Transaction, events: Sequence[tuple[str, Message]]) -> list[bool]:
    """Put each event of a subscription behind the dead letters of its key, if there are any; whether there are."""
    keys = [(subscription, message.key) for subscription, message in events]
    parked = set(map(tuple, tx.execute(_PARKED, {"keys": keys})))
    for subscription, message in events:
        if (subscription, message.key) in parked:
            known = (dead_letters.c.subscription == subscription, dead_letters.c.event == message.id)
            if tx.execute(sa.select(dead_letters.c.position).where(*known)).first() is None:
                bury(tx, subscription, message, 0, "")
    return [key in parked for key in keys]


def count(tx: Transaction, subscription: str) -> int:
    """How many there are."""
    statement = sa.select(sa.func.count()).select_from(dead_letters)
    return int(tx.execute(statement.where(dead_letters.c.subscription == subscription)).scalar_one())


def standing(tx: Transaction) -> dict[str, Standing]:
    """How many there are, by subscription."""
    parked = sa.func.count(sa.func.nullif(dead_letters.c.key, "").distinct())
    columns = (dead_letters.c.subscription, sa.func.count(), parked)
    rows = tx.execute(sa.select(*columns).group_by(dead_letters.c.subscription))
    # Without a subscription there is nobody whose later events would wait.
    return {name: Standing(count, keys if name else 0) for name, count, keys in map(tuple, rows)}


class Dead(Struct, frozen=True):
    """What is dead of one subscription."""

    parked: set[str]  # the keys that wait
    to_replay: Sequence[DeadLetter]  # what was asked for, and the keys that have nothing dead before them; in order


def to_replay(tx: Transaction, subscriptions: Sequence[str]) -> list[Dead]:
    """What each of them has to try again."""
    keys: dict[str, set[str]] = {name: set() for name in subscriptions}
    for row in tx.execute(_KEYS, {"subscriptions": subscriptions}):
        keys[row.subscription].add(row.key)
    return [Dead(keys[name] - {""}, _to_replay(tx, name) if keys[name] else ()) for name in subscriptions]


def _to_replay(tx: Transaction, subscription: str) -> list[DeadLetter]:
    return [_letter(row) for row in tx.execute(_TO_REPLAY, {"subscription": subscription})]


def handled(tx: Transaction, subscription: str, event: str) -> None:
    """It was handled after all."""
    tx.execute(dead_letters.delete().where(dead_letters.c.subscription == subscription, dead_letters.c.event == event))


_COLUMNS = (
    dead_letters.c.position,
    dead_letters.c.subscription,
    dead_letters.c.key,
    dead_letters.c.event,
    dead_letters.c.topic,
    dead_letters.c.attempts,
    dead_letters.c.error,
    dead_letters.c.replay,
    dead_letters.c.at,
)

# Built once: building one costs more than executing it.
_key = sa.tuple_(dead_letters.c.subscription, dead_letters.c.key)
_PARKED = (
    sa.select(dead_letters.c.subscription, dead_letters.c.key)
    .where(_key.in_(sa.bindparam("keys", expanding=True)))
    .distinct()
)
_KEYS = (
    sa.select(dead_letters.c.subscription, dead_letters.c.key)
    .where(dead_letters.c.subscription.in_(sa.bindparam("subscriptions", expanding=True)))
    .distinct()
)
_mine = dead_letters.c.subscription == sa.bindparam("subscription")
_keyed = dead_letters.c.key != ""
_first = sa.select(sa.func.min(dead_letters.c.position)).where(_mine, _keyed).group_by(dead_letters.c.key)
_open = sa.or_(dead_letters.c.replay, dead_letters.c.attempts == 0)
_open_keys = sa.select(dead_letters.c.key).where(dead_letters.c.position.in_(_first), _open, _keyed)
_asked_alone = sa.and_(dead_letters.c.key == "", dead_letters.c.replay)
_TO_REPLAY = (
    sa.select(*_COLUMNS, dead_letters.c.message)
    .where(_mine, sa.or_(_asked_alone, dead_letters.c.key.in_(_open_keys)))
    .order_by(dead_letters.c.position)
    .limit(PAGE)
)


def _letter(row: Any) -> DeadLetter:
    number, subscription, key, event, topic, attempts, error, replay, at, *message = row
    when = datetime.fromtimestamp(at, UTC)
    said = (number, subscription, key, event, topic, attempts, error, bool(replay), when)
    return DeadLetter(*said, *(bytes(each) for each in message))


def _list(tx: Transaction, subscription: str | None) -> list[DeadLetter]:
    statement = sa.select(*_COLUMNS).order_by(dead_letters.c.position).limit(PAGE)
    if subscription is not None:
        statement = statement.where(dead_letters.c.subscription == subscription)
    return [_letter(row) for row in tx.execute(statement)]


def _read(tx: Transaction, number: int) -> DeadLetter:
    statement = sa.select(*_COLUMNS, dead_letters.c.message).where(dead_letters.c.position == number)
    row = tx.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"There is no dead letter {number}.")
    return _letter(row)


def _replay(tx: Transaction, number: int | None, subscription: str | None) -> int:
    statement = dead_letters.update().values(replay=True)
    if number is not None:
        _read(tx, number)
        statement = statement.where(dead_letters.c.position == number)
    if subscription is not None:
        statement = statement.where(dead_letters.c.subscription == subscription)
    tx.wrote.add("replay")
    asked = int(tx.execute(statement).rowcount)
    unsubscribed = sa.select(dead_letters.c.position, dead_letters.c.message).where(
        dead_letters.c.subscription == "", dead_letters.c.replay
    )
    for row in tx.execute(unsubscribed.order_by(dead_letters.c.position)).all():
        outbox.publish(tx, Message.decoded(bytes(row.message)))
        tx.execute(dead_letters.delete().where(dead_letters.c.position == row.position))
        tx.wrote.add("events")
    return asked


def _drop(tx: Transaction, number: int) -> DeadLetter:
    letter = _read(tx, number)
    tx.execute(dead_letters.delete().where(dead_letters.c.position == number))
    tx.wrote.add("replay")
    return letter
