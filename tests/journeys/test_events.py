"""Events, from the transaction that published them to the effect they have: in the World, and on the real reactor."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk import Database, Event, Publisher, Service, Transaction, operation, post, subscribe
from ropewalk.testing import World

metadata = sa.MetaData()
orders = sa.Table("orders", metadata, sa.Column("id", sa.String(20), primary_key=True))

shipping = sa.MetaData()
shipped = sa.Table(
    "shipped",
    shipping,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("order", sa.String(20)),
    sa.Column("customer", sa.String(20)),
)


class OrderPlaced(Event, topic="orders.placed"):
    order: str
    customer: str


class Orders(Service):
    tables = metadata

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher

    @post("/orders", idempotent=True)
    async def place(self, order: str, customer: str) -> None:
        await self._database.run(self._place, order, customer)

    def _place(self, tx: Transaction, order: str, customer: str) -> None:
        tx.execute(orders.insert().values(id=order))
        tx.publish(OrderPlaced(order=order, customer=customer), key=customer)

    @operation
    async def say(self, order: str, customer: str) -> None:
        await self._publisher.publish(OrderPlaced(order=order, customer=customer), key=customer)


class Shipping(Service):
    tables = shipping

    def __init__(self, database: Database) -> None:
        self._database = database

    @subscribe(OrderPlaced)
    async def ship(self, event: OrderPlaced) -> None:
        await self._database.run(self._ship, event)

    @operation
    async def orders(self) -> list[str]:
        return await self._database.run(_shipped)

    def _ship(self, tx: Transaction, event: OrderPlaced) -> None:
        tx.execute(shipped.insert().values(order=event.order, customer=event.customer))


def _shipped(tx: Transaction) -> list[str]:
    return [row.order for row in tx.execute(sa.select(shipped).order_by(shipped.c.number))]


def all_shipped(world: World) -> list[str]:
    return world.database("shipping").peek(_shipped)


@pytest.mark.worlds("direct", "world")
@pytest.mark.system(Orders, Shipping)
def test_it_is_the_same_on_the_real_reactor(system: Any):
    orders, shipping = system.client(Orders), system.client(Shipping)

    for number in range(10):
        system.run(orders.place(f"o{number}", "ann"))
    system.run(orders.say("said", "ann"))

    while len(system.run(shipping.orders())) < 11:
        pass
    assert [*(f"o{number}" for number in range(10)), "said"] == system.run(shipping.orders())


def test_what_is_published_is_handled_once():
    with World([Orders, Shipping], seed=1) as world:
        client = world.client(Orders)
        for number in range(20):
            world.run(client.place(f"o{number}", "ann"))

        world.until(lambda: len(all_shipped(world)) == 20)
        world.advance(20)

        assert [f"o{number}" for number in range(20)] == all_shipped(world)


def test_an_event_is_handled_once_whatever_crashes():
    with World([Orders, Shipping], seed=2) as world:
        client = world.client(Orders)
        for number in range(30):
            world.run(client.place(f"o{number}", f"c{number % 3}"))
            world.crash(("orders/1", "shipping/1", "broker", "shipping/database")[number % 4])
            world.advance(0.05)
            world.restart()
            world.advance(2)

        world.until(lambda: len(all_shipped(world)) >= 30, timeout=120)
        world.advance(60)

        shipped_orders = all_shipped(world)
        assert sorted(shipped_orders) == sorted(f"o{number}" for number in range(30))
        for customer in range(3):
            mine = [order for order in shipped_orders if int(order[1:]) % 3 == customer]
            assert mine == sorted(mine, key=lambda order: int(order[1:]))
