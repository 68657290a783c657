"""Fake siblings for unit tests: they answer what they are told, and only what the real one could.

`fake(Payments, charge=Charge(...))` is given to a service class in the place of the client of a sibling. Between it and
the test lies all that lies between two services of one process: arguments and answers are encoded and decoded by their
declared types, errors cross as problems. Contents: `fake`; what an operation answers (also for `scripted.py`); a
service class whose operations are played (likewise); `example`, a value of a type drawn by chance.
"""

from __future__ import annotations

import copy
import inspect
import math
import string
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from random import Random
from reprlib import Repr
from typing import Any, Literal, cast
from uuid import UUID

import msgspec
from msgspec import inspect as types_of

from ..codec.parameters import spelt
from ..driver import Driver
from ..errors import RopewalkError
from ..memory.connection import LocalConnection
from ..message import Request, Response, Stream
from ..operation import Operation
from ..service import Contract, Service, client_of, describe, dispatch

LIMIT_CALLS = 100_000  # more than a unit test makes; a loop that asks for ever is told so
Play = Callable[[Operation, dict[str, Any]], Awaitable[Any]]
"""What answers a call: `await play(operation, arguments)`; the arguments by name, defaults filled in."""


def fake(
    contract: type[Contract],
    /,
    *,
    answers: Literal["any"] | None = None,
    random: Random | None = None,
    **operations: Any,
) -> Any:
    """A client of `contract` that answers what each keyword, the name of an operation, says. `.calls` is what it heard.

    An answer is a value, an exception (raised), a function (called with the arguments it takes by name; sync or async;
    it returns a value or raises) or a list of these, one for each call; an answer that is itself a list goes into one,
    or is written as a tuple. A stream is answered by a tuple of its pieces, or an async iterator. `answers="any"` draws
    from `random` what no keyword says.

    Raises TypeError, now or at the call, for what the operation cannot answer, and for a wrong call; AssertionError
    when an operation is called that nobody gave an answer for.

    >>> from msgspec import Struct
    >>> from ropewalk import Conflict, Contract, post
    >>> class PaymentDeclined(Conflict): "Raised when the card is declined."
    >>> class Charge(Struct, frozen=True): id: int
    >>> class Payments(Contract, name="payments"):
    ...     @post("/charges", raises=(PaymentDeclined,))
    ...     async def charge(self, amount: int) -> Charge: ...
    >>> async def paid(payments, amount):
    ...     try:
    ...         return (await payments.charge(amount)).id
    ...     except PaymentDeclined:
    ...         return None
    >>> payments = fake(Payments, charge=[Charge(id=7), PaymentDeclined("no")])
    >>> Driver.of().run(paid(payments, 5)).result, Driver.of().run(paid(payments, 6)).result
    (7, None)
    >>> payments.calls
    [('charge', {'amount': 5}), ('charge', {'amount': 6})]
    >>> fake(Payments, charge=7)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ropewalk.testing.fakes.WrongAnswer: payments.charge answers Charge, and was told to answer 7 (int): ...
    """
    if answers not in (None, "any") or (answers == "any") != isinstance(random, Random):
        raise TypeError('Drawn answers take both: fake(Payments, answers="any", random=Random(1)).')
    service: Any = _fake_class(contract)()
    told: dict[str, Answers] = {}
    for name, operation in describe(contract).operations.items():
        if name in operations:
            told[name] = Answers(_callable_by_siblings(operation), operations[name])
        elif answers == "any":
            told[name] = Answers(operation, _drawn(operation, cast(Random, random)))
    unknown = operations.keys() - told.keys()
    if unknown:
        raise TypeError(no_operation(contract, min(unknown)))
    calls: list[tuple[str, dict[str, Any]]] = []

    async def play(operation: Operation, arguments: dict[str, Any]) -> Any:
        calls.append((operation.name, arguments))
        return await told[operation.name].next(arguments)

    service._play = play
    client = client_of(contract, _handler(service, told, calls), "a test")
    if "calls" not in describe(contract).operations:
        client.calls = calls
    return client


def _fake_class(contract: type[Contract]) -> type[Service]:
    """The played class, kept by its contract: to make one takes milliseconds, and many tests fake one sibling."""
    cls = vars(contract).get("__ropewalk_fake__") if isinstance(contract, type) else None
    if cls is None:
        cls = contract.__ropewalk_fake__ = playing(contract)  # type: ignore[attr-defined]
    return cast(type[Service], cls)


def _callable_by_siblings(operation: Operation) -> Operation:
    if operation.binding.http_only:
        raise TypeError(f"{operation.id} takes what only HTTP can bring: no sibling calls it, so no fake answers it.")
    return operation


def _handler(
    service: Service, told: Mapping[str, Answers], calls: Sequence[Any]
) -> Callable[[Request], Awaitable[Response]]:
    """The client's handler: a connection to a service that is played. What the test did wrong goes straight to it."""
    connection = LocalConnection("a test", describe(service), dispatch(service))

    async def handle(request: Request) -> Response:
        operation = cast(Operation, request.operation)
        if operation.name not in told:
            raise AssertionError(
                f"{operation.id} was called, and nobody said what it answers: fake(..., {operation.name}=...)."
            )
        told[operation.name].check_left()
        if len(calls) >= LIMIT_CALLS:
            raise AssertionError(f"{operation.id}: this fake was called {LIMIT_CALLS} times; is there a loop?")
        try:
            return await connection(request)
        except RopewalkError as error:
            mistake = error.__cause__
            if isinstance(mistake, (AssertionError, WrongAnswer)):
                raise mistake from None
            raise

    return handle


# -- what an operation answers


class WrongAnswer(TypeError):
    """Raised when an operation is told to answer what it cannot."""


class Answers:
    """What one operation was told to answer: the same each time, or one after the other."""

    def __init__(self, operation: Operation, answer: Any) -> None:
        """Raises WrongAnswer for what is seen to be wrong already."""
        self._operation = operation
        self._always = answer
        self._left = deque(answer) if isinstance(answer, list) else None
        self._count = len(answer) if isinstance(answer, list) else 0
        for each in answer if isinstance(answer, list) else [answer]:
            self._check(each)

    def _check(self, answer: Any) -> None:
        if _is_error(answer):
            return
        if callable(answer):
            _taken(self._operation, answer)
            return
        try:
            checked(self._operation, answer)
        except WrongAnswer as error:
            if self._left is None:
                raise
            raise WrongAnswer(
                f"{error} A list is a sequence of answers, one for each call; to answer a list, write [[...]] or (...)."
            ) from error

    def check_left(self) -> None:
        """Raises AssertionError when every answer was given."""
        if self._left is not None and not self._left:
            raise AssertionError(
                f"{self._operation.id} was called {self._count + 1} times, and told to answer {self._count}."
            )

    async def next(self, arguments: Mapping[str, Any]) -> Any:
        """What to return from this call; raises what it was told to raise."""
        self.check_left()
        answer = self._left.popleft() if self._left is not None else self._always
        if _is_error(answer):
            raise raised(answer)
        if callable(answer):
            taken = _taken(self._operation, answer)
            answer = answer(**{name: value for name, value in arguments.items() if name in taken})
            if inspect.isawaitable(answer):
                answer = await answer
        return checked(self._operation, answer)


def checked(operation: Operation, value: Any) -> Any:
    """`value`, which `operation` can answer, ready to be returned; raises WrongAnswer for any other."""
    response = value if type(value) is Response else Response(value, operation.status)
    if isinstance(response.body, Stream):
        return value
    if operation.streams:
        return _streamed(operation, value)
    body = response.body
    if not operation.raw and operation.returns is type(None) and body is not None:
        raise _wrong(operation, value, "Expected nothing.")
    if not operation.raw and operation.returns is bytes and not isinstance(body, (bytes, bytearray)):
        raise _wrong(operation, value, "Expected bytes.")
    try:
        headers, data = operation.sent(response)
        operation.received(response.status, headers, data)
    except (RopewalkError, TypeError, ValueError, RecursionError) as error:
        raise _wrong(operation, value, f"{error.__cause__ or error}.") from error
    return value


def raised(error: Any) -> BaseException:
    """The error to raise for one that was told, once more each time: what crosses a call is changed by it."""
    if isinstance(error, type):
        return cast(BaseException, error())
    return copy.copy(error) if isinstance(error, RopewalkError) else cast(BaseException, error.with_traceback(None))


def no_operation(contract: type[Contract], name: str) -> str:
    """What is said of an operation that is not there."""
    there = ", ".join(describe(contract).operations) or "none"
    return f"'{name}' is not an operation of {describe(contract).name}; its operations: {there}."


def _is_error(answer: Any) -> bool:
    return isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException))


def _taken(operation: Operation, function: Callable[..., Any]) -> frozenset[str]:
    """The names of arguments that `function` takes; raises WrongAnswer when it cannot be called with a call's."""
    names = operation.binding.names
    needed = {p.name for p in operation.binding.parameters if p.required and p.source != "given"}
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = frozenset(names)
    else:
        taken = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    asked = {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not (needed <= taken and asked <= set(names)):
        raise WrongAnswer(
            f"{operation.id} is called with {', '.join(names) or 'nothing'}, by name; the function that answers it "
            f"takes {', '.join(p.name for p in parameters) or 'nothing'}."
        )
    return taken & frozenset(names)


def _streamed(operation: Operation, value: Any) -> Any:
    if isinstance(value, AsyncIterable):
        return value
    if not isinstance(value, tuple):
        raise _wrong(operation, value, "Expected a tuple of its pieces, an async iterator or a Stream.")
    for piece in value:
        if operation.item is bytes:
            if not isinstance(piece, (bytes, bytearray)):
                raise _wrong(operation, piece, "Expected pieces of bytes.")
            continue
        try:
            operation.decode_item(msgspec.json.encode(piece))
        except (RopewalkError, TypeError, ValueError, RecursionError) as error:
            raise _wrong(operation, piece, f"{error.__cause__ or error}.") from error
    return _pieces(value)


async def _pieces(pieces: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


def _wrong(operation: Operation, value: Any, why: str) -> WrongAnswer:
    kind = type(value).__name__
    return WrongAnswer(
        f"{operation.id} answers {spelt(operation.returns)}, and was told to answer {_short(value)} ({kind}): {why}"
    )


_brief = Repr()
_brief.maxother = _brief.maxstring = 120
_short = _brief.repr


def _drawn(operation: Operation, random: Random) -> Callable[..., Any]:
    """A function that answers a drawn value of the declared type."""

    def draw(**_: Any) -> Any:
        try:
            if operation.streams:
                return tuple([example(operation.item, random) for _ in range(random.randint(0, 3))])
            return Response() if operation.raw else example(operation.returns, random)
        except TypeError as error:
            raise WrongAnswer(
                f"{operation.id}: {error} Say what it answers: fake(..., {operation.name}=...)."
            ) from error

    return draw


# -- a service class whose operations are played


def playing(contract: type[Contract], play: Play | None = None, prefix: str = "Fake") -> type[Service]:
    """A Service that keeps `contract` (if that is a Service, a subclass of it) and hands every call to `play`.

    Without `play`, each instance is to be given one as its `_play`. Its `__init__` needs nothing; the rest of a Service
    that `contract` brings (`app`, mounts, tables, `start`, `stop`) is left out.
    """
    if not (isinstance(contract, type) and issubclass(contract, Contract) and contract not in (Contract, Service)):
        raise TypeError(f"What is played is a Contract or Service class; got {contract!r}.")
    description = describe(contract)
    members: dict[str, Any] = dict.fromkeys(mount.method for mount in description.mounts)
    members |= {name: None for name in ("app", "tables", "error_page", "start", "stop") if hasattr(contract, name)}
    for name, operation in description.operations.items():
        members[name] = _method(operation, inspect.getattr_static(contract, name))
    members |= {"_play": staticmethod(play)} if play is not None else {}
    members |= {"__init__": _nothing, "__module__": contract.__module__, "__doc__": contract.__doc__}
    bases = (contract,) if issubclass(contract, Service) else (contract, Service)
    return cast(type[Service], type(f"{prefix}{contract.__name__}", bases, members))


def _nothing(self: Any) -> None:
    """Needs nothing."""


def _method(operation: Operation, declared: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the kind, name and signature of `declared`; types and declaration are inherited by its name."""
    signature = inspect.signature(declared)

    def called(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        names = operation.binding.names
        arguments = {name: value for name, value in bound.arguments.items() if name in names}
        return cast(Awaitable[Any], self._play(operation, arguments))

    async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await called(self, *args, **kwargs)

    def deferred(self: Any, *args: Any, **kwargs: Any) -> Any:
        return Driver.of().run(called(self, *args, **kwargs))

    async def iterated(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        answer = await called(self, *args, **kwargs)
        answer = answer.body if isinstance(answer, Response) else answer
        async for piece in answer.iterator if isinstance(answer, Stream) else answer:
            yield piece

    method: Any = awaited if inspect.iscoroutinefunction(declared) else iterated if operation.generates else deferred
    method.__name__ = operation.name
    method.__qualname__ = declared.__qualname__
    method.__doc__ = declared.__doc__
    method.__signature__ = signature
    method.__annotations__ = {}  # all said by `declared`: a class's operation has the types of the one it overrides
    return cast(Callable[..., Any], method)


# -- values drawn by chance

_TRIES = 100  # draws until the constraints hold, those that only the type itself knows included
_DEEP = 4  # nested so far, what may be left out is left out: a type may hold itself
_LETTERS = string.ascii_lowercase
_PRINTABLE = string.ascii_letters + string.digits + " -_.,:"
_SPAN = 1000  # the width of a range that is open


def example(type: Any, random: Random) -> Any:
    """A value of `type`, any that an operation may declare; what `Meta` says of it holds.

    Raises TypeError for a type without values to draw (a custom class), or whose constraints no draw has met.

    >>> from typing import Annotated
    >>> from msgspec import Meta
    >>> example(Annotated[str, Meta(pattern="^[A-Z][0-9]{2}$")], Random(3))
    'H59'
    >>> example(dict[date, Annotated[int, Meta(ge=1, le=3)]], Random(3))
    {datetime.date(2026, 2, 7): 3}
    """
    info = types_of.type_info(type)
    why: Exception | None = None
    for _ in range(_TRIES):
        try:
            return msgspec.convert(_draw(info, random, 0), type)
        except msgspec.ValidationError as error:
            why = error
    raise TypeError(f"No draw of {_TRIES} was a {spelt(type)}: {why}.") from why


def _draw(info: types_of.Type, random: Random, depth: int) -> Any:
    """A value that converts to the type, or nearly always does."""
    if isinstance(info, types_of.Metadata):
        return _draw(info.type, random, depth)
    draw = _DRAWN.get(type(info))
    if draw is None:
        kind = getattr(info, "cls", None) or type(info)
        raise TypeError(f"There is no example of {spelt(kind)}.")
    return draw(info, random, depth)


def _integer(info: types_of.IntType, random: Random, depth: int) -> int:
    low = info.ge if info.ge is not None else info.gt + 1 if info.gt is not None else None
    high = info.le if info.le is not None else info.lt - 1 if info.lt is not None else None
    step = info.multiple_of or 1
    first, last = _range(low, high, _SPAN * step)
    least, most = math.ceil(first / step), math.floor(last / step)
    if least > most:
        raise TypeError(f"No int is between {first} and {last} and a multiple of {step}.")
    return random.randint(least, most) * step


def _float(info: types_of.FloatType, random: Random, depth: int) -> float:
    low, high = info.ge if info.ge is not None else info.gt, info.le if info.le is not None else info.lt
    step = info.multiple_of
    first, last = _range(low, high, _SPAN * (step or 1))
    if step:
        return random.randint(math.ceil(first / step), math.floor(last / step)) * step
    value = random.uniform(first, last)
    short = round(value, 2)
    return short if first < short < last else value


def _range(low: Any, high: Any, span: Any) -> tuple[Any, Any]:
    """From zero on where that is allowed."""
    if low is None:
        low = 0 if high is None or high >= 0 else high - span
    return low, low + span if high is None else high


def _text(info: types_of.StrType, random: Random, depth: int) -> str:
    if info.pattern is not None:
        parsed = import_module("re._parser").parse(info.pattern)  # as `re` itself reads it; it has no public name
        return _matching(parsed, random, {})
    return "".join(random.choices(_LETTERS, k=_length(info, random, 1, 12)))


def _bytes(info: Any, random: Random, depth: int) -> bytes:
    return random.randbytes(_length(info, random, 0, 12))


def _length(info: Any, random: Random, least: int, more: int) -> int:
    low = max(info.min_length or 0, least) if info.max_length is None else min(info.max_length, least)
    low = max(low, info.min_length or 0)
    high = low + more
    return random.randint(low, high if info.max_length is None else min(high, info.max_length))


def _date(info: Any, random: Random, depth: int) -> date:
    return date(2020, 1, 1) + timedelta(days=random.randrange(3650))


def _time(info: types_of.TimeType, random: Random, depth: int) -> time:
    return _instant(info, random, depth).timetz()


def _instant(info: Any, random: Random, depth: int) -> datetime:
    naive = datetime(2020, 1, 1) + timedelta(seconds=random.randrange(315_360_000))
    return naive if info.tz is False else naive.replace(tzinfo=UTC)


def _items(info: Any, random: Random, depth: int) -> list[Any]:
    count = _length(info, random, 0, 0 if depth > _DEEP else 3)
    if not isinstance(info, (types_of.SetType, types_of.FrozenSetType)):
        return [_draw(info.item_type, random, depth + 1) for _ in range(count)]
    different: list[Any] = []  # no set: what is drawn for a frozen Struct is a dict
    for _ in range(_TRIES):
        if len(different) == count:
            break
        drawn = _draw(info.item_type, random, depth + 1)
        if drawn not in different:
            different.append(drawn)
    return different


def _mapping(info: Any, random: Random, depth: int) -> dict[Any, Any]:
    count = _length(info, random, 0, 0 if depth > _DEEP else 3)
    drawn: dict[Any, Any] = {}
    for _ in range(_TRIES):
        if len(drawn) == count:
            break
        drawn[_draw(info.key_type, random, depth + 1)] = _draw(info.value_type, random, depth + 1)
    return drawn


def _struct(info: types_of.StructType, random: Random, depth: int) -> Any:
    if info.array_like:
        tag = [info.tag] if info.tag_field is not None else []
        return tag + [_draw(field.type, random, depth + 1) for field in info.fields]
    tagged = {info.tag_field: info.tag} if info.tag_field is not None else {}
    return tagged | _named(info, random, depth)


def _named(info: Any, random: Random, depth: int) -> dict[str, Any]:
    return {
        field.encode_name: _draw(field.type, random, depth + 1)
        for field in info.fields
        if field.required or depth <= _DEEP
    }


def _union(info: types_of.UnionType, random: Random, depth: int) -> Any:
    members = info.types
    if depth > _DEEP:
        members = tuple(each for each in members if not isinstance(each, _NESTING)) or members
        members = tuple(each for each in members if isinstance(each, types_of.NoneType)) or members
    return _draw(random.choice(members), random, depth)


_NESTING = (types_of.StructType, types_of.DataclassType, types_of.TypedDictType, types_of.NamedTupleType)

_DRAWN: dict[type, Callable[[Any, Random, int], Any]] = {
    types_of.AnyType: lambda info, random, depth: "".join(random.choices(_LETTERS, k=6)),
    types_of.NoneType: lambda info, random, depth: None,
    types_of.BoolType: lambda info, random, depth: random.random() < 0.5,
    types_of.IntType: _integer,
    types_of.FloatType: _float,
    types_of.StrType: _text,
    types_of.BytesType: _bytes,
    types_of.ByteArrayType: _bytes,
    types_of.DateType: _date,
    types_of.TimeType: _time,
    types_of.DateTimeType: _instant,
    types_of.TimeDeltaType: lambda info, random, depth: timedelta(seconds=random.randrange(86_400)),
    types_of.UUIDType: lambda info, random, depth: UUID(int=random.getrandbits(128), version=4),
    types_of.DecimalType: lambda info, random, depth: Decimal(random.randrange(100_000)) / 100,
    types_of.EnumType: lambda info, random, depth: random.choice(list(info.cls)).value,
    types_of.LiteralType: lambda info, random, depth: random.choice(info.values),
    types_of.UnionType: _union,
    types_of.ListType: _items,
    types_of.SetType: _items,
    types_of.FrozenSetType: _items,
    types_of.VarTupleType: _items,
    types_of.TupleType: lambda info, random, depth: [_draw(item, random, depth + 1) for item in info.item_types],
    types_of.DictType: _mapping,
    types_of.StructType: _struct,
    types_of.DataclassType: _named,
    types_of.TypedDictType: _named,
    types_of.NamedTupleType: lambda info, random, depth: [_draw(f.type, random, depth + 1) for f in info.fields],
}


def _matching(parsed: Any, random: Random, groups: dict[int, str]) -> str:
    """A text that a parsed pattern matches, but for what looks around; `groups`: those matched so far."""
    return "".join([_matched(str(op), argument, random, groups) for op, argument in parsed])


def _matched(op: str, argument: Any, random: Random, groups: dict[int, str]) -> str:
    match op:
        case "LITERAL":
            return chr(argument)
        case "ANY":
            return random.choice(_PRINTABLE)
        case "NOT_LITERAL":
            return random.choice(_printable_but(chr(argument)))
        case "IN":
            return random.choice(_of_class(argument))
        case "BRANCH":
            return _matching(random.choice(argument[1]), random, groups)
        case "SUBPATTERN":
            groups[argument[0]] = _matching(argument[3], random, groups)
            return groups[argument[0]]
        case "ATOMIC_GROUP":
            return _matching(argument, random, groups)
        case "GROUPREF":
            return groups.get(argument, "")
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = argument
            count = random.randint(least, min(int(most), least + 6))
            return "".join([_matching(inner, random, groups) for _ in range(count)])
        case _:  # anchors, and what looks around: the whole is checked by whoever draws
            return ""


_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
}


def _of_class(members: Sequence[tuple[Any, Any]]) -> str:
    """The characters of a class like [^a-z0-9_]; of a negated one those that can be printed."""
    found = ""
    for op, argument in members:
        match str(op):
            case "LITERAL":
                found += chr(argument)
            case "RANGE":
                found += "".join(map(chr, range(argument[0], min(argument[1], argument[0] + _SPAN) + 1)))
            case "CATEGORY":
                name = str(argument)
                inside = _CATEGORIES[name.replace("_NOT_", "_")]
                found += _printable_but(inside) if "_NOT_" in name else inside
    return _printable_but(found) if str(members[0][0]) == "NEGATE" else found


def _printable_but(these: str) -> str:
    return "".join(each for each in _PRINTABLE if each not in these)
