"""What is to happen in one seed: acts and faults, and what comes when the faults have ended, all drawn from it.

Then follow phases. After a quiet minute everybody acts *once more*. In half of the seeds some services start anew while
they reach nobody whom they ask (*blind*); everybody acts meanwhile, and *once again* when the links work. In the end,
in the midst of work, all are asked to *stop*. What is done then is part of the schedule, and shrinks with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from msgspec.structs import replace

from .configured import parts_of
from .faults import draw, hurt
from .values import Act, Late, Parts, Schedule
from .workloads import Workload, all_of, find

LAST = 10_000  # the number of the first act that comes when the faults have ended
BLINDING = 0.5  # the share of seeds in which some services start anew while they reach nobody
BLIND = 0.3  # of these so many

# When the faults have ended: how often each workload acts in a phase, within how many seconds, and whether those who
# make trouble do.
PHASES: Mapping[str, tuple[int, float, bool]] = {
    "once more": (2, 10.0, False),
    "blind": (2, 10.0, False),
    "once again": (2, 10.0, False),
    "stop": (1, 30.0, True),  # in which also what is done at intervals is done a last time
}
MODES: Mapping[str, Sequence[str]] = {  # which of them each has
    "safety": (),
    "liveness": tuple(PHASES),
    "fair": ("once more", "stop"),
}


def expand(target: str, workloads: Sequence[str]) -> tuple[str, ...]:
    """`workloads` of the system `target`, those of a module for a module's name."""
    from ..runtime.config import load

    load(target, {})  # its folder comes first on the path: the workloads lie there
    return tuple(each for name in workloads for each in all_of(name))


def plan(target: str, workloads: Sequence[str], seed: int, seconds: float, mode: str = "safety") -> Schedule:
    """What is to happen in `seconds` and when they are over, all drawn from `seed`.

    `mode`: one of `MODES`; raises ValueError for another one, ConfigurationError for what is no system or no workload.
    """
    from ..runtime.config import load

    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}; got {mode!r}.")
    parts, everybody = parts_of(load(target, {})), list(map(find, workloads))
    end = seconds * 2 / 3 if mode == "liveness" else seconds
    faults = draw(Random(f"{seed}/plan"), parts, 0.0, end) if mode != "fair" else ()
    # Where one service may be to blame for all there is, nothing else makes trouble.
    quiet = not faults or bool(frozenset.intersection(*hurt(faults)))
    played = [each for each in everybody if not (quiet and each.trouble)]
    acts = [act for each in played for act in _acts(each, Random(f"{seed}/acts/{each.name}"), seconds)]
    schedule = Schedule(seed, seconds, tuple(sorted(acts, key=lambda act: act.at)), faults, mode)
    return with_ending(schedule, everybody, parts)


def with_ending(schedule: Schedule, workloads: Sequence[Workload], parts: Parts) -> Schedule:
    """With what comes when the faults have ended, where it does not say that itself."""
    late, blind, phases = schedule.late, schedule.blind, MODES[schedule.mode]
    if blind is None:
        blind = tuple(_blind(Random(f"{schedule.seed}/blind"), parts.services)) if "blind" in phases else ()
    if late is None:
        phases = [phase for phase in phases if blind or phase not in ("blind", "once again")]
        late = tuple(_late(schedule.seed, sorted(workloads, key=lambda each: each.name), phases))
    return replace(schedule, late=late, blind=blind)


def _blind(random: Random, services: Sequence[str]) -> list[str]:
    return [name for name in services if random.random() < BLIND] if random.random() < BLINDING else []


def _late(seed: int, workloads: Sequence[Workload], phases: Sequence[str]) -> Iterator[Late]:
    number = LAST
    for phase in phases:
        random, (times, seconds, trouble) = Random(f"{seed}/{phase}"), PHASES[phase]
        for each in workloads:
            for one in range(times if trouble or not each.trouble else 0):
                yield Late(phase, round(random.uniform(0.0, seconds), 3), each.name, number + one)
        number += times


def _acts(workload: Workload, random: Random, seconds: float) -> list[Act]:
    acts: list[Act] = []
    at = random.expovariate(1 / workload.every)
    while at < seconds:
        acts.append(Act(round(at, 3), workload.name, len(acts)))
        at += random.expovariate(1 / workload.every)
    return acts
