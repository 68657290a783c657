"""Holding and booking: what a caller is told, what becomes of the room, what becomes of the money."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
import sqlalchemy as sa
from hotel import ledger, rooms
from hotel.hotels import Hotels
from hotel.notifications import Notifications
from hotel.payments import Provider
from hotel.reservations import (
    Booking,
    Card,
    Guest,
    Hold,
    NotInState,
    PaymentDeclined,
    PaymentUnavailable,
    Reservation,
    Reservations,
    RoomsLeft,
    SoldOut,
    Stay,
    StayNotPossible,
    TooLate,
)

from ropewalk import KeyReused, NotFound, Unauthorized, Unavailable
from ropewalk.store.tables import sagas

TODAY = date(2026, 5, 1)  # what the house's clock shows when it starts
ARRIVAL = date(2026, 5, 10)
GUEST = Guest("Ann Example", "ann@example.org")
GOOD, DECLINED = "4242424242424242", "4000000000000002"
HOTEL = 6  # in Amsterdam: ten doubles, two family rooms, one apartment, and more


def stay(
    kind: str = "double", arrival: date = ARRIVAL, nights: int = 2, guests: int = 2, hotel_id: int = HOTEL
) -> Stay:
    return Stay(hotel_id, kind, arrival, nights, guests)


def booking(number: str = GOOD, **facts) -> Booking:
    return Booking(stay(**facts), GUEST, Card(number, "12/30", "123"))


@pytest.fixture
def desk(house, as_user):
    return Desk(house, as_user)


class Desk:
    """What a test asks of the reservations, as a user."""

    def __init__(self, house, as_user) -> None:
        self.house = house
        self.as_user = as_user
        self.reservations = house.client(Reservations)

    def booking(self, wanted: Booking | None = None, subject: str | None = "ann", key: str | None = None):
        """A call of `book`, to be played."""
        return self.as_user(subject, lambda: self.reservations.book(wanted or booking()), key)

    def book(self, wanted: Booking | None = None, subject: str | None = "ann", key: str | None = None) -> Reservation:
        return self.house.play(self.booking(wanted, subject, key))

    def holding(self, wanted: Stay):
        """A call of `hold`, to be played."""
        return self.as_user("ann", lambda: self.reservations.hold(Hold(wanted, GUEST)))

    def hold(self, wanted: Stay | None = None) -> Reservation:
        return self.house.play(self.holding(wanted or stay()))

    def cancelling(self, reservation_id: UUID, subject: str = "ann"):
        """A call of `cancel`, to be played."""
        return self.as_user(subject, lambda: self.reservations.cancel(reservation_id))

    def read(self, reservation_id: UUID, subject: str = "ann") -> Reservation:
        return self.house.play(self.as_user(subject, lambda: self.reservations.read(reservation_id)))

    def mine(self, page: int = 1, subject: str = "ann") -> list[Reservation]:
        return self.house.play(self.as_user(subject, lambda: self.reservations.mine(page)))

    def cancel(self, reservation_id: UUID, subject: str = "ann") -> Reservation:
        return self.house.play(self.cancelling(reservation_id, subject))

    def sweep(self) -> int:
        return self.house.play(self.reservations.sweep())

    def switch(self, mode: str) -> None:
        self.house.play(self.house.services["payments"].switch(Provider(mode)))

    def states(self) -> list[str]:
        """Of every reservation there is."""
        return sorted(row.state for row in self.rows(rooms.reservations))

    def charged(self) -> list[int]:
        """What is charged and not given back, for each charge there is."""
        return [row.amount - row.refunded for row in self.rows(ledger.charges, "payments") if row.state != "declined"]

    def rows(self, table: sa.Table, service: str = "reservations") -> list[sa.Row]:
        database = self.house.services[service]._database
        return self.house.play(database.run(lambda tx: tx.execute(sa.select(table)).all()))

    def left(self, kind: str = "double", arrival: date = ARRIVAL, nights: int = 2) -> int:
        found = self.house.play(self.reservations.availability(HOTEL, arrival, nights))
        return next(each.left for each in found if each.kind == kind)

    def fill(self, but: int, kind: str = "double", arrival: date = ARRIVAL, nights: int = 2) -> None:
        """Hold rooms until so many are left."""
        while self.left(kind, arrival, nights) > but:
            self.hold(stay(kind, arrival, nights))


# -- what is free


def test_all_rooms_of_an_empty_hotel_are_left(house, desk):
    hotel = house.play(house.client(Hotels).read(HOTEL))

    found = house.play(desk.reservations.availability(HOTEL, ARRIVAL, 3, 2))

    assert found == [
        RoomsLeft(each.kind, each.name, each.sleeps, each.price, each.price * 3, "EUR", each.count)
        for each in hotel.room_kinds
        if each.sleeps >= 2
    ]


def test_what_is_left_is_what_the_fullest_night_leaves(desk):
    before = desk.left(nights=3)
    desk.hold(stay(arrival=ARRIVAL, nights=1))
    desk.hold(stay(arrival=ARRIVAL + timedelta(1), nights=2))
    desk.hold(stay(arrival=ARRIVAL + timedelta(2), nights=1))

    assert desk.left(nights=3) == before - 2
    assert desk.left(nights=2) == before - 1
    assert desk.left(arrival=ARRIVAL + timedelta(3)) == before


def test_beyond_the_calendar_nothing_can_be_told(house, desk):
    with pytest.raises(StayNotPossible):
        house.play(desk.reservations.availability(HOTEL, date.max, 30))


def test_the_availability_of_a_hotel_that_is_not_there_is_not_found(house, desk):
    with pytest.raises(NotFound):
        house.play(desk.reservations.availability(9999, ARRIVAL))


# -- booking


def test_a_booking_is_confirmed_and_paid_and_its_room_is_taken(house, desk):
    hotel = house.play(house.client(Hotels).read(HOTEL))
    room = hotel.room_kind("double")
    before = desk.left()

    made = desk.book()

    (charge,) = desk.rows(ledger.charges, "payments")
    assert made == Reservation(
        id=made.id,
        number=rooms.number_of(made.id),
        state="confirmed",
        stay=stay(),
        guest=GUEST,
        subject="ann",
        hotel_name=hotel.name,
        city="Amsterdam",
        room_name="Double room",
        price=room.price,
        total=room.price * 2,
        currency="EUR",
        made_at=datetime(2026, 5, 1, 9, 0, tzinfo=UTC),
        held_until=None,
        free_until=date(2026, 5, 8),
        charge_id=charge.id,
        refund_due=0,
        refunded=0,
    )
    assert (charge.reference, charge.amount, charge.state) == (made.id, room.price * 2, "captured")
    assert desk.left() == before - 1
    assert desk.read(made.id) == made


def mails(house) -> list:
    """What the guest has got, a moment later."""
    house.pass_time(1.0)
    return house.play(house.client(Notifications).mailbox(GUEST.email))


def test_the_guest_gets_a_mail(house, desk):
    made = desk.book()

    (mail,) = mails(house)
    assert mail.subject == f"Booked: {made.number}, {made.hotel_name}"
    assert mail.reservation_id == made.id
    assert mail.body.splitlines()[:3] == ["Dear Ann Example,", "", "your stay is booked and paid."]
    assert "Arrival      2026-05-10\nDeparture    2026-05-12, nights: 2" in mail.body


def test_nobody_books_who_has_not_said_who_they_are(house, desk):
    for call in (desk.booking(subject=None), desk.as_user(None, lambda: desk.reservations.mine())):
        with pytest.raises(Unauthorized):
            house.play(call)


@pytest.mark.parametrize(
    ("wanted", "detail"),
    [
        ({"arrival": TODAY - timedelta(1)}, "An arrival can be from 2026-05-01 to 2027-09-13; got 2026-04-30"),
        ({"arrival": date(2027, 9, 14)}, "got 2027-09-14"),
        ({"arrival": date.max}, "got 9999-12-31"),
        ({"kind": "single", "guests": 2}, "A Single room sleeps 1; got 2 guests"),
    ],
)
def test_a_stay_that_cannot_be_is_a_conflict_and_nothing_is_kept(desk, wanted, detail):
    with pytest.raises(StayNotPossible, match=detail):
        desk.book(booking(**{"hotel_id": 1, **wanted}))

    assert desk.states() == []


@pytest.mark.parametrize("arrival", [TODAY, date(2027, 9, 13)])
def test_the_first_and_the_last_day_can_be_booked(desk, arrival):
    assert desk.book(booking(arrival=arrival)).state == "confirmed"


@pytest.mark.parametrize("wanted", [{"hotel_id": 9999}, {"kind": "igloo"}])
def test_a_hotel_or_a_kind_of_room_that_is_not_there_is_not_found(desk, wanted):
    with pytest.raises(NotFound):
        desk.book(booking(**wanted))


def test_without_a_clock_nothing_is_booked(house, desk):
    house.cut.add("clock")

    with pytest.raises(Unavailable):
        desk.book()


# -- payments that fail


def test_a_declined_card_gives_the_room_back(desk):
    before = desk.left()

    with pytest.raises(PaymentDeclined) as declined:
        desk.book(booking(DECLINED))

    assert (declined.value.status, declined.value.members) == (402, {"reason": "card declined"})
    assert (desk.states(), desk.charged(), desk.left()) == (["declined"], [], before)


def test_a_reply_that_was_lost_is_asked_for_again_and_the_booking_succeeds(house, desk):
    desk.switch("losing-replies")
    book = house.driver.run(desk.booking())
    house.pass_time(2)
    desk.switch("working")

    assert house.play(book).state == "confirmed"
    assert len(desk.charged()) == 1


@pytest.mark.parametrize("how", ["losing-replies", "cut"])
def test_while_nobody_knows_what_was_charged_the_room_is_free_and_the_money_is_seen_to(house, desk, how):
    before = desk.left()
    if how == "cut":
        house.cut.add("payments")
    else:
        desk.switch(how)

    with pytest.raises(PaymentUnavailable, match="the money is given back") as unavailable:
        desk.book()

    assert (unavailable.value.status, unavailable.value.members) == (503, {"state": "voiding"})
    assert (desk.states(), desk.left()) == (["voiding"], before)

    house.cut.clear()
    desk.switch("working")
    house.pass_time(60)
    assert (desk.states(), sum(desk.charged())) == (["voided"], 0)


@pytest.mark.parametrize("how", ["slow", "down"])
def test_a_charge_that_the_provider_does_not_make_in_time_is_never_made(house, desk, how):
    before = desk.left()
    desk.switch(how)

    with pytest.raises(PaymentUnavailable) as unavailable:
        desk.book()

    house.pass_time(20)
    desk.switch("working")
    house.pass_time(60)
    assert unavailable.value.members["state"] in ("voided", "voiding")
    assert (desk.states(), sum(desk.charged()), desk.left()) == (["voided"], 0, before)


def test_a_booking_goes_on_without_whoever_made_it(house, desk):
    before = desk.left()
    desk.switch("losing-replies")
    broken_off = house.driver.run(desk.booking())
    broken_off.addErrback(lambda _: None)
    house.pass_time(1)
    broken_off.cancel()
    house.pass_time(1)
    assert (desk.states(), desk.left()) == (["pending"], before - 1)

    desk.switch("working")
    house.pass_time(10)

    assert (desk.states(), len(desk.charged()), desk.left()) == (["confirmed"], 1, before - 1)


# -- repeating under a key


def test_a_booking_repeated_under_its_key_is_the_same_booking(house, desk):
    first = desk.book(key="k")
    again = desk.book(key="k")

    assert first == again
    assert (desk.states(), len(desk.charged())) == (["confirmed"], 1)
    assert len(mails(house)) == 1


def test_one_key_of_two_users_is_two_keys(desk):
    assert desk.book(key="k").id != desk.book(key="k", subject="bob").id


def test_a_key_that_comes_with_another_stay_is_refused(desk):
    desk.book(key="k")

    with pytest.raises(KeyReused):
        desk.book(booking(nights=3), key="k")


def test_repetitions_at_the_same_time_book_once(build, as_user):
    for seed in range(10):
        house = build(seed)
        desk = Desk(house, as_user)

        made = house.play(*(desk.booking(key="k") for _ in range(5)))

        assert made == [made[0]] * 5
        assert made[0].state == "confirmed"
        assert len(desk.charged()) == 1


def test_a_repetition_of_what_was_declined_is_declined(desk):
    for _ in range(2):
        with pytest.raises(PaymentDeclined):
            desk.book(booking(DECLINED), key="k")


def test_a_repetition_of_what_was_given_up_is_given_up(house, desk):
    desk.switch("losing-replies")
    for _ in range(2):
        with pytest.raises(PaymentUnavailable, match="not booked"):
            desk.book(key="k")
        desk.switch("working")

    house.pass_time(60)
    assert (desk.states(), sum(desk.charged())) == (["voided"], 0)


# -- holding


def test_a_hold_keeps_a_room_until_it_is_released(house, desk):
    before = desk.left()

    held = desk.hold()

    assert (held.state, held.held_until) == ("held", datetime(2026, 5, 1, 9, 15, tzinfo=UTC))
    assert desk.left() == before - 1
    assert house.play(desk.reservations.release(held.id)).state == "released"
    assert house.play(desk.reservations.release(held.id)).state == "released"
    assert desk.left() == before


def test_a_hold_is_confirmed_by_a_charge(house, desk):
    held = desk.hold()

    confirmed = house.play(desk.reservations.confirm(held.id, UUID(int=9)))

    assert (confirmed.state, confirmed.charge_id, confirmed.held_until) == ("confirmed", UUID(int=9), None)
    with pytest.raises(NotInState, match="is confirmed; only one that is held can become released") as refused:
        house.play(desk.reservations.release(held.id))
    assert refused.value.members == {"state": "confirmed"}


def test_a_hold_that_is_too_old_is_freed_and_cannot_be_confirmed(house, desk):
    before = desk.left()
    held = desk.hold()
    house.pass_time(890)
    assert desk.sweep() == 0

    house.pass_time(10)

    assert desk.sweep() == 1
    assert (desk.states(), desk.left()) == (["expired"], before)
    with pytest.raises(NotInState):
        house.play(desk.reservations.confirm(held.id, UUID(int=9)))


def test_what_is_not_there_is_neither_confirmed_nor_released(house, desk):
    for call in (desk.reservations.confirm(UUID(int=1), UUID(int=2)), desk.reservations.release(UUID(int=1))):
        with pytest.raises(NotFound):
            house.play(call)


def test_the_service_sweeps_by_itself_from_its_start_to_its_stop(house, desk):
    service = house.services["reservations"]
    house.play(service.start())
    desk.hold()
    house.pass_time(935)
    assert desk.states() == ["expired"]

    house.play(service.stop())

    desk.hold()
    house.pass_time(1000)
    assert desk.states() == ["expired", "held"]


def test_the_sweeping_goes_on_after_a_sweep_that_could_not_be_done(house, desk):
    service = house.services["reservations"]
    house.play(service.start())
    desk.hold()
    house.cut.add("clock")
    house.pass_time(1000)
    assert desk.states() == ["held"]

    house.cut.clear()
    house.pass_time(31)

    assert desk.states() == ["expired"]
    house.play(service.stop())


# -- one's own


def test_nobody_reads_or_cancels_what_is_another_ones(desk):
    made = desk.book()

    for ask in (desk.read, desk.cancel):
        with pytest.raises(NotFound):
            ask(made.id, subject="bob")
    assert desk.mine(subject="bob") == []


def test_ones_own_stays_are_listed_the_latest_arrival_first_without_what_came_to_nothing(desk):
    with pytest.raises(PaymentDeclined):
        desk.book(booking(DECLINED))
    early, late, held = desk.book(), desk.book(booking(arrival=ARRIVAL + timedelta(5))), desk.hold()
    cancelled = desk.cancel(desk.book(booking(arrival=ARRIVAL + timedelta(1))).id)

    listed = desk.mine()

    assert listed[:2] == [late, cancelled]
    assert sorted(each.id for each in listed[2:]) == sorted([early.id, held.id])
    assert desk.mine(page=2) == []


# -- cancelling


@pytest.mark.parametrize(
    ("days_before", "given_back"),
    [(9, 2), (2, 2), (1, 1)],  # in nights, of two
)
def test_cancelling_gives_back_everything_or_all_but_a_night(build, as_user, days_before, given_back):
    house = build(clock={"starts_at": f"{ARRIVAL - timedelta(days_before)}T12:00:00Z"})
    desk = Desk(house, as_user)
    before = desk.left()
    made = desk.book()

    cancelled = desk.cancel(made.id)

    due = made.price * given_back
    assert (cancelled.state, cancelled.refund_due, cancelled.refunded) == ("cancelled", due, due)
    assert desk.charged() == [made.total - due]
    assert desk.left() == before
    mail = mails(house)[0]
    assert mail.subject == f"Cancelled: {made.number}, {made.hotel_name}"


def test_cancelling_a_single_night_late_gives_nothing_back(build, as_user):
    house = build(clock={"starts_at": f"{ARRIVAL - timedelta(1)}T12:00:00Z"})
    desk = Desk(house, as_user)
    made = desk.book(booking(nights=1))

    cancelled = desk.cancel(made.id)

    assert (cancelled.state, cancelled.refund_due, cancelled.refunded) == ("cancelled", 0, 0)
    assert desk.charged() == [made.total]
    assert "Nothing is given back" in mails(house)[0].body


def test_on_the_day_of_arrival_it_is_too_late(desk):
    made = desk.book(booking(arrival=TODAY))

    with pytest.raises(TooLate):
        desk.cancel(made.id)

    assert desk.states() == ["confirmed"]


def test_cancelling_twice_gives_back_once(house, desk):
    made = desk.book()

    first, second = house.play(desk.cancelling(made.id), desk.cancelling(made.id))

    assert {first.state, second.state} == {"cancelled"}
    assert desk.cancel(made.id).refunded == made.total
    assert desk.charged() == [0]


def test_what_is_not_booked_cannot_be_cancelled(desk):
    held = desk.hold()

    with pytest.raises(NotInState, match="is held; only one that is confirmed can become cancelled"):
        desk.cancel(held.id)


def test_money_that_cannot_be_given_back_now_follows_later(house, desk):
    made = desk.book()
    desk.switch("down")

    cancelled = desk.cancel(made.id)

    assert (cancelled.state, cancelled.refund_due, cancelled.refunded) == ("cancelled", made.total, 0)
    desk.switch("working")
    house.pass_time(60)
    assert desk.read(made.id).refunded == made.total
    assert desk.charged() == [0]


# -- no room is given twice


def test_a_full_house_is_sold_out(desk):
    desk.fill(but=0)

    with pytest.raises(SoldOut, match="No double is left in the night of 2026-05-10") as sold_out:
        desk.book()

    assert sold_out.value.members == {"kind": "double", "night": "2026-05-10"}
    assert desk.charged() == []


def test_one_full_night_in_the_middle_is_enough_to_be_sold_out(desk):
    desk.fill(but=0, arrival=ARRIVAL + timedelta(1), nights=1)

    with pytest.raises(SoldOut, match="2026-05-11"):
        desk.book(booking(nights=3))
    assert desk.book(booking(nights=1)).state == "confirmed"


def test_of_many_who_want_the_last_room_one_gets_it_and_one_pays(build, as_user):
    for seed in range(10):
        house = build(seed)
        desk = Desk(house, as_user)
        desk.fill(but=1, kind="apartment")

        outcomes = house.play(*(desk.booking(booking(kind="apartment"), f"guest {n}") for n in range(30)))

        assert Counter(type(outcome).__name__ for outcome in outcomes) == {"Reservation": 1, "SoldOut": 29}
        assert len(desk.charged()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_no_night_is_overbooked_and_nobody_pays_for_nothing(build, as_user, seed):
    random = Random(seed)
    house = build(seed, payments={"failure_rate": 0.1}, reservations={"hold": 20.0, "sweep": 5.0})
    desk = Desk(house, as_user)
    house.play(house.services["reservations"].start())
    rooms_there = house.play(house.client(Hotels).read(HOTEL)).room_kind("family").count
    arrivals = [ARRIVAL + timedelta(n) for n in range(4)]

    def wanted() -> Booking:
        number = random.choice([GOOD, GOOD, GOOD, DECLINED])
        return booking(number, kind="family", arrival=random.choice(arrivals), nights=random.randint(1, 4))

    for _ in range(12):
        desk.switch(random.choice(["working", "working", "slow", "declining", "down", "losing-replies"]))
        calls = [desk.booking(wanted(), "ann", random.choice([None, f"key {n}"])) for n in range(random.randint(1, 8))]
        calls.append(desk.holding(wanted().stay))
        booked = [each.id for each in desk.mine() if each.state == "confirmed"]
        calls += map(desk.cancelling, random.sample(booked, min(2, len(booked))))
        abandoned = house.driver.run(desk.booking(wanted()))
        abandoned.addErrback(lambda _: None)
        house.time.callLater(random.random(), abandoned.cancel)
        house.play(*calls)
        house.pass_time(random.random() * 10)
        nights = Counter(row.night for row in desk.rows(rooms.taken))
        assert max(nights.values(), default=0) <= rooms_there

    desk.switch("working")
    house.pass_time(200)  # what fails by chance is asked for again
    house.play(house.services["reservations"].stop())
    reservations = {row.id: row for row in desk.rows(rooms.reservations)}
    open_ = [told for told in desk.rows(sagas) if told.state == "running"]
    assert open_ == []
    assert {row.state for row in reservations.values()} <= {"confirmed", "declined", "voided", "expired", "cancelled"}
    charged = {
        row.reference: row.amount - row.refunded
        for row in desk.rows(ledger.charges, "payments")
        if row.state != "declined"
    }
    for row in reservations.values():
        due = {"confirmed": row.total, "cancelled": row.total - row.refund_due}.get(row.state, 0)
        assert charged.get(row.id, 0) == due, row
    assert {row.reservation_id for row in desk.rows(rooms.taken)} == {
        row.id for row in reservations.values() if row.state == "confirmed"
    }
