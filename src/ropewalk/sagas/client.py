"""What a service is given for its sagas: start one, hear what it came to, tell it something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from ..bell import Bell, Bells
from ..codec.problem import from_problem
from ..context import current_key
from ..errors import DeadlineExceeded, NotFound, Unavailable
from ..service import Service, describe
from ..store import Database, Transaction
from ..store.started import add_all, saga_of, start, started
from . import journal
from .journal import COMPENSATED, COMPLETED, ENDED, PARKED, Told

LOOKS = 0.5  # seconds between looks at a saga that another process may have ended
LISTED = 100


class SagaParked(Unavailable):
    """Raised when a saga cannot go on by itself: its detail says why, and `ropewalk sagas retry` lets it try again."""


class Sagas:
    """The sagas of one service."""

    def __init__(
        self,
        cls: type[Service],
        database: Database,
        clock: IReactorTime,
        listen: Callable[[Callable[[frozenset[str]], object]], object],
    ) -> None:
        """`listen(heard)`: have `heard` called with what was written, in the reactor's thread."""
        said = describe(cls)
        self._raises = [error for operation in said.operations.values() for error in operation.raises]
        self._sagas = {name: saga for saga in said.sagas.values() for name in (saga.id, *saga.aliases)}
        self._database = database
        self._clock = clock
        self._bells: dict[str, Bells] = {}  # of those who wait for a saga
        listen(self._ended)

    async def start(self, saga: Callable[..., Any], *args: Any, id: str | None = None, **kwargs: Any) -> str:
        """Start a saga of this service, `sagas.start(self.book, order, id="booking-17")`: its id, when that is durable.

        The id is its idempotency key: started twice it runs once. Raises KeyReused for the id of another one. Without
        one it gets one of 32 hex digits: in an operation that is asked under a key, the same each time.
        """
        if current_key() is not None:
            saga_of(saga)
            return await self._database.run(start, saga, args, kwargs, id)
        new = started(self._database, saga, args, kwargs, id)
        await self._database.batched(add_all, new)
        return new.id

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """What it came to, once it has ended; raises what it failed with, when all that it did was undone.

        Raises DeadlineExceeded after `timeout` seconds, SagaParked when it cannot go on, NotFound.
        """
        bells = self._bells.setdefault(id, Bells(self._clock))
        try:
            with bells.listening() as bell:
                return await self._came_to(id, timeout, bell)
        finally:
            if not bells:
                del self._bells[id]

    async def _came_to(self, id: str, timeout: float | None, bell: Bell) -> Any:
        until = None if timeout is None else self._clock.seconds() + timeout
        while True:
            told = await self._database.batched(journal.read_all, id)
            if told.state == COMPLETED:
                return self._sagas[told.saga].decode_result(told.result)
            if told.state == COMPENSATED:
                problem = msgspec.json.decode(told.result)
                raise from_problem(int(problem.get("status", 500)), told.result, self._raises, ran="yes")
            if told.state == PARKED:
                raise SagaParked(f"{id}: {told.error}")
            left = None if until is None else until - self._clock.seconds()
            if left is not None and left <= 0:
                raise DeadlineExceeded(f"The saga {id!r} has not ended within {timeout:g} seconds; it goes on.")
            waits = LOOKS if self._database.shared else left
            await bell.wait(waits if left is None or waits is None else min(waits, left))

    async def signal(self, id: str, name: str, value: Any = None) -> None:
        """Tell it something: `flow.wait(name)` returns `value`, as JSON has it. Raises NotFound."""
        await self._database.run(journal.tell, id, name, msgspec.json.encode(value))

    async def cancel(self, id: str) -> bool:
        """Ask it to end: what it did is undone; a parked one goes on for that. Raises NotFound.

        One that has ended already stays as it is: then the answer is False.
        """
        return await self._database.run(_cancel, id, frozenset(self._sagas))

    async def retry(self, id: str) -> bool:
        """Let a parked one go on from where it was; False when it is not parked. Raises NotFound."""
        return await self._database.run(journal.retry, id)

    async def read(self, id: str) -> Told:
        """How it stands; raises NotFound."""
        told: Told = await self._database.batched(journal.read_all, id)
        return told

    async def steps(self, id: str) -> Sequence[journal.Entry]:
        """What its steps came to, in order."""
        await self.read(id)
        return (await self._database.apart(journal.entries, [id])).get(id, [])

    async def list(
        self, state: str | None = None, limit: int = LISTED, without: Collection[str] = ()
    ) -> Sequence[Told]:
        """The latest `limit`, all or those that are "running", "completed", "compensated" or "parked".

        `without`: names of which those that completed are left out.
        """
        return await self._database.apart(journal.listed, state, limit, without)

    def _ended(self, wrote: frozenset[str]) -> None:
        for what in sorted(wrote):
            if what.startswith(ENDED) and (bells := self._bells.get(what.removeprefix(ENDED))):
                bells.ring()


def _cancel(tx: Transaction, id: str, sagas: frozenset[str]) -> bool:
    if (told := journal.read(tx, id)).saga not in sagas:
        raise NotFound(f"There is no saga {id!r}; that is a {told.saga}, which has nothing to undo.")
    return journal.cancel(tx, id)
