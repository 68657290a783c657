"""What a service declares beside its operations: subscriptions to events, sagas, and work that is done at times.

`subscribe`, `saga`, `every` and `at` note a declaration; when the class is made, each becomes one of the values below,
and whatever is wrong with it is a DeclarationError. A subscription and a scheduled piece of work are operations that
nobody calls: an Operation without a route, which a key makes happen once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Struct
from msgspec import inspect as types_of

from .codec.parameters import spelt
from .errors import DeclarationError, RopewalkError
from .event import Event
from .operation import Declaration, Operation, noting

F = TypeVar("F", bound=Callable[..., Any])
OnPoison = Literal["park", "skip"]


class Delivery(Struct, frozen=True):
    """How the events of one subscription are delivered."""

    event: type[Event]
    at_once: int = 16  # handled at the same time by one process; of one key, one at a time
    attempts: int = 10  # of one event, until it is a dead letter: with waits that double, under two minutes
    on_poison: OnPoison = "park"
    from_start: bool = False


class Timing(Struct, frozen=True):
    """When a piece of work is done: every so many seconds, or at the minutes a cron expression names."""

    seconds: float | None = None
    cron: str = ""

    def due(self, now: float) -> float:
        """The latest moment at or before `now` at which it was due; seconds since 1970."""
        if self.seconds is not None:
            return now - now % self.seconds
        moment = datetime.fromtimestamp(now, UTC)
        if moment.second or moment.microsecond or not _matches(self.cron, moment):
            return next(CronSim(self.cron, moment, reverse=True)).timestamp()
        return now

    def after(self, now: float) -> float:
        """The first moment after `now` at which it is due."""
        if self.seconds is not None:
            return self.due(now) + self.seconds
        return next(CronSim(self.cron, datetime.fromtimestamp(now, UTC))).timestamp()

    def __str__(self) -> str:
        return self.cron or f"every {self.seconds:g} s"


class Subscription(Struct, frozen=True):
    """An operation that is called with each event of a topic."""

    operation: Operation
    delivery: Delivery
    parameter: str  # which takes the event

    @property
    def group(self) -> str:
        """What brokers know it by: "reservations.confirm"."""
        return self.operation.id


class Scheduled(Struct, frozen=True):
    """An operation that is done at times, by one instance."""

    operation: Operation
    timing: Timing


class Saga:
    """A durable sequence of steps, as declared: its permanent name, its arguments, its result."""

    def __init__(
        self, service: str, name: str, function: Callable[..., Any], declared: Declaration, hints: Mapping[str, Any]
    ) -> None:
        where = f"{service}.{name}"
        if not inspect.iscoroutinefunction(function):
            raise DeclarationError(f"{where}: a saga is `async def {name}(self, flow: Flow, ...)`.")
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if not parameters or getattr(hints.get(parameters[0].name), "__name__", "") != "Flow":
            raise DeclarationError(f"{where}: a saga's first parameter is its flow: `{name}(self, flow: Flow, ...)`.")
        if "return" not in hints:
            raise DeclarationError(f"{where}: what a saga comes to is kept; add `-> None` or the result's type.")
        fields: list[Any] = []
        for parameter in parameters[1:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise DeclarationError(f"{where}: '{parameter.name}' is kept by its name: no `*`, `**` or `/`.")
            if parameter.name not in hints:
                raise DeclarationError(f"{where}: '{parameter.name}' is kept by its type; say which: `: str`.")
            default = () if parameter.default is parameter.empty else (parameter.default,)
            fields.append((parameter.name, hints[parameter.name], *default))
        returns = type(None) if hints["return"] is None else hints["return"]
        try:
            types_of.type_info(returns)
            self._result = msgspec.json.Decoder(returns)
            self._arguments: Any = msgspec.defstruct("Arguments", fields, kw_only=True)
            self._decoder = msgspec.json.Decoder(self._arguments)
        except TypeError as error:
            raise DeclarationError(
                f"{where}: what a saga is given and comes to is kept as JSON ({error}); use msgspec types."
            ) from error
        self.service = service
        self.name = name  # of the method
        self.id = where
        self.aliases = declared.aliases
        self.returns = returns
        self.signature = inspect.Signature(parameters[1:])

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments as they are kept; raises TypeError for what the saga does not take."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.id}: {error}; it takes {self.signature}.") from None
        data = msgspec.json.encode(self._arguments(**bound.arguments), order="deterministic")
        try:
            self._decoder.decode(data)
        except msgspec.DecodeError as error:
            raise TypeError(
                f"{self.id}: its arguments are kept by type, {self.signature}, and would not be: {error}."
            ) from error
        return data

    def decode(self, arguments: bytes) -> dict[str, Any]:
        """The arguments by name, as its types have them now; raises msgspec.DecodeError for those of other types."""
        return msgspec.structs.asdict(self._decoder.decode(arguments))

    def decode_result(self, result: bytes) -> Any:
        """What it came to."""
        return self._result.decode(result)

    def encode_result(self, value: Any) -> bytes:
        """What it came to, as it is kept; raises TypeError for what is not of the declared type."""
        data = msgspec.json.encode(value)
        try:
            self._result.decode(data)
        except msgspec.DecodeError as error:
            raise TypeError(f"{self.id} says that it returns {spelt(self.returns)}: {error}.") from error
        return data

    def __repr__(self) -> str:
        return f"<Saga {self.id}{self.signature}>"


# -- declaring


def subscribe(
    event: type[Event],
    *,
    at_once: int = 16,
    attempts: int = 10,
    on_poison: OnPoison = "park",
    from_start: bool = False,
    raises: tuple[type[RopewalkError], ...] = (),
    aliases: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare that a method is called with each `event`: once in effect, in order for each key, at least once in all.

    `at_once`: events handled at the same time by one process. What fails is tried again, `attempts` times in all; then
    it is a dead letter, and the later events of its key wait behind it until it is replayed or dropped; with
    `on_poison="skip"` they do not wait, and order is given up. `from_start`: begin with what the broker still has.
    """
    if not (isinstance(event, type) and issubclass(event, Event) and event is not Event):
        raise DeclarationError(f"@subscribe needs the event: `@subscribe(RoomHeld)`; got {event!r}.")
    if on_poison not in ("park", "skip"):
        raise DeclarationError(f'@subscribe({event.__name__}): on_poison is "park" or "skip"; got {on_poison!r}.')
    for name, number in (("at_once", at_once), ("attempts", attempts)):
        if not isinstance(number, int) or number < 1:
            raise DeclarationError(f"@subscribe({event.__name__}): {name} is a number from 1; got {number!r}.")
    delivery = Delivery(event, at_once, attempts, on_poison, from_start)
    return noting(Declaration(None, None, raises=tuple(raises), idempotent=True, aliases=aliases, delivery=delivery))


def saga(function: F | None = None, *, aliases: tuple[str, ...] = ()) -> Any:
    """Declare a saga: `async def book(self, flow: Flow, order: Order) -> Confirmation`.

    Its name, "reservations.book", is permanent: `aliases` are earlier ones, by which running sagas are still known.
    Used with or without parentheses.
    """
    declaration = Declaration(None, None, aliases=aliases, saga=True)
    return noting(declaration)(function) if function is not None else noting(declaration)


def every(when: float | str, *, raises: tuple[type[RopewalkError], ...] = ()) -> Callable[[F], F]:
    """Declare that a method is called every `when` seconds, or at the minutes of a cron expression, in UTC.

    One instance does it, whichever it is. Moments missed while nothing ran are made up for once.
    """
    if isinstance(when, (int, float)) and not isinstance(when, bool):
        if not when >= 1:
            raise DeclarationError(f"@every({when!r}): expected 1 second or more.")
        timing = Timing(seconds=float(when))
    else:
        timing = Timing(cron=_checked("every", when))
    return noting(Declaration(None, None, raises=tuple(raises), idempotent=True, schedule=timing))


def at(when: str, *, raises: tuple[type[RopewalkError], ...] = ()) -> Callable[[F], F]:
    """Declare that a method is called at a time of each day, "03:30", or of a cron expression, in UTC; as `every`."""
    hour, colon, minute = when.partition(":") if isinstance(when, str) else ("", "", "")
    if colon and hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60:
        when = f"{int(minute)} {int(hour)} * * *"
    return noting(
        Declaration(None, None, raises=tuple(raises), idempotent=True, schedule=Timing(cron=_checked("at", when)))
    )


def _checked(decorator: str, cron: Any) -> str:
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, AttributeError, TypeError) as error:
        example = '"03:30"' if decorator == "at" else '30, or "*/5 * * * *"'
        raise DeclarationError(f"@{decorator}({cron!r}): expected a time like {example} ({error}).") from None
    return str(cron)


def _matches(cron: str, moment: datetime) -> bool:
    return next(CronSim(cron, datetime.fromtimestamp(moment.timestamp() - 1, UTC))) == moment


# -- compiling


def subscription(operation: Operation, declared: Declaration) -> Subscription:
    """Of an operation declared with `subscribe`."""
    delivery: Delivery = declared.delivery
    taken = [p for p in operation.binding.parameters if p.source != "given"]
    if [p.type for p in taken] != [delivery.event]:
        raise DeclarationError(
            f"{operation.id}: a subscription takes its event and what is given: "
            f"`async def {operation.name}(self, event: {delivery.event.__name__}) -> None`."
        )
    if operation.returns is not type(None):
        raise DeclarationError(f"{operation.id}: nobody hears what a subscription returns; say `-> None`.")
    return Subscription(operation, delivery, taken[0].name)


def scheduled(operation: Operation, declared: Declaration) -> Scheduled:
    """Of an operation declared with `every` or `at`."""
    if [p for p in operation.binding.parameters if p.source != "given"]:
        raise DeclarationError(
            f"{operation.id}: what is done at times takes nothing: `async def {operation.name}(self)`."
        )
    return Scheduled(operation, declared.schedule)
