"""Trips in simulated worlds: sagas, events and jobs while machines, disks, clocks, the network and the broker fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ropewalk.testing import Schedule, plan, replay
from ropewalk.testing.graveyard import exhume
from ropewalk.testing.planning import expand
from ropewalk.testing.seeds import run_seeds
from ropewalk.testing.story import text

TRIPS = str(Path(__file__).resolve().parents[2] / "examples" / "trips" / "system.toml")
GRAVEYARD = Path(__file__).parent / "graveyard_of_trips"
MODES = ("safety", "liveness")


@pytest.fixture(scope="module")
def workloads() -> tuple[str, ...]:
    return expand(TRIPS, ["play"])


@pytest.mark.slow
@pytest.mark.parametrize(("path", "schedule"), [pytest.param(*grave, id=grave[0].stem) for grave in exhume(GRAVEYARD)])
def test_what_broke_before_holds(path: Path, schedule: Schedule, workloads: tuple[str, ...]) -> None:
    replay(TRIPS, workloads, schedule)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_half_a_minute_of_faults_breaks_nothing(seed: int, workloads: tuple[str, ...]) -> None:
    outcome = replay(TRIPS, workloads, plan(TRIPS, workloads, seed, 30.0, MODES[seed % 2]))

    assert outcome.acts["done"] > 10


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_minute_of_faults_breaks_nothing_whatever_the_seed(workloads: tuple[str, ...]) -> None:
    schedules = (plan(TRIPS, workloads, seed, 60.0, MODES[seed % 2]) for seed in range(30))

    outcomes = run_seeds(TRIPS, workloads, schedules, os.cpu_count() or 1)

    broken = [f"seed {each.schedule.seed}: {text(each)}" for each in outcomes if each.broken]
    assert not broken, "\n\n".join(broken)
