"""Processes that this one starts: real `twistd ropewalk`s, given their sockets, heard over a link, ended in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from .link import (
    FIRST_LISTENER,
    FROM_PARENT,
    TO_PARENT,
    VARIABLE,
    AskForPage,
    Draining,
    Failed,
    FromChild,
    FromParent,
    Given,
    Lines,
    Page,
    Ready,
    heard,
    line_of,
)

MARGIN = 5.0  # seconds beyond what a drain may take, before a child that has not ended is killed
LAST_WORDS = 1.0  # seconds for what a child that has ended said before


class End(Struct, frozen=True):
    """How a child ended."""

    status: int | None  # None when a signal ended it
    signal: int | None

    def __str__(self) -> str:
        if self.signal is None:
            return f"status {self.status}"
        return f"killed by {signal.Signals(self.signal).name}"


def twistd(
    target: str, *, process: str | None, port: int, data: Path | None, drain_delay: float | None
) -> tuple[str, ...]:
    """The command that runs one process of a system, as anybody could type it."""
    options = {"process": process, "port": port, "data": data, "drain-delay": drain_delay}
    said = (f"--{name}={value}" for name, value in options.items() if value is not None)
    # -P: what lies in the working folder is not found before the standard library, as with the twistd script.
    run = ("-P", "-c", "from twisted.scripts.twistd import run; run()")
    return (sys.executable, *run, "--nodaemon", "--pidfile=", "ropewalk", *said, target)


class Child(ProcessProtocol):
    """One process this one started. Its owner reads the attributes and is told by the callbacks."""

    transport: IProcessTransport

    def __init__(
        self,
        name: str,
        reactor: Any,
        *,
        said: Callable[[Child, FromChild], object],
        ended: Callable[[Child, End], object],
        printed: Callable[[Child, bytes], object] | None = None,
    ) -> None:
        """`said(child, message)`, `ended(child, end)` once; `printed(child, line)` of its standard output and error.

        Without `printed` it writes to where this process writes to.
        """
        self.name = name
        self.pid = 0
        self.ready = False
        self.served = False  # it was ready once
        self.draining = False  # it will end, as it was told or as it says
        self.told_to_drain = False
        self.failed: Failed | None = None
        self.started: Deferred[bool] = Deferred()  # True once it serves, False when it ended before
        self.gone: Deferred[None] = Deferred()  # once it has ended and its owner was told
        self._reactor = reactor
        self._said = said
        self._ended = ended
        self._printed = printed
        self._lines = {fd: Lines() for fd in (1, 2, TO_PARENT)}
        self._decode = msgspec.json.Decoder(FromChild).decode
        self._page: Deferred[str] | None = None
        self._owes_page = False
        self._end: End | None = None
        self._reported = False
        self._timers: list[Any] = []

    def __repr__(self) -> str:
        state = "gone" if self._end else "draining" if self.draining else "ready" if self.ready else "starting"
        return f"<Child {self.name}, pid {self.pid}, {state}>"

    # -- what its owner does

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], given: Given, sockets: Sequence[int]
    ) -> None:
        """Start it; `sockets` are the descriptors of `given.listeners`."""
        output: Any = "r" if self._printed is not None else None
        nothing = os.open(os.devnull, os.O_RDONLY)
        fds: dict[int, Any] = {0: nothing, 1: output or 1, 2: output or 2, FROM_PARENT: "w", TO_PARENT: "r"}
        fds.update(enumerate(sockets, FIRST_LISTENER))
        told = {**environment, VARIABLE: msgspec.json.encode(given).decode()}
        # A Ctrl-C is for this process to pass on; the child lifts this once it ignores the signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._reactor.spawnProcess(self, command[0], command, told, childFDs=fds)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(nothing)

    def tell(self, message: FromParent) -> None:
        """Say something to it, if it is still there."""
        if self._end is None and FROM_PARENT in getattr(self.transport, "pipes", {}):
            self.transport.writeToChild(FROM_PARENT, line_of(message))

    def drain(self, patience: float) -> None:
        """Ask it to end in order; kill it when it has not ended in `patience` seconds. Once more changes nothing."""
        if self.told_to_drain:
            return
        if not self.draining:  # else it does so already
            self._signal("TERM")
        self.told_to_drain = self.draining = True
        self._timers.append(self._reactor.callLater(patience, self.kill))

    def kill(self) -> None:
        """End it now."""
        self._signal("KILL")

    def page(self, timeout: float) -> Deferred[str]:
        """Its metrics; fails when it does not answer in `timeout` seconds, at once when it still owes an answer."""
        if self._owes_page:  # bounded: what a child that hangs is asked lies in this process's memory
            return fail(TimeoutError(f"{self!r} does not answer."))
        self._owes_page = True
        asked: Deferred[str] = Deferred(self._forget_page)
        self._page = asked
        self.tell(AskForPage())
        return asked.addTimeout(timeout, self._reactor)

    def _forget_page(self, _: Deferred[str]) -> None:
        self._page = None

    def _signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    # -- what the reactor tells

    def connectionMade(self) -> None:
        """It has been started."""
        self.pid = self.transport.pid or 0

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It wrote something."""
        self._take(childFD, self._lines[childFD].cut(data))

    def childConnectionLost(self, childFD: int) -> None:
        """It will write no more there."""
        if childFD in self._lines:
            self._take(childFD, self._lines[childFD].rest())
        if childFD == TO_PARENT and self._end is not None:
            self._report()

    def processExited(self, reason: Failure) -> None:
        """It is gone; what it said last may still be in the pipe."""
        ended: Any = reason.value  # ProcessDone or ProcessTerminated
        self._end = End(ended.exitCode, ended.signal)
        if TO_PARENT in getattr(self.transport, "pipes", {}):
            self._timers.append(self._reactor.callLater(LAST_WORDS, self._report))
        else:
            self._report()

    def _take(self, fd: int, lines: Sequence[bytes]) -> None:
        for line in lines:
            if fd == TO_PARENT:
                heard(line, self._decode, self._hear)
            elif self._printed is not None:
                self._printed(self, line)

    def _hear(self, message: FromChild) -> None:
        match message:
            case Ready() if not self.ready:
                self.ready = self.served = True
                self.started.callback(True)
            case Page(last=True):
                self.ready = False  # it has no others
            case Draining():
                self.draining = True
            case Failed():
                self.failed = message
            case Page(page, last=False):
                self._owes_page = False
                asked, self._page = self._page, None
                if asked is not None:
                    asked.callback(page)
                return
        self._said(self, message)

    def _report(self) -> None:
        if self._reported or self._end is None:
            return
        self._reported = True
        if not self.started.called:
            self.started.callback(False)
        self.ready = False
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if self._page is not None:
            self._page.cancel()
        self._ended(self, self._end)
        self.gone.callback(None)
