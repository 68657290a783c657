"""Fake siblings for unit tests: they answer what they are told, and only what the real one could.

`fake(Payments, charge=Charge(...))` is given to a service class in the place of the client of a sibling. Between it and
the test lies all that lies between two services of one process: arguments and answers are encoded and decoded by their
declared types, errors cross as problems. Contents: `fake`; what an operation answers (also for `scripted.py`); a
service class whose operations are played (likewise).
"""

from __future__ import annotations

import copy
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from random import Random
from reprlib import Repr
from typing import Any, Literal, cast

import msgspec

from ..codec.parameters import spelt
from ..dispatch import dispatch
from ..driver import Driver
from ..errors import RopewalkError
from ..memory.connection import LocalConnection
from ..message import Request, Response, Stream
from ..operation import Operation
from ..service import Contract, Service, describe
from ..sibling import client_of
from .examples import example

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
