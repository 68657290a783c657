"""Each call has a span of its own, in the trace it came with; it is counted, and its end is told, once."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ropewalk.context import Context, Trace
from ropewalk.errors import Conflict, DeadlineExceeded, TooManyRequests, Unavailable
from ropewalk.filters.deadline import Deadline
from ropewalk.filters.observe import Observe
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


@pytest.fixture
def ended() -> list[tuple[Any, ...]]:
    """What `done` was told: (status, outcome, seconds, error)."""
    return []


@pytest.fixture
def traced(clock, sibling, meter, ended):
    return compose([Observe(Random(7), clock.seconds, meter, lambda request, *end: ended.append(end))], sibling)


# -- the span


def test_a_call_without_a_trace_begins_one(traced, sibling, request_of, start):
    start(traced, request_of(context=Context(service="payments", tenant="acme")))

    random = Random(7)
    span, trace = f"{random.getrandbits(64):016x}", f"{random.getrandbits(128):032x}"
    assert sibling.asked[0].context == Context(
        trace=Trace(trace, span), request_id=trace, service="payments", tenant="acme"
    )


def test_a_call_with_a_trace_gets_a_span_below_the_callers(traced, sibling, request_of, start):
    came_with = Trace("a1" * 16, "b2" * 8, 0, "vendor=1", "c3" * 8)

    start(traced, request_of(context=Context(trace=came_with, request_id="r-77")))

    span = f"{Random(7).getrandbits(64):016x}"
    assert sibling.asked[0].context == Context(trace=Trace("a1" * 16, span, 0, "vendor=1", "b2" * 8), request_id="r-77")


def test_every_call_has_a_span_of_its_own(traced, sibling, request_of, start):
    for _ in range(100):
        start(traced, request_of(context=Context(trace=Trace("a1" * 16, "b2" * 8))))

    assert len({asked.context.trace.span_id for asked in sibling.asked}) == 100


def test_ids_are_never_all_zero(clock, sibling, request_of, start, meter):
    class Zero(Random):
        def getrandbits(self, k: int) -> int:
            return 0

    start(compose([Observe(Zero(), clock.seconds, meter)], sibling), request_of())

    assert sibling.asked[0].context.trace == Trace("0" * 31 + "1", "0" * 15 + "1")


def test_the_same_seed_gives_the_same_ids(clock, sibling, request_of, start, meter):
    for _ in range(2):
        start(compose([Observe(Random(7), clock.seconds, meter)], sibling), request_of())

    first, second = sibling.asked
    assert first.context == second.context


# -- its end


def test_the_end_of_an_answered_call_is_told_with_its_time(traced, clock, sibling, request_of, start, ended):
    sibling.answer = Deferred()
    outcome = start(traced, request_of())
    clock.advance(1.5)
    assert ended == []

    sibling.answer.callback(Response("created", 201))

    assert ended == [(201, "success", 1.5, None)]
    assert outcome.result == Response("created", 201)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [(Conflict("taken"), 409, "caller"), (Unavailable("down"), 503, "failure"), (KeyError("room"), 500, "failure")],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_end_of_a_failed_call_is_told_with_its_error(
    traced, sibling, request_of, start, ended, error, status, outcome
):
    sibling.answer = error

    answer = start(traced, request_of())

    assert ended == [(status, outcome, 0.0, error)]
    assert answer.result is error


def test_the_end_of_a_cancelled_call_is_told(traced, clock, driver, sibling, request_of, ended):
    sibling.answer = Deferred()
    outcome = driver.run(traced(request_of()))
    clock.advance(2)

    outcome.cancel()
    outcome.addErrback(lambda failure: failure.trap(defer.CancelledError))

    ((status, judged, seconds, error),) = ended
    assert (status, judged, seconds, type(error)) == (499, "cancelled", 2.0, asyncio.CancelledError)


def test_who_is_told_of_the_end_gets_the_request_with_its_span(clock, sibling, request_of, start, meter):
    told = []

    start(
        compose([Observe(Random(7), clock.seconds, meter, lambda request, *_: told.append(request))], sibling),
        request_of(),
    )

    assert told == sibling.asked
    assert told[0].context.trace is not None


# -- the numbers


def refused() -> Unavailable:
    error = Unavailable("full")
    error.ran = "no"
    return error


def test_a_call_is_told_when_it_begins_and_when_it_ends(clock, sibling, request_of, start, meter):
    sibling.answer = Deferred()
    start(compose([Observe(Random(7), clock.seconds, meter)], sibling), request_of())
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

    start(compose([Observe(Random(7), clock.seconds, meter)], sibling), request_of())

    assert meter.events == [("began", "payments.charge"), ("ended", "payments.charge", outcome, status, 0.0)]


def test_outside_the_deadline_a_timeout_is_counted_as_a_failure(clock, sibling, request_of, start, meter):
    sibling.answer = Deferred()
    start(compose([Observe(Random(7), clock.seconds, meter), Deadline(clock, 10)], sibling), request_of())

    clock.advance(10)

    assert meter.events[1:] == [("ended", "payments.charge", "failure", 504, 10.0)]


def test_a_cancelled_call_is_no_longer_in_flight(clock, driver, sibling, request_of):
    meter = Calls("ropewalk_client", "Calls")
    sibling.answer = Deferred()
    outcome = driver.run(compose([Observe(Random(7), clock.seconds, meter)], sibling)(request_of()))
    assert meter.in_flight == 1

    outcome.cancel()
    outcome.addErrback(lambda _: None)

    assert meter.in_flight == 0
