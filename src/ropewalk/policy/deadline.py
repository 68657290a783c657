"""Decisions about deadlines: which one holds, what is left of it. `now` is an argument, on the process's own clock."""

from __future__ import annotations

DEFAULT_TIMEOUT = 10.0  # seconds, where a request enters the system; go-zero's 3 s is tight for a page of many calls
MAX_TIMEOUT = 60.0  # seconds, the most a public caller may ask for


def earlier(deadline: float | None, now: float, timeout: float | None) -> float | None:
    """The deadline that holds when `timeout` (seconds) starts now under `deadline`; None when there is neither."""
    if timeout is None:
        return deadline
    own = now + timeout
    return own if deadline is None or own < deadline else deadline


def remaining_ms(deadline: float, now: float) -> int:
    """What is left for the wire, in whole milliseconds, rounded down so that no hop gains time; at least 0."""
    return max(0, int((deadline - now) * 1000))
