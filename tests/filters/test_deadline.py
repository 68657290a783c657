"""A call ends at its deadline, not before, and with what it left behind put in order."""

from __future__ import annotations

import asyncio

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ropewalk.context import Context
from ropewalk.errors import DeadlineExceeded, Unavailable
from ropewalk.filters.deadline import Deadline
from ropewalk.handler import compose
from ropewalk.message import Response


def answers(error: DeadlineExceeded) -> tuple[str, int, str, str, bool]:
    return (error.detail, error.status, error.fault, error.ran, error.retryable)


@pytest.fixture
def never() -> Deferred[Response]:
    """What nobody fires; `cancelled` on it tells whether it was given up."""
    deferred: Deferred[Response] = Deferred(lambda deferred: setattr(deferred, "cancelled", True))
    deferred.cancelled = False  # type: ignore[attr-defined]
    return deferred


# -- when it ends


def test_a_silent_sibling_is_given_up_at_the_deadline_and_not_before(clock, sibling, request_of, start, never):
    sibling.answer = never
    outcome = start(compose([Deadline(clock)], sibling), request_of(context=Context(deadline=30.0)))

    clock.advance(29.999)
    assert not outcome.called

    clock.advance(0.001)
    assert answers(outcome.result) == (
        "payments.charge: no answer before the deadline.", 504, "callee", "maybe", False,
    )  # fmt: skip
    assert never.cancelled


def test_what_asyncio_waits_for_is_given_up_too(clock, sibling, request_of, start):
    sibling.answer = asyncio.sleep(60, Response("late"))
    outcome = start(compose([Deadline(clock)], sibling), request_of(context=Context(deadline=30.0)))

    clock.advance(30)

    assert isinstance(outcome.result, DeadlineExceeded)
    assert clock.getDelayedCalls() == []


def test_an_answer_in_time_is_given_and_leaves_no_timer(clock, sibling, request_of, start):
    sibling.answer = Deferred()
    outcome = start(compose([Deadline(clock, 30)], sibling), request_of())

    clock.advance(29)
    sibling.answer.callback(Response("in time"))

    assert outcome.result == Response("in time")
    assert clock.getDelayedCalls() == []


def test_a_call_that_does_not_wait_arms_no_timer(clock, sibling, request_of, start):
    armed: list[float] = []
    clock.callLater = lambda seconds, *_: armed.append(seconds)

    outcome = start(compose([Deadline(clock, 30)], sibling), request_of())

    assert (outcome.result, armed) == (Response("done"), [])


def test_an_error_comes_through_and_leaves_no_timer(clock, sibling, request_of, start):
    sibling.answer = Deferred()
    outcome = start(compose([Deadline(clock, 30)], sibling), request_of())

    sibling.answer.errback(Unavailable("down"))

    assert repr(outcome.result) == repr(Unavailable("down"))
    assert clock.getDelayedCalls() == []


def test_after_its_deadline_a_call_is_not_begun(clock, sibling, request_of, start):
    clock.advance(30)
    outcome = start(compose([Deadline(clock)], sibling), request_of(context=Context(deadline=30.0)))

    assert answers(outcome.result) == (
        "payments.charge: the deadline had passed before it began.", 504, "callee", "no", False,
    )  # fmt: skip
    assert sibling.asked == []


# -- which deadline holds


@pytest.mark.parametrize(
    ("came_with", "timeout", "unless_given", "holds"),
    [
        (None, None, False, None),
        (None, 5.0, False, 105.0),
        (110.0, None, False, 110.0),
        (110.0, 5.0, False, 105.0),  # an edge's timeout is a limit
        (103.0, 5.0, False, 103.0),
        (None, 5.0, True, 105.0),  # a server's is for those who came without
        (110.0, 5.0, True, 110.0),
        (103.0, 5.0, True, 103.0),
        (110.0, None, True, 110.0),
    ],
)
def test_the_deadline_that_holds_goes_on_with_the_request(
    clock, sibling, request_of, start, came_with, timeout, unless_given, holds
):
    clock.advance(100)
    context = Context(deadline=came_with, service="payments", request_id="r-1")

    start(compose([Deadline(clock, timeout, unless_given=unless_given)], sibling), request_of(context=context))

    (asked,) = sibling.asked
    assert asked.context == Context(deadline=holds, service="payments", request_id="r-1")


# -- who was cancelled, and by whom


def test_cleanup_runs_when_time_is_up(clock, request_of, start):
    seen = []

    async def handler(request):
        try:
            await Deferred()
        finally:
            seen.append("cleanup")

    start(compose([Deadline(clock, 30)], handler), request_of())
    clock.advance(30)

    assert seen == ["cleanup"]


def test_cleanup_may_wait_and_the_answer_comes_after_it(clock, request_of, start):
    async def handler(request):
        try:
            await Deferred()
        finally:
            await asyncio.sleep(2)

    outcome = start(compose([Deadline(clock, 30)], handler), request_of())
    clock.advance(30)
    assert not outcome.called

    clock.advance(2)
    assert isinstance(outcome.result, DeadlineExceeded)


def test_a_cancellation_from_outside_is_no_deadline(clock, driver, sibling, request_of, never):
    sibling.answer = never
    outcome = driver.run(compose([Deadline(clock, 30)], sibling)(request_of()))

    outcome.cancel()

    assert outcome.result.check(defer.CancelledError)
    outcome.addErrback(lambda _: None)
    assert never.cancelled
    assert clock.getDelayedCalls() == []


def test_cancelled_from_outside_while_time_is_up_it_is_cancelled(clock, driver, request_of):
    async def handler(request):
        try:
            await Deferred()
        finally:
            await asyncio.sleep(2)

    seen = []
    run = driver.start(compose([Deadline(clock, 30)], handler)(request_of()), seen.append)
    clock.advance(30)

    run.cancel()
    clock.advance(0)

    assert (seen, run.cancelled()) == ([run], True)


def test_an_answer_in_the_very_turn_of_the_deadline_is_late_and_nothing_is_left_to_be_cancelled(
    clock, driver, request_of
):
    future = driver.loop.create_future()

    async def call():
        async def handler(request):
            return await future

        with pytest.raises(DeadlineExceeded):
            await compose([Deadline(clock, 30)], handler)(request_of())
        await asyncio.sleep(1)  # would meet a cancellation that was left
        return asyncio.current_task().cancelling()

    clock.callLater(30, future.set_result, Response("in the same turn"))
    outcome = driver.run(call())
    clock.advance(30)
    clock.advance(1)

    assert outcome.result == 0


def test_who_swallows_the_cancellation_is_late_and_its_answer_is_given(clock, driver, request_of):
    async def handler(request):
        try:
            await Deferred()
        except asyncio.CancelledError:
            return Response("after all")

    async def call():
        answer = await compose([Deadline(clock, 30)], handler)(request_of())
        await asyncio.sleep(1)  # would meet a cancellation that was left
        return answer, asyncio.current_task().cancelling()

    outcome = driver.run(call())
    clock.advance(30)
    clock.advance(1)

    assert outcome.result == (Response("after all"), 0)


def test_an_error_of_the_cleanup_comes_in_the_place_of_the_deadline(clock, request_of, start):
    async def handler(request):
        try:
            await Deferred()
        finally:
            raise Unavailable("The connection broke while it was closed.")

    outcome = start(compose([Deadline(clock, 30)], handler), request_of())
    clock.advance(30)

    assert isinstance(outcome.result, Unavailable)


# -- within each other


def test_of_two_deadlines_the_earlier_ends_the_call_once(clock, sibling, request_of, start, never):
    for first, second in ((10, 20), (20, 10)):
        sibling.answer = Deferred()
        outcome = start(compose([Deadline(clock, first), Deadline(clock, second)], sibling), request_of())

        clock.advance(10)

        assert isinstance(outcome.result, DeadlineExceeded)
        assert clock.getDelayedCalls() == []


def test_of_two_deadlines_at_one_instant_the_call_ends_once_and_nothing_is_left(clock, driver, request_of):
    async def call():
        async def handler(request):
            await Deferred()

        try:
            await compose([Deadline(clock, 10), Deadline(clock, 10)], handler)(request_of())
        except DeadlineExceeded:
            await asyncio.sleep(1)
            return asyncio.current_task().cancelling()

    outcome = driver.run(call())
    clock.advance(10)
    clock.advance(1)

    assert outcome.result == 0


def test_a_deadline_within_asyncios_timeout_and_around_one(clock, request_of, start):
    async def handler(request):
        async with asyncio.timeout(10):
            await Deferred()

    outcome = start(compose([Deadline(clock, 20)], handler), request_of())
    clock.advance(10)
    assert type(outcome.result) is TimeoutError

    outcome = start(compose([Deadline(clock, 5)], handler), request_of())
    clock.advance(5)
    assert type(outcome.result) is DeadlineExceeded


def test_calls_made_at_the_same_time_have_deadlines_of_their_own(clock, driver, request_of):
    async def handler(request):
        await Deferred()

    async def both():
        calls = (compose([Deadline(clock, seconds)], handler)(request_of()) for seconds in (10, 20))
        return await asyncio.gather(*calls, return_exceptions=True), clock.seconds()

    outcome = driver.run(both())
    clock.advance(0)
    clock.advance(10)
    assert not outcome.called

    clock.advance(10)
    assert [type(error) for error in outcome.result[0]] == [DeadlineExceeded, DeadlineExceeded]


def test_what_is_not_driven_by_the_framework_is_refused_and_told_how(clock, request_of):
    async def handler(request):
        await Deferred()

    outcome = Deferred.fromCoroutine(compose([Deadline(clock, 10)], handler)(request_of()))

    assert str(outcome.result.value) == ("Deadline needs the framework's driver: start the call with Driver.run().")
    outcome.addErrback(lambda _: None)
    assert clock.getDelayedCalls() == []
