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

from ropewalk.driver import Driver, ReactorLoop, Run

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
