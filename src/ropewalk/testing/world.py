"""A World: every service of a system twice, their databases, and one caller outside, on one virtual clock.

    with World("system.toml", seed=7) as world:
        reservations = world.client(Reservations)
        world.partition("payments", "reservations")
        world.run(reservations.book(stay))

Nothing happens but while `run`, `until` or `advance` drive it, and all of it follows from the seed.
"""

from __future__ import annotations

import contextvars
import gc
import inspect
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from twisted.internet.task import Cooperator
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from ..buggify import deciding
from ..driver import Driver
from ..errors import ConfigurationError
from ..message import Principal
from ..runtime.placement import Place, Placement
from ..service import Contract, Service
from .configured import configured, keeps_data, packages_of, port_of
from .guards import Guards
from .hosts import OUTSIDE, Host, Reactor
from .instance import Instance, SimulatedClient, UnderWay
from .log import Log
from .moments import Moments, Stopped
from .network import Network
from .scripted import Script
from .store import DatabaseHost, LookingDatabase
from .timeline import Timeline
from .values import Event

T = TypeVar("T")

BEGINS = 1_777_626_000.0  # what the wall clocks show at first: 2026-05-01T09:00:00Z
FIRST_PORT = 8000
AGAIN = 1.0  # seconds until a process that could not start is started again
SWEEP = 20_000  # turns between two collections of garbage, so that they come at the same moments in every run


class Stuck(AssertionError):
    """Raised when what is waited for does not come, in virtual time or because nothing is left to happen."""


class World:
    """A whole system in virtual time."""

    def __init__(
        self,
        system: str | Path | Sequence[type[Service]],
        *,
        seed: int = 0,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        instances: int = 2,
        scripted: Sequence[type[Contract]] = (),
        wire: str = "http",
        trace: Callable[[str], object] | None = None,
        sweep: int = SWEEP,
    ) -> None:
        """`system`: a system file, or service classes; `settings`: by service, over the file's; `instances` of each.
        `scripted`: contracts whose services the test plays itself, by `sibling`.

        `wire`: "http" for real bytes, "direct" for calls without them; `trace` is given each line of the log; `sweep`:
        turns between garbage collections. Returns when every instance serves; raises what kept one from starting.
        """
        if wire not in ("http", "direct"):
            raise ValueError(f'wire: expected "http" or "direct", got {wire!r}.')
        self.seed = seed
        self.wire = wire
        self.random = Random(f"{seed}/test")
        self.log = Log(trace)
        self.timeline = Timeline()
        self.network = Network(self.timeline, seed)
        self.hosts: dict[str, Host] = {}
        self.processes: dict[str, Instance] = {}
        self.failures: list[str] = []  # by host: what was logged as a failure, what a timer raised
        self._raised: dict[str, type[BaseException]] = {}  # of these failures
        self.crashes: Counter[str] = Counter()
        self.points: Counter[str] = Counter()  # what fired: faults that nobody ordered, buggify points
        self.buggified: dict[str, float] = {}  # point -> how likely it fires
        self.moments = Moments(self._kill_at)
        self.calls: dict[str, UnderWay] = {}  # by the caller's span
        self._buggify: Random | None = None
        self.direct: dict[Any, Any] = {}  # calls under way that are made without bytes
        self._invariants: list[Callable[[World], object]] = []
        self._checked = 0
        self._sweep = sweep
        self._context = contextvars.Context()
        self._scripts = {contract: Script(contract) for contract in scripted}
        played = [script.service_class() for script in self._scripts.values()]
        self._config = configured(system, settings or {}, played)
        self._folder = tempfile.TemporaryDirectory(prefix="ropewalk-world-")
        self._classes = {name: self._config.service_class(name) for name in self._config.services}
        self._chances: dict[str, Random] = {}
        self._cooperators: dict[Any, Cooperator] = {}
        self._databases: dict[str, DatabaseHost] = {}
        self._closed = False
        outside = self._host(OUTSIDE)
        self.current: Any = outside.boot()
        for name in self._classes:
            for number in range(1, instances + 1):
                self._host(f"{name}/{number}")
        for name, cls in self._classes.items():
            if keeps_data(cls):
                host = self._host(f"{name}/database")
                self._databases[name] = DatabaseHost(name, host, Path(self._folder.name), self)
        self._guards = Guards(
            packages_of(self._classes.values()),
            self._wall_here,
            self._monotonic_here,
            self.chance("third parties"),
            self._cooperator,
        )
        self.driver = Driver.of(outside.reactor)
        self._outside = SimulatedClient(
            self._config, self._placement(OUTSIDE), outside.reactor, self, Path(self._folder.name)
        )
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    # -- asking and waiting

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.timeline.now

    def client(self, contract: type[Contract], subject: str | None = None, scopes: Iterable[str] = ()) -> Any:
        """The sibling as any caller has it, on behalf of nobody or of `subject`. A call of it has begun when made."""
        return self._outside.client(contract, Principal(None, subject, frozenset(scopes)))

    def sibling(self, contract: type[Contract]) -> Script:
        """The sibling that the test plays: `call = world.run(sibling.expect("charge"))`, then `call.answer(value)`."""
        if contract not in self._scripts:
            raise ValueError(
                f"{contract.__name__} is not played by this test: World(..., scripted=[{contract.__name__}])."
            )
        return self._scripts[contract]

    @property
    def http(self) -> Any:
        """A treq HTTPClient outside: `sibling://payments/...`, and `http://booking-ui:8080/` for a public listener."""
        return _Guarded(self, self._outside.http())

    def run(self, awaitable: Awaitable[T], timeout: float = 3600.0) -> T:
        """Drive until `awaitable` is done; what it returns, or raises. Raises Stuck after `timeout` virtual seconds."""
        ended: list[Any] = []
        with self.driving():
            deferred = self._context.run(self.driver.run, awaitable)
        deferred.addBoth(ended.append)
        self._drive(lambda: bool(ended), timeout, f"{awaitable!r}")
        (result,) = ended
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]

    def until(self, predicate: Callable[[], object], timeout: float = 60.0) -> None:
        """Drive until `predicate()` is true; raises Stuck after `timeout` virtual seconds."""
        self._drive(predicate, timeout, getattr(predicate, "__name__", repr(predicate)))

    def advance(self, seconds: float) -> None:
        """Drive for so many virtual seconds."""
        if seconds < 0:
            raise ValueError(f"advance: expected seconds, 0 or more; got {seconds!r}.")
        end = self.timeline.now + seconds
        with self.driving():
            while self._turn(end):
                pass
        self.timeline.now = max(self.timeline.now, end)
        self._check()

    # -- what may go wrong

    def partition(self, a: str, b: str, one_way: bool = False) -> None:
        """Nothing gets from `a` to `b` any more, nor back unless it is `one_way`; what is sent is held."""
        self._fault(f"partition {a} {'→' if one_way else '↔'} {b}")
        self._links(a, b, both=not one_way, blocked=True)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """The links between `a` and `b` work again, by default all; what was held arrives."""
        self._fault(f"heal {a or ''} {b or ''}".strip())
        for source in self._some(a):
            for target in self._some(b):
                for one, other in ((source, target), (target, source)):
                    if self.network.link(one, other).blocked:
                        self.network.change(one, other, blocked=False)

    def hold(self, a: str, b: str) -> None:
        """What `a` sends to `b` waits until `release`."""
        self.partition(a, b, one_way=True)

    def release(self, a: str, b: str) -> None:
        """What `a` sent to `b` goes on its way."""
        self._links(a, b, both=False, blocked=False)

    def link(self, a: str, b: str, **changes: Any) -> None:
        """Change how `a` and `b` reach each other: `latency=(low, high)`, `bandwidth=` bytes/s, `loss=`, `split=`."""
        self._fault(f"link {a} ↔ {b} {', '.join(f'{name}={value}' for name, value in sorted(changes.items()))}")
        self._links(a, b, both=True, **changes)

    def crash(self, name: str, at: str | None = None, *, power: bool = False, nth: int = 1) -> None:
        """Kill what `name` names: all instances, one, a database. What is down stays as it is.

        With `at`, when it next comes to that moment: "before:charge", "after:charge"; `nth`: not the first time. With
        `power` the machine goes, and nobody resets its connections.
        """
        hosts = self._named(name)
        if self.hosts[OUTSIDE] in hosts:
            raise ValueError("The test itself is outside; it cannot crash.")
        if at is not None:
            if any(host.name.endswith("/database") for host in hosts):
                raise ValueError(f"at: moments are those of instances; {name} is a database: name its service.")
            self.moments.arm(hosts, at, nth, power)
            return
        for host in hosts:
            if host.up:
                self._kill(host, power=power)

    def restart(self, name: str | None = None) -> None:
        """Start what is down of what `name` names, by default of everything."""
        hosts = self._named(name) if name is not None else list(self.hosts.values())
        self.moments.disarm(hosts)
        for host in hosts:
            if host.up or host.name == OUTSIDE:
                continue
            self._fault(f"restart {host.name}")
            service = host.name.rpartition("/")[0]
            if host.name.endswith("/database"):
                host.boot()
                self._databases[service].reopen()
            else:
                self._start(host.name)

    def pause(self, name: str) -> None:
        """The processes stand still, as in a long collection of garbage; what they should have done waits."""
        for host in self._named(name):
            if host.up and not host.paused:
                self._fault(f"pause {host.name}")
                host.stop()

    def resume(self, name: str | None = None) -> None:
        """They go on, with all that has waited."""
        for host in self._named(name) if name is not None else list(self.hosts.values()):
            if host.paused:
                self._fault(f"resume {host.name}")
                host.go_on()

    def jump(self, name: str, seconds: float) -> None:
        """Their wall clocks jump ahead, or back; what is monotonic stays so."""
        for host in self._named(name):
            self._fault(f"clock of {host.name} jumps {seconds:+g} s")
            host.offset += seconds

    def drift(self, name: str, rate: float) -> None:
        """Their clocks go `rate` times as fast as the world's."""
        for host in self._named(name):
            self._fault(f"clock of {host.name} runs at {rate:g}")
            host.drift(rate)

    def reset(self, a: str, b: str) -> None:
        """Break every connection there is between them."""
        self._fault(f"reset {a} ↔ {b}")
        ours, others = self._named(a), self._named(b)
        with self.driving():
            for end in list(self.network.connections):
                if end.reactor.host in ours and end.peer.reactor.host in others:
                    end.reactor.soon(end.reset)
                    end.peer.reactor.soon(end.peer.reset)

    # -- seeing

    def database(self, service: str) -> LookingDatabase:
        """That service's database, for looking: reachable at once, whatever is down."""
        return LookingDatabase(self.database_host(service))

    def invariant(self, function: Callable[[World], object]) -> Callable[[World], object]:
        """`function(world)` is called whenever something was committed; it raises AssertionError when broken.

        A plain function: it looks by `world.database(name).peek(...)`, which takes no time.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)}: an invariant is a plain function; look by database(name).peek(...).")
        self._invariants.append(function)
        return function

    def at(self, at: float, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` at the moment `at`, as the caller outside."""
        self.timeline.call_at(at, self.hosts[OUTSIDE].reactor, function, args)

    def calm(self) -> None:
        """All faults end: links are as usual, clocks right, everything runs."""
        self.moments.disarm(list(self.hosts.values()))
        self.network.usual()
        self.resume()
        for host in self.hosts.values():
            host.offset = 0.0
            host.drift(1.0)
        self.restart()

    def move(self, folder: Path) -> None:
        """In a fork of this process: keep the databases in `folder` from now on, as they are."""
        for server in self._databases.values():
            server.move(folder)

    def buggify(self, random: Random) -> None:
        """Choose which of the points in the product's code may fire, as they come."""
        self._buggify = random

    def open_connections(self) -> dict[tuple[str, str], int]:
        """How many there are from one host to another."""
        open_: Counter[tuple[str, str]] = Counter()
        for end in self.network.connections:
            if end.connector is not None:
                open_[end.reactor.host.name, end.peer.reactor.host.name] += 1
        return dict(open_)

    def calls_older_than(self, seconds: float) -> list[str]:
        """Calls under way for so long, for people."""
        return [
            f"{call.request.operation.id} of {call.host}, begun at {call.began:.3f} s"
            for call in self.calls.values()
            if self.now - call.began > seconds
        ]

    def statistics(self) -> dict[str, int]:
        """What it came to: turns, bytes, calls, commits, ..."""
        return {"turns": self.timeline.fired, **self.log.counts}

    def close(self) -> None:
        """The end: nothing of it happens any more."""
        if self._closed:
            return
        self._closed = True
        for host in self.hosts.values():
            host.reactor.alive = False
        for server in self._databases.values():
            server.crash()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        if error is not None:
            return
        for script in self._scripts.values():
            script.verify()
        if self.failures:
            raise AssertionError(f"{len(self.failures)} failures were left in the world:\n" + "\n".join(self.failures))

    def flush_failures(self, *types: type[BaseException]) -> list[str]:
        """The failures so far, only those of `types` when some are given, which then no longer fail the test."""
        taken = [
            text for text in self.failures if not types or issubclass(self._raised.get(text, AssertionError), types)
        ]
        self.failures = [text for text in self.failures if text not in taken]
        return taken

    def __repr__(self) -> str:
        down = ", ".join(host.name for host in self.hosts.values() if not host.up) or "nothing"
        return f"<World of {', '.join(self._classes)}, seed {self.seed}, at {self.now:.3f} s, down: {down}>"

    # -- for the modules of this room

    def chance(self, name: str) -> Random:
        """The chance of one part of the world, which takes nothing from any other's."""
        if name not in self._chances:
            self._chances[name] = Random(f"{self.seed}/{name}")
        return self._chances[name]

    def wall(self, host: Host) -> float:
        """What the wall clock of a host shows."""
        return BEGINS + host.wall()

    def host_at(self, url: str) -> Host:
        """The host of an instance's URL."""
        from urllib.parse import urlsplit

        host: Host = self.network.hosts[str(urlsplit(url).hostname)]
        return host

    def database_host(self, service: str) -> DatabaseHost:
        """Raises KeyError's like for a service that keeps no data."""
        if service not in self._databases:
            raise ConfigurationError(
                f"{service} has no database; these have: {', '.join(sorted(self._databases)) or 'none'}."
            )
        return self._databases[service]

    def instances_of(self, service: str) -> list[Host]:
        """The hosts of a service's instances, in order."""
        return [self.hosts[name] for name in self._instances() if name.rpartition("/")[0] == service]

    def tell(self, host: Host, kind: str, text: str, peer: str = "") -> None:
        """Something that people read."""
        self.log.tell(Event(self.timeline.now, host.name, kind, text, peer))

    def delivered(self, host: Host, data: bytes) -> None:
        """Bytes have come to a host."""
        self.log.bytes(self.timeline.now, host.index, data)
        self.moments.now(host.reactor, "before:frame")

    def taken(self, host: Host) -> None:
        """A host has taken the bytes that came."""
        self.moments.now(host.reactor, "after:frame")

    def failed(self, host: Host, failure: Failure) -> None:
        """Code of a host has raised where nobody catches it."""
        if isinstance(failure.value, Stopped):
            return
        text = f"{host.name} at {self.now:.6f} s: {described(failure)}"
        text = f"{text}\n{failure.getTraceback(elideFrameworkCode=True)}"
        self.failures.append(text)
        self._raised[text] = failure.type or Exception
        self.log.tell(Event(self.timeline.now, host.name, "failed", described(failure)))

    def wrong(self, host: Host, what: str) -> None:
        """The framework broke a promise of its own."""
        self.failures.append(f"{host.name} at {self.now:.6f} s: {what}.")
        self.tell(host, "failed", what)

    def changed(self) -> None:
        """Something was committed: what must always hold is looked at after this turn."""
        self._unchecked = True

    def fired(self, point: str) -> None:
        """Something improbable has happened."""
        self.points[point] += 1

    # -- driving

    def _drive(self, predicate: Callable[[], object], timeout: float, what: str) -> None:
        end = self.timeline.now + timeout
        with self.driving():
            while not predicate():
                if not self._turn(end):
                    self.timeline.now = max(self.timeline.now, end)
                    raise Stuck(
                        f"{what}: not within {timeout:g} virtual seconds, at {self.now:.3f} s.\n{self._recent()}"
                    )
        self._check()

    def _turn(self, until: float) -> bool:
        """Let the next thing happen; False when there is none before `until`."""
        timer = self.timeline.next(until)
        if timer is None:
            return False
        owner = timer.owner
        host = owner.host
        if not owner.alive:
            owner.keep(timer)
            return True
        if host.paused and owner is not host:  # what the network brings is its kernel's
            self.timeline.postpone(timer)
            host.backlog.append(timer)
            return True
        function = timer.function
        self.log.turn(self.timeline.now, host.index, getattr(function, "__qualname__", type(function).__name__))
        self.current = owner if owner is not host else host.reactor
        try:
            self._context.run(function, *timer.args, **timer.kwargs)
        except Stopped:
            pass
        except Exception:
            self.failed(host, Failure())
        self.current = self.hosts[OUTSIDE].reactor
        if self.timeline.fired % self._sweep == 0:
            gc.collect()
        if self._unchecked and self._invariants:
            self._check()
        return True

    _unchecked = False
    _checking = False
    _driven = False

    def _improbable(self, point: str) -> bool:
        """Whether a point in the product's code fires: a quarter of them may, and then every fourth time."""
        if self._buggify is None:
            return False
        if point not in self.buggified:
            self.buggified[point] = 0.25 if Random(f"{self.seed}/{point}").random() < 0.25 else 0.0
            self.points[point] += 0
        fires = self._buggify.random() < self.buggified[point]
        if fires:
            self.points[point] += 1
        return fires

    def _check(self) -> None:
        self._unchecked = False
        if self._checking:
            return  # an invariant that drives the world to look at something
        self._checking = True
        try:
            for function in self._invariants:
                try:
                    function(self)
                except AssertionError as error:
                    self.log.tell(Event(self.timeline.now, "", "broken", f"{_name(function)}: {error}"))
                    raise
        finally:
            self._checking = False

    @contextmanager
    def driving(self) -> Iterator[None]:
        """As long as this lasts the guards are up, and garbage is collected by turns alone; may be nested."""
        if self._closed:
            raise RuntimeError("This World is closed.")
        if self._driven:
            yield
            return
        self._driven = True
        collecting, hear = gc.isenabled(), cast(Any, self._hear)
        self.current = self.hosts[OUTSIDE].reactor
        gc.disable()
        globalLogPublisher.addObserver(hear)
        try:
            with self._guards.up(), deciding(self._improbable):
                yield
        finally:
            self._driven = False
            globalLogPublisher.removeObserver(hear)
            if collecting:
                gc.enable()

    def _hear(self, event: Any) -> None:
        failure = event.get("log_failure") or (event.get("isError") and event.get("failure"))
        if isinstance(failure, Failure):
            self.failed(self.current.host, failure)

    def _recent(self) -> str:
        return "\n".join(
            f"  {event.at:10.3f}  {event.host:20} {event.kind:8} {event.text} {event.peer}"
            for event in list(self.log.events)[-20:]
        )

    # -- hosts

    def _host(self, name: str) -> Host:
        host = self.hosts[name] = Host(name, len(self.hosts), self.timeline, self.network, self.seed, self)
        return host

    def _instances(self) -> list[str]:
        return [name for name in self.hosts if name != OUTSIDE and not name.endswith("/database")]

    def _start_all(self) -> None:
        for name in self._instances():
            self._start(name)
        self.until(self._begun)
        for name in self._instances():
            failure = self.processes[name].failure
            if failure is not None:
                raise failure

    def _begun(self) -> bool:
        started = [self.processes.get(name) for name in self._instances()]
        return all(process is not None and (process.ready or process.failure) for process in started)

    def _start(self, name: str) -> None:
        host = self.hosts[name]
        reactor = host.boot()
        self.log.tell(Event(self.timeline.now, name, "started", name))
        self.timeline.call_at(self.timeline.now, reactor, self._boot, (host, reactor))

    def _boot(self, host: Host, reactor: Reactor) -> None:
        process = Instance(self._config, self._placement(host.name), reactor, self, Path(self._folder.name))
        before = self.processes.get(host.name)
        if before is not None:
            host.past.append(before)
        self.processes[host.name] = process
        process.startService()

    def could_not_start(self, reactor: Reactor) -> None:
        """A process has ended before it served, as its supervisor sees it: it is started again."""
        host = reactor.host
        if reactor.alive:
            self._kill(host)
            self.at(self.now + AGAIN, self.restart, host.name)

    def _kill(self, host: Host, *, power: bool = False) -> None:
        self.crashes[host.name] += 1
        self.log.tell(
            Event(self.timeline.now, host.name, "crashed", f"{'power failure of' if power else 'crash'} {host.name}")
        )
        self.calls = {span: call for span, call in self.calls.items() if call.host != host.name}
        host.past.append(host.reactor)
        host.die(power=power)
        if host.name.endswith("/database"):
            self._databases[host.name.rpartition("/")[0]].crash()
        for answer, (reactor, client, broken_off) in list(self.direct.items()):
            if reactor is host.past[-1]:
                del self.direct[answer]
                self.network.send(host, client, broken_off)

    def _kill_at(self, host: Host, moment: str, power: bool) -> None:
        self.tell(host, "fault", f"crash {host.name} {moment}")
        self._kill(host, power=power)

    def _named(self, name: str) -> list[Host]:
        """The hosts a name means; raises ValueError for one that means none."""
        if name in self.hosts:
            return [self.hosts[name]]
        found = self.instances_of(name)
        if not found:
            raise ValueError(f"There is no {name!r} in this world; there are: {', '.join(self.hosts)}.")
        return found

    def _some(self, name: str | None) -> list[Host]:
        return list(self.hosts.values()) if name is None else self._named(name)

    def _links(self, a: str, b: str, *, both: bool, **changes: Any) -> None:
        for source in self._named(a):
            for target in self._named(b):
                if source is not target:
                    self.network.change(source, target, **changes)
                    if both:
                        self.network.change(target, source, **changes)

    def _fault(self, text: str) -> None:
        self.log.tell(Event(self.timeline.now, "", "fault", text))

    def _placement(self, host: str) -> Placement:
        """Where everything lives, as that host sees it: its own service here, and all others elsewhere."""
        mine = host.rpartition("/")[0]
        places = {}
        for index, name in enumerate(self._classes):
            port = FIRST_PORT + index
            urls = tuple(f"http://{instance.address}:{port}" for instance in self.instances_of(name))
            public = self._config.file.public.get(name)
            places[name] = Place(
                name,
                host if name == mine else "elsewhere",
                f"tcp:{port}:interface={self.hosts[host].address}",
                urls,
                f"tcp:{port_of(public)}:interface={self.hosts[host].address}" if public else None,
            )
        return Placement(places, {host: 1})

    # -- what the guards answer

    def _wall_here(self) -> float:
        return self.wall(self.current.host)

    def _monotonic_here(self) -> float:
        return float(self.current.host.seconds())

    def _cooperator(self) -> Cooperator:
        reactor = self.current
        if reactor not in self._cooperators:
            self._cooperators[reactor] = Cooperator(
                terminationPredicateFactory=lambda: lambda: True,  # one step a turn
                scheduler=lambda function: reactor.callLater(0, function),
            )
        return self._cooperators[reactor]


class _Guarded:
    """A client whose calls begin as in a simulation, though it is a test that makes them."""

    def __init__(self, world: World, client: Any) -> None:
        self._world = world
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._world.driving():
                return method(*args, **kwargs)

        return call


def described(failure: Failure) -> str:
    """A failure in one line."""
    return f"{type(failure.value).__name__}: {failure.getErrorMessage()}"


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
