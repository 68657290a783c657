"""Jobs: single operations that are done in the background or at times, on the ground of sagas: a row, an owner, a key.

A job is a saga of one step without code of its own. `Job` does it, `Clockwork` says when what is done at times is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..codec.binding import Parts
from ..codec.problem import to_problem
from ..context import Context, digest
from ..durable import Scheduled
from ..errors import NotFound, RopewalkError
from ..handler import Handler
from ..message import Principal, Request
from ..operation import Operation
from ..policy.backoff import delay
from ..policy.steps import FAULTS, LADDER, outcome
from ..service import JobStatus
from ..store import Database, Transaction
from ..store.started import Carried, add, named
from . import journal
from .journal import COMPLETED, FAILED, PARKED

TIMEOUT = 3600.0  # seconds that one try of a job may take
NOTHING = msgspec.json.encode(Parts())
AGAIN = 5.0  # seconds until a moment that could not be noted is

_log = Logger("ropewalk.sagas")


async def do(
    operation: Operation,
    arguments: bytes,
    id: str,
    context: Context,
    principal: Principal,
    handler: Handler,
    clock: IReactorTime,
    random: Random,
) -> tuple[str, bytes, str]:
    """The state it ends in, its result or problem, and why, for people. `handler`: the service's own operations."""
    given = operation.binding.decode(msgspec.json.decode(arguments, type=Parts))
    attempt = faults = 0
    while True:
        attempt += 1
        now = msgspec.structs.replace(
            context, key=digest("job", id), attempt=attempt, deadline=clock.seconds() + TIMEOUT, operation=operation.id
        )
        try:
            response = await handler(Request(operation, given, now, principal))
            return COMPLETED, msgspec.json.encode(response.body), ""
        except Exception as error:
            judged = outcome(error, operation.raises)
            faults += judged == "fault" or (isinstance(error, RopewalkError) and type(error) is RopewalkError)
            said = f"{type(error).__name__}: {error}"
            if judged == "definite" and isinstance(error, RopewalkError):
                return FAILED, msgspec.json.encode(to_problem(error), enc_hook=str), said
            if faults >= FAULTS:
                return PARKED, b"", said
            _log.warn("job.again {id}: {error!r}", id=id, error=error)
        await deferLater(clock, delay(LADDER, attempt, random.random()))


def accepted(tx: Transaction, operation: str, arguments: bytes, id: str) -> str:
    """Keep one; its id."""
    add(tx, named(operation, arguments, id))
    return id


class Jobs:
    """What became of the jobs of one service."""

    def __init__(self, database: Database, operations: Mapping[str, Operation]) -> None:
        self._database = database
        self._operations = operations

    async def __call__(self, id: str) -> JobStatus:
        """How it stands; raises NotFound."""
        told = await self._database.batched(journal.read_all, id)
        if told.saga not in self._operations:
            raise NotFound(f"There is no job {id!r}.")
        result = problem = None
        if told.state == COMPLETED:
            result = msgspec.json.decode(told.result)
        elif told.state == FAILED:
            problem = msgspec.json.decode(told.result)
        subject = msgspec.json.decode(told.context, type=Carried).subject
        return JobStatus(id, told.saga, told.state, result, problem, subject)


class Clockwork:
    """Says when what a service does at times is due. All its processes say so; one of them does it."""

    def __init__(self, schedules: Mapping[str, Scheduled], database: Database, clock: IReactorTime) -> None:
        self._schedules = schedules
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now = self._database.now()
            wait = min(each.timing.after(now) for each in self._schedules.values()) - now
            for each in self._schedules.values():
                due = int(each.timing.due(now))
                try:
                    await self._database.apart(journal.tick, each.operation.id, due, NOTHING, int(now))
                except RopewalkError as error:
                    _log.warn("schedule.postponed {id}: {error!r}", id=each.operation.id, error=error)
                    wait = min(wait, AGAIN)
            # By the wall clock, which may be set meanwhile: looked at again within the minute.
            await deferLater(self._clock, max(0.01, min(wait, 60.0)))
