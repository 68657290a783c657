"""The built-in broker as a process of a system has it: its own, if it is the first; else another's, over a socket.

Whoever gets the lock beside the file owns it, and serves the others on a UNIX socket. When the owner ends or dies,
the kernel lets go of the lock, the others lose their connections, and one of them is the next owner. Subscriptions come
back by themselves; what was being handled over a connection that is lost is given again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ..bell import Bell
from ..driver import Driver
from ..errors import ConfigurationError, RopewalkError
from ..event import Message
from ..interfaces import IBroker, ISubscription
from ..store import Database
from .broker import EmbeddedBroker, Handle, metadata
from .broker_ends import Asking, Clients, unavailable
from .owned import own

PATIENCE = 5.0  # seconds a call waits for an owner: longer than it takes another process to become one
AGAIN = 0.1  # seconds until another look for one
SOCKET_PATH = 100  # bytes; Linux takes 107

_log = Logger("ropewalk.broker")


@implementer(IBroker)
class SharedBroker:
    """The broker of one process."""

    keeps_history = True

    def __init__(
        self, folder: Path, reactor: Any, clock: IReactorTime, open: Callable[[], tuple[Database, Callable[[], Any]]]
    ) -> None:
        """`open()`: once this process is the owner, the database and what closes it."""
        self._folder = folder
        self._reactor = reactor
        self._clock = clock
        self._open = open
        self._driver = Driver.of(reactor)
        self._mine: EmbeddedBroker | None = None
        self._theirs: Asking | None = None
        self._end_mine: list[Callable[[], Any]] = []
        self._waiting: list[Deferred[None]] = []
        self._subscriptions: list[_Shared] = []
        self._looking = False
        self._seeking: Deferred[Any] | None = None
        self._closed = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        return await (await self._found()).publish(messages)

    async def subscribe(
        self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool = False
    ) -> ISubscription:
        """As IBroker."""
        await self._found()
        subscription = _Shared(group, tuple(topics), handle, at_once, from_start, self._clock)
        self._subscriptions.append(subscription)
        try:
            await self._join(subscription)
        except BaseException:
            self._subscriptions.remove(subscription)
            subscription.stopping = True
            raise
        return subscription

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""
        async for message in (await self._found()).history(topic):
            yield message

    async def close(self) -> None:
        """As IBroker."""
        if self._closed:
            return
        self._closed = True
        if self._seeking is not None:
            self._seeking.cancel()
        for subscription in list(self._subscriptions):
            await subscription.stop()
        if self._theirs is not None:
            self._theirs.frames.end()
        if self._mine is not None:
            await self._mine.close()
        while self._end_mine:
            await maybeDeferred(self._end_mine.pop())

    # -- whose it is

    async def _found(self) -> EmbeddedBroker | Asking:
        """The broker itself or the way to it; raises Unavailable after PATIENCE."""
        if self._closed:
            raise unavailable("The broker of this process is closed.", "no")
        until = self._clock.seconds() + PATIENCE
        while (there := self._there()) is None:
            left = until - self._clock.seconds()
            if left <= 0:
                raise unavailable(f"No process owned the built-in broker for {PATIENCE:g} seconds.", "no")
            self._seek()
            if self._there() is not None:
                continue
            waiting: Deferred[None] = Deferred(lambda _: None)
            self._waiting.append(waiting)
            timer = self._reactor.callLater(left, _tell, waiting)
            try:
                await waiting
            finally:
                self._waiting.remove(waiting)
                if timer.active():
                    timer.cancel()
        return there

    def _there(self) -> EmbeddedBroker | Asking | None:
        return self._mine or self._theirs

    def _seek(self) -> None:
        if not self._looking and not self._closed and self._there() is None:
            self._looking = True
            self._seeking = self._driver.run(self._look())
            self._seeking.addErrback(lambda failure: failure.trap(CancelledError))
            self._seeking.addErrback(lambda failure: _log.failure("broker.seek.failed", failure))

    async def _look(self) -> None:
        try:
            while True:
                if self._become_owner():
                    break
                try:
                    asking = Asking(self._driver, self._lost)
                    await connectProtocol(UNIXClientEndpoint(self._reactor, str(self._socket), PATIENCE), asking.frames)
                    self._theirs = asking
                    break
                except OSError:
                    pass  # it has just ended, or has not begun to listen
                except Exception as error:
                    _log.debug("broker.connect {error!r}", error=error)
                await deferLater(self._reactor, AGAIN)
        finally:
            self._looking = False
        await self._join_again()
        for waiting in list(self._waiting):
            _tell(waiting)

    def _become_owner(self) -> bool:
        try:
            lock = own(self._folder / "broker.lock", "{owner}")
        except ConfigurationError:
            return False
        self._end_mine.append(lambda: os.close(lock))
        database, close = self._open()
        self._end_mine.append(close)
        self._mine = EmbeddedBroker(lambda: database, self._clock, self._driver)
        clients = Clients(self._mine, self._driver)
        with suppress(FileNotFoundError):
            self._socket.unlink()  # of an owner that was killed
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        port = self._reactor.listenUNIX(str(self._socket), clients, mode=0o600)
        self._end_mine.append(clients.end)
        self._end_mine.append(port.stopListening)
        return True

    @property
    def _socket(self) -> Path:
        path = (self._folder / "broker.sock").resolve()
        if len(os.fsencode(path)) <= SOCKET_PATH:
            return path
        # Too long for the kernel: a name of its own, in a folder that is this user's alone.
        name = sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"ropewalk-{os.getuid()}" / f"{name}.sock"

    def _lost(self) -> None:
        """The owner is gone."""
        self._theirs = None
        for subscription in self._subscriptions:
            subscription.member = None
        if not self._closed:
            self._seek()

    # -- subscriptions

    async def _join_again(self) -> None:
        for subscription in list(self._subscriptions):
            if subscription.member is None and not subscription.stopping:
                try:
                    await self._join(subscription)
                except RopewalkError as error:
                    _log.warn("broker.join.again {group}: {error!r}", group=subscription.group, error=error)
                    if self._there() is None:
                        return  # lost once more: who looks for the next one joins again

    async def _join(self, subscription: _Shared) -> None:
        there = await self._found()
        if subscription.member is not None or subscription.stopping:
            return
        said = (subscription.group, subscription.topics, subscription.handle, subscription.at_once)
        if isinstance(there, Asking):
            subscription.member = there, await there.join(*said, subscription.from_start)
        else:
            subscription.member = there, await there.subscribe(*said, subscription.from_start)


@implementer(ISubscription)
class _Shared:
    """One subscription of this process, whoever the owner is."""

    def __init__(
        self,
        group: str,
        topics: tuple[str, ...],
        handle: Handle,
        at_once: int,
        from_start: bool,
        clock: IReactorTime,
    ) -> None:
        self.group = group
        self.topics = topics
        self.at_once = at_once
        self.from_start = from_start
        self.member: tuple[Any, Any] | None = None
        self.stopping = False
        self._handle = handle
        self._handling = 0
        self._idle = Bell(clock)

    async def handle(self, message: Message, attempt: int) -> None:
        """As the handler that was given."""
        if self.stopping:
            raise unavailable("This process takes nothing new.", "no")
        self._handling += 1
        try:
            await self._handle(message, attempt)
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.ring()

    async def stop(self) -> None:
        """As ISubscription."""
        self.stopping = True
        member, self.member = self.member, None
        if member is not None and isinstance(member[0], Asking):
            member[0].leave(member[1])
        elif member is not None:
            await member[1].stop()
        while self._handling:
            await self._idle.wait()


def make(
    where: str, *, data: Path, reactor: Any, clock: IReactorTime, now: Callable[[], float], random: Random
) -> IBroker:
    """The adapter "memory": the file "broker.sqlite3" in the folder `data`."""
    from .store import SQLiteStore

    def open() -> tuple[Database, Callable[[], Any]]:
        store = SQLiteStore("sqlite", data, reactor, now)
        return store.open("broker", metadata), store.close

    return SharedBroker(data, reactor, clock, open)


def _tell(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)
