"""What a test leaves behind is named: failures that nobody took, timers and sockets of the reactor."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, globalLogPublisher
from twisted.python import log
from twisted.python.failure import Failure

from ropewalk import bound
from ropewalk.driver import Driver
from ropewalk.testing.leftovers import LoggedFailures, ReactorLeftovers

reactor: Any = installed


# -- failures


@pytest.fixture
def failures() -> Iterator[LoggedFailures]:
    observer = LoggedFailures()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)


def raised(error: Exception) -> Failure:
    try:
        raise error
    except type(error):
        return Failure()


def test_a_failure_that_was_logged_is_kept_until_it_is_taken(failures, flush_logged_errors):
    Logger("tests").failure("told", raised(ValueError("first")))
    log.err(raised(KeyError("second")))

    (told,) = failures.flush(ValueError)
    rest = failures.remaining()

    assert "first" == told.getErrorMessage()
    assert ["KeyError: 'second' (logged by log_legacy)"] == [each.partition("\n")[0] for each in rest]
    flush_logged_errors(ValueError, KeyError)


def test_a_failure_that_a_deferred_took_to_its_grave_is_kept(failures, flush_logged_errors):
    fail(raised(ValueError("nobody looked")))

    remaining = failures.remaining()

    assert ["ValueError: nobody looked (unhandled in a Deferred)"] == [each.partition("\n")[0] for each in remaining]
    flush_logged_errors(ValueError)


def test_a_line_that_is_no_failure_is_not_kept(failures):
    Logger("tests").error("only told")

    assert [] == failures.remaining()


# -- timers


def tick(*args: Any) -> None:
    """What the timers below would call."""


class Watch:
    def look(self) -> None:
        """What a timer would call."""


@pytest.fixture
def timers() -> Iterator[Callable[..., Any]]:
    """`timers(function, *args)`: one in a minute, cancelled when the test ends."""
    begun: list[Any] = []

    def begin(function: Callable[..., Any], *args: Any) -> Any:
        begun.append(reactor.callLater(60, function, *args))
        return begun[-1]

    yield begin
    for each in begun:
        if each.active():
            each.cancel()


@pytest.mark.parametrize(
    ("function", "owner"),
    [
        (tick, "tick"),
        (partial(tick), "tick"),
        (bound(tick), "tick"),
        (partial(bound(partial(tick))), "tick"),
        (Watch().look, "Watch.look"),
    ],
    ids=["a function", "with arguments", "in a context", "both", "a method"],
)
def test_a_timer_is_named_by_whom_it_would_call(timers, function, owner):
    before = ReactorLeftovers()

    timers(function)

    assert [f"a timer of {__name__}.{owner}"] == before.remaining()


@pytest.mark.skipif(hasattr(reactor, "_asyncioEventloop"), reason="a loop of its own does not tell of its timers")
def test_a_timer_of_asyncio_is_named_by_what_it_would_call(timers):
    before = ReactorLeftovers()

    handle = Driver.of(reactor).loop.call_later(60, tick)

    assert [f"a timer of {__name__}.tick"] == before.remaining()
    handle.cancel()


def test_a_looping_call_is_named_by_what_it_calls():
    before = ReactorLeftovers()
    loop = LoopingCall(tick)
    ended = loop.start(60, now=False)

    remaining = before.remaining()
    loop.stop()

    assert [f"a timer of twisted.internet.task.LoopingCall of {__name__}.tick"] == remaining
    assert ended.called


def test_a_timer_that_existed_before_is_nobodys_leftover_and_neither_is_the_next_one_of_its_owner(timers):
    mine, other = Watch(), Watch()
    first = timers(mine.look)
    before = ReactorLeftovers()

    first.cancel()
    timers(mine.look)
    armed_again = before.remaining()
    timers(other.look)

    assert ([], [f"a timer of {__name__}.Watch.look"]) == (armed_again, before.remaining())


def test_the_timers_of_a_factorys_protocols_have_one_owner(timers):
    class Chatty(Protocol):
        def late(self) -> None:
            """What a timer would call."""

    factory = Factory.forProtocol(Chatty)
    old, new, others = (each.buildProtocol(None) for each in (factory, factory, Factory.forProtocol(Chatty)))
    timers(old.late)
    before = ReactorLeftovers()

    timers(new.late)
    of_this_factory = before.remaining()
    timers(others.late)

    assert ([], 1) == (of_this_factory, len(before.remaining()))


@ensureDeferred
async def test_who_waits_in_a_loop_from_before_may_wait_again():
    waiting = [deferLater(reactor, 60)]
    before = ReactorLeftovers()

    waiting.append(deferLater(reactor, 60))
    remaining = before.remaining()
    for each in waiting:
        each.addErrback(lambda _: None)
        each.cancel()

    assert [] == remaining


# -- sockets


class Silent(Protocol):
    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def look(self) -> None:
        """What a timer would call."""

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Listening:
    """A listener and the connections it accepted."""

    def __init__(self) -> None:
        self.accepted: list[Silent] = []
        self.came: Deferred[Silent] = Deferred()
        factory = Factory()
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    def _build(self, address: Any) -> Silent:
        protocol = Silent()
        self.accepted.append(protocol)
        protocol.made.addCallback(lambda _: self.came.callback(protocol))
        return protocol

    async def connect(self) -> Silent:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = await connectProtocol(endpoint, Silent())
        await self.came
        return client

    async def close(self) -> None:
        await self.port.stopListening()
        for each in self.accepted:
            each.transport.loseConnection()
            await each.lost


@ensureDeferred
async def test_a_listener_and_its_connections_are_named():
    before = ReactorLeftovers()
    listening = Listening()
    client = await listening.connect()

    remaining = before.remaining()
    await listening.close()
    await client.lost

    assert 3 == len(remaining)
    assert [True, True, True] == [
        each.startswith(start)
        for each, start in zip(
            remaining,
            (
                f"a socket: {__name__}.Silent, connected to IPv4Address(",
                f"a socket: {__name__}.Silent, connected to IPv4Address(",
                "a socket: twisted.internet.protocol.Factory listens at IPv4Address(",
            ),
            strict=True,
        )
    ]
    assert [] == before.remaining()


@ensureDeferred
async def test_new_connections_to_a_listener_from_before_are_its_own():
    listening = Listening()
    before = ReactorLeftovers()
    client = await listening.connect()
    timeouts = [reactor.callLater(60, client.look), reactor.callLater(60, tick, client)]

    remaining = before.remaining()
    for each in timeouts:
        each.cancel()
    await listening.close()
    await client.lost

    assert [] == remaining


def test_what_wakes_the_reactor_is_no_leftover():
    assert [] == ReactorLeftovers().remaining()


def test_an_error_in_a_run_is_told_with_its_name(failures, flush_logged_errors):
    async def wrong() -> None:
        raise ValueError("in a run")

    Driver.of(reactor).run(wrong())
    gc.collect()

    assert ["ValueError: in a run (unhandled in a Deferred)"] == [
        each.partition("\n")[0] for each in failures.remaining()
    ]
    flush_logged_errors(ValueError)


def test_asyncio_handles_have_what_names_them():
    """It reads a private attribute of asyncio's."""
    assert "_callback" in asyncio.Handle.__slots__
