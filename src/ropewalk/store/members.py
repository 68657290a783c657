"""The processes that share a service's database: who is there, and who has gone without a word.

Each raises a number of its own, its beat, and looks at those of the others. One whose beat has not moved for as long
as a member is trusted, by the looker's own monotonic clock, is struck off, and what it owned is anybody's. So no two
clocks are ever compared. Who was struck off though it lives (it stood still) finds that out at its next beat and begins
anew, under another id; what it still writes as the old one is refused by whatever the id guards.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from msgspec import Struct

from .tables import members
from .transaction import Transaction

BEAT = 1.0  # seconds between two beats
TRUST = 4.0  # seconds for which a beat may stand still: a long collection of garbage, a slow disk

# Built once: building one costs more than executing it.
_BEAT = members.update().where(members.c.id == sa.bindparam("me")).values(beat=members.c.beat + 1)
_ALL = sa.select(members)


class Sight(Struct, frozen=True):
    """What one member has seen of the others: by id, the beat, and when it last moved by the looker's own clock."""

    beats: Mapping[str, tuple[int, float]] = {}


def seen(sight: Sight, beats: Mapping[str, int], now: float) -> Sight:
    """What is seen with another look; `now`: monotonic seconds."""
    before = sight.beats
    return Sight(
        {
            id: before[id] if id in before and before[id][0] == beat else (beat, now)
            for id, beat in sorted(beats.items())
        }
    )


def silent(sight: Sight, now: float) -> tuple[str, ...]:
    """Who is not to be waited for any more.

    >>> sight = seen(seen(Sight(), {"a": 1, "b": 5}, 0.0), {"a": 1, "b": 6}, 3.0)
    >>> silent(sight, 4.0)
    ('a',)
    """
    return tuple(id for id, (_, at) in sight.beats.items() if now - at >= TRUST)


def beat(tx: Transaction, me: str, first: bool) -> dict[str, int] | None:
    """Beat once more, and look: everybody's beats, or None when `me` was struck off; `first`: it was not there yet."""
    if first:
        tx.execute(members.insert().values(id=me, beat=1))
    elif not tx.execute(_BEAT, {"me": me}).rowcount:
        return None
    return {row.id: row.beat for row in tx.execute(_ALL)}


def strike(tx: Transaction, who: str, beat_seen: int) -> bool:
    """Strike a member off, unless it has moved meanwhile; whether it was."""
    struck = tx.execute(members.delete().where(members.c.id == who, members.c.beat == beat_seen))
    return bool(struck.rowcount)


def leave(tx: Transaction, me: str) -> None:
    """Go in order: nobody has to wait to be sure of it."""
    tx.execute(members.delete().where(members.c.id == me))


def clear(tx: Transaction) -> None:
    """Nobody else can be there: this process alone owns the database."""
    tx.execute(members.delete())
