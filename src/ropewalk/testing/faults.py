"""What befalls a simulated system: a table of faults, a schedule of them drawn from a seed, and how one is done.

Each seed takes some of the kinds and leaves the others out: what hides behind one kind's noise is found by a seed
without it (swarm testing: Groce et al., ISSTA 2012). And half of the seeds hurt a few services alone, again and again:
what takes two faults at one place is found by these, and half of them hurt one: what others can do without it is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .broker import NAME as BROKER
from .hosts import EVERYTHING, OUTSIDE
from .moments import ANY, NEW
from .network import Link
from .store import TAKES
from .values import Fault

SHARES = (0.15, 0.3, 0.6)  # of the kinds that a seed takes: one of these
FOCUSED = 0.5  # the share of seeds that leave all but one to three services alone
FEW = (1, 1, 2, 3)  # of these so many
AT_ONCE = 0.25  # the share of seeds in which something is wrong from the beginning
EVERY = (1.5, 3.0, 8.0, 20.0)  # seconds between the beginnings of two faults, on average: one of these for a whole seed
NAMES = 24  # that a new moment's may be counted to
JUMPS = (14.0, 14.0, 3600.0)  # seconds a clock jumps at most: mostly within what tokens allow for
LONGEST = (2.0, 10.0, 40.0)  # seconds one of them lasts: likewise


def draw(random: Random, services: Sequence[str], hosts: Sequence[str], begin: float, end: float) -> tuple[Fault, ...]:
    """A schedule of faults from `begin` to `end`, all of which have an end of their own, in order of time."""
    share = random.choice(SHARES)
    kinds = [kind for kind in KINDS if random.random() < share] or [random.choice(list(KINDS))]
    if random.random() < FOCUSED:
        services = random.sample(list(services), min(random.choice(FEW), len(services)))
        broker = [BROKER] if BROKER in hosts and random.random() < FOCUSED else []
        hosts = [host for host in hosts if host.rpartition("/")[0] in services] + broker
    every, longest = random.choice(EVERY), random.choice(LONGEST)
    faults: list[Fault] = []
    at = begin + (0.0 if random.random() < AT_ONCE else random.expovariate(1 / every))
    while at < end:
        lasts = random.uniform(0.05, min(longest, max(0.1, end - at)))
        faults.extend(KINDS[random.choice(kinds)](random, services, hosts, round(at, 3), round(at + lasts, 3)))
        at += random.expovariate(1 / every)
    return tuple(sorted(faults, key=lambda fault: fault.at))


def do(world: Any, fault: Fault) -> None:
    """Do it to a World, now."""
    targets = fault.target.split()
    DOING[fault.kind](world, targets, fault.value)
    world.points[fault.kind] += 1


def hurt(faults: Sequence[Fault]) -> frozenset[str]:
    """The services that these faults befall, as far as they say; links to them included."""
    targets = (target for fault in faults for target in fault.target.split())
    return frozenset(target.partition("/")[0] for target in targets) - {OUTSIDE}


def _instance(random: Random, hosts: Sequence[str]) -> str:
    return random.choice([host for host in hosts if not (host.endswith("/database") or host == BROKER)])


def _pair(random: Random, names: Sequence[str]) -> str:
    """Two that a link joins; the caller outside is one of them as often as any other."""
    return " ".join(random.sample([*names, OUTSIDE], 2))


def _link(random: Random, services: Sequence[str], hosts: Sequence[str]) -> str:
    return _pair(random, services if random.random() < 0.5 else hosts)


def _crash(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "crash", target), Fault(end, "restart", target)]


def _crash_at(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "crash-at-moment", target, float(random.randint(1, 12))), Fault(end, "restart", target)]


def _crash_at_new(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "crash-at-new-moment", target, float(random.randint(1, NAMES))), Fault(end, "restart", target)]


def _power(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = random.choice(list(hosts))
    return [Fault(at, "power", target), Fault(end, "restart", target)]


def _database(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    databases = [host for host in hosts if host.endswith("/database") or host == BROKER]
    if not databases:
        return _crash(random, services, hosts, at, end)
    target = random.choice(databases)
    return [Fault(at, "crash", target), Fault(end, "restart", target)]


def _service(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = random.choice(list(services))
    return [Fault(at, "crash", target), Fault(end, "restart", target)]


def _partition(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _link(random, services, hosts)
    return [Fault(at, "partition", target), Fault(end, "heal", target)]


def _one_way(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _link(random, services, hosts)
    return [Fault(at, "partition-one-way", target), Fault(end, "heal", target)]


def _supply(random: Random, services: Sequence[str], hosts: Sequence[str]) -> tuple[str, str] | None:
    """A service or one of its instances, and what it keeps its data in or gets its events from; None: there is none."""
    using = _whole(random, services, hosts)
    database = f"{using.partition('/')[0]}/database"
    supplies = [host for host in hosts if host in (database, BROKER)]
    return (using, random.choice(supplies)) if supplies else None


def _cut_off(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    pair = _supply(random, services, hosts)
    if pair is None:
        return _partition(random, services, hosts, at, end)
    using, supply = pair
    kind, target = random.choice(
        (("partition", f"{using} {supply}"), ("partition-one-way", f"{supply} {using}"))  # asked, and no answer
    )
    return [Fault(at, kind, target), Fault(end, "heal", target)]


def _cut_off_at_new(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    pair = _supply(random, services, hosts)
    if pair is None:
        return _crash_at_new(random, services, hosts, at, end)
    using, supply = pair
    target = f"{supply} {using}"
    return [Fault(at, "cut-off-at-new-moment", target, float(random.randint(1, NAMES))), Fault(end, "heal", target)]


def _slow_supply(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    pair = _supply(random, services, hosts)
    if pair is None:
        return _slow(random, services, hosts, at, end)
    target = " ".join(pair)
    return [Fault(at, "slow", target, round(random.uniform(0.05, 3.0), 3)), Fault(end, "slow", target, 0.0)]


def _blackout(random: Random, services: Any, hosts: Sequence[str], at: float, end: float) -> list[Fault]:
    dark = random.sample(list(hosts), min(random.choice(FEW) + 1, len(hosts)))
    return [*(Fault(at, "power", host) for host in dark), *(Fault(end, "restart", host) for host in dark)]


def _reset(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    return [Fault(at, "reset", _link(random, services, hosts))]


def _slow(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _link(random, services, hosts)
    return [Fault(at, "slow", target, round(random.uniform(0.05, 3.0), 3)), Fault(end, "slow", target, 0.0)]


def _disk(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    databases = [host.rpartition("/")[0] for host in hosts if host.endswith("/database")]
    if not databases:
        return _slow(random, services, hosts, at, end)
    target = random.choice(databases)
    return [Fault(at, "slow-disk", target, round(random.uniform(0.02, 0.5), 3)), Fault(end, "slow-disk", target, 0.0)]


def _lossy(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _link(random, services, hosts)
    return [Fault(at, "lossy", target, round(random.uniform(0.02, 0.5), 3)), Fault(end, "lossy", target, 0.0)]


def _whole(random: Random, services: Sequence[str], hosts: Sequence[str]) -> str:
    """A service with all its instances, or one of them."""
    return random.choice(list(services)) if random.random() < 0.5 else _instance(random, hosts)


def _isolation(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _whole(random, services, hosts)
    return [Fault(at, "isolate", target), Fault(end, "heal", target)]


def _sluggish(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _whole(random, services, hosts)
    return [Fault(at, "sluggish", target, round(random.uniform(0.05, 3.0), 3)), Fault(end, "sluggish", target, 0.0)]


def _narrow(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _whole(random, services, hosts)
    return [Fault(at, "narrow", target, float(random.choice((200, 1000, 5000)))), Fault(end, "narrow", target, 0.0)]


def _pause(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "pause", target), Fault(end, "resume", target)]


def _stop(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "stop", target), Fault(end, "restart", target)]


def _hesitate(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    seconds = round(random.choice((0.02, 0.2, 2.0)) * random.uniform(0.5, 2.0), 3)
    return [Fault(at, "hesitate", target, seconds), Fault(end, "hesitate", target, 0.0)]


def _coincide(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "coincide", target, 1.0), Fault(end, "coincide", target, 0.0)]


def _jump(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target, seconds = _instance(random, hosts), round(random.uniform(-1.0, 1.0) * random.choice(JUMPS), 1)
    return [Fault(at, "jump", target, seconds), Fault(end, "jump", target, -seconds)]


def _drift(random: Random, services: Any, hosts: Any, at: float, end: float) -> list[Fault]:
    target = _instance(random, hosts)
    return [Fault(at, "drift", target, round(random.uniform(0.9, 1.1), 3)), Fault(end, "drift", target, 1.0)]


Drawing = Callable[[Random, Any, Any, float, float], list[Fault]]

KINDS: dict[str, Drawing] = {
    "crash": _crash,
    "crash at a moment": _crash_at,
    "crash at a new moment": _crash_at_new,
    "crash of a service": _service,
    "crash of a database": _database,
    "power failure": _power,
    "partition": _partition,
    "one-way partition": _one_way,
    "cut off": _cut_off,
    "cut off at a new moment": _cut_off_at_new,
    "slow supply": _slow_supply,
    "blackout": _blackout,
    "reset": _reset,
    "slow link": _slow,
    "slow disk": _disk,
    "lossy link": _lossy,
    "isolation": _isolation,
    "sluggish host": _sluggish,
    "narrow line": _narrow,
    "pause": _pause,
    "stop": _stop,
    "hesitation": _hesitate,
    "coincidence": _coincide,
    "jump": _jump,
    "drift": _drift,
}

DOING: dict[str, Callable[[Any, list[str], float], object]] = {
    "crash": lambda world, targets, value: world.crash(targets[0]),
    "crash-at-moment": lambda world, targets, value: world.crash(targets[0], at=ANY, nth=int(value)),
    "crash-at-new-moment": lambda world, targets, value: world.crash(targets[0], at=NEW, nth=int(value)),
    "power": lambda world, targets, value: world.crash(targets[0], power=True),
    "restart": lambda world, targets, value: world.restart(targets[0]),
    "partition": lambda world, targets, value: world.partition(*targets),
    "partition-one-way": lambda world, targets, value: world.partition(*targets, one_way=True),
    "cut-off-at-new-moment": lambda world, targets, value: world.partition(
        *targets, one_way=True, at=NEW, nth=int(value)
    ),
    "heal": lambda world, targets, value: world.heal(*targets),
    "reset": lambda world, targets, value: world.reset(*targets),
    "slow": lambda world, targets, value: world.link(*targets, latency=(value, 2 * value) if value else Link().latency),
    "slow-disk": lambda world, targets, value: world.disk(targets[0], (value, 2 * value) if value else TAKES),
    "lossy": lambda world, targets, value: world.link(*targets, loss=value),
    "isolate": lambda world, targets, value: world.partition(targets[0], EVERYTHING),
    "sluggish": lambda world, targets, value: world.link(
        targets[0], EVERYTHING, latency=(value, 2 * value) if value else Link().latency
    ),
    "narrow": lambda world, targets, value: world.link(targets[0], EVERYTHING, bandwidth=value or None),
    "pause": lambda world, targets, value: world.pause(targets[0]),
    "resume": lambda world, targets, value: world.resume(targets[0]),
    "stop": lambda world, targets, value: world.stop(targets[0]),
    "hesitate": lambda world, targets, value: world.hesitate(targets[0], value),
    "coincide": lambda world, targets, value: world.coincide(targets[0], bool(value)),
    "jump": lambda world, targets, value: world.jump(targets[0], value),
    "drift": lambda world, targets, value: world.drift(targets[0], value),
}
