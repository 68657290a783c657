"""Whose context it is: after each await, in children, callbacks, clocks and threads."""

from __future__ import annotations

import asyncio
from typing import Any

from telling import (
    AWAITS,
    as_request,
    driver,
    fact,
    fact_of_each,
    here,
    later,
    the_reactor,
)
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ropewalk import bound, wait
from ropewalk.runtime.clock import Clock
from ropewalk.runtime.workers import Workers


@fact_of_each(AWAITS)
async def the_context_is_the_same_after(make):
    mine = as_request("r1")

    await make(1)
    assert here() == mine
    await make(1)
    assert here() == mine


@fact_of_each(AWAITS)
async def two_runs_that_take_turns_keep_their_contexts_apart_at(make):
    async def operation(request_id):
        mine = as_request(request_id)
        for _ in range(3):
            await make(request_id)
            assert here() == mine
        return request_id

    outside = here()
    runs = [driver().run(operation(f"r{n}")) for n in range(4)]

    assert here() == outside
    assert await defer.gatherResults(runs) == ["r0", "r1", "r2", "r3"]
    assert here() == outside


@fact
async def children_of_a_group_begin_with_their_parents_context_and_keep_what_they_set():
    mine = as_request("parent")
    seen = []

    async def child(request_id):
        seen.append(here())
        theirs = as_request(request_id)
        await later()
        assert here() == theirs
        await asyncio.sleep(0)
        assert here() == theirs

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(child(f"child {n}"))

    assert seen == [mine] * 3
    assert here() == mine


@fact
async def a_bound_callback_runs_in_the_context_it_was_made_in_whoever_calls_it():
    seen: list[Any] = []
    deferred: Deferred[Any] = Deferred()

    async def binds():
        as_request("binder")
        deferred.addCallback(bound(lambda _: seen.append(here())))
        the_reactor().callLater(0, bound(lambda: seen.append(here())))

    async def fires():
        as_request("other")
        deferred.callback(None)
        await later()

    await driver().run(binds())
    await driver().run(fires())

    assert seen == [("binder", "host of binder")] * 2


@fact
async def the_clock_of_the_runtime_calls_in_the_context_of_who_asked():
    clock, seen = Clock(the_reactor()), []

    async def asks(request_id):
        as_request(request_id)
        clock.callLater(0.001, lambda: seen.append(here()))
        await later(seconds=0.002)

    await defer.gatherResults([driver().run(asks(f"r{n}")) for n in range(3)])
    await asyncio.sleep(0.01)

    assert seen == [(f"r{n}", f"host of r{n}") for n in range(3)]


@fact
async def a_worker_thread_works_in_the_context_of_who_asked():
    workers, mine = Workers(the_reactor()), as_request("asker")

    there = await workers.thread(here)

    assert there == mine
    assert here() == mine
    await workers.close()


@fact
async def to_thread_works_in_the_context_of_who_asked():
    mine = as_request("asker")

    assert await asyncio.to_thread(here) == mine


@fact
async def what_a_thread_waits_for_runs_in_the_threads_context():
    mine = as_request("asker")

    async def operation():
        await later()
        return here()

    assert await asyncio.to_thread(lambda: wait(operation())) == mine


@fact
async def loop_callbacks_run_in_the_context_of_who_asked():
    loop, seen = asyncio.get_running_loop(), []

    async def asks(request_id):
        as_request(request_id)
        loop.call_soon(lambda: seen.append(here()))
        loop.call_later(0.001, lambda: seen.append(here()))

    await driver().run(asks("r1"))
    as_request("r2")
    await asyncio.sleep(0.01)

    assert seen == [("r1", "host of r1")] * 2
