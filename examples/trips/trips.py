"""Books trips: a saga that holds a room, takes money, asks for approval of dear ones, and says that it was done."""

from __future__ import annotations

import sqlalchemy as sa
from money import Money
from msgspec import Struct
from rooms import Hold, Rooms

from ropewalk import (
    Conflict,
    Database,
    DeadlineExceeded,
    Event,
    Flow,
    NotFound,
    Sagas,
    Service,
    Transaction,
    every,
    get,
    operation,
    post,
    saga,
)

DEAR = 80  # from here on somebody has to approve
PATIENCE = 15.0  # seconds for that

metadata = sa.MetaData()
booked = sa.Table(
    "booked",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("trip", sa.String(40), nullable=False),
    sa.Column("traveller", sa.String(40), nullable=False),
)
ticks = sa.Table("ticks", metadata, sa.Column("number", sa.Integer, primary_key=True))


class TripBooked(Event, topic="trips.booked"):
    """Somebody travels."""

    trip: str
    traveller: str


class Order(Struct, frozen=True):
    """What somebody wants."""

    trip: str
    traveller: str
    amount: int


class NotApproved(Conflict):
    """Raised when nobody approved of a dear trip in time."""


class Trips(Service):
    """Books trips."""

    tables = metadata

    def __init__(self, database: Database, sagas: Sagas, rooms: Rooms, money: Money) -> None:
        self._database = database
        self._sagas = sagas
        self._rooms = rooms
        self._money = money

    @post("/trips", status=202, idempotent=True, raises=(Conflict,))
    async def order(self, order: Order) -> str:
        """Take an order: from here on the trip will be booked, or nothing will be left of it."""
        return await self._sagas.start(self.book, order, id=order.trip)

    @get("/trips/<trip>", raises=(NotFound, Conflict, DeadlineExceeded))
    async def outcome(self, trip: str) -> str:
        """What became of an order, once it is known; waits a little."""
        return await self._sagas.result(trip, timeout=5)

    @operation(raises=(NotFound,))
    async def approve(self, trip: str) -> None:
        """Say that somebody may travel though it is dear."""
        await self._sagas.signal(trip, "approved", True)

    @operation(raises=(NotFound,))
    async def withdraw(self, trip: str) -> None:
        """Somebody does not want to travel any more; a trip that is booked stays so."""
        await self._sagas.cancel(trip)

    @every(20)
    async def tick(self) -> None:
        """Note that time passes."""
        await self._database.run(self._tick)

    @saga
    async def book(self, flow: Flow, order: Order) -> str:
        """Hold a room and take the money at the same time; dear trips want approval."""
        hold, _ = await flow.gather(
            flow.step(self._rooms.hold, order.trip, undo=self._rooms.release),
            flow.step(self._money.charge, order.trip, order.amount, undo=self._money.refund),
        )
        if order.amount >= DEAR and not await flow.race(self._approval(flow), self._patience(flow)):
            raise NotApproved(f"Nobody approved of {order.trip}.")
        await flow.transaction(self._record, order, hold)
        return order.trip

    async def _approval(self, flow: Flow) -> bool:
        return bool(await flow.wait("approved"))

    async def _patience(self, flow: Flow) -> bool:
        await flow.sleep(PATIENCE)
        return False

    def _record(self, tx: Transaction, order: Order, hold: Hold) -> None:
        # The event first: under one key they wait for each other, and so are numbered in the order of their commits.
        tx.publish(TripBooked(trip=order.trip, traveller=order.traveller), key=order.traveller)
        tx.execute(booked.insert().values(trip=hold.trip, traveller=order.traveller))

    def _tick(self, tx: Transaction) -> None:
        tx.execute(ticks.insert())
