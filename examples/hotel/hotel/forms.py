"""What guests type, and what becomes of it: the services' own values, or what to say beside each field.

The forms are lenient, of texts alone, so that a page can show again what was typed. `read` is where a form meets the
types of the services: what these refuse is what a guest is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from .catalogue import Search
from .reservations import Booking, Card, Guest
from .users import Credentials, SignUp
from .words import Guests, HotelId, Nights, Stay

T = TypeVar("T", bound=Struct)
Errors = dict[str, str]  # by field, for people; in the order of the fields

LABELS = {  # of every field there is, in the order in which they stand
    "city": "City",
    "name": "Name",
    "email": "E-mail",
    "password": "Password",
    "arrival": "Arrival",
    "nights": "Nights",
    "guests": "Guests",
    "stars": "Stars",
    "max_price": "At most, a night",
    "amenities": "With",
    "sort": "Order",
    "page": "Page",
    "number": "Card number",
    "expiry": "Valid until",
    "cvc": "Security code",
}
_SAY = {
    "city": "Choose a city.",
    "name": "Tell us your name.",
    "email": "An address like name@example.com is needed.",
    "password": "Use at least eight characters.",
    "arrival": "Choose the day on which you arrive.",
    "nights": "Choose 1 to 30 nights.",
    "guests": "Choose 1 to 8 guests.",
    "stars": "Choose 1 to 5 stars.",
    "max_price": "Give an amount like 120 or 99.50.",
    "amenities": "Choose from the list.",
    "sort": "Choose one of the orders above the results.",
    "page": "There is no such page.",
    "number": "Give the 12 to 19 digits on the front of the card.",
    "expiry": "Give month and year as on the card, like 09/28.",
    "cvc": "Give the 3 or 4 digits on the back of the card.",
}


def read(type: type[T], typed: Mapping[str, Any]) -> tuple[T | None, Errors]:
    """A `type` of what was typed, or None; and what to say of each field that does not fit.

    A field that was left empty has its default, where it has one.
    """
    values, errors = {}, {}
    for field in msgspec.structs.fields(type):
        value = typed[field.name]
        if value in ("", ()) and not field.required:
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError:
            errors[field.name] = _SAY[field.name]
    return (None if errors else type(**values)), errors


class Dates(Struct, frozen=True):
    """When somebody wants to stay, in a room that is not chosen yet."""

    hotel_id: HotelId
    arrival: date
    nights: Nights
    guests: Guests

    @property
    def departure(self) -> date:
        """The morning of leaving."""
        return self.arrival + timedelta(self.nights)

    def of(self, kind: str) -> Stay:
        """The stay in a room of that kind."""
        return Stay(self.hotel_id, kind, self.arrival, self.nights, self.guests)


class DatesForm(Struct, frozen=True, omit_defaults=True):
    """The dates on a hotel's page."""

    arrival: str = ""
    nights: str = ""
    guests: str = ""

    @classmethod
    def of(cls, stay: Stay) -> DatesForm:
        """As if typed."""
        return cls(stay.arrival.isoformat(), str(stay.nights), str(stay.guests))

    def beginning(self, today: date | None) -> DatesForm:
        """With what a guest who says nothing may want: two nights, two guests, a fortnight from now."""
        arrival = self.arrival or ("" if today is None else (today + timedelta(14)).isoformat())
        return DatesForm(arrival, self.nights or "2", self.guests or "2")

    def read(self, hotel_id: int, today: date | None) -> tuple[Dates | None, Errors]:
        """The dates, and what is wrong with them; `today` is None when nobody can tell."""
        return _not_past(*read(Dates, {"hotel_id": hotel_id, **_stripped(self)}), today)

    def search(self, city: str) -> SearchForm:
        """A search in a city for these dates."""
        return SearchForm(city, self.arrival, self.nights, self.guests)


class SearchForm(Struct, frozen=True, omit_defaults=True):
    """The search."""

    city: str = ""
    arrival: str = ""
    nights: str = ""
    guests: str = ""
    stars: str = ""
    max_price: str = ""  # in whole units of the currency, as people say it
    amenities: tuple[str, ...] = ()
    sort: str = ""
    page: str = ""

    def but(self, **changes: str) -> SearchForm:
        """The same with these fields changed."""
        return msgspec.structs.replace(self, **changes)

    @property
    def dates(self) -> DatesForm:
        """What of it a hotel's page asks for."""
        return DatesForm(self.arrival, self.nights, self.guests)

    @property
    def wider(self) -> SearchForm:
        """Without what leaves hotels out."""
        return self.dates.search(self.city)

    def beginning(self, today: date | None) -> SearchForm:
        """As for dates."""
        dates = self.dates.beginning(today)
        return self.but(arrival=dates.arrival, nights=dates.nights, guests=dates.guests)

    def read(self, today: date | None) -> tuple[Search | None, Errors]:
        """The search, and what is wrong with it."""
        typed = {**_stripped(self), "max_price": _minor(self.max_price.strip()), "per_page": ""}
        return _not_past(*read(Search, typed), today)


class PaymentForm(Struct, frozen=True):
    """Who stays, and the card that pays."""

    name: str = ""
    email: str = ""
    number: str = ""
    expiry: str = ""
    cvc: str = ""
    attempt: str = ""  # made for each form shown: sent twice, it is one booking

    def read(self, stay: Stay) -> tuple[Booking | None, Errors]:
        """The booking of `stay`, and what is wrong with it."""
        typed = _stripped(self)
        typed["number"] = re.sub(r"[ -]", "", typed["number"])
        typed["expiry"] = _month(typed["expiry"])
        guest, wrong = read(Guest, typed)
        card, wrong_card = read(Card, typed)
        booking = None if guest is None or card is None else Booking(stay, guest, card)
        return booking, {**wrong, **wrong_card}

    def __repr__(self) -> str:
        return f"<PaymentForm of {self.email}>"  # a card must not get into a log


class SignUpForm(Struct, frozen=True):
    """A new user."""

    name: str = ""
    email: str = ""
    password: str = ""

    def read(self) -> tuple[SignUp | None, Errors]:
        """The person, and what is wrong."""
        return read(SignUp, {**_stripped(self), "password": self.password})

    def __repr__(self) -> str:
        return f"<SignUpForm of {self.email}>"


class SignInForm(Struct, frozen=True):
    """Somebody who was here before."""

    email: str = ""
    password: str = ""

    def read(self) -> tuple[Credentials | None, Errors]:
        """The credentials, and what is wrong with their form."""
        return read(Credentials, {**_stripped(self), "password": self.password})

    def __repr__(self) -> str:
        return f"<SignInForm of {self.email}>"


class Pressed(Struct, frozen=True):
    """A form that is a button: it says nothing, but its token is checked as any form's is."""


PRESSED = Pressed()


def _stripped(form: Struct) -> dict[str, Any]:
    fields = msgspec.structs.asdict(form)
    return {name: value.strip() if isinstance(value, str) else value for name, value in fields.items()}


def _not_past(value: T | None, errors: Errors, today: date | None) -> tuple[T | None, Errors]:
    """The same, unless the arrival is before `today`."""
    if value is None or today is None or value.arrival >= today:  # type: ignore[attr-defined]
        return value, errors
    return None, {**errors, "arrival": "This day has passed; choose a later one."}


def _minor(amount: str) -> str:
    """Minor units of an amount as people write it.

    >>> _minor("120"), _minor("99,50"), _minor("EUR 12"), _minor("cheap")
    ('12000', '9950', '1200', 'cheap')
    """
    match = re.fullmatch(r"(?:€|EUR)?\s*([0-9]{1,7})(?:[.,]([0-9]{1,2}))?\s*(?:€|EUR)?", amount)
    if match is None:
        return amount
    return str(int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")))


def _month(expiry: str) -> str:
    """MM/YY of what people write.

    >>> _month("9/28"), _month("09 / 2028"), _month("0928"), _month("soon")
    ('09/28', '09/28', '09/28', 'soon')
    """
    match = re.fullmatch(r"([0-9]{1,2}) ?[/.-]? ?(?:20)?([0-9]{2})", expiry)
    return f"{int(match[1]):02}/{match[2]}" if match else expiry
