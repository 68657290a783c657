"""The pages of the hotel over its real siblings, in virtual time: what guests are told when a thing does not work."""

from __future__ import annotations

import re
from datetime import date
from html import unescape

import pytest
from hotel.booking_ui import BookingUI
from hotel.forms import PRESSED, DatesForm, PaymentForm, SearchForm, SignInForm, SignUpForm
from hotel.payments import Provider
from hotel.reservations import Reservations
from hotel.words import Stay
from msgspec.structs import replace

from ropewalk import NotFound, Principal
from ropewalk.http.pages import Session

STAY = Stay(7, "double", date(2026, 6, 1), 2, 2)
CARD = PaymentForm("Ada Guest", "ada@example.com", "4242 4242 4242 4242", "9 / 2030", "123", "")


@pytest.fixture
def pages(house):
    house._build(BookingUI)
    return house.services["booking-ui"]


@pytest.fixture
def ask(house, as_user):
    """`ask(lambda: pages.bookings(session=...))`: the status and the text of the page a guest is shown."""

    def ask(call):
        response = house.play(as_user("ann", call))
        text = re.sub(r"<[^>]*>", "", response.body or "")
        return response.status, " ".join(unescape(text).split())

    return ask


def switch(house, mode):
    house.play(house.services["payments"].switch(Provider(mode)))


def booked(house, as_user):
    return house.play(as_user("ann", lambda: house.client(Reservations).mine()))


def test_the_home_page_does_without_a_clock_and_without_the_cities(house, pages, ask):
    house.cut |= {"clock", "hotels"}

    status, text = ask(lambda: pages.home(Session()))

    assert status == 200
    assert "Our list of hotels cannot be reached at the moment." in text


def test_a_search_that_cannot_be_read_keeps_what_was_typed_and_says_what_is_wrong(house, pages):
    form = SearchForm("Lisbon", "2026-04-30", "2", "9", max_price="cheap")

    response = house.play(pages.search(form, Session()))

    assert response.status == 422
    assert 'value="cheap"' in response.body
    assert 'aria-describedby="hint-max_price wrong-max_price" aria-invalid="true"' in response.body
    assert "Choose 1 to 8 guests." in response.body


def test_a_search_for_a_day_that_has_passed_is_refused(pages, ask):
    status, text = ask(lambda: pages.search(SearchForm("Lisbon", "2026-04-30"), Session()))

    assert status == 422
    assert "This day has passed; choose a later one." in text


def test_a_search_while_the_hotels_are_down_says_so(house, pages, ask):
    house.cut.add("hotels")

    status, text = ask(lambda: pages.search(SearchForm("Lisbon"), Session()))

    assert status == 503
    assert "The search cannot be reached at the moment. Please try again in a moment." in text


def test_a_hotel_is_shown_without_its_free_rooms_and_then_none_can_be_booked(house, pages, ask):
    house.cut.add("reservations")

    status, text = ask(lambda: pages.hotel(7, DatesForm(), Session()))

    assert status == 200
    assert "Which rooms are free cannot be told at the moment." in text
    assert "Book " not in text


def test_a_stay_that_is_paid_leads_to_its_page(house, pages, as_user):
    session = Session()
    response = house.play(as_user("ann", lambda: pages.book(STAY, CARD, session)))

    (made,) = booked(house, as_user)
    assert (response.status, dict(response.headers)["location"]) == (303, f"/bookings/{made.id}")
    assert made.state == "confirmed"
    assert session.flashes() == ["Your room is booked and paid. A confirmation lies in your mailbox."]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (replace(CARD, name=" "), "Name: Tell us your name."),
        (replace(CARD, email="ada"), "E-mail: An address like name@example.com is needed."),
        (replace(CARD, number="4242"), "Card number: Give the 12 to 19 digits on the front of the card."),
        (replace(CARD, expiry="13/30"), "Valid until: Give month and year as on the card, like 09/28."),
        (replace(CARD, cvc="12"), "Security code: Give the 3 or 4 digits on the back of the card."),
    ],
)
def test_a_form_with_something_wrong_is_shown_again_and_nothing_is_booked(house, pages, ask, as_user, form, said):
    status, text = ask(lambda: pages.book(STAY, form, Session()))

    assert status == 422
    assert said in text
    assert booked(house, as_user) == []


def test_a_security_code_is_never_part_of_a_page(house, pages, as_user):
    response = house.play(as_user("ann", lambda: pages.book(STAY, replace(CARD, number="4242", cvc="987"), Session())))

    assert "987" not in response.body


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("4000000000000002", "Your card was declined. Nothing was charged. Please try another card."),
        ("4000000000009995", "Your card was declined (insufficient funds). Nothing was charged."),
    ],
)
def test_a_declined_card_is_told_with_its_reason_and_the_form_is_kept(pages, ask, number, said):
    status, text = ask(lambda: pages.book(STAY, replace(CARD, number=number), Session()))

    assert status == 402
    assert said in text


@pytest.mark.parametrize("mode", ["down", "slow", "losing-replies"])
def test_while_payments_do_not_work_the_guest_is_told_and_nothing_is_booked(house, pages, ask, as_user, mode):
    switch(house, mode)
    began = house.time.seconds()

    status, text = ask(lambda: pages.book(STAY, CARD, Session()))

    assert status == 503
    assert "€" in text  # the form
    assert booked(house, as_user) == []
    assert house.time.seconds() - began < 10  # a page's own deadline

    if mode != "slow":  # when nobody waits that long, nobody knows yet
        said = "Payments are not available at the moment. Your card was not charged. Please try again in a moment."
        assert said in text


def test_while_the_reservations_are_down_the_guest_is_told_what_is_not_known(house, pages, ask):
    house.cut.add("reservations")

    status, text = ask(lambda: pages.book(STAY, CARD, Session()))

    assert status == 503
    assert "We cannot say at the moment whether this was booked." in text


def test_a_room_that_cannot_be_had_is_a_conflict_with_its_reason(pages, ask):
    status, text = ask(lambda: pages.book(replace(STAY, arrival=date(2026, 4, 1)), CARD, Session()))

    assert status == 409
    assert "This cannot be booked: " in text


def test_a_form_sent_twice_books_once_and_one_that_was_declined_can_be_sent_anew(house, pages, as_user):
    once = replace(CARD, attempt="0" * 32)
    replies = house.play(*(as_user("ann", lambda: pages.book(STAY, once, Session())) for _ in range(2)))

    assert len(booked(house, as_user)) == 1
    assert len({dict(reply.headers)["location"] for reply in replies}) == 1


def test_what_cancelling_gives_back_is_said_before_it_is_done(house, pages, ask, as_user):
    house.play(as_user("ann", lambda: pages.book(replace(STAY, arrival=date(2026, 5, 2)), CARD, Session())))
    (made,) = booked(house, as_user)

    status, text = ask(lambda: pages.cancel_page(made.id, Session()))
    assert status == 200
    assert "The first night is due by now." in text

    reply = house.play(as_user("ann", lambda: pages.cancel(made.id, PRESSED, Session())))
    assert (reply.status, dict(reply.headers)["location"]) == (303, f"/bookings/{made.id}")
    assert ask(lambda: pages.cancel_page(made.id, Session()))[0] == 409


def test_who_signs_up_is_signed_in_and_goes_back_to_a_page_of_this_site(house, pages):
    session = Session()
    form = SignUpForm("Ada Guest", "Ada@Example.com", "a good password")

    reply = house.play(pages.sign_up(form, "/book?hotel_id=7", session))

    assert (reply.status, dict(reply.headers)["location"]) == (303, "/book?hotel_id=7")
    assert dict(session) == {"name": "Ada Guest", "email": "ada@example.com"}
    assert session.subject is not None

    again = house.play(pages.sign_up(form, "/", Session()))
    assert again.status == 409
    assert "is it you? Then sign in." in again.body


@pytest.mark.parametrize("elsewhere", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", ""])
def test_signing_in_leads_nowhere_else(house, pages, elsewhere):
    house.play(pages.sign_up(SignUpForm("Ada", "ada@example.com", "a good password"), "/", Session()))

    reply = house.play(pages.sign_in(SignInForm("ada@example.com", "a good password"), elsewhere, Session()))

    assert (reply.status, dict(reply.headers)["location"]) == (303, "/")


def test_a_wrong_password_is_told_without_saying_whether_the_address_is_known(pages, ask):
    status, text = ask(lambda: pages.sign_in(SignInForm("nobody@example.com", "a good password"), "/", Session()))

    assert status == 422
    assert "The e-mail address or the password is wrong." in text


def test_a_token_of_somebody_who_never_signed_up_has_no_mailbox(house, pages):
    with pytest.raises(NotFound):
        house.play(pages.mailbox(1, Principal(subject="1"), Session()))
