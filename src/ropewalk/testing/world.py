"""A World: every service of a system twice, their databases, and one caller outside, on one virtual clock.

    with World("system.toml", seed=7) as world:
        reservations = world.client(Reservations)
        world.partition("payments", "reservations")
        world.run(reservations.book(stay))

Nothing happens but while `run`, `until` or `advance` drive it, and all of it follows from the seed.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twisted.python.failure import Failure

from ..errors import ConfigurationError
from ..message import Principal
from ..runtime.keeps import keeps_data, refuse_shared_tables
from ..service import Contract, Service
from .broker import NAME as BROKER
from .broker import BrokerHost
from .configured import configured, is_instance, packages_of, placement, uses_events
from .driving import SWEEP, Driven
from .hosts import EVERYTHING, OUTSIDE, Host, Reactor
from .instance import INSTANT, Instance, SimulatedClient, UnderWay
from .leftovers import name_of
from .moments import Armed, Moments
from .scripted import Script
from .store import TAKES, DatabaseHost, LookingDatabase
from .tcp import End
from .values import Event

AGAIN = 1.0  # seconds until a process that could not start is started again


class World(Driven):
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
        super().__init__(seed, trace, sweep, Moments())
        self.wire = wire
        self.processes: dict[str, Instance] = {}
        self.crashes: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # instance -> calls that came to it
        self.stopping: dict[str, float] = {}  # host -> since when
        self._strays = [(0.0, 0.0)]  # when, and how far the clock that is most wrong then was
        self._again: set[str] = set()  # of those that are stopping: to be started then
        self.calls: dict[tuple[str, int], UnderWay] = {}  # by the caller's span, and which try it is
        self.busiest: Counter[str] = Counter()  # by host: how many calls it had under way at once, at most
        self.direct: dict[Any, Any] = {}  # calls under way that are made without bytes
        self._scripts = {contract: Script(contract) for contract in scripted}
        played = [script.service_class() for script in self._scripts.values()]
        self._config = configured(system, settings or {}, played)
        self._classes = {name: self._config.service_class(name) for name in self._config.services}
        refuse_shared_tables(self._classes)
        self._folder = tempfile.TemporaryDirectory(prefix="ropewalk-world-")
        self._databases: dict[str, DatabaseHost] = {}
        outside = self._host(OUTSIDE)
        outside.boot()
        for name in self._classes:
            for number in range(1, instances + 1):
                self._host(f"{name}/{number}")
        for name, cls in self._classes.items():
            if keeps_data(cls):
                host = self._host(f"{name}/database")
                self._databases[name] = DatabaseHost(name, host, Path(self._folder.name), self)
        self._broker: BrokerHost | None = None
        if any(uses_events(cls) for cls in self._classes.values()):
            self.broker_host()
        self._begin(packages_of(self._classes.values()))
        self._outside = SimulatedClient(
            self._config, placement(self._config, self.hosts, OUTSIDE), outside.reactor, self, Path(self._folder.name)
        )
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    # -- asking and waiting

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

    # -- what may go wrong

    def partition(self, a: str, b: str, one_way: bool = False, at: str | None = None, *, nth: int = 1) -> None:
        """Nothing gets from `a` to `b`, which "*" is all others, nor back unless `one_way`; what is sent is held.

        With `at`, when an instance of theirs next comes to that moment, as for `crash`; unless it is healed first.
        """
        if at is not None:
            ends = [*self._named(a), *(self._named(b) if b != EVERYTHING else ())]
            does = partial(self._part_at, a, b, one_way)
            self.moments.arm(Armed(self._with_moments(ends, f"{a} and {b}"), at, nth, does, parts=ends))
            return
        self._fault(f"partition {a} {'→' if one_way else '↔'} {b}")
        self._links(a, b, both=not one_way, blocked=True)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """The links between `a` and `b` work again, by default all; what was held arrives."""
        self._fault(f"heal {a or ''} {b or ''}".strip())
        self.moments.heal([*self._some(a), *self._some(b)])
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

    def disk(self, name: str, takes: tuple[float, float] = TAKES) -> None:
        """A transaction of that service's database takes from `takes[0]` to `takes[1]` seconds; by default as usual."""
        low, high = takes
        if not 0 <= low <= high:
            raise ValueError(f"takes: expected (low, high) in seconds, 0 <= low <= high; got {takes!r}.")
        self._fault(f"disk of {name} takes {low:g} to {high:g} s")
        self.database_host(name).takes = takes

    def crash(self, name: str, at: str | None = None, *, power: bool = False, nth: int = 1) -> None:
        """Kill what `name` names: all instances, one, a database. What is down stays as it is.

        With `at`, when it next comes to that moment: "before:charge", "after:charge"; `nth`: not the first time. With
        `power` the machine goes, and nobody resets its connections.
        """
        hosts = self._named(name)
        if self.hosts[OUTSIDE] in hosts:
            raise ValueError("The test itself is outside; it cannot crash.")
        if at is not None:
            self.moments.arm(Armed(self._with_moments(hosts, name), at, nth, partial(self._kill_at, power)))
            return
        for host in hosts:
            if host.up:
                self._kill(host, power=power)

    def stop(self, name: str) -> None:
        """Ask what `name` names to stop, as SIGTERM does: it drains, and is down when nothing of it is left."""
        for host in self._named(name):
            if host.name == OUTSIDE or self._serves(host):
                raise ValueError(f"{host.name} cannot be asked to stop; the instances of a service can.")
            if host.up and host.name not in self.stopping:
                self._fault(f"stop {host.name}")
                self.stopping[host.name] = self.now
                self.timeline.call_at(self.now, host.reactor, self._stop, (host, host.reactor))

    def restart(self, name: str | None = None) -> None:
        """Start what is down of what `name` names, by default of everything; what is stopping, when it has stopped."""
        hosts = self._named(name) if name is not None else list(self.hosts.values())
        self.moments.disarm(hosts)
        for host in hosts:
            if host.name in self.stopping:
                self._again.add(host.name)
            if host.up or host.name == OUTSIDE:
                continue
            self._fault(f"restart {host.name}")
            service = host.name.rpartition("/")[0]
            if host.name.endswith("/database"):
                host.boot()
                self._databases[service].reopen()
            elif host.name == BROKER:
                host.boot()
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

    def hesitate(self, name: str, seconds: float) -> None:
        """Their coroutines wait at some of their moments, for `seconds` on average; 0: no longer."""
        if seconds < 0:
            raise ValueError(f"seconds: expected 0 or more; got {seconds!r}.")
        for host in self._named(name):
            self._fault(f"{host.name} hesitates for {seconds:g} s")
            host.hesitates = seconds

    def coincide(self, name: str, coincides: bool = True) -> None:
        """Some of what they are sent comes at the very moment of one of their timers: a reply at its deadline."""
        for host in self._named(name):
            self._fault(f"coincidences at {host.name}{'' if coincides else ' end'}")
            host.coincides = coincides

    def jump(self, name: str, seconds: float) -> None:
        """Their wall clocks jump ahead, or back; what is monotonic stays so."""
        self._look_at_clocks()
        for host in self._named(name):
            self._fault(f"clock of {host.name} jumps {seconds:+g} s")
            host.offset += seconds
        self._look_at_clocks()

    def drift(self, name: str, rate: float) -> None:
        """Their clocks go `rate` times as fast as the world's."""
        self._look_at_clocks()
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

    def calm(self) -> None:
        """All faults end: links are as usual, clocks right, everything runs, nothing improbable happens."""
        self._buggify = None
        self.moments.disarm(self.hosts.values())
        self.moments.heal(self.hosts.values())
        self.network.usual()
        for server in self._databases.values():
            server.takes = TAKES
        self.resume()
        self._look_at_clocks()
        for host in self.hosts.values():
            host.hesitates, host.coincides = 0.0, False
            host.set_clock()
        self._look_at_clocks()
        self.restart()

    def move(self, folder: Path) -> None:
        """In a fork of this process: keep the databases in `folder` from now on, as they are."""
        for server in self._databases.values():
            server.move(folder)
        if self._broker is not None:
            self._broker.move(folder)

    def begin_call(self, key: tuple[str, int], call: UnderWay) -> None:
        """One is under way from now on, until it is taken out of `calls`."""
        self.calls[key] = call
        now = sum(each.host == call.host for each in self.calls.values())
        self.busiest[call.host] = max(self.busiest[call.host], now)

    def open_connections(self) -> dict[tuple[str, str], int]:
        """How many there are from one host to another."""
        open_: Counter[tuple[str, str]] = Counter()
        for end in self.network.connections:
            if end.connector is not None:
                open_[end.reactor.host.name, end.peer.reactor.host.name] += 1
        return dict(open_)

    def silent_for(self, seconds: float) -> list[str]:
        """Connections of the system's own over which nothing has gone for so long, for people."""
        return [
            f"from {end.reactor.host.name} to {end.peer.reactor.host.name}, silent for {self.now - end.moved:.0f} s"
            for end in self.network.connections
            if end.connector is not None and end.reactor.host.name != OUTSIDE and self.now - end.moved > seconds
        ]

    def strayed(self, since: float = 0.0) -> float:
        """Seconds by which a wall clock was wrong at most, now or at a moment after `since`."""
        first = next((place for place, (at, _) in enumerate(self._strays) if at >= since), len(self._strays))
        return max(self._stray(), *(seconds for _, seconds in self._strays[max(0, first - 1) :]))

    def _look_at_clocks(self) -> None:
        self._strays.append((self.now, self._stray()))

    def _stray(self) -> float:
        return max(abs(host.wall() - self.now) for host in self.hosts.values())

    def stopping_longer_than(self, seconds: float) -> list[str]:
        """What was asked to stop so long ago, and could."""
        return [
            f"{name}, asked to at {began:.3f} s"
            for name, began in self.stopping.items()
            if not self.hosts[name].paused and self.now - max(began, self.hosts[name].resumed) > seconds
        ]

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
            for reactor in (host.reactor, *host.past):
                driver = getattr(reactor, "_ropewalk_driver", None)
                if driver is not None:  # what is half done is nobody's to hear of, whenever it is collected
                    driver.loop.call_exception_handler = _unheard
        for server in self._databases.values():
            server.crash()
        if self._broker is not None:
            self._broker.crash()
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

    def __repr__(self) -> str:
        down = ", ".join(host.name for host in self.hosts.values() if not host.up) or "nothing"
        return f"<World of {', '.join(self._classes)}, seed {self.seed}, at {self.now:.3f} s, down: {down}>"

    # -- for the modules of this room

    def host_at(self, url: str) -> Host:
        """The host of an instance's URL."""
        from urllib.parse import urlsplit

        host: Host = self.network.hosts[str(urlsplit(url).hostname)]
        return host

    def database_host(self, service: str) -> DatabaseHost:
        """The host that serves the database of `service`; raises ConfigurationError for one that keeps no data."""
        if service not in self._databases:
            raise ConfigurationError(
                f"{service} has no database; these have: {', '.join(sorted(self._databases)) or 'none'}."
            )
        return self._databases[service]

    def broker_host(self) -> BrokerHost:
        """The host that carries the events; made when it is first needed."""
        if self._broker is None:
            host = self._host(BROKER)
            host.boot()
            self._broker = BrokerHost(host, Path(self._folder.name), self)
        return self._broker

    def instances_of(self, service: str) -> list[Host]:
        """The hosts of a service's instances, in order."""
        return [host for name, host in self.hosts.items() if is_instance(name, service)]

    # -- hosts

    def _host(self, name: str) -> Host:
        host = self.hosts[name] = Host(name, len(self.hosts), self.timeline, self.network, self.seed, self)
        return host

    def _instances(self) -> list[str]:
        return [name for name, host in self.hosts.items() if name != OUTSIDE and not self._serves(host)]

    def _serves(self, host: Host) -> bool:
        """Whether it is a database's, or the broker's: no instance of a service."""
        return host.name.endswith("/database") or host.name == BROKER

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
        places = placement(self._config, self.hosts, host.name)
        process = Instance(self._config, places, reactor, self, Path(self._folder.name))
        before = self.processes.get(host.name)
        if before is not None:
            host.past.append(before)
        self.processes[host.name] = process
        process.startService()

    def _stop(self, host: Host, reactor: Reactor) -> None:
        process, begun = self.processes.get(host.name), host.seconds()
        if process is None or process.reactor is not reactor:  # it was not even begun
            self._stopped(None, host, reactor, begun)
            return
        process.stopService().addBoth(lambda result: self.at(self.now, self._stopped, result, host, reactor, begun))

    def _stopped(self, result: Any, host: Host, reactor: Reactor, begun: float) -> None:
        if not reactor.alive:
            return
        if isinstance(result, Failure):
            self.failed(host, result)
        left = Counter(
            name_of(timer.function, timer.args)
            for timer in self.timeline.pending(reactor)
            if not isinstance(getattr(timer.function, "__self__", None), End)  # its kernel's to do
        )
        cut_off = host.seconds() - begun > self._config.file.drain.limit - INSTANT  # its clock is what it goes by
        for what, number in sorted(left.items()) if not cut_off else ():
            self.wrong(host, f"it has stopped and left {number} of {what} to come")
        self.log.tell(Event(self.timeline.now, host.name, "stopped", f"stop of {host.name}"))
        self._down(host)

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
        self._down(host, power=power)

    def _down(self, host: Host, *, power: bool = False) -> None:
        self.calls = {key: call for key, call in self.calls.items() if call.host != host.name}
        host.past.append(host.reactor)
        host.die(power=power)
        if host.name.endswith("/database"):
            self._databases[host.name.rpartition("/")[0]].crash()
        if host.name == BROKER and self._broker is not None:
            self._broker.crash()
        for answer, (reactor, client, broken_off) in list(self.direct.items()):
            if reactor is host.past[-1]:
                del self.direct[answer]
                self.network.send(host, client, broken_off)
        self.stopping.pop(host.name, None)
        if host.name in self._again:
            self._again.remove(host.name)
            self.restart(host.name)

    def _kill_at(self, power: bool, host: Host, moment: str) -> bool:
        self.tell(host, "fault", f"crash {host.name} {moment}")
        self._kill(host, power=power)
        return True

    def _part_at(self, a: str, b: str, one_way: bool, host: Host, moment: str) -> bool:
        self.tell(host, "fault", f"at {moment} of {host.name}")
        self.partition(a, b, one_way)
        return False

    def _with_moments(self, hosts: Sequence[Host], name: str) -> Sequence[Host]:
        """Those of `hosts` that come to moments; raises ValueError when none does."""
        instances = [host for host in hosts if not self._serves(host) and host.name != OUTSIDE]
        if not instances:
            raise ValueError(f"at: moments are those of instances; {name} is none: name a service.")
        return instances

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
            for target in self.hosts.values() if b == EVERYTHING else self._named(b):
                if source is not target:
                    self.network.change(source, target, **changes)
                    if both:
                        self.network.change(target, source, **changes)

    def _fault(self, text: str) -> None:
        self.log.tell(Event(self.timeline.now, "", "fault", text))


def _unheard(_: Any) -> None:
    """Nobody's."""


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
