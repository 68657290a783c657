"""The payment provider that is none."""

from __future__ import annotations

from uuid import UUID

import pytest
from hotel.payments import (
    Card,
    Charge,
    ChargeOrder,
    ChargeRefused,
    PaymentDeclined,
    Payments,
    Provider,
    Refund,
    RefundOrder,
    RefundRefused,
    Voided,
    WrongCurrency,
)

from ropewalk import NotFound, Unavailable

GOOD = "4242424242424242"
REFERENCE, OTHER = UUID(int=1), UUID(int=2)


def order(number: str = GOOD, amount: int = 12345, reference: UUID = REFERENCE, currency: str = "EUR") -> ChargeOrder:
    return ChargeOrder(reference, amount, currency, Card(number, "12/30", "123"), "Stay HB-1")


@pytest.fixture
def payments(house):
    return house.client(Payments)


def switched(house, mode: str) -> None:
    assert house.play(house.services["payments"].switch(Provider(mode))) == Provider(mode)


def test_a_charge_can_be_read_and_keeps_no_more_of_the_card_than_its_last_digits(house, payments):
    charge = house.play(payments.charge(order()))

    assert charge == Charge(charge.id, REFERENCE, 12345, "EUR", "4242", "Stay HB-1", 0)
    assert house.play(payments.read(charge.id)) == charge


def test_a_charge_that_nobody_made_is_not_found(house, payments):
    with pytest.raises(NotFound):
        house.play(payments.read(OTHER))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("4000000000000002", "card declined"),
        ("4000000000009995", "insufficient funds"),
        ("4000000000000069", "expired card"),
        ("4000000000000127", "incorrect security code"),
        ("4242424242424241", "incorrect number"),
    ],
)
def test_a_declined_card_is_402_and_says_why(house, payments, number, reason):
    with pytest.raises(PaymentDeclined) as declined:
        house.play(payments.charge(order(number)))

    error = declined.value
    assert (error.status, error.fault, error.members) == (402, "caller", {"reason": reason})


def test_a_reference_is_charged_once(house, payments):
    first, second, third = house.play(*(payments.charge(order()) for _ in range(3)))

    assert first == second == third


def test_a_reference_that_was_declined_stays_declined_whatever_card_comes_next(house, payments):
    with pytest.raises(PaymentDeclined):
        house.play(payments.charge(order("4000000000009995")))

    with pytest.raises(PaymentDeclined, match="insufficient funds"):
        house.play(payments.charge(order(GOOD)))


def test_a_reference_that_stands_for_another_amount_is_refused(house, payments):
    house.play(payments.charge(order(amount=100)))

    with pytest.raises(ChargeRefused, match="stands for 100 EUR already; got 200 EUR"):
        house.play(payments.charge(order(amount=200)))


def test_another_currency_is_refused(house, payments):
    with pytest.raises(WrongCurrency, match="This provider charges in EUR; got USD"):
        house.play(payments.charge(order(currency="USD")))


def test_the_currency_is_a_setting(build):
    house = build(payments={"currency": "CZK"})

    assert house.play(house.client(Payments).charge(order(currency="CZK"))).currency == "CZK"


# -- refunds


def test_a_charge_is_given_back_in_parts_once_for_each_reference_and_never_more_than_it_was(house, payments):
    charge = house.play(payments.charge(order(amount=1000)))

    first = house.play(payments.refund(charge.id, RefundOrder(REFERENCE, 600)))
    again = house.play(payments.refund(charge.id, RefundOrder(REFERENCE, 600)))

    assert first == again == Refund(first.id, charge.id, REFERENCE, 600, "EUR")
    with pytest.raises(RefundRefused, match="400 of the charge is left to give back; got 401"):
        house.play(payments.refund(charge.id, RefundOrder(OTHER, 401)))
    house.play(payments.refund(charge.id, RefundOrder(OTHER, 400)))
    assert house.play(payments.read(charge.id)).refunded == 1000


def test_a_refund_of_another_amount_under_the_same_reference_is_refused(house, payments):
    charge = house.play(payments.charge(order(amount=1000)))
    house.play(payments.refund(charge.id, RefundOrder(REFERENCE, 600)))

    with pytest.raises(RefundRefused, match="600 was given back"):
        house.play(payments.refund(charge.id, RefundOrder(REFERENCE, 500)))


def test_a_charge_that_was_declined_or_never_made_cannot_be_given_back(house, payments):
    with pytest.raises(NotFound):
        house.play(payments.refund(OTHER, RefundOrder(REFERENCE, 1)))


# -- voiding


def test_a_voided_charge_is_given_back_in_full_and_its_reference_is_never_charged_again(house, payments):
    charge = house.play(payments.charge(order(amount=1000)))
    house.play(payments.refund(charge.id, RefundOrder(REFERENCE, 300)))

    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 1000)
    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 1000)

    assert house.play(payments.read(charge.id)).refunded == 1000
    with pytest.raises(ChargeRefused, match="was voided"):
        house.play(payments.charge(order(amount=1000)))


def test_a_reference_voided_before_it_was_charged_refuses_the_charge_that_comes_late(house, payments):
    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 0)
    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 0)

    with pytest.raises(ChargeRefused, match="was voided"):
        house.play(payments.charge(order()))


def test_a_reference_whose_card_was_declined_needs_no_voiding(house, payments):
    with pytest.raises(PaymentDeclined):
        house.play(payments.charge(order("4000000000000002")))

    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 0)


def test_charges_and_voids_at_the_same_time_end_with_nothing_charged(build):
    for seed in range(20):
        house = build(seed)
        payments = house.client(Payments)
        charged, voided = house.play(payments.charge(order(amount=1000)), payments.void(REFERENCE))

        came_first = isinstance(charged, Charge)
        assert voided == Voided(REFERENCE, 1000 if came_first else 0)
        if came_first:
            assert house.play(payments.read(charged.id)).refunded == 1000
        else:
            assert isinstance(charged, ChargeRefused)


# -- its moods


def test_it_works_until_it_is_told_otherwise(house, payments):
    assert house.play(payments.mode()) == Provider("working")

    switched(house, "slow")

    assert house.play(payments.mode()) == Provider("slow")


def test_it_takes_as_long_as_its_latency(build):
    house = build(payments={"latency": 1.5})
    began = house.time.seconds()

    house.play(house.client(Payments).charge(order()))

    assert 1.5 <= house.time.seconds() - began < 1.6


def test_slow_it_takes_longer(house, payments):
    switched(house, "slow")
    began = house.time.seconds()

    house.play(payments.charge(order()))

    assert 8.0 <= house.time.seconds() - began < 8.1


def test_declining_it_declines_good_cards(house, payments):
    switched(house, "declining")

    with pytest.raises(PaymentDeclined):
        house.play(payments.charge(order()))


def test_down_it_does_nothing(house, payments):
    charge = house.play(payments.charge(order()))
    switched(house, "down")

    for call in (
        payments.charge(order(reference=OTHER)),
        payments.refund(charge.id, RefundOrder(OTHER, 1)),
        payments.void(REFERENCE),
    ):
        with pytest.raises(Unavailable):
            house.play(call)

    switched(house, "working")
    assert house.play(payments.read(charge.id)) == charge


def test_losing_replies_it_charges_and_does_not_say_so(house, payments):
    switched(house, "losing-replies")

    with pytest.raises(Unavailable, match="whether it charged is not known"):
        house.play(payments.charge(order()))

    switched(house, "working")
    assert house.play(payments.void(REFERENCE)) == Voided(REFERENCE, 12345)


def test_some_calls_fail_by_chance(build):
    house = build(payments={"failure_rate": 0.5, "latency": 0.0})
    payments = house.client(Payments)

    outcomes = house.play(*(payments.charge(order(reference=UUID(int=n))) for n in range(40)))

    assert {type(outcome) for outcome in outcomes} == {Charge, Unavailable}


def test_no_card_number_gets_into_a_log():
    assert repr(order()).count("4242") == 1
    assert repr(order().card) == "<Card ending in 4242>"
