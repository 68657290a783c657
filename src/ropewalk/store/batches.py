"""Batches: small things the framework itself keeps, made together in one transaction when they wait together.

A COMMIT waits for the disk and a statement for the server, however little they say. So `function(tx, items)` takes many
items and returns the outcome of each: a value, or the exception that its giver is to meet. What is given in one turn of
the reactor goes together. One batch of a database is under way at a time; what comes meanwhile goes with the next one.

Such a function is right without SERIALIZABLE, which finds conflicts between neighbours where there are none: it locks
the rows it goes by (`with_for_update`), and is content to find there what it was about to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..driver import Driver
from ..errors import Unavailable
from .transaction import Transaction

MOST = 100  # items of one transaction

Batched = Callable[[Transaction, Sequence[Any]], Sequence[Any]]


class Batch:
    """A function of one transaction: what `items` come to, each a (function, item), in their order."""

    def __init__(self, items: Sequence[tuple[Batched, Any]]) -> None:
        self._items = items
        self.__name__ = "-".join(dict.fromkeys(function.__name__ for function, _ in items))

    def __call__(self, tx: Transaction) -> list[Any]:
        """Each function is called once, with all of its items."""
        places: dict[Batched, list[int]] = {}
        for place, (function, _) in enumerate(self._items):
            places.setdefault(function, []).append(place)
        outcomes: list[Any] = [None] * len(self._items)
        for function, mine in places.items():
            for place, outcome in zip(mine, function(tx, [self._items[place][1] for place in mine]), strict=True):
                outcomes[place] = outcome
        return outcomes


class Batches:
    """Those of one database."""

    def __init__(self, run: Callable[[Batch], Awaitable[list[Any]]]) -> None:
        """`run` makes one in a transaction of its own, and returns what it does."""
        self._run = run
        self._waiting: list[tuple[tuple[Batched, Any], Deferred[Any]]] = []
        self._working = False

    async def add(self, function: Batched, item: Any) -> Any:
        """What `function` has for `item`, committed; raises it when that is an exception."""
        answer: Deferred[Any] = Deferred(lambda _: None)  # who cancels it hears nothing more; it goes on
        self._waiting.append(((function, item), answer))
        if not self._working:
            self._working = True
            Driver.of().run(self._work())  # whoever waits for it may be cancelled
        return await answer

    async def _work(self) -> None:
        try:
            await asyncio.sleep(0)  # what is given in this turn goes together: the first one does not go alone
            while self._waiting:
                made, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                for (_, answer), outcome in zip(made, await self._make([item for item, _ in made]), strict=True):
                    if not answer.called:
                        answer.callback(Failure(outcome) if isinstance(outcome, BaseException) else outcome)
        finally:
            self._working = False

    async def _make(self, items: list[tuple[Batched, Any]]) -> list[Any]:
        try:
            return await self._run(Batch(items))
        except Unavailable as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            # One of them is the culprit, and the only one to hear of it.
            return [outcome for each in items for outcome in await self._make([each])]
