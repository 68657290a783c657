"""Our reactor: Twisted's asyncio reactor, on uvloop where there is one."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any


def install() -> None:
    """Install it, unless this process has a reactor already; then everything works too, only slower."""
    if "twisted.internet.reactor" in sys.modules:
        return
    from twisted.internet import asyncioreactor

    asyncioreactor.install(_new_loop())
    from twisted.internet import reactor

    _stop_once(reactor)
    reactor.callWhenRunning(_notice_ended_children)


def _stop_once(reactor: Any) -> None:
    # Two signals, or one to a process that ends by itself: Twisted would log a critical failure, that it "can't stop
    # reactor that isn't running".
    stop = reactor.stop
    asked = False

    def once() -> None:
        nonlocal asked
        if not asked:
            stop()
            asked = True

    reactor.stop = once


def _notice_ended_children() -> None:
    # Twisted notices them by a byte that the interpreter writes for each signal; uvloop wants those bytes for itself
    # (signal.set_wakeup_fd has one place), and children that Twisted started would stay zombies.
    from twisted.internet import reactor
    from twisted.internet.process import reapAllProcesses

    signal.signal(signal.SIGCHLD, lambda *_: reactor.callFromThread(reapAllProcesses))  # type: ignore[attr-defined]
    signal.siginterrupt(signal.SIGCHLD, False)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
