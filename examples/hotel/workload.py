"""What guests do to the hotel in a simulation: `ropewalk sim examples/hotel/system.toml -w workload:book`.

    visit    two guests with browsers: sign up, search, book by the form, receipt, mails, cancel, sign out
    book     one stay by the services' own clients, under a key that comes again, and its receipt
    cancel   the same, and then not
    hold     a room kept for a while, and then paid, given back, or left
    browse   a search held against the catalogue and the rooms there are, prices, the clock
    desk     users, mails and payments, asked for what they give and for what they must refuse
    bar      another house charges by the same payments, and takes it back at the same moment
    provider the provider of payments loses its replies, is slow or down for a while

Few rooms and near nights: most guests want what another has or is about to have. What an act asserts is what its guest
would be angry about; what must be true of everybody's rooms and money is in `audit.py`. A guest who meets an error of
the hotel's asks again, if that can be done safely, or gives up. Nobody is promised a mail: that waits for effects that
outlive a process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from itertools import pairwise
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from audit import (
    BAR,
    Room,
    books_of,
    catalogue,
    clocks_agree,
    copied,
    copy_complete,
    copy_founded,
    every_booking_paid,
    every_mail_comes,
    mails_right,
    no_orphan_charges,
    no_room_twice,
    no_saga_left,
    nothing_stuck,
    nothing_undone,
    refunds_right,
    rooms_left,
    rooms_taken,
    sums_right,
    wrong_by,
)
from browser import Browser, Form, Page, drawn
from hotel import ledger, rooms
from hotel.catalogue import Hotel, Offer, Search, folded
from hotel.hotels import Hotels
from hotel.ledger import DECLINED
from hotel.notifications import Letter, Notifications
from hotel.payments import ChargeOrder, ChargeRefused, Payments, Provider, RefundOrder, RefundRefused, WrongCurrency
from hotel.receipts import NothingPaid, Receipts
from hotel.reservations import (
    Booking,
    Card,
    Hold,
    PaymentDeclined,
    PaymentUnavailable,
    Reservation,
    Reservations,
    TooLate,
)
from hotel.rooms import Guest, NotInState, number_of
from hotel.users import Credentials, EmailTaken, SignUp, Users, WrongCredentials
from hotel.words import SoldOut, Stay, written

from ropewalk import Context, DeadlineExceeded, KeyReused, NotFound, RopewalkError, Unauthorized, Unavailable
from ropewalk.context import enter_context
from ropewalk.testing import workload

T = TypeVar("T")

WORKLOADS = (
    "workload:visit",
    "workload:book",
    "workload:cancel",
    "workload:hold",
    "workload:browse",
    "workload:desk",
    "workload:bar",
    "workload:provider",
)

TODAY = date(2026, 5, 1)  # when a World begins, at nine in the morning: nobody simulates until midnight
ROOMS = ((41, "penthouse"), (26, "apartment"), (25, "family"), (6, "family"))  # of which there are 1, 1, 3 and 2
CITIES = ("Barcelona", "Athens", "Amsterdam", "Nowhere")
GOOD = "4242424242424242"
REFUSED = (*sorted(DECLINED), "4242424242424241")  # the last one was mistyped
MOVES_ON = 15.0  # seconds after which the guests want the next day
PATIENCE = 10.0  # seconds a guest waits for an answer: a machine that lost its power never sends one
ASKS = 12  # times that a guest asks
PAUSE = 3.0  # seconds between two of them
HELD = 30  # seconds a room is kept
PASSWORD = "a good password"

ALWAYS = (no_room_twice, every_booking_paid, refunds_right, sums_right, mails_right, nothing_undone, copy_founded)
EVENTUALLY = (nothing_stuck, no_saga_left, no_orphan_charges, every_mail_comes, copy_complete)
SETTINGS = {
    "users": {"time_cost": 1, "memory_cost": 8, "parallelism": 1},
    # What a crash left behind is found within a minute, or two if a clock was wrong.
    "reservations": {"hold": float(HELD), "sweep": 8.0},
    # Slow enough that most faults meet a booking half-way.
    "payments": {"latency": 1.5, "slow": 6.0},
}


def act(
    every: float, trouble: bool = False, without: tuple[str, ...] = ()
) -> Callable[[Callable[[Any, Random], Awaitable[None]]], Any]:
    """A workload of these checks and settings, in which a refusal that nobody foresaw is a bug found."""

    def made(play: Callable[[Any, Random], Awaitable[None]]) -> Any:
        @wraps(play)
        async def judged(world: Any, random: Random) -> None:
            try:
                await play(world, random)
            except RopewalkError as error:
                # What one service says of itself to another holds for some seconds by the clocks of both.
                if type(error) is Unauthorized and not clocks_agree(world, world.now - 60.0):
                    raise Unavailable(
                        "What a service said of itself was written by a clock that goes wrong."
                    ) from error
                _allow(error)
                raise

        checks = {"always": ALWAYS, "eventually": EVENTUALLY}
        return workload(every=every, settings=SETTINGS, trouble=trouble, without=without, **checks)(judged)

    return made


@act(every=20.0)
async def visit(world: Any, random: Random) -> None:
    """Two guests at a time, each with a browser; neither ever sees anything of the other."""
    guests = [_Visit(world, Random(random.getrandbits(64))) for _ in range(2)]
    await _all(*(guest.comes() for guest in guests))
    await _all(*(guest.books() for guest in guests))
    await _all(*(guest.looks() for guest in guests))
    await _all(guests[0].pries(guests[1]), guests[1].pries(guests[0]))
    await _all(*(guest.leaves() for guest in guests))


@act(every=6.0, without=("booking-ui", "notifications", "users"))
async def book(world: Any, random: Random) -> None:
    """Book a stay; what was confirmed stays so, and nobody else's is shown."""
    guest = _Visitor(world, random)
    booked = await guest.book(_stay(world, random))
    if booked is None:
        return
    await asyncio.sleep(random.uniform(0.0, 15.0))

    read = await guest.asking(lambda: guest.reservations.read(booked.id))
    assert read == booked, f"booked as {booked}, and read as {read}"
    listed = await guest.asking(lambda: guest.reservations.mine())
    assert listed == [booked], f"{guest.subject} booked {booked.id} alone, and finds {listed}"
    assert await guest.asking(lambda: guest.reservations.mine(2)) == [], "one booking fills two pages"
    await guest.receipt(booked)

    stranger = world.client(Reservations, subject="somebody else")
    await _refused(stranger.read(booked.id), NotFound)
    await _refused(stranger.cancel(booked.id), NotFound)
    await _refused(world.client(Receipts, subject="somebody else").receipt(booked.id), NotFound)
    more = RefundOrder(UUID(int=random.getrandbits(128)), booked.total + 1)
    await _refused(world.client(Payments).refund(booked.charge_id, more), RefundRefused)
    await _refused(guest.reservations.release(booked.id), NotInState)


@act(every=10.0, without=("booking-ui", "notifications", "users"))
async def cancel(world: Any, random: Random) -> None:
    """Book a stay, and cancel it; what is given back is what was promised."""
    guest = _Visitor(world, random)
    booked = await guest.book(_stay(world, random))
    if booked is None:
        return
    await asyncio.sleep(random.uniform(0.0, 15.0))

    times = random.choice((1, 1, 2))
    try:
        cancelled: Reservation = await guest.asking(
            lambda: _at_once(times, lambda: guest.reservations.cancel(booked.id))
        )
    except TooLate:
        assert booked.stay.arrival <= TODAY, f"cannot be cancelled: {booked}"
        return
    due = _due(booked)
    assert booked.stay.arrival > TODAY, f"cancelled on the day of arrival: {cancelled}"
    got = (cancelled.id, cancelled.state, cancelled.refund_due, cancelled.charge_id)
    assert got == (booked.id, "cancelled", due, booked.charge_id), f"{due} is to be given back; got {cancelled}"
    read = await guest.asking(lambda: guest.reservations.read(booked.id))
    assert (read.state, read.refund_due) == ("cancelled", due), f"cancelled, and read as {read}"
    assert [read.id] == [each.id for each in await guest.asking(lambda: guest.reservations.mine())]
    assert read.refunded in (0, due), f"given back is {read}"
    await guest.receipt(read)
    await _refused(world.client(Receipts, subject="somebody else").receipt(booked.id), NotFound)
    again = await guest.asking(lambda: guest.reservations.cancel(booked.id))
    assert (again.state, again.refund_due) == ("cancelled", due), f"cancelled twice, and is {again}"


@act(every=9.0, without=("booking-ui", "notifications", "users"))
async def hold(world: Any, random: Random) -> None:
    """Keep a room; then pay it, give it back, or let it be: then it is free again, and not before."""
    guest = _Visitor(world, random)
    held = await guest.hold(_stay(world, random))
    if held is None:
        return
    await _refused(world.client(Reservations, subject="somebody else").read(held.id), NotFound)
    await _refused(world.client(Receipts, subject=guest.subject).receipt(held.id), NothingPaid)
    ending = random.choice((guest.pay_hold, guest.release_hold, guest.let_be, guest.let_be))
    await ending(held)


@act(every=14.0, without=("notifications", "payments", "receipts", "users"))
async def browse(world: Any, random: Random) -> None:
    """Look at what there is: the search finds all there is and nothing else, sums are right, and the pages come."""
    city, stay = random.choice(CITIES), _stay(world, random)
    hotels = world.client(Hotels)
    _enter(world)
    await _search(world, _wanted(random, city, stay))
    for number, _ in ROOMS:
        await _availability(world, number, stay)

    hotel = catalogue().hotel(stay.hotel_id)
    assert await hotels.read(hotel.id) == hotel
    assert await hotels.cities() == catalogue().cities
    assert await hotels.room_kinds(hotel.id, stay.guests) == [r for r in hotel.room_kinds if r.sleeps >= stay.guests]
    await _refused(hotels.read(99_999), NotFound)
    one, two = [await hotels.photo(hotel.id) for _ in range(2)]
    assert (one.body == two.body, bytes(one.body)[:4]) == (True, b"<svg"), f"a drawing of {hotel.id}: {one.body!r}"
    await _tells_the_time(world)

    browser = Browser(world, random, _tag(random))
    offered = hotel.city in (await browser.open("/")).text
    dates = {"arrival": stay.arrival.isoformat(), "nights": str(stay.nights), "guests": str(stay.guests)}
    results = await browser.open(f"/search?{urlencode({'city': city, **dates})}")
    assert city in results.text, f"searched in {city}, and got: {results.text}"
    assert hotel.name in (await browser.open(f"/hotels/{hotel.id}?{urlencode(dates)}")).text
    for path, status in (("/", 200), ("/nowhere", 404), ("/hotels/99999", 404), (f"/hotels/{hotel.id}/photo.svg", 200)):
        page = await browser.open(path)
        assert page.status == status, f"{path} is {page.status}: {page.body[:300]!r}"
    if not offered:
        raise Unavailable("No city was offered to begin with.")


@act(every=22.0)
async def desk(world: Any, random: Random) -> None:
    """Users, mails and payments: each gives to whom it belongs, and refuses the others."""
    tag = _tag(random)
    await _signs_up(world, random, tag)
    await _writes(world, random, tag)

    payments, nobody = world.client(Payments), UUID(int=random.getrandbits(128))
    _enter(world)
    order = ChargeOrder(nobody, 500, "USD", Card(GOOD, "12/29", "123"), "in another currency")
    await _refused(payments.charge(order), WrongCurrency)
    await _refused(payments.read(nobody), NotFound)
    await _refused(payments.refund(nobody, RefundOrder(nobody, 1)), NotFound)
    assert isinstance(await payments.mode(), Provider)
    with suppress(DeadlineExceeded):  # there may be more to settle than there is time
        assert await world.client(Reservations).sweep() >= 0


@act(every=25.0, without=("booking-ui", "hotels", "notifications", "receipts", "reservations", "users"))
async def bar(world: Any, random: Random) -> None:
    """Order a drink at the bar, which has no rooms, and send it back while it is charged: nothing is, in the end."""
    payments, drink = world.client(Payments), UUID(int=random.getrandbits(128), version=BAR)
    order = ChargeOrder(drink, 900, "EUR", Card(GOOD, "12/29", "123"), "a drink")

    async def charged() -> None:
        with suppress(ChargeRefused):
            _enter(world)
            await payments.charge(order)

    async def voided() -> None:
        await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.1, 1.0)) * random.random())
        while True:
            try:
                _enter(world)
                assert (await payments.void(drink)).refunded in (0, order.amount)
                return
            except RopewalkError as error:
                _allow(error)
            await asyncio.sleep(PAUSE)

    await _all(*(random.sample((charged(), voided()), 2)))


@act(every=40.0, trouble=True)
async def provider(world: Any, random: Random) -> None:
    """The provider of payments fails as providers do, and works again later."""
    await _switch(world, random.choice(("losing-replies", "losing-replies", "slow", "down")), ASKS)
    await asyncio.sleep(random.uniform(2.0, 10.0))
    while not await _switch(world, "working", ASKS):  # it has to be: else no refund would ever be paid
        await asyncio.sleep(PAUSE)


class _Visitor:
    """Somebody who has never been here, and calls the services."""

    def __init__(self, world: Any, random: Random) -> None:
        self.subject = _tag(random)
        self.reservations = world.client(Reservations, subject=self.subject)
        self._world = world
        self._random = random

    async def book(self, stay: Stay) -> Reservation | None:
        """Book `stay`, sometimes under a key and then as often as it takes; None when it cannot be had.

        Raises RopewalkError when the hotel does not answer, and AssertionError when the answer is strange.
        """
        number = GOOD if self._random.random() < 0.8 else self._random.choice(REFUSED)
        booking = Booking(stay, self._guest(), Card(number, "12/29", "123"))
        key = f"key of {self.subject}" if self._random.random() < 0.6 else None
        times = 2 if key and self._random.random() < 0.4 else 1
        try:
            booked: Reservation = await self.asking(
                lambda: _at_once(times, lambda: self.reservations.book(booking)), key, ASKS if key else 1
            )
        except SoldOut:
            return None
        except PaymentDeclined:
            assert number != GOOD, "a card that is good was declined"
            return None
        self._check(booked, booking)
        if key is not None:
            await self._again(key, booked, booking)
        return booked

    async def hold(self, stay: Stay) -> Reservation | None:
        """Keep a room; None when it cannot be had."""
        wanted = Hold(stay, self._guest())
        key = f"key of {self.subject}" if self._random.random() < 0.6 else None
        times = 2 if key and self._random.random() < 0.4 else 1
        began = self._wall()
        try:
            held: Reservation = await self.asking(
                lambda: _at_once(times, lambda: self.reservations.hold(wanted)), key, ASKS if key else 1
            )
        except SoldOut:
            return None
        assert (held.stay, held.guest, held.subject) == (stay, wanted.guest, self.subject), f"holds {held}"
        assert held.total == held.price * stay.nights, f"a sum is wrong: {held}"
        assert (held.state, held.charge_id) == ("held", None), f"just held: {held}"
        wrong = wrong_by(self._world)
        assert held.held_until - held.made_at == timedelta(seconds=HELD), f"held for another time: {held}"
        assert began - wrong <= held.made_at.timestamp() <= self._wall() + wrong, f"when was that? {held}"
        return held

    async def pay_hold(self, held: Reservation) -> None:
        """Charge a card and confirm; when that comes too late, give the money back, however long it takes."""
        payments = self._world.client(Payments)
        order = ChargeOrder(held.id, held.total, held.currency, Card(GOOD, "12/29", "123"), f"Stay {held.number}")
        try:
            charge = await self.asking(lambda: payments.charge(order))
            got = (charge.reference, charge.amount, charge.currency, charge.last4)
            assert got == (held.id, held.total, held.currency, GOOD[-4:]), f"charged {charge} for {held}"
            known = await self.asking(lambda: payments.read(charge.id))
            assert (known.id, known.reference, known.amount) == (charge.id, held.id, held.total), f"read as {known}"
            booked = await self.asking(lambda: self.reservations.confirm(held.id, charge.id))
        except RopewalkError as error:
            _allow(error, NotInState, Unauthorized)
            while not await self._settled(payments, held):
                await asyncio.sleep(PAUSE)
            return
        assert (booked.state, booked.charge_id, booked.held_until) == ("confirmed", charge.id, None), f"got {booked}"
        await _refused(self.reservations.release(held.id), NotInState)
        await self.receipt(booked)

    async def release_hold(self, held: Reservation) -> None:
        """Give it back."""
        try:
            released = await self.asking(lambda: self.reservations.release(held.id))
        except NotInState as error:
            _allow(error, *[NotInState] * (error.members["state"] == "expired"))
            return
        assert (released.state, released.held_until) == ("released", None), f"given back: {released}"
        assert await self.asking(lambda: self.reservations.mine()) == [], "what was given back is listed"
        await _refused(self.reservations.confirm(held.id, UUID(int=1)), NotInState)

    async def let_be(self, held: Reservation) -> None:
        """Wait until it is given to others. That it comes to that is for `nothing_stuck` to say."""
        for _ in range(ASKS):
            read = await self.asking(lambda: self.reservations.read(held.id))
            assert read.state in ("held", "expired"), f"nobody did anything, and it is {read}"
            listed = await self.asking(lambda: self.reservations.mine())
            assert listed in ([], [held]), f"holds {held}, and finds {listed}"
            if read.state == "expired":
                assert await self.asking(lambda: self.reservations.mine()) == [], "what has expired is listed"
                await _refused(self.reservations.confirm(held.id, UUID(int=1)), NotInState)
                await _refused(self.reservations.release(held.id), NotInState)
                return
            assert read == held, f"held as {held}, and read as {read}"
            await asyncio.sleep(HELD / 6)

    async def receipt(self, booked: Reservation) -> None:
        """Read the receipt: its figures are those of the ledger, and of the reservation."""
        receipts = self._world.client(Receipts, subject=self.subject)
        before = _given_back(self._world, booked)
        document = await self.asking(lambda: receipts.receipt(booked.id))
        _check_receipt(bytes(document.body), booked, {before, _given_back(self._world, booked)})

    async def asking(self, call: Callable[[], Awaitable[T]], key: str | None = None, asks: int = ASKS) -> T:
        """What `call()` returns, asked again while the hotel does not answer; NotFound is no answer to a guest."""
        while True:
            asks -= 1
            _enter(self._world, key)
            try:
                return await call()
            except NotFound as error:
                raise AssertionError(f"{self.subject} was told: {error}") from error
            except PaymentUnavailable:
                raise  # given up, and under this key for good
            except RopewalkError as error:
                if error.status < 500 or asks <= 0:
                    raise
            await asyncio.sleep(PAUSE)

    async def _again(self, key: str, booked: Reservation, booking: Booking) -> None:
        """The same under the same key is the same; another stay under it is refused."""
        same = await self.asking(lambda: self.reservations.book(booking), key)
        assert same == booked, f"booked as {booked}, and once more as {same}"
        other = msgspec.structs.replace(booking.stay, nights=booking.stay.nights + 1)
        with suppress(KeyReused):
            got = await self.asking(lambda: self.reservations.book(msgspec.structs.replace(booking, stay=other)), key)
            raise AssertionError(f"the key of {booked} was used for {got}")

    async def _settled(self, payments: Any, held: Reservation) -> bool:
        """Whether it is certain that nothing is paid for what is not confirmed."""
        try:
            _enter(self._world)
            read = await self.reservations.read(held.id)
            if read.state != "confirmed":
                with suppress(NotInState):
                    _enter(self._world)
                    await self.reservations.release(held.id)
                _enter(self._world)
                read = await self.reservations.read(held.id)
                if read.state == "held":
                    return False
        except RopewalkError as error:
            _allow(error, Unauthorized)
            return False
        return read.state == "confirmed" or await self._voided(payments, held)

    async def _voided(self, payments: Any, held: Reservation) -> bool:
        try:
            _enter(self._world)
            voided = await payments.void(held.id)
        except RopewalkError as error:
            _allow(error, Unauthorized)
            return False
        assert voided.refunded in (0, held.total), f"{held.total} was to be given back: {voided}"
        return True

    def _guest(self) -> Guest:
        return Guest(f"Ann {self.subject}", f"{self.subject.capitalize()}@example.org")

    def _wall(self) -> float:
        return float(self._world.wall(self._world.hosts["outside"]))

    def _check(self, booked: Reservation, booking: Booking) -> None:
        hotel = catalogue().hotel(booking.stay.hotel_id)
        room = hotel.room_kind(booking.stay.kind)
        got = (booked.state, booked.subject, booked.stay, booked.guest, booked.price, booked.total, booked.refund_due)
        total = room.price * booking.stay.nights
        expected = ("confirmed", self.subject, booking.stay, booking.guest, room.price, total, 0)
        assert got == expected, f"booked {expected}, and got {booked}"
        assert booking.card.number == GOOD, f"booked with a card that is declined: {booked}"
        assert booked.charge_id is not None, f"confirmed, and not paid: {booked}"
        names = (booked.number, booked.hotel_name, booked.city, booked.room_name, booked.currency)
        assert names == (number_of(booked.id), hotel.name, hotel.city, room.name, hotel.currency), f"got {names}"
        assert booked.free_until == booking.stay.arrival - timedelta(2), f"free to cancel until when? {booked}"


class _Visit:
    """Somebody with a browser."""

    def __init__(self, world: Any, random: Random) -> None:
        self.tag = _tag(random)
        self.email = f"{self.tag}@example.org"
        self.booked: UUID | None = None
        self.stay: Stay | None = None
        self.mails: list[str] = []  # paths
        self._browser = Browser(world, random, self.tag)
        self._world = world
        self._random = random

    async def comes(self) -> None:
        """Sign up, sometimes twice at once, and sign in if that is needed; nothing is booked yet."""
        await self._browser.open("/")
        asked = await self._browser.open("/bookings")
        assert asked.path.startswith("/sign-in"), f"somebody unknown is shown {asked.path}"
        await self._signs_up()
        if not self._browser.signed_in or self._random.random() < 0.3:
            await self._signs_in()
        page = await self._browser.open("/bookings")
        assert "Nothing booked yet" in page.text, f"{self.tag} has booked nothing, and sees {page.text}"

    async def books(self) -> None:
        """Find a room and book it by the form, with an impatient finger; at the end it is one booking, or none."""
        link = await self._finds()
        if link is None:
            return
        page = await self._browser.open(link)
        number = GOOD if self._random.random() < 0.85 else self._random.choice(REFUSED)
        for _ in range(6):
            form = page.form("/book")
            assert form is not None, f"{page.path} ({page.status}): {page.text}"
            assert page.status in (200, 402, 503), f"{page.path} ({page.status}): {page.text}"
            assert self._price() in page.text, f"{self._price()} is the price, and the page says {page.text}"
            page = await self._presses(form, number)
            found = self._booking_of(page)
            if found is not None:
                assert number == GOOD, f"booked with a card that is declined: {page.text}"
                self.booked = found
                return
            if page.status == 409:
                assert "This cannot be booked" in page.text, f"refused without a reason: {page.text}"
                return
            if page.status == 402:
                assert "Your card was declined" in page.text, f"declined without a word: {page.text}"
                assert number != GOOD, "a card that is good was declined"
                number = GOOD
            await asyncio.sleep(PAUSE)
        raise Unavailable(f"{self.tag} could not book.")

    async def looks(self) -> None:
        """One's own bookings, the booking, its receipt, the mails."""
        if self.booked is None:
            return
        number, total = number_of(self.booked), self._price()
        page = await self._browser.open("/bookings")
        assert set(_ids(page)) == {self.booked}, f"{self.tag} booked {self.booked} alone, and sees {page.text}"
        for words in (number, total, "Booked"):
            assert words in page.text, f"{words} is missing in {page.text}"
        page = await self._browser.open(f"/bookings/{self.booked}")
        for words in (number, total, "Your room is booked", self.tag, self._hotel().name):
            assert words in page.text, f"{words} is missing in {page.text}"
        await self._receipt()
        await self._reads_mails({f"Booked: {number}"})

    async def pries(self, other: _Visit) -> None:
        """Try the addresses of what is another's: nothing lies there."""
        if other.booked is None:
            return
        theirs = f"/bookings/{other.booked}"
        paths = [theirs, f"{theirs}/receipt.pdf", f"{theirs}/cancel", *other.mails]
        for path in self._random.sample(paths, 3):
            page = await self._browser.open(path)
            assert page.status in (403, 404), f"{path} is {other.tag}'s, and {self.tag} is shown {page.text}"
        page = await self._browser.open("/")
        form = page.form("/sign-out")
        assert form is not None, f"no way to sign out: {page.text}"
        page = await self._browser.press(Form(f"{theirs}/cancel", form.fields))
        assert page.status in (403, 404) or page.status >= 500, f"{self.tag} cancels for {other.tag}: {page.text}"

    async def leaves(self) -> None:
        """Cancel, perhaps, sign out, and be shown nothing any more."""
        if self.booked is not None and self._random.random() < 0.6:
            await self._cancels()
        page = await self._browser.open("/")
        form = page.form("/sign-out")
        assert form is not None, f"signed in, and no way to sign out: {page.text}"
        page = await self._browser.press(form)
        if page.status >= 500:
            raise Unavailable(f"{self.tag} cannot sign out.")
        self._browser.signed_in = False
        own = [] if self.booked is None else [f"/bookings/{self.booked}", f"/bookings/{self.booked}/receipt.pdf"]
        for path in self._random.sample(["/bookings", "/mailbox", *own], 2):
            page = await self._browser.open(path)
            assert page.path.startswith("/sign-in"), f"signed out, and {path} shows {page.text}"

    # -- parts of these

    async def _signs_up(self) -> None:
        sure, asked = True, 0  # whether the answers leave no doubt; how often it was asked
        for _ in range(4):
            form = (await self._browser.open("/sign-up?next=/bookings")).form("/sign-up")
            assert form is not None
            typed = {"name": f"Ann {self.tag}", "email": self.email, "password": PASSWORD}
            times = 2 if self._random.random() < 0.3 else 1
            pages, silent = await _each(*(self._browser.send(form, **typed) for _ in range(times)))
            asked += times
            sure = sure and not silent and all(page.status < 500 for page in pages)
            welcome = [page for page in pages if page.status == 200 and page.path == "/bookings"]
            taken = [page for page in pages if page.status == 409]
            assert not sure or len(welcome) == 1, f"signed up {asked} times: {[page.text for page in pages]}"
            if welcome or taken:
                self._browser.signed_in = bool(welcome) and times == 1
                break
            await asyncio.sleep(PAUSE)
        else:
            raise Unavailable(f"{self.tag} cannot sign up.")
        form = (await self._browser.open("/sign-up")).form("/sign-up")
        assert form is not None
        page = await self._browser.press(form, name="Ann", email=self._shouted(), password="another password")
        assert page.status in (409, 502, 503, 504), f"one address, two users: {page.text}"

    async def _signs_in(self) -> None:
        form = (await self._browser.open("/sign-in?next=/bookings")).form("/sign-in")
        assert form is not None
        page = await self._browser.press(form, email=self.email, password="a wrong password")
        assert page.status in (422, 502, 503, 504), f"a wrong password opens {page.path}: {page.text}"
        page = await self._browser.press(form, email=self._shouted(), password=PASSWORD)
        if page.status == 403:  # it was done, the answer was lost on its way on, and the form is of the session before
            page = await self._browser.open("/bookings")
        if page.status >= 500:
            raise Unavailable(f"{self.tag} cannot sign in.")
        assert (page.status, page.path) == (200, "/bookings"), f"{self.tag} has signed up: {page.path}: {page.text}"
        self._browser.signed_in = True

    async def _finds(self) -> str | None:
        """The address of the form for a room that is free: the wanted one, or another of that house."""
        stay = _stay(self._world, self._random)
        dates = {"arrival": stay.arrival.isoformat(), "nights": str(stay.nights), "guests": str(stay.guests)}
        page = await self._browser.open(f"/hotels/{stay.hotel_id}?{urlencode(dates)}")
        links = page.links("/book?")
        if not links:
            assert "Sold out" in page.text or "cannot be told" in page.text, f"no way to book: {page.text}"
            return None
        link = next((link for link in links if f"kind={stay.kind}" in link), self._random.choice(links))
        (kind,) = [room.kind for room in self._hotel(stay).room_kinds if f"kind={room.kind}&" in f"{link}&"]
        self.stay = msgspec.structs.replace(stay, kind=kind)
        return link

    async def _presses(self, form: Form, number: str) -> Page:
        """The page at which it ends: the same form is sent until somebody says something."""
        card = {"name": f"Ann {self.tag}", "email": self.email, "number": number, "expiry": "12 / 29", "cvc": "123"}
        for _ in range(ASKS):
            times = 2 if self._random.random() < 0.3 else 1
            pages, _ = await _each(*(self._browser.send(form, **card) for _ in range(times)))
            ids = {found for page in pages if (found := self._booking_of(page)) is not None}
            assert len(ids) < 2, f"one form, and the bookings {ids}"
            for page in sorted(pages, key=lambda page: page.status):
                if page.path.startswith("/sign-in"):
                    raise self._browser.lost()
                if page.form("/book") is not None or self._booking_of(page) is not None:
                    return page
                assert page.status >= 500, f"a form was sent, and {page.path} ({page.status}) says {page.text}"
            await asyncio.sleep(PAUSE)
        raise Unavailable(f"{self.tag} gets no answer.")

    def _booking_of(self, page: Page) -> UUID | None:
        """Which booking one is led to, though its page may not be shown at the moment."""
        name = page.path.removeprefix("/bookings/")
        return UUID(name) if name != page.path and len(name) == 36 else None

    async def _receipt(self) -> None:
        assert self.booked is not None
        mine = self._world.database("reservations").peek(rooms.read, self.booked)
        before = _given_back(self._world, mine)
        page = await self._browser.open(f"/bookings/{self.booked}/receipt.pdf")
        assert (page.status, page.kind) == (200, "application/pdf"), f"no receipt: {page.body[:300]!r}"
        _check_receipt(page.body, mine, {before, _given_back(self._world, mine)})

    async def _reads_mails(self, expected: set[str]) -> None:
        """Any of the expected and no other, each at most once: a mail may be lost."""
        page = await self._browser.open("/mailbox")
        self.mails = page.links("/mailbox/")
        opened = [await self._browser.open(path) for path in self.mails]
        for page in opened:
            assert page.status == 200, f"a mail of {self.tag}'s: {page.text}"
            assert self.tag in page.text, f"a mail of {self.tag}'s: {page.text}"
        subjects = Counter(page.text.partition(" · ")[0] for page in opened)
        assert all(count == 1 for count in subjects.values()), f"a mail came twice: {subjects}"
        for subject in subjects:
            assert any(subject.startswith(each) for each in expected), f"not one of {expected}: {subject}"

    async def _cancels(self) -> None:
        assert self.booked is not None
        assert self.stay is not None
        page = await self._browser.open(f"/bookings/{self.booked}/cancel")
        form = page.form(f"/bookings/{self.booked}/cancel")
        assert form is not None, f"cannot be cancelled: {page.text}"
        room = self._hotel().room_kind(self.stay.kind)
        free = TODAY <= self.stay.arrival - timedelta(2)
        due = room.price * (self.stay.nights - (0 if free else 1))
        said = _euros(due) if due else "nothing is given back"
        assert said in page.text or "everything but the first night" in page.text, f"{said}: {page.text}"
        times = 2 if self._random.random() < 0.3 else 1
        pages, _ = await _each(*(self._browser.press(form) for _ in range(times)))
        for page in pages:
            if page.status == 409:
                assert self.stay.arrival <= TODAY, f"cannot be cancelled: {page.text}"
                return
        if not any(page.path == f"/bookings/{self.booked}" for page in pages):
            raise Unavailable(f"{self.tag} cannot cancel.")
        page = await self._browser.open(f"/bookings/{self.booked}")
        for words in ("This booking is cancelled", f"You get back {_euros(due)}"):
            assert words in page.text, f"{words}: {page.text}"
        number = number_of(self.booked)
        assert set(_ids(await self._browser.open("/bookings"))) == {self.booked}
        await self._receipt()
        await self._reads_mails({f"Booked: {number}", f"Cancelled: {number}"})

    def _hotel(self, stay: Stay | None = None) -> Hotel:
        stay = stay or self.stay
        assert stay is not None
        return catalogue().hotel(stay.hotel_id)

    def _price(self) -> str:
        assert self.stay is not None
        return _euros(self._hotel().room_kind(self.stay.kind).price * self.stay.nights)

    def _shouted(self) -> str:
        return self._random.choice((self.email, self.email.upper(), self.email.capitalize()))


# -- browsing


def _wanted(random: Random, city: str, stay: Stay) -> Search:
    return Search(
        city=random.choice((city, city.upper(), f" {city.lower()}")),
        arrival=stay.arrival,
        nights=stay.nights,
        guests=stay.guests,
        max_price=random.choice((None, None, 20_000, 45_000)),
        stars=random.choice((None, None, 4)),
        amenities=random.choice(((), (), ("wifi",), ("pool", "bar"))),
        sort=random.choice(("recommended", "price", "price-down", "stars", "name")),
        page=random.choice((1, 1, 2)),
        per_page=random.choice((5, 10, 50)),
    )


async def _availability(world: Any, hotel_id: int, stay: Stay) -> None:
    """So many rooms are left as there are without those that are taken."""
    hotel, began = catalogue().hotel(hotel_id), _states(world)
    counted = rooms_left(rooms_taken(world), hotel.id, stay.arrival, stay.nights)
    left = await world.client(Reservations).availability(hotel.id, stay.arrival, stay.nights, stay.guests)
    quiet = began == _states(world)
    assert [each.kind for each in left] == [room.kind for room in hotel.room_kinds if room.sleeps >= stay.guests]
    for each in left:
        room = hotel.room_kind(each.kind)
        assert (each.price, each.total) == (room.price, room.price * stay.nights), f"a sum is wrong: {each}"
        assert 0 <= each.left <= room.count, f"so many cannot be left: {each}"
        assert not quiet or each.left == counted[each.kind], f"{counted[each.kind]} are left, and told is {each}"


def _states(world: Any) -> dict[Any, str]:
    """What tells whether anything was taken or given back: no state comes a second time."""
    return {each.id: each.state for each in books_of(world).booked.values()}


async def _search(world: Any, search: Search) -> None:
    """A page of a search is just what the catalogue and the search's own copy of the rooms taken make of it."""
    began = copied(world)
    expected = _expected(search, [room for rooms in began.values() for room in rooms]), _expected(search, None)
    found = await world.client(Hotels).search(search)
    for offer in found.offers:
        assert offer.total == offer.room.price * search.nights, f"a sum is wrong: {offer}"
        assert offer.left is None or 0 < offer.left <= offer.room.count, f"so many cannot be left: {offer}"
    if began != copied(world):
        return  # it has heard of something meanwhile, and nobody can say whether before or after
    first = (search.page - 1) * search.per_page
    got = found.total, [(offer.hotel.id, offer.room.kind, offer.left) for offer in found.offers]
    allowed = [
        (len(all_), [(o.hotel.id, o.room.kind, o.left) for o in all_[first : first + search.per_page]])
        for all_ in expected
    ]
    assert got in allowed, (
        f"{search} finds {got}; there is {allowed[0]}, or {allowed[1]} while nobody knows what is free"
    )
    assert (found.page, found.pages) == (search.page, max(1, -(-found.total // search.per_page))), f"{found}"


def _expected(search: Search, taken: list[Room] | None) -> list[Offer]:
    """All that suits, in order; `taken` is None while that is not known."""
    offers: list[Offer] = []
    for number in range(1, 321):
        hotel = catalogue().hotel(number)
        if folded(hotel.city) != folded(search.city) or hotel.stars < (search.stars or 0):
            continue
        if not set(search.amenities) <= set(hotel.amenities):
            continue
        left = {} if taken is None else rooms_left(taken, hotel.id, search.arrival, search.nights)
        for room in hotel.room_kinds:
            dear = search.max_price is not None and room.price > search.max_price
            if room.sleeps >= search.guests and not dear and left.get(room.kind, 1) > 0:
                offers.append(Offer(hotel, room, room.price * search.nights, left.get(room.kind)))
                break
    orders: dict[str, Callable[[Offer], Any]] = {
        "recommended": lambda offer: (-offer.hotel.score, offer.room.price),
        "price": lambda offer: offer.room.price,
        "price-down": lambda offer: -offer.room.price,
        "stars": lambda offer: (-offer.hotel.stars, offer.room.price),
        "name": lambda offer: folded(offer.hotel.name),
    }
    return sorted(offers, key=orders[search.sort])


async def _tells_the_time(world: Any) -> None:
    began = world.wall(world.hosts["outside"])
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await world.http.get("sibling://clock/now")
            text = await reply.text()
    except Exception as error:  # whatever can go wrong on the way: Twisted has no common base for it
        raise Unavailable(f"The clock cannot be reached: {error!r}") from error
    if reply.code >= 500:
        raise Unavailable(f"The clock answered {reply.code}.")
    told, ended, wrong = datetime.fromisoformat(text).timestamp(), world.wall(world.hosts["outside"]), wrong_by(world)
    assert began - wrong <= told <= ended + wrong, f"it is {ended:.0f}, and the clock says {text}"


# -- the desk


async def _signs_up(world: Any, random: Random, tag: str) -> None:
    """Sign up, perhaps twice at once: one of them is a user, and known by address and password."""
    users = world.client(Users)
    person = SignUp(f"{tag.capitalize()}@Example.org", f"Ann {tag}", PASSWORD)
    _enter(world)
    made, errors = await _each(*(users.sign_up(person) for _ in range(random.choice((1, 2)))))
    for error in errors:
        _allow(error, EmailTaken)
    assert len(made) < 2, f"one address, and the users {made}"
    _enter(world)
    await _refused(users.read(UUID(int=random.getrandbits(128))), NotFound)
    _enter(world)
    await _refused(users.sign_in(Credentials(person.email, "a wrong password")), WrongCredentials)
    if not made:
        return
    (user,) = made
    assert (user.email, user.name) == (person.email.lower(), person.name), f"signed up {person}, and got {user}"
    _enter(world)
    assert await users.sign_in(Credentials(person.email.upper(), PASSWORD)) == user
    _enter(world)
    assert await users.read(user.id) == user
    await _refused(users.sign_up(SignUp(person.email.upper(), "Bob", "another password")), EmailTaken)


async def _writes(world: Any, random: Random, tag: str) -> None:
    """Two mails to one address: they lie there, the newer one first, and for nobody else."""
    notifications, to = world.client(Notifications), f"{tag}@example.org"
    _enter(world)
    sent = []
    for number in (1, 2):
        letter = Letter(f"{tag.capitalize()}@example.org", f"Mail {number}", f"Dear {tag},\n\nhello.", _now(world))
        mail = await notifications.send(letter)
        got = (mail.to, mail.subject, mail.body, mail.written_at, mail.reservation_id)
        assert got == (letter.to, letter.subject, letter.body, letter.written_at, None), f"{letter}: {mail}"
        sent.append(mail)
    assert await notifications.mailbox(to.upper()) == sent[::-1], f"sent {sent}"
    assert await notifications.mailbox(to, 2) == []
    assert await notifications.read(sent[0].id, to) == sent[0]
    await _refused(notifications.read(sent[0].id, "somebody@example.org"), NotFound)
    assert await notifications.mailbox(f"{tag}x@example.org") == []


async def _switch(world: Any, mode: str, asks: int) -> bool:
    """Tell the provider how to behave; whether it has heard."""
    told = msgspec.json.encode(Provider(mode))  # type: ignore[arg-type]
    for _ in range(asks):
        with suppress(Exception):  # whatever can go wrong on the way: Twisted has no common base for it
            async with asyncio.timeout(PATIENCE):
                reply = await world.http.put("sibling://payments/provider", data=told)
                body = await reply.content()  # always: a reply that nobody reads keeps its connection
                if reply.code == 200 and msgspec.json.decode(body, type=Provider).mode == mode:
                    return True
        await asyncio.sleep(PAUSE)
    return False


# -- receipts


def _given_back(world: Any, booked: Reservation) -> int:
    """What the ledger has given back of what a reservation was paid with."""
    charge = world.database("payments").peek(ledger.read, booked.charge_id)
    return int(charge.refunded)


def _check_receipt(pdf: bytes, booked: Reservation, refunded: set[int]) -> None:
    """Its names and figures are those of the reservation and of the ledger."""
    texts, money = drawn(pdf), lambda amount: written(amount, booked.currency)
    lines = dict(pairwise(texts))
    assert {f"Receipt {booked.number}", booked.guest.name} <= set(texts), f"a receipt of another's: {texts}"
    assert lines.get("Arrival") == booked.stay.arrival.isoformat(), f"a receipt of another stay: {texts}"
    room = f"{booked.room_name}, {booked.stay.nights} x {money(booked.price)}"
    assert lines.get(room) == money(booked.total), f"{room}: {texts}"
    assert lines.get("Paid by card ending in 4242") == f"- {money(booked.total)}", f"paid is {booked.total}: {texts}"
    assert booked.state == "confirmed" or lines.get("State") == booked.state, f"{booked.state}: {texts}"
    if lines.get("State") == "cancelled":
        due = _due(booked)
        assert lines.get("Cancelled") == _signed(-due, money), f"{due} is not kept: {texts}"
        back = lines.get("Given back to the card")
        assert back in {money(amount) for amount in refunded}, f"given back is {refunded}: {texts}"
        assert lines.get("Balance") in {_signed(amount - due, money) for amount in refunded}, (
            f"{due}, {refunded}: {texts}"
        )
    else:
        assert lines.get("Balance") == money(0), f"paid is paid: {texts}"


def _signed(amount: int, money: Callable[[int], str]) -> str:
    return money(amount) if amount >= 0 else f"- {money(-amount)}"


# -- what all of them need


async def _all(*acts: Awaitable[None]) -> None:
    """All of them at once, to their end; raises a bug rather than a hotel that does not answer."""
    results = await asyncio.gather(*acts, return_exceptions=True)
    errors = [each for each in results if isinstance(each, BaseException)]
    for error in sorted(errors, key=lambda each: isinstance(each, RopewalkError) and each.status >= 500):
        raise error


async def _each(*calls: Awaitable[T]) -> tuple[list[T], list[RopewalkError]]:
    """What they return and what the hotel did not answer, all at once; raises any other error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in results if isinstance(each, RopewalkError)]
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, RopewalkError):
            raise each
    return [each for each in results if not isinstance(each, BaseException)], errors


async def _at_once(times: int, call: Callable[[], Awaitable[T]]) -> T:
    """What `times` calls at once return, which is the same reservation; an error when none returns."""
    made, errors = await _each(*(call() for _ in range(times)))
    ids = {getattr(each, "id", None) for each in made}
    assert len(ids) < 2, f"asked for twice at once, and made {made}"
    if made:
        return made[0]
    raise min(errors, key=lambda error: -error.status)


async def _refused(call: Awaitable[Any], *errors: type[RopewalkError]) -> None:
    """Raises AssertionError unless the call is refused with one of these."""
    try:
        got = await call
    except errors:
        return
    except RopewalkError as error:
        _allow(error)
        return
    raise AssertionError(f"{got}, and not {errors[0].__name__}")


def _allow(error: RopewalkError, *foreseen: type[RopewalkError]) -> None:
    """Raises AssertionError unless the hotel could not answer, or refused as is foreseen; Unauthorized ends the act."""
    if type(error) is Unauthorized and Unauthorized not in foreseen:
        raise error
    assert error.status >= 500 or isinstance(error, foreseen), f"refused, and nobody foresaw that: {error!r}"


def _ids(page: Page) -> list[UUID]:
    return [UUID(path[10:]) for path in page.links("/bookings/") if len(path) == 46]


def _due(booked: Reservation) -> int:
    """What cancelling it today gives back."""
    return booked.total if booked.free_until >= TODAY else booked.total - booked.price


def _euros(amount: int) -> str:
    return f"€{amount // 100:,}.{amount % 100:02}"


def _tag(random: Random) -> str:
    return f"guest-{random.getrandbits(48):012x}"


def _now(world: Any) -> datetime:
    return datetime.fromtimestamp(int(world.wall(world.hosts["outside"])), UTC)


def _enter(world: Any, key: str | None = None) -> None:
    """What a browser says for its guest: how long it waits, and that this is a repetition."""
    enter_context(Context(key=key, deadline=world.hosts["outside"].seconds() + PATIENCE))


def _stay(world: Any, random: Random) -> Stay:
    hotel_id, kind = random.choice(ROOMS)
    days = 0 if random.random() < 0.1 else int(world.now / MOVES_ON)
    return Stay(
        hotel_id, kind, TODAY + timedelta(days + random.randrange(4)), random.randint(1, 3), random.randint(1, 3)
    )
