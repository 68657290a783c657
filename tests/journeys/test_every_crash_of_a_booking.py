"""One booking, and a crash at every moment of it: each call, statement, commit and frame, before and after, and again."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ropewalk.testing import World, crash_points

HOTEL = Path(__file__).resolve().parents[2] / "examples" / "hotel"

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture
def world() -> Any:
    """A hotel in which somebody has booked before."""
    sys.path.insert(0, str(HOTEL))
    settings = {
        "users": {"time_cost": 1, "memory_cost": 8, "parallelism": 1},
        "reservations": {"hold": 20.0, "sweep": 5.0},
    }
    with World(HOTEL / "system.toml", seed=1, settings=settings) as world:
        world.run(book(world))
        yield world


async def book(world: World) -> object:
    """A booking, and what a guest looks at before."""
    from hotel.hotels import Hotels
    from hotel.reservations import Booking, Card, Guest, Reservations
    from hotel.words import Stay

    hotel = await world.client(Hotels).read(6)
    stay = Stay(6, hotel.room_kinds[0].kind, date(2026, 6, 1), 2, 1)
    booking = Booking(stay, Guest("Ann", "ann@example.org"), Card("4242424242424242", "12/30", "123"))
    return await world.client(Reservations, subject="ann").book(booking)


def test_whenever_a_process_dies_the_books_are_right_in_the_end(world):
    from audit import (
        every_booking_paid,
        every_mail_comes,
        no_orphan_charges,
        no_room_twice,
        no_saga_left,
        nothing_stuck,
        refunds_right,
    )

    for check in (no_room_twice, every_booking_paid, refunds_right):
        world.invariant(check)

    survivals = list(
        crash_points(
            world, book, eventually=[nothing_stuck, no_saga_left, no_orphan_charges, every_mail_comes], settle=120.0
        )
    )

    assert [] == [(each.point, each.broken) for each in survivals if each.broken]
    moments = {each.point.moment for each in survivals}
    assert {"before:charge", "after:charge", "before:begin/2", "after:begin/commit", "before:frame"} <= moments
    assert len(survivals) > 150
