"""What the mails of the reservations say. Pure functions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from .rooms import Reservation
from .words import Email, Line, written

# Text of any lines, without other control characters.
Body = Annotated[str, Meta(min_length=1, max_length=10_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$(?!\n)")]


class Letter(Struct, frozen=True):
    """A mail to be sent."""

    to: Email
    subject: Line
    body: Body  # plain text
    written_at: Annotated[datetime, Meta(tz=True)]
    reservation_id: UUID | None = None  # what it is about


def booked(reservation: Reservation) -> Letter:
    """Tells a guest that the stay is booked and paid."""
    free = f"You can cancel without cost until {reservation.free_until}."
    text = f"{_greeting(reservation)}\n\nyour stay is booked and paid.\n\n{_stay(reservation)}\n\n{free}"
    subject = f"Booked: {reservation.number}, {reservation.hotel_name}"
    return _letter(reservation, subject, text, reservation.made_at)


def cancelled(reservation: Reservation, now: datetime) -> Letter:
    """Tells a guest that the stay is cancelled, and what becomes of the money."""
    due = written(reservation.refund_due, reservation.currency)
    money = "Nothing is given back: the first night is due." if reservation.refund_due == 0 else f"You get {due} back."
    text = f"{_greeting(reservation)}\n\nyour stay is cancelled.\n\n{_stay(reservation)}\n\n{money}"
    return _letter(reservation, f"Cancelled: {reservation.number}, {reservation.hotel_name}", text, now)


def _letter(reservation: Reservation, subject: str, text: str, now: datetime) -> Letter:
    return Letter(reservation.guest.email, subject[:200], text, now, reservation.id)


def _greeting(reservation: Reservation) -> str:
    return f"Dear {reservation.guest.name},"


def _stay(reservation: Reservation) -> str:
    stay = reservation.stay
    return (
        f"Reservation  {reservation.number}\n"
        f"Hotel        {reservation.hotel_name}, {reservation.city}\n"
        f"Room         {reservation.room_name}, guests: {stay.guests}\n"
        f"Arrival      {stay.arrival}\n"
        f"Departure    {stay.departure}, nights: {stay.nights}\n"
        f"Total        {written(reservation.total, reservation.currency)}"
    )
