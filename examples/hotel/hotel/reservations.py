"""Holds rooms and books stays: no room is given twice, and nobody pays for a stay that was not booked.

Booking is a saga, `sell`, which begins in the transaction that keeps the room ("pending"): charge the card (in
payments), confirm (here). Whoever books waits for it, but not for long: then the room is free again, the reservation is
"voiding", and the saga, which cannot confirm any more, gives back what was charged, until it is certain that nothing
is: "voided". Cancelling is one, too: `refund` begins with the cancellation, and ends when the money is back.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from functools import partial
from random import Random
from typing import Annotated
from uuid import UUID

from msgspec import Struct
from pydantic import Field
from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ropewalk import (
    Client,
    Conflict,
    Database,
    DeadlineExceeded,
    Flow,
    NotFound,
    Principal,
    RopewalkError,
    Sagas,
    Service,
    Settings,
    Transaction,
    Unauthorized,
    Unavailable,
    get,
    given,
    operation,
    post,
    saga,
    settled,
)
from ropewalk.sagas import SagaParked

from . import rooms
from .catalogue import Hotel, RoomKind
from .hotels import Hotels
from .occupancy import fullest
from .payments import Card, ChargeOrder, PaymentDeclined, Payments, RefundOrder
from .rooms import Guest, NotInState, Reservation, State
from .stays import StayBooked, StayCancelled
from .today import read_clock
from .words import (
    Currency,
    Guests,
    HotelId,
    KindName,
    Line,
    Money,
    Nights,
    Page,
    SoldOut,
    Stay,
    StayNotPossible,
    new_id,
    nights_of,
)

_log = Logger("hotel.reservations")

PATIENCE = 4.0  # seconds in which a card is charged, or not at all
WAITS = 6.0  # seconds in which a guest is told; less than the ten of the operation


class PaymentUnavailable(Unavailable):
    """Raised when payment could not be made and no room is kept; `state` says what became of the money.

    "voided": nothing is charged. "voiding": that is not certain yet; what was charged will be given back.
    """


class TooLate(Conflict):
    """Raised when a stay is cancelled on the day of its arrival or later."""


class Hold(Struct, frozen=True):
    """A stay and who it is for."""

    stay: Stay
    guest: Guest


class Booking(Struct, frozen=True):
    """A stay, who it is for, and what pays for it."""

    stay: Stay
    guest: Guest
    card: Card


class RoomsLeft(Struct, frozen=True):
    """One kind of room of a hotel, and how many of it are left for every night of a stay."""

    kind: KindName
    name: Line
    sleeps: Guests
    price: Money  # of a night
    total: Money  # of the stay
    currency: Currency
    left: int


class ReservationsSettings(Settings):
    """`[settings.reservations]`."""

    hold: float = Field(900.0, gt=0, le=86400)  # seconds a room is kept for somebody who has not paid
    sweep: float = Field(30.0, gt=0, le=3600)  # seconds between two looks at what was kept for too long
    days_ahead: int = Field(500, ge=1, le=5000)  # how far away an arrival may be
    free_days: int = Field(2, ge=0, le=365)  # before arrival, up to which cancelling costs nothing


class Reservations(Service, name="reservations", version="1.0.0"):
    """Holds rooms and books stays."""

    tables = rooms.metadata

    def __init__(
        self,
        settings: ReservationsSettings,
        database: Database,
        hotels: Annotated[Hotels, Client(timeout=2.0)],
        payments: Annotated[Payments, Client(timeout=4.0)],
        sagas: Sagas,
        http: HTTPClient,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self._settings = settings
        self._database = database
        self._hotels = hotels
        self._payments = payments
        self._sagas = sagas
        self._http = http
        self._clock = clock
        self._random = random
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep at intervals."""
        self._sweeper = asyncio.get_running_loop().create_task(self._keep_sweeping())

    async def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await settled(self._sweeper)

    @get("/hotels/<int:hotel_id>/availability", access="public", raises=(NotFound, StayNotPossible, Unavailable))
    async def availability(
        self, hotel_id: HotelId, arrival: date, nights: Nights = 1, guests: Guests = 1
    ) -> list[RoomsLeft]:
        """List a hotel's room kinds that sleep the guests, cheapest first, with the rooms left."""
        nights_of(arrival, nights)
        hotel = await self._hotels.read(hotel_id)
        taken = await self._database.run(fullest, rooms.taken, (hotel_id,), arrival, nights)
        rooms_taken = {each.kind: each.rooms for each in taken}
        return [
            RoomsLeft(
                room.kind,
                room.name,
                room.sleeps,
                room.price,
                room.price * nights,
                hotel.currency,
                max(0, room.count - rooms_taken.get(room.kind, 0)),
            )
            for room in hotel.suiting(guests)
        ]

    # -- booking

    @post(
        "/reservations",
        status=201,
        access="user",
        idempotent=True,
        raises=(
            Unauthorized,
            NotFound,
            SoldOut,
            StayNotPossible,
            PaymentDeclined,
            PaymentUnavailable,
            Unavailable,
        ),
    )
    async def book(self, booking: Booking, principal: Principal = given) -> Reservation:
        """Book a stay: keep a room, charge the card, confirm.

        402: the card was declined, and the room is free again. 503: payment could not be made, and the room is free
        again; `state` tells whether it is certain that nothing is charged ("voided") or being seen to ("voiding").
        A mail tells the guest. Under an idempotency key a repetition hears of the same booking.
        """
        wanted, count = await self._wanted("pending", booking.stay, booking.guest, _subject(principal))
        made = await self._database.run(self._begin, wanted, count, booking.card)
        try:
            return await self._outcome(made, WAITS)
        except (DeadlineExceeded, SagaParked):
            left = await self._database.run(rooms.move_if_possible, made.id, "voiding")
        if left.state == "voiding":
            raise _unpaid("voiding")
        return await self._outcome(made, 1.0)  # it has just ended

    @post(
        "/holds",
        status=201,
        idempotent=True,
        raises=(Unauthorized, NotFound, SoldOut, StayNotPossible, Unavailable),
    )
    async def hold(self, hold: Hold, principal: Principal = given) -> Reservation:
        """Keep a room for a while, without payment."""
        wanted, count = await self._wanted("held", hold.stay, hold.guest, _subject(principal))
        return await self._database.run(rooms.take, wanted, count)

    @operation(idempotent=True, raises=(NotFound, NotInState))
    async def confirm(self, reservation_id: UUID, charge_id: UUID) -> Reservation:
        """Make a reservation that is held or pending a booking: it was paid by that charge."""
        return await self._database.run(self._confirm, reservation_id, charge_id)

    @operation(idempotent=True, raises=(NotFound, NotInState))
    async def release(self, reservation_id: UUID) -> Reservation:
        """Give back a room that was held and is not wanted any more."""
        return await self._database.run(rooms.move, reservation_id, "released")

    # -- one's own

    @get("/reservations/<uuid:reservation_id>", access="user", raises=(Unauthorized, NotFound))
    async def read(self, reservation_id: UUID, principal: Principal = given) -> Reservation:
        """Read one of one's own reservations."""
        return await self._database.run(rooms.read, reservation_id, _subject(principal))

    @get("/reservations", access="user", raises=(Unauthorized,))
    async def mine(self, page: Page = 1, principal: Principal = given) -> list[Reservation]:
        """List one's own stays, held, booked or cancelled: the latest arrival first, fifty a page."""
        return await self._database.run(rooms.mine, _subject(principal), page)

    @post(
        "/reservations/<uuid:reservation_id>/cancel",
        access="user",
        idempotent=True,
        raises=(Unauthorized, NotFound, NotInState, TooLate, Unavailable),
    )
    async def cancel(self, reservation_id: UUID, principal: Principal = given) -> Reservation:
        """Cancel a booked stay before the day of arrival.

        Up to `free_until` everything is given back, later everything but the first night. The room is free at once;
        when payments cannot be reached now the money follows by itself, and `refunded` is less than `refund_due` until
        then. A mail tells the guest.
        """
        booked = await self._database.run(rooms.read, reservation_id, _subject(principal))
        if booked.state == "cancelled":
            return booked
        now = await read_clock(self._http)
        if now.date() >= booked.stay.arrival:
            raise TooLate(f"A stay can be cancelled until the day before its arrival, {booked.stay.arrival}.")
        due = booked.total if now.date() <= booked.free_until else booked.total - booked.price
        cancelled = await self._database.run(self._cancel, reservation_id, due, now)
        try:
            return await self._sagas.result(_refund_of(reservation_id), timeout=PATIENCE)
        except RopewalkError as error:
            _log.warn("refund.postponed reservation={id} error={error!r}", id=reservation_id, error=error)
        return cancelled

    # -- what was left open

    @operation(idempotent=True, raises=(Unavailable,))
    async def sweep(self) -> int:
        """Free what was held for too long; how many rooms that were."""
        return await self._database.run(rooms.expire, await read_clock(self._http))

    async def _keep_sweeping(self) -> None:
        while True:
            await deferLater(self._clock, self._settings.sweep)
            try:
                await self.sweep()
            except RopewalkError as error:
                _log.warn("sweep.postponed error={error!r}", error=error)
            except Exception:  # a bug, and no reason to keep rooms for ever
                _log.failure("sweep.failed")

    # -- the sagas

    @saga
    async def sell(self, flow: Flow, made: Reservation, card: Card) -> Reservation:
        """Charge what is pending and confirm it; raises PaymentDeclined, and PaymentUnavailable: then it is voided."""
        order = ChargeOrder(made.id, made.total, made.currency, card, f"Stay {made.number}")
        try:
            charge = await flow.step(self._payments.charge, order, timeout=PATIENCE)
            return await flow.transaction(self._confirm, made.id, charge.id)
        except PaymentDeclined:
            await flow.transaction(rooms.move_if_possible, made.id, "declined")
            raise
        except RopewalkError as error:  # it took too long, or was given up meanwhile
            await self._void(flow, made)
            raise _unpaid("voided") from error

    async def _void(self, flow: Flow, made: Reservation) -> None:
        """Free the room, and make certain that nothing is charged: as long as it takes."""
        await flow.transaction(rooms.move_if_possible, made.id, "voiding")
        await flow.step(self._payments.void, made.id)
        await flow.transaction(rooms.move_if_possible, made.id, "voided", name="voided")

    @saga
    async def refund(self, flow: Flow, cancelled: Reservation) -> Reservation:
        """Give back what is due for a stay that was cancelled."""
        if cancelled.charge_id is not None and cancelled.refund_due:
            order = RefundOrder(cancelled.id, cancelled.refund_due)
            await flow.step(self._payments.refund, cancelled.charge_id, order)
        return await flow.transaction(rooms.refunded, cancelled.id, cancelled.refund_due)

    # -- their transactions

    def _begin(self, tx: Transaction, wanted: Reservation, count: int, card: Card) -> Reservation:
        made = rooms.take(tx, wanted, count)
        tx.start(self.sell, made, card, id=_sale_of(made.id))
        return made

    def _confirm(self, tx: Transaction, reservation_id: UUID, charge_id: UUID) -> Reservation:
        return rooms.move_and_tell(tx, reservation_id, "confirmed", {"charge_id": charge_id}, StayBooked)

    def _cancel(self, tx: Transaction, reservation_id: UUID, due: int, now: datetime) -> Reservation:
        was = rooms.read(tx, reservation_id)
        if was.state == "cancelled":
            return was
        told = partial(StayCancelled, at=now)
        cancelled = rooms.move_and_tell(tx, reservation_id, "cancelled", {"refund_due": due}, told)
        tx.start(self.refund, cancelled, id=_refund_of(reservation_id))
        return cancelled

    # -- the steps

    async def _outcome(self, made: Reservation, timeout: float) -> Reservation:
        sold: Reservation = await self._sagas.result(_sale_of(made.id), timeout=timeout)
        return sold

    async def _wanted(self, state: State, stay: Stay, guest: Guest, subject: str) -> tuple[Reservation, int]:
        """A reservation as it would be, and of how many rooms it wants one."""
        hotel = await self._hotels.read(stay.hotel_id)
        room = hotel.room_kind(stay.kind)
        now = await read_clock(self._http)
        self._check(stay, room, now)
        return self._reservation(state, stay, guest, subject, hotel, room, now), room.count

    def _check(self, stay: Stay, room: RoomKind, now: datetime) -> None:
        # The day in UTC: in the hotels' time zones a night that begins is at most a few hours older or younger.
        first, last = now.date(), now.date() + timedelta(self._settings.days_ahead)
        if not first <= stay.arrival <= last:
            raise StayNotPossible(f"An arrival can be from {first} to {last}; got {stay.arrival}.")
        if stay.guests > room.sleeps:
            raise StayNotPossible(f"A {room.name} sleeps {room.sleeps}; got {stay.guests} guests.")

    def _reservation(
        self, state: State, stay: Stay, guest: Guest, subject: str, hotel: Hotel, room: RoomKind, now: datetime
    ) -> Reservation:
        reservation_id = new_id(self._random)
        return Reservation(
            reservation_id,
            rooms.number_of(reservation_id),
            state,
            stay,
            guest,
            subject,
            hotel.name,
            hotel.city,
            room.name,
            room.price,
            room.price * stay.nights,
            hotel.currency,
            now,
            now + timedelta(seconds=self._settings.hold),
            stay.arrival - timedelta(self._settings.free_days),
            None,
            0,
            0,
        )


def _sale_of(reservation_id: UUID) -> str:
    """The id of the saga that sells it."""
    return f"sale-{reservation_id}"


def _refund_of(reservation_id: UUID) -> str:
    """The id of the saga that gives its money back."""
    return f"refund-{reservation_id}"


def _subject(principal: Principal) -> str:
    if principal.subject is None:
        raise Unauthorized("A reservation belongs to somebody: sign in.", headers=[("www-authenticate", "Bearer")])
    return principal.subject


def _unpaid(state: State) -> PaymentUnavailable:
    money = (
        "nothing was charged"
        if state == "voided"
        else "should the card have been charged, the money is given back without your doing"
    )
    return PaymentUnavailable(f"Payment could not be made. The room is not booked, and {money}.", state=state)


__all__ = [
    "Booking",
    "Card",
    "Guest",
    "Hold",
    "NotInState",
    "PaymentDeclined",
    "PaymentUnavailable",
    "Reservation",
    "Reservations",
    "ReservationsSettings",
    "RoomsLeft",
    "SoldOut",
    "State",
    "Stay",
    "StayNotPossible",
    "TooLate",
]
