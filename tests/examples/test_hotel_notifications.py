"""The mailbox."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hotel.notifications import KEPT, Letter, Mail, Notifications

from ropewalk import NotFound

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def letter(subject: str = "Hello", to: str = "Ann@example.org") -> Letter:
    return Letter(to, subject, "Dear Ann,\n\nhello.", NOON, UUID(int=3))


@pytest.fixture
def notifications(house):
    return house.client(Notifications)


def test_a_mail_that_was_sent_can_be_read_by_its_addressee_alone(house, notifications):
    mail = house.play(notifications.send(letter()))

    assert mail == Mail(mail.id, "Ann@example.org", "Hello", "Dear Ann,\n\nhello.", NOON, UUID(int=3))
    assert house.play(notifications.read(mail.id, "ann@example.org")) == mail
    with pytest.raises(NotFound):
        house.play(notifications.read(mail.id, "bob@example.org"))


def test_a_mailbox_has_the_newest_first_in_pages_of_twenty(house, notifications):
    for number in range(25):
        house.play(notifications.send(letter(f"Mail {number}")))
    house.play(notifications.send(letter("Other", to="bob@example.org")))

    pages = [house.play(notifications.mailbox("ANN@example.org", page)) for page in (1, 2, 3)]

    subjects = [[mail.subject for mail in page] for page in pages]
    assert subjects == [[f"Mail {n}" for n in range(24, 4, -1)], [f"Mail {n}" for n in range(4, -1, -1)], []]


def test_of_more_than_it_keeps_a_mailbox_forgets_the_oldest(house, notifications):
    first = house.play(notifications.send(letter("first")))
    second = house.play(notifications.send(letter("second")))
    house.play(*(notifications.send(letter("later")) for _ in range(KEPT - 1)))

    with pytest.raises(NotFound):
        house.play(notifications.read(first.id, "ann@example.org"))
    assert house.play(notifications.read(second.id, "ann@example.org")) == second


def test_a_time_of_another_zone_is_kept_in_utc(house, notifications):
    east = datetime.fromisoformat("2026-05-01T14:00:00+02:00")

    mail = house.play(notifications.send(Letter("a@example.org", "Hello", "x", east)))

    assert mail.written_at == NOON
    assert mail.written_at.tzinfo == UTC
