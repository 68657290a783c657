"""How exceptions travel, and that none is lost."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from telling import (
    driver,
    fact,
    functions_in,
    later,
    raised_by,
    take_failures,
    the_reactor,
)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


@fact
async def an_exception_comes_through_a_deferred_with_its_traceback():
    def where_it_happened():
        raise KeyError("room")

    error = await raised_by(later().addCallback(lambda _: where_it_happened()))

    assert isinstance(error, KeyError)
    assert functions_in(error)[-1] == "where_it_happened", functions_in(error)


@fact
async def an_exception_comes_through_two_runs_a_task_and_a_deferred_with_its_traceback():
    async def innermost():
        await later()
        raise KeyError("room")

    async def middle():
        await asyncio.ensure_future(innermost())

    error = await raised_by(driver().run(middle()))

    names = functions_in(error)
    assert names[-2:] == ["middle", "innermost"], names
    assert "_step" not in names, names


@fact
async def a_failure_that_lost_its_traceback_is_raised_all_the_same():
    failure = Failure(KeyError("room"))
    failure.cleanFailure()
    deferred: Deferred[Any] = Deferred()
    the_reactor().callLater(0, deferred.errback, failure)

    assert repr(await raised_by(deferred)) == "KeyError('room')"


@fact
async def an_exception_that_is_dropped_is_freed_without_the_collector():
    class Refused(Exception):
        pass

    async def fails():
        await later()
        raise Refused

    gc.disable()
    try:
        deferred = driver().run(fails())
        await asyncio.sleep(0.01)
        seen = weakref.ref(deferred.result.value)
        deferred.addErrback(lambda _: None)
        assert seen() is None
    finally:
        gc.enable()


@fact
async def a_failure_nobody_waits_for_is_logged():
    async def fails():
        raise KeyError("room")

    driver().start(fails())

    assert [str(failure.value) for failure in take_failures()] == ["'room'"]


@fact
async def a_task_that_failed_and_was_never_asked_is_logged():
    async def fails():
        raise KeyError("room")

    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0.001)
    handled: list[Any] = []
    loop = asyncio.get_running_loop()
    if not type(loop).__module__.startswith("ropewalk"):
        loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))
    del task
    gc.collect()
    handled += [failure.value for failure in take_failures()]

    assert [repr(error) for error in handled] == ["KeyError('room')"]
