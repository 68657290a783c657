"""Each call is counted once, as what it was, with the time it took."""

from __future__ import annotations

import asyncio

import pytest
from twisted.internet.defer import Deferred

from ropewalk.errors import Conflict, DeadlineExceeded, TooManyRequests, Unavailable
from ropewalk.filters.deadline import Deadline
from ropewalk.filters.measure import Measure
from ropewalk.handler import compose
from ropewalk.message import Response
from ropewalk.telemetry.metrics import Calls


class Told:
    """A Meter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def began(self, operation: str) -> None:
        self.events.append(("began", operation))

    def ended(self, operation: str, outcome: str, status: int, seconds: float) -> None:
        self.events.append(("ended", operation, outcome, status, seconds))


@pytest.fixture
def meter() -> Told:
    return Told()


def refused() -> Unavailable:
    error = Unavailable("full")
    error.ran = "no"
    return error


def test_a_call_is_told_when_it_begins_and_when_it_ends(clock, sibling, request_of, start, meter):
    sibling.answer = Deferred()
    start(compose([Measure(meter, clock.seconds)], sibling), request_of())
    assert meter.events == [("began", "payments.charge")]

    clock.advance(0.25)
    sibling.answer.callback(Response("done", 204))

    assert meter.events[1:] == [("ended", "payments.charge", "success", 204, 0.25)]


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (Response("missing", 404), "caller", 404),
        (Response("broken", 502), "failure", 502),
        (Conflict("taken"), "caller", 409),
        (Unavailable("down"), "failure", 503),
        (refused(), "rejected", 503),
        (TooManyRequests("slow down"), "rejected", 429),
        (DeadlineExceeded("late"), "failure", 504),
        (KeyError("room"), "failure", 500),
        (asyncio.CancelledError(), "cancelled", 499),
    ],
    ids=[
        "404", "502", "Conflict", "Unavailable", "refused", "TooManyRequests", "DeadlineExceeded", "KeyError",
        "CancelledError",
    ],
)  # fmt: skip
def test_an_end_is_counted_as_what_it_was(clock, sibling, request_of, start, meter, answer, outcome, status):
    sibling.answer = answer

    start(compose([Measure(meter, clock.seconds)], sibling), request_of())

    assert meter.events == [("began", "payments.charge"), ("ended", "payments.charge", outcome, status, 0.0)]


def test_outside_the_deadline_a_timeout_is_counted_as_a_failure(clock, sibling, request_of, start, meter):
    sibling.answer = Deferred()
    start(compose([Measure(meter, clock.seconds), Deadline(clock, 10)], sibling), request_of())

    clock.advance(10)

    assert meter.events[1:] == [("ended", "payments.charge", "failure", 504, 10.0)]


def test_a_cancelled_call_is_no_longer_in_flight(clock, driver, sibling, request_of):
    meter = Calls("ropewalk_client", "Calls")
    sibling.answer = Deferred()
    outcome = driver.run(compose([Measure(meter, clock.seconds)], sibling)(request_of()))
    assert meter.in_flight == 1

    outcome.cancel()
    outcome.addErrback(lambda _: None)

    assert meter.in_flight == 0
