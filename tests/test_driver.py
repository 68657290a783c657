"""The driver: its facts on each reactor, told in `driver_facts/`, and those of a loop whose time is virtual."""

from __future__ import annotations

import asyncio
import gc
import json
import runpy
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ropewalk.driver import Driver, Once, ReactorLoop, Run

# -- on every reactor

TOLD_IN = Path(__file__).with_name("driver_facts")
FACTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = runpy.run_path(str(TOLD_IN))["FACTS"]


@cache
def told_on(reactor: str) -> tuple[dict[str, str], str]:
    """What a process of its own says of each fact on that reactor, and to stderr; a process can have only one."""
    command = [sys.executable, "-W", "error", str(TOLD_IN), reactor]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    return json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.parametrize(
    ("reactor", "fact"), [pytest.param(on, fact, id=f"{fact} [{on}]") for fact, (_, ons) in FACTS.items() for on in ons]
)
def test_on_each_reactor(reactor, fact):
    verdicts, stderr = told_on(reactor)

    reason = verdicts.get(fact, f"Nothing was said of it. {stderr}")
    assert reason == "", reason


# -- in virtual time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Driver:
    return Driver.of(clock)


def test_thirty_virtual_seconds_of_asyncio_pass_when_the_clock_is_advanced(clock, driver):
    async def operation():
        await asyncio.sleep(30)
        return asyncio.get_running_loop().time()

    outcome = driver.run(operation())
    clock.advance(29.999)
    assert not outcome.called

    clock.advance(0.001)
    assert outcome.result == 30.0


def test_a_timeout_ends_at_its_instant_of_virtual_time(clock, driver):
    never: Deferred[None] = Deferred()

    async def operation():
        try:
            async with asyncio.timeout(5):
                await never
        except TimeoutError:
            return clock.seconds()

    outcome = driver.run(operation())
    clock.advance(4.999)
    assert not outcome.called

    clock.advance(0.001)
    assert outcome.result == 5.0


def test_a_group_in_virtual_time_takes_as_long_as_its_longest_member(clock, driver):
    async def operation():
        async with asyncio.TaskGroup() as group:
            for seconds in (1, 3, 2):
                group.create_task(asyncio.sleep(seconds))
        return clock.seconds()

    outcome = driver.run(operation())
    clock.pump([0, 1, 1, 1])  # a child takes its first step in the next turn

    assert outcome.result == 3.0


def test_a_timer_that_is_cancelled_leaves_nothing_on_the_clock(clock, driver):
    async def operation():
        async with asyncio.timeout(60):
            await asyncio.sleep(1)

    driver.run(operation())
    clock.advance(1)

    assert clock.getDelayedCalls() == []


def test_one_turn_costs_one_timer_however_many_callbacks_it_has(clock, driver):
    called: list[int] = []

    for n in range(100):
        driver.loop.call_soon(called.append, n)

    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert called == list(range(100))


def test_a_callback_that_ends_the_process_leaves_the_rest_of_its_turn_for_the_next(clock, driver):
    called: list[str] = []

    def end() -> None:
        raise SystemExit(3)

    driver.loop.call_soon(end)
    driver.loop.call_soon(called.append, "next")
    with pytest.raises(SystemExit):
        clock.advance(0)
    clock.advance(0)

    assert called == ["next"]


def test_a_callback_that_fails_is_logged_and_the_next_one_is_called(clock, driver, flush_logged_errors):
    called: list[str] = []

    driver.loop.call_soon(lambda: {}["room"])
    driver.loop.call_soon(called.append, "next")
    clock.advance(0)

    assert called == ["next"]
    assert [repr(failure.value) for failure in flush_logged_errors()] == ["KeyError('room')"]


def test_system_exit_in_an_operation_ends_the_run_and_goes_on_to_the_process(clock, driver):
    async def operation():
        await asyncio.sleep(0)
        raise SystemExit(3)

    run = driver.start(operation(), lambda _: None)

    with pytest.raises(SystemExit):
        clock.advance(0)
    assert isinstance(run.exception(), SystemExit)


def test_a_reactor_has_one_driver_and_takes_it_along():
    clock = Clock()
    assert Driver.of(clock) is Driver.of(clock)
    assert isinstance(Driver.of(clock).loop, ReactorLoop)

    seen = weakref.ref(Driver.of(clock).loop)
    del clock
    gc.collect()

    assert seen() is None


def test_inside_an_operation_the_driver_is_that_of_its_reactor(clock, driver):
    async def operation():
        return Driver.of().loop

    assert driver.run(operation()).result is driver.loop


def test_a_deferred_is_already_what_run_answers(driver):
    deferred: Deferred[int] = Deferred()

    assert driver.run(deferred) is deferred


def test_a_run_cancelled_from_outside_fails_with_twisteds_error_and_leaves_no_timer(clock, driver):
    outcome = driver.run(asyncio.sleep(30))

    outcome.cancel()
    clock.advance(0)

    assert outcome.result.check(defer.CancelledError)
    outcome.addErrback(lambda _: None)
    assert clock.getDelayedCalls() == []


def test_the_facts_are_told_of_runs_on_the_loop_that_the_reactor_has(clock, driver):
    run = driver.start(asyncio.sleep(1), lambda _: None)

    assert isinstance(run, Run)
    assert (run.get_loop(), run.get_name(), run.get_coro().__name__) == (driver.loop, "sleep", "sleep")
    clock.advance(1)
    assert run.done()


# -- what one run waits for


def test_what_is_there_already_is_not_waited_for(driver):
    once = Once()
    once.fire(7)

    async def operation():
        return await once

    assert driver.start(operation()).result() == 7


def test_a_run_goes_on_in_the_call_that_fires_what_it_waits_for(driver):
    once = Once()

    async def operation():
        return await once + 1

    run = driver.start(operation())
    assert not run.done()

    once.fire(7)

    assert run.result() == 8


def test_a_failure_is_raised_where_it_is_awaited(driver):
    once = Once()

    async def operation():
        try:
            await once
        except KeyError as error:
            return error

    run = driver.start(operation())
    error = KeyError("room")

    once.fail(error)

    assert run.result() is error


def test_of_two_ends_the_first_counts(driver):
    once = Once()

    async def operation():
        return await once

    run = driver.start(operation())

    once.fire(1)
    once.fire(2)
    once.fail(KeyError("late"))

    assert run.result() == 1


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_a_run_that_is_cancelled_meets_it_where_it_waits_and_what_comes_later_is_dropped(clock, driver, how):
    once, met = Once(), []

    async def operation():
        try:
            await once
        except asyncio.CancelledError:
            met.append(clock.seconds())
            raise

    run = driver.start(operation(), lambda run: None)

    getattr(run, how)()
    assert met == ([0.0] if how == "interrupt" else [])
    clock.advance(0)
    once.fire(1)

    assert (met, run.cancelled()) == ([0.0], True)


def test_a_task_whose_context_is_anothers_goes_on_in_the_next_turn(clock, driver):
    once = Once()

    async def waits():
        return await once

    async def operation():
        task = asyncio.get_running_loop().create_task(waits(), context=asyncio.current_task().get_context())
        await asyncio.sleep(0)
        once.fire(7)
        return await task

    run = driver.start(operation())
    clock.pump([0] * 5)

    assert run.result() == 7
