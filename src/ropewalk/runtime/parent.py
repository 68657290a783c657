"""The process that started this one, as this one sees it: what it gave, what it hears, and that it is still there.

When it is gone, in whatever way, this process drains and ends; also when its reactor no longer turns.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigurationError, Unavailable
from .link import (
    EX_CONFIG,
    EX_TEMPFAIL,
    FIRST_LISTENER,
    FROM_PARENT,
    TO_PARENT,
    VARIABLE,
    All,
    AskForAll,
    AskForPage,
    Failed,
    FromChild,
    FromParent,
    Given,
    Kill,
    Messages,
    Page,
    line_of,
)
from .listeners import adopt, take

PATIENCE = 60.0  # seconds an orphan may take to end, until its configuration says what draining may take
ANSWER = 3.0  # seconds for the metrics of all workers; then a worker shows its own
FAREWELL = 1.0  # seconds for the last line to be read


class Parent:
    """Made by `Parent.found`, once and early; `attach` when there is a reactor."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.patience = PATIENCE
        self.page: Callable[[], Deferred[bytes]] | None = None  # this process's own metrics
        self.killed: Callable[[], object] | None = None  # what to do when told to end now
        self._sockets = [(each, FIRST_LISTENER + index) for index, each in enumerate(given.listeners)]
        self._transport: Any = None
        self._asked: list[Deferred[bytes]] = []
        self._closed: Deferred[None] | None = None

    @classmethod
    def found(cls, environment: MutableMapping[str, str]) -> Parent | None:
        """The parent that `environment` tells of, which then tells it no more; None when nobody started this one."""
        told = environment.pop(VARIABLE, None)
        if told is None:
            return None
        parent = cls(msgspec.json.decode(told, type=Given))
        for fd in (FROM_PARENT, TO_PARENT, *(fd for _, fd in parent._sockets)):
            os.set_inheritable(fd, False)  # or a grandchild would keep them open
        # A terminal sends these to everybody in the foreground; it is the parent who decides what they mean.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=parent._end_without, args=[os.dup(FROM_PARENT)], name="lifeline", daemon=True).start()
        return parent

    # -- the link

    def attach(self, reactor: Any, *, lost: Callable[[], object]) -> None:
        """Begin to listen to the parent; `lost()` is called once, when it is gone."""
        self._reactor = reactor
        self._lost = lost
        io: Any = StandardIO  # whose descriptors and reactor its type does not show
        self._transport = io(Messages(self._heard, self._parted), FROM_PARENT, TO_PARENT, reactor)

    def tell(self, message: FromChild) -> None:
        """Say something; nothing happens when the parent is gone."""
        if self._transport is not None:
            self._transport.write(line_of(message))

    def tell_at_last(self, error: BaseException) -> int:
        """Say, before there is a reactor, that this process cannot start; the status to end with."""
        failed = failure_of(error)
        os.write(TO_PARENT, line_of(failed))
        return failed.status

    def close(self) -> Deferred[None]:
        """Say no more; fires when what was said has been read, or cannot be."""
        closed: Deferred[None] = Deferred()
        if self._transport is None:
            closed.callback(None)
            return closed
        self._closed = closed
        self._transport.loseConnection()
        return closed.addTimeout(FAREWELL, self._reactor, onTimeoutCancel=lambda *_: None)

    def _heard(self, message: FromParent) -> None:
        match message:
            case AskForPage() if self.page is not None:
                self.page().addCallback(lambda page: self.tell(Page(page.decode()))).addErrback(_unseen)
            case All(page):
                asked, self._asked = self._asked, []
                for each in asked:
                    each.callback(page.encode())
            case Kill() if self.killed is not None:
                self.killed()

    def _parted(self) -> None:
        self._transport = None
        closed, self._closed = self._closed, None
        if closed is None:
            self._lost()
        elif not closed.called:
            closed.callback(None)

    def _end_without(self, fd: int) -> None:
        # In a thread: a reactor that no longer turns would not notice. Only the other end's closing is waited for.
        poll = select.poll()
        poll.register(fd, 0)
        poll.poll()
        time.sleep(self.patience)
        os._exit(1)

    # -- what it gave

    @property
    def sockets(self) -> list[tuple[str, int]]:
        """(description, descriptor) of the listening sockets that nobody has taken yet."""
        return self._sockets

    def has(self, description: str) -> bool:
        """Whether it gave a socket for this endpoint that nobody has taken yet."""
        return any(known == description for known, _ in self._sockets)

    def listen(self, site: Any, description: str) -> Deferred[Any]:
        """Accept at a socket of the parent's; raises ConfigurationError when it gave none for `description`."""
        fd = take(self._sockets, description)
        if fd is None:
            had = ", ".join(self.given.listeners)
            raise ConfigurationError(
                f"{description} is not among the listeners that were opened when this process began ({had}); end it "
                "and start it again for another listener."
            )
        return adopt(self._reactor, description, fd, site)

    # -- metrics

    def pages(self) -> Deferred[bytes]:
        """The metrics of all workers as one page; this one's own when the parent does not answer."""
        asked: Deferred[bytes] = Deferred(self._asked.remove)
        self._asked.append(asked)
        if len(self._asked) == 1:
            self.tell(AskForAll())
        return asked.addTimeout(ANSWER, self._reactor).addErrback(self._own_page)

    def _own_page(self, failure: Failure) -> Any:
        failure.trap(TimeoutError, CancelledError)
        return self.page() if self.page is not None else b""


def _unseen(failure: Failure) -> None:
    _log.failure("this process could not tell its numbers", failure)


def failure_of(error: BaseException) -> Failed:
    """What is said of a process that could not start."""
    if isinstance(error, ConfigurationError):
        status, line = EX_CONFIG, str(error)
    else:
        status, line = EX_TEMPFAIL if isinstance(error, Unavailable) else 1, f"{type(error).__name__}: {error}"
    return Failed(status, " ".join(line.split()))


_log = Logger("ropewalk.runtime")
