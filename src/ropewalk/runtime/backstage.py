"""What works behind the services of one process: relays, subscriptions, sagas, and what is done at times.

Services are known here by name; each brings its database, and its server stack, by which events and scheduled work
reach its methods as requests do.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..driver import Driver, settled
from ..events.relay import Relay
from ..events.subscriptions import Consumer
from ..handler import Handler
from ..interfaces import IBroker
from ..sagas.jobs import Clockwork
from ..sagas.runner import Runner, jobs_of
from ..service import Service, describe
from ..store import Database


class Backstage:
    """Of one process: add each service, start, stop."""

    def __init__(
        self, broker: IBroker, clock: IReactorTime, random: Random, driver: Driver, reactor: Any, age: float
    ) -> None:
        """`age`: seconds for which records are kept."""
        self._age = age
        self._broker = broker
        self._clock = clock
        self._random = random
        self._driver = driver
        self._reactor = reactor
        self.databases: dict[str, Database] = {}  # these by service
        self.relays: dict[str, Relay] = {}
        self.consumers: dict[str, list[Consumer]] = {}
        self.runners: dict[str, Runner] = {}
        self._clockworks: list[Clockwork] = []
        self._running: list[Deferred[Any]] = []

    def add(self, name: str, service: Service, handler: Handler, jobs_handler: Handler, database: Database) -> None:
        """Work for `service`, whose server stack is `handler`; `jobs_handler`: that of jobs."""
        said = describe(service)
        self.databases[name] = database
        relay = self.relays[name] = Relay(database, self._broker, self._clock, self._random)
        mine = self.consumers[name] = []
        for subscription in said.subscriptions.values():
            consumer = Consumer(subscription, handler, database, self._broker, self._clock, self._random, self._driver)
            mine.append(consumer)
        runner = None
        if said.sagas or jobs_of(said):
            runner = self.runners[name] = Runner(
                service, database, self._clock, self._random, self._driver, jobs_handler, self._age
            )
        if said.schedules:
            self._clockworks.append(Clockwork(said.schedules, database, self._clock))
        database.listen(self.in_reactor(lambda wrote: _heard(wrote, relay, mine, runner)))

    def in_reactor(self, heard: Callable[[frozenset[str]], object]) -> Callable[[frozenset[str]], object]:
        """`heard`, to be called from any thread."""
        return lambda wrote: self._reactor.callFromThread(heard, wrote)

    async def start(self) -> None:
        """Take events, and then hand on: nothing is published here before those who want it are known."""
        for consumer in self._consumers():
            await consumer.start()
        # All of a service in one turn: where they look by themselves, now and then, they look in one transaction.
        for consumer in self._consumers():
            consumer.replay()
        for relay in self.relays.values():
            self._run(relay.run())
        for runner in self.runners.values():
            self._run(runner.run())
            self._run(runner.beat())
        for clockwork in self._clockworks:
            self._run(clockwork.run())

    async def purge(self, age: float) -> None:
        """Forget sagas and jobs that ended longer ago than `age` seconds."""
        for runner in self.runners.values():
            await runner.purge(age)

    async def stop_taking(self) -> None:
        """Take nothing new; returns when what was taken is handled."""
        await settled(*(consumer.stop() for consumer in self._consumers()))

    async def stop(self) -> None:
        """Hand on what is there, and end."""
        running, self._running = self._running, []
        for each in running:
            each.cancel()
        await settled(*(runner.stop() for runner in self.runners.values()))
        await settled(*(relay.drain() for relay in self.relays.values()))
        await self._broker.close()

    def _consumers(self) -> list[Consumer]:
        return [consumer for mine in self.consumers.values() for consumer in mine]

    def _run(self, work: Any) -> None:
        running = self._driver.run(work)
        running.addErrback(lambda failure: failure.trap(CancelledError))
        running.addErrback(_failed)
        self._running.append(running)


def _heard(wrote: frozenset[str], relay: Relay, consumers: list[Consumer], runner: Runner | None) -> None:
    if "events" in wrote:
        relay.wake()
    if "replay" in wrote:
        for consumer in consumers:
            consumer.wake()
    if "sagas" in wrote and runner is not None:
        runner.wake()


def _failed(failure: Any) -> None:
    _log.failure("what works behind the services has ended", failure)


_log = Logger("ropewalk.runtime")
