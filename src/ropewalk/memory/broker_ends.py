"""The two ends of the built-in broker's socket: the owner's, which serves, and a client's, which asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..driver import Driver
from ..errors import Ran, RopewalkError, Unavailable
from ..event import Message
from .broker import EmbeddedBroker, Handle
from .broker_wire import (
    Answer,
    Frames,
    FromClient,
    FromOwner,
    Given,
    Handled,
    History,
    Join,
    Leave,
    Publish,
    Refusal,
    decode_client,
    decode_owner,
)

PAGE = 100  # messages of a history in one frame

_log = Logger("ropewalk.broker")


class Clients(Factory):
    """The owner's end: one `Served` for each connection."""

    noisy = False

    def __init__(self, broker: EmbeddedBroker, driver: Driver) -> None:
        self._broker = broker
        self._driver = driver
        self._open: dict[Served, None] = {}

    def buildProtocol(self, addr: Any) -> Frames:
        """A process has connected."""
        served = Served(self._broker, self._driver, self._open)
        self._open[served] = None
        return served.frames

    def end(self) -> None:
        """Break all connections off."""
        for served in list(self._open):
            served.frames.end()


class Served:
    """One process that is a client, as the owner has it."""

    def __init__(self, broker: EmbeddedBroker, driver: Driver, open: dict[Served, None]) -> None:
        self.frames = Frames(decode_client, self._heard, self._lost)
        self._broker = broker
        self._driver = driver
        self._open = open
        self._members: dict[int, Any] = {}
        self._given: dict[int, Deferred[bool]] = {}
        self._numbers = count(1)
        self._gone = False

    def _heard(self, message: FromClient) -> None:
        match message:
            case Handled(given, well):
                waiting = self._given.pop(given, None)
                if waiting is not None and not waiting.called:
                    waiting.callback(well)
            case Leave(member):
                if member in self._members:
                    self._driver.run(self._members.pop(member).stop()).addErrback(lambda _: None)
            case _:
                work = self._driver.run(self._answer(message))
                work.addErrback(lambda failure: _log.failure("broker.answer.failed", failure))

    async def _answer(self, asked: Publish | Join | History) -> None:
        try:
            match asked:
                case Publish(ask, messages):
                    lost = await self._broker.publish([Message.decoded(each) for each in messages])
                    self.frames.say(Answer(ask, lost=list(lost)))
                case Join(ask, group, topics, at_once, from_start):
                    member: Any = await self._broker.subscribe(
                        group, topics, lambda message, attempt: self._give(ask, message, attempt), at_once, from_start
                    )
                    if self._gone:
                        member.cancel()
                        return
                    self._members[ask] = member
                    self.frames.say(Answer(ask))
                case History(ask, topic):
                    page: list[bytes] = []
                    async for message in self._broker.history(topic):
                        page.append(message.encoded())
                        if len(page) == PAGE:
                            self.frames.say(Answer(ask, messages=page, last=False))
                            page = []
                    self.frames.say(Answer(ask, messages=page))
        except RopewalkError as error:
            self.frames.say(Refusal(asked.ask, str(error), error.ran))

    async def _give(self, member: int, message: Message, attempt: int) -> None:
        number = next(self._numbers)
        waiting: Deferred[bool] = Deferred(lambda _: None)
        self._given[number] = waiting
        self.frames.say(Given(number, member, attempt, message.encoded()))
        try:
            if not await waiting:
                raise Unavailable("It was not handled.")
        finally:
            self._given.pop(number, None)

    def _lost(self) -> None:
        self._gone = True
        self._open.pop(self, None)
        members, self._members = self._members, {}
        for member in members.values():
            member.cancel()
        for waiting in list(self._given.values()):
            waiting.cancel()


class Asking:
    """A client's end of one connection."""

    def __init__(self, driver: Driver, lost: Callable[[], object]) -> None:
        """`lost` is called once, when nobody is there any more."""
        self.frames = Frames(decode_owner, self._heard, self._lost)
        self._driver = driver
        self._when_lost = lost
        self._numbers = count(1)
        self._asked: dict[int, Deferred[Answer]] = {}
        self._pages: dict[int, list[bytes]] = {}
        self._members: dict[int, Handle] = {}
        self._handling: dict[int, Deferred[Any]] = {}
        self.gone = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[str]:
        """As IBroker."""
        ask = next(self._numbers)
        answer = await self._ask(ask, Publish(ask, [message.encoded() for message in messages]))
        return answer.lost

    async def join(self, group: str, topics: Collection[str], handle: Handle, at_once: int, from_start: bool) -> int:
        """The number of the new member."""
        ask = next(self._numbers)
        self._members[ask] = handle
        await self._ask(ask, Join(ask, group, sorted(topics), at_once, from_start))
        return ask

    def leave(self, member: int) -> None:
        """It is given nothing new."""
        self._members.pop(member, None)
        self.frames.say(Leave(member))

    async def history(self, topic: str) -> AsyncIterator[Message]:
        """As IBroker."""
        ask = next(self._numbers)
        self._pages[ask] = []
        try:
            answer = await self._ask(ask, History(ask, topic))
            for each in [*self._pages[ask], *answer.messages]:
                yield Message.decoded(each)
        finally:
            del self._pages[ask]

    async def _ask(self, ask: int, message: FromClient) -> Answer:
        if self.gone:
            raise unavailable("The process that owns the built-in broker is gone.", "no")
        asked: Deferred[Answer] = Deferred(lambda _: None)
        self._asked[ask] = asked
        self.frames.say(message)
        try:
            return await asked
        finally:
            self._asked.pop(ask, None)

    def _heard(self, message: FromOwner) -> None:
        match message:
            case Given(given, member, attempt, body):
                self._handle(given, member, attempt, Message.decoded(body))
            case Answer(ask, messages=messages, last=False):
                self._pages[ask].extend(messages)
            case Answer(ask) | Refusal(ask):
                asked = self._asked.get(ask)
                if asked is None or asked.called:
                    return
                if isinstance(message, Refusal):
                    asked.errback(Failure(unavailable(message.reason, cast(Ran, message.ran))))
                else:
                    asked.callback(message)

    def _handle(self, given: int, member: int, attempt: int, message: Message) -> None:
        handle = self._members.get(member)
        if handle is None:
            self.frames.say(Handled(given, False))
            return
        handling = self._driver.run(cast(Awaitable[Any], handle(message, attempt)))
        self._handling[given] = handling

        def ended(result: Any) -> None:
            self._handling.pop(given, None)
            failed = isinstance(result, Failure)
            if failed and not result.check(CancelledError, RopewalkError):
                _log.failure("broker.handler.failed", result)
            self.frames.say(Handled(given, not failed))

        handling.addBoth(ended)

    def handling(self) -> list[Deferred[Any]]:
        """What is being handled."""
        return list(self._handling.values())

    def _lost(self) -> None:
        self.gone = True
        self._when_lost()  # first: who hears of it next may ask again at once
        for asked in list(self._asked.values()):
            if not asked.called:
                reason = "The process that owns the built-in broker was lost before it answered."
                asked.errback(Failure(unavailable(reason, "maybe")))
        for handling in self.handling():
            handling.cancel()  # it is given to another one


def unavailable(reason: str, ran: Ran) -> Unavailable:
    """An error of the broker; `ran`: whether it did what it was asked."""
    error = Unavailable(reason)
    error.ran = ran
    return error
