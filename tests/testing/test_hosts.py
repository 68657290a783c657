"""A host's own things: its clocks, its reactor and what it is as interfaces, names, threads, and the death of it all."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, cooperate, deferLater
from twisted.internet.threads import deferToThreadPool
from zope.interface.verify import verifyObject

from ropewalk import Service, get
from ropewalk.driver import Driver
from ropewalk.testing import World


class Idle(Service, name="idle", version="1.0.0"):
    """Its hosts are what the tests need."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""


@pytest.fixture
def world() -> Any:
    with World([Idle], seed=5) as world:
        yield world


@pytest.fixture
def host(world: World) -> Any:
    return world.hosts["idle/1"]


def test_the_reactor_is_what_the_product_asks_for(host):
    for interface in (IReactorTime, IReactorTCP, IReactorThreads, IReactorPluggableNameResolver):
        assert verifyObject(interface, host.reactor)
    assert verifyObject(IHostnameResolver, host.reactor.nameResolver)


# -- time


def test_timers_of_one_host_are_its_own(world, host):
    mine = host.reactor.callLater(5.0, id, None)
    theirs = world.hosts["idle/2"].reactor.callLater(5.0, id, None)

    assert mine in host.reactor.getDelayedCalls()
    assert theirs not in host.reactor.getDelayedCalls()


def test_a_negative_delay_is_refused(host):
    with pytest.raises(ValueError, match="not negative"):
        host.reactor.callLater(-0.1, id, None)


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_a_timer_waits_by_its_hosts_clock(world, host, rate):
    world.drift("idle/1", rate)
    begun, at = world.now, host.reactor.seconds()
    fired: list[tuple[float, float]] = []

    host.reactor.callLater(10.0, lambda: fired.append((world.now - begun, host.reactor.seconds() - at)))
    world.advance(30.0)

    assert [(pytest.approx(10.0 / rate), pytest.approx(10.0))] == fired


def test_a_clock_that_begins_to_drift_takes_the_timers_along_that_wait_already(world, host):
    due = host.reactor.seconds() + 10.0
    fired: list[float] = []
    host.reactor.callLater(10.0, lambda: fired.append(host.reactor.seconds()))

    world.drift("idle/1", 2.0)
    world.advance(30.0)

    assert [pytest.approx(due)] == fired


def test_drift_changes_the_speed_and_not_the_time(world, host):
    world.advance(10.0)
    before = host.seconds()

    world.drift("idle/1", 3.0)
    at_once = host.seconds()
    world.advance(1.0)

    assert (before, pytest.approx(before + 3.0)) == (at_once, host.seconds())


def test_a_jump_moves_the_wall_clock_and_no_timer(world, host):
    fired: list[float] = []
    begun, wall, monotonic = world.now, world.wall(host), host.seconds()
    host.reactor.callLater(10.0, lambda: fired.append(world.now - begun))

    world.jump("idle/1", -3600.0)
    jumped = world.wall(host) - wall
    world.advance(20.0)

    assert (-3600.0, [pytest.approx(10.0)]) == (pytest.approx(jumped), fired)
    assert 20.0 == pytest.approx(host.seconds() - monotonic)


def test_twisteds_loops_and_cooperative_tasks_run_on_the_hosts_own_time(world, host):
    ticks: list[float] = []
    loop = LoopingCall(lambda: ticks.append(host.reactor.seconds()))
    loop.clock = host.reactor
    loop.start(1.0, now=False)

    async def steps() -> list[int]:
        done: list[int] = []

        async def worked() -> None:
            await cooperate(done.append(number) for number in range(5)).whenDone()

        await worked()
        return done

    done = world.run(steps())
    world.advance(3.5)
    loop.stop()

    assert ([0, 1, 2, 3, 4], 3) == (done, len(ticks))


# -- names


@pytest.mark.parametrize(
    ("name", "address"),
    [("idle/2", "idle/2"), ("idle", "idle/1"), ("localhost", "idle/1"), ("127.0.0.1", "idle/1")],
)
def test_a_host_is_found_by_its_name_and_a_service_by_its_own(world, host, name, address):
    assert world.hosts[address].address == host.reactor.nameResolver.address(name)
    assert world.hosts[address].address == world.run(host.reactor.resolve(name))


def test_a_stranger_is_not_found(world, host):
    endpoint = HostnameEndpoint(host.reactor, "nowhere.example", 80)

    with pytest.raises(DNSLookupError):
        world.run(connectProtocol(endpoint, Protocol()))


def test_an_endpoint_reaches_a_service_by_its_name(world, host):
    server = Factory.forProtocol(Protocol)
    server.noisy = False
    world.run(TCP4ServerEndpoint(host.reactor, 7000).listen(server))

    endpoint = HostnameEndpoint(world.hosts["idle/2"].reactor, "idle", 7000)
    protocol = world.run(connectProtocol(endpoint, Protocol()))

    assert (host.address, 7000) == (protocol.transport.getPeer().host, protocol.transport.getPeer().port)


# -- threads


def test_what_is_meant_for_a_thread_runs_later_and_its_answer_comes_back(world, host):
    called: list[str] = []
    answer = deferToThreadPool(host.reactor, host.reactor.getThreadPool(), lambda x: called.append(x) or x, "thing")
    at_once = list(called)

    assert ([], "thing") == (at_once, world.run(answer))
    assert ["thing"] == called


def test_what_a_thread_raises_comes_back_as_its_failure(world, host):
    with pytest.raises(ZeroDivisionError):
        world.run(deferToThreadPool(host.reactor, host.reactor.getThreadPool(), lambda: 1 // 0))


def test_what_a_thread_raises_for_nobody_is_a_failure_of_the_world(world, host):
    host.reactor.callInThread(lambda: 1 // 0)
    world.advance(1.0)

    (failure,) = world.flush_failures()
    assert failure.startswith("idle/1 at ")
    assert "ZeroDivisionError" in failure


def test_call_from_thread_comes_in_a_turn_of_its_own(world, host):
    called: list[str] = []
    host.reactor.callFromThread(called.append, "x")
    at_once = list(called)
    world.advance(0.0)

    assert ([], ["x"]) == (at_once, called)


def test_nobody_can_run_or_block_it(host):
    with pytest.raises(RuntimeError, match="run by its World"):
        host.reactor.run()


def test_a_process_that_stops_its_reactor_is_down(world, host):
    host.reactor.callLater(1.0, host.reactor.stop)
    world.advance(2.0)

    assert not host.up


# -- pause


def test_what_a_paused_host_should_have_done_it_does_when_it_goes_on_in_order(world, host):
    fired: list[tuple[str, float]] = []
    begun = world.now
    for name, delay in (("b", 2.0), ("a", 1.0), ("c", 3.0), ("later", 20.0)):
        host.reactor.callLater(delay, lambda name=name: fired.append((name, round(world.now - begun, 6))))
    world.pause("idle/1")
    world.advance(10.0)
    during = list(fired)

    world.resume("idle/1")
    world.advance(15.0)

    assert [] == during
    assert [("a", 10.0), ("b", 10.0), ("c", 10.0), ("later", 20.0)] == fired


def test_a_timer_that_fell_due_in_a_pause_can_still_be_cancelled_by_one_before_it(world, host):
    fired: list[str] = []
    later: list[Any] = []

    def first() -> None:
        fired.append(f"first, active: {later[0].active()}")
        if later[0].active():
            later[0].cancel()

    host.reactor.callLater(1.0, first)
    later.append(host.reactor.callLater(2.0, fired.append, "second"))
    world.pause("idle/1")
    world.advance(10.0)
    world.resume("idle/1")
    world.advance(10.0)

    assert ["first, active: True"] == fired


def test_a_timer_that_fell_due_in_a_pause_is_still_to_come(world, host):
    timer = host.reactor.callLater(1.0, id, None)
    world.pause("idle/1")
    world.advance(10.0)

    assert timer.active()
    assert timer in host.reactor.getDelayedCalls()


def test_pause_and_resume_twice_are_pause_and_resume(world, host):
    fired: list[str] = []
    host.reactor.callLater(1.0, fired.append, "x")
    for _ in range(2):
        world.pause("idle/1")
    world.advance(2.0)
    for _ in range(2):
        world.resume("idle/1")
    world.advance(2.0)

    assert ["x"] == fired


# -- death


def test_of_a_dead_process_nothing_fires_and_it_can_ask_for_nothing(world, host):
    acted: list[str] = []
    dead = host.reactor
    dead.callLater(1.0, acted.append, "timer")
    dead.callInThread(acted.append, "thread")

    world.crash("idle/1")
    dead.callLater(0.0, acted.append, "asked when dead")
    dead.callFromThread(acted.append, "asked from a thread")
    dead.listenTCP(9000, Factory.forProtocol(Protocol))
    dead.connectTCP("idle/2", 8000, Factory.forProtocol(Protocol))
    world.restart("idle/1")
    world.advance(60.0)

    assert [] == acted
    assert host.reactor is not dead
    assert (host.address, 9000) not in world.network.ports


async def waits(for_what: Any, said: list[str]) -> None:
    """A coroutine whose last words would be heard."""
    try:
        await for_what
    finally:
        said.append("finally")


def waiting_for_a_timer(world: World, host: Any, said: list[str]) -> None:
    Driver.of(host.reactor).start(waits(deferLater(host.reactor, 5.0), said))


def waiting_for_a_sleep(world: World, host: Any, said: list[str]) -> None:
    Driver.of(host.reactor).start(waits(asyncio.sleep(5.0), said))


def waiting_for_bytes(world: World, host: Any, said: list[str]) -> None:
    class Waiting(Protocol):
        def connectionMade(self) -> None:
            self.answer: Deferred[bytes] = Deferred()
            Driver.of(host.reactor).start(waits(self.answer, said))

        def dataReceived(self, data: bytes) -> None:
            self.answer.callback(data)

    endpoint = HostnameEndpoint(host.reactor, world.hosts["idle/2"].address, 8000)
    world.run(connectProtocol(endpoint, Waiting()))


@pytest.mark.parametrize(
    ("waiting", "paused"),
    [
        (waiting_for_a_timer, False),
        (waiting_for_a_sleep, False),
        (waiting_for_bytes, False),
        (waiting_for_a_timer, True),
        (waiting_for_a_sleep, True),
        (waiting_for_bytes, True),
    ],
)
def test_no_finally_block_of_a_dead_process_is_executed(world, host, waiting, paused):
    said: list[str] = []
    waiting(world, host, said)
    if paused:
        world.pause("idle/1")
        world.advance(10.0)

    world.crash("idle/1")
    gc.collect()
    world.advance(20.0)
    gc.collect()
    world.restart("idle/1")
    world.advance(20.0)
    gc.collect()

    assert [] == said


def test_a_failure_that_nobody_took_is_one_of_its_host(world, host, flush_logged_errors):
    host.reactor.callLater(1.0, lambda: fail(ValueError("dropped")) and None)
    host.reactor.callLater(2.0, lambda: [][0])
    world.advance(3.0)

    dropped, raised = world.flush_failures()
    flush_logged_errors(ValueError)

    assert dropped.startswith("idle/1 at 1.0")
    assert "ValueError: dropped" in dropped
    assert raised.startswith("idle/1 at 2.0")
    assert "IndexError" in raised
