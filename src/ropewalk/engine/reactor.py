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

    made_ours(reactor)


def made_ours(reactor: Any) -> Any:
    """One of Twisted's asyncio reactors, with what makes it ours."""
    _stop_once(reactor)
    _accept_natively(reactor)
    _resume_sessions(reactor)
    reactor.callWhenRunning(_notice_ended_children, reactor)
    return reactor


def _stop_once(reactor: Any) -> None:
    # Two signals, or one to a process that ends by itself: Twisted would log a critical failure, that it "can't stop
    # reactor that isn't running".
    stop = reactor.stop
    asked = False

    def once() -> None:
        nonlocal asked
        if not (asked and reactor.running):  # one that has ended is not stopped again, and says so
            stop()
            asked = True

    reactor.stop = once


def _accept_natively(reactor: Any) -> None:
    # Whoever lets a Site of ours listen need not know that there is a quicker way to accept.
    listen = reactor.listenTCP

    def listen_tcp(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listening = listen(port, factory, backlog, interface)
        if not _is_ours(factory):
            return listening
        from .native import accepting

        return accepting(listening, factory, reactor)

    reactor.listenTCP = listen_tcp


def _resume_sessions(reactor: Any) -> None:
    # Nor that Twisted's TLS resumes no session unless it is told to.
    listen = reactor.listenSSL

    def listen_ssl(port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        if _is_ours(factory):
            from .tls import serving

            contextFactory = serving(contextFactory)
        return listen(port, factory, contextFactory, backlog, interface)

    reactor.listenSSL = listen_ssl


def _is_ours(factory: Any) -> bool:
    site = sys.modules.get("ropewalk.engine.site")  # whoever has one has imported it, and what comes with it
    return site is not None and isinstance(factory, site.Site)


def _notice_ended_children(reactor: Any) -> None:
    # Twisted notices them by a byte that the interpreter writes for each signal; uvloop wants those bytes for itself
    # (signal.set_wakeup_fd has one place), and children that Twisted started would stay zombies.
    from twisted.internet.process import reapAllProcesses

    signal.signal(signal.SIGCHLD, lambda *_: reactor.callFromThread(reapAllProcesses))
    signal.siginterrupt(signal.SIGCHLD, False)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        from .loop import Loop
    except ImportError:  # there is no uvloop for Windows
        return asyncio.new_event_loop()
    return Loop()
