"""The types that the services share: what they take and what they refuse."""

from __future__ import annotations

import doctest
import importlib
from datetime import date, timedelta

import msgspec
import pytest
from hotel.notifications import Body
from hotel.payments import Card
from hotel.words import LAST_DAY, Email, KindName, Line, Stay, StayNotPossible, nights_of, written


@pytest.mark.parametrize(
    ("type", "value", "fits"),
    [
        (Email, "ann@example.org", True),
        (Email, "Ann.O'Hara+hotel@mail.example.co.uk", True),
        (Email, "ann@xn--bcher-kva.example", True),
        (Email, "ann", False),
        (Email, "ann@localhost", False),
        (Email, "a b@example.org", False),
        (Email, "ann@@example.org", False),
        (Email, "änn@example.org", False),
        (Email, "ann@example.org\n", False),
        (Email, "ann@example..org", False),
        (Email, "a" * 250 + "@b.cz", False),
        (Line, "Łukasz 李小龍 😀", True),
        (Line, "", False),
        (Line, "a\x00b", False),
        (Line, "a\nb", False),
        (Line, "ab\n", False),
        (Line, "x" * 201, False),
        (Body, "Dear Ann,\n\tgood day.", True),
        (Body, "a\x00", False),
        (Body, "a\r\n", False),
        (KindName, "superior", True),
        (KindName, "Superior", False),
        (KindName, "superior\n", False),
    ],
)
def test_a_text_fits_or_is_refused(type, value, fits):
    if fits:
        assert msgspec.convert(value, type) == value
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, type)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hotel_id", 0),
        ("hotel_id", 2**31),
        ("nights", 0),
        ("nights", 31),
        ("guests", 0),
        ("guests", 9),
        ("arrival", "2026-02-30"),
        ("arrival", "10.5.2026"),
        ("arrival", "10000-01-01"),
    ],
)
def test_a_stay_that_makes_no_sense_is_refused(field, value):
    stay = {"hotel_id": 1, "kind": "double", "arrival": "2026-05-10", "nights": 2, "guests": 2}

    with pytest.raises(msgspec.ValidationError, match=f"\\$.{field}"):
        msgspec.convert({**stay, field: value}, Stay)


@pytest.mark.parametrize(
    ("number", "expiry", "cvc"),
    [
        ("4242 4242 4242 4242", "12/30", "123"),
        ("42424242424", "12/30", "123"),
        ("4" * 20, "12/30", "123"),
        ("4242424242424242", "13/30", "123"),
        ("4242424242424242", "12/30", "12"),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "12/30", "123"),
    ],
)
def test_a_card_that_is_misspelt_is_refused(number, expiry, cvc):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"number": number, "expiry": expiry, "cvc": cvc}, Card)


def test_a_stay_ends_in_the_morning_after_its_last_night():
    stay = Stay(1, "double", date(2028, 2, 28), 2, 1)

    assert nights_of(stay.arrival, stay.nights) == [date(2028, 2, 28), date(2028, 2, 29)]
    assert stay.departure == date(2028, 3, 1)


def test_the_last_day_can_be_asked_about_and_the_next_cannot():
    assert len(nights_of(LAST_DAY, 30)) == 30
    with pytest.raises(StayNotPossible, match="2999-12-31; got 3000-01-01"):
        nights_of(LAST_DAY + timedelta(1), 1)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, "EUR 0.00"), (5, "EUR 0.05"), (12890, "EUR 128.90"), (100_000_000, "EUR 1,000,000.00")],
)
def test_an_amount_is_written_without_rounding(amount, expected):
    assert written(amount, "EUR") == expected


@pytest.mark.parametrize("module", ["catalogue", "paper", "rooms", "words"])
def test_the_examples_in_docstrings_are_true(module):
    tried = doctest.testmod(importlib.import_module(f"hotel.{module}"))

    assert (tried.failed, tried.attempted > 0) == (0, True)
