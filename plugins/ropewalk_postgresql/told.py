"""What one process has committed, others hear of: LISTEN and NOTIFY, on one connection of each that listens.

It is said after the commit, so whoever dies in between says nothing, and whoever loses this connection has missed some:
all look by themselves, too, only later. Said within the transaction it would be certain, and expensive: transactions
that notify commit one after the other in the whole server, each with its own wait for the disk.
https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import psycopg
from psycopg import pq, sql
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ropewalk.store.database import Database

AGAIN = 1.0  # seconds until a lost connection is made again
LONGEST = 7000  # bytes of what is said at once; the server takes 8000
MOST = 1000  # things that wait to be said
EVERYTHING = frozenset({"events", "sagas", "replay"})  # of which something may have been missed

_log = Logger("ropewalk.postgresql")


class TellingDatabase(Database):
    """A Database whose commits are heard of in other processes, once somebody listens in this one."""

    line: Callable[[Callable[[Collection[str]], object]], Line]  # makes one, which calls this with what it hears
    _line: Line | None = None

    def listen(self, heard: Callable[[frozenset[str]], object]) -> None:
        """As Database."""
        super().listen(heard)
        if self._line is None:
            self._line = self.line(lambda wrote: super(TellingDatabase, self).committed(frozenset(wrote)))

    def committed(self, wrote: frozenset[str]) -> None:
        """As Database."""
        super().committed(wrote)
        if self._line is not None:
            self._line.say(wrote)

    def close(self) -> None:
        """Say and hear nothing more."""
        line, self._line = self._line, None
        if line is not None:
            line.stop()


@implementer(IReadDescriptor)
class Line:
    """The connection. It is made in a thread, and again when it is lost; all else happens in the reactor."""

    def __init__(
        self,
        conninfo: str,
        channel: str,
        reactor: Any,
        threads: ThreadPool,
        heard: Callable[[Collection[str]], object],
    ) -> None:
        """`heard(wrote)`: what another process has said; EVERYTHING, each time it begins to listen."""
        self._conninfo = conninfo
        self._channel = channel
        self._reactor = reactor
        self._threads = threads
        self._heard = heard
        self._connection: psycopg.Connection[Any] | None = None
        self._fileno = -1
        self._said: set[str] = set()  # what waits to be
        self._saying = False
        self._again: IDelayedCall | None = None
        self._stopped = False
        self._connect()

    def say(self, wrote: Collection[str]) -> None:
        """Let others know; from any thread."""
        self._reactor.callFromThread(self._say, wrote)

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._hang_up()

    # -- the connection

    def _connect(self) -> None:
        self._again = None
        self._threads.callInThreadWithCallback(
            lambda ok, made: self._reactor.callFromThread(self._connected if ok else self._failed, made), self._made
        )

    def _made(self) -> psycopg.Connection[Any]:
        """In a thread."""
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.execute("SET synchronous_commit = off")  # what is said need not outlive a crash
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        return connection

    def _connected(self, connection: psycopg.Connection[Any]) -> None:
        if self._stopped:
            connection.close()
            return
        self._connection = connection
        # One of our own: the driver closes its while it reads, before the reactor has let go of it.
        self._fileno = os.dup(connection.fileno())
        self._reactor.addReader(self)
        self._heard(EVERYTHING)

    def _failed(self, failure: Failure) -> None:
        if not self._stopped:
            _log.warn("postgresql.deaf {channel}: {error}", channel=self._channel, error=failure.getErrorMessage())
            self._again = self._reactor.callLater(AGAIN, self._connect)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        self._said.clear()
        self._saying = False
        if connection is not None:
            self._reactor.removeReader(self)
            os.close(self._fileno)
            self._fileno = -1
            connection.close()

    # -- IReadDescriptor

    def logPrefix(self) -> str:
        """What it is called in the log."""
        return f"listening to {self._channel}"

    def fileno(self) -> int:
        """That of its socket; -1 when there is none."""
        return self._fileno

    def doRead(self) -> Any:
        """Something came: what was said, the answer to what was said here, or the end."""
        assert self._connection is not None
        wire = self._connection.pgconn
        try:
            wire.consume_input()
            while (notice := wire.notifies()) is not None:
                if notice.be_pid != wire.backend_pid:  # what it said itself it knows
                    self._heard(msgspec.json.decode(notice.extra, type=list[str]))
            while self._saying and not wire.is_busy():
                answer = wire.get_result()
                if answer is None:
                    self._saying = False
                    self._send()
                elif answer.status != pq.ExecStatus.TUPLES_OK:
                    _log.warn("postgresql.mute {channel}: {error}", channel=self._channel, error=answer.error_message)
        except psycopg.OperationalError:
            return CONNECTION_LOST
        return None

    def connectionLost(self, reason: Failure) -> None:
        """It is made again, soon."""
        self._hang_up()
        self._failed(reason)

    # -- saying

    def _say(self, wrote: Collection[str]) -> None:
        if self._connection is not None and len(self._said) < MOST:
            self._said.update(wrote)
            self._send()

    def _send(self) -> None:
        if self._connection is None or self._saying or not self._said:
            return
        self._saying = True
        said = sorted(self._said)
        while len(payload := msgspec.json.encode(said)) > LONGEST:
            said = said[: len(said) // 2]
        self._said.difference_update(said)
        try:
            wire = self._connection.pgconn
            wire.send_query_params(b"SELECT pg_notify($1, $2)", [self._channel.encode(), payload])
        except psycopg.OperationalError as error:
            self.connectionLost(Failure(error))
