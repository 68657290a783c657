"""What the reservations publish: facts that others may want to know of."""

from __future__ import annotations

from datetime import datetime

from ropewalk import Event

from .rooms import Reservation


class StayBooked(Event, topic="reservations.stay-booked"):
    """A stay is booked and paid."""

    reservation: Reservation


class StayCancelled(Event, topic="reservations.stay-cancelled"):
    """A booked stay is cancelled; `refund_due` of it is or will be given back."""

    reservation: Reservation
    at: datetime
