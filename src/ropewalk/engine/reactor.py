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
    _hear_of_resets(reactor)
    _accept_natively(reactor)
    _resume_sessions(reactor)
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


def _hear_of_resets(reactor: Any) -> None:
    # When an error comes together with data, as a reset right behind a request does, uvloop lets the data be read and
    # watches the descriptor no more; whoever then wants to write there, and would hear of the reset, is refused. Such a
    # connection would stay open for ever, and hold up the end of its process.
    add, loop = reactor.addWriter, reactor._asyncioEventloop

    def add_writer(writer: Any) -> None:
        try:
            add(writer)
        except RuntimeError:
            loop.remove_writer(writer.fileno())  # what it has given up; then it begins anew
            add(writer)

    reactor.addWriter = add_writer


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
