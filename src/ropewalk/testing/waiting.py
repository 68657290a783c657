"""Waiting for the real reactor from plain test functions: pytest-twisted turns it while they wait.

Nothing happens on the reactor while a test does not wait.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..driver import Driver

T = TypeVar("T")

POLL = 0.01  # seconds between looks at a condition


def wait_for(awaitable: Awaitable[T], timeout: float = 60.0) -> T:
    """What `awaitable` answers or raises; it is cancelled, and Stuck raised, after `timeout` seconds."""
    block = _blocker()
    reactor = _reactor()
    running: Deferred[T] = Driver.of(cast(IReactorTime, reactor)).run(awaitable)
    woken: Deferred[Any] = Deferred()
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        running.cancel()

    timer = reactor.callLater(timeout, expire)

    def ended(outcome: Any) -> None:
        if timer.active():
            timer.cancel()
        # In a turn of its own: this may be the middle of somebody's step, which must not stand still there.
        reactor.callLater(0, woken.callback, outcome)

    running.addBoth(ended)
    try:
        return cast(T, block(woken))
    except CancelledError:
        if late:
            raise stuck(f"{awaitable!r}: not within {timeout:g} seconds.") from None
        raise


def wait_until(predicate: Callable[[], object], timeout: float = 60.0) -> None:
    """Let the reactor turn until `predicate()` is true; raises Stuck after `timeout` seconds."""
    if not comes_true(predicate, timeout):
        raise stuck(f"{getattr(predicate, '__name__', repr(predicate))}: not within {timeout:g} seconds.")


def comes_true(predicate: Callable[[], object], timeout: float) -> bool:
    """Let the reactor turn until `predicate()` is true; whether that came within `timeout` seconds."""
    reactor = _reactor()
    end = reactor.seconds() + timeout
    while not predicate():
        if reactor.seconds() >= end:
            return False
        wait_for(deferLater(reactor, POLL))
    return True


def stuck(text: str) -> AssertionError:
    """What a World raises, too, when what is waited for does not come."""
    from .driving import Stuck

    return Stuck(text)


def can_wait() -> bool:
    """Whether pytest-twisted is here and turns the reactor."""
    plugin: Any = sys.modules.get("pytest_twisted")
    greenlet = plugin._instances.gr_twisted if plugin is not None else None
    return greenlet is not None and not greenlet.dead


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _blocker() -> Callable[[Deferred[Any]], Any]:
    if not can_wait():
        raise RuntimeError(
            "A test on the real reactor needs pytest-twisted, which turns it: `pip install pytest-twisted`, and do "
            "not leave it out by `-p no:twisted`."
        )
    from pytest_twisted import blockon  # type: ignore[import-untyped]

    return cast(Callable[[Deferred[Any]], Any], blockon)
