"""What a saga's code sees: `flow.step`, `transaction`, `gather`, `race`, `sleep`, `wait`, `changed`.

The code runs from its beginning each time somebody takes the saga up. What the journal holds is answered from there;
the first thing it does not hold is done, written down, and so on. A step is (branch, name, the how manieth of that name
in its branch); what it is given must be what it was given before, or the code has changed and the saga is parked.

A step fails on a definite outcome only: as long as nobody knows, it is asked again, under the same key. A branch that
is given up (another one failed, a race is won, somebody wants the saga to end) asks once more in order to take the key
back, and learns either that nothing was done or what was.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import typing
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from random import Random
from typing import Any, cast

import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..bell import Bells
from ..codec.problem import from_problem, to_problem
from ..context import Keyed, Outside, current_context, digest, enter_context, enter_key, leave_context, leave_key
from ..durable import Saga
from ..errors import DeadlineExceeded, KeyCancelled, RopewalkError, Unavailable
from ..operation import Operation
from ..policy.backoff import delay
from ..policy.deadline import DEFAULT_TIMEOUT
from ..policy.steps import FAULTS, LADDER, outcome
from ..service import Service, Sibling, describe
from ..store import Database
from ..store.records import name_of
from ..store.started import add_all, named, nested_id, saga_named
from . import journal
from .journal import BEGUN, COMPLETED, ENDED, Claim, Ended, Entry, Place, Written

_log = Logger("ropewalk.sagas")

UNDO = "undo:"
LONGEST_NAME = 200  # characters of a step's name
LONG = 3600.0  # seconds of asking in vain after which it is written down since when


class Parked(BaseException):
    """Raised through a saga's code when it cannot go on: the journal is as it is, and somebody has to look."""


class Lost(BaseException):
    """Raised through a saga's code when another process goes on with it: nothing is written any more."""


class Unkept(TypeError):
    """Raised out of a transaction whose result cannot be kept: nothing of it commits."""


class Trying(Struct, frozen=True):
    """A step that is being done."""

    attempt: int
    since: int  # milliseconds of the wall clock
    error: str = ""  # of the last attempt


class Branch:
    """A line of steps that are done one after the other."""

    def __init__(self, path: str, parent: Branch | None = None) -> None:
        self.path = path
        self.parent = parent
        self.uses: Counter[str] = Counter()
        self.busy = ""  # the step that is under way
        self.last = 0  # the number of its last entry
        self.ended = 0  # when it ended among its siblings
        self._given_up = False

    @property
    def given_up(self) -> bool:
        """Whether what it comes to is not wanted any more."""
        return self._given_up or (self.parent is not None and self.parent.given_up)

    def give_up(self) -> None:
        """It is not wanted any more."""
        self._given_up = True

    def next(self, name: str) -> Place:
        """The place of its next step of that name."""
        self.uses[name] += 1
        return Place(self.path, name, self.uses[name])

    def inner(self, name: str, index: int) -> Branch:
        """The branch at `index` of what is called `name`, "gather:1"."""
        return Branch(f"{self.path}{'/' if self.path else ''}{name}/{index}", self)


_branch: contextvars.ContextVar[Branch] = contextvars.ContextVar("ropewalk_saga_branch")


class Action:
    """One thing a saga does; nothing happens before it is awaited, or given to `gather` or `race`."""

    kind = "step"
    undo: Callable[..., Any] | None = None
    raises: Sequence[type[RopewalkError]] = ()  # what it is known to fail with

    def __init__(self, flow: Flow, name: str) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME - len(UNDO):
            raise ValueError(f"name: expected a text of 1 to {LONGEST_NAME - len(UNDO)} characters; got {name!r}.")
        self.flow = flow
        self.name = name

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.flow._perform(self).__await__()

    def asked(self) -> str:
        """What stands for what it is given."""
        return ""

    def decoded(self, entry: Entry) -> Any:
        """What a journal's entry says it came to; raises what it failed with."""
        if entry.status:
            raise from_problem(entry.status, entry.result, self.raises, ran="yes")
        return self.value(entry)

    def value(self, entry: Entry) -> Any:
        """Of one that succeeded."""
        return msgspec.json.decode(entry.result)

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        """Do it; what it came to. `begun`: it was begun before."""
        raise NotImplementedError

    def entry(self, place: Place, status: int, result: bytes, type: str = "") -> Entry:
        """What is written down of it."""
        return Entry(place, 0, self.kind, self.asked(), status, result, type)

    def failure(self, place: Place, error: RopewalkError) -> Entry:
        """What is written down of its failure."""
        return self.entry(place, error.status, msgspec.json.encode(to_problem(error), enc_hook=str))


class Step(Action):
    """A call of a sibling's operation, or of a function of the saga's own, under a key."""

    def __init__(
        self,
        flow: Flow,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        undo: Callable[..., Any] | None,
        timeout: float | None,
    ) -> None:
        self._operation = _operation_of(function)
        self.raises = self._operation.raises if self._operation is not None else ()
        name = name or _name_of(function, self._operation)
        if name == "<lambda>":
            raise TypeError("flow.step: a lambda has no name that stays; say `name=`.")
        super().__init__(flow, name)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._timeout = timeout
        self.undo = undo
        self._asked = _digest(self.name, args, kwargs)

    def asked(self) -> str:
        return self._asked

    def value(self, entry: Entry) -> Any:
        returns = self._operation.returns if self._operation is not None else _returns(self._function, entry.type)
        return msgspec.json.decode(entry.result, type=Any if returns is _NOTHING else returns)

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        flow, until = self.flow, None
        if self._timeout is not None:
            until = await flow._until(self, place, begun, self._timeout)
        since = flow.now_ms() if begun is None or until is not None else int(msgspec.json.decode(begun.result))
        noted = begun is not None or until is not None
        attempt = faults = 0
        flow.trying[place] = Trying(1, since)
        while True:
            attempt += 1
            asked = (flow.now_ms() - since) / 1000
            if asked > LONG and not noted:
                noted = True
                await flow._note(self, place, since)
            if asked > flow.age:
                raise Parked(
                    f"{place} was asked for {asked:.0f} seconds without a definite answer, and its callee remembers "
                    f"what it did for {flow.age:g} ([records] age): asked once more it might do it twice."
                )
            late = until is not None and flow.now_ms() >= until
            cancel = (branch.given_up or late) and self._operation is not None
            try:
                value = await flow._under_key(place, self, attempt, cancel, until)
                result, type = self._encoded(value)
                return self.entry(place, 0, result, type)
            except Exception as error:
                judged = outcome(error, self._operation.raises if self._operation is not None else None)
                if late and isinstance(error, KeyCancelled):
                    error = DeadlineExceeded(f"{place} did not answer within {self._timeout:g} seconds.")
                    return self.failure(place, error)
                if judged == "definite":
                    return self.failure(place, cast(RopewalkError, error))
                faults += judged == "fault"
                if judged == "fault":
                    _log.failure("saga.step.failed {place} of {id}", place=str(place), id=flow.id)
                if faults >= FAULTS:
                    raise Parked(f"{place}: {type_and_text(error)}") from error
                _log.warn("saga.step.again {place} of {id}: {error!r}", place=str(place), id=flow.id, error=error)
                flow.trying[place] = Trying(attempt + 1, since, type_and_text(error))
            await flow._pause(branch, delay(LADDER, attempt, flow._random.random()), until)

    def _encoded(self, value: Any) -> tuple[bytes, str]:
        try:
            return msgspec.json.encode(value), _type_name(value)
        except TypeError as error:
            raise Parked(f"{self.name}: what a step returns is kept as JSON: {error}.") from error


class Commit(Action):
    """A function of one transaction, whose effect and entry commit together."""

    kind = "transaction"

    def __init__(
        self,
        flow: Flow,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        undo: Callable[..., Any] | None,
    ) -> None:
        name = name or name_of(function)
        if name == "<lambda>":
            raise TypeError("flow.transaction: a lambda has no name that stays; say `name=`.")
        super().__init__(flow, name)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.undo = undo
        self._asked = _digest(name, args, kwargs)

    def asked(self) -> str:
        return self._asked

    def value(self, entry: Entry) -> Any:
        return msgspec.json.decode(entry.result, type=_returns(self._function, entry.type))

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        if branch.given_up:
            raise KeyCancelled(f"{place} was given up.")
        flow = self.flow
        before, number = flow.take_unwritten(), flow._next_number()

        def encode(value: Any) -> Entry:
            try:
                entry = self.entry(place, 0, msgspec.json.encode(value), _type_name(value))
            except TypeError as error:
                raise Unkept(f"{self.name}: what a transaction returns is kept as JSON: {error}.") from error
            return msgspec.structs.replace(entry, number=number)

        transact = partial(journal.transact, encode=encode, before=before, version=flow._version)
        attempt, since = 0, flow.now_ms()
        flow.trying[place] = Trying(1, since)
        while True:
            attempt += 1
            try:
                entry: Entry = await flow._database.apart(
                    transact, flow.claim, place, self._function, self._args, self._kwargs
                )
                return entry
            except RopewalkError as error:
                if outcome(error, None) == "definite":
                    flow.unwritten[:0] = before
                    return self.failure(place, error)
                _log.warn(
                    "saga.transaction.again {place} of {id}: {error!r}", place=str(place), id=flow.id, error=error
                )
                flow.trying[place] = Trying(attempt + 1, since, type_and_text(error))
            except journal.Fenced as fenced:
                raise Lost(flow.id) from fenced
            except Unkept as error:
                raise Parked(str(error)) from error
            except Exception as error:
                _log.failure("saga.transaction.failed {place} of {id}", place=str(place), id=flow.id)
                if attempt >= FAULTS:
                    raise Parked(f"{place}: {type_and_text(error)}") from error
                flow.trying[place] = Trying(attempt + 1, since, type_and_text(error))
            await flow._pause(branch, delay(LADDER, attempt, flow._random.random()), None)


class Sleep(Action):
    """Until a moment of the wall clock, which is settled when it begins."""

    kind = "sleep"

    def __init__(self, flow: Flow, seconds: float) -> None:
        super().__init__(flow, "sleep")
        self._seconds = seconds

    def value(self, entry: Entry) -> Any:
        return None

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        until = await self.flow._until(self, place, begun, self._seconds)
        while (now := self.flow.now_ms()) < until:
            if branch.given_up:
                raise KeyCancelled(f"{place} was given up.")
            await self.flow._idle(place, (until - now) / 1000, until)
        return self.entry(place, 0, b"null")


class Wait(Action):
    """For a signal."""

    kind = "wait"

    def __init__(self, flow: Flow, name: str, timeout: float | None) -> None:
        super().__init__(flow, name)
        self._timeout = timeout

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        flow, until = self.flow, None
        if self._timeout is not None:
            until = await flow._until(self, place, begun, self._timeout)
        while True:
            value = flow._signal(self.name)
            if value is not None:
                return self.entry(place, 0, value)
            if branch.given_up:
                raise KeyCancelled(f"{place} was given up.")
            seconds = None if until is None else (until - flow.now_ms()) / 1000
            if seconds is not None and seconds <= 0:
                error = DeadlineExceeded(f"No {self.name!r} came within {self._timeout:g} seconds.")
                return self.failure(place, error)
            await flow._idle(place, seconds, until)


class Nested(Action):
    """Another saga of the same service, under an id of its own; its end is told to this one as a signal."""

    kind = "saga"

    def __init__(
        self,
        flow: Flow,
        saga: Saga,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        undo: Callable[..., Any] | None,
        timeout: float | None,
    ) -> None:
        super().__init__(flow, name or saga.id)
        self._saga = saga
        self._arguments = saga.encode(args, kwargs)
        self._timeout = timeout
        self.undo = undo

    def asked(self) -> str:
        return digest(self._arguments.decode())

    def value(self, entry: Entry) -> Any:
        return self._saga.decode_result(entry.result)

    async def perform(self, place: Place, branch: Branch, begun: Entry | None) -> Entry:
        flow, until = self.flow, None
        if self._timeout is not None:
            until = await flow._until(self, place, begun, self._timeout)
        id = nested_id(flow.id, *msgspec.structs.astuple(place))
        started = asked_to_end = False
        while (told := flow._signal(f"{ENDED}{id}")) is None:
            late = until is not None and flow.now_ms() >= until
            if not started:
                started = True
                new = named(self._saga.id, self._arguments, id, parent=flow.id)
                await flow._surely(place, partial(flow._database.batched, add_all, new))
            elif (late or branch.given_up) and not asked_to_end:
                asked_to_end = True
                await flow._surely(place, partial(flow._database.apart, journal.cancel, id))
            else:
                seconds = None if until is None or late else (until - flow.now_ms()) / 1000
                await flow._idle(place, seconds, None if late else until, f"saga {id}")
        ended = msgspec.json.decode(told, type=Ended)
        if ended.state == COMPLETED:
            return self.entry(place, 0, bytes(ended.result))
        status = int(msgspec.json.decode(ended.result).get("status", 500))
        if until is not None and isinstance(from_problem(status, bytes(ended.result)), KeyCancelled):
            return self.failure(place, DeadlineExceeded(f"{place} did not end within {self._timeout:g} seconds."))
        return self.entry(place, status, bytes(ended.result))


class Idle(Struct, frozen=True):
    """What an action only waits for."""

    until: int | None  # milliseconds of the wall clock
    what: str  # for people


class Flow:
    """Given to a saga's code as its first argument. `id`: the saga's."""

    def __init__(
        self,
        claim: Claim,
        service: str,
        version: str,
        database: Database,
        clock: IReactorTime,
        random: Random,
        age: float,
    ) -> None:
        """`age`: seconds for which callees remember what they did under a key."""
        entries = claim.entries
        self.age = age
        self.id = claim.id
        self.claim = claim
        self._service = service
        self._version = version
        self._database = database
        self._clock = clock
        self._random = random
        self._journal = {entry.place: entry for entry in entries}
        self._left = Counter(entry.place.branch for entry in entries if not _apart(entry))
        self._number = max((entry.number for entry in entries), default=0)
        self._taken = Counter(entry.place.step for entry in entries if entry.kind == "wait" and entry.status == 0)
        self.signals = claim.signals
        self.unwritten: list[Entry] = []  # is written with what comes next, and before it begins
        self._writing = asyncio.Lock()
        self.root = Branch("")
        self.done: list[tuple[int, Place, Action, Any]] = []  # what can be undone: number, where, what, its result
        self._working = 0  # actions that are not only waiting
        self.trying: dict[Place, Trying] = {}  # for people
        self.idle: dict[Place, Idle] = {}  # actions that only wait
        self.steps: Counter[tuple[str, str]] = Counter()  # that this run of it did, by kind and outcome
        self.settled: Callable[[], object] = lambda: None  # called when all that is under way only waits
        self._bells = Bells(clock)
        self._consumed: set[Place] = set()
        self.away = False  # it was put away, and this run of it ends
        if claim.cancel:
            self.root.give_up()

    # -- what a saga's code calls

    def step(
        self,
        function: Callable[..., Any],
        *args: Any,
        undo: Callable[..., Any] | None = None,
        name: str | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Action:
        """Call `function(*args, **kwargs)`, a sibling's operation or an async function, until its outcome is definite.

        A method of this service that is a `@saga` is started as one, and waited for; given up, it is asked to end.

        `undo(result)` is called when the saga fails later. `timeout`: seconds, after which it is given up: taken back
        where it is a sibling's operation that has not run, and DeadlineExceeded is raised. `name`: by default that of
        the operation or the function. What is returned has the type the operation or the function says it returns.
        """
        saga = saga_named(function)
        if saga is not None:
            return Nested(self, saga, args, kwargs, name, undo, timeout)
        return Step(self, function, args, kwargs, name, undo, timeout)

    def transaction(
        self,
        function: Callable[..., Any],
        *args: Any,
        undo: Callable[..., Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Commit:
        """Run `function(tx, *args, **kwargs)` in the service's database, once: with the journal it is one commit.

        `undo(tx, result)` likewise, when the saga fails later.
        """
        return Commit(self, function, args, kwargs, name, undo)

    def sleep(self, seconds: float) -> Sleep:
        """Go on after so many seconds, whatever happens to this process meanwhile."""
        return Sleep(self, seconds)

    def wait(self, name: str, timeout: float | None = None) -> Wait:
        """The value of the next signal of that name; raises DeadlineExceeded after `timeout` seconds without one."""
        return Wait(self, name, timeout)

    async def gather(self, *branches: Awaitable[Any]) -> list[Any]:
        """Do all of them at the same time; what each came to. One that fails is raised, and the others are given up."""
        parent = self._current()
        inner = self._inner(parent, "gather", branches)
        results = await self._together(parent, inner, branches, _is_error)
        failures = [(branch.last, each) for branch, each in zip(inner, results, strict=True) if _is_error(each)]
        if failures:
            raise min(failures, key=lambda failure: failure[0])[1]
        return results

    async def race(self, *branches: Awaitable[Any]) -> Any:
        """Do all of them at the same time; what the first came to. The others are given up, and undone if they ran."""
        parent = self._current()
        inner = self._inner(parent, "race", branches)
        place = Place(parent.path, "race", parent.uses["race"])
        known = self._journal.get(place)
        if known is not None:
            self._consume(known)
            winner = int(msgspec.json.decode(known.result))
            for index, branch in enumerate(inner):
                if index != winner:
                    branch.give_up()
        results = await self._together(parent, inner, branches, lambda _: True)
        if known is None:
            winner = min(range(len(inner)), key=lambda index: inner[index].ended)
            self._keep(Entry(place, 0, "race", "", 0, msgspec.json.encode(winner)))
        for index, branch in enumerate(inner):
            if index != winner:
                await self._undo(branch)
        result = results[winner]
        if _is_error(result):
            raise result
        return result

    def changed(self, name: str) -> bool:
        """Whether this saga goes the way of newer code here: not when it came by before that was deployed."""
        branch = self._current()
        place = Place(branch.path, f"changed:{name}", 1)
        if place in self._journal:
            return True
        if self._left[branch.path]:
            return False
        self._keep(Entry(place, 0, "changed", "", 0, b"true"))
        return True

    def now_ms(self) -> int:
        """The wall clock, in milliseconds."""
        return int(self._database.now() * 1000)

    # -- doing it

    async def _perform(self, action: Action) -> Any:
        branch = self._current()
        if branch.busy:
            raise RuntimeError(
                f"{self.claim.saga}: {action.name!r} was begun while {branch.busy!r} is under way; what is done at the "
                "same time goes into `flow.gather(...)`, awaited."
            )
        place = branch.next(action.name)
        entry = self._journal.get(place)
        if entry is not None:
            self._compare(entry, action)
            self._consume(entry)
        if entry is None or entry.status == BEGUN:
            if self._left[branch.path]:
                missed = next(each.place for each in self._journal.values() if self._is_left(each, branch.path))
                raise Parked(
                    f"The code asks for {place}, and the journal goes on with {missed}: it was changed under a running "
                    "saga. Deploy the earlier code, or let the change ask `if flow.changed(...)`."
                )
            branch.busy = action.name
            self._working += 1
            try:
                await self._flush()
                entry = await action.perform(place, branch, entry)
                if not entry.number:
                    entry = self._keep(entry)
                self._journal[place] = entry
                self.steps[action.kind, "failed" if entry.status else "done"] += 1
            finally:
                branch.busy = ""
                self.trying.pop(place, None)
                self._working -= 1
                self._consumed.add(place)
        branch.last = max(branch.last, entry.number)
        value = action.decoded(entry)
        if action.undo is not None:
            self.done.append((entry.number, place, action, value))
        return value

    async def _together(
        self,
        parent: Branch,
        inner: list[Branch],
        branches: tuple[Awaitable[Any], ...],
        decided: Callable[[Any], bool],
    ) -> list[Any]:
        """Run them all to their ends; once `decided` by a result, the others are given up."""
        parent.busy = "gather"
        ended = 0

        async def one(branch: Branch, work: Awaitable[Any]) -> Any:
            nonlocal ended
            _branch.set(branch)
            try:
                result = await work
            except RopewalkError as error:
                result = error
            ended += 1
            branch.ended = ended
            if decided(result):
                for other in inner:
                    if other is not branch and not other.ended:
                        other.give_up()
                self.poke()
            return result

        tasks = [asyncio.create_task(one(branch, work)) for branch, work in zip(inner, branches, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        except (Exception, asyncio.CancelledError, Parked, Lost):  # no GeneratorExit: then nobody waits any more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            parent.busy = ""
            parent.last = max([parent.last, *(branch.last for branch in inner)])

    async def compensate(self) -> None:
        """Undo what was done, the latest first. Raises Parked when something cannot be."""
        await self._undo(None)

    async def _undo(self, within: Branch | None) -> None:
        """Of one branch, or all."""
        path = within.path if within is not None else ""
        mine = [each for each in self.done if within is None or (each[1].branch + "/").startswith(path + "/")]
        for each in sorted(mine, key=lambda each: each[0], reverse=True):
            _, place, action, value = each
            await self._undo_one(place, action, value)
            self.done.remove(each)

    async def _undo_one(self, place: Place, action: Action, value: Any) -> None:
        there = Place(place.branch, f"{UNDO}{place.step}", place.use)
        undo: Any = action.undo
        if isinstance(action, Commit):
            undoing: Action = Commit(self, undo, (value,), {}, place.step, None)
        else:
            undoing = Step(self, undo, (value,), {}, place.step, None, None)
        entry = self._journal.get(there)
        if entry is None:
            await self._flush()
            entry = await undoing.perform(there, Branch(UNDO), None)
            self.trying.pop(there, None)
            if not entry.number:
                entry = self._keep(entry)
            self._journal[there] = entry
            self.steps["undo", "failed" if entry.status else "done"] += 1
        if entry.status:
            problem = msgspec.json.decode(entry.result)
            raise Parked(f"{there} cannot be done: {problem.get('title')}: {problem.get('detail', '')}")

    async def _under_key(self, place: Place, step: Step, attempt: int, cancel: bool, until: int | None) -> Any:
        scope = digest("saga", self._service, self.id, place.branch, place.step, str(place.use))
        keyed = Keyed(scope, scope, step.name, step.asked(), (RopewalkError,))
        # Of this try: what is silent is asked again.
        seconds = DEFAULT_TIMEOUT
        if until is not None and not cancel:
            seconds = min(seconds, max(0.001, (until - self.now_ms()) / 1000))
        deadline = self._clock.seconds() + seconds
        context = msgspec.structs.replace(
            current_context(), key=scope, cancel=cancel, attempt=attempt, deadline=deadline
        )
        with _entered(context, keyed):
            result = step._function(*step._args, **step._kwargs)
            return await result if isinstance(result, Awaitable) else result

    async def _until(self, action: Action, place: Place, begun: Entry | None, seconds: float) -> int:
        """The moment, in milliseconds of the wall clock, that is so many seconds after it was begun."""
        if begun is not None:
            return int(msgspec.json.decode(begun.result))
        until = self.now_ms() + int(seconds * 1000)
        await self._note(action, place, until)
        return until

    async def _note(self, action: Action, place: Place, moment: int) -> None:
        """Write down that it has begun, and a moment that matters to it, in milliseconds."""
        self._keep(Entry(place, 0, action.kind, action.asked(), BEGUN, msgspec.json.encode(moment)))
        await self._flush()

    def _keep(self, entry: Entry) -> Entry:
        """Give it its number; it is written before anything else is done."""
        entry = msgspec.structs.replace(entry, number=self._next_number())
        self._journal[entry.place] = entry
        self.unwritten.append(entry)
        return entry

    def take_unwritten(self) -> list[Entry]:
        """What is to be written by whoever takes it."""
        taken, self.unwritten = self.unwritten, []
        return taken

    async def _surely(self, place: Place, work: Callable[[], Awaitable[Any]]) -> None:
        """Returns when that is done, as often as it takes."""
        attempt = 0
        while True:
            attempt += 1
            try:
                await work()
            except Unavailable as error:
                _log.warn("saga.step.again {place} of {id}: {error!r}", place=str(place), id=self.id, error=error)
                await self._pause(self.root, delay(LADDER, attempt, self._random.random()), None)
            except RopewalkError as error:
                raise Parked(f"{place}: {type_and_text(error)}") from error
            else:
                return

    async def _flush(self) -> None:
        """Returns when all that was done is written down; as often as it takes. Raises Lost."""
        async with self._writing:
            written = self.take_unwritten()
            attempt = 0
            while written:
                attempt += 1
                try:
                    await self._database.batched(journal.write, Written(self.claim, written, self._version))
                except journal.Fenced as fenced:
                    raise Lost(self.id) from fenced
                except RopewalkError as error:
                    _log.warn("saga.journal.again {id}: {error!r}", id=self.id, error=error)
                    await self._pause(self.root, delay(LADDER, attempt, self._random.random()), None)
                else:
                    return

    async def _pause(self, branch: Branch, seconds: float, until: int | None) -> None:
        """Until another try: no longer than until time is up, if it is not yet, and at once when it is given up."""
        left = (until - self.now_ms()) / 1000 if until is not None else 0.0
        if left > 0 and not branch.given_up:
            seconds = min(seconds, left)
        before = branch.given_up
        with self._bells.listening() as bell:
            while await bell.wait(seconds):
                if branch.given_up and not before:
                    return

    async def _idle(self, place: Place, seconds: float | None, until: int | None, what: str = "") -> None:
        """Until something is told, or so many seconds; the saga may be put away meanwhile."""
        self.idle[place] = Idle(until, what or str(place))
        self._working -= 1
        try:
            with self._bells.listening() as bell:
                if not self._working:
                    self.settled()
                await bell.wait(seconds)
        finally:
            self._working += 1
            del self.idle[place]

    def told(self, signals: Sequence[tuple[str, bytes]] | None, cancelled: bool) -> None:
        """What it was told by now; None when nobody has looked."""
        if signals is not None and len(signals) != len(self.signals):
            self.signals = signals
            self.poke()
        if cancelled and not self.claim.cancel:
            self.claim = msgspec.structs.replace(self.claim, cancel=True)
            self.root.give_up()
            self.poke()

    def poke(self) -> None:
        """Something was told, or given up: who waits looks again."""
        self._bells.ring()

    @property
    def waits_only(self) -> bool:
        """Whether all that is under way waits for time or a signal."""
        return bool(self.idle) and not self._working

    def _signal(self, name: str) -> bytes | None:
        values = [value for told, value in self.signals if told == name]
        if len(values) <= self._taken[name]:
            return None
        self._taken[name] += 1
        return values[self._taken[name] - 1]

    # -- the journal

    def _current(self) -> Branch:
        return _branch.get(self.root)

    def _inner(self, parent: Branch, what: str, branches: tuple[Awaitable[Any], ...]) -> list[Branch]:
        if parent.busy:
            raise RuntimeError(f"{self.claim.saga}: {what} was begun while {parent.busy!r} is under way.")
        if not branches:
            raise ValueError(f"flow.{what}: expected steps or coroutines, got none.")
        use = parent.next(what).use
        return [parent.inner(f"{what}:{use}", index) for index in range(len(branches))]

    def _compare(self, entry: Entry, action: Action) -> None:
        if entry.kind != action.kind or entry.arguments != action.asked():
            how = f"is a {action.kind} now and was a {entry.kind}"
            if entry.kind == action.kind:
                how = "is given something else than it was"
            raise Parked(
                f"{entry.place} {how}: the code was changed under a running saga, or goes by what is not in the "
                "journal. Deploy the earlier code, or let the change ask `if flow.changed(...)`."
            )

    def _consume(self, entry: Entry) -> None:
        if entry.place not in self._consumed:
            self._consumed.add(entry.place)
            self._left[entry.place.branch] -= 1

    def _is_left(self, entry: Entry, path: str) -> bool:
        return entry.place.branch == path and entry.place not in self._consumed and not _apart(entry)

    def _next_number(self) -> int:
        self._number += 1
        return self._number


def run_body(flow: Flow, method: Callable[..., Coroutine[Any, Any, Any]], arguments: dict[str, Any]) -> Awaitable[Any]:
    """The saga's own code, in which nothing but `flow` may be used."""
    enter_key(Outside(flow.claim.saga))
    _branch.set(flow.root)
    return method(flow, **arguments)


@contextmanager
def _entered(context: Any, keyed: Keyed) -> Iterator[None]:
    token, key = enter_context(context), enter_key(keyed)
    try:
        yield
    finally:
        keyed.over = True
        leave_key(key)
        leave_context(token)


def type_and_text(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"


def _is_error(result: Any) -> bool:
    return isinstance(result, RopewalkError)


_NOTHING = type(None)


def _apart(entry: Entry) -> bool:
    """Whether the code need not come by it to go on."""
    return entry.kind == "changed" or entry.place.step.startswith(UNDO)


def _name_of(function: Any, operation: Operation | None) -> str:
    """What a step is called by itself: the id of an operation, also of one's own; else the function's name."""
    if operation is not None:
        return operation.id
    owner = type(getattr(function, "__self__", None))
    if issubclass(owner, Service):
        operation = describe(owner).operations.get(name_of(function))
    return operation.id if operation is not None else name_of(function)


def _operation_of(function: Any) -> Operation | None:
    owner: Any = type(getattr(function, "__self__", None))
    if not issubclass(owner, Sibling):
        return None
    return describe(owner._contract).operations.get(function.__name__)


def _digest(name: str, args: Any, kwargs: Any) -> str:
    try:
        return digest(msgspec.json.encode([args, kwargs], order="deterministic").decode())
    except TypeError as error:
        raise TypeError(f"{name}: what a step is given stands in the journal, as JSON: {error}.") from error


def _returns(function: Any, recorded: str) -> Any:
    """The type of what a function returns: as it says, else as the value that was recorded was."""
    while isinstance(function, partial):
        function = function.func
    try:
        returns = _hinted(getattr(function, "__func__", function))
    except (NameError, TypeError, AttributeError):
        returns = None
    if returns is not None and getattr(typing.get_origin(returns), "__name__", "") not in ("Deferred", "Awaitable"):
        return Any if returns is type(None) else returns
    module, _, name = recorded.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else Any


@lru_cache(maxsize=1024)  # functions; reading one's hints costs more than the rest of a step
def _hinted(function: Any) -> Any:
    return typing.get_type_hints(function).get("return")


def _type_name(value: Any) -> str:
    if value is None:
        return ""
    return f"{type(value).__module__}:{type(value).__qualname__}"
