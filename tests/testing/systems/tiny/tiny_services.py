"""Two services: a shop that takes things out of a stock. What is wrong with them, a workload says by settings."""

from __future__ import annotations

import weakref
from typing import Annotated, Any

import sqlalchemy as sa
from twisted.internet.defer import Deferred

from ropewalk import Client, Database, Gone, RopewalkError, Service, Settings, post
from ropewalk.buggify import buggify

metadata = sa.MetaData()
taken = sa.Table("taken", metadata, sa.Column("name", sa.String), sa.Column("half", sa.Integer))


class StockSettings(Settings):
    # "half": two transactions for what is one; "raises": an error nobody expects; "empty": there is nothing to take;
    # "stays": it never stops.
    wrong: str = ""


class Stock(Service, name="stock", version="1.0.0"):
    """Gives things out, in two halves."""

    tables = metadata

    def __init__(self, database: Database, settings: StockSettings) -> None:
        self.database, self.settings = database, settings

    async def stop(self) -> None:
        """End."""
        if self.settings.wrong == "stays":
            await Deferred()

    @post("/taken/<name>", raises=(Gone,))
    async def take(self, name: str) -> str:
        """Take one out."""
        if self.settings.wrong == "raises":
            raise ZeroDivisionError("nobody expects that")
        if self.settings.wrong == "empty":
            raise Gone(f"{name} was the last one.")
        if self.settings.wrong == "half":
            await self.database.run(self._insert, name, (1,))
            await self.database.run(self._insert, name, (2,))
        else:
            await self.database.run(self._insert, name, (1, 2))
        if buggify("the stock is slow to answer"):
            await self.database.run(self._count)
        return name

    def _insert(self, tx: Any, name: str, halves: tuple[int, ...]) -> None:
        for half in halves:
            tx.execute(sa.insert(taken).values(name=name, half=half))

    def _count(self, tx: Any) -> int:
        return int(tx.execute(sa.select(sa.func.count()).select_from(taken)).scalar_one())


class ShopSettings(Settings):
    # What the order of things taken follows from that it must not: "set", "id", "collector"; "sulks": whoever could not
    # sell the first thing sells nothing.
    wrong: str = ""


class Node:
    """Something that is part of a circle, and found by the collector alone."""


class Shop(Service, name="shop", version="1.0.0"):
    """Sells things, several at a time."""

    def __init__(self, stock: Annotated[Stock, Client(timeout=5)], settings: ShopSettings) -> None:
        self.stock, self.settings = stock, settings
        self.things: list[Any] = []
        self.collected = 0
        self.sulks: bool | None = None

    @post("/sold/<name>", raises=(Gone,))
    async def sell(self, name: str) -> str:
        """Sell what is called so."""
        if self.settings.wrong == "sulks":
            await self._begins()
        for thing in self._in_order([f"{name}-{letter}" for letter in "abc"]):
            await self.stock.take(thing)
        return name

    async def _begins(self) -> None:
        if self.sulks is None:
            try:
                await self.stock.take("the first thing")
            except RopewalkError:
                self.sulks = True
            else:
                self.sulks = False
        if self.sulks:
            raise Gone("I could not sell anything when I began.")

    def _in_order(self, names: list[str]) -> list[str]:
        if self.settings.wrong == "set":
            return list(set(names))
        if self.settings.wrong == "id":
            things = [Node() for _ in names]
            self.things.append(things[:-1])  # so that the next come to lie elsewhere
            return [name for _, name in sorted(zip(map(id, things), names, strict=True))]
        if self.settings.wrong == "collector":
            node = Node()
            node.itself = node  # type: ignore[attr-defined]
            weakref.finalize(node, self._was_collected)
            return names[: 1 + self.collected % 3]
        return names

    def _was_collected(self) -> None:
        self.collected += 1
