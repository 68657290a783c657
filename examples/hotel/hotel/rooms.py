"""What the reservations write down: their values, their tables, and the functions of one transaction each.

A room is taken night by night: a row of `taken` is one place of one kind of room in one night, and its primary key is
why no place is ever given twice. A place is a number below the count of such rooms, not a door: which guest gets which
door is decided at the desk. A reservation moves from state to state as `MOVES` says, and no other way::

    held ------> confirmed | released | expired
    pending ---> confirmed | declined | voiding
    voiding ---> voided | declined
    confirmed -> cancelled
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from itertools import count
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Conflict, Event, NotFound, Transaction

from .occupancy import RoomsChanged
from .words import Currency, Email, Line, Money, SoldOut, Stay, nights_of

State = Literal[
    "held",  # a room is kept for a while
    "pending",  # the same, and payment was begun
    "confirmed",  # paid
    # In these no room is taken any more:
    "released",  # not wanted any more
    "expired",  # held for too long
    "declined",  # the card was refused
    "voiding",  # payment failed, and it is not certain yet that nothing is charged
    "voided",  # now it is
    "cancelled",  # by the guest, after it was confirmed
]

MOVES: dict[State, tuple[State, ...]] = {  # to -> from
    "confirmed": ("held", "pending"),
    "declined": ("pending", "voiding"),
    "voiding": ("pending",),
    "released": ("held",),
    "expired": ("held",),
    "voided": ("voiding",),
    "cancelled": ("confirmed",),
}
_LISTED: tuple[State, ...] = ("held", "pending", "confirmed", "cancelled")
PAGE = 50  # reservations on a page
BATCH = 100  # reservations freed in one sweep: what is left waits for the next


class NotInState(Conflict):
    """Raised when a reservation is in a state from which this cannot be done; `state` names it."""


class Guest(Struct, frozen=True):
    """Who stays."""

    name: Line
    email: Email


class Reservation(Struct, frozen=True):
    """A stay that was held or booked, as it was then: later changes of the catalogue do not touch it."""

    id: UUID
    number: str  # for people: "HB-7Q2M-9XKD"
    state: State
    stay: Stay
    guest: Guest
    subject: str  # who booked: the id of a user
    hotel_name: Line
    city: Line
    room_name: Line
    price: Money  # of a night
    total: Money
    currency: Currency
    made_at: datetime  # UTC
    held_until: datetime | None  # UTC; None once it is not only held
    free_until: date  # the last day on which cancelling costs nothing
    charge_id: UUID | None  # in Payments
    refund_due: Money  # what cancelling gives back
    refunded: Money  # what of it was given back


metadata = sa.MetaData()

reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("hotel_id", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("arrival", sa.Date, nullable=False),
    sa.Column("nights", sa.Integer, nullable=False),
    sa.Column("guests", sa.Integer, nullable=False),
    sa.Column("guest_name", sa.String(200), nullable=False),
    sa.Column("guest_email", sa.String(254), nullable=False),
    sa.Column("hotel_name", sa.String(200), nullable=False),
    sa.Column("city", sa.String(200), nullable=False),
    sa.Column("room_name", sa.String(200), nullable=False),
    sa.Column("price", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("made_at", sa.BigInteger, nullable=False),  # seconds since 1970, UTC
    sa.Column("held_until", sa.BigInteger),  # the same
    sa.Column("free_until", sa.Date, nullable=False),
    sa.Column("charge_id", sa.Uuid),
    sa.Column("refund_due", sa.BigInteger, nullable=False),
    sa.Column("refunded", sa.BigInteger, nullable=False),
    sa.Index("reservations_of_a_subject", "subject", "arrival"),
    sa.Index("reservations_by_state", "state", "held_until"),
)
taken = sa.Table(
    "taken",
    metadata,
    sa.Column("hotel_id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(40), primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),  # below the count of such rooms
    sa.Column("reservation_id", sa.Uuid, sa.ForeignKey("reservations.id"), nullable=False, index=True),
)

# Built once: building one costs more than executing it.
_ONE = sa.select(reservations).where(reservations.c.id == sa.bindparam("id"))
_MINE = (
    sa.select(reservations)
    .where(reservations.c.subject == sa.bindparam("subject"), reservations.c.state.in_(_LISTED))
    .order_by(reservations.c.arrival.desc(), reservations.c.made_at.desc(), reservations.c.id)
    .limit(PAGE)
    .offset(sa.bindparam("offset"))
)
_CHANGE = reservations.update().where(reservations.c.id == sa.bindparam("which"))  # to what is given by column
_FREE = taken.delete().where(taken.c.reservation_id == sa.bindparam("which"))
_LATE = (
    sa.select(reservations.c.id)
    .where(reservations.c.state == "held", reservations.c.held_until <= sa.bindparam("now"))
    .order_by(reservations.c.held_until, reservations.c.id)
    .limit(BATCH)
)
_TAKEN = sa.select(taken.c.night, taken.c.place).where(
    taken.c.hotel_id == sa.bindparam("hotel"),
    taken.c.kind == sa.bindparam("kind"),
    taken.c.night.between(sa.bindparam("first"), sa.bindparam("last")),
)


def take(tx: Transaction, wanted: Reservation, rooms: int) -> Reservation:
    """Take a place in each night of the stay, of which there are `rooms`, and write the reservation down.

    Raises SoldOut.
    """
    places = _free_places(tx, wanted.stay, rooms)
    tx.execute(reservations.insert(), _columns(wanted))
    stay = wanted.stay
    tx.execute(
        taken.insert(),
        [
            {"hotel_id": stay.hotel_id, "kind": stay.kind, "night": night, "place": place, "reservation_id": wanted.id}
            for night, place in places.items()
        ],
    )
    _tell(tx, wanted, taken=True)
    return wanted


def read(tx: Transaction, reservation_id: UUID, subject: str | None = None) -> Reservation:
    """The reservation of that id, if `subject` made it, where one is named; raises NotFound."""
    row = tx.execute(_ONE, {"id": reservation_id}).one_or_none()
    if row is None or subject not in (None, row.subject):
        raise NotFound(f"There is no reservation {reservation_id}.")
    return _reservation(row)


def mine(tx: Transaction, subject: str, page: int) -> list[Reservation]:
    """A page of what a subject holds, booked or cancelled, the latest arrival first."""
    return [_reservation(row) for row in tx.execute(_MINE, {"subject": subject, "offset": (page - 1) * PAGE})]


def move(tx: Transaction, reservation_id: UUID, to: State, changes: Mapping[str, Any] = {}) -> Reservation:
    """Bring a reservation into a state, with `changes` by column; its room is free after any but "confirmed".

    Nothing changes if it is there already. Raises NotFound, and NotInState when `MOVES` does not lead there from here.
    """
    reservation = read(tx, reservation_id)
    if reservation.state == to:
        return reservation
    if reservation.state not in MOVES[to]:
        raise NotInState(
            f"The reservation is {reservation.state}; only one that is {' or '.join(MOVES[to])} can become {to}.",
            state=reservation.state,
        )
    if to != "confirmed" and tx.execute(_FREE, {"which": reservation_id}).rowcount:
        _tell(tx, reservation, taken=False)
    tx.execute(_CHANGE, {"which": reservation_id, "state": to, "held_until": None, **changes})
    return read(tx, reservation_id)


def move_and_tell(
    tx: Transaction, reservation_id: UUID, to: State, changes: Mapping[str, Any], event: Callable[..., Event]
) -> Reservation:
    """As `move`; unless it was there already, `event(reservation=...)` is published: of several that try, by one."""
    was = read(tx, reservation_id).state
    reservation = move(tx, reservation_id, to, changes)
    if was != to:
        tx.publish(event(reservation=reservation), key=str(reservation_id))
    return reservation


def move_if_possible(tx: Transaction, reservation_id: UUID, to: State) -> Reservation:
    """As `move`; where `MOVES` does not lead there, the reservation as it is."""
    try:
        return move(tx, reservation_id, to)
    except NotInState:
        return read(tx, reservation_id)


def refunded(tx: Transaction, reservation_id: UUID, amount: int) -> Reservation:
    """Write down that a cancelled stay's money went back."""
    tx.execute(_CHANGE, {"which": reservation_id, "refunded": amount})
    return read(tx, reservation_id)


def expire(tx: Transaction, now: datetime) -> int:
    """Free the rooms of what was held for too long; how many reservations that were."""
    ids = tx.execute(_LATE, {"now": _seconds(now)}).scalars().all()
    for id in ids:
        move(tx, id, "expired")
    return len(ids)


def _free_places(tx: Transaction, stay: Stay, rooms: int) -> dict[date, int]:
    """For each night the lowest place nobody has; raises SoldOut."""
    nights = nights_of(stay.arrival, stay.nights)
    occupied: dict[date, set[int]] = defaultdict(set)
    which = {"hotel": stay.hotel_id, "kind": stay.kind, "first": nights[0], "last": nights[-1]}
    for row in tx.execute(_TAKEN, which):
        occupied[row.night].add(row.place)
    places = {night: next(place for place in count() if place not in occupied[night]) for night in nights}
    full = [night for night, place in places.items() if place >= rooms]
    if full:
        raise SoldOut(f"No {stay.kind} is left in the night of {full[0]}.", kind=stay.kind, night=full[0].isoformat())
    return places


def _tell(tx: Transaction, reservation: Reservation, *, taken: bool) -> None:
    tx.publish(RoomsChanged(reservation_id=reservation.id, stay=reservation.stay, taken=taken), key=str(reservation.id))


def _columns(reservation: Reservation) -> dict[str, Any]:
    stay, guest = reservation.stay, reservation.guest
    return {
        "id": reservation.id,
        "state": reservation.state,
        "subject": reservation.subject,
        "hotel_id": stay.hotel_id,
        "kind": stay.kind,
        "arrival": stay.arrival,
        "nights": stay.nights,
        "guests": stay.guests,
        "guest_name": guest.name,
        "guest_email": guest.email,
        "hotel_name": reservation.hotel_name,
        "city": reservation.city,
        "room_name": reservation.room_name,
        "price": reservation.price,
        "total": reservation.total,
        "currency": reservation.currency,
        "made_at": _seconds(reservation.made_at),
        "held_until": reservation.held_until and _seconds(reservation.held_until),
        "free_until": reservation.free_until,
        "charge_id": reservation.charge_id,
        "refund_due": reservation.refund_due,
        "refunded": reservation.refunded,
    }


def _reservation(row: sa.Row[Any]) -> Reservation:
    return Reservation(
        row.id,
        number_of(row.id),
        row.state,
        Stay(row.hotel_id, row.kind, row.arrival, row.nights, row.guests),
        Guest(row.guest_name, row.guest_email),
        row.subject,
        row.hotel_name,
        row.city,
        row.room_name,
        row.price,
        row.total,
        row.currency,
        datetime.fromtimestamp(row.made_at, UTC),
        None if row.held_until is None else datetime.fromtimestamp(row.held_until, UTC),
        row.free_until,
        row.charge_id,
        row.refund_due,
        row.refunded,
    )


def number_of(reservation_id: UUID) -> str:
    """What people call it by: forty bits of the id in Crockford's base 32, which has no I, L, O and U.

    >>> number_of(UUID("9b2f61a4-0000-4000-8000-000000000000"))
    'HB-KCQP-3900'
    """
    bits = reservation_id.int >> 88
    text = "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[bits >> shift & 31] for shift in range(35, -1, -5))
    return f"HB-{text[:4]}-{text[4:]}"


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())
