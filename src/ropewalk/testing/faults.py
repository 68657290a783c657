"""What befalls a simulated system: a table of faults, a schedule of them drawn from a seed, and how one is done.

Each seed takes some of the kinds and leaves the others out: what hides behind one kind's noise is found by a seed
without it (swarm testing: Groce et al., ISSTA 2012). And half of the seeds hurt a few services alone, again and again:
what takes two faults at one place is found by these, and half of them hurt one: what others can do without it is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from .broker import NAME as BROKER
from .hosts import EVERYTHING, OUTSIDE
from .moments import ANY, SELDOM
from .network import Link
from .store import TAKES
from .values import Fault, Parts

SHARES = (0.15, 0.3, 0.6)  # of the kinds that a seed takes: one of these
SOUGHT = 0.5  # the share of seeds that take those that come at seldom moments whatever else they take
FOCUSED = 0.5  # the share of seeds that leave all but one to three services alone
FEW = (1, 1, 2, 3)  # of these so many
AT_ONCE = 0.25  # the share of seeds in which something is wrong from the beginning
EVERY = (1.5, 3.0, 8.0, 20.0)  # seconds between the beginnings of two faults, on average: one of these for a whole seed
MOMENTS = 12  # that one is counted to at most, of all there are
NAMES = (4, 16, 64)  # among so many a seldom one is at most
JUMPS = (14.0, 14.0, 3600.0)  # seconds a clock jumps at most: mostly within what tokens allow for
LONGEST = (2.0, 10.0, 40.0)  # seconds one of them lasts: likewise
STRUCK = 15.0  # seconds for which what waits for a moment may go on after its time: it came late, and is to be felt
STARTS = 0.25  # the share of its time after which a process starts that another fault is waiting for


def draw(random: Random, parts: Parts, begin: float, end: float) -> tuple[Fault, ...]:
    """A schedule of faults from `begin` to `end`, all of which have an end of their own, in order of time."""
    share, sought = random.choice(SHARES), random.random() < SOUGHT
    taken = [kind for kind in KINDS if random.random() < share or (sought and "seldom" in kind)]
    kinds = taken or [random.choice(list(KINDS))]
    if random.random() < FOCUSED:
        parts = _focused(random, parts)
    every, longest = random.choice(EVERY), random.choice(LONGEST)
    faults: list[Fault] = []
    at = begin + (0.0 if random.random() < AT_ONCE else random.expovariate(1 / every))
    while at < end:
        lasts = random.uniform(0.05, min(longest, max(0.1, end - at)))
        faults.extend(KINDS[random.choice(kinds)](random, parts, round(at, 3), round(at + lasts, 3)))
        at += random.expovariate(1 / every)
    return tuple(sorted(faults, key=lambda fault: fault.at))


def do(world: Any, fault: Fault) -> None:
    """Do it to a World, now."""
    targets = fault.target.split()
    DOING[fault.kind](world, targets, fault.value)
    world.points[fault.kind] += 1


def hurt(faults: Iterable[Fault]) -> set[frozenset[str]]:
    """Whom these faults befall, as far as they say: of each the service, or both that a link joins. Who can do without
    one of the two can do without the link."""
    befallen = ({target.partition("/")[0] for target in fault.target.split()} for fault in faults)
    return {frozenset(services - {OUTSIDE}) for services in befallen}


def _focused(random: Random, parts: Parts) -> Parts:
    """A few services, and what they are joined to."""
    few = random.sample(list(parts.services), min(random.choice(FEW), len(parts.services)))
    broker = [BROKER] if BROKER in parts.hosts and random.random() < FOCUSED else []
    hosts = [host for host in parts.hosts if host.rpartition("/")[0] in few] + broker
    links = [link for link in parts.links if any(end.partition("/")[0] in few for end in link)]
    return Parts(few, hosts, links)


# -- whom it befalls: one target, or none, or two that a link joins


def _instance(random: Random, parts: Parts) -> str:
    return random.choice([host for host in parts.hosts if not _keeps(host)])


def _host(random: Random, parts: Parts) -> str:
    return random.choice(list(parts.hosts))


def _service(random: Random, parts: Parts) -> str:
    return random.choice(list(parts.services))


def _either(random: Random, parts: Parts) -> str:
    """A service with all its instances, or one of them."""
    return _one_of(random, _service(random, parts)) if random.random() < 0.5 else _service(random, parts)


def _keeper(random: Random, parts: Parts) -> str:
    """A database or the broker."""
    return random.choice([host for host in parts.hosts if _keeps(host)] or [""])


def _disk(random: Random, parts: Parts) -> str:
    """A service that has a database."""
    return random.choice([host.rpartition("/")[0] for host in parts.hosts if host.endswith("/database")] or [""])


def _link(random: Random, parts: Parts) -> str:
    """Who is asked, and who asks; of each all instances, or one."""
    asks, asked = random.choice(list(parts.links))
    return f"{_perhaps_one_of(random, asked)} {_perhaps_one_of(random, asks)}"


def _link_either_way(random: Random, parts: Parts) -> str:
    return " ".join(random.sample(_link(random, parts).split(), 2))


def _perhaps_one_of(random: Random, name: str) -> str:
    one = name == OUTSIDE or _keeps(name) or random.random() < 0.5
    return name if one else _one_of(random, name)


def _one_of(random: Random, service: str) -> str:
    return f"{service}/{random.choice((1, 2))}"


def _keeps(host: str) -> bool:
    return host.endswith("/database") or host == BROKER


# -- how much of it


def _up_to(*most: int) -> Callable[[Random], float]:
    return lambda random: float(random.randint(1, random.choice(most)))


def _seconds(least: float, most: float) -> Callable[[Random], float]:
    return lambda random: round(random.uniform(least, most), 3)


def _hesitation(random: Random) -> float:
    return round(random.choice((0.02, 0.2, 2.0)) * random.uniform(0.5, 2.0), 3)


def _jump(random: Random) -> float:
    return round(random.uniform(-1.0, 1.0) * random.choice(JUMPS), 1)


def _far(random: Random) -> float:
    return round(random.uniform(-1.0, 1.0) * max(JUMPS), 1)


_seldom = _up_to(*NAMES)


# -- the kinds

Target = Callable[[Random, Parts], str]
Value = Callable[[Random], float]
Drawing = Callable[[Random, Parts, float, float], list[Fault]]  # of a kind, from when to when

ENDS = {  # what undoes what
    "crash": "restart",
    "crash-at-moment": "restart",
    "crash-at-seldom-moment": "restart",
    "power": "restart",
    "stop": "restart",
    "partition": "heal",
    "partition-one-way": "heal",
    "partition-at-seldom-moment": "heal",
    "partition-one-way-at-seldom-moment": "heal",
    "isolate": "heal",
    "hold": "release",
    "pause": "resume",
    **{kind: kind for kind in ("slow", "slow-disk", "lossy", "sluggish", "narrow", "hesitate", "coincide")},
    "jump": "jump",
    "drift": "drift",
}


def _lasting(kind: str, target: Target, value: Value = lambda random: 0.0, *, longer: float = 0.0) -> Drawing:
    """Begins and ends; up to `longer` seconds later."""

    def drawn(random: Random, parts: Parts, at: float, end: float) -> list[Fault]:
        befallen, amount = target(random, parts), value(random)
        if not befallen:
            return []
        undone = round(end + random.uniform(0.0, longer), 3)
        return [Fault(at, kind, befallen, amount), Fault(undone, ENDS[kind], befallen, _undoing(kind, amount))]

    return drawn


def _undoing(kind: str, amount: float) -> float:
    return {"jump": -amount, "drift": 1.0}.get(kind, 0.0)


def _reset(random: Random, parts: Parts, at: float, end: float) -> list[Fault]:
    return [Fault(at, "reset", _link(random, parts))]


def _blackout(random: Random, parts: Parts, at: float, end: float) -> list[Fault]:
    dark = random.sample(list(parts.hosts), min(random.choice(FEW) + 1, len(parts.hosts)))
    return [*(Fault(at, "power", host) for host in dark), *(Fault(end, "restart", host) for host in dark)]


def _bad_start(random: Random, parts: Parts, at: float, end: float) -> list[Fault]:
    """What a process learns as it starts it may believe for ever: it starts while one that it asks is away or errs, or
    with a clock that is set right later."""
    links = [(asks, asked) for asks, asked in parts.links if asks != OUTSIDE]
    if not links:
        return []
    asks, asked = random.choice(links)
    starting = _perhaps_one_of(random, asks)
    errs = starting if _keeps(asked) else random.choice((starting, asked))
    away = _lasting("partition", lambda *_: f"{asked} {starting}", longer=STRUCK)
    wrong = _lasting("jump", lambda *_: errs, _far, longer=STRUCK)
    ill = random.choice((away, wrong))(random, parts, at, end)
    return [Fault(at, "crash", starting), *ill, Fault(round(at + STARTS * (end - at), 3), "restart", starting)]


KINDS: dict[str, Drawing] = {
    "crash": _lasting("crash", _instance),
    "crash at a moment": _lasting("crash-at-moment", _instance, _up_to(MOMENTS)),
    "crash at a seldom moment": _lasting("crash-at-seldom-moment", _instance, _seldom, longer=STRUCK),
    "crash of a service": _lasting("crash", _service),
    "crash of a database": _lasting("crash", _keeper),
    "power failure": _lasting("power", _host),
    "blackout": _blackout,
    "bad start": _bad_start,
    "stop": _lasting("stop", _instance),
    "pause": _lasting("pause", _instance),
    "hesitation": _lasting("hesitate", _instance, _hesitation),
    "coincidence": _lasting("coincide", _instance, lambda random: 1.0),
    "partition": _lasting("partition", _link),
    "one-way partition": _lasting("partition-one-way", _link_either_way),
    "partition at a seldom moment": _lasting("partition-at-seldom-moment", _link, _seldom, longer=STRUCK),
    "lost answers at a seldom moment": _lasting("partition-one-way-at-seldom-moment", _link, _seldom, longer=STRUCK),
    "isolation": _lasting("isolate", _either),
    "reset": _reset,
    "slow link": _lasting("slow", _link, _seconds(0.05, 3.0)),
    "lossy link": _lasting("lossy", _link, _seconds(0.02, 0.5)),
    "sluggish host": _lasting("sluggish", _either, _seconds(0.05, 3.0)),
    "narrow line": _lasting("narrow", _either, lambda random: float(random.choice((200, 1000, 5000)))),
    "slow disk": _lasting("slow-disk", _disk, _seconds(0.02, 0.5)),
    "jump": _lasting("jump", _either, _jump),
    "drift": _lasting("drift", _instance, _seconds(0.9, 1.1)),
}

DOING: dict[str, Callable[[Any, list[str], float], object]] = {
    "crash": lambda world, targets, value: world.crash(targets[0]),
    "crash-at-moment": lambda world, targets, value: world.crash(targets[0], at=ANY, nth=int(value)),
    "crash-at-seldom-moment": lambda world, targets, value: world.crash(targets[0], at=SELDOM, nth=int(value)),
    "power": lambda world, targets, value: world.crash(targets[0], power=True),
    "restart": lambda world, targets, value: world.restart(targets[0]),
    "partition": lambda world, targets, value: world.partition(*targets),
    "partition-one-way": lambda world, targets, value: world.partition(*targets, one_way=True),
    "partition-at-seldom-moment": lambda world, targets, value: world.partition(*targets, at=SELDOM, nth=int(value)),
    "partition-one-way-at-seldom-moment": lambda world, targets, value: world.partition(
        *targets, one_way=True, at=SELDOM, nth=int(value)
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
