"""The hotel in simulated worlds: guests book, cancel and browse while machines, disks, clocks and network fail.

The audit of `examples/hotel/audit.py` looks at every commit, and once more when the faults have ended. No fault is left
out: what a crash between payment and confirmation leaves behind is found by the hotel's sweep. What is not audited are
the mails, which a crash may lose.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ropewalk.testing import Act, Fault, Outcome, Schedule, World, plan, replay, simulate
from ropewalk.testing.graveyard import exhume
from ropewalk.testing.seeds import run_seeds
from ropewalk.testing.story import text

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hotel"
HOTEL = str(EXAMPLE / "system.toml")
GUESTS = ("workload:book", "workload:cancel", "workload:browse")
GRAVEYARD = Path(__file__).parent / "graveyard"
MODES = ("safety", "liveness")
SEEDS = int(os.environ.get("ROPEWALK_SEEDS", "30"))  # of the long lane; a release asks for 200
LONG = 600.0  # virtual seconds of each of them
sys.path.insert(0, str(EXAMPLE))  # as the system does that has its file there

import audit  # noqa: E402
from hotel import reservations, rooms, today  # noqa: E402
from hotel.words import Stay  # noqa: E402

ANN, BOB, CHARGE = UUID(int=1), UUID(int=2), UUID(int=3)


# -- what broke before


@pytest.mark.slow
@pytest.mark.parametrize("path, schedule", [pytest.param(*grave, id=grave[0].stem) for grave in exhume(GRAVEYARD)])
def test_what_broke_before_holds(path: Path, schedule: Schedule) -> None:
    replay(HOTEL, GUESTS, schedule)


# -- what may break


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_minute_of_faults_breaks_nothing(seed: int) -> None:
    outcome = replay(HOTEL, GUESTS, plan(HOTEL, GUESTS, seed, 60.0, MODES[seed % 2]))

    assert outcome.acts["done"] > 10


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_minutes_of_faults_break_nothing_whatever_the_seed() -> None:
    schedules = (plan(HOTEL, GUESTS, seed, LONG, MODES[seed % 2]) for seed in range(SEEDS))

    broken = [told(outcome) for outcome in run_seeds(HOTEL, GUESTS, schedules, os.cpu_count() or 1) if outcome.broken]

    assert not broken, "\n\n".join([f"{len(broken)} of {SEEDS} seeds broke:", *broken])


# -- what must be found


@pytest.mark.slow
def test_a_hotel_that_gives_a_room_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    free = rooms._free_places
    monkeypatch.setattr(rooms, "_free_places", lambda tx, stay, rooms: free(tx, stay, rooms + 1))

    outcome = simulate(HOTEL, GUESTS[:1], plan(HOTEL, GUESTS[:1], 1, 60.0))

    assert "are given in the night of 2026-05-0" in outcome.broken


@pytest.mark.slow
def test_a_hotel_that_forgets_what_it_has_charged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful(self: Any, made: Any) -> Any:
        return await self._database.run(rooms.move_if_possible, made.id, "voiding")

    monkeypatch.setattr(reservations.Reservations, "_give_up", forgetful)
    monkeypatch.setattr(rooms, "unsettled", lambda tx: [])
    schedule = Schedule(
        1, 20.0, acts("book", 2.0, 3.0, 4.0), (crash(1.0, "payments"), restart(8.0, "payments")), "liveness"
    )

    outcome = simulate(HOTEL, GUESTS, schedule)

    assert "(voiding, EUR" in outcome.broken
    assert "is open." in outcome.broken


@pytest.mark.slow
def test_a_sweep_that_waits_for_a_clock_without_power_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (schedule,) = [schedule for path, schedule in exhume(GRAVEYARD) if path.stem == "a_sweep_waits_for_ever"]
    monkeypatch.setattr(today, "PATIENCE", 1e6)

    outcome = simulate(HOTEL, GUESTS, schedule)

    assert "(voiding, EUR" in outcome.broken
