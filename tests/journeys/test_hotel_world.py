"""The hotel in simulated worlds: guests come, book, cancel and browse while machines, disks, clocks and network fail.

The audit of `examples/hotel/audit.py` looks at every commit, and once more when the faults have ended. No fault is left
out: what a crash between payment and confirmation leaves behind is found by the hotel's sweep, and mails are events.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from random import Random
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
GRAVEYARD = Path(__file__).parent / "graveyard"
MODES = ("safety", "liveness")
SEEDS = int(os.environ.get("ROPEWALK_SEEDS", "30"))  # of the long lane; a release asks for 200
LONG = 600.0  # virtual seconds of each of them
sys.path.insert(0, str(EXAMPLE))  # as the system does that has its file there

import audit  # noqa: E402
import workload  # noqa: E402
from hotel import ledger, reservations, rooms  # noqa: E402
from hotel.words import nights_of  # noqa: E402

GUESTS = workload.WORKLOADS
BOOK = ("workload:book",)
ANN, BOB, CHARGE = UUID(int=1), UUID(int=2), UUID(int=3)
MADE = 1_777_626_000  # seconds since 1970


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

    outcome = simulate(HOTEL, BOOK, plan(HOTEL, BOOK, 1, 60.0))

    assert "are given in the night of 2026-05-0" in outcome.broken


@pytest.mark.slow
def test_a_hotel_that_forgets_what_it_has_charged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful(self: Any, flow: Any, made: Any) -> None:
        await flow.transaction(rooms.move_if_possible, made.id, "voiding")

    monkeypatch.setattr(reservations.Reservations, "_void", forgetful)
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
    mailed = [each for each in of if isinstance(each, audit.Mailed)]
    return audit.Books(bookings, taken, charges, {CHARGE: refunds} if refunds else {}, mailed)


def found(of: audit.Books) -> list[str]:
    """What is wrong with books, by any of the checks that hold always."""
    return [problem for check in audit.EVERY for problem in check(of)]


CANCELLED = booked(state="cancelled", refund_due=13500)
SAID = booked(price=13500, made_at=MADE, free_until=date(2026, 5, 1), guest_name="Ann", guest_email="Ann@example.org")
HELD = replace(SAID, state="held", charge_id=None, held_until=MADE + 30)


def mailed(number: int = 1, **changes: Any) -> audit.Mailed:
    """The mail that tells of `SAID`."""
    subject, body = "Booked: HB-0000-0000, Inn", "Dear Ann, HB-0000-0000, 2026-05-03, EUR 270.00"
    return replace(audit.Mailed(number, "ann@example.org", "Ann@example.org", subject, body, ANN), **changes)


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
        (books(booked(state="released"), charged(state="declined")), "allowed: none, captured, voided."),
        (books(booked(), charged(refunded=13500), refunds=13500), "due: 0.00"),
        (books(CANCELLED, charged(refunded=27000), refunds=27000), "in refunds of 270.00; due: 135.00"),
        (books(CANCELLED, charged(refunded=27000), refunds=13500), "in refunds of 135.00; due: 135.00"),
        (books(replace(CANCELLED, refunded=13500), charged()), "says that 135.00 was given back"),
        (books(booked(state="voided"), charged(state="voided")), "not all of it"),
        (books(replace(SAID, price=13000), charged()), "is for 2 nights at EUR 130.00."),
        (books(replace(SAID, free_until=date(2026, 5, 4)), charged()), "and arrives on 2026-05-03."),
        (books(replace(SAID, held_until=MADE), charged()), f"is held until {MADE}."),
        (books(replace(HELD, held_until=None)), "is held until None."),
        (books(replace(HELD, held_until=MADE - 1)), f"is held until {MADE - 1} only."),
        (books(replace(CANCELLED, price=13500, refund_due=1), charged()), "is to give back 0.01."),
        (books(SAID, charged(), mailed(), mailed(2)), "came a second time"),
        (books(SAID, charged(), mailed(to="bob@example.org")), "of Ann@example.org."),
        (books(SAID, charged(), mailed(mailbox="bob@example.org")), "lies in the mailbox of bob@example.org"),
        (books(SAID, charged(), mailed(subject="Cancelled: HB-0000-0000, Inn")), "is about reservation"),
        (books(SAID, charged(), mailed(body="Dear Ann, HB-0000-0000, 2026-05-03, EUR 27.00")), "does not say what is"),
        (books(SAID, charged(), mailed(reservation_id=BOB)), "there is no reservation"),
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


def test_a_room_is_judged_with_whoever_may_be_in_it() -> None:
    elsewhere = booked(id=UUID(int=7), hotel_id=42)

    assert {ANN, BOB} == audit.beside(books(booked(), booked(id=BOB, nights=1), elsewhere), {ANN})


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


def test_a_mail_that_has_not_come_is_missed() -> None:
    sent = replace(books(booked(), charged()), mailed=[mailed()])

    assert [] == audit.unwritten(sent)
    assert [f"reservation {ANN} (confirmed, EUR 270.00) has no mail 'Booked'."] == audit.unwritten(
        books(booked(), charged())
    )


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        (books(HELD), books(), "is not there any more."),
        (books(HELD), books(replace(HELD, guest_name="Bob")), "'Bob'"),
        (books(HELD), books(replace(HELD, state="voided", held_until=None)), "became reservation"),
        (books(HELD), books(replace(HELD, state="expired", held_until=None)), "it was given up at"),
        (books(SAID), books(replace(SAID, state="pending")), "became reservation"),
        (books(SAID), books(replace(SAID, charge_id=BOB)), f"had {CHARGE} and 0"),
        (books(replace(CANCELLED, refunded=1)), books(CANCELLED), "had got 0.01 back, and has 0.00."),
        (books(charged()), books(), "is not there any more."),
        (books(charged()), books(charged(amount=1)), "became charge"),
        (books(charged()), books(charged(state="declined")), "became charge"),
        (books(mailed()), books(), "There were 1 mails, and there are 0."),
    ],
)
def test_what_must_not_become_of_a_thing_is_found(before: audit.Books, after: audit.Books, wrong: str) -> None:
    (problem,) = audit.gone_wrong(before, after, MADE + 25.0, lambda each: 2.0)

    assert wrong in problem


def test_what_may_become_of_a_thing_is_not() -> None:
    before = books(HELD, booked(id=BOB, state="pending", charge_id=None), charged())
    after = books(replace(HELD, state="expired", held_until=None), booked(id=BOB), charged(state="voided"), mailed())

    assert audit.gone_wrong(before, after, MADE + 29.0, lambda each: 2.0) == []


def test_a_page_about_another_guest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read = rooms.read
    monkeypatch.setattr(rooms, "read", lambda tx, number, subject=None: read(tx, number))

    with (
        World(HOTEL, seed=2, settings=workload.SETTINGS) as world,
        pytest.raises(AssertionError, match="tells of|is shown"),
    ):
        for seed in range(9):
            world.run(workload.visit.play(world, Random(seed)))


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
