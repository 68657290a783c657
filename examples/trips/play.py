"""What the trips are made to do in a simulated world, and what must hold of their books.

ropewalk sim examples/trips/system.toml --workload play --seeds 50 --minutes 2
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import sqlalchemy as sa
from diary import BLOT, lines
from money import LIMIT, entries
from msgspec import Struct
from rooms import holds
from trips import DEAR, PATIENCE, Order, TripBooked, Trips, booked, ticks

from ropewalk import Conflict, Event, RopewalkError
from ropewalk.event import Message
from ropewalk.events.dead_letters import DeadLetters
from ropewalk.store import outbox
from ropewalk.testing import workload

TRAVELLERS = 4  # so that each has several trips on their way at once
LOOKS = 10  # times that somebody asks what became of a trip, each of which waits for five seconds
STRANGER = "stranger-"  # who was booked by the trips' next version


class TripBookedSoon(Event, topic="trips.booked", version=2):
    """Somebody travels, as the trips' next version says it: the diary cannot read that yet."""

    trips: list[str]
    traveller: str


class Books(Struct, frozen=True):
    """All that the four services have written down."""

    sagas: dict[str, str]  # state, by trip
    withdrawn: set[str]
    ordered: dict[str, Order]  # by trip
    held: dict[str, str]  # state of the room, by trip
    taken: dict[str, list[int]]  # amounts, by trip
    booked: list[tuple[str, str]]  # trip and traveller, in the order of commits
    noted: list[tuple[str, str]]  # likewise
    strange: list[tuple[str, str]]  # likewise, of strangers


TABLES = {  # service -> what the books are read from
    "trips": ("ropewalk_sagas", "booked"),
    "rooms": ("holds",),
    "money": ("entries",),
    "diary": ("lines",),
}
_read: WeakKeyDictionary[Any, tuple[list[int], Books]] = WeakKeyDictionary()


def read(world: Any) -> Books:
    """The books as they are."""
    changes = [world.changes(service, *tables) for service, tables in TABLES.items()]
    if world not in _read or _read[world][0] != changes:
        _read[world] = changes, _books(world)
    return _read[world][1]


def _books(world: Any) -> Books:
    def rows(service: str, *columns: Any) -> list[Any]:
        return [tuple(row) for row in world.database(service).peek(lambda tx: tx.execute(sa.select(*columns)).all())]

    taken = defaultdict(list)
    for trip, amount in rows("money", entries.c.trip, entries.c.amount):
        taken[trip].append(amount)
    sagas = rows("trips", sa.text("id, state, cancel, arguments FROM ropewalk_sagas WHERE saga = 'trips.book'"))
    noted = [row[1:] for row in sorted(rows("diary", lines.c.number, lines.c.trip, lines.c.traveller))]
    return Books(
        {trip: state for trip, state, _, _ in sagas},
        {trip for trip, _, cancel, _ in sagas if cancel},
        {trip: msgspec.json.decode(arguments, type=dict[str, Order])["order"] for trip, _, _, arguments in sagas},
        dict(rows("rooms", holds.c.trip, holds.c.state)),
        taken,
        [row[1:] for row in sorted(rows("trips", booked.c.number, booked.c.trip, booked.c.traveller))],
        [row for row in noted if not row[1].startswith(STRANGER)],
        [row for row in noted if row[1].startswith(STRANGER)],
    )


def nothing_twice(world: Any) -> None:
    """Nobody pays twice, gets more back than was taken, or is booked or written down twice."""
    books = read(world)
    for trip, amounts in books.taken.items():
        paid = [amount for amount in amounts if amount > 0]
        back = [-amount for amount in amounts if amount < 0]
        assert len(paid) <= 1, f"{trip} was paid {len(paid)} times"
        assert back in ([], paid), f"of {trip} {paid} was taken and {back} given back"
    for what, rows in (("booked", books.booked), ("written down", [*books.noted, *books.strange])):
        twice = [trip for trip, count in Counter(trip for trip, _ in rows).items() if count > 1]
        assert not twice, f"{', '.join(twice)} {what} twice"


def nothing_unfounded(world: Any) -> None:
    """What is booked has a room and was paid; what is written down is booked; nothing is undone that is booked."""
    books = read(world)
    trips = {trip for trip, _ in books.booked}
    for trip in trips:
        assert books.held.get(trip) == "held", f"{trip} is booked, and its room is {books.held.get(trip)}"
        assert sum(books.taken.get(trip, [])) > 0, f"{trip} is booked and was not paid"
    for trip, _ in books.noted:
        assert trip in trips, f"{trip} is written down, and not booked"


def nothing_refused_in_vain(world: Any) -> None:
    """Who can pay, needs no approval and does not withdraw gets the trip: that somebody is away is no refusal."""
    books = read(world)
    for trip, state in books.sagas.items():
        sure = books.ordered[trip].amount < DEAR and trip not in books.withdrawn
        assert not (sure and state == "compensated"), f"{trip} was refused, and there was no reason"


def in_order(world: Any) -> None:
    """Each traveller's diary has a beginning of what was booked, in that order."""
    books = read(world)
    for traveller in sorted({name for _, name in books.booked}):
        made = [trip for trip, name in books.booked if name == traveller]
        noted = [trip for trip, name in books.noted if name == traveller]
        assert noted == made[: len(noted)], f"{traveller} booked {made}, and the diary says {noted}"
    for stranger in sorted({name for _, name in books.strange}):
        noted = [trip for trip, name in books.strange if name == stranger]
        assert noted == sorted(noted), f"the diary says of {stranger} {noted}"


# The keys under which the diary was told what it cannot read, or write down.
POISONED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
DROPPED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # the keys of which somebody has dropped a dead letter


def nothing_passes_the_dead(world: Any) -> None:
    """What comes after a dead letter of its key waits for it; once that is dropped, a copy of it may die again."""
    dead = _dead(world)
    for trip, stranger in read(world).strange:
        assert stranger not in dead - DROPPED.get(world, set()), f"{trip} is written down, and came after a dead letter"


def _dead(world: Any) -> set[str]:
    """The keys of dead letters of the diary."""
    letters = sa.text("key FROM ropewalk_dead_letters WHERE subscription = 'diary.note' AND attempts > 0")
    return world.database("diary").peek(lambda tx: set(tx.execute(sa.select(letters)).scalars()))


def all_is_over(world: Any) -> None:
    """Every saga has ended: with a room that is paid and written down, or with nothing left of it."""
    books = read(world)
    trips, noted = {trip for trip, _ in books.booked}, {trip for trip, _ in books.noted}
    for trip, state in books.sagas.items():
        left = (books.held.get(trip) == "held", sum(books.taken.get(trip, [])) > 0, trip in trips, trip in noted)
        assert state in ("completed", "compensated"), f"{trip} is {state}"
        assert left == ((state == "completed"),) * 4, f"{trip} is {state}, and has (room, money, booked, noted) {left}"


def nothing_dead(world: Any) -> None:
    """No event was buried, but those that the diary cannot read, and what came after them."""
    letters = sa.text(f"SELECT topic, error FROM ropewalk_dead_letters WHERE key NOT LIKE '{STRANGER}%'")
    for service in ("trips", "diary"):
        dead = world.database(service).peek(lambda tx: tx.execute(letters).all())
        assert not dead, f"{service} has dead letters: {dead}"


def poison_is_dead(world: Any) -> None:
    """What can never be written down was buried, unless somebody has dropped it since."""
    waits = POISONED.get(world, set()) - DROPPED.get(world, set()) - _dead(world)
    assert not waits, f"what the diary was told of {', '.join(sorted(waits))} is no dead letter"


def no_tick_twice(world: Any) -> None:
    """What is done every twenty seconds is done once for each moment, and as often as that where clocks are right."""
    moments = sa.text("SELECT count(*) FROM ropewalk_sagas WHERE saga = 'trips.tick'")

    def counted(tx: Any) -> tuple[int, int]:
        done = tx.execute(sa.select(sa.func.count()).select_from(ticks)).scalar_one()
        return done, tx.execute(moments).scalar_one() - 1  # the first of all is only noted

    count, due = world.database("trips").peek(counted)
    assert count <= max(0, due), f"{count} ticks for {due} moments"
    if world.strayed() < 1:
        assert count <= world.now / 20 + 2, f"{count} ticks in {world.now:.0f} s"


ALWAYS = [
    nothing_twice,
    nothing_unfounded,
    nothing_refused_in_vain,
    in_order,
    nothing_passes_the_dead,
    no_tick_twice,
]
EVENTUALLY = [all_is_over, nothing_dead, poison_is_dead]


def _new(random: Random, amount: int) -> Order:
    return Order(f"trip-{random.randrange(16**8):08x}", f"traveller-{random.randrange(TRAVELLERS)}", amount)


async def _order(world: Any, random: Random, amount: int) -> str:
    return await _ask_for(world, _new(random, amount))


async def _ask_for(world: Any, order: Order) -> str:
    for _ in range(3):
        try:
            return await world.client(Trips).order(order)
        except RopewalkError as error:
            if error.status < 500:
                raise
    return await world.client(Trips).order(order)


async def _outcome(world: Any, trip: str) -> bool:
    """Whether it was booked, once that is known; what is told is true. Raises when nobody knows."""
    for look in range(1, LOOKS + 1):
        try:
            told = await world.client(Trips).outcome(trip)
        except Conflict:
            assert trip not in dict(read(world).booked), f"{trip} is booked, and somebody was told that it is not"
            return False
        except RopewalkError:
            if look == LOOKS:
                raise
        else:
            assert told == trip, f"asked for {trip}, told of {told}"
            assert trip in dict(read(world).booked), f"{trip} is not booked, and somebody was told that it is"
            return True
    raise AssertionError("unreachable")


@workload(every=1.5, always=ALWAYS, eventually=EVENTUALLY)
async def travel(world: Any, random: Random) -> None:
    """Somebody books a trip, and looks what became of it."""
    trip = await _order(world, random, random.randrange(1, DEAR))
    assert await _outcome(world, trip), f"{trip} can be paid, and was refused"


@workload(every=4.0, always=ALWAYS, eventually=EVENTUALLY)
async def dream(world: Any, random: Random) -> None:
    """Somebody wants a trip that nobody can pay."""
    trip = await _order(world, random, LIMIT + 1)
    assert not await _outcome(world, trip), f"{trip} costs more than anybody has, and was booked"


@workload(every=6.0, always=ALWAYS, eventually=EVENTUALLY)
async def flock(world: Any, random: Random) -> None:
    """Somebody books several trips at the same moment, of which not all can be paid, and some are withdrawn at once."""
    orders = [_new(random, random.randrange(1, LIMIT + 20)) for _ in range(4)]
    orders = [Order(order.trip, orders[0].traveller, order.amount) for order in orders]
    made = await asyncio.gather(*(_ask_for(world, order) for order in orders), return_exceptions=True)
    withdrawn = [trip for trip in made if isinstance(trip, str) and random.random() < 0.2]
    made += await asyncio.gather(*map(world.client(Trips).withdraw, withdrawn), return_exceptions=True)
    for each in made:
        if isinstance(each, BaseException):
            raise each


@workload(every=4.0, always=ALWAYS, eventually=EVENTUALLY)
async def splurge(world: Any, random: Random) -> None:
    """Somebody wants a dear trip, of which somebody else may approve: at once, in time, or when it may be too late."""
    began = world.now
    trip = await _order(world, random, random.randrange(DEAR, LIMIT + 1))
    if random.random() < 0.3:
        return
    await asyncio.sleep(random.choice([0.0, random.uniform(0.0, PATIENCE), random.uniform(PATIENCE, PATIENCE + 5.0)]))
    await world.client(Trips).approve(trip)
    in_time = world.now - began < PATIENCE - 2.0
    if not await _outcome(world, trip):
        assert not in_time or world.strayed(began) >= 1.0, f"{trip} was approved of in time, and is not booked"


@workload(every=5.0, always=ALWAYS, eventually=EVENTUALLY)
async def withdraw(world: Any, random: Random) -> None:
    """Somebody orders, and does not want to: at once, or later, when it may be booked."""
    trip = await _order(world, random, random.randrange(1, LIMIT + 1))
    await asyncio.sleep(random.choice([0.0, random.uniform(0.0, 2.0), random.uniform(0.0, PATIENCE + 5.0)]))
    await world.client(Trips).withdraw(trip)


@workload(every=10.0, always=ALWAYS, eventually=EVENTUALLY)
async def upgrade(world: Any, random: Random) -> None:
    """The trips' next version books: the diary buries what it cannot read, or write, until somebody drops it."""
    stranger = f"{STRANGER}{random.randrange(16**8):08x}"
    trips = [f"{stranger}-{number}" for number in range(4)]

    def said(event: Event) -> Message:
        data = msgspec.Raw(msgspec.json.encode(event))
        return Message(
            f"{random.getrandbits(128):032x}", event.topic, event.version, stranger, "trips", world.now, data
        )

    def publish(tx: Any, *events: Event) -> None:
        for event in events:
            outbox.publish(tx, said(event))

    blotted = TripBooked(trip=f"{trips[0]}-{BLOT}", traveller=stranger)
    poison = random.choice([TripBookedSoon(trips=trips, traveller=stranger), blotted])
    later = [TripBooked(trip=trip, traveller=stranger) for trip in trips]
    await world.database("trips").run(publish, poison, *later[:2])
    POISONED.setdefault(world, set()).add(stranger)
    await asyncio.sleep(random.uniform(0.0, 10.0))
    await world.database("trips").run(publish, *later[2:])
    await asyncio.sleep(random.uniform(10.0, 30.0))  # in which a relay finds what others have left
    letters = DeadLetters(world.database("diary"))
    for letter in await letters.list("diary.note"):
        if letter.key == stranger and letter.attempts:
            DROPPED.setdefault(world, set()).add(stranger)
            await letters.drop(letter.number)


@workload(every=6.0, always=ALWAYS, eventually=EVENTUALLY)
async def confuse(world: Any, random: Random) -> None:
    """Somebody uses one key for two orders: the second one is refused, whatever became of the first."""
    key = f"{random.getrandbits(64):016x}"
    first, second = _new(random, 1), _new(random, 2)
    if await _ordered(world, first, key):
        assert not await _ordered(world, second, key), f"{second.trip} was ordered under the key of {first.trip}"
        assert second.trip not in read(world).sagas, f"{second.trip} is on its way under the key of {first.trip}"


async def _ordered(world: Any, order: Order, key: str) -> bool:
    """Whether an order under that key was taken; False also when nobody knows."""
    body, headers = msgspec.json.encode(order), {"Content-Type": "application/json", "Idempotency-Key": key}
    with suppress(Exception):  # whatever can go wrong on the way: Twisted has no common base for it
        async with asyncio.timeout(PATIENCE):
            reply = await world.http.post("sibling://trips/trips", data=body, headers=headers)
            await reply.content()  # always: a reply that nobody reads keeps its connection
            return bool(reply.code == 202)
    return False
