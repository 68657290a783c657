"""Decisions about waiting before another try: longer after each failure in a row, and not all at the same moment.

Values and pure functions: `now` and chance are arguments.

>>> [round(delay(Backoff(spread=0.0), failures, chance=0.5), 1) for failures in range(1, 10)]
[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Backoff(Struct, frozen=True):
    """How long to wait: `first` seconds, then `factor` times as long each time, at most `limit` seconds."""

    first: float = 0.1  # seconds: a crash that was an accident is hardly noticed
    limit: float = 10.0  # seconds: what stays broken costs little, and is back soon after it was mended
    factor: float = 2.0
    spread: float = 0.1  # the share of the delay that chance may take away, so that many do not come back at once
    calm: float = 30.0  # seconds of running after which a failure is the first again


class Streak(Struct, frozen=True):
    """How it went so far: the failures in a row, and when the try that runs now began."""

    failures: int = 0
    began: float = 0.0  # what the caller's clock said


def delay(backoff: Backoff, failures: int, chance: float) -> float:
    """Seconds to wait after that many failures in a row (1 or more); `chance`: at least 0 and below 1."""
    # The exponent is bounded because a float's range is: 2.0 ** 1024 is an error.
    longest = min(backoff.limit, backoff.first * backoff.factor ** min(failures - 1, 64))
    return longest * (1 - backoff.spread * chance)


def began(streak: Streak, now: float) -> Streak:
    """The streak once another try begins."""
    return replace(streak, began=now)


def failed(backoff: Backoff, streak: Streak, now: float, chance: float) -> tuple[Streak, float]:
    """The streak once that try has failed, and how many seconds to wait before the next one."""
    failures = 1 if now - streak.began >= backoff.calm else streak.failures + 1
    return replace(streak, failures=failures), delay(backoff, failures, chance)
