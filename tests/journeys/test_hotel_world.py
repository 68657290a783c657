"""The hotel in simulated worlds: guests book, cancel and browse while machines, disks, clocks and network fail.

The audit of `examples/hotel/audit.py` looks at every commit, and once more when the faults have ended. No fault is left
out: what a crash between payment and confirmation leaves behind is found by the hotel's sweep. What is not audited are
the mails, which a crash may lose.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from ropewalk import Unavailable
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
from hotel import ledger, reservations, rooms  # noqa: E402
from hotel.words import nights_of  # noqa: E402

ANN, BOB, CHARGE = UUID(int=1), UUID(int=2), UUID(int=3)


# -- what broke before


@pytest.mark.slow
@pytest.mark.parametrize(("path", "schedule"), [pytest.param(*grave, id=grave[0].stem) for grave in exhume(GRAVEYARD)])
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
    acts = tuple(Act(at, "book", number) for number, at in enumerate((2.0, 3.0, 4.0)))
    schedule = Schedule(1, 20.0, acts, (Fault(1.0, "crash", "payments"), Fault(8.0, "restart", "payments")), "liveness")

    outcome = simulate(HOTEL, GUESTS, schedule)

    assert "(voiding, EUR" in outcome.broken
    assert "is open." in outcome.broken


def test_a_sweep_does_not_wait_for_a_clock_that_does_not_answer() -> None:
    with World(HOTEL, settings={"reservations": {"sweep": 3600.0}}) as world:
        world.link("reservations", "clock", latency=(60.0, 60.0))

        with pytest.raises(Unavailable, match="The clock cannot be reached: TimeoutError"):
            world.run(world.client(reservations.Reservations).sweep())

        assert 2.0 <= world.now < 2.1


# -- the audit


def booked(**changes: Any) -> audit.Booked:
    """A reservation of two nights in the one penthouse, paid."""
    stay = (41, "penthouse", date(2026, 5, 3), 2)
    return replace(audit.Booked(ANN, "confirmed", *stay, 27000, "EUR", None, CHARGE, 0, 0), **changes)


def charged(**changes: Any) -> audit.Charged:
    """What pays for it."""
    return replace(audit.Charged(CHARGE, ANN, "captured", 27000, 0), **changes)


def books(*of: Any, refunds: int = 0) -> audit.Books:
    """Books with these reservations and charges, each reservation with the nights it should have."""
    bookings = {each.id: each for each in of if isinstance(each, audit.Booked)}
    taken = {
        each.id: [(night, 0) for night in nights_of(each.arrival, each.nights)]
        for each in bookings.values()
        if each.state in audit.HOLDING
    }
    charges = {each.reference: each for each in of if isinstance(each, audit.Charged)}
    return audit.Books(bookings, taken, charges, {CHARGE: refunds} if refunds else {})


def found(of: audit.Books) -> list[str]:
    """What is wrong with books, by any of the checks that hold always."""
    return [*audit.rooms_given_twice(of), *audit.unpaid(of), *audit.wrongly_refunded(of)]


CANCELLED = booked(state="cancelled", refund_due=13500)


@pytest.mark.parametrize(
    "of",
    [
        books(booked(), charged()),
        books(booked(state="pending", charge_id=None)),
        books(booked(state="pending", charge_id=None), charged()),
        books(booked(state="voided", charge_id=None), charged(state="voided", refunded=27000)),
        books(booked(state="voided", charge_id=None), charged(state="voided", amount=0)),
        books(CANCELLED, charged()),
        books(CANCELLED, charged(refunded=13500), refunds=13500),
    ],
)
def test_books_that_are_right(of: audit.Books) -> None:
    assert found(of) == []


@pytest.mark.parametrize(
    ("of", "wrong"),
    [
        (books(booked()), "has no charge; allowed: captured."),
        (books(booked(), charged(amount=1)), f"has charge {CHARGE} (captured, 0.01): not its total."),
        (books(booked(charge_id=BOB), charged()), f"says it was paid by {BOB}"),
        (books(charged()), "there is no such reservation"),
        (books(booked(state="voided"), charged()), "allowed: declined, voided."),
        (books(booked(state="declined"), charged()), "allowed: declined."),
        (books(booked(state="expired"), charged()), "allowed: none."),
        (books(booked(), charged(refunded=13500), refunds=13500), "due: 0.00"),
        (books(CANCELLED, charged(refunded=27000), refunds=27000), "in refunds of 270.00; due: 135.00"),
        (books(CANCELLED, charged(refunded=27000), refunds=13500), "in refunds of 135.00; due: 135.00"),
        (books(replace(CANCELLED, refunded=13500), charged()), "says that 135.00 was given back"),
        (books(booked(state="voided"), charged(state="voided")), "not all of it"),
    ],
)
def test_books_that_are_wrong(of: audit.Books, wrong: str) -> None:
    problems = found(of)

    assert len(problems) == 1
    assert wrong in problems[0]


def test_one_room_for_two_is_found_with_both_their_names() -> None:
    two = books(booked(), charged(), booked(id=BOB, state="held", charge_id=None, nights=1))

    assert [
        "Hotel 41 has 1 penthouse, and 2 are given in the night of 2026-05-03: "
        f"reservation {ANN} (confirmed, EUR 270.00); reservation {BOB} (held, EUR 270.00)."
    ] == found(two)


def test_a_night_that_is_missing_is_found() -> None:
    right = books(booked(), charged())

    assert [
        f"reservation {ANN} (confirmed, EUR 270.00) should have 2 nights from 2026-05-03, and has 2026-05-03 (place 0)."
    ] == found(replace(right, taken={ANN: [(date(2026, 5, 3), 0)]}))


@pytest.mark.parametrize(
    ("of", "still_open", "orphans"),
    [
        (books(booked(), charged()), 0, 0),
        (books(booked(state="pending"), charged()), 1, 1),
        (books(booked(state="voiding")), 1, 0),
        (books(booked(state="held", held_until=99)), 1, 0),
        (books(booked(state="held", held_until=101)), 0, 0),
        (books(CANCELLED, charged()), 1, 1),
        (books(replace(CANCELLED, refunded=13500), charged(refunded=13500), refunds=13500), 0, 0),
    ],
)
def test_what_is_left_once_all_is_quiet(of: audit.Books, still_open: int, orphans: int) -> None:
    assert (still_open, orphans) == (len(audit.still_open(of, now=100)), len(audit.orphans(of)))


def test_a_data_folder_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for service, tables in (("reservations", rooms.metadata), ("payments", ledger.metadata)):
        engine = sa.create_engine(f"sqlite:///{tmp_path / service}.sqlite3")
        tables.create_all(engine)
        if service == "payments":
            with engine.begin() as connection:
                row = {"currency": "EUR", "last4": "4242", "description": "", "state": "captured", "reason": ""}
                connection.execute(
                    ledger.charges.insert().values(id=CHARGE, reference=ANN, amount=500, refunded=0, **row)
                )
        engine.dispose()

    status = audit.main([str(tmp_path)])

    assert (status, capsys.readouterr().out.splitlines()) == (
        1,
        [
            f"wrong: charge {CHARGE} (captured, 5.00) is under the reference {ANN}, and there is no such reservation.",
            f"open:  {ANN} has charge {CHARGE} (captured, 5.00); to be kept: 0.00.",
            "0 reservations, 1 references of payments, 1 wrong.",
        ],
    )


def told(outcome: Outcome) -> str:
    """What broke, of which seed, and the end of the story."""
    return f"seed {outcome.schedule.seed}, {outcome.schedule.mode}: {outcome.broken}\n{text(outcome)}"
