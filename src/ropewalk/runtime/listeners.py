"""Listening sockets that one process opens and others accept from.

The owner opens each by its endpoint description and never accepts. Whoever gets the descriptor applies the same
description to it, so that what wraps the connections (TLS, the PROXY protocol) is made where they are served.

This works for every endpoint that in the end listens on TCP or on a UNIX socket: `tcp:`, `tcp6:`, `unix:`, `ssl:`,
`tls:`, `haproxy:` around one of them, and `systemd:`. It cannot for one that opens its sockets in another way
(`onion:`, `stdio:`): those need a process with one worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from stat import S_IMODE
from typing import Any

from msgspec import Struct
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..errors import ConfigurationError
from .placement import Place


class Wanted(Struct, frozen=True):
    """A socket that is to listen."""

    service: str
    description: str


def wanted_by(places: Iterable[Place]) -> tuple[Wanted, ...]:
    """The listeners of these places, in the order in which a process opens them."""
    return tuple(
        Wanted(place.service, description)
        for place in places
        for description in (place.listen, place.public)
        if description is not None
    )


class Listeners:
    """The sockets one process holds open for others. `descriptors` go with `descriptions`."""

    def __init__(
        self,
        reactor: Any,
        wanted: Sequence[Wanted],
        inherited: Sequence[tuple[str, int]] = (),
        *,
        all_of_them: bool = True,
    ) -> None:
        """`inherited`: (description, descriptor) of those that are open already.

        `all_of_them`: an endpoint whose socket cannot be passed on is an error; else it is left out.
        """
        self._reactor = reactor
        self._wanted = tuple(wanted)
        self._inherited = list(inherited)
        self._all_of_them = all_of_them
        self._held: list[tuple[str, Any]] = []

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The endpoints that are open."""
        return tuple(description for description, _ in self._held)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Their sockets."""
        return tuple(port.fileno() for _, port in self._held)

    async def open(self) -> None:
        """Open all of them, or raise ConfigurationError that names the service and leave none open."""
        try:
            for each in self._wanted:
                fd = take(self._inherited, each.description)
                port = await _opened(self._reactor, each) if fd is None else _Inherited(fd)
                if port is not None:
                    self._held.append((each.description, port))
                elif self._all_of_them:
                    raise ConfigurationError(
                        f"{each.service} listens at {each.description}, an endpoint without a socket that could be "
                        "passed on; give its process one worker, or the service an endpoint of tcp:, tcp6:, unix:, "
                        "ssl:, tls: or systemd:."
                    )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop holding them; a process that has a socket keeps it."""
        held, self._held = self._held, []
        for _, port in held:
            await maybeDeferred(port.stopListening)


def take(inherited: list[tuple[str, int]], description: str) -> int | None:
    """The first descriptor that came along for `description`, which then is taken; None when none (more) did."""
    for index, (known, fd) in enumerate(inherited):
        if known == description:
            del inherited[index]
            return fd
    return None


def listen_at(reactor: Any, description: str, factory: Any) -> Deferred[IListeningPort]:
    """Listen as the endpoint `description` says; over TLS, with sessions that are resumed."""
    listens: Any = _Listens(reactor)
    listening: Deferred[IListeningPort] = serverFromString(listens, description).listen(factory)
    return listening


def adopt(reactor: Any, description: str, fd: int, factory: Any) -> Deferred[IListeningPort]:
    """Accept at `fd` as the endpoint `description` says; the socket stays its owner's."""
    adopting: Any = _Adopts(reactor, fd)
    if description.partition(":")[0] == "systemd":  # which would look for systemd's own variables
        return execute(adopting._adopted, factory)
    accepting: Deferred[IListeningPort] = serverFromString(adopting, description).listen(factory)
    return accepting


# -- the owner's side


async def _opened(reactor: Any, wanted: Wanted) -> Any:
    """A port that holds the socket, None for an endpoint that opened none."""
    opens: Any = _Opens(reactor)
    try:
        port = await serverFromString(opens, wanted.description).listen(_Nobody())
    except CannotListenError as error:
        raise ConfigurationError(_cannot_listen(wanted, error)) from error
    except Exception as error:
        raise ConfigurationError(f"{wanted.service} cannot listen at {wanted.description}: {error}") from error
    if opens.port is None:
        await maybeDeferred(port.stopListening)
    return opens.port


def _cannot_listen(wanted: Wanted, error: CannotListenError) -> str:
    if getattr(error.socketError, "errno", None) == errno.EADDRINUSE:
        return (
            f"{wanted.service} cannot listen at {wanted.description}: port {error.port} is in use. End who uses it, or "
            "say --port N (public listeners: [public] in the system file)."
        )
    return f"{wanted.service} cannot listen at {wanted.description}: {error.socketError}."


class _Nobody(Factory):
    """For a port that never accepts."""

    noisy = False


class _Held(tcp.Port):
    _shouldShutdown = False  # to shut a socket down before it is closed would end it for everybody who has it

    def startReading(self) -> None:
        """Never: others accept."""


class _HeldPath(unix.Port):
    _shouldShutdown = False

    def startReading(self) -> None:
        """Never: others accept."""


class _Inherited:
    """A socket whose owner is further up."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def stopListening(self) -> None:
        os.close(self._fd)


class _Delegates:
    """The rest of a reactor, for endpoints that need more of it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Opens(_Delegates):
    """A reactor whose ports never accept."""

    port: Any = None

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._started(_Held(port, factory, backlog, interface, self._reactor))

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        return self._started(_HeldPath(address, factory, backlog, mode, self._reactor, wantPID))

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Any:
        if family == socket.AF_UNIX:
            return self._started(_Borrowed._fromListeningDescriptor(self._reactor, fd, factory))
        return self._started(_Held._fromListeningDescriptor(self._reactor, fd, family, factory))

    def _started(self, port: Any) -> Any:
        port.startListening()
        self.port = port
        return port


# -- the side that accepts


class _Listens(_Delegates):
    """A reactor whose TLS is as a Site wants it."""

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._reactor.listenSSL(port, factory, _serving(contextFactory), backlog, interface)


class _Accepting(unix.Port):
    """A UNIX socket that others accept from, too, and whose path belongs to one of them."""

    _shouldShutdown = False

    def startListening(self) -> None:
        """As any port, which would change the path's mode, too."""
        with suppress(OSError, TypeError):  # it has no path: an abstract name
            self.mode = S_IMODE(os.stat(self._bindPath).st_mode)
        super().startListening()

    def connectionLost(self, reason: Any) -> None:
        """As any port, but the path stays: others still accept there."""
        tcp.Port.connectionLost(self, reason)


class _Borrowed(_Accepting, _HeldPath):
    """One of systemd's, which opened it and will remove it."""


def _serving(context_factory: Any) -> Any:
    from ..engine.tls import serving  # twisted.web's client comes with it

    return serving(context_factory)


class _Adopts(_Delegates):
    """A reactor whose ports are one open socket."""

    def __init__(self, reactor: Any, fd: int) -> None:
        super().__init__(reactor)
        self._fd = fd

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopted(factory)

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopted(TLSMemoryBIOFactory(_serving(contextFactory), False, factory, self._reactor))

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        return self._adopted(factory)

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Any:
        return self._adopted(factory)

    def _adopted(self, factory: Any) -> Any:
        with socket.socket(fileno=os.dup(self._fd)) as found:
            family = found.family
        if family == socket.AF_UNIX:
            port = _Accepting._fromListeningDescriptor(self._reactor, self._fd, factory)
            port.startListening()
        else:
            port = self._reactor.adoptStreamPort(self._fd, family, factory)
        os.close(self._fd)  # the port has one of its own
        return port
