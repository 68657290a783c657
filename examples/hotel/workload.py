"""What guests do to the hotel in a simulation: `ropewalk sim examples/hotel/system.toml -w workload:book`.

    book     one stay, paid by a card that is sometimes declined
    cancel   the same, and then not
    browse   a search, the rooms left, the pages

Few rooms and near nights: most guests want what another has or is about to have. What an act asserts is what its guest
would be angry about; what must be true of everybody's rooms and money is in `audit.py`. A guest who meets an error of
the hotel's asks again, if that can be done safely, or gives up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import date, timedelta
from html import escape
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlencode

from audit import catalogue, every_booking_paid, no_orphan_charges, no_room_twice, nothing_stuck, refunds_right
from hotel.catalogue import Search
from hotel.hotels import Hotels
from hotel.ledger import DECLINED
from hotel.reservations import Booking, Card, PaymentDeclined, Reservation, Reservations, TooLate
from hotel.rooms import Guest, NotInState
from hotel.words import SoldOut, Stay

from ropewalk import Context, NotFound, RopewalkError, Unavailable
from ropewalk.context import enter_context
from ropewalk.testing import workload

T = TypeVar("T")

TODAY = date(2026, 5, 1)  # when a World begins, at nine in the morning: nobody simulates until midnight
ROOMS = ((41, "penthouse"), (26, "apartment"), (25, "suite"), (6, "family"))  # of which there are 1, 1, 1 and 2
CITIES = ("Barcelona", "Athens", "Amsterdam", "Nowhere")
GOOD = "4242424242424242"
REFUSED = (*sorted(DECLINED), "4242424242424241")  # the last one was mistyped
MOVES_ON = 15.0  # seconds after which the guests want the next day
PATIENCE = 10.0  # seconds a guest waits for an answer: a machine that lost its power never sends one
ASKS = 12  # times that a guest asks
PAUSE = 3.0  # seconds between two of them

ALWAYS = (no_room_twice, every_booking_paid, refunds_right)
EVENTUALLY = (nothing_stuck, no_orphan_charges)
SETTINGS = {
    "users": {"time_cost": 1, "memory_cost": 8, "parallelism": 1},
    # What a crash left behind is found within a minute, or two if a clock was wrong.
    "reservations": {"hold": 60.0, "sweep": 10.0},
    # Slow enough that most faults meet a booking half-way.
    "payments": {"latency": 1.5},
}


@workload(every=2.0, always=ALWAYS, eventually=EVENTUALLY, settings=SETTINGS)
async def book(world: Any, random: Random) -> None:
    """Book a stay; what was confirmed stays so, and nobody else's is shown."""
    guest = _Visitor(world, random)
    booked = await guest.book(_stay(world, random))
    if booked is None:
        return
    await asyncio.sleep(random.uniform(0.0, 20.0))

    read = await guest.asking(lambda: guest.reservations.read(booked.id))
    assert read == booked, f"booked as {booked}, and read as {read}"
    listed = await guest.asking(lambda: guest.reservations.mine())
    assert listed == [booked], f"{guest.subject} booked {booked.id} alone, and finds {listed}"

    with suppress(NotFound):
        seen = await world.client(Reservations, subject="somebody else").read(booked.id)
        raise AssertionError(f"somebody else is shown {seen}")


@workload(every=5.0, always=ALWAYS, eventually=EVENTUALLY, settings=SETTINGS)
async def cancel(world: Any, random: Random) -> None:
    """Book a stay, and cancel it; what is given back is what was promised."""
    guest = _Visitor(world, random)
    booked = await guest.book(_stay(world, random))
    if booked is None:
        return
    await asyncio.sleep(random.uniform(0.0, 20.0))

    try:
        cancelled = await guest.asking(lambda: guest.reservations.cancel(booked.id))
    except TooLate:
        assert booked.stay.arrival <= TODAY, f"cannot be cancelled: {booked}"
        return
    due = booked.total if booked.free_until >= TODAY else booked.total - booked.price
    assert booked.stay.arrival > TODAY, f"cancelled on the day of arrival: {cancelled}"
    assert (cancelled.id, cancelled.state, cancelled.refund_due) == (booked.id, "cancelled", due), (
        f"{due} is to be given back; got {cancelled}"
    )
    read = await guest.asking(lambda: guest.reservations.read(booked.id))
    assert (read.state, read.refund_due) == ("cancelled", due), f"cancelled, and read as {read}"


@workload(every=8.0, always=ALWAYS, eventually=EVENTUALLY, settings=SETTINGS)
async def browse(world: Any, random: Random) -> None:
    """Look at what there is: sums are right, nothing that is sold out is offered, and the pages come."""
    city, stay = random.choice(CITIES), _stay(world, random)
    _enter(world)
    found = await world.client(Hotels).search(
        Search(city=city, arrival=stay.arrival, nights=stay.nights, guests=stay.guests, sort="price")
    )
    assert [offer.room.price for offer in found.offers] == sorted(offer.room.price for offer in found.offers)
    for offer in found.offers:
        assert offer.total == offer.room.price * stay.nights, f"a sum is wrong: {offer}"
        assert offer.left is None or 0 < offer.left <= offer.room.count, f"so many cannot be left: {offer}"
        assert offer.hotel.city == city, f"searched in {city}: {offer}"

    left = await world.client(Reservations).availability(stay.hotel_id, stay.arrival, stay.nights, stay.guests)
    hotel = catalogue().hotel(stay.hotel_id)
    assert [each.kind for each in left] == [room.kind for room in hotel.suiting(stay.guests)]
    for each in left:
        room = hotel.room_kind(each.kind)
        assert each.total == room.price * stay.nights, f"a sum is wrong: {each}"
        assert 0 <= each.left <= room.count, f"so many cannot be left: {each}"

    dates = {"arrival": stay.arrival.isoformat(), "nights": str(stay.nights), "guests": str(stay.guests)}
    results = await _page(world, "/search", {"city": city, **dates})
    assert city in results, f"searched in {city}, and got: {results}"
    assert escape(hotel.name) in await _page(world, f"/hotels/{hotel.id}", dates)


class _Visitor:
    """Somebody who has never been here."""

    def __init__(self, world: Any, random: Random) -> None:
        self.subject = f"guest-{random.getrandbits(48):012x}"
        self.reservations = world.client(Reservations, subject=self.subject)
        self._world = world
        self._random = random

    async def book(self, stay: Stay) -> Reservation | None:
        """Book `stay`, sometimes under a key and then as often as it takes; None when it cannot be had.

        Raises RopewalkError when the hotel does not answer, and AssertionError when the answer is strange.
        """
        number = GOOD if self._random.random() < 0.8 else self._random.choice(REFUSED)
        booking = Booking(
            stay, Guest(f"Ann {self.subject}", f"{self.subject}@example.org"), Card(number, "12/29", "123")
        )
        key = f"key of {self.subject}" if self._random.random() < 0.6 else None
        try:
            booked: Reservation = await self.asking(lambda: self.reservations.book(booking), key, ASKS if key else 1)
        except SoldOut:
            return None
        except PaymentDeclined:
            assert number != GOOD, "a card that is good was declined"
            return None
        except NotInState:
            assert key is not None, "refused as tried before, and it was not"
            return None
        self._check(booked, booking)
        return booked

    async def asking(self, call: Callable[[], Awaitable[T]], key: str | None = None, asks: int = ASKS) -> T:
        """What `call()` returns, asked again while the hotel does not answer; NotFound is no answer to a guest."""
        while True:
            asks -= 1
            _enter(self._world, key)
            try:
                return await call()
            except NotFound as error:
                raise AssertionError(f"{self.subject} was told: {error}") from error
            except RopewalkError as error:
                if error.status < 500 or asks <= 0:
                    raise
            await asyncio.sleep(PAUSE)

    def _check(self, booked: Reservation, booking: Booking) -> None:
        room = catalogue().hotel(booking.stay.hotel_id).room_kind(booking.stay.kind)
        got = (booked.state, booked.subject, booked.stay, booked.guest, booked.price, booked.total, booked.refund_due)
        total = room.price * booking.stay.nights
        expected = ("confirmed", self.subject, booking.stay, booking.guest, room.price, total, 0)
        assert got == expected, f"booked {expected}, and got {booked}"
        assert booking.card.number == GOOD, f"booked with a card that is declined: {booked}"
        assert booked.charge_id is not None, f"confirmed, and not paid: {booked}"


async def _page(world: Any, path: str, query: dict[str, str]) -> str:
    """A page as a browser gets it; raises Unavailable when it does not, or reads that something cannot be reached."""
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await world.http.get(f"http://booking-ui:8080{path}?{urlencode(query)}")
            text: str = await reply.text()
    except Exception as error:  # whatever can go wrong on the way: Twisted has no common base for it
        raise Unavailable(f"{path} cannot be reached: {error!r}") from error
    if reply.code >= 500:
        raise Unavailable(f"{path} answered {reply.code}.")
    assert reply.code == 200, f"{path} answered {reply.code}: {text}"
    return text


def _enter(world: Any, key: str | None = None) -> None:
    """What a browser says for its guest: how long it waits, and that this is a repetition."""
    enter_context(Context(key=key, deadline=world.hosts["outside"].seconds() + PATIENCE))


def _stay(world: Any, random: Random) -> Stay:
    hotel_id, kind = random.choice(ROOMS)
    days = 0 if random.random() < 0.1 else int(world.now / MOVES_ON)
    return Stay(
        hotel_id, kind, TODAY + timedelta(days + random.randrange(4)), random.randint(1, 3), random.randint(1, 3)
    )
