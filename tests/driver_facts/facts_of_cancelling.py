"""Cancellation, and what asyncio builds of it: timeouts, groups, shields, and these within each other."""

from __future__ import annotations

import asyncio
import gc
import threading

from telling import (
    ENDLESS,
    WITHOUT_THE_DEFERRED,
    Never,
    answered,
    driver,
    fact,
    fact_of_each,
    later,
    raised_by,
    take_failures,
    the_reactor,
    timed,
    wrapped,
)
from twisted.internet import defer
from twisted.internet.defer import Deferred

# -- cancellation


@fact_of_each(ENDLESS)
async def cancelled_from_outside_an_operation_meets_cancelled_error_at_its_await(make):
    never, seen = Never(), []

    async def operation():
        try:
            await make(never.deferred)
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            seen.append("cleanup")

    deferred = driver().run(operation())
    await asyncio.sleep(0.002)
    deferred.cancel()
    error = await raised_by(deferred)
    await asyncio.sleep(0.002)

    assert type(error) is defer.CancelledError
    assert seen == [asyncio.CancelledError, "cleanup"], seen


@fact_of_each({name: make for name, make in ENDLESS.items() if name not in WITHOUT_THE_DEFERRED})
async def the_deferred_that_was_waited_for_is_cancelled(make):
    never = Never()
    deferred = driver().run(wrapped(make(never.deferred)))
    await asyncio.sleep(0.002)

    deferred.cancel()
    await raised_by(deferred)
    await asyncio.sleep(0.002)

    assert never.cancelled


@fact_of_each(ENDLESS)
async def a_timeout_ends_what_it_encloses(make):
    never, began = Never(), asyncio.get_running_loop().time()

    async def operation():
        async with asyncio.timeout(0.005):
            await make(never.deferred)

    assert type(await raised_by(operation())) is TimeoutError
    assert asyncio.get_running_loop().time() - began < 2
    assert asyncio.current_task().cancelling() == 0
    assert await later("and nothing of the cancellation is left")


@fact_of_each(ENDLESS)
async def a_cancelled_task_meets_cancelled_error_at_its_await(make):
    never = Never()
    task = asyncio.ensure_future(wrapped(make(never.deferred)))
    await asyncio.sleep(0.002)

    task.cancel()

    assert type(await raised_by(task)) is asyncio.CancelledError
    assert task.cancelled()


@fact
async def cancelling_the_deferred_of_a_run_that_awaits_a_deferred_cleans_up_before_it_returns():
    seen = []

    async def operation():
        try:
            await Never().deferred
        finally:
            seen.append("cleanup")

    deferred = driver().run(operation())
    deferred.addErrback(lambda failure: failure.trap(defer.CancelledError))

    deferred.cancel()

    assert seen == ["cleanup"]


@fact
async def cleanup_may_await():
    seen = []

    async def operation():
        try:
            await Never().deferred
        finally:
            seen.append(await later("a Deferred"))
            seen.append(await asyncio.sleep(0.001, "asyncio"))

    deferred = driver().run(operation())
    deferred.cancel()
    await raised_by(deferred)
    await asyncio.sleep(0.02)

    assert seen == ["a Deferred", "asyncio"]


@fact
async def who_swallows_its_cancellation_goes_on():
    async def operation():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return await later("all the same")

    task = asyncio.ensure_future(operation())
    await asyncio.sleep(0)
    task.cancel()

    assert await task == "all the same"


@fact
async def what_a_deferred_answers_to_its_cancellation_is_lost_and_no_unhandled_error():
    def refuse(deferred):
        deferred.errback(ConnectionError("cut off"))

    answers = [Deferred(refuse), Deferred(lambda d: d.callback("too late")), Deferred()]
    for deferred in answers:
        run = driver().run(wrapped(deferred))
        run.cancel()
        assert type(await raised_by(run)) is defer.CancelledError
        assert deferred.called
    answers[-1].callback("long after")
    del answers, deferred, run
    gc.collect()

    assert take_failures() == []


@fact
async def a_deferred_that_will_not_be_cancelled_is_waited_for_and_its_result_dropped():
    async def stubborn():
        try:
            await Never().deferred
        except defer.CancelledError:
            return await later("done all the same")

    async def operation():
        async with asyncio.timeout(0.001):
            return await Deferred.fromCoroutine(stubborn())

    assert type(await raised_by(operation())) is TimeoutError


@fact
async def what_fails_while_a_cancelled_run_ends_is_logged():
    async def operation():
        try:
            await Never().deferred
        finally:
            await later()
            raise KeyError("cleanup")

    deferred = driver().run(operation())
    deferred.cancel()
    await raised_by(deferred)
    await asyncio.sleep(0.02)

    assert [str(failure.value) for failure in take_failures()] == ["'cleanup'"]


@fact
async def a_deferred_somebody_else_cancelled_fails_with_twisteds_error():
    never = Never()
    the_reactor().callLater(0, never.deferred.cancel)

    assert type(await raised_by(never.deferred)) is defer.CancelledError


@fact
async def who_cancels_itself_meets_it_at_the_next_await():
    async def operation(make):
        asyncio.current_task().cancel()
        seen.append("still running")
        await make()

    for make in (lambda: Never().deferred, lambda: asyncio.sleep(1000), lambda: asyncio.sleep(0), Deferred):
        seen = []
        task = asyncio.ensure_future(operation(make))
        assert type(await raised_by(task)) is asyncio.CancelledError
        assert seen == ["still running"]


@fact
async def who_cancels_itself_and_awaits_no_more_is_cancelled():
    async def operation():
        asyncio.current_task().cancel()
        return "an answer"

    assert type(await raised_by(driver().run(operation()))) is defer.CancelledError
    assert type(await raised_by(asyncio.ensure_future(operation()))) is asyncio.CancelledError


@fact
async def a_cancellation_taken_back_in_time_is_not_met():
    async def operation():
        run = asyncio.current_task()
        run.cancel()
        assert (run.cancelling(), run.uncancel()) == (1, 0)
        return await later("undisturbed")

    assert await driver().run(operation()) == "undisturbed"


@fact
async def a_cancellation_of_who_waits_for_a_deferred_can_be_taken_back_in_the_same_turn():
    never = Never()
    run = driver().start(wrapped(never.deferred), lambda _: None)

    run.cancel()
    run.uncancel()
    await asyncio.sleep(0.002)
    assert not never.cancelled
    never.deferred.callback("undisturbed")

    assert run.result() == "undisturbed"


@fact
async def two_cancellations_in_one_turn_are_met_once():
    seen = []

    async def operation():
        try:
            await Never().deferred
        except asyncio.CancelledError:
            seen.append("met")
        return await later("cleaned up")

    task = asyncio.ensure_future(operation())
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()

    assert (await task, seen, task.cancelling()) == ("cleaned up", ["met"], 2)


@fact
async def what_has_ended_cannot_be_cancelled():
    run = driver().start(answered(1))
    task = asyncio.ensure_future(answered(1))
    await task

    assert (run.cancel(), run.cancelling()) == (False, 0)
    assert (task.cancel(), task.cancelling()) == (False, 0)


@fact
async def a_task_cancelled_before_its_first_step_never_begins():
    begun = []

    async def operation():
        begun.append(1)

    task = asyncio.ensure_future(operation())
    task.cancel()

    assert type(await raised_by(task)) is asyncio.CancelledError
    assert begun == []


# -- timeouts, groups and their like, in each other


@fact
async def of_two_timeouts_the_inner_one_is_met_by_the_inner_and_the_outer_goes_on():
    async with asyncio.timeout(5):
        error = await raised_by(timed(0.001, Never().deferred))
        assert await later("outer goes on") == "outer goes on"

    assert type(error) is TimeoutError


@fact
async def of_two_timeouts_the_outer_one_is_not_taken_for_the_inner():
    seen = []

    async def inner():
        try:
            async with asyncio.timeout(5):
                await Never().deferred
        except BaseException as error:
            seen.append(type(error))
            raise

    assert type(await raised_by(timed(0.001, inner()))) is TimeoutError
    assert seen == [asyncio.CancelledError]


@fact
async def two_timeouts_at_the_same_instant_end_as_the_outer_one():
    when = asyncio.get_running_loop().time() + 0.002

    async def operation():
        async with asyncio.timeout_at(when), asyncio.timeout_at(when):
            await Never().deferred

    assert type(await raised_by(operation())) is TimeoutError
    assert asyncio.current_task().cancelling() == 0


@fact
async def a_timeout_that_has_passed_is_met_at_the_first_await():
    assert type(await raised_by(timed(0, Never().deferred))) is TimeoutError
    assert type(await raised_by(timed(-1, asyncio.sleep(1000)))) is TimeoutError


@fact
async def a_cancellation_from_outside_is_not_taken_for_a_timeout():
    task = asyncio.ensure_future(timed(5, Never().deferred))
    await asyncio.sleep(0)
    task.cancel()

    assert type(await raised_by(task)) is asyncio.CancelledError


@fact
async def a_failing_child_ends_its_group_and_the_deferreds_of_the_others():
    never, body = Never(), Never()

    async def fails():
        await later()
        raise KeyError("room")

    async def operation():
        async with asyncio.TaskGroup() as group:
            group.create_task(wrapped(never.deferred))
            group.create_task(fails())
            await body.deferred

    error = await raised_by(operation())

    assert isinstance(error, ExceptionGroup)
    assert [repr(each) for each in error.exceptions] == ["KeyError('room')"]
    assert (never.cancelled, body.cancelled) == (True, True)
    assert asyncio.current_task().cancelling() == 0


@fact
async def wait_for_gives_up_and_cancels_the_deferred():
    never = Never()

    assert type(await raised_by(asyncio.wait_for(never.deferred, 0.001))) is TimeoutError
    assert never.cancelled


@fact
async def shield_keeps_what_is_within_from_the_cancellation():
    ended: Deferred[str] = Deferred()

    async def precious():
        await later(seconds=0.005)
        ended.callback("came through")

    task = asyncio.ensure_future(wrapped(asyncio.shield(precious())))
    await asyncio.sleep(0.001)
    task.cancel()

    assert type(await raised_by(task)) is asyncio.CancelledError
    assert await ended == "came through"


@fact
async def gather_fails_with_the_first_error_and_can_keep_them_all():
    async def fails():
        await later()
        raise KeyError("room")

    assert repr(await raised_by(asyncio.gather(fails(), later(1)))) == "KeyError('room')"
    kept = await asyncio.gather(fails(), later(1), return_exceptions=True)
    assert [repr(each) for each in kept] == ["KeyError('room')", "1"]


@fact
async def a_lock_lets_one_in_at_a_time_across_runs():
    lock, inside, most = asyncio.Lock(), [], []

    async def operation(n):
        async with lock:
            inside.append(n)
            most.append(len(inside))
            await later()
            inside.remove(n)

    await defer.gatherResults([driver().run(operation(n)) for n in range(5)])

    assert most == [1, 1, 1, 1, 1]


@fact
async def a_queue_carries_values_from_one_run_to_another():
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce():
        for n in range(5):
            await queue.put(n)

    async def consume():
        return [await queue.get() for _ in range(5)]

    _, got = await defer.gatherResults([driver().run(produce()), driver().run(consume())])

    assert got == [0, 1, 2, 3, 4]


@fact
async def to_thread_runs_elsewhere_and_its_errors_come_back():
    assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
    assert repr(await raised_by(asyncio.to_thread(lambda: {}["room"]))) == "KeyError('room')"
