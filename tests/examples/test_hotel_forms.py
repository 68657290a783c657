"""What guests may type, and what of it the services take."""

from __future__ import annotations

from datetime import date

import pytest
from hotel.catalogue import Search
from hotel.forms import LABELS, Dates, DatesForm, PaymentForm, SearchForm
from hotel.reservations import Booking, Card, Guest
from hotel.words import Stay

TODAY = date(2026, 5, 1)
STAY = Stay(7, "double", date(2026, 6, 1), 2, 2)


def test_a_search_that_says_nothing_but_a_city_begins_a_fortnight_from_now():
    search = Search(city="Lisbon", arrival=date(2026, 5, 15), nights=2, guests=2)

    assert SearchForm("Lisbon").beginning(TODAY).read(TODAY) == (search, {})


def test_every_field_of_a_search_is_read():
    form = SearchForm(" Kraków ", "2026-05-01", "3", "4", "5", "99,50", ("pool", "spa"), "price", "2")

    assert form.read(TODAY) == (
        Search(
            city="Kraków",
            arrival=TODAY,
            nights=3,
            guests=4,
            stars=5,
            max_price=9950,
            amenities=("pool", "spa"),
            sort="price",
            page=2,
        ),
        {},
    )


def test_every_wrong_field_is_named_at_once_and_has_a_label():
    form = SearchForm("", "soon", "31", "none", "6", "-1", ("moat",), "chance", "0")

    search, errors = form.read(TODAY)

    assert search is None
    assert list(errors) == ["city", "arrival", "nights", "guests", "max_price", "stars", "amenities", "sort", "page"]
    assert set(errors) <= set(LABELS)


def test_no_clock_means_no_day_has_passed():
    dates = Dates(7, date(2020, 1, 1), 2, 2)

    assert DatesForm("2020-01-01", "2", "2").read(7, None) == (dates, {})
    assert DatesForm("2020-01-01", "2", "2").read(7, TODAY) == (
        None,
        {"arrival": "This day has passed; choose a later one."},
    )


@pytest.mark.parametrize("number", ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242"])
@pytest.mark.parametrize("expiry", ["09/30", "9/30", "9/2030", "0930", "09 / 30", "09-30"])
def test_a_card_may_be_typed_as_it_is_printed(number, expiry):
    form = PaymentForm(" Ada ", "ada@example.com ", number, expiry, "123", "x")

    booking = Booking(STAY, Guest("Ada", "ada@example.com"), Card("4242424242424242", "09/30", "123"))
    assert form.read(STAY) == (booking, {})


def test_a_form_with_a_card_does_not_print_it():
    assert repr(PaymentForm("Ada", "ada@example.com", "4242424242424242", "09/30", "123")) == (
        "<PaymentForm of ada@example.com>"
    )
