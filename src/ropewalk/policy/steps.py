"""Decisions about a saga's step that failed: is that its outcome, or to be asked again? No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import BadRequest, KeyCancelled, RopewalkError, Unprocessable
from .backoff import Backoff

Outcome = Literal["definite", "maybe", "fault"]

LADDER = Backoff(first=0.2, limit=30.0)
FAULTS = 10  # attempts at what fails as bugs do, until the saga is parked: about 90 seconds


def outcome(error: BaseException, raises: Sequence[type[BaseException]] | None) -> Outcome:
    """What a step's failure says; `raises`: what its operation declares, None for a function of the saga's own.

    >>> from ropewalk.errors import Conflict, Unavailable
    >>> outcome(Conflict(), [Conflict]), outcome(Unavailable(), [Unavailable]), outcome(KeyError("a"), None)
    ('definite', 'maybe', 'fault')
    """
    if not isinstance(error, RopewalkError):
        return "fault"
    if error.status >= 500 or error.retryable:
        return "maybe"
    # What it does not declare may be somebody else's: a token that a wrong clock refuses, a route not there yet.
    declared = raises is None or isinstance(error, (*raises, BadRequest, Unprocessable, KeyCancelled))
    return "definite" if declared else "maybe"
