"""The system files, and what every service of the hotel has in common."""

from __future__ import annotations

import tomllib

import pytest
from hotel.clock import Clock
from hotel.hotels import Hotels
from hotel.notifications import Notifications
from hotel.payments import Payments
from hotel.receipts import Receipts
from hotel.reservations import Reservations
from hotel.users import Users

from ropewalk.runtime.check import problems
from ropewalk.runtime.config import load
from ropewalk.service import describe

FILES = ["system.toml", "system.split.toml"]
BACK = [Hotels, Reservations, Payments, Users, Receipts, Notifications, Clock]
OPERATIONS = [operation for service in BACK for operation in describe(service).operations.values()]


@pytest.mark.parametrize("file", FILES)
def test_a_system_file_is_right(example, file):
    assert problems(load(str(example / file), {})) == []


def test_both_files_are_of_the_same_services_in_the_same_order(example):
    together, apart = (tomllib.loads((example / file).read_text("utf-8")) for file in FILES)

    assert list(together["services"]) == [
        "booking-ui",
        "hotels",
        "reservations",
        "payments",
        "users",
        "receipts",
        "notifications",
        "clock",
    ]
    processes = apart.pop("processes")
    assert apart == together
    assert sorted(name for names in processes.values() for name in names) == sorted(together["services"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_says_in_a_line_what_it_does(operation):
    assert operation.summary.endswith(".")
    assert 10 < len(operation.summary) <= 100


def test_whoever_reads_the_catalogue_needs_no_account_and_whoever_moves_money_is_a_sibling():
    access = {operation.id: operation.access for operation in OPERATIONS}

    assert {each for each in access if access[each] == "public"} == {
        "hotels.search",
        "hotels.cities",
        "hotels.read",
        "hotels.room_kinds",
        "hotels.photo",
        "reservations.availability",
    }
    assert {each for each in access if access[each] == "user"} == {
        "reservations.book",
        "reservations.read",
        "reservations.mine",
        "reservations.cancel",
        "receipts.receipt",
    }
