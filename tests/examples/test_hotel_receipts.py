"""Receipts: what they say, and that they say it in the same bytes."""

from __future__ import annotations

import multiprocessing
import pickle
import zlib
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from re import DOTALL, findall
from uuid import UUID

import pytest
from hotel.paper import Paper, draw
from hotel.payments import Charge, Payments
from hotel.receipts import NothingPaid, Receipts, paper_of
from hotel.reservations import Booking, Card, Guest, Hold, Reservation, Reservations, Stay

from ropewalk import NotFound, Unauthorized, Unavailable

MADE_AT = datetime(2026, 5, 1, 9, 0, tzinfo=UTC)
STAY = Stay(4, "double", date(2026, 5, 10), 2, 2)
CHARGE = Charge(UUID(int=9), UUID(int=1), 20000, "EUR", "4242", "Stay", 0)


def reservation(**changes) -> Reservation:
    facts = {
        "id": UUID(int=1),
        "number": "HB-0000-0001",
        "state": "confirmed",
        "stay": STAY,
        "guest": Guest("Ann Example", "ann@example.org"),
        "subject": "ann",
        "hotel_name": "House",
        "city": "Vienna",
        "room_name": "Double room",
        "price": 10000,
        "total": 20000,
        "currency": "EUR",
        "made_at": MADE_AT,
        "held_until": None,
        "free_until": date(2026, 5, 8),
        "charge_id": UUID(int=9),
        "refund_due": 0,
        "refunded": 0,
    }
    return Reservation(**{**facts, **changes})


def words_in(pdf: bytes) -> str:
    """The text of a PDF's streams, as far as it is plain."""
    streams = [zlib.decompress(stream) for stream in findall(rb"stream\n(.*?)\nendstream", pdf, DOTALL)]
    return b" ".join(findall(rb"\((.*?)\) Tj", b"\n".join(streams))).decode("cp1252")


@pytest.fixture
def booked(house, as_user):
    wanted = Booking(STAY, Guest("Ann Example", "ann@example.org"), Card("4242424242424242", "12/30", "123"))
    return house.play(as_user("ann", lambda: house.client(Reservations).book(wanted)))


def receipt(house, as_user, reservation_id: UUID, subject: str | None = "ann"):
    return house.play(as_user(subject, lambda: house.client(Receipts).receipt(reservation_id)))


def test_a_receipt_is_a_pdf_that_says_what_was_paid(house, as_user, booked):
    answer = receipt(house, as_user, booked.id)

    assert answer.status == 200
    assert list(answer.headers) == [
        ("content-type", "application/pdf"),
        ("content-disposition", f'inline; filename="receipt-{booked.number}.pdf"'),
        ("cache-control", "private, no-cache"),
    ]
    assert answer.body.startswith(b"%PDF-")
    words = words_in(answer.body)
    for said in (f"Receipt {booked.number}", "Ann Example", booked.hotel_name, "2026-05-10", "2026-05-12", "4242"):
        assert said in words


def test_a_receipt_is_the_same_bytes_each_time(house, as_user, booked):
    first = receipt(house, as_user, booked.id)
    house.pass_time(5)

    assert receipt(house, as_user, booked.id) == first


def test_nobody_gets_the_receipt_of_another_one(house, as_user, booked):
    with pytest.raises(NotFound):
        receipt(house, as_user, booked.id, "bob")
    with pytest.raises(Unauthorized):
        receipt(house, as_user, booked.id, None)


def test_what_was_not_paid_has_no_receipt(house, as_user):
    held = house.play(as_user("ann", lambda: house.client(Reservations).hold(Hold(STAY, Guest("Ann", "a@b.c")))))

    with pytest.raises(NothingPaid, match="is held and was never paid"):
        receipt(house, as_user, held.id)


@pytest.mark.parametrize("sibling", ["payments", "reservations"])
def test_without_its_siblings_there_is_no_receipt_now(house, as_user, booked, sibling):
    house.cut.add(sibling)

    with pytest.raises(Unavailable):
        receipt(house, as_user, booked.id)


def test_a_charge_that_payments_do_not_know_is_not_the_callers_fault(house, as_user, booked):
    async def forget() -> None:
        from hotel.ledger import charges

        await house.services["payments"]._database.run(lambda tx: tx.execute(charges.delete()).rowcount)

    house.play(forget())
    with pytest.raises(NotFound):
        house.play(house.client(Payments).read(booked.charge_id))

    with pytest.raises(Unavailable, match="do not know the charge"):
        receipt(house, as_user, booked.id)


def test_the_amounts_of_a_paid_stay_come_to_nothing():
    assert paper_of("Issuer", reservation(), CHARGE).amounts == (
        ("Double room, 2 x EUR 100.00", "EUR 200.00"),
        ("Paid by card ending in 4242", "- EUR 200.00"),
        ("Balance", "EUR 0.00"),
    )


def test_the_amounts_of_a_cancelled_stay_show_what_is_still_to_be_given_back():
    cancelled = reservation(state="cancelled", refund_due=10000)

    assert paper_of("Issuer", cancelled, CHARGE).amounts == (
        ("Double room, 2 x EUR 100.00", "EUR 200.00"),
        ("Cancelled", "- EUR 100.00"),
        ("Paid by card ending in 4242", "- EUR 200.00"),
        ("Given back to the card", "EUR 0.00"),
        ("Balance", "- EUR 100.00"),
    )


def test_a_name_in_any_script_can_be_drawn():
    names = ("Łukasz Żółć", "Ζωή", "李小龍", "عمر", "😀\u202e\u0301")
    paper = Paper("Receipt", "Issuer", MADE_AT, tuple(("Guest", name) for name in names), (("Balance", "EUR 0.00"),))

    words = words_in(draw(paper))

    assert "Lukasz Zólc" in words
    assert "???" in words


def test_a_text_without_a_place_to_break_is_broken_all_the_same():
    paper = Paper("R" * 200, "I" * 200, MADE_AT, (("Guest", "W" * 200),), (("x" * 200, "EUR 0.00"),))

    assert draw(paper).startswith(b"%PDF-")


def test_a_paper_can_be_sent_to_another_process():
    paper = paper_of("Issuer", reservation(), CHARGE)

    assert pickle.loads(pickle.dumps((draw, paper))) == (draw, paper)


@pytest.mark.slow
def test_another_process_draws_the_same_bytes():
    paper = paper_of("Issuer", reservation(), CHARGE)

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(draw, paper).result(timeout=60) == draw(paper)
