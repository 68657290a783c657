"""One scenario of the hotel, in this process, in the World and over real processes: the outcomes are the same."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ropewalk import RopewalkError

HOTEL = Path(__file__).resolve().parents[2] / "examples" / "hotel"
SYSTEM = pytest.mark.system(
    str(HOTEL / "system.toml"), settings={"users": {"time_cost": 1, "memory_cost": 8, "parallelism": 1}}
)

EXPECTED = [
    ("sign up", "Ada"),
    ("sign up again", "EmailTaken", 409, "caller", "yes"),
    ("sign in", "Ada"),
    ("wrong password", "WrongCredentials", 401, "caller", "yes"),
    ("a hotel nobody has", "NotFound", 404, "caller", "yes"),
    ("rooms before", 1),
    ("book", "confirmed", 1),
    ("rooms after", 0),
    ("book the same", "SoldOut", 409, "caller", "yes"),
    ("declined", "PaymentDeclined", 402, "caller", "yes"),
    ("nobody asks", "Unauthorized", 401, "caller", "no"),
    ("read by another", "NotFound", 404, "caller", "yes"),
    ("mails", ["Booked:"]),
    ("receipt", b"%PDF"),
    ("cancel", "cancelled", True),
    ("cancel again", "cancelled", True),
    ("rooms at last", 1),
]


def scenario(system: Any) -> list[tuple[Any, ...]]:
    """What becomes of a guest's day, step by step; an error as (class, status, whose fault, did it run)."""
    sys.path.insert(0, str(HOTEL))
    from hotel.hotels import Hotels
    from hotel.notifications import Notifications
    from hotel.receipts import Receipts
    from hotel.reservations import Booking, Card, Guest, Reservations
    from hotel.users import Credentials, SignUp, Users
    from hotel.words import Stay

    outcomes: list[tuple[Any, ...]] = []

    def step(name: str, call: Awaitable[Any], *seen: Any) -> Any:
        try:
            result = system.run(call)
        except RopewalkError as error:
            outcomes.append((name, type(error).__name__, error.status, error.fault, error.ran))
            return None
        outcomes.append((name, *(see(result) for see in seen)))
        return result

    users, hotels = system.client(Users), system.client(Hotels)
    ada = step("sign up", users.sign_up(SignUp("ada@example.org", "Ada", "long enough")), lambda user: user.name)
    step("sign up again", users.sign_up(SignUp("ADA@example.org", "Ada", "long enough")))
    step("sign in", users.sign_in(Credentials("ada@example.org", "long enough")), lambda user: user.name)
    step("wrong password", users.sign_in(Credentials("ada@example.org", "long enoug")))
    step("a hotel nobody has", hotels.read(9_999_999))

    hers = system.client(Reservations, subject=str(ada.id))
    another = system.client(Reservations, subject="another")
    today = date(2026, 5, 1) if system.kind == "world" else datetime.now(UTC).date()
    arrival = today + timedelta(30)
    guest, card = Guest("Ada", "ada@example.org"), Card("4242424242424242", "12/49", "123")
    booking = Booking(Stay(41, "penthouse", arrival, 2, 1), guest, card)

    def left(rooms: Any) -> int:
        return next(room.left for room in rooms if room.kind == "penthouse")

    step("rooms before", hers.availability(41, arrival, 2, 1), left)
    made = step("book", hers.book(booking), lambda made: made.state, lambda made: made.stay.guests)
    step("rooms after", hers.availability(41, arrival, 2, 1), left)
    step("book the same", another.book(booking))
    step(
        "declined",
        another.book(Booking(Stay(6, "family", arrival, 1, 1), guest, Card("4000000000000002", "12/49", "123"))),
    )
    step("nobody asks", system.client(Reservations).book(booking))
    step("read by another", another.read(made.id))
    mails = system.client(Notifications)
    while not system.run(mails.mailbox("ada@example.org")):  # they are events, and come a moment later
        pass
    step(
        "mails",
        mails.mailbox("ada@example.org"),
        lambda mails: [m.subject.split()[0] for m in mails],
    )
    step(
        "receipt", system.client(Receipts, subject=str(ada.id)).receipt(made.id), lambda answer: bytes(answer.body[:4])
    )
    step("cancel", hers.cancel(made.id), lambda each: each.state, lambda each: each.refunded == each.refund_due > 0)
    step(
        "cancel again", hers.cancel(made.id), lambda each: each.state, lambda each: each.refunded == each.refund_due > 0
    )
    step("rooms at last", hers.availability(41, arrival, 2, 1), left)
    return outcomes


@SYSTEM
@pytest.mark.worlds("direct", "world")
def test_a_guests_day_in_one_process_and_in_the_world(system):
    assert EXPECTED == scenario(system)


@SYSTEM
@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.worlds("processes")
def test_the_same_day_over_real_processes(system):
    assert EXPECTED == scenario(system)
