"""What a saga can do: a step, a transaction, a sleep, a wait for a signal, another saga; and the branch it does it in.

Each kind is a class that knows how it is done, what is written down of it, and how that is read again. When it is done,
and whether at all, is the flow's.
"""

from __future__ import annotations

import sys
import typing
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ..codec.problem import from_problem, to_problem
from ..context import digest
from ..durable import Saga
from ..errors import DeadlineExceeded, KeyCancelled, RopewalkError
from ..operation import Operation
from ..policy.backoff import delay
from ..policy.steps import FAULTS, LADDER, outcome
from ..service import Service, describe
from ..sibling import Sibling
from ..store.records import name_of
from ..store.started import add_all, named, nested_id
from . import journal
from .journal import COMPLETED, ENDED, Ended, Entry, Place

if TYPE_CHECKING:
    from .flow import Flow

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


class Called(Action):
    """What a function does: known again by its name and what that is given."""

    def __init__(
        self,
        flow: Flow,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        undo: Callable[..., Any] | None,
    ) -> None:
        if name == "<lambda>":
            raise TypeError(f"flow.{self.kind}: a lambda has no name that stays; say `name=`.")
        super().__init__(flow, name)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.undo = undo
        self._asked = _digest(name, args, kwargs)

    def asked(self) -> str:
        return self._asked


class Step(Called):
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
        super().__init__(flow, name or _name_of(function, self._operation), function, args, kwargs, undo)
        self._timeout = timeout

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


class Commit(Called):
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
        super().__init__(flow, name or name_of(function), function, args, kwargs, undo)

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


def type_and_text(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"


_NOTHING = type(None)


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
