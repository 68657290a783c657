"""The hotel's audit: what must be true of its rooms and its money, whoever crashed meanwhile.

    read(reservations, payments, notifications)         the books: three databases as they are at one moment
    rooms_given_twice, unpaid, wrongly_refunded,        books -> what is wrong: these must be empty at every moment
    wrongly_counted, wrong_mails
    gone_wrong                                          two books, one after the other -> what must not become of it
    still_open, orphans, unwritten                      books -> what is not yet settled: empty once all is quiet
    no_room_twice(world), every_booking_paid(world) ... the same as checks of a simulated world
    python -m audit FOLDER                              the same of a real system's data folder

A mail comes once for each booking and each cancellation, sooner or later.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from hotel import hotels, ledger, notifications, rooms
from hotel.catalogue import Catalogue
from hotel.hotels import HotelsSettings
from hotel.words import nights_of, written
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.dialects import sqlite

from ropewalk.store.tables import sagas

DATABASES: Mapping[str, tuple[sa.Table, ...]] = {  # service -> those of its tables that the books are read from
    "reservations": (rooms.reservations, rooms.taken),
    "payments": (ledger.charges, ledger.refunds),
    "notifications": (notifications.mails,),
}
HOLDING = frozenset({"held", "pending", "confirmed"})  # states in which a reservation takes a room
# What the charge under a reservation's id may be, by the reservation's state; "" is none at all.
PAYMENT: Mapping[str, tuple[str, ...]] = {
    "held": ("", "captured"),  # by whoever holds it and confirms it then
    "released": ("", "captured", "voided"),  # likewise
    "expired": ("", "captured", "voided"),  # charged too late: whoever did that gives it back
    "pending": ("", "captured", "declined"),  # charged, and not confirmed yet
    "confirmed": ("captured",),
    "declined": ("declined",),
    "voiding": ("", "captured", "declined", "voided"),  # nobody knows, and until it is voided even a charge may come
    "voided": ("declined", "voided"),  # the latter also when nothing had been charged: then nothing ever will be
    "cancelled": ("captured",),  # with what was given back of it
}
LEADS: Mapping[str, tuple[str, ...]] = {  # a state -> what may become of it
    "held": ("confirmed", "released", "expired"),
    "pending": ("confirmed", "declined", "voiding"),
    "voiding": ("voided", "declined"),
    "confirmed": ("cancelled",),
}
MAILED = {"Booked": ("confirmed", "cancelled"), "Cancelled": ("cancelled",)}  # a mail -> the states in which it is true
BAR = 5  # the version of the UUIDs that the bar charges under, which has no reservations: theirs are of version 4
KEPT = 100  # mails that an address keeps
AGO = 60.0  # seconds between a look at a clock and what is written by it: whoever looked may have stood still meanwhile
TOLERATED = 28.0  # seconds that two clocks may differ: less than the leeway of what services say of themselves


class Booked(Struct, frozen=True):
    """A reservation, as far as rooms and money go. Amounts are in minor units."""

    id: Any  # UUID
    state: str
    hotel_id: int
    kind: str
    arrival: date
    nights: int
    total: int
    currency: str
    held_until: int | None  # seconds since 1970
    charge_id: Any
    refund_due: int
    refunded: int  # as the reservations know
    price: int = 0  # of a night
    made_at: int = 0  # seconds since 1970
    free_until: date | None = None
    subject: str = ""
    guest_name: str = ""
    guest_email: str = ""

    @property
    def said(self) -> tuple[Any, ...]:
        """What was agreed on, and never changes."""
        stay = (self.hotel_id, self.kind, self.arrival, self.nights, self.total, self.currency, self.price)
        return (*stay, self.made_at, self.free_until, self.subject, self.guest_name, self.guest_email)

    def __str__(self) -> str:
        return f"reservation {self.id} ({self.state}, {written(self.total, self.currency)})"


class Charged(Struct, frozen=True):
    """What payments wrote down under one reference."""

    id: Any
    reference: Any
    state: str  # captured, declined, voided
    amount: int
    refunded: int

    def __str__(self) -> str:
        given_back = f", {self.refunded / 100:.2f} of it given back" if self.refunded else ""
        return f"charge {self.id} ({self.state}, {self.amount / 100:.2f}{given_back})"


class Taken(Struct, frozen=True):
    """A room, for a night."""

    reservation_id: Any
    hotel_id: int
    kind: str
    night: date
    place: int


class Counted(Struct, frozen=True):
    """A room that the search believes to be taken, for a night."""

    reservation_id: Any
    hotel_id: int
    kind: str
    night: date


class Refunded(Struct, frozen=True):
    """A part of a charge that was given back."""

    id: Any
    charge_id: Any
    amount: int


class Mailed(Struct, frozen=True):
    """A mail in somebody's mailbox."""

    id: int
    mailbox: str  # the address in lower case
    to: str
    subject: str
    body: str
    reservation_id: Any

    def __str__(self) -> str:
        return f"mail {self.id} to {self.to}, {self.subject!r}"


class Books(Struct, frozen=True):
    """The rooms, the money and the mails of the whole hotel at one moment."""

    booked: Mapping[Any, Booked]  # by id
    taken: Mapping[Any, Sequence[tuple[date, int]]]  # reservation's id -> (night, place)
    charged: Mapping[Any, Charged]  # by reference
    refunds: Mapping[Any, int]  # charge's id -> sum of its refunds
    mailed: Sequence[Mailed] = ()


# -- the books


def read(reservations: Any, payments: Any, notifications: Any = None) -> Books:
    """The books; each argument has `execute(statement)`: a transaction, or a connection. Mails only if asked for."""
    reading = Reading()
    for tables, connection in zip(DATABASES.values(), (reservations, payments, notifications), strict=True):
        if connection is not None:
            reading.again(tables, connection)
    return reading.books


class Reading:
    """Reads the books again and again: whatever is as it was the last time is the very same value."""

    def __init__(self) -> None:
        self._views: Mapping[str, _View] = {
            "booked": _View(rooms.reservations, Booked, "id", lambda rows: {each.id: each for each in rows}),
            "taken": _View(rooms.taken, Taken, "reservation_id", _nights),
            "charged": _View(
                ledger.charges, Charged, "reference", lambda rows: {each.reference: each for each in rows}
            ),
            "refunds": _View(ledger.refunds, Refunded, "charge_id", _sums),
            "mailed": _View(notifications.mails, Mailed, "id", list),
        }
        self.books = Books({}, {}, {}, {})

    def again(self, tables: Collection[sa.Table], connection: Any) -> Books:
        """The books, of which all but these tables of one database are as they were."""
        news = {name: view.read(connection) for name, view in self._views.items() if view.table in tables}
        self.books = replace(self.books, **news)
        return self.books


def _nights(rows: Iterable[Taken]) -> dict[Any, list[tuple[date, int]]]:
    taken: dict[Any, list[tuple[date, int]]] = defaultdict(list)
    for row in rows:
        taken[row.reservation_id].append((row.night, row.place))
    return taken


def _sums(rows: Iterable[Refunded]) -> Counter[Any]:
    refunds: Counter[Any] = Counter()
    for row in rows:
        refunds[row.charge_id] += row.amount
    return refunds


class _View:
    """What is `made` of a table's rows. To read them as they lie there is cheap: only those that are new become values,
    and nothing is made anew of rows of which none has changed."""

    def __init__(self, table: sa.Table, values: type[Struct], order: str, made: Callable[[Iterable[Any]], Any]) -> None:
        columns = [table.c[name] for name in values.__struct_fields__]
        raw = [sa.type_coerce(column, sa.types.NullType()) for column in columns]  # as the driver has them
        self.table = table
        self._select = sa.select(*raw).order_by(table.c[order], *table.primary_key)
        self._processors = [column.type.dialect_impl(_SQLITE).result_processor(_SQLITE, None) for column in columns]
        self._values = values
        self._made = made
        self._rows: dict[tuple[Any, ...], Any] = {}  # row -> value
        self._view = made(())

    def read(self, connection: Any) -> Any:
        """It, of all rows in order; the very same as the last time if they are."""
        with connection.execute(self._select) as result:
            rows = result.cursor.fetchall()  # the driver's own tuples
        if rows != list(self._rows):
            self._rows = {row: self._rows.get(row) or self._value(row) for row in rows}
            self._view = self._made(self._rows.values())
        return self._view

    def _value(self, row: tuple[Any, ...]) -> Any:
        return self._values(*(made(raw) if made else raw for made, raw in zip(self._processors, row, strict=True)))


_SQLITE = sqlite.dialect()


@cache
def catalogue() -> Catalogue:
    """The hotels there are, and their rooms."""
    return Catalogue.of_json(HotelsSettings.model_fields["data"].default.read_bytes())


def rooms_there(hotel_id: int, kind: str) -> int:
    """How many rooms of a kind a hotel has."""
    return catalogue().hotel(hotel_id).room_kind(kind).count


def changed_since(before: Books, after: Books) -> set[Any]:
    """The ids of reservations of which something is other than before: itself, its money, its mails."""
    ids: set[Any] = set()
    if before.booked is not after.booked:
        ids.update(name for name, each in after.booked.items() if before.booked.get(name) is not each)
    if before.charged is not after.charged:
        ids.update(reference for reference, each in after.charged.items() if before.charged.get(reference) is not each)
    if before.taken is not after.taken:
        either = before.taken.keys() | after.taken.keys()
        ids.update(name for name in either if before.taken.get(name) != after.taken.get(name))
    if before.refunds is not after.refunds:
        references = {each.id: each.reference for each in after.charged.values()}
        ids.update(references[each] for each, sum_ in after.refunds.items() if before.refunds.get(each) != sum_)
    if before.mailed is not after.mailed:
        known = set(map(id, before.mailed))
        ids.update(mail.reservation_id for mail in after.mailed if id(mail) not in known)
    return ids


def only(books: Books, ids: Set[Any]) -> Books:
    """Of the books what is about these reservations."""
    return Books(
        {name: books.booked[name] for name in sorted(books.booked.keys() & ids)},
        books.taken,
        {name: books.charged[name] for name in sorted(books.charged.keys() & ids)},
        books.refunds,
        [mail for mail in books.mailed if mail.reservation_id in ids],
    )


def beside(books: Books, ids: Set[Any]) -> set[Any]:
    """The ids of all reservations of the same hotel and kind of room as one of these: of them a room may be given."""
    kinds = {(each.hotel_id, each.kind) for each in map(books.booked.get, ids) if each is not None}
    return {*ids, *(each.id for each in books.booked.values() if (each.hotel_id, each.kind) in kinds)}


# -- at every moment


def rooms_given_twice(books: Books) -> list[str]:
    """Nights with more rooms given than there are, and reservations that have not just the nights they should."""
    given: Counter[tuple[int, str, date]] = Counter()
    wrong: list[str] = []
    for each in books.booked.values():
        nights = nights_of(each.arrival, each.nights) if each.state in HOLDING else []
        places = sorted(books.taken.get(each.id, ()))
        if [night for night, _ in places] != nights:
            wrong.append(f"{each} should have {len(nights)} nights from {each.arrival}, and has {_shown(places)}.")
        given.update((each.hotel_id, each.kind, night) for night in nights)
    for (hotel, kind, night), number in sorted(given.items()):
        if number > rooms_there(hotel, kind):
            who = [e for e in books.booked.values() if _stays(e, hotel, kind, night)]
            wrong.append(
                f"Hotel {hotel} has {rooms_there(hotel, kind)} {kind}, and {number} are given in the night of {night}: "
                f"{'; '.join(map(str, who))}."
            )
    return wrong


def unpaid(books: Books) -> list[str]:
    """Reservations whose charge is not as their state demands (`PAYMENT`), and charges of nobody's but the bar's."""
    wrong = [
        f"{charge} is under the reference {reference}, and there is no such reservation."
        for reference, charge in books.charged.items()
        if reference not in books.booked and reference.version != BAR
    ]
    for each in books.booked.values():
        charge = books.charged.get(each.id)
        state = charge.state if charge is not None else ""
        if state not in PAYMENT[each.state]:
            allowed = ", ".join(name or "none" for name in PAYMENT[each.state])
            wrong.append(f"{each} has {charge or 'no charge'}; allowed: {allowed}.")
        elif charge is not None and charge.amount != each.total and (state, charge.amount) != ("voided", 0):
            wrong.append(f"{each} has {charge}: not its total.")
        elif charge is not None and each.state in ("confirmed", "cancelled") and charge.id != each.charge_id:
            wrong.append(f"{each} says it was paid by {each.charge_id}, and has {charge}.")
    return wrong


def wrongly_refunded(books: Books) -> list[str]:
    """Charges of which more, or other, was given back than is due; reservations that say more than payments did."""
    wrong: list[str] = []
    for reference, charge in books.charged.items():
        each = books.booked.get(reference)
        cancelled = each is not None and each.state == "cancelled"
        due = each.refund_due if each is not None and cancelled else 0
        paid = books.refunds.get(charge.id, 0)
        if charge.state == "captured" and (charge.refunded != paid or paid not in (0, due)):
            wrong.append(f"{each} has {charge}, in refunds of {paid / 100:.2f}; due: {due / 100:.2f}, at once.")
        elif charge.state == "voided" and charge.refunded != charge.amount:
            wrong.append(f"{each} has {charge}: not all of it.")
        elif charge.state == "declined" and charge.refunded:
            wrong.append(f"{each} has {charge}, and nothing was charged.")
        elif each is not None and each.refunded > charge.refunded:
            wrong.append(f"{each} says that {each.refunded / 100:.2f} was given back, and has {charge}.")
    return [
        *wrong,
        *(f"{e} gives back {e.refund_due / 100:.2f}." for e in books.booked.values() if e.refund_due > e.total),
    ]


def wrongly_counted(books: Books) -> list[str]:
    """Reservations whose own figures do not fit together."""
    wrong: list[str] = []
    for each in books.booked.values():
        if each.price and each.total != each.price * each.nights:
            wrong.append(f"{each} is for {each.nights} nights at {written(each.price, each.currency)}.")
        if each.free_until is not None and each.free_until > each.arrival:
            wrong.append(f"{each} can be cancelled until {each.free_until}, and arrives on {each.arrival}.")
        if each.held_until is not None and not each.made_at <= each.held_until:
            wrong.append(f"{each} was made at {each.made_at}, and is held until {each.held_until} only.")
        if each.made_at and (each.held_until is None) != (each.state not in ("held", "pending")):
            wrong.append(f"{each} is held until {each.held_until}.")
        dues = (each.total, each.total - each.price) if each.state == "cancelled" else (0,)
        if each.price and each.refund_due not in dues:
            wrong.append(f"{each} is to give back {each.refund_due / 100:.2f}.")
    return wrong


def wrong_mails(books: Books) -> list[str]:
    """Mails that are not true, or not for who reads them, or come a second time."""
    wrong: list[str] = []
    times: Counter[tuple[Any, str]] = Counter()
    for mail in books.mailed:
        each = books.booked.get(mail.reservation_id)
        if each is None:
            if mail.reservation_id is not None:
                wrong.append(f"{mail}: there is no reservation {mail.reservation_id}.")
            continue
        what = mail.subject.partition(":")[0]
        times[mail.reservation_id, what] += 1
        if mail.to != each.guest_email or mail.mailbox != each.guest_email.lower():
            wrong.append(f"{mail} lies in the mailbox of {mail.mailbox}, and is about {each} of {each.guest_email}.")
        elif each.state not in MAILED.get(what, ()):
            wrong.append(f"{mail} is about {each}.")
        elif rooms.number_of(each.id) not in mail.subject or not _tells(mail.body, each):
            wrong.append(f"{mail} does not say what is true of {each}: {mail.body}")
        if times[mail.reservation_id, what] == 2:
            wrong.append(f"{mail} came a second time, about {each}.")
    return wrong


def _tells(body: str, each: Booked) -> bool:
    said = [rooms.number_of(each.id), each.guest_name, str(each.arrival), written(each.total, each.currency)]
    if each.state == "cancelled" and "is cancelled" in body:
        said.append(written(each.refund_due, each.currency) if each.refund_due else "Nothing is given back")
    return all(text in body for text in said)


EVERY = (rooms_given_twice, unpaid, wrongly_refunded, wrongly_counted, wrong_mails)  # what must be empty always


# -- from one moment to a later one


def gone_wrong(before: Books, after: Books, now: float, tolerated: Callable[[Booked], float]) -> list[str]:
    """What was there and is not, or became what it must not become.

    `now`: seconds since 1970; `tolerated(reservation)`: seconds that the clocks may have gone wrong in its time.
    """
    wrong: list[str] = []
    for each in before.booked.values():
        later = after.booked.get(each.id)
        if later is None:
            wrong.append(f"{each} is not there any more.")
        elif later is each:
            continue
        elif later.said != each.said:
            wrong.append(f"{each} was {each.said} and is {later.said}.")
        elif later.state != each.state and not _leads(each.state, later.state):
            wrong.append(f"{each} became {later}.")
        elif later.state == "expired" and each.held_until is not None and now < each.held_until - tolerated(each):
            wrong.append(f"{each} was to be held until {each.held_until}, and it was given up at {now:.0f}.")
        elif later.state == each.state != "pending" and (later.charge_id, later.refund_due) != (
            each.charge_id,
            each.refund_due,
        ):
            wrong.append(f"{each} had {each.charge_id} and {each.refund_due}, and has {later}.")
        elif later.refunded < each.refunded:
            wrong.append(f"{each} had got {each.refunded / 100:.2f} back, and has {later.refunded / 100:.2f}.")
    for charge in before.charged.values():
        next_ = after.charged.get(charge.reference)
        if next_ is charge:
            continue
        if next_ is None or next_.id != charge.id:
            wrong.append(f"{charge} is not there any more.")
        elif (
            next_.amount != charge.amount
            or next_.refunded < charge.refunded
            or (next_.state != charge.state and (charge.state, next_.state) != ("captured", "voided"))
        ):
            wrong.append(f"{charge} became {next_}.")
    if len(before.mailed) > len(after.mailed) and max(Counter(m.mailbox for m in before.mailed).values()) < KEPT:
        wrong.append(f"There were {len(before.mailed)} mails, and there are {len(after.mailed)}.")
    return wrong


def _leads(state: str, to: str) -> bool:
    return to in LEADS.get(state, ())


# -- once all is quiet


def still_open(books: Books, now: float) -> list[str]:
    """What somebody has still to see to; nothing, long after the last request. `now`: seconds since 1970."""
    found: list[str] = []
    for each in books.booked.values():
        if each.state in ("pending", "voiding"):
            found.append(f"{each} is open.")
        elif each.state == "held" and (each.held_until is None or each.held_until < now):
            found.append(f"{each} was to be held until {each.held_until}, and it is {now:.0f}.")
        elif each.refunded != each.refund_due:
            found.append(f"{each} is owed {each.refund_due / 100:.2f} and got {each.refunded / 100:.2f} back.")
    return found


def unwritten(books: Books) -> list[str]:
    """Mails that have not come."""
    come = {(mail.reservation_id, mail.subject.partition(":")[0]) for mail in books.mailed}
    full = {mailbox for mailbox, count in Counter(mail.mailbox for mail in books.mailed).items() if count >= KEPT}
    return [
        f"{each} has no mail {what!r}."
        for each in books.booked.values()
        for what, states in MAILED.items()
        if each.state in states and each.guest_email.lower() not in full and (each.id, what) not in come
    ]


def orphans(books: Books) -> list[str]:
    """Money that is kept for nothing: it is neither for a confirmed stay nor what cancelling one costs."""
    found: list[str] = []
    for reference, charge in books.charged.items():
        each = books.booked.get(reference)
        kept = charge.amount - charge.refunded if charge.state == "captured" else 0
        due = 0
        if each is not None and each.state in ("confirmed", "cancelled"):
            due = each.total - each.refund_due
        if kept != due:
            found.append(f"{each or reference} has {charge}; to be kept: {due / 100:.2f}.")
    return found


# -- of a simulated world


def no_room_twice(world: Any) -> None:
    """For no room kind and night more rooms held, pending and confirmed than there are; always."""
    _check(world, rooms_given_twice)


def every_booking_paid(world: Any) -> None:
    """Each confirmed reservation has its one charge, of its total; no other state has what `PAYMENT` denies it; always.

    A crash after the charge leaves a pending reservation with a live charge: that is allowed here, for it takes a sweep
    to find it after the hold. That this comes is said by `nothing_stuck` and `no_orphan_charges`.
    """
    _check(world, unpaid)


def sums_right(world: Any) -> None:
    """The figures of each reservation fit together; always."""
    _check(world, wrongly_counted)


def mails_right(world: Any) -> None:
    """Each mail is true, with its addressee, and came once; always."""
    _check(world, wrong_mails)


def nothing_undone(world: Any) -> None:
    """What was written down stays, moves on as it may, and is held as long as was said; always."""
    look = _look(world)

    def tolerated(each: Booked) -> float:
        return wrong_by(world, look.first_seen[each.id] - AGO)

    if look.compared is not look.books:
        _none(gone_wrong(look.compared, look.books, world.wall(world.hosts["outside"]), tolerated))
        look.compared = look.books


def clocks_agree(world: Any, since: float = 0.0) -> bool:
    """Whether no two clocks differed, after `since`, by what what is signed and dated does not allow for."""
    return 2 * float(world.strayed(since)) < TOLERATED


def wrong_by(world: Any, since: float = 0.0) -> float:
    """Seconds by which two clocks may have differed after `since`: what is told to the second, and what faults do."""
    return 2.0 + 2 * float(world.strayed(since))


def refunds_right(world: Any) -> None:
    """Never more given back than is due or was charged; always."""
    _check(world, wrongly_refunded)


def nothing_stuck(world: Any) -> None:
    """Nothing pending or voiding, nothing held for too long, every refund paid; once the faults have ended."""
    _none(still_open(books_of(world), world.wall(world.hosts["outside"])))


def no_orphan_charges(world: Any) -> None:
    """No money that is kept for nothing; once the faults have ended."""
    _none(orphans(books_of(world)))


def no_saga_left(world: Any) -> None:
    """None that is under way, or that gave up until somebody looks; once the faults have ended."""
    open_ = sa.select(sagas.c.id, sagas.c.state, sagas.c.error).where(sagas.c.state.in_(("running", "parked")))
    found = world.database("reservations").peek(lambda tx: [tuple(row) for row in tx.execute(open_)])
    _none([f"The saga {id} is {state}: {error}" for id, state, error in found])


def every_mail_comes(world: Any) -> None:
    """Each booking and each cancellation has its mail; once the faults have ended."""
    _none(unwritten(books_of(world)))


Room = tuple[int, str, date]  # a hotel's id, a kind, and a night: one room of that kind is taken in it


def rooms_taken(world: Any) -> list[Room]:
    """Those that are held, pending and confirmed, by the books as they are now."""
    held = [each for each in books_of(world).booked.values() if each.state in HOLDING]
    return [(each.hotel_id, each.kind, night) for each in held for night in nights_of(each.arrival, each.nights)]


def rooms_left(taken: Iterable[Room], hotel_id: int, arrival: date, nights: int) -> dict[str, int]:
    """For each kind of room of a hotel, how many are left for all of these nights."""
    wanted = nights_of(arrival, nights)
    given: dict[str, Counter[date]] = defaultdict(Counter)
    for hotel, kind, night in taken:
        if hotel == hotel_id:
            given[kind][night] += 1
    return {
        room.kind: room.count - max(given[room.kind][night] for night in wanted)
        for room in catalogue().hotel(hotel_id).room_kinds
    }


def copied(world: Any) -> dict[Any, list[Room]]:
    """What the search believes to be taken, by the reservation's id."""
    found: dict[Any, list[Room]] = world.database("hotels").peek(_look(world).copy.read)
    return found


def _rooms(rows: Iterable[Counted]) -> dict[Any, list[Room]]:
    counted: dict[Any, list[Room]] = defaultdict(list)
    for row in rows:
        counted[row.reservation_id].append((row.hotel_id, row.kind, row.night))
    return counted


def copy_founded(world: Any) -> None:
    """The search counts no room for a reservation that never took it; always."""
    look = _look(world)
    if (changes := world.changes("hotels", hotels.taken.name)) == look.copies:
        return
    look.copies = changes
    for id, counted in copied(world).items():
        each = look.books.booked.get(id)
        had = each and [(each.hotel_id, each.kind, night) for night in nights_of(each.arrival, each.nights)]
        assert counted == had, f"The search counts {counted} for {each or id}, which had {had}."


def copy_complete(world: Any) -> None:
    """The search counts just the rooms that are taken; once the faults have ended."""
    taken, counted = Counter(rooms_taken(world)), Counter(room for rooms in copied(world).values() for room in rooms)
    assert taken == counted, f"Not counted by the search: {taken - counted}; counted, and free: {counted - taken}."


def books_of(world: Any) -> Books:
    """The books of a world, now."""
    return _look(world).books


class _Look:
    """What was seen of a world: its books after so many changes, and what of them nobody has checked yet."""

    def __init__(self) -> None:
        self._reading = Reading()
        self.copy = _View(hotels.taken, Counted, "reservation_id", _rooms)
        self.copies = 0  # after how many changes it was looked at
        self.changes = -1  # after how many of all it was looked at
        self._changes: dict[sa.Table, int] = {}  # after how many changes it was read
        self.books = self.compared = Books({}, {}, {}, {})
        self.first_seen: dict[Any, float] = {}  # reservation's id -> when, in the world's seconds
        self.unchecked: set[Any] = set()  # the ids of reservations of which something is new
        self.news = self.books  # what is about these
        self.left: set[Any] = set()  # the checks that have not been made of that

    def again(self, world: Any) -> None:
        """Read what has changed."""
        before = self.books
        for name, there in DATABASES.items():
            changes = {table: world.changes(name, table.name) for table in there}
            if changed := [table for table in there if changes[table] != self._changes.get(table)]:
                self._changes.update(changes)
                self.books = world.database(name).peek(partial(self._reading.again, changed))
        if self.books is before:
            return
        ids = changed_since(before, self.books)
        self.unchecked = ids | self.unchecked if self.left else ids
        self.news, self.left = only(self.books, self.unchecked), set(EVERY)
        for id in ids & self.books.booked.keys():
            self.first_seen.setdefault(id, world.now)


_looks: WeakKeyDictionary[Any, _Look] = WeakKeyDictionary()


def _look(world: Any) -> _Look:
    look = _looks.get(world)
    if look is None:
        look = _looks[world] = _Look()
    if (changes := world.changes()) != look.changes:
        look.changes = changes
        look.again(world)
    return look


def _check(world: Any, check: Callable[[Books], Sequence[str]]) -> None:
    look = _look(world)
    if check in look.left:
        _none(check(only(look.books, beside(look.books, look.unchecked)) if check is rooms_given_twice else look.news))
        look.left.remove(check)


def _none(wrong: Sequence[str]) -> None:
    if wrong:
        raise AssertionError(wrong[0] + (f" And {len(wrong) - 1} more." if len(wrong) > 1 else ""))


# -- of a real folder


def main(arguments: Sequence[str]) -> int:
    """Print what is wrong and what is open in the data FOLDER of a system; 1 when something is wrong."""
    if len(arguments) != 1 or not (folder := Path(arguments[0])).is_dir():
        print("usage: python -m audit FOLDER: where reservations.sqlite3 and payments.sqlite3 are.", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        there = [name for name in DATABASES if name != "notifications" or (folder / f"{name}.sqlite3").exists()]
        books = read(*(stack.enter_context(_opened(folder, name)) for name in there))
    wrong = [problem for check in EVERY for problem in check(books)]
    for problem in wrong:
        print(f"wrong: {problem}")
    for problem in [*still_open(books, time.time()), *orphans(books), *unwritten(books)]:
        print(f"open:  {problem}")
    print(f"{len(books.booked)} reservations, {len(books.charged)} references of payments, {len(wrong)} wrong.")
    return 1 if wrong else 0


def _opened(folder: Path, service: str) -> Any:
    path = folder / f"{service}.sqlite3"
    # Read-only, beside a system that runs: SQLite's WAL keeps what is read as it was.
    return sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true").connect()


def _stays(each: Booked, hotel: int, kind: str, night: date) -> bool:
    return (
        each.state in HOLDING
        and (each.hotel_id, each.kind) == (hotel, kind)
        and night in nights_of(each.arrival, each.nights)
    )


def _shown(places: Sequence[tuple[date, int]]) -> str:
    return ", ".join(f"{night} (place {place})" for night, place in places) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
