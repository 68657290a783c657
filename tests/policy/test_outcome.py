"""What an answer was: one table for everything that counts, retries, ejects or reports."""

from __future__ import annotations

import asyncio

import pytest

from ropewalk import errors
from ropewalk.policy.outcome import judge_error, judge_status, status_of


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((200, 201, 204, 206, 301, 304, 308, 399), "success"),
        ((400, 401, 403, 404, 409, 410, 422, 428, 430, 499), "caller"),
        ((429,), "rejected"),
        ((500, 501, 502, 503, 504, 599), "failure"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_says(statuses, outcome):
    assert {status: judge_status(status) for status in statuses} == dict.fromkeys(statuses, outcome)


def that(error: errors.RopewalkError, ran: errors.Ran) -> errors.RopewalkError:
    error.ran = ran
    return error


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (errors.BadRequest(), "caller", 400),
        (errors.Unauthorized(), "caller", 401),
        (errors.Forbidden(), "caller", 403),
        (errors.NotFound(), "caller", 404),
        (errors.Conflict(), "caller", 409),
        (errors.Unprocessable(), "caller", 422),
        (errors.TooManyRequests(), "rejected", 429),
        (that(errors.TooManyRequests(), "yes"), "rejected", 429),
        (errors.RopewalkError(), "failure", 500),
        (errors.Unavailable(), "failure", 503),
        (that(errors.Unavailable(), "yes"), "failure", 503),
        (that(errors.Unavailable(), "no"), "rejected", 503),  # turned away before it began: may be asked again
        (errors.Unavailable(status=502), "failure", 502),
        (that(errors.Unavailable(status=502), "no"), "failure", 502),
        (errors.DeadlineExceeded(), "failure", 504),
        (that(errors.DeadlineExceeded(), "no"), "failure", 504),
        (KeyError("room"), "failure", 500),
        (TimeoutError(), "failure", 500),
        (asyncio.CancelledError(), "cancelled", 499),
        (SystemExit(1), "failure", 500),
    ],
    ids=lambda value: (
        f"{type(value).__name__} {getattr(value, 'ran', '')}" if isinstance(value, BaseException) else None
    ),
)
def test_an_error_says(error, outcome, status):
    assert (judge_error(error), status_of(error)) == (outcome, status)
