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
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..bell import Bells
from ..context import Keyed, Outside, current_context, digest, enter_context, enter_key, leave_context, leave_key
from ..errors import RopewalkError, Unavailable
from ..policy.backoff import delay
from ..policy.deadline import DEFAULT_TIMEOUT
from ..policy.steps import LADDER
from ..store import Database
from ..store.started import saga_named
from . import journal
from .actions import UNDO, Action, Branch, Commit, Lost, Nested, Parked, Sleep, Step, Trying, Wait, type_and_text
from .journal import BEGUN, Claim, Entry, Place, Written

_log = Logger("ropewalk.sagas")
_branch: contextvars.ContextVar[Branch] = contextvars.ContextVar("ropewalk_saga_branch")


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


def _is_error(result: Any) -> bool:
    return isinstance(result, RopewalkError)


def _apart(entry: Entry) -> bool:
    """Whether the code need not come by it to go on."""
    return entry.kind == "changed" or entry.place.step.startswith(UNDO)
