"""One connection to RabbitMQ: made when it is first needed, again with backoff when it is lost, until it is closed.

The protocol is pika's, with its Twisted adapter, which is imported when it is needed: it installs a reactor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ropewalk.driver import Driver
from ropewalk.errors import Ran, Unavailable
from ropewalk.policy.backoff import Backoff, Streak, began, failed

from .where import Where

PATIENCE = 3.0  # seconds that somebody waits for a connection, or for an answer over it
HEARTBEAT = 10  # seconds; RabbitMQ takes a peer for gone after two that did not come
BACKOFF = Backoff(limit=2.0, calm=5.0)  # below PATIENCE: who comes when RabbitMQ is back finds it so

CLOSED = "the broker of this process is closed"

_log = Logger("ropewalk.rabbitmq")


class Connection:
    """The way to the server, and what is to be done each time there is a new one."""

    def __init__(
        self,
        where: Where,
        reactor: Any,
        clock: IReactorTime,
        random: Random,
        made: Callable[[Any], Awaitable[None]],
        lost: Callable[[], object],
    ) -> None:
        """`made(connection)`, pika's, is awaited before anybody else has it; `lost()` is called when it is gone."""
        self.where = where
        self._reactor = reactor
        self._clock = clock
        self._random = random
        self._made = made
        self._lost = lost
        self._open: Any = None
        self._keeping: Deferred[Any] | None = None
        self._waiting: list[Deferred[Any]] = []
        self._problem = "it does not answer"
        self._closed = False

    async def get(self) -> Any:
        """The connection; raises Unavailable, `ran` "no", when there is none within PATIENCE."""
        if self._closed:
            raise self.unavailable(CLOSED, "no")
        if self._keeping is None:
            self._keeping = Driver.of(self._reactor).run(self._keep())
            self._keeping.addErrback(lambda failure: failure.trap(CancelledError))
            self._keeping.addErrback(lambda failure: _log.failure("rabbitmq.keep.failed", failure))
        if self._open is None or self._open.is_closed:  # which is heard of a moment later
            waiting: Deferred[Any] = Deferred()
            self._waiting.append(waiting)
            try:
                await waiting.addTimeout(PATIENCE, self._clock)
            except TookTooLong as error:
                raise self.unavailable(self._problem, "no") from error
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        return self._open

    def drop(self, connection: Any, reason: object) -> None:
        """Something of `connection` was ended, and nobody here wanted that: cut it off, the next one has all again."""
        if connection is self._open and not connection.is_closed:
            self._open = None
            _log.warn("rabbitmq.dropped {where}: {reason!r}", where=str(self.where), reason=reason)
            connection.transport.abortConnection()

    async def close(self) -> None:
        """Give it up."""
        self._closed = True
        open_, self._open = self._open, None
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(self.unavailable(CLOSED, "no"))
        if open_ is not None:
            await self._end(open_)

    def unavailable(self, reason: str, ran: Ran) -> Unavailable:
        """An error that says so."""
        error = Unavailable(f"{self.where} cannot be used: {reason}.")
        error.ran = ran
        return error

    async def _keep(self) -> None:
        streak = Streak()
        while True:
            streak = began(streak, self._clock.seconds())
            try:
                connection = await self._connect()
            except Exception as error:  # whatever it is, it is tried again
                self._problem = str(error) or type(error).__name__
                _log.warn("rabbitmq.unreachable {where}: {error!r}", where=str(self.where), error=error)
            else:
                self._open = connection
                waiting, self._waiting = self._waiting, []
                for each in waiting:
                    each.callback(None)
                gone = connection.closed
                if gone is not None:
                    self._problem = str(await gone)
                self._open = None
                self._lost()
            streak, seconds = failed(BACKOFF, streak, self._clock.seconds(), self._random.random())
            await deferLater(self._clock, seconds)

    async def _connect(self) -> Any:
        from pika import ConnectionParameters, PlainCredentials
        from pika.adapters.twisted_connection import TwistedProtocolConnection

        parameters = ConnectionParameters(
            virtual_host=self.where.virtual_host,
            credentials=PlainCredentials(self.where.user, self.where.password),
            heartbeat=HEARTBEAT,
            blocked_connection_timeout=HEARTBEAT,
        )
        protocol = TwistedProtocolConnection(parameters, custom_reactor=self._reactor)
        ready: Any = protocol.ready
        endpoint = HostnameEndpoint(self._reactor, self.where.host, self.where.port, PATIENCE)
        await connectProtocol(endpoint, protocol)
        # Or each round of messages waits for the server's delayed acknowledgement.
        protocol.transport.setTcpNoDelay(True)
        try:
            await ready.addTimeout(PATIENCE, self._clock)
            await self._made(protocol)
        except BaseException:
            await self._end(protocol)
            raise
        return protocol

    async def _end(self, protocol: Any) -> None:
        """Close it in order; cut it off when that takes too long."""
        closed = protocol.closed
        if closed is None or protocol.is_closed:
            if protocol.transport is not None:
                protocol.transport.abortConnection()
            return
        ended: Deferred[None] = Deferred()
        closed.addBoth(_tell, ended)
        protocol.close()
        try:
            await ended.addTimeout(PATIENCE, self._clock)
        except TookTooLong:
            protocol.transport.abortConnection()


def _tell(result: Any, ended: Deferred[None]) -> Any:
    ended.callback(None)
    return result
