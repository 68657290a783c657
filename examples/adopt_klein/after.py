"""A ticket shop: takes orders, has the bank take the money, prints tickets."""

import json
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from bank import Bank
from klein import Klein
from werkzeug.exceptions import NotFound

from ropewalk import Conflict, Database, Event, Flow, Sagas, Service, post, saga, subscribe

metadata = sa.MetaData()
shows = sa.Table(
    "shows",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("price", sa.Integer, nullable=False),
    sa.Column("left", sa.Integer, nullable=False),
)
orders = sa.Table(
    "orders",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("show", sa.String(40), nullable=False),
    sa.Column("guest", sa.String(40), nullable=False),
    sa.Column("seats", sa.Integer, nullable=False),
    sa.Column("amount", sa.Integer, nullable=False),
    sa.Column("sold", sa.Boolean, nullable=False),
)
tickets = sa.Table(
    "tickets",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("show", sa.String(40), nullable=False),
    sa.Column("guest", sa.String(40), nullable=False),
)


@dataclass(frozen=True)
class Wanted:
    """What somebody wants."""

    show: str
    guest: str
    seats: int


@dataclass(frozen=True)
class Order:
    """What became of it."""

    number: int
    show: str
    guest: str
    seats: int
    amount: int
    sold: bool


class Sold(Event, topic="shop.sold"):
    order: Order


def answer(request, value, status=200):
    """`value` as JSON."""
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    return json.dumps(value)


class Shop(Service):
    """Sells tickets."""

    app = Klein()
    app_access = "public"
    tables = metadata

    def __init__(self, database: Database, sagas: Sagas, bank: Bank):
        self.run, self.sagas, self.bank = database.run, sagas, bank

    @app.route("/shows")
    async def programme(self, request):
        """What is on, and how many seats are left."""
        return answer(request, await self.run(self._programme))

    @app.route("/shows/<show>", methods=["PUT"])
    async def put_on(self, request, show):
        """Put a show on the programme, once."""
        await self.run(self._put_on, show, json.loads(request.content.read()))
        return answer(request, None)

    @app.route("/shows/<show>/tickets")
    async def tickets(self, request, show):
        """Who may come in."""
        return "".join(f"{guest}\n" for guest in await self.run(self._tickets, show))

    @app.route("/orders/<int:number>")
    async def look(self, request, number):
        """What became of an order."""
        order = await self.run(self._look, number)
        if order is None:
            raise NotFound
        return answer(request, asdict(order))

    @post("/orders", status=201, access="public", idempotent=True, raises=(Conflict,))
    async def order(self, wanted: Wanted) -> Order:
        """Sell seats."""
        return await self.sagas.result(await self.sagas.start(self.sell, wanted), timeout=5)

    @saga
    async def sell(self, flow: Flow, wanted: Wanted) -> Order:
        """Sell them, or leave nothing behind."""
        order = await flow.transaction(self._take, wanted, undo=self._give_back)
        await flow.step(self.bank.charge, order.number, order.amount, undo=self.bank.refund)
        return await flow.transaction(self._sell, order)

    @subscribe(Sold)
    async def print(self, event: Sold) -> None:
        """Print the tickets."""
        await self.run(self._print, event.order)

    def _programme(self, tx):
        return [dict(row._mapping) for row in tx.execute(shows.select().order_by(shows.c.name))]

    def _put_on(self, tx, show, said):
        if tx.execute(shows.select().where(shows.c.name == show)).first() is None:
            tx.execute(shows.insert().values(name=show, price=said["price"], left=said["seats"]))

    def _tickets(self, tx, show):
        return list(tx.execute(sa.select(tickets.c.guest).where(tickets.c.show == show).order_by("number")).scalars())

    def _look(self, tx, number):
        row = tx.execute(orders.select().where(orders.c.number == number)).first()
        return Order(*row) if row is not None else None

    def _take(self, tx, wanted):
        enough = shows.update().where(shows.c.name == wanted.show, shows.c.left >= wanted.seats)
        taken = tx.execute(enough.values(left=shows.c.left - wanted.seats).returning(shows.c.price)).first()
        if taken is None:
            raise Conflict(f"There are no {wanted.seats} seats left for {wanted.show}.")
        row = {**asdict(wanted), "amount": taken.price * wanted.seats, "sold": False}
        return Order(*tx.execute(orders.insert().values(row).returning(*orders.c)).one())

    def _give_back(self, tx, order):
        tx.execute(shows.update().where(shows.c.name == order.show).values(left=shows.c.left + order.seats))

    def _sell(self, tx, order):
        tx.execute(orders.update().where(orders.c.number == order.number).values(sold=True))
        tx.publish(Sold(order=order), key=order.show)
        return self._look(tx, order.number)

    def _print(self, tx, order):
        tx.execute(tickets.insert(), [{"show": order.show, "guest": order.guest}] * order.seats)
