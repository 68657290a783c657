"""What every peer is asked, and what it must answer.

A peer is asked once before it is measured, so that nobody is quick at answering errors. How much of a wrong body it
refuses is found out by sending wrong bodies, not by reading its documentation.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Annotated, Any

from msgspec import Meta, Struct
from pydantic import BaseModel, Field

CONNECTIONS = 32
ROOM_PATH, ROOM = "/rooms/7", {"number": 7}
BOOKING_PATH = "/bookings"
GUEST = {"name": "Ada Lovelace", "email": "ada@example.com"}
BOOKING = {"room": 7, "nights": 3, "guest": GUEST}
WRONG_BOOKINGS: tuple[dict[str, Any], ...] = (
    {**BOOKING, "room": "seven"},
    {**BOOKING, "nights": 0},
    {**BOOKING, "guest": {"name": "Ada Lovelace"}},
    {**BOOKING, "guest": {**GUEST, "name": ""}},
    {**BOOKING, "guest": {**GUEST, "name": "x" * 101}},
)
CHECKS: dict[str, tuple[str, Any, Any]] = {  # a claim -> path, body, what is answered
    "get": (ROOM_PATH, None, ROOM),
    "post": (BOOKING_PATH, BOOKING, BOOKING),
    # The ceiling always answers 7: whoever says so of room 8 did ask it.
    "gateway": ("/rooms/8", None, ROOM),
}


# -- the booking, for those who take msgspec's types


class Guest(Struct):
    """Who stays."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    email: str


class Booking(Struct):
    """A stay."""

    room: int
    nights: Annotated[int, Meta(ge=1)]
    guest: Guest


# -- the same, for those who take pydantic's


class GuestModel(BaseModel):
    """Who stays."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    email: str


class BookingModel(BaseModel):
    """A stay."""

    room: int
    nights: Annotated[int, Field(ge=1)]
    guest: GuestModel


# -- asking once


class WrongAnswer(Exception):
    """Raised when a peer does not answer what was agreed on."""


def asked_once(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    """(status, body) of one request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def check(port: int, claim: str) -> None:
    """Ask what wrk will ask; WrongAnswer unless 200 and the right JSON come back."""
    path, body, expected = CHECKS[claim]
    status, answer = asked_once(port, path, body)
    try:
        right = status == 200 and json.loads(answer) == expected
    except ValueError:
        right = False
    if not right:
        raise WrongAnswer(f"{path}: expected 200 and {json.dumps(expected)}, got {status} and {answer[:500]!r}")


def refused(port: int) -> int:
    """How many of `WRONG_BOOKINGS` are answered with 4xx."""
    return sum(400 <= asked_once(port, BOOKING_PATH, each)[0] < 500 for each in WRONG_BOOKINGS)
