"""A member of a group: takes from the group's queues what it is given, handles it in order for each key, acknowledges.

What fails is tried again here, without giving it back: so nothing of its key passes it. What is not acknowledged when
the channel closes, in whatever way, is the next consumer's, in its order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ropewalk.bell import Bell
from ropewalk.driver import Driver
from ropewalk.errors import RopewalkError
from ropewalk.event import Message, Undeliverable
from ropewalk.interfaces import ISubscription
from ropewalk.policy.lanes import Lanes

AGAIN = 1.0  # seconds until what could not be handled is tried again

_log = Logger("ropewalk.rabbitmq")


class Got(Struct, frozen=True):
    """A message that came over a channel."""

    channel: Any
    tag: int  # by which it is acknowledged there
    message: Message
    attempt: int


@implementer(ISubscription)
class Member:
    """One subscription of this process."""

    bindings: Sequence[tuple[int, str]] = ()  # which of its queues is bound by which routing key

    def __init__(
        self,
        queues: Sequence[str],
        handle: Callable[[Message, int], Awaitable[None]],
        at_once: int,
        clock: IReactorTime,
        driver: Driver,
    ) -> None:
        self.queues = queues
        self.at_once = at_once
        self.stopping = False
        self._handle = handle
        self._clock = clock
        self._driver = driver
        self._channel: Any = None
        self._cut: Callable[[object], object]
        self._numbers = 0
        self._lanes: Lanes[int] = Lanes()
        self._got: dict[int, Got] = {}
        self._handling: dict[int, Deferred[Any]] = {}
        self._idle = Bell(clock)
        self._pumping = False

    async def consume(self, channel: Any, ended: Callable[[object], object]) -> None:
        """Take from now on what comes over `channel`; `ended` is called when the server ends that.

        It does so when nothing was acknowledged for half an hour, or when a queue is deleted.
        """
        self._channel, self._cut = channel, ended
        for queue in self.queues:
            arriving, _ = await channel.basic_consume(queue)
            self._take(channel, arriving)

    def lost(self) -> None:
        """The channel is gone: what was not acknowledged is given to another one."""
        self._channel = None
        self._lanes, self._got = Lanes(), {}
        handling, self._handling = self._handling, {}
        for each in handling.values():
            each.cancel()
        self._idle.ring()

    async def stop(self) -> None:
        """As ISubscription."""
        self.stopping = True
        while self._handling:
            await self._idle.wait()
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            # Not before: while it consumes, nobody else is given what comes after what it had in hand.
            channel.close()
            await channel.on_closed

    # -- taking

    def _take(self, channel: Any, arriving: Any) -> None:
        next_: Deferred[Any] = arriving.get()
        next_.addCallbacks(lambda came: self._came(channel, arriving, came), partial(self._no_more, channel))

    def _no_more(self, channel: Any, failure: Failure) -> None:
        if channel is self._channel and not self.stopping:
            self._cut(failure.value)

    def _came(self, channel: Any, arriving: Any, came: Any) -> None:
        self._add(channel, came)
        self._take(channel, arriving)  # not before: what is there already comes at once, and is later than this

    def _add(self, channel: Any, came: Any) -> None:
        _, method, properties, body = came
        if channel is not self._channel or self.stopping:
            return
        try:
            message = Message.decoded(body)
        except Undeliverable as error:  # not of ours: nobody could ever handle it
            _log.error("rabbitmq.no-event {error}", error=error)
            channel.basic_ack(method.delivery_tag)
            return
        given_before = int((properties.headers or {}).get("x-delivery-count", 0))
        self._numbers += 1
        self._got[self._numbers] = Got(channel, method.delivery_tag, message, given_before + 1)
        self._lanes.add(self._numbers, message.key)
        self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return  # what is handled at once would call this once more for each
        self._pumping = True
        try:
            while not self.stopping and len(self._handling) < self.at_once:
                number = self._lanes.take()
                if number is None:
                    return
                self._begin(number, self._got[number])
        finally:
            self._pumping = False

    def _begin(self, number: int, got: Got) -> None:
        async def handled() -> None:
            await self._handle(got.message, got.attempt)

        handling = self._driver.run(handled())
        self._handling[number] = handling
        handling.addBoth(self._ended, number, got, handling)

    def _ended(self, result: Any, number: int, got: Got, handling: Deferred[Any]) -> None:
        if self._got.get(number) is not got:
            return  # its channel is gone, and so it is somebody else's
        del self._handling[number]
        if not isinstance(result, Failure):
            del self._got[number]
            self._lanes.done(number)
            if got.channel.is_open:
                got.channel.basic_ack(got.tag)
        else:
            if not result.check(CancelledError, RopewalkError):
                _log.failure("rabbitmq.handler.failed", result)
            self._got[number] = Got(got.channel, got.tag, got.message, got.attempt + 1)
            if not self.stopping:
                self._clock.callLater(AGAIN, self._again, number, self._got[number])
        if not self._handling:
            self._idle.ring()
        self._pump()

    def _again(self, number: int, got: Got) -> None:
        if self._got.get(number) is got:
            self._lanes.give_back(number)
            self._pump()

    def __repr__(self) -> str:
        return f"<Member of {self.queues[0].rpartition('.')[0]}, {len(self._got)} here, {len(self._handling)} in hand>"
