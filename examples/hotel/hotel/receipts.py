"""Receipts as PDF, drawn in a worker process: it takes some hundredths of a second, for which a reactor has no time."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from ropewalk import (
    Client,
    Conflict,
    NotFound,
    Response,
    Service,
    Settings,
    Unauthorized,
    Unavailable,
    Workers,
    get,
)

from .paper import Paper, draw
from .payments import Charge, Payments
from .reservations import Reservation, Reservations
from .words import written


class NothingPaid(Conflict):
    """Raised when a reservation was never paid, so that there is nothing to give a receipt for."""


class ReceiptsSettings(Settings):
    """`[settings.receipts]`."""

    issuer: str = "Hotel bookings"  # who writes the receipts


class Receipts(Service, name="receipts", version="1.0.0"):
    """Writes receipts."""

    def __init__(
        self,
        settings: ReceiptsSettings,
        reservations: Annotated[Reservations, Client(timeout=5.0)],
        payments: Annotated[Payments, Client(timeout=5.0)],
        workers: Workers,
    ) -> None:
        self._settings = settings
        self._reservations = reservations
        self._payments = payments
        self._workers = workers

    @get(
        "/receipts/<uuid:reservation_id>",
        access="user",
        raises=(Unauthorized, NotFound, NothingPaid, Unavailable),
    )
    async def receipt(self, reservation_id: UUID) -> Response:
        """Write the receipt of one of one's own stays.

        A PDF, the same bytes each time until something changes.
        """
        reservation = await self._reservations.read(reservation_id)
        if reservation.charge_id is None:
            raise NothingPaid(f"The reservation {reservation.number} is {reservation.state} and was never paid.")
        try:
            charge = await self._payments.read(reservation.charge_id)
        except NotFound as error:  # not what the caller asked for
            raise Unavailable(f"Payments do not know the charge of {reservation.number}.") from error
        pdf = await self._workers.process(draw, paper_of(self._settings.issuer, reservation, charge))
        headers = [
            ("content-type", "application/pdf"),
            ("content-disposition", f'inline; filename="receipt-{reservation.number}.pdf"'),
            ("cache-control", "private, no-cache"),
        ]
        return Response(pdf, headers=headers)


def paper_of(issuer: str, reservation: Reservation, charge: Charge) -> Paper:
    """What the receipt of a stay says."""
    stay, currency = reservation.stay, charge.currency
    amounts = [
        (f"{reservation.room_name}, {stay.nights} x {written(reservation.price, currency)}", reservation.total),
        (f"Paid by card ending in {charge.last4}", -charge.amount),
    ]
    if reservation.state == "cancelled":
        kept = reservation.total - reservation.refund_due
        amounts.insert(1, ("Cancelled", -reservation.refund_due))
        amounts.append(("Given back to the card", charge.refunded))
        balance = kept - charge.amount + charge.refunded
    else:
        balance = reservation.total - charge.amount + charge.refunded
    amounts.append(("Balance", balance))
    return Paper(
        title=f"Receipt {reservation.number}",
        issuer=issuer,
        made_at=reservation.made_at,
        facts=(
            ("Guest", reservation.guest.name),
            ("E-mail", reservation.guest.email),
            ("Hotel", f"{reservation.hotel_name}, {reservation.city}"),
            ("Arrival", stay.arrival.isoformat()),
            ("Departure", stay.departure.isoformat()),
            ("Guests", str(stay.guests)),
            ("Booked on", reservation.made_at.date().isoformat()),
            ("State", reservation.state),
        ),
        amounts=tuple((name, _signed(amount, currency)) for name, amount in amounts),
    )


def _signed(amount: int, currency: str) -> str:
    return written(amount, currency) if amount >= 0 else f"- {written(-amount, currency)}"
