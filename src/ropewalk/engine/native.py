"""Connections on the event loop's own transports, past Twisted's, where the reactor runs on an asyncio loop.

Twisted's transports ask the loop for each write whether they may; uvloop's own do not (and what one turn writes,
`drivers.OfAsyncio` gathers). The channels are the same. Where there is no such loop, everything stays as it is.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.error import getConnectError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from .drivers import AsyncioDriver, Channel

if TYPE_CHECKING:
    from .site import Site


listening: WeakSet[Any] = WeakSet()  # IListeningPorts whose connections a loop accepts: no reactor tells of them
BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it: a crowd comes within one turn
WAITING = 4096  # Linux's default net.core.somaxconn: no more connections than that can wait to be accepted


def loop_of(reactor: Any) -> Any:
    """The asyncio loop that a reactor runs on; None when it does on none."""
    return getattr(reactor, "_asyncioEventloop", None)


def accepting(port: Any, site: Site, reactor: Any) -> Any:
    """`port`, an IListeningPort whose connections `site` serves, which from now on accepts natively where it can.

    It can on TCP; what wraps connections (TLS, the PROXY protocol) is Twisted's.
    """
    loop = loop_of(reactor)
    if loop is None or not isinstance(port, tcp.Port) or port.factory is not site:
        return port
    port.stopReading()
    # Not `port.socket.dup()`: of a socket that came from a parent that would let all who share it block, for a moment.
    listening = socket.socket(fileno=os.dup(port.fileno()))
    accepting = loop.create_server(site.asyncio_protocol, sock=listening, backlog=BACKLOG)
    return _Accepting(port, loop.create_task(accepting))


@implementer(IListeningPort)
class _Accepting:
    """A listening socket that Twisted holds and the loop accepts from."""

    def __init__(self, port: Any, server: asyncio.Task[Any]) -> None:
        self._port = port
        self._server = server
        listening.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def stopListening(self) -> Deferred[Any]:
        """As IListeningPort."""
        listening.discard(self)
        if self._server.done():
            self._server.result().close()
        else:
            self._server.add_done_callback(lambda server: server.result().close())
        return maybeDeferred(self._port.stopListening)

    loseConnection = stopListening


def accept_what_waits(port: Any) -> None:
    """Connections the kernel has completed are ours to answer: closing the socket would reset them."""
    if isinstance(port, _Accepting):
        port = port._port
    if getattr(port, "connected", False) and hasattr(port, "doRead"):
        port.numberAccepts = WAITING
        port.doRead()


def connected(loop: Any, host: str, port: int, channel: Channel, timeout: float) -> Deferred[AsyncioDriver]:
    """Fires with the driver of a connection to an IP address; fails as Twisted's endpoints do."""
    connecting = asyncio.ensure_future(
        asyncio.wait_for(loop.create_connection(lambda: AsyncioDriver(channel), host, port), timeout), loop=loop
    )
    made: Deferred[Any] = Deferred.fromFuture(connecting)
    return made.addCallbacks(_driver, _as_twisted, errbackArgs=(channel,))


def _driver(made: tuple[Any, AsyncioDriver]) -> AsyncioDriver:
    return made[1]


def _as_twisted(failure: Failure, channel: Any) -> Failure:
    if channel.transport is not None:  # it came when nobody waited for it any more
        channel.transport.abort()
    error = failure.value
    if isinstance(error, TimeoutError) and error.errno is None:
        return Failure(ConnectTimeout())  # ours, not the kernel's
    return Failure(getConnectError(error)) if isinstance(error, OSError) else failure
