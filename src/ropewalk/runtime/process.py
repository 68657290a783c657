"""One process of the system, built and run: the composition root itself.

`Process` is an `IService`: `startService` builds the services this process hosts, composes their stacks, starts them
and opens their listeners; `stopService` drains and closes, in that order. The same class runs under twistd, under the
supervisor as a worker, and in tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, cast

from treq.client import HTTPClient
from twisted.application.service import Service as LifecycleService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.resource import IResource
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from ..discovery.resolve import Resolve
from ..dispatch import dispatch
from ..driver import Driver
from ..engine.agent import Agent
from ..engine.limits import Limits
from ..engine.native import accept_what_waits, accepting
from ..engine.pool import Pool
from ..engine.proxies import Proxies
from ..errors import ConfigurationError, RopewalkError
from ..events import Publisher
from ..events.dead_letters import DeadLetters
from ..filters.background import Background
from ..filters.observe import Done
from ..handler import Handler, compose
from ..http.client import HTTPConnection
from ..http.internal import inside
from ..http.mounts import Mounts
from ..http.raw import serve as serve_raw
from ..http.sessions import Sessions
from ..http.sibling_agent import SiblingAgent
from ..http.site import Site
from ..http.surface import surface
from ..interfaces import IBroker, IStore, IWallClock
from ..memory.connection import LocalConnection
from ..operation import MAX_BODY
from ..plugin import find_adapter
from ..sagas import Sagas
from ..sagas.jobs import Jobs, accepted
from ..sagas.runner import jobs_of
from ..service import Client, Contract, Service, describe
from ..sibling import client_of
from ..store import Database
from ..store.migrations import Differs
from ..telemetry.logs import request_line
from ..telemetry.metrics import CONTENT_TYPE, Calls, Lag, exposition
from .backstage import Backstage
from .clock import Clock, WallClock
from .config import Config
from .guarded import GuardedClock, GuardedRandom, GuardedWallClock
from .inject import construct, unread
from .keeps import needs_database, refuse_shared_tables
from .listeners import listen_at
from .numbers import Counted, stored
from .operating import OPERATING, Kept, Operator, of_this_site
from .placement import Place, Placement
from .settings import Settings
from .settings import load as load_settings
from .stacks import client_stack, server_stack
from .trust import Trust, says_who, says_whose
from .workers import Workers

LAG_PROBE = 0.25  # seconds between looks at how late the reactor is
PURGE = 600.0  # seconds between looks for records that have grown old

Listen = Callable[[Any, str], Deferred[Any]]


class Process(LifecycleService):
    """The services of one process, from nothing to drained."""

    def __init__(
        self,
        config: Config,
        placement: Placement,
        process: str,
        reactor: Any,
        *,
        data: Path,
        now: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        store: IStore | None = None,
        broker: IBroker | None = None,
        workers: Workers | None = None,
        listen: Listen | None = None,
        drain_delay: float | None = None,
        on_ready: Callable[[], object] | None = None,
        on_failure: Callable[[BaseException], object] | None = None,
        metrics: Callable[[], Any] | None = None,
    ) -> None:
        """`data`: where databases lie; `now`: wall-clock seconds; `seconds`: monotonic ones.
        `store`, `broker`: by default the configured adapters'; `workers`: by default threads and processes.
        `listen(site, description)` opens a listener, by default by Twisted's endpoints.

        `metrics()` answers `/metrics` in the place of this process's own page: a supervisor's, for all its workers.
        """
        self.name = self._process = process
        self.config = config
        self.placement = placement
        self.ready = False
        self.drain_delay = config.file.drain.delay if drain_delay is None else drain_delay
        self.reactor = reactor
        self.clock = Clock(reactor, seconds)
        self.random = random or SystemRandom()
        self._ids = Random(self.random.getrandbits(256))  # of spans: many, and nobody gains by guessing one
        self.driver = Driver.of(cast(IReactorTime, reactor))
        self.workers = workers or Workers(reactor)
        self._wall = WallClock(now)
        self._data = data
        self.lag = Lag()
        self.services: dict[str, Service] = {}
        self.meters: list[Calls] = []
        self._listen = listen or (lambda site, description: listen_at(reactor, description, site))
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._metrics = metrics or self.page
        self._servers: dict[str, Handler] = {}
        self._job_servers: dict[str, Handler] = {}
        self._turns: dict[str, int] = {}  # of raw calls: which instance of a sibling was asked last
        self._server_meters: dict[str, Calls] = {}
        self._sites: list[Site] = []
        self._ports: list[Any] = []
        self._store: IStore = store or configured_store(config, data, reactor, now)
        self._trust = Trust(config, data, now, self.random)
        self._sessions: dict[str, Sessions] = {}
        self._mounts: dict[str, Mounts] = {}
        self._pool = Pool(reactor)
        self._agent = Agent(reactor, pool=self._pool)
        self._databases: dict[str, Database] = {}
        self._member = f"{self._ids.getrandbits(128):032x}"  # what this process is called among those that share one
        self._broker: IBroker = broker or self._configured_broker(data, now)
        self._backstage = Backstage(self._broker, self.clock, self._ids, self.driver, reactor, config.file.records.age)
        self._counted = Counted(self._backstage)
        self._purging: Deferred[Any] | None = None
        self._probe: Any = None
        self._operating: IResource | None = None
        self._started: Deferred[None] | None = None

    # -- the lifecycle

    def startService(self) -> None:
        """Begin; `on_ready` or `on_failure` tells how it went."""
        super().startService()
        self._started = self.driver.run(self._start())
        self._started.addCallbacks(lambda _: self._on_ready and self._on_ready(), self._failed)

    def stopService(self) -> Deferred[None]:
        """Drain and close; fires when nothing of this process is left."""
        super().stopService()
        return self.driver.run(self._stop())

    async def _start(self) -> None:
        hosted = [place.service for place in self.placement.hosted_by(self._process)]
        refuse_shared_tables({name: self.config.service_class(name) for name in hosted})
        for place in self.placement.hosted_by(self._process):
            self.services[place.service] = self._build(place)
        for name, service in self.services.items():
            if name in self._databases:
                handlers = self._servers[name], self._job_servers[name]
                self._backstage.add(name, service, *handlers, self._databases[name])
        for name, service in self.services.items():
            start = getattr(service, "start", None)
            if start is not None:
                await start()
            self._mounts[name] = Mounts(service, self.reactor, self.reactor.getThreadPool(), self.driver)
            await self._mounts[name].start()
        await self._backstage.start()
        for place in self.placement.hosted_by(self._process):
            await self._open(place)
        self._watch_lag(self.clock.seconds())
        self._purging = self.driver.run(self._purge()).addErrback(lambda failure: failure.trap(CancelledError))
        self.ready = True

    async def _stop(self) -> None:
        was_ready, self.ready = self.ready, False
        if self._started is not None and not self._started.called:
            self._started.cancel()
        if was_ready and self.drain_delay:
            await asyncio.sleep(self.drain_delay)
        for site in self._sites:
            site.drain()
        for port in self._ports:
            accept_what_waits(port)
            await maybeDeferred(port.stopListening)
        ends = asyncio.get_running_loop().time() + self.config.file.drain.limit
        try:
            async with asyncio.timeout_at(ends):
                await self._backstage.stop_taking()
                for site in self._sites:
                    await site.wait_until_closed()
                await _without_calls(self._server_meters.values())
        except TimeoutError:
            _log.warn("drain limit reached: {count} calls cut off", count=sum(m.in_flight for m in self.meters))
        for site in self._sites:
            site.abort()
        for name, service in reversed(self.services.items()):
            try:
                if name in self._mounts:
                    await self._mounts[name].stop()
                stop = getattr(service, "stop", None)
                if stop is not None:
                    await stop()
            except Exception:
                _log.failure("{name} failed while it stopped", name=name)
        await self._backstage.stop()
        # What may not be cancelled goes on when nobody waits for it any more: calls of siblings, too.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await _without_calls(self.meters)
        if self._purging is not None:
            self._purging.cancel()
        if self._probe is not None and self._probe.active():
            self._probe.cancel()
        await self._pool.close()
        await self.workers.close()
        self._store.close()

    async def _purge(self) -> None:
        age = self.config.file.records.age
        while True:
            await deferLater(self.clock, PURGE)
            for name, database in self._databases.items():
                await _purged(name, database.purge(age))
            await _purged(self._process, self._backstage.purge(age))

    def _failed(self, failure: Any) -> None:
        if not self.running and failure.check(CancelledError):  # it was to stop before it was ready: nothing failed
            return
        if not failure.check(ConfigurationError):  # of which its message says all
            _log.failure("the process {name} could not start", failure, name=self.name)
        if self._on_failure is not None:
            self._on_failure(failure.value)

    # -- building

    def _build(self, place: Place) -> Service:
        name = place.service
        cls = self.config.service_class(name)
        nobody_reads = unread(cls, self.config.settings_of(name))
        if nobody_reads is not None:
            raise ConfigurationError(nobody_reads)
        if needs_database(cls):
            self._database(name, cls)
        service = construct(
            cls,
            self._things(name, cls),
            lambda contract, policy: self._client(name, contract, policy),
            lambda settings: self._settings(name, settings),
        )
        meter = Calls("ropewalk_server", "Requests", (("service", name),))
        self.meters.append(meter)
        self._server_meters[name] = meter
        self._sessions[name] = self._trust.sessions(name)
        innermost = self._innermost(service)
        self._servers[name] = compose(self._server_stack(name, background=self._background(name, cls)), innermost)
        # What was accepted or is done at times is refused by nobody any more, and takes the time it takes.
        self._job_servers[name] = compose(self._server_stack(name, timeout=None), innermost)
        if name in self._databases:
            service.__ropewalk_jobs__ = Jobs(self._databases[name], jobs_of(describe(cls)))
        return service

    def _background(self, name: str, cls: type[Service]) -> Background | None:
        if not any(operation.background for operation in describe(cls).operations.values()):
            return None
        database = self._database(name, cls)

        async def accept(operation: str, arguments: bytes) -> str:
            return await database.run(accepted, operation, arguments, f"{self._ids.getrandbits(128):032x}")

        return Background(accept)

    def _innermost(self, service: Service) -> Handler:
        return dispatch(service)

    def _server_stack(self, name: str, done: Done | None = request_line, **options: Any) -> Sequence[Any]:
        return server_stack(
            clock=self.clock,
            random=self._ids,
            meter=self._server_meters[name],
            done=done,
            authenticators=self._trust.authenticators(name, self._sessions[name]),
            take_back=self._databases[name].take_back if name in self._databases else None,
            **options,
        )

    def _things(self, name: str, cls: type[Service]) -> dict[Any, Callable[[], Any]]:
        things: dict[Any, Callable[[], Any]] = {
            Database: lambda: self._database(name, cls),
            Publisher: lambda: Publisher(self._database(name, cls)),
            Sagas: lambda: self._sagas(name, cls),
            Workers: lambda: self.workers,
            Random: lambda: self.random,
            IReactorTime: lambda: self.clock,
            IWallClock: lambda: self._wall,
            IReactorTCP: lambda: self.reactor,
            HTTPClient: lambda: HTTPClient(
                SiblingAgent(self._agent, self._address, self.clock.seconds, says_whose(self._trust.identity(name)))
            ),
        }
        if describe(cls).sagas:
            things[Random] = lambda: GuardedRandom(self.random)
            things[IReactorTime] = lambda: GuardedClock(self.clock)
            things[IWallClock] = lambda: GuardedWallClock(self._wall)
        for interface, provider in self.config.file.provide.items():
            things[_imported(interface)] = partial(_provided, _imported(interface), _imported(provider))
        return things

    def _database(self, name: str, cls: type[Service]) -> Database:
        if name not in self._databases:
            try:
                database = self._store.open(name, getattr(cls, "tables", None), self.config.revisions_of(name))
            except Differs as error:
                command = self.config.migrate_command(name, self._data)
                raise ConfigurationError(f"{error} Run `{command}`.") from error
            self._databases[name] = database
            database.random, database.member = self._ids, self._member
        return self._databases[name]

    def _sagas(self, name: str, cls: type[Service]) -> Sagas:
        database, in_reactor = self._database(name, cls), self._backstage.in_reactor
        return Sagas(
            cls,
            database,
            self.clock,
            lambda heard: database.listen(in_reactor(heard)),
        )

    def _settings(self, name: str, cls: type[Settings]) -> Settings:
        return load_settings(cls, name, self.config.settings_of(name), self.config.origins)

    def _client(self, caller: str, contract: type[Contract], policy: Client) -> Any:
        callee = self.config.keeper(contract)
        edge = self.config.file.edges.get(f"{caller} -> {callee}")
        timeout = edge.timeout if edge is not None and edge.timeout is not None else policy.timeout
        meter = Calls("ropewalk_client", "Calls", (("caller", caller), ("callee", callee)))
        self.meters.append(meter)
        stack = client_stack(clock=self.clock, random=self._ids, meter=meter, timeout=timeout)
        return client_of(contract, compose(stack, self._connection(caller, callee, contract)), caller, self.driver)

    def _connection(self, caller: str, callee: str, contract: type[Contract]) -> Handler:
        if self.placement.places[callee].process == self.name:
            cls = self.config.service_class(callee)
            # Looked up when called: siblings may name each other, so one of them is built first.
            return LocalConnection(caller, describe(cls), lambda request: self._servers[callee](request))
        major, identity = describe(contract).major, says_who(self._trust.identity(caller), callee)
        return Resolve(
            callee,
            lambda: self.placement.places[callee].urls,
            lambda address: HTTPConnection(self._pool, address, callee, major, self.clock.seconds, identity),
        )

    def _address(self, name: str) -> str | None:
        place = self.placement.places.get(name)
        if place is None or not place.urls:
            return None
        turn = self._turns[name] = self._turns.get(name, -1) + 1
        return place.urls[turn % len(place.urls)]

    def _configured_broker(self, data: Path, now: Callable[[], float]) -> IBroker:
        broker = self.config.file.adapters.broker
        make = find_adapter("broker", broker).load()
        made: IBroker = make(broker, data=data, reactor=self.reactor, clock=self.clock, now=now, random=self._ids)
        return made

    # -- listening

    async def _open(self, place: Place) -> None:
        await self._listen_at(place, place.listen, public=False)
        if place.public is not None:
            await self._listen_at(place, place.public, public=True)

    async def _listen_at(self, place: Place, description: str, *, public: bool) -> None:
        service = self.services[place.service]
        operations = describe(service).operations.values()
        resource = surface(
            service,
            self._servers[place.service],
            self.driver,
            self.clock.seconds,
            raw=compose(self._server_stack(place.service, timeout=None), serve_raw),
            mounts=self._mounts[place.service],
            sessions=self._sessions[place.service],
            cors=self._trust.cors if public else None,
            public=public,
            inside=inside(lambda: self.ready, self._metrics, CONTENT_TYPE),
            beneath={OPERATING: self._operator},
        )
        max_body = max((operation.max_body for operation in operations), default=MAX_BODY)
        limits, in_front = Limits(**self.config.file.limits.model_dump()), self.config.file.proxies
        proxies = Proxies(in_front.trusted, protocol=in_front.protocol) if public and in_front.trusted else None
        site = Site(resource, self.reactor, max_body, limits, proxies)
        try:
            port = accepting(await self._listen(site, description), site, self.reactor)
        except Exception as error:
            raise ConfigurationError(f"{place.service} cannot listen at {description}: {error}") from error
        self._sites.append(site)
        self._ports.append(port)
        _log.info("{service} listens at {description}", service=place.service, description=description, public=public)

    # -- seeing

    def _operator(self) -> IResource:
        """What whoever runs the system asks, made when that is first asked."""
        if self._operating is None:
            meter = Calls("ropewalk_server", "Requests", (("service", "ropewalk"),))
            self.meters.append(meter)
            operator = Operator(
                self.config.file.system.name, self._process, {name: self._kept(name) for name in self._databases}
            )
            stack = server_stack(clock=self.clock, random=self._ids, meter=meter, done=request_line)
            handler = compose([*stack, of_this_site], dispatch(operator))
            self._operating = surface(operator, handler, self.driver, self.clock.seconds)
        return self._operating

    def _kept(self, name: str) -> Kept:
        cls, database, backstage = type(self.services[name]), self._databases[name], self._backstage
        return Kept(
            self._sagas(name, cls),
            jobs_of(describe(cls)),
            DeadLetters(database),
            backstage.consumers[name],
            backstage.runners.get(name),
        )

    def counted(self) -> bytes:
        """What this process counts, as OpenMetrics."""
        return exposition([*self.meters, self.lag, self._counted])

    def page(self) -> Deferred[bytes]:
        """This process's numbers, as OpenMetrics: what it counts, and what lies in its databases."""
        return self.driver.run(self._page())

    async def _page(self) -> bytes:
        there = await stored(self._backstage)
        return exposition([*self.meters, self.lag, self._counted, there])

    def _watch_lag(self, due: float) -> None:
        self.lag.observe(self.clock.seconds() - due)
        self._probe = self.reactor.callLater(LAG_PROBE, self._watch_lag, self.clock.seconds() + LAG_PROBE)


async def _purged(name: str, purging: Awaitable[Any]) -> None:
    try:
        await purging
    except RopewalkError as error:
        _log.warn("records of {name} not purged: {error}", name=name, error=error)


async def _without_calls(meters: Iterable[Calls]) -> None:
    """Returns when no call is under way. One whose client is gone has no connection to wait for."""
    while any(meter.in_flight for meter in meters):
        await asyncio.sleep(0.02)


def configured_store(config: Config, data: Path, reactor: Any, now: Callable[[], float]) -> IStore:
    """What the configuration names; raises ConfigurationError when there is no such adapter."""
    store = config.file.adapters.store
    made: IStore = find_adapter("store", store).load()(store, data, reactor, now, config.file.system.name)
    return made


def _imported(target: str) -> Any:
    from importlib import import_module

    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"[provide] {target}: {error}.") from error


def _provided(port: Any, make: Callable[[], Any]) -> Any:
    provider = make()
    try:
        verifyObject(port, provider)
    except Invalid as error:
        raise ConfigurationError(f"[provide] {port.__name__}: {error}") from error
    return provider


_log = Logger("ropewalk.runtime")
