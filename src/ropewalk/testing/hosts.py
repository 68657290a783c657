"""A host: a name, an address, clocks of its own, and the reactor of the process that runs on it.

The reactor is what the product sees: `IReactorTime`, `IReactorTCP`, names, threads. When its process dies it is dead
for good: its timers do not fire, whatever is asked of it does nothing. A host that starts again has a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorCore,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .network import Network
from .tcp import Connector, Port
from .timeline import NEVER, Timeline, Timer

OUTSIDE = "outside"  # the host of the test itself
EVERYTHING = "*"  # where a link's other end is named: all hosts
FIRST_PORT = 40000  # of outgoing connections


class Host:
    """A simulated machine."""

    alive = True  # as the owner of what the network brings: that comes whether a process runs or not

    def __init__(self, name: str, index: int, timeline: Timeline, network: Network, seed: object, world: Any) -> None:
        """`seed` is the world's; `world` is told of everything that goes wrong here."""
        self.host = self
        self.name = name
        self.index = index
        self.address = f"10.0.{index // 250}.{index % 250 + 1}"
        self.timeline = timeline
        self.network = network
        self.world = world
        self.random = Random(f"{seed}/host/{name}")
        self.up = False  # whether a process runs
        self.powered = True  # whether there is a kernel to answer for it
        self.paused = False
        self.resumed = -1.0  # virtual seconds, when it last went on
        self.backlog: list[Timer] = []  # what should have happened while it was paused
        self.reactor = Reactor(self)
        self.past: list[Any] = []  # dead processes: kept, so that nothing of them is collected while others live
        self._port = FIRST_PORT
        self._rate = 1.0
        # No two machines were switched on at the same moment.
        self._since = 0.0, round(self.random.uniform(1e3, 1e6), 3)  # (virtual seconds, this clock's) at the last change
        self._on = self._since[1]
        self.offset = 0.0  # seconds the wall clock is ahead of the world's
        self.hesitates = 0.0  # seconds, on average, that its coroutines wait at some of their moments
        self.coincides = False  # whether some of what it is sent comes at the very moment of one of its timers
        network.hosts[self.address] = self

    def seconds(self) -> float:
        """This host's monotonic clock."""
        return self.shown_at(self.timeline.now)

    def shown_at(self, at: float) -> float:
        """What this host's monotonic clock shows at a moment of virtual time, as it goes now."""
        since, shown = self._since
        return shown + (at - since) * self._rate

    def wall(self) -> float:
        """This host's wall clock, in seconds since the beginning of the world."""
        return self.seconds() - self._on + self.offset

    def instant(self, delay: float) -> float:
        """The moment of virtual time that is `delay` of this host's seconds from now."""
        return self.timeline.now + max(0.0, delay) / self._rate

    def drift(self, rate: float) -> None:
        """From now on its clocks go `rate` times as fast as the world's; raises ValueError unless that is above 0."""
        if rate <= 0:
            raise ValueError(f"rate: expected a number above 0, 1.0 for as fast as the world; got {rate!r}.")
        waiting = [(timer, timer.getTime()) for timer in self.timeline.pending(self.reactor)]
        self._since = self.timeline.now, self.seconds()
        self._rate = rate
        for timer, due in waiting:
            self.timeline.move(timer, self.instant(due - self.seconds()))

    def set_clock(self) -> None:
        """Its clocks go as the world's from now on, and its wall clock shows the same."""
        self.drift(1.0)
        self.offset = self.timeline.now - (self.seconds() - self._on)

    def stop(self) -> None:
        """The process stands still."""
        self.paused = True

    def go_on(self) -> None:
        """With all that should have happened meanwhile, in its order."""
        self.paused, self.resumed = False, self.timeline.now
        waited, self.backlog = self.backlog, []
        for timer in waited:
            if timer.active() and timer.at == NEVER:
                self.timeline.move(timer, self.timeline.now)

    def boot(self) -> Reactor:
        """A new process's reactor."""
        self.up = True
        self.reactor = Reactor(self)
        if not self.powered:
            self.powered = True
            self.network.powered(self)
        return self.reactor

    def die(self, *, power: bool = False) -> None:
        """The process is killed; with `power` nobody is left to say so to its peers."""
        self.up = False
        self.powered = not power
        self.reactor.alive = False
        self.go_on()  # what waited finds nobody
        self.network.lose(self.reactor, silently=power)

    def next_port(self) -> int:
        """The number of an outgoing connection."""
        self._port = FIRST_PORT + (self._port + 1 - FIRST_PORT) % 20000
        return self._port

    def __repr__(self) -> str:
        return f"<Host {self.name} at {self.address}{'' if self.up else ', down'}>"


@implementer(IReactorTime, IReactorTCP, IReactorCore, IReactorThreads, IReactorPluggableNameResolver)
class Reactor:
    """The reactor of one process, from its start to its death."""

    running = True

    def __init__(self, host: Host) -> None:
        self.host = host
        self.alive = True
        self.nameResolver = Names(host)
        self._pool = Threads(self)
        self._kept: list[Any] = []  # of a dead process

    # -- IReactorTime

    def seconds(self) -> float:
        """The host's monotonic clock."""
        return self.host.seconds()

    def instant(self, delay: float) -> float:
        """As Host."""
        return self.host.instant(delay)

    def shown_at(self, at: float) -> float:
        """As Host."""
        return self.host.shown_at(at)

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> Timer:
        """Call after `delay` of the host's seconds, unless the process dies before."""
        if delay < 0:
            raise ValueError(f"callLater: a delay is not negative, got {delay!r}.")
        return self.host.timeline.call_at(self.host.instant(delay), self, callable, args, kwargs)

    def getDelayedCalls(self) -> list[Timer]:
        """What is still to come."""
        return self.host.timeline.pending(self)

    # -- IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """Listen at the host's address."""
        listening = Port(self.host.network, self, port or self.host.next_port(), factory)
        if self.alive:
            listening.startListening()
        return listening

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Connector:
        """Connect to an address of the simulated network."""
        connector = Connector(self.host.network, self, self.nameResolver.address(host), port, factory, timeout)
        if self.alive:
            connector.connect()
        return connector

    # -- IReactorThreads: what is meant for a thread runs here, a little later

    def getThreadPool(self) -> Threads:  # type: ignore[override]  # as much of one as is used
        """What stands for the thread pool."""
        return self._pool

    def callInThread(self, callable: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a little later."""
        self._pool.callInThread(callable, *args, **kwargs)

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call in the next turn."""
        self.callLater(0, callable, *args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        """Without meaning here."""

    # -- IReactorCore, as far as a process that is killed needs it

    def callWhenRunning(self, callable: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Now: it runs."""
        callable(*args, **kwargs)

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., object], *args: Any, **kwargs: Any
    ) -> object:
        """Never called: a simulated process is stopped by its World or killed."""
        return (phase, eventType)

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        """As `addSystemEventTrigger`."""

    def fireSystemEvent(self, eventType: str) -> None:
        """As `addSystemEventTrigger`."""

    def resolve(self, name: str, timeout: Any = ()) -> Any:
        """The address of a host."""
        from twisted.internet.defer import succeed

        return succeed(self.nameResolver.address(name))

    def run(self) -> None:
        """The World runs it."""
        raise RuntimeError("A simulated reactor is run by its World.")

    def stop(self) -> None:
        """The process ends itself."""
        self.host.world.crash(self.host.name)

    def crash(self) -> None:
        """As `stop`."""
        self.stop()

    def iterate(self, delay: float = 0) -> None:
        """The World runs it."""
        self.run()

    def installNameResolver(self, resolver: Any) -> Any:
        """As IReactorPluggableNameResolver."""
        before, self.nameResolver = self.nameResolver, resolver
        return before

    # -- what the network calls

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` as this process; None when it raises, which is a failure of the process."""
        world = self.host.world
        before, world.current = world.current, self
        try:
            return function(*args)
        except Exception:
            world.failed(self.host, Failure())
            return None
        finally:
            world.current = before

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call now, or, of a process that is paused, when it goes on."""
        if self.host.paused and self.alive:
            self.callLater(0, function, *args)
        else:
            function(*args)

    def answer(self, waiting: Deferred[Any], outcome: Any) -> None:
        """Fire `waiting` as this process does; the dead do not hear it, nor who has given up."""
        if self.alive:
            self.soon(self._fire, waiting, outcome)

    def _fire(self, waiting: Deferred[Any], outcome: Any) -> None:
        if not waiting.called:
            self.call(waiting.callback, outcome)

    def received(self, protocol: Any, data: bytes, end: Any) -> None:
        """Hand bytes to a protocol; one that raises loses its connection, as under a real reactor."""
        world = self.host.world
        world.delivered(self.host, data)
        before, world.current = world.current, self
        try:
            protocol.dataReceived(data)
            world.taken(self.host)
        except Exception:
            failure = Failure()
            world.failed(self.host, failure)
            end.flow.send("rst")
            end.lost(failure)
        finally:
            world.current = before

    def keep(self, thing: Any) -> None:
        """Of a dead process: hold on to it, or its coroutines would be closed, and their last words executed."""
        self._kept.append(thing)

    def __repr__(self) -> str:
        return f"<reactor of {self.host.name}{'' if self.alive else ', dead'}>"


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It is over at once."""


@implementer(IHostnameResolver)
class Names:
    """The names of the hosts: their own ("payments/1"; in a URL "payments-1"), that of a service, and addresses.

    A service's name means an instance of it that is up.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def address(self, name: str) -> str:
        """The address of `name`; what nobody has heard of stays as it is, and nobody answers there."""
        if name in ("localhost", "127.0.0.1"):
            return self._host.address
        hosts = self._host.world.hosts
        service, _, number = name.rpartition("-")
        name = f"{service}/{number}" if f"{service}/{number}" in hosts else name
        named = [hosts[name]] if name in hosts else self._host.world.instances_of(name)
        return next((host.address for host in named if host.up), named[0].address if named else name)

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """As IHostnameResolver."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        address = self.address(hostName)
        if address in self._host.network.hosts:
            resolutionReceiver.addressResolved(IPv4Address("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class Threads:
    """What stands for a thread pool: functions run in the reactor's own turns, each at a seeded moment."""

    takes = (0.0001, 0.005)  # seconds until a function has run

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def start(self) -> None:
        """Nothing is started."""

    def stop(self) -> None:
        """Nothing was started."""

    def callInThread(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """As ThreadPool."""
        self.callInThreadWithCallback(None, func, *args, **kwargs)

    def callInThreadWithCallback(self, onResult: Any, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """As ThreadPool."""
        low, high = self.takes
        self._reactor.callLater(
            low + (high - low) * self._reactor.host.random.random(), self._run, onResult, func, args, kwargs
        )

    def _run(self, on_result: Any, function: Callable[..., object], args: Any, kwargs: Any) -> None:
        try:
            result: Any = function(*args, **kwargs)
            succeeded = True
        except Exception:
            result, succeeded = Failure(), False
        if on_result is not None:
            on_result(succeeded, result)
        elif not succeeded:
            self._reactor.host.world.failed(self._reactor.host, result)
