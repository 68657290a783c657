"""Decisions about an event that could not be handled: again, after how long, or never. No I/O, no clock.

What is repeated in vain is a refusal that would be the same again, or a bug; what passes is that somebody is down.
"""

from __future__ import annotations

from typing import Literal

from ..errors import DeadlineExceeded, InFlight, RopewalkError, TooManyRequests, Unavailable
from ..event import Undeliverable
from .backoff import Backoff, delay

Verdict = Literal["passes", "fails", "refused"]

LADDER = Backoff(first=0.2, limit=30.0)  # ten attempts: about 90 seconds
OUTAGE = 6  # times as many attempts for what is no fault of the event: with the default ten, about half an hour


def verdict(error: BaseException) -> Verdict:
    """Whether it passes by itself, may be a bug, or would be the same each time.

    >>> from ropewalk.errors import Conflict
    >>> verdict(Unavailable()), verdict(ZeroDivisionError()), verdict(Conflict("taken"))
    ('passes', 'fails', 'refused')
    """
    if isinstance(error, Undeliverable):
        return "refused"
    if isinstance(error, (Unavailable, DeadlineExceeded, InFlight, TooManyRequests)):
        return "passes"
    if isinstance(error, RopewalkError) and error.status < 500 and not error.retryable:
        return "refused"
    return "fails"


def again(error: BaseException, attempt: int, attempts: int, chance: float) -> float | None:
    """Seconds until what failed in its `attempt` (from 1) of `attempts` is tried again; None: it is a dead letter."""
    judged = verdict(error)
    if judged == "refused" or attempt >= attempts * (OUTAGE if judged == "passes" else 1):
        return None
    return delay(LADDER, attempt, chance)
