"""A ticket shop: takes orders, has the bank take the money, prints tickets."""

import json
from dataclasses import asdict, dataclass

import sqlalchemy as sa
import treq
from klein import Klein
from twisted.internet.threads import deferToThread
from werkzeug.exceptions import Conflict, NotFound

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


def answer(request, value, status=200):
    """`value` as JSON."""
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    return json.dumps(value)


class Shop:
    """Sells tickets."""

    app = Klein()

    def __init__(self, engine, bank):
        self.engine, self.bank = engine, bank

    def run(self, function, *args):
        """`function(tx, *args)` in a thread, in a transaction of its own."""
        return deferToThread(self._transact, function, *args)

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

    @app.route("/orders", methods=["POST"])
    async def order(self, request):
        """Sell seats."""
        wanted = Wanted(**json.loads(request.content.read()))
        order = await self.run(self._take, wanted)
        try:
            await self.charge(order)
        except Conflict:
            await self.run(self._give_back, order)
            raise
        order = await self.run(self._sell, order)
        await self.run(self._print, order)
        return answer(request, asdict(order), 201)

    async def charge(self, order):
        """Ask the bank for the money."""
        response = await treq.post(f"{self.bank}/charges", params={"order": order.number, "amount": order.amount})
        if response.code != 201:
            raise Conflict(f"Not paid: the bank said {response.code}.")

    def _transact(self, function, *args):
        with self.engine.begin() as connection:
            return function(connection, *args)

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
        return self._look(tx, order.number)

    def _print(self, tx, order):
        tx.execute(tickets.insert(), [{"show": order.show, "guest": order.guest}] * order.seats)


if __name__ == "__main__":
    database = sa.create_engine("sqlite:///shop.sqlite3")
    metadata.create_all(database)
    Shop(database, "http://127.0.0.1:8001").app.run("127.0.0.1", 8080)
