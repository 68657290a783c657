"""What whoever runs a system asks its processes: sagas, subscriptions, dead letters. A service like any other.

Each internal listener has it beneath `/-/ropewalk`, for all services of its process, with a page to try it on at
`/-/ropewalk/docs`. `ropewalk sagas` and `ropewalk events` are clients of it: a database that a process owns is asked
through that process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from ..codec.binding import Parts
from ..errors import Conflict, NotFound, RopewalkError
from ..events.dead_letters import DeadLetter, DeadLetters, Standing
from ..events.subscriptions import Consumer
from ..handler import Handler
from ..http.csrf import check_site
from ..message import Request, Response
from ..operation import Operation, get, post
from ..operation import delete as delete_
from ..sagas import Sagas
from ..sagas.flow import Flow
from ..sagas.journal import BEGUN, FAR, PARKED, RUNNING, Entry, Told
from ..sagas.runner import Runner
from ..service import Service

OPERATING = "/-/ropewalk"  # where it lies on each internal listener
State = Literal["running", "completed", "compensated", "failed", "parked"]
Number = Annotated[int, Meta(ge=1)]


class ProcessLine(Struct, frozen=True):
    """A process."""

    system: str
    process: str
    services: tuple[str, ...]  # that it hosts and that have a database


class SagaLine(Struct, frozen=True):
    """A saga, or a job: what is done in the background or at times."""

    service: str
    id: str
    saga: str  # "trips.book"
    state: State
    started: datetime
    ended: datetime | None
    waits: str  # for what, when it is put away
    until: datetime | None  # when it goes on at the latest
    cancelled: bool  # somebody wants it to end
    error: str  # why it is parked, or was compensated


class Step(Struct, frozen=True):
    """One entry of its journal."""

    number: int
    branch: str  # "": the saga's own; "gather:1/0": the first branch of its first gather
    step: str
    use: int  # the how manieth of that name in its branch
    kind: str  # step, transaction, sleep, wait, race, changed
    state: Literal["begun", "done", "failed"]
    at: datetime | None
    result: Any  # a problem document of one that failed
    until: datetime | None  # of one that has begun
    version: str  # of the service that did it


class Attempt(Struct, frozen=True):
    """What is being done now, as far as the process knows that was asked."""

    branch: str
    step: str
    use: int
    attempt: int
    since: datetime | None
    error: str  # of the last attempt
    until: datetime | None  # of one that only waits


class SagaWhole(SagaLine, frozen=True):
    """A saga with all that is known of it."""

    arguments: Any
    result: Any  # a problem document of one that failed
    subject: str | None  # on whose behalf it was started
    request_id: str
    steps: Sequence[Step]
    now: Sequence[Attempt]


class Signal(Struct, frozen=True):
    """What a saga is told: `flow.wait(name)` returns the value."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    value: Any = None


class SubscriptionLine(Struct, frozen=True):
    """A subscription; what is counted is counted since its process began."""

    service: str
    subscription: str  # "diary.note"
    topic: str
    lag: float  # seconds since the oldest event that came and is not done with was published
    in_hand: int  # events that came and are not done with
    handled: int
    again: int  # tries that failed, and were not the last
    dead: int
    dead_letters: int  # there are
    parked_keys: int


class LetterLine(Struct, frozen=True):
    """An event that was not handled."""

    service: str
    number: int
    subscription: str  # "": nobody had subscribed
    topic: str
    key: str
    event: str  # its id
    attempts: int  # 0: it waits behind another one of its key
    error: str
    replay: bool  # it is about to be tried again
    at: datetime


class LetterWhole(LetterLine, frozen=True):
    """One with the event itself."""

    cloud_event: Any


class Replay(Struct, frozen=True):
    """What is to be tried again; without either, all."""

    number: Number | None = None
    subscription: str | None = None


class Replayed(Struct, frozen=True):
    """How many dead letters will be tried again."""

    count: int


class Kept(Struct, frozen=True):
    """What one service has that an operator asks for."""

    sagas: Sagas
    jobs: Mapping[str, Operation]  # what it does in the background or at times, by name
    dead_letters: DeadLetters
    consumers: Sequence[Consumer]
    runner: Runner | None


class Operator(Service, name="ropewalk", version="1.0.0"):
    """Sagas, events and dead letters of the services of one process, for whoever runs them."""

    def __init__(self, system: str, process: str, services: Mapping[str, Kept]) -> None:
        """The names of the system and of its process; `services`: those with a database, by their names there."""
        self._line = ProcessLine(system, process, tuple(services))
        self._services = services

    @get("/process")
    async def read_process(self) -> ProcessLine:
        """Which process this is."""
        return self._line

    # -- sagas

    @get("/sagas", raises=(NotFound,))
    async def list_sagas(
        self,
        service: str | None = None,
        state: State | None = None,
        limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
        jobs: bool = False,
    ) -> list[SagaLine]:
        """The latest sagas, the latest first.

        What is done in the background or at times is among them unless it completed; `jobs`: also then.
        """
        found = []
        for name, kept in self._chosen(service):
            told = await kept.sagas.list(state, limit, () if jobs else tuple(kept.jobs))
            found += [_line(name, each) for each in told]
        return sorted(found, key=lambda line: line.started, reverse=True)[:limit]

    @get("/sagas/<service>/<path:id>", raises=(NotFound,))
    async def read_saga(self, service: str, id: str) -> SagaWhole:
        """One saga and its journal."""
        kept = self._of(service)
        told = await kept.sagas.read(id)
        steps = await kept.sagas.steps(id)
        flow = kept.runner.flow_of(id) if kept.runner is not None else None
        arguments = _arguments(told.arguments, kept.jobs.get(told.saga))
        return _whole(_line(service, told), told, arguments, steps, flow)

    @post("/sagas/<service>/<path:id>/signal", raises=(NotFound, Conflict))
    async def signal_saga(self, service: str, id: str, signal: Signal) -> SagaLine:
        """Tell a saga something; it hears it when it waits for that, now or later."""
        kept = self._of(service)
        told = await kept.sagas.read(id)
        if told.state not in (RUNNING, PARKED) or told.saga in kept.jobs:
            raise Conflict(f"{id} is {_called(told, kept)}: nobody there will hear of {signal.name!r}.")
        await kept.sagas.signal(id, signal.name, signal.value)
        return _line(service, told)

    @post("/sagas/<service>/<path:id>/retry", raises=(NotFound, Conflict))
    async def retry_saga(self, service: str, id: str) -> SagaLine:
        """Let a parked saga or job go on from where it was; what it was before."""
        kept = self._of(service)
        told = await kept.sagas.read(id)
        if not await kept.sagas.retry(id):
            raise Conflict(f"{id} is {_called(told, kept)}, not parked: there is nothing to retry.")
        return _line(service, told)

    @post("/sagas/<service>/<path:id>/cancel", raises=(NotFound, Conflict))
    async def cancel_saga(self, service: str, id: str) -> SagaLine:
        """Ask a saga to end, and to undo what it did; what it was before. A parked one goes on for that."""
        kept = self._of(service)
        told = await kept.sagas.read(id)
        if not await kept.sagas.cancel(id):
            raise Conflict(f"{id} is {_called(told, kept)}: there is nothing to cancel.")
        return _line(service, told)

    # -- events

    @get("/events/subscriptions", raises=(NotFound,))
    async def list_subscriptions(self, service: str | None = None) -> list[SubscriptionLine]:
        """The subscriptions of this process, and how they stand."""
        found = []
        for name, kept in self._chosen(service):
            standing = await kept.dead_letters.standing() if kept.consumers else {}
            found += [_subscription(name, each, standing.get(each.said.group, Standing())) for each in kept.consumers]
        return found

    @get("/events/dead-letters", raises=(NotFound,))
    async def list_dead_letters(self, service: str | None = None, subscription: str | None = None) -> list[LetterLine]:
        """The oldest hundred dead letters of each service."""
        return [
            _letter(name, letter)
            for name, kept in self._chosen(service)
            for letter in await kept.dead_letters.list(subscription)
        ]

    @get("/events/dead-letters/<service>/<int:number>", raises=(NotFound,))
    async def read_dead_letter(self, service: str, number: int) -> LetterWhole:
        """One dead letter, with its event."""
        return _letter_whole(service, await self._of(service).dead_letters.read(number))

    @post("/events/dead-letters/<service>/replay", raises=(NotFound,))
    async def replay_dead_letters(self, service: str, replay: Replay) -> Replayed:
        """Have dead letters tried again, in order; what fails again is one again."""
        return Replayed(await self._of(service).dead_letters.replay(replay.number, replay.subscription))

    @delete_("/events/dead-letters/<service>/<int:number>", raises=(NotFound,))
    async def drop_dead_letter(self, service: str, number: int) -> LetterWhole:
        """Forget a dead letter, as if it had been handled; what it was. What waits behind it goes on."""
        return _letter_whole(service, await self._of(service).dead_letters.drop(number))

    def _chosen(self, service: str | None) -> Iterable[tuple[str, Kept]]:
        return self._services.items() if service is None else [(service, self._of(service))]

    def _of(self, service: str) -> Kept:
        if service not in self._services:
            known = ", ".join(self._services) or "none"
            raise NotFound(f"No service {service!r} with a database is in this process; there are: {known}.")
        return self._services[service]


async def of_this_site(request: Request, handler: Handler) -> Response:
    """The filter that refuses what a browser sends for a page of another site: it reaches a loopback, as its user does.

    Raises Forbidden.
    """
    check_site(cast(Operation, request.operation).method or "POST", request.metadata)
    return await handler(request)


# -- what is said of each


def _line(service: str, told: Told) -> SagaLine:
    until = told.due if told.due is not None and told.due < FAR and not told.owned else None
    return SagaLine(
        service,
        told.id,
        told.saga,
        told.state,  # type: ignore[arg-type]
        _at(told.at),
        None if told.ended is None else _at(told.ended),
        told.waits,
        _at_ms(until),
        told.cancel,
        told.error,
    )


def _arguments(kept: bytes, job: Operation | None) -> Any:
    """By name; of a job, whose request is kept, as it is read by the code of today, else as it is kept."""
    if job is None:
        return msgspec.json.decode(kept)
    try:
        return msgspec.to_builtins(job.binding.decode(msgspec.json.decode(kept, type=Parts)), enc_hook=str)
    except RopewalkError:
        return msgspec.json.decode(kept)


def _whole(line: SagaLine, told: Told, arguments: Any, steps: Sequence[Entry], flow: Flow | None) -> SagaWhole:
    context = msgspec.json.decode(told.context)
    return SagaWhole(
        **msgspec.structs.asdict(line),
        arguments=arguments,
        result=_json(told.result),
        subject=context.get("subject"),
        request_id=context.get("request_id", ""),
        steps=[_step(entry) for entry in steps],
        now=_now(flow) if flow is not None else [],
    )


def _step(entry: Entry) -> Step:
    begun, place = entry.status == BEGUN, entry.place
    result = _json(entry.result)
    return Step(
        entry.number,
        place.branch,
        place.step,
        place.use,
        entry.kind,
        "begun" if begun else "failed" if entry.status else "done",
        _at(entry.at),
        None if begun else result,
        _at_ms(result) if begun and entry.kind != "step" else None,
        entry.version,
    )


def _now(flow: Flow) -> list[Attempt]:
    tried = [
        Attempt(place.branch, place.step, place.use, each.attempt, _at(each.since / 1000), each.error, None)
        for place, each in flow.trying.items()
    ]
    idle = [
        Attempt(place.branch, place.step, place.use, 1, None, "", _at_ms(idle.until))
        for place, idle in flow.idle.items()
    ]
    return sorted(tried + idle, key=lambda each: (each.branch, each.step, each.use))


def _subscription(service: str, consumer: Consumer, standing: Standing) -> SubscriptionLine:
    said, tries = consumer.said, consumer.tries
    return SubscriptionLine(
        service,
        said.group,
        said.delivery.event.topic,
        round(consumer.lag, 3),
        consumer.in_hand,
        tries["handled"],
        tries["again"],
        tries["dead"],
        standing.letters,
        standing.keys,
    )


def _letter(service: str, letter: DeadLetter) -> LetterLine:
    return LetterLine(
        service,
        letter.number,
        letter.subscription,
        letter.topic,
        letter.key,
        letter.event,
        letter.attempts,
        letter.error,
        letter.replay,
        letter.at,
    )


def _letter_whole(service: str, letter: DeadLetter) -> LetterWhole:
    line = msgspec.structs.asdict(_letter(service, letter))
    return LetterWhole(**line, cloud_event=msgspec.json.decode(letter.message))


def _called(told: Told, kept: Kept) -> str:
    return f"a job that is {told.state}" if told.saga in kept.jobs else told.state


def _json(data: bytes) -> Any:
    return msgspec.json.decode(data) if data else None


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _at_ms(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _at(milliseconds / 1000)
