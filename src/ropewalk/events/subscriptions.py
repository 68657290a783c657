"""A subscription at work: each event from the broker becomes a request, under a key, to the service's own stack.

What fails is tried again here, with waits between, while later events of its key wait; what cannot be handled becomes a
dead letter, and its key is parked: later events lie down behind it, in order, until somebody replays or drops it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..bell import Bell
from ..context import Context, digest
from ..driver import Driver
from ..durable import Subscription
from ..errors import RopewalkError
from ..event import Message
from ..handler import Handler
from ..interfaces import IBroker, ISubscription
from ..message import Principal, Request
from ..policy import delivery
from ..store import Database, Transaction
from ..telemetry.propagation import parse_traceparent
from . import dead_letters
from .dead_letters import MOST

TIMEOUT = 60.0  # seconds an event may take to be handled; its deadline
LOOKS = 5.0  # seconds between looks for dead letters to replay; whoever asks in this process wakes it
FULL = 5.0  # seconds until an event that found no place among the dead letters is taken up again

_log = Logger("ropewalk.events")


class Consumer:
    """One subscription, in one process."""

    def __init__(
        self,
        subscription: Subscription,
        handler: Handler,
        database: Database,
        broker: IBroker,
        clock: IReactorTime,
        random: Random,
        driver: Driver,
    ) -> None:
        """`handler`: the service's server stack; `database`: the service's, for its dead letters."""
        self._said = subscription
        self._operation = subscription.operation
        self._handler = handler
        self._database = database
        self._broker = broker
        self._clock = clock
        self._random = random
        self._driver = driver
        self._parked: set[str] = set()  # keys, as far as this process knows
        self._member: ISubscription | None = None
        self._bell = Bell(clock)
        self._replaying: Deferred[Any] | None = None
        self._waiting: dict[Deferred[Any], None] = {}
        self._stopping = False
        self._in_hand: dict[str, float] = {}  # events that came and are not done with, and when they were published
        self.tries: Counter[str] = Counter(handled=0, again=0, dead=0)  # of events, by what came of them

    @property
    def said(self) -> Subscription:
        """As declared."""
        return self._said

    @property
    def in_hand(self) -> int:
        """Events that came and are neither handled nor dead."""
        return len(self._in_hand)

    @property
    def lag(self) -> float:
        """Seconds since the oldest event in hand was published; 0 when none is. What lies dead does not count."""
        return max(0.0, self._database.now() - min(self._in_hand.values())) if self._in_hand else 0.0

    async def start(self) -> None:
        """Take events from now on; raises what the broker and the database raise."""
        said = self._said.delivery
        dead = await self._dead()
        self._parked = dead.parked
        if dead.to_replay:
            self.wake()
        self._member = await self._broker.subscribe(
            self._said.group, (said.event.topic,), self._handle, said.at_once, said.from_start
        )

    def replay(self) -> None:
        """Try again what is asked for, from now on."""
        self._replaying = self._driver.run(self._keep_replaying())
        self._replaying.addErrback(lambda failure: failure.trap(CancelledError))

    async def stop(self) -> None:
        """Take nothing new, and wait for what is being handled; what waits for another try is given back."""
        self._stopping = True
        if self._replaying is not None:
            self._replaying.cancel()
        for waiting in list(self._waiting):
            waiting.cancel()
        if self._member is not None:
            await self._member.stop()

    def wake(self) -> None:
        """Somebody asked for a replay."""
        self._bell.ring()

    # -- from the broker

    async def _handle(self, message: Message, attempt: int) -> None:
        """Returns when it was handled or is a dead letter; raises when the broker must give it again."""
        self._in_hand[message.id] = message.time
        try:
            if not await self._is_parked(message):
                await self._try(message, attempt)
        finally:
            self._in_hand.pop(message.id, None)

    async def _try(self, message: Message, attempt: int) -> None:
        while True:
            try:
                await self._deliver(message, attempt)
            except Exception as error:
                await self._not_handled(message, attempt, error)
                if delivery.again(error, attempt, self._said.delivery.attempts, 0.0) is None:
                    return
                attempt += 1
            else:
                self.tries["handled"] += 1
                return

    async def _not_handled(self, message: Message, attempt: int, error: Exception) -> None:
        """Wait for the next try, or bury it."""
        seconds = delivery.again(error, attempt, self._said.delivery.attempts, self._random.random())
        what = {"event_id": message.id, "topic": message.topic, "key": message.key, "attempt": attempt}
        if seconds is not None:
            self.tries["again"] += 1
            _log.warn("event.again: {error!r} from {group}", error=error, group=self._said.group, **what)
            await self._wait(seconds)
            return
        while not await self._bury(message, attempt, error):
            _log.error("event.stuck: {group} has {most} dead letters", group=self._said.group, most=MOST, **what)
            await self._wait(FULL)
        self.tries["dead"] += 1
        _log.error("event.dead: {error!r} from {group}", error=error, group=self._said.group, **what)

    async def _deliver(self, message: Message, attempt: int) -> None:
        operation = self._operation
        context = Context(
            deadline=self._clock.seconds() + TIMEOUT,
            trace=parse_traceparent(message.traceparent, message.tracestate),
            request_id=message.request_id,
            tenant=message.tenant,
            attempt=attempt,
            key=digest("event", message.source, message.id),
            service=operation.service,
            operation=operation.id,
        )
        event = message.event([self._said.delivery.event])
        principal = Principal(message.source, message.subject or None)
        await self._handler(Request(operation, {self._said.parameter: event}, context, principal))

    async def _wait(self, seconds: float) -> None:
        if self._stopping:
            raise asyncio.CancelledError
        waiting: Deferred[Any] = deferLater(self._clock, seconds)
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            del self._waiting[waiting]

    # -- dead letters

    async def _is_parked(self, message: Message) -> bool:
        """Whether it lies behind dead letters of its key now."""
        key = message.key
        if (
            not key
            or self._said.delivery.on_poison == "skip"
            or (key not in self._parked and not self._database.shared)
        ):
            return False
        behind: bool = await self._database.batched(dead_letters.wait_behind, (self._said.group, message))
        (self._parked.add if behind else self._parked.discard)(key)
        return behind

    async def _bury(self, message: Message, attempt: int, error: Exception) -> bool:
        """Whether there was a place for it."""
        parks = self._said.delivery.on_poison == "park"
        buried = await self._database.apart(_bury, self._said.group, message, attempt, _told(error), parks)
        if buried and message.key and parks:
            self._parked.add(message.key)
        return buried

    async def _keep_replaying(self) -> None:
        while True:
            await self._bell.wait(LOOKS if self._parked or self._database.shared else None)
            try:
                await self._replay()
            except RopewalkError as error:
                _log.warn("event.replay.postponed {error}", error=error)

    async def _replay(self) -> None:
        """Try what was asked for, in order; what fails stays, and all behind it."""
        failed: set[str] = set()
        while True:
            dead = await self._dead()
            letters = [letter for letter in dead.to_replay if letter.event not in failed]
            stuck: set[str] = set()
            for letter in letters:
                if letter.key and letter.key in stuck:
                    continue
                message = Message.decoded(letter.message)
                try:
                    await self._deliver(message, letter.attempts + 1)
                except Exception as error:
                    failed.add(letter.event)
                    stuck.add(letter.key)
                    self.tries["dead"] += 1
                    await self._database.apart(
                        dead_letters.bury, self._said.group, message, letter.attempts + 1, _told(error)
                    )
                    _log.error("event.dead: {error!r} from {group}", error=error, group=self._said.group)
                else:
                    self.tries["handled"] += 1
                    await self._database.apart(dead_letters.handled, self._said.group, letter.event)
            if not letters:
                break
        self._parked = dead.parked

    async def _dead(self) -> dead_letters.Dead:
        """What is dead of it; those of its service look together."""
        dead: dead_letters.Dead = await self._database.batched(dead_letters.to_replay, self._said.group)
        return dead

    def __repr__(self) -> str:
        return f"<Consumer {self._said.group}, {dict(self.tries)}, parked: {len(self._parked)}>"


def _bury(tx: Transaction, group: str, message: Message, attempt: int, error: str, parks: bool) -> bool:
    if dead_letters.count(tx, group) >= MOST:
        return False
    dead_letters.bury(tx, group, message, attempt, error, parks)
    return True


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
