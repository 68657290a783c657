"""The runner of one service in one process: takes sagas up, runs them to their end, and puts away those that only wait.

Processes that share a database share its sagas: each takes what no living member owns. Who is struck off while it stood
still finds its writes refused (`journal.Fenced`), lets go of what it ran, and begins anew under another id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..bell import Bell
from ..codec.problem import to_problem
from ..context import Context, Trace, enter_context
from ..driver import Driver
from ..durable import Saga
from ..errors import RopewalkError
from ..handler import Handler
from ..message import Principal, enter_principal
from ..operation import Operation
from ..policy.backoff import Backoff, Streak, began, failed
from ..service import Description, Service, describe
from ..store import Database
from ..store import members as member
from ..store.members import BEAT, Sight
from ..store.started import Carried
from ..telemetry.propagation import parse_traceparent
from . import jobs, journal
from .actions import Lost, Parked, type_and_text
from .flow import Flow, run_body
from .journal import COMPENSATED, COMPLETED, PARKED, Claim, Ending, Entry, Wanted, Written

AT_ONCE = 500  # sagas that one process runs for one service; the others wait in the database
LOOKS = 5.0  # seconds between looks for what others have left, where there are others and nobody was heard
SHORT = 2.0  # seconds of waiting for which a saga is not put away
FAR = 3600.0  # seconds to the next look when nothing is due

_log = Logger("ropewalk.sagas")


class Runner:
    """Runs the sagas of one service."""

    def __init__(
        self,
        service: Service,
        database: Database,
        clock: IReactorTime,
        random: Random,
        driver: Driver,
        handler: Handler,
        age: float,
    ) -> None:
        """`handler`: the service's own operations, for jobs. `age`: seconds for which callees remember a key."""
        self._age = age
        said = describe(service)
        self._handler = handler
        self._jobs = jobs_of(said)
        self._service = service
        self._name = said.name
        self._version = said.version
        self._sagas: Mapping[str, Saga] = {
            name: saga for saga in said.sagas.values() for name in (saga.id, *saga.aliases)
        }
        self._database = database
        self._clock = clock
        self._random = random
        self._driver = driver
        self._bell = Bell(clock)
        self._me = ""
        self._sight = Sight()
        self._running: dict[str, _Running] = {}
        self._aside: dict[Deferred[Any], None] = {}  # what is done beside them
        self._stopping = False
        self._seen_until = 0.0  # until when no look need ask for what is owned and not run; clock.seconds()
        self.started: Counter[str] = Counter()  # by what they are called: taken up for the first time, here
        self.ended: Counter[tuple[str, str]] = Counter()  # likewise, and the state; "parked" is one
        self._steps: Counter[tuple[str, str, str]] = Counter()  # of those that are not running

    # -- for its owner

    @property
    def steps(self) -> Counter[tuple[str, str, str]]:
        """What was done here: by saga, kind and outcome ("done", "failed")."""
        total = self._steps.copy()
        for mine in self._running.values():
            total += mine.steps
        return total

    def flow_of(self, id: str) -> Flow | None:
        """Of a saga that runs here."""
        return self._running[id].flow if id in self._running else None

    def wake(self) -> None:
        """Something was started, told or asked."""
        self._bell.ring()

    async def run(self) -> None:
        """Take up and run, until cancelled."""
        streak = Streak()
        while True:
            streak = began(streak, self._clock.seconds())
            try:
                if not self._me:
                    await self._enter()
                wait = await self._look()
                streak = Streak()
            except RopewalkError as error:
                streak, wait = failed(Backoff(), streak, self._clock.seconds(), self._random.random())
                _log.warn("sagas of {service} wait: {error!r}", service=self._name, error=error)
                await deferLater(self._clock, wait)
                continue
            await self._bell.wait(wait)

    async def beat(self) -> None:
        """Show that this process lives, and strike off those that do not, until cancelled."""
        while True:
            await deferLater(self._clock, BEAT)
            try:
                await self._beat()
            except RopewalkError as error:
                _log.warn("sagas of {service}: no beat: {error!r}", service=self._name, error=error)

    async def purge(self, age: float) -> None:
        """Forget those that ended longer ago than `age` seconds; those that are parked stay."""
        before = int(self._database.now() - age)
        while await self._database.apart(journal.purge, before) == journal.BATCH:
            pass

    async def stop(self) -> None:
        """Let go of everything: others go on with it at once."""
        self._stopping = True
        for putting in list(self._aside):
            putting.cancel()
        running, self._running = dict(self._running), {}
        for mine in running.values():
            mine.run.cancel()
            await self._quietly(journal.give_up, mine.claim)
        if self._me:
            await self._quietly(member.leave, self._me)

    # -- members

    async def _enter(self) -> None:
        me = f"{self._random.getrandbits(128):032x}"
        if not self._database.shared:
            await self._database.apart(member.clear)
        await self._database.apart(member.beat, me, True)
        self._me = me

    async def _beat(self) -> None:
        if not self._me:
            return
        me = self._me
        beats = await self._database.apart(member.beat, me, False)
        now = self._clock.seconds()
        if beats is None:
            _log.warn("sagas of {service}: this process was taken for dead, and begins anew", service=self._name)
            self._let_go()
            self._sight, self._me = Sight(), ""
            self.wake()
            return
        self._sight = member.seen(self._sight, beats, now)
        for other in member.silent(self._sight, now):
            if other != me and await self._database.apart(member.strike, other, self._sight.beats[other][0]):
                _log.info("sagas of {service}: a process is gone, others go on", service=self._name)
                self.wake()

    def _let_go(self) -> None:
        running, self._running = self._running, {}
        for mine in running.values():
            mine.run.cancel()

    # -- taking up

    async def _look(self) -> float | None:
        """Take what is to be done; how long to wait until the next look."""
        now, now_ms = self._clock.seconds(), int(self._database.now() * 1000)
        flows = {id: mine.flow for id, mine in self._running.items() if mine.flow is not None}
        idle = [id for id, flow in flows.items() if flow.idle]
        free = AT_ONCE - len(self._running)
        # A look that was given up may yet come to be, even after later ones, and nobody hears what it takes. How late,
        # nobody knows: so that is asked for now and again, and at once when the last answer was lost.
        seen_until, self._seen_until = self._seen_until, 0.0
        lost = now >= seen_until
        wanted = Wanted(self._me, list(self._running), idle, now_ms, free, lost)
        look: journal.Look = await self._database.batched(journal.look, wanted)
        self._seen_until = now + LOOKS if lost else seen_until
        for id, flow in flows.items():
            if id in self._running:
                flow.told(look.signals.get(id) if id in idle else None, id in look.cancelled)
        for claim in look.claims:
            if self._stopping:
                return None
            self._start(claim)
        if len(look.claims) == journal.TAKEN_AT_ONCE:
            return 0.0
        wait = FAR if look.due is None else max(0.0, (look.due - now_ms) / 1000)
        return min(wait, LOOKS if self._database.shared else FAR)

    def _start(self, claim: Claim) -> None:
        mine = self._running[claim.id] = _Running(claim)
        self.started[claim.saga] += claim.epoch == 1
        mine.run = self._driver.run(self._go_on(mine))
        mine.run.addErrback(lambda failure: failure.trap(CancelledError))
        mine.run.addErrback(lambda failure: _log.failure("saga.broken {id}", failure, id=claim.id))
        mine.run.addBoth(lambda _: self._forget(mine))

    def _forget(self, mine: _Running) -> None:
        if self._running.get(mine.claim.id) is mine:
            del self._running[mine.claim.id]
            self._steps += mine.steps
            if len(self._running) == AT_ONCE - 1:
                self.wake()

    # -- one of them

    async def _go_on(self, mine: _Running) -> None:
        claim = mine.claim
        try:
            await self._play(mine)
        except (journal.Fenced, Lost):
            _log.info("saga.taken {id}: another process goes on with it", id=claim.id)
        except RopewalkError as error:  # the database: it is taken up again
            _log.warn("saga.left {id}: {error!r}", id=claim.id, error=error)
            await self._quietly(journal.give_up, claim)

    async def _play(self, mine: _Running) -> None:
        claim = mine.claim
        job = self._jobs.get(claim.saga)
        if job is not None:
            await self._do(claim, job)
            return
        saga = self._sagas.get(claim.saga)
        if saga is None:
            await self._park(
                claim, (), f"{self._name} has no saga {claim.saga!r}: deploy one, or name it in `aliases=`."
            )
            return
        try:
            arguments = saga.decode(claim.arguments)
        except msgspec.DecodeError as error:
            await self._park(claim, (), f"Its arguments are not those of {saga.id}{saga.signature}: {error}.")
            return
        flow = Flow(claim, self._name, self._version, self._database, self._clock, self._random, self._age)
        mine.flow = flow
        carried = msgspec.json.decode(claim.context, type=Carried)
        enter_context(self._context(claim, carried))
        enter_principal(Principal(carried.service, carried.subject, frozenset(carried.scopes)))
        body = asyncio.get_running_loop().create_task(_body(flow, getattr(self._service, saga.name), arguments))
        flow.settled = lambda: self._clock.callLater(0, self._maybe_put_away, flow, body)
        try:
            outcome = await body
            if outcome is AWAY:
                return
            result = saga.encode_result(outcome)
        except Parked as parked:
            await self._park(flow.claim, flow.unwritten, str(parked))
        except RopewalkError as error:
            await self._compensate(flow, error)
        except Exception as error:
            _log.failure("saga.failed {id}: {saga}", id=claim.id, saga=saga.id)
            await self._park(flow.claim, flow.unwritten, type_and_text(error))
        else:
            await self._end(flow.claim, flow.unwritten, COMPLETED, result)

    async def _do(self, claim: Claim, operation: Operation) -> None:
        carried = msgspec.json.decode(claim.context, type=Carried)
        principal = Principal(carried.service, carried.subject, frozenset(carried.scopes))
        context = self._context(claim, carried)
        work = jobs.do(
            operation, claim.arguments, claim.id, context, principal, self._handler, self._clock, self._random
        )
        state, result, said = await work
        if state == PARKED:
            await self._park(claim, (), said)
        else:
            await self._end(claim, (), state, result, said)

    async def _compensate(self, flow: Flow, error: RopewalkError) -> None:
        try:
            await flow.compensate()
        except Parked as parked:
            await self._park(flow.claim, flow.unwritten, f"{parked} (it failed with {type_and_text(error)})")
            return
        problem = msgspec.json.encode(to_problem(error), enc_hook=str)
        await self._end(flow.claim, flow.unwritten, COMPENSATED, problem, type_and_text(error))

    async def _park(self, claim: Claim, written: Sequence[Entry], reason: str) -> None:
        _log.error("saga.parked {id}: {reason}", id=claim.id, saga=claim.saga, reason=reason)
        await self._end(claim, written, PARKED, b"", reason)

    async def _end(self, claim: Claim, written: Sequence[Entry], state: str, result: bytes, error: str = "") -> None:
        ended = Written(claim, written, self._version, Ending(state, result, error))
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._database.batched(journal.write, ended)
            except RopewalkError as unavailable:
                _log.warn("saga.end.again {id}: {error!r}", id=claim.id, error=unavailable)
                await deferLater(self._clock, 1.0)
            except journal.Fenced:
                if attempt == 1:
                    raise
                return  # by ourselves: the answer to the commit was lost
            else:
                self.ended[claim.saga, state] += 1
                return

    def _maybe_put_away(self, flow: Flow, body: asyncio.Task[Any]) -> None:
        if not flow.waits_only or body.done() or self._stopping:
            return
        dues = [idle.until for idle in flow.idle.values() if idle.until is not None]
        due = min(dues) if dues else None
        if due is not None and due - flow.now_ms() < SHORT * 1000:
            return
        putting = self._driver.run(self._put_away(flow, body, due))
        self._aside[putting] = None
        putting.addErrback(lambda failure: failure.trap(CancelledError, journal.Fenced, RopewalkError))
        putting.addBoth(lambda _: self._aside.pop(putting))

    async def _put_away(self, flow: Flow, body: asyncio.Task[Any], due: int | None) -> None:
        waits = ", ".join(sorted(idle.what for idle in flow.idle.values()))
        away = await self._database.apart(journal.put_away, flow.claim, due, waits, len(flow.signals))
        if away:
            flow.away = True
            body.cancel()
        self.wake()  # told meanwhile, or due

    def _context(self, claim: Claim, carried: Carried) -> Context:
        trace = parse_traceparent(carried.traceparent, carried.tracestate)
        span = f"{self._random.getrandbits(64) or 1:016x}"
        if trace is not None:
            trace = Trace(trace.trace_id, span, trace.flags, trace.state, trace.span_id)
        else:
            trace = Trace(f"{self._random.getrandbits(128) or 1:032x}", span)
        return Context(
            trace=trace,
            request_id=carried.request_id or trace.trace_id,
            tenant=carried.tenant,
            service=self._name,
            operation=claim.saga,
        )

    async def _quietly(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            await self._database.apart(function, *args)
        except (RopewalkError, journal.Fenced) as error:
            _log.info("sagas of {service}: {error!r}", service=self._name, error=error)

    def __repr__(self) -> str:
        return f"<Runner of {self._name}, {len(self._running)} running>"


class _Running:
    """A saga that is run here."""

    run: Deferred[Any]

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.flow: Flow | None = None  # until it is known what it is

    @property
    def steps(self) -> Counter[tuple[str, str, str]]:
        """What it did: by saga, kind and outcome."""
        done = self.flow.steps if self.flow is not None else {}
        return Counter({(self.claim.saga, *how): count for how, count in done.items()})


def jobs_of(said: Description) -> dict[str, Operation]:
    """What a service does in the background or at times, by the names it goes by."""
    found = [operation for operation in said.operations.values() if operation.background]
    found += [scheduled.operation for scheduled in said.schedules.values()]
    return {name: operation for operation in found for name in (operation.id, *operation.aliases)}


AWAY = object()


async def _body(flow: Flow, method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return await run_body(flow, method, arguments)
    except asyncio.CancelledError:
        if flow.away:
            return AWAY
        raise
