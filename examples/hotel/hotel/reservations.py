"""Holds rooms and books stays: no room is given twice, and nobody pays for a stay that was not booked.

Booking is three steps: keep a room (here, "pending"), charge the card (in payments), confirm (here). When the answer to
the second is missing, nobody knows whether the card was charged. Then the room is free again at once, the reservation
is "voiding", and the payment is voided, over and over by `sweep`, until payments has agreed: from then on it is certain
that nothing is charged, and the reservation is "voided". What a crash left in the middle is found by `sweep`, too.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
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
    NotFound,
    Principal,
    RopewalkError,
    Service,
    Settings,
    Unauthorized,
    Unavailable,
    get,
    given,
    operation,
    post,
    settled,
)

from . import letters, rooms
from .catalogue import Hotel, RoomKind
from .hotels import Hotels
from .notifications import Letter, Notifications
from .occupancy import HotelIds, Occupancy, Taken
from .payments import Card, ChargeOrder, PaymentDeclined, Payments, RefundOrder
from .rooms import Guest, NotInState, Reservation, State
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


class Reservations(Occupancy, Service, name="reservations", version="1.0.0"):
    """Holds rooms and books stays."""

    tables = rooms.metadata

    def __init__(
        self,
        settings: ReservationsSettings,
        database: Database,
        hotels: Annotated[Hotels, Client(timeout=2.0)],
        payments: Annotated[Payments, Client(timeout=4.0)],  # twice in ten seconds: charge, and void
        notifications: Annotated[Notifications, Client(timeout=2.0)],
        http: HTTPClient,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self._settings = settings
        self._database = database
        self._hotels = hotels
        self._payments = payments
        self._notifications = notifications
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
        taken = await self._database.run(rooms.fullest, (hotel_id,), arrival, nights)
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

    async def taken(self, hotel_ids: HotelIds, arrival: date, nights: Nights) -> list[Taken]:
        """Count the rooms taken in the fullest of these nights, for each kind that has any."""
        nights_of(arrival, nights)
        return await self._database.run(rooms.fullest, hotel_ids, arrival, nights)

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
        A mail tells the guest, if it can be sent. Under an idempotency key a repetition goes on where the first try
        was left.
        """
        made = await self._keep("pending", booking.stay, booking.guest, _subject(principal))
        return await self._pay(made, booking.card)

    @post(
        "/holds",
        status=201,
        idempotent=True,
        raises=(Unauthorized, NotFound, SoldOut, StayNotPossible, Unavailable),
    )
    async def hold(self, hold: Hold, principal: Principal = given) -> Reservation:
        """Keep a room for a while, without payment."""
        return await self._keep("held", hold.stay, hold.guest, _subject(principal))

    @operation(idempotent=True, raises=(NotFound, NotInState))
    async def confirm(self, reservation_id: UUID, charge_id: UUID) -> Reservation:
        """Make a reservation that is held or pending a booking: it was paid by that charge."""
        return await self._database.run(rooms.move, reservation_id, "confirmed", {"charge_id": charge_id})

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
        then. A mail tells the guest, if it can be sent.
        """
        booked = await self._database.run(rooms.read, reservation_id, _subject(principal))
        if booked.state == "cancelled":
            return booked
        now = await read_clock(self._http)
        if now.date() >= booked.stay.arrival:
            raise TooLate(f"A stay can be cancelled until the day before its arrival, {booked.stay.arrival}.")
        due = booked.total if now.date() <= booked.free_until else booked.total - booked.price
        cancelled, ours = await self._database.run(rooms.moved, reservation_id, "cancelled", {"refund_due": due})
        try:
            cancelled = await self._settle(cancelled)
        except RopewalkError as error:
            _log.warn("refund.postponed reservation={id} error={error!r}", id=reservation_id, error=error)
        if ours:
            await self._tell(letters.cancelled(cancelled, now))
        return cancelled

    # -- what was left open

    @operation(idempotent=True, raises=(Unavailable,))
    async def sweep(self) -> int:
        """Free what was kept for too long and settle what payments left open; how many changed.

        While payments cannot be reached, what is open stays open, and the next sweep tries again.
        """
        changed = await self._database.run(rooms.expire, await read_clock(self._http))
        for reservation in await self._database.run(rooms.unsettled):
            try:
                await self._settle(reservation)
            except RopewalkError as error:
                _log.warn("settling.postponed reservation={id} error={error!r}", id=reservation.id, error=error)
                if error.status >= 500:
                    break  # payments are down: the others would only wait as long
            else:
                changed += 1
        return changed

    async def _keep_sweeping(self) -> None:
        while True:
            await deferLater(self._clock, self._settings.sweep)
            try:
                await self.sweep()
            except RopewalkError as error:
                _log.warn("sweep.postponed error={error!r}", error=error)
            except Exception:  # a bug, and no reason to keep rooms for ever
                _log.failure("sweep.failed")

    # -- the steps

    async def _keep(self, state: State, stay: Stay, guest: Guest, subject: str) -> Reservation:
        """Take a room."""
        hotel = await self._hotels.read(stay.hotel_id)
        room = hotel.room_kind(stay.kind)
        now = await read_clock(self._http)
        self._check(stay, room, now)
        wanted = self._reservation(state, stay, guest, subject, hotel, room, now)
        return await self._database.run(rooms.take, wanted, room.count)

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

    async def _pay(self, made: Reservation, card: Card) -> Reservation:
        """Charge what is pending and confirm it, or give it up; raises PaymentDeclined, PaymentUnavailable."""
        order = ChargeOrder(made.id, made.total, made.currency, card, f"Stay {made.number}")
        try:
            charge = await self._payments.charge(order)
        except PaymentDeclined:
            await self._database.run(rooms.move_if_possible, made.id, "declined")
            raise
        except RopewalkError as error:
            given_up = await self._give_up(made)
            if given_up.state != "confirmed":  # by a repetition of this booking that had more luck
                raise _unpaid(given_up.state) from error
            return given_up
        try:
            confirmed, ours = await self._database.run(rooms.moved, made.id, "confirmed", {"charge_id": charge.id})
        except NotInState as error:  # given up meanwhile, and whoever did that gives the money back
            raise _unpaid(error.members["state"]) from error
        if ours:  # and not a repetition's, which writes the mail
            await self._tell(letters.booked(confirmed))
        return confirmed

    async def _give_up(self, made: Reservation) -> Reservation:
        """Free the room of what is pending, and make sure that nothing is charged: now, or else in a later sweep."""
        given_up = await self._database.run(rooms.move_if_possible, made.id, "voiding")
        if given_up.state == "voiding":
            try:
                return await self._settle(given_up)
            except RopewalkError as error:
                _log.warn("voiding.postponed reservation={id} error={error!r}", id=made.id, error=error)
        return given_up

    async def _settle(self, reservation: Reservation) -> Reservation:
        """Bring the money of what is voiding or cancelled to where it belongs; raises what payments raises."""
        if reservation.state == "voiding":
            await self._payments.void(reservation.id)
            return await self._database.run(rooms.move_if_possible, reservation.id, "voided")
        if reservation.charge_id is not None and reservation.refunded < reservation.refund_due:
            await self._payments.refund(reservation.charge_id, RefundOrder(reservation.id, reservation.refund_due))
            return await self._database.run(rooms.refunded, reservation.id, reservation.refund_due)
        return reservation

    async def _tell(self, letter: Letter) -> None:
        try:
            await self._notifications.send(letter)
        except RopewalkError as error:  # the booking stands whether its mail is read or not
            _log.warn(
                "mail.lost to={to} subject={subject} error={error!r}", to=letter.to, subject=letter.subject, error=error
            )


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
    "Taken",
    "TooLate",
]
