"""One connection to Redis: made when it is first needed, made again with backoff when it is lost, until it is closed.

The protocol is txredisapi's. Its factories are not used: they take the global reactor and queue without a limit.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ropewalk.driver import Driver
from ropewalk.errors import Ran, Unavailable
from ropewalk.policy.backoff import Backoff, Streak, began, failed

from .scripts import Script
from .where import Where

PATIENCE = 3.0  # seconds a command waits for a connection, and then for its answer
BACKOFF = Backoff(limit=2.0, calm=5.0)  # below PATIENCE: a command that comes when Redis is back finds it so

CLOSED = "the broker of this process is closed"

_log = Logger("ropewalk.redis")


class Connection:
    """Sends commands in the order they come. Whoever blocks one has one of its own."""

    def __init__(self, where: Where, reactor: Any, clock: IReactorTime, random: Random) -> None:
        """`reactor`: connects, and runs what is done here; `clock`: for its timers."""
        self.where = where
        self._said = f"{where} cannot be used: "
        self._reactor = reactor
        self._clock = clock
        self._random = random
        self._protocol: Any = None  # once it may be used
        self._made: list[Any] = []  # protocols whose connections are there
        self._keeping: Deferred[Any] | None = None
        self._waiting: list[Deferred[None]] = []
        self._problem = "it does not answer"
        self._closed = False

    async def call(self, *command: object, longer: float = 0.0) -> Any:
        """What Redis answers: bytes, a number, None or a list of these. Raises Unavailable.

        `ran` is "no" when nothing was sent, else "maybe". What does not answer in time is cut off; a command that is to
        take `longer` has so many seconds more.
        """
        return await self._ask(await self._connected(), command, PATIENCE + longer)

    async def script(self, script: Script, *arguments: object) -> Any:
        """What it answers, as `call`."""
        try:
            return await self.call("EVALSHA", script.sha, 0, *arguments)
        except Unavailable as error:
            if "NOSCRIPT" not in error.detail:
                raise
            return await self.call("EVAL", script.text, 0, *arguments)

    async def close(self) -> None:
        """Give it up: what waits for an answer is told that it may have happened."""
        self._closed = True
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(Failure(self._unavailable(CLOSED, "no")))
        for protocol in list(self._made):
            lost = protocol.whenDisconnected()
            protocol.transport.abortConnection()
            await lost

    # -- asking

    async def _connected(self) -> Any:
        if self._closed:
            raise self._unavailable(CLOSED, "no")
        if self._keeping is None:
            self._keeping = Driver.of(self._reactor).run(self._keep())
            self._keeping.addErrback(lambda failure: failure.trap(CancelledError))
        if self._protocol is None:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            try:
                await waiting.addTimeout(PATIENCE, self._clock)
            except TookTooLong as error:
                raise self._unavailable(self._problem, "no") from error
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        return self._protocol

    async def _ask(self, protocol: Any, command: tuple[object, ...], patience: float) -> Any:
        from txredisapi import RedisError, ResponseError

        try:
            answer: Deferred[Any] = protocol.execute_command(*command)
        except RedisError as error:  # it was lost in this very turn
            raise self._unavailable(str(error), "no") from error
        try:
            return await answer.addTimeout(patience, self._clock)
        except ResponseError as error:
            if "READONLY" in str(error):  # it is a replica now; behind its name there may be another server
                self._cut(protocol)
            raise self._unavailable(f"it answered {error}", "maybe") from error
        except RedisError as error:
            raise self._unavailable("the connection was lost", "maybe") from error
        except TookTooLong as error:
            self._cut(protocol)  # it may be half-open, and would then not answer to anybody
            raise self._unavailable(f"it did not answer within {patience:g} seconds", "maybe") from error

    def _cut(self, protocol: Any) -> None:
        if self._protocol is protocol:
            self._protocol = None  # the next command waits for another one
        protocol.transport.abortConnection()

    # -- being connected

    async def _keep(self) -> None:
        streak = Streak()
        while True:
            streak = began(streak, self._clock.seconds())
            try:
                protocol = await self._made_anew()
            except Exception as error:
                self._problem = (str(error) or type(error).__name__).removeprefix(self._said).rstrip(".")
            else:
                lost = protocol.whenDisconnected()
                self._protocol = protocol
                self._tell_all()
                await lost
                self._protocol, self._problem = None, "the connection was lost"
            streak, seconds = failed(BACKOFF, streak, self._clock.seconds(), self._random.random())
            _log.warn("redis.away {where}: {problem}", where=self.where, problem=self._problem, again_in=seconds)
            await deferLater(self._clock, seconds)

    async def _made_anew(self) -> Any:
        """A protocol that may be used; raises what its endpoint raises, and Unavailable when Redis refuses."""
        where = self.where
        endpoint = HostnameEndpoint(self._reactor, where.host, where.port, timeout=PATIENCE)
        protocol: Any = await endpoint.connect(_Factory(self._made))
        try:
            if where.password:
                await self._ask(protocol, ("AUTH", *([where.user] if where.user else []), where.password), PATIENCE)
            if where.database:
                await self._ask(protocol, ("SELECT", where.database), PATIENCE)
            await self._ask(protocol, ("PING",), PATIENCE)  # one that still reads its file says so
        except BaseException:
            protocol.transport.abortConnection()
            raise
        return protocol

    def _tell_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _unavailable(self, problem: str, ran: Ran) -> Unavailable:
        error = Unavailable(f"{self._said}{problem}.")
        error.ran = ran
        return error

    @property
    def state(self) -> str:
        """In words: "connected", "closed", or what is wrong."""
        return "connected" if self._protocol is not None else "closed" if self._closed else self._problem

    def __repr__(self) -> str:
        return f"<Connection to {self.where!r}: {self.state}>"


class _Factory(Factory):
    """Makes txredisapi's protocol, which tells its factory of nothing we ask for here."""

    noisy = False

    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def buildProtocol(self, address: Any) -> Any:
        from txredisapi import RedisProtocol  # installs a reactor, if there is none

        # Numbers that are not converted: "007" would be 7. No charset: what is kept is bytes.
        protocol = RedisProtocol(charset=None, convertNumbers=False)
        protocol.factory = self
        self._made.append(protocol)
        protocol.whenDisconnected().addCallback(lambda _: self._made.remove(protocol))
        return protocol
