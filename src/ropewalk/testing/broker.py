"""The broker of a simulated world: the built-in one on a host of its own, reached over the network, at its worst.

What it promises is kept, and no more than that: what was handled may come again, an answer may be lost after the
message was stored, a member that is not heard of is given up while it is still at work. A crash keeps what was stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from ..driver import Driver
from ..errors import Unavailable
from ..event import Message
from ..interfaces import IBroker, ISubscription
from ..memory.broker import EmbeddedBroker, Handle, metadata
from ..store import Database
from .hosts import Host, Reactor
from .store import DatabaseHost

P = ParamSpec("P")
R = TypeVar("R")
Given = Callable[[Message, int, Callable[[bool], object]], object]  # `done(handled)` is the third

NAME = "broker"  # of its host
PATIENCE = 5.0  # seconds a process waits for an answer of the broker
HEARTBEAT = 1.0  # seconds between two signs of life of a member
TRUST = 5.0  # seconds without one after which it is given up
TAKES = (0.0005, 0.003)  # seconds until something is stored
REPEATED = 0.02  # the share of what was handled that comes again all the same


class BrokerHost:
    """What the broker's host serves."""

    def __init__(self, host: Host, folder: Path, world: Any) -> None:
        self.host = host
        self._world = world
        self._files = DatabaseHost(NAME, host, folder, world)
        self._broker: EmbeddedBroker | None = None

    @property
    def broker(self) -> EmbeddedBroker:
        """As long as it is up."""
        if self._broker is None:
            reactor: Any = self.host.reactor
            self._broker = EmbeddedBroker(lambda: _Inline(self._files, self._world), reactor, Driver.of(reactor))
        return self._broker

    def crash(self) -> None:
        """What was not stored is lost, and who was subscribed is forgotten."""
        self._broker = None
        self._files.crash()

    def move(self, folder: Path) -> None:
        """As DatabaseHost."""
        self._files.move(folder)

    def serve(self, work: Callable[[], Awaitable[R]]) -> Deferred[R]:
        """What `work()` comes to, after the time that storing takes; on this host's reactor."""
        low, high = TAKES
        reactor: Any = self.host.reactor

        async def served() -> R:
            await deferLater(reactor, low + (high - low) * self.host.random.random())
            return await work()

        return Driver.of(reactor).run(served())

    def repeats(self) -> bool:
        """Whether a message that was handled comes again."""
        repeats = self.host.random.random() < REPEATED
        if repeats:
            self._world.fired("message repeated")
        return repeats


@implementer(IBroker)
class SimulatedBroker:
    """The broker as one process has it."""

    keeps_history = True

    def __init__(self, reactor: Reactor, world: Any) -> None:
        self._reactor = reactor
        self._world = world
        self._subscriptions: list[_Subscription] = []
        self._keeping: Deferred[Any] | None = None
        self._closed = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        topics = "+".join(sorted({message.topic.rpartition(".")[2] for message in messages}))
        await self._world.moments.reach(self._reactor, f"before:publish-{topics}")
        lost: Sequence[str] = await self.ask("publish", lambda server: server.broker.publish(messages))
        for message in messages:
            self._world.tell(self._reactor.host, "publish", f"{message.topic} {message.key}".strip(), NAME)
        await self._world.moments.reach(self._reactor, f"after:publish-{topics}")
        return lost

    async def subscribe(
        self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool = False
    ) -> ISubscription:
        """As IBroker."""
        subscription = _Subscription(self, group, tuple(topics), handle, at_once, from_start)
        try:
            await subscription.join()
        except BaseException:
            subscription.refuse()  # it may be a member all the same, until nothing is heard of it
            raise
        self._subscriptions.append(subscription)
        if self._keeping is None:
            self._keeping = Driver.of(self._reactor).run(self._keep())
            self._keeping.addErrback(lambda failure: failure.trap(CancelledError))
        return subscription

    async def _keep(self) -> None:
        """Show signs of life of all that is subscribed to here, and join again where the broker has forgotten."""
        while True:
            await deferLater(self._reactor, HEARTBEAT)
            mine = [each for each in self._subscriptions if not each.stopping]

            async def members(server: BrokerHost, mine: Sequence[_Subscription] = mine) -> list[bool]:
                return [each.heard_of(server) for each in mine]

            try:
                for each, known in zip(mine, await self.ask("heartbeat", members), strict=True):
                    if not known and not each.stopping:
                        await each.join()
            except Unavailable:
                continue  # it is asked again

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""

        async def all_of(server: BrokerHost) -> list[Message]:
            return [message async for message in server.broker.history(topic)]

        for message in await self.ask("history", all_of):
            yield message

    async def close(self) -> None:
        """As IBroker."""
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
        for subscription in self._subscriptions:
            await subscription.stop()

    async def ask(self, what: str, work: Callable[[BrokerHost], Awaitable[R]]) -> R:
        """What the broker answers; raises Unavailable when it is down, or does not answer in time."""
        if self._closed:
            raise _unavailable("The broker of this process is closed.", "no")
        server: BrokerHost = self._world.broker_host()
        client, there, network = self._reactor.host, server.host, self._reactor.host.network
        answer: Deferred[R] = Deferred(lambda _: None)

        def arrived() -> None:
            if not there.powered:
                return
            if not there.up:
                reply(Failure(_unavailable("The broker cannot be reached.", "no")))
                return
            server.serve(lambda: work(server)).addBoth(reply)

        def reply(result: Any) -> None:
            network.send(there, client, partial(self._reactor.answer, answer, result))

        patience = self._reactor.callLater(PATIENCE, self._give_up, answer, what)
        network.send(client, there, arrived)
        try:
            return await answer
        finally:
            if patience.active():
                patience.cancel()

    def _give_up(self, answer: Deferred[Any], what: str) -> None:
        if not answer.called:
            answer.errback(Failure(_unavailable(f"The broker does not answer to {what}.", "maybe")))

    @property
    def reactor(self) -> Reactor:
        """Of the process."""
        return self._reactor

    @property
    def world(self) -> Any:
        """In which it is."""
        return self._world


@implementer(ISubscription)
class _Subscription:
    """One member of a group, at both ends: what it handles here, and whom the broker gives it to there."""

    def __init__(
        self, broker: SimulatedBroker, group: str, topics: tuple[str, ...], handle: Handle, at_once: int, start: bool
    ) -> None:
        self._broker = broker
        self._group = group
        self._topics = topics
        self._handle = handle
        self._at_once = at_once
        self._start = start
        self._there: _Remote | None = None
        self._handling: dict[Deferred[Any], None] = {}
        self.stopping = False

    async def join(self) -> None:
        """Be a member, from now on."""
        remote = _Remote(self._broker, self.given)

        async def joined(server: BrokerHost) -> None:
            remote.member = await server.broker.subscribe(
                self._group, self._topics, remote.give, self._at_once, self._start
            )
            remote.watch(server)

        await self._broker.ask(f"subscribe {self._group}", joined)
        self._there = remote

    def refuse(self) -> None:
        """Handle nothing, whatever is given."""
        self.stopping = True

    def heard_of(self, server: BrokerHost) -> bool:
        """A sign of life, at the broker; whether it is still a member."""
        return self._there is not None and self._there.heard_of(server)

    def given(self, message: Message, attempt: int, done: Callable[[bool], object]) -> None:
        """A message came; `done(handled)` once it was handled or not."""
        if self.stopping:
            done(False)
            return
        world, reactor = self._broker.world, self._broker.reactor
        handling = Driver.of(reactor).run(self._handle(message, attempt))
        self._handling[handling] = None

        def ended(result: Any) -> None:
            self._handling.pop(handling)
            failed = isinstance(result, Failure)
            if failed and not result.check(CancelledError, Unavailable):
                world.failed(reactor.host, result)
            done(not failed)

        handling.addBoth(ended)

    async def stop(self) -> None:
        """As ISubscription."""
        if self.stopping:
            return
        self.stopping = True
        while self._handling:
            waiting: Deferred[None] = Deferred(lambda _: None)
            next(iter(self._handling)).addBoth(_tell, waiting)
            await waiting
        there, self._there = self._there, None
        if there is None:
            return

        async def left(server: BrokerHost) -> None:
            there.leave()

        with suppress(Unavailable):  # it gives it up by itself
            await self._broker.ask("unsubscribe", left)


def _tell(result: Any, waiting: Deferred[None]) -> Any:
    waiting.callback(None)
    return result


class _Remote:
    """A member, as the broker has it."""

    def __init__(self, client: SimulatedBroker, given: Given) -> None:
        self._client = client
        self._given = given
        self.member: Any = None
        self._heard = 0.0
        self._host: Any = None  # the broker's reactor that knows it

    def watch(self, server: BrokerHost) -> None:
        """Give it up when nothing is heard of it."""
        self._host = server.host.reactor
        self._heard = self._host.seconds()
        self._look()

    def heard_of(self, server: BrokerHost) -> bool:
        """A sign of life; whether it is still a member."""
        if self._host is not server.host.reactor or self.member is None:
            return False
        self._heard = self._host.seconds()
        return True

    def leave(self) -> None:
        """What it has not handled is for others."""
        member, self.member = self.member, None
        if member is not None:
            member.cancel()

    def _look(self) -> None:
        if self.member is None:
            return
        if not self._client.reactor.alive or self._host.seconds() - self._heard > TRUST:
            self._client.world.fired("member given up")
            self.leave()
        else:
            self._host.callLater(HEARTBEAT, self._look)

    async def give(self, message: Message, attempt: int) -> None:
        """Send it, and wait until it was handled; raises when it was not."""
        client = self._client
        server: BrokerHost = client.world.broker_host()
        here, there, network = server.host, client.reactor.host, server.host.network
        process = client.reactor
        answer: Deferred[bool] = Deferred(lambda _: None)

        def done(handled: bool) -> None:
            network.send(there, here, partial(server.host.reactor.answer, answer, handled))

        def arrived() -> None:
            if process.alive:
                process.soon(self._given, message, attempt, done)

        network.send(here, there, arrived)
        if not await answer:
            raise Unavailable("It was not handled.")
        if server.repeats():
            raise Unavailable("It comes again.")


class _Inline(Database):
    """The broker's own database: what it takes is the time of what it answers."""

    def __init__(self, files: DatabaseHost, world: Any) -> None:
        self.name = NAME
        self._files = files
        self._files.open(metadata)
        self.now = partial(world.wall, files.host)
        self._heard = []

    def in_turn(self, connection: Any, keys: Sequence[str]) -> None:
        """Transactions are serial here."""

    async def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return self._files.open(None)._transact(function, args, kwargs, self)


def _unavailable(reason: str, ran: Any) -> Unavailable:
    error = Unavailable(reason)
    error.ran = ran
    return error
