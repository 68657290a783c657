"""What an operation can await, and what it is to asyncio meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import types

from telling import (
    AWAITS,
    Never,
    answered,
    called,
    driver,
    ensure,
    fact,
    fact_of_each,
    in_task_group,
    later,
    raised_by,
    wrapped,
)
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ropewalk.driver import Run, current_run

# -- what can be awaited


@fact_of_each(AWAITS)
async def an_operation_awaits(make):
    assert await make("value") == "value"


@fact_of_each(AWAITS)
async def a_task_in_a_group_awaits(make):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wrapped(make(n))) for n in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]


@fact
async def a_coroutine_that_never_suspends_is_finished_on_return():
    ended = []

    run = driver().start(answered(7), lambda run: ended.append(run.result()))

    assert (run.done(), run.result(), ended) == (True, 7, [7])
    assert driver().run(answered(8)).result == 8


@fact
def a_plain_callback_can_start_an_operation():
    deferred = driver().run(in_task_group(5))

    assert current_run() is None
    return deferred.addCallback(lambda value: ensure(value == 5, value))


@fact
async def the_first_step_is_taken_before_run_returns():
    begun = []

    async def operation():
        begun.append(1)
        await later()
        begun.append(2)

    deferred = driver().run(operation())

    assert begun == [1]
    await deferred
    assert begun == [1, 2]


@fact
async def a_deferred_resumes_who_awaits_it_before_its_callback_returns():
    got = []
    deferred: Deferred[str] = Deferred()

    async def operation():
        got.append(await deferred)

    driver().run(operation())
    deferred.callback("at once")

    assert got == ["at once"]


@fact
async def what_had_fired_and_is_yielded_all_the_same_is_awaited_too():
    @types.coroutine
    def foreign():
        yield defer.succeed(1)
        return "back"

    assert await foreign() == "back"


@fact
async def what_cannot_be_awaited_is_refused_at_the_await_and_named():
    @types.coroutine
    def wrong():
        yield 42

    error = await raised_by(wrong())

    assert isinstance(error, TypeError)
    assert "awaited 42" in str(error), error


@fact
async def a_run_may_share_its_context_with_the_run_that_fires_its_deferred():
    context = contextvars.copy_context()
    first: Deferred[str] = Deferred()

    async def fires():
        first.callback("fired")

    waiting = asyncio.get_running_loop().create_task(wrapped(first), context=context)
    await asyncio.sleep(0)
    firing = asyncio.get_running_loop().create_task(fires(), context=context)

    assert await waiting == "fired"
    await firing


@fact
async def ten_thousand_fired_deferreds_in_a_row_need_no_stack():
    async def operation():
        return [await defer.succeed(n) for n in range(10_000)]

    assert sum(await operation()) == sum(range(10_000))


@fact
async def callbacks_of_one_turn_come_in_the_order_they_were_asked_for():
    order: list[int] = []
    loop = asyncio.get_running_loop()

    for n in range(1000):
        loop.call_soon(order.append, n)
    await asyncio.sleep(0.01)

    assert order == list(range(1000))


# -- the current task


@fact
async def the_current_task_is_the_run_and_a_child_is_the_task_that_was_made():
    me = asyncio.current_task()

    async def child():
        return asyncio.current_task()

    task = asyncio.ensure_future(child())

    assert isinstance(me, Run)
    assert me is current_run()
    assert await task is task
    assert asyncio.current_task() is me


@fact
async def after_each_await_the_current_task_is_the_same():
    me = asyncio.current_task()

    for name, make in AWAITS.items():
        await make(1)
        assert asyncio.current_task() is me, name


@fact
def outside_of_any_operation_there_is_no_current_task():
    assert current_run() is None
    driver().run(answered(1))
    assert current_run() is None


@fact
async def a_task_has_the_name_it_was_given():
    task = asyncio.create_task(answered(1), name="porter")
    run = asyncio.current_task()

    assert task.get_name() == "porter"
    assert run.get_name().endswith("a_task_has_the_name_it_was_given")
    run.set_name("host")
    assert run.get_name() == "host"
    await task


@fact
async def a_run_tells_those_who_ask_later_that_it_has_ended():
    told = []
    run = driver().start(wrapped(later("x")), lambda _: told.append("done"))
    run.add_done_callback(lambda ended: told.append(ended.result()))

    await asyncio.sleep(0.01)
    run.add_done_callback(lambda ended: told.append("after"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert told == ["done", "x", "after"]


@fact
async def a_run_that_has_not_ended_has_no_result():
    never = Never()
    run = driver().start(wrapped(never.deferred))

    assert not run.done()
    assert isinstance(await raised_by(called(run.result)), asyncio.InvalidStateError)
    run.interrupt()
    assert run.cancelled()
    assert isinstance(await raised_by(called(run.exception)), asyncio.CancelledError)
