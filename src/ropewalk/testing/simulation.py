"""One seed: what was planned is played, and judged.

A simulation breaks when an invariant does, when an act fails otherwise than by an error of a sibling, when something
fails that nobody catches, when what was asked to stop does not, and, in liveness mode, when something has not ended or
come true long after the last fault. No act may be refused in fair mode, where there are no faults, nor long after they
have ended, nor while they befall but what that act can do without.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from random import Random
from typing import Any

from ..errors import ConfigurationError, RopewalkError
from ..runtime.settings import merged
from .configured import parts_of
from .driving import described
from .faults import do, hurt
from .garbage import only_what_is_new
from .hosts import OUTSIDE
from .planning import PHASES, with_ending
from .values import Act, Event, Fault, Outcome, Parts, Schedule
from .workloads import Check, Workload, find
from .world import World

SLOWEST = 60.0  # seconds within which, without faults, every call and every act has ended
SILENT = 90.0  # seconds after which a connection that nobody uses was closed by either side
QUIET = (40.0, 65.0)  # seconds before that: connections are about to be given up when it ends
SURE = (0.05, 0.1)  # seconds of latency meanwhile: what waits for another has little time of its own
WAITING = (0.3, 1.2)  # seconds of latency while all are asked to stop: most of them wait for something then
IDLE = 20  # calls of a service after which each of its instances has had one
OPEN = 48  # connections from one host to another beside those it ever had calls for at once, which its pool may keep


def simulate(
    target: str,
    workloads: Sequence[str],
    schedule: Schedule,
    *,
    trace: Callable[[str], object] | None = None,
    sweep: int = 20_000,
) -> Outcome:
    """Play `schedule` on the system of `target`; every line of the log goes to `trace`."""
    from ..runtime.config import load

    parts = parts_of(load(target, {}))  # its folder comes first on the path: the workloads lie there
    played = [find(name) for name in workloads]
    names = [each.name for each in played]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"Two workloads have one name: {', '.join(sorted(names))}. Acts are told apart by it.")
    settings: dict[str, Any] = {}
    for each in played:
        settings = merged(settings, each.settings)
    # What an earlier world left unfinished fails when it is collected: now, and not in the midst of this one.
    with only_what_is_new():
        world = World(target, seed=schedule.seed, settings=settings, trace=trace, sweep=sweep)
        try:
            with world.driving():  # without a break, in which the collector would come as it likes
                return _Simulation(world, played, schedule, parts).play()
        finally:
            world.close()


def replay(target: str, workloads: Sequence[str], schedule: Schedule) -> Outcome:
    """`simulate`, for a test; raises AssertionError with the whole story when something broke."""
    outcome = simulate(target, workloads, schedule)
    if outcome.broken:
        from .story import text

        raise AssertionError(f"{outcome.broken}\n\n{text(outcome)}")
    return outcome


class _Simulation:
    def __init__(self, world: World, workloads: Sequence[Workload], schedule: Schedule, parts: Parts) -> None:
        self._world = world
        self._parts = parts
        self._workloads = {each.name: each for each in workloads}
        self._schedule = schedule
        self._acts: Counter[str] = Counter()
        self._open: dict[str, float] = {}  # acts that have begun and not ended -> when
        self._wrong: list[str] = []
        self._sure = _sure(schedule, self._workloads)  # acts that nothing keeps from being answered now
        ending = with_ending(schedule, workloads, parts)
        self._late, self._blind = ending.late or (), ending.blind or ()

    def play(self) -> Outcome:
        world, schedule = self._world, self._schedule
        broken = ""
        for check in dict.fromkeys(check for each in self._workloads.values() for check in each.always):
            world.invariant(check)
        if not self._sure:
            world.buggify(Random(f"{schedule.seed}/buggify"))
        for act in schedule.acts:
            world.at(act.at, self._begin, act)
        for fault in schedule.faults:
            world.at(fault.at, self._fault, fault)
        try:
            self._until(schedule.seconds)
            if schedule.mode != "safety":
                self._settle()
        except AssertionError as error:
            broken = f"At {world.now:.3f} s: {error}"
        counts = {**world.statistics(), "timers": world.timeline.fired}
        return Outcome(
            schedule,
            broken,
            world.log.digest(),
            tuple(world.log.events),
            world.now,
            dict(self._acts),
            dict(sorted(world.points.items())),
            counts,
        )

    def _until(self, end: float) -> None:
        world = self._world
        while world.now < end:
            world.advance(min(1.0, end - world.now))
            self._look()

    def _look(self) -> None:
        world = self._world
        if self._wrong:
            raise AssertionError(self._wrong[0])
        if world.failures:
            raise AssertionError("A failure that nobody caught: " + world.failures[0].strip())
        for (client, server), count in sorted(world.open_connections().items()):
            if count > OPEN + world.busiest[client]:
                raise AssertionError(
                    f"{client} keeps {count} connections to {server} open; expected {OPEN} at most beside the "
                    f"{world.busiest[client]} that it once had calls for."
                )
        stuck = world.stopping_longer_than(SLOWEST)
        if stuck:
            raise AssertionError(f"Within {SLOWEST:g} s this has not stopped: {stuck[0]}.")

    def _settle(self) -> None:
        """All faults have ended: whatever was begun must end, and what must come true does."""
        world = self._world
        world.calm()
        patience = max((each.settle for each in self._workloads.values()), default=60.0)
        self._until(world.now + SLOWEST)
        late = [f"{name}, begun at {at:.3f} s" for name, at in self._open.items()]
        if late:
            raise AssertionError(f"{SLOWEST:g} s after the last fault {late[0]} has not ended.")
        stuck = world.calls_older_than(SLOWEST)
        if stuck:
            raise AssertionError(f"{SLOWEST:g} s after the last fault a call has not ended: {stuck[0]}.")
        self._all_comes_true(patience)
        self._once_more("once more")
        if self._blind:
            self._start_blind()
            self._once_more("once again")
            self._all_comes_true(patience)
        self._until(world.now + SILENT)
        silent = world.silent_for(SILENT)
        if silent:
            raise AssertionError(f"A connection that nobody uses is open: {silent[0]}.")
        if self._schedule.mode == "fair":
            self._all_were_asked()
        self._stop_all()
        gc.collect()  # what failed and is heard of by nobody says so now
        self._look()

    def _once_more(self, phase: str) -> None:
        """After a quiet minute everybody comes once more, over links that are slow and sure; nobody is refused."""
        self._sure = set(self._workloads)
        self._all_links(SURE)
        self._until(self._world.now + Random(f"{self._schedule.seed}/quiet before {phase}").uniform(*QUIET))
        self._come(phase)
        self._all_ended()

    def _start_blind(self) -> None:
        """Some services start anew while they reach nobody whom they ask, and meanwhile everybody comes."""
        world, self._sure = self._world, set()
        for asks, asked in self._parts.links:
            if asks in self._blind:
                world.partition(asks, asked)
        for name in self._blind:
            world.crash(name)
            world.restart(name)
        self._come("blind")
        self._until(world.now + 10.0)  # who was asked last gives up, too
        world.heal()
        self._all_ended()

    def _stop_all(self) -> None:
        """All are asked to stop in the midst of work, while most of it waits for an answer; and all do."""
        world, self._sure = self._world, set()
        self._all_links(WAITING)
        self._come("stop")
        for name in world.processes:
            world.stop(name)
        while world.stopping:
            self._until(world.now + 1.0)

    def _come(self, phase: str) -> None:
        """The acts of a phase, for as long as that is."""
        world = self._world
        for late in self._late:
            if late.phase == phase:
                at = world.now + late.at
                world.at(at, self._begin, Act(at, late.name, late.number))
        self._until(world.now + PHASES[phase][1])

    def _all_ended(self) -> None:
        world = self._world
        end = world.now + SLOWEST
        while self._open and world.now < end:
            self._until(world.now + 1.0)
        if self._open:
            raise AssertionError(f"Long after the last fault {min(self._open)} has not ended within {SLOWEST:g} s.")

    def _all_links(self, latency: tuple[float, float]) -> None:
        for one, other in permutations(self._world.hosts.values(), 2):
            self._world.network.change(one, other, latency=latency)

    def _all_were_asked(self) -> None:
        """Instances take turns: none of those of a service stands idle while the others work."""
        asked = self._world.asked
        for name in asked:
            hosts = [host.name for host in self._world.instances_of(name.partition("/")[0])]
            idle = [host for host in hosts if not asked[host]]
            if idle and sum(asked[host] for host in hosts) >= IDLE:
                raise AssertionError(f"{idle[0]} is up and was never asked; {name} was {asked[name]} times.")

    def _all_comes_true(self, patience: float) -> None:
        end = self._world.now + patience
        for check in dict.fromkeys(check for each in self._workloads.values() for check in each.eventually):
            self._comes_true(check, end, patience)

    def _comes_true(self, check: Check, end: float, patience: float) -> None:
        while True:
            try:
                check(self._world)
            except AssertionError as error:
                if self._world.now >= end:
                    raise AssertionError(f"{patience:g} s after the last fault: {error}") from error
            else:
                return
            self._until(self._world.now + 5.0)

    def _begin(self, act: Act) -> None:
        world, name = self._world, f"{act.name} #{act.number}"
        random = Random(f"{self._schedule.seed}/act/{act.name}/{act.number}")
        world.log.tell(Event(world.now, OUTSIDE, "act", name))
        self._open[name] = world.now
        running = world.driver.run(self._workloads[act.name](world, random))
        running.addBoth(self._end, name)

    def _end(self, result: Any, name: str) -> None:
        from twisted.python.failure import Failure

        world = self._world
        del self._open[name]
        if not isinstance(result, Failure):
            self._acts["done"] += 1
            world.log.tell(Event(world.now, OUTSIDE, "done", name))
            return
        world.log.tell(Event(world.now, OUTSIDE, "failed", f"{name}: {described(result)}"))
        refused = result.check(RopewalkError) is not None
        if refused and name.partition(" ")[0] not in self._sure:
            self._acts["refused"] += 1
        else:
            self._acts["broken"] += 1
            self._wrong.append(f"{name} {'was refused' if refused else 'failed'}: {described(result)}")

    def _fault(self, fault: Fault) -> None:
        do(self._world, fault)


def _sure(schedule: Schedule, workloads: Mapping[str, Workload]) -> set[str]:
    if schedule.mode == "fair":
        return set(workloads)
    befallen = hurt(schedule.faults)
    if not befallen or any(workloads[act.name].trouble for act in schedule.acts):
        return set()
    return {name for name, each in workloads.items() if all(services & each.without for services in befallen)}
