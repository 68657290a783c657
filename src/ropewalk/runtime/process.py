"""One process of the system, built and run: the composition root itself.

`Process` is an `IService`: `startService` builds the services this process hosts, composes their stacks, starts them
and opens their listeners; `stopService` drains and closes, in that order. The same class runs under twistd, under the
supervisor as a worker, and in tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, cast

from treq.client import HTTPClient
from twisted.application.service import Service as LifecycleService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from ..discovery.resolve import Resolve
from ..driver import Driver
from ..errors import ConfigurationError, RopewalkError
from ..filters.trace import Done
from ..handler import Handler, compose
from ..http.client import HTTPConnection, agent, connections
from ..http.internal import inside
from ..http.mounts import Mounts
from ..http.raw import serve as serve_raw
from ..http.sessions import Sessions
from ..http.sibling_agent import SiblingAgent
from ..http.site import Site
from ..http.surface import surface
from ..interfaces import IStore, IWallClock
from ..memory.connection import LocalConnection
from ..operation import MAX_BODY
from ..plugin import find_adapter
from ..service import Client, Contract, Service, client_of, describe, dispatch
from ..store import Database
from ..telemetry.logs import request_line
from ..telemetry.metrics import CONTENT_TYPE, Calls, Lag, exposition
from .clock import Clock, WallClock
from .config import Config
from .inject import construct, unread
from .placement import Place, Placement
from .settings import Settings
from .settings import load as load_settings
from .stacks import client_stack, server_stack
from .trust import Trust, says_who, says_whose
from .workers import Workers

LAG_PROBE = 0.25  # seconds between looks at how late the reactor is
PURGE = 600.0  # seconds between looks for records that have grown old
BACKLOG = 4096  # Linux's default net.core.somaxconn: no more connections than that can wait to be accepted

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
        workers: Workers | None = None,
        listen: Listen | None = None,
        drain_delay: float | None = None,
        on_ready: Callable[[], object] | None = None,
        on_failure: Callable[[BaseException], object] | None = None,
        metrics: Callable[[], Any] | None = None,
    ) -> None:
        """`data`: where databases lie; `now`: wall-clock seconds; `seconds`: monotonic ones.
        `store`: by default the configured adapter's; `workers`: by default threads and processes.
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
        self.lag = Lag()
        self.services: dict[str, Service] = {}
        self.meters: list[Calls] = []
        self._listen = listen or (lambda site, description: serverFromString(reactor, description).listen(site))
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._metrics = metrics or self.page
        self._servers: dict[str, Handler] = {}
        self._turns: dict[str, int] = {}  # of raw calls: which instance of a sibling was asked last
        self._server_meters: dict[str, Calls] = {}
        self._sites: list[Site] = []
        self._ports: list[Any] = []
        self._store: IStore = store or _configured_store(config, data, reactor, now)
        self._trust = Trust(config, data, now, self.random)
        self._sessions: dict[str, Sessions] = {}
        self._mounts: dict[str, Mounts] = {}
        self._connections = connections(reactor)
        self._agent = agent(reactor, self._connections)
        self._databases: dict[str, Database] = {}
        self._purging: Deferred[Any] | None = None
        self._probe: Any = None
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
        for place in self.placement.hosted_by(self._process):
            self.services[place.service] = self._build(place)
        for name, service in self.services.items():
            start = getattr(service, "start", None)
            if start is not None:
                await start()
            self._mounts[name] = Mounts(service, self.reactor, self.reactor.getThreadPool(), self.driver)
            await self._mounts[name].start()
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
            _accept_what_waits(port)
            await maybeDeferred(port.stopListening)
        ends = asyncio.get_running_loop().time() + self.config.file.drain.limit
        try:
            async with asyncio.timeout_at(ends):
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
        # What may not be cancelled goes on when nobody waits for it any more: calls of siblings, too.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await _without_calls(self.meters)
        if self._purging is not None:
            self._purging.cancel()
        if self._probe is not None and self._probe.active():
            self._probe.cancel()
        await self._connections.closeCachedConnections()
        await self.workers.close()
        self._store.close()

    async def _purge(self) -> None:
        while True:
            await deferLater(self.clock, PURGE)
            for name, database in self._databases.items():
                try:
                    await database.purge(self.config.file.records.age)
                except RopewalkError as error:
                    _log.warn("records of {name} not purged: {error}", name=name, error=error)

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
        self._servers[name] = compose(self._server_stack(name), self._innermost(service))
        return service

    def _innermost(self, service: Service) -> Handler:
        return dispatch(service)

    def _server_stack(self, name: str, done: Done | None = request_line, **options: Any) -> Sequence[Any]:
        return server_stack(
            clock=self.clock,
            random=self._ids,
            meter=self._server_meters[name],
            done=done,
            authenticators=self._trust.authenticators(name, self._sessions[name]),
            **options,
        )

    def _things(self, name: str, cls: type[Service]) -> dict[Any, Callable[[], Any]]:
        things: dict[Any, Callable[[], Any]] = {
            Database: lambda: self._database(name, cls),
            Workers: lambda: self.workers,
            Random: lambda: self.random,
            IReactorTime: lambda: self.clock,
            IWallClock: lambda: self._wall,
            IReactorTCP: lambda: self.reactor,
            HTTPClient: lambda: HTTPClient(
                SiblingAgent(self._agent, self._address, self.clock.seconds, says_whose(self._trust.identity(name)))
            ),
        }
        for interface, provider in self.config.file.provide.items():
            things[_imported(interface)] = partial(_provided, _imported(interface), _imported(provider))
        return things

    def _database(self, name: str, cls: type[Service]) -> Database:
        self._databases[name] = self._store.open(name, getattr(cls, "tables", None))
        return self._databases[name]

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
            lambda address: HTTPConnection(self._agent, address, callee, major, self.clock.seconds, identity),
        )

    def _address(self, name: str) -> str | None:
        place = self.placement.places.get(name)
        if place is None or not place.urls:
            return None
        turn = self._turns[name] = self._turns.get(name, -1) + 1
        return place.urls[turn % len(place.urls)]

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
        )
        max_body = max((operation.max_body for operation in operations), default=MAX_BODY)
        site = Site(resource, self.reactor, max_body)
        try:
            port = await self._listen(site, description)
        except Exception as error:
            raise ConfigurationError(f"{place.service} cannot listen at {description}: {error}") from error
        self._sites.append(site)
        self._ports.append(port)
        _log.info("{service} listens at {description}", service=place.service, description=description, public=public)

    # -- seeing

    def page(self) -> bytes:
        """This process's numbers, as OpenMetrics."""
        return exposition([*self.meters, self.lag])

    def _watch_lag(self, due: float) -> None:
        self.lag.observe(self.clock.seconds() - due)
        self._probe = self.reactor.callLater(LAG_PROBE, self._watch_lag, self.clock.seconds() + LAG_PROBE)


async def _without_calls(meters: Iterable[Calls]) -> None:
    """Returns when no call is under way. One whose client is gone has no connection to wait for."""
    while any(meter.in_flight for meter in meters):
        await asyncio.sleep(0.02)


def _configured_store(config: Config, data: Path, reactor: Any, now: Callable[[], float]) -> IStore:
    store = config.file.adapters.store
    made: IStore = find_adapter("store", store).load()(store, data, reactor, now)
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


def _accept_what_waits(port: Any) -> None:
    """Connections the kernel has completed are ours to answer: closing the socket would reset them."""
    if getattr(port, "connected", False) and hasattr(port, "doRead"):
        port.numberAccepts = BACKLOG
        port.doRead()


_log = Logger("ropewalk.runtime")
