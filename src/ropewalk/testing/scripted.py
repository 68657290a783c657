"""A scripted sibling: a test says which calls it expects, and plays the sibling's part call by call.

Where a fake (`fakes.py`) is told its answers beforehand, a script lets the test look at a call while its caller waits,
hold it, and answer when it likes: between two transactions, after a crash, never. Its service class takes the place of
the real one in a World, in a process, or behind a `LocalConnection`. Everything here is a plain Deferred: any driver,
any reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..context import Context, current_context
from ..errors import TooManyRequests
from ..message import Principal, caller
from ..operation import Operation
from ..service import Contract, Service, describe
from .fakes import Answers, checked, no_operation, playing, raised

LIMIT = 1000  # calls that wait, expectations, and lines about what went wrong: more than anybody reads


class Played:
    """One call that came: what was asked, and the way to answer it."""

    def __init__(self, operation: Operation, arguments: Mapping[str, Any]) -> None:
        self.operation = operation.name
        self.arguments = arguments  # by name, as decoded, defaults filled in
        self.principal: Principal = caller()
        self.context: Context = current_context()
        self.given_up = False  # whether its caller no longer waits; an answer then is dropped
        self._declared = operation
        self._answered: Deferred[Any] = Deferred(self._give_up)

    def __repr__(self) -> str:
        state = "given up" if self.given_up else "answered" if self.answered else "waiting"
        return f"<Played {_call(self._declared, self.arguments)}, {state}>"

    @property
    def answered(self) -> bool:
        """Whether it has an answer or an error."""
        return self._answered.called and not self.given_up

    @property
    def waits(self) -> bool:
        """Whether its caller waits for an answer."""
        return not self._answered.called and not self.given_up

    def answer(self, value: Any = None) -> None:
        """Answer with a value or a Response; raises WrongAnswer (a TypeError) for what the operation cannot answer.

        Raises RuntimeError when the call was answered already.
        """
        self._once()
        value = checked(self._declared, value)
        if not self.given_up:
            self._answered.callback(value)

    def fail(self, error: BaseException) -> None:
        """Raise `error` from the call, an exception or a class of one."""
        self._once()
        if not self.given_up:
            self._answered.errback(Failure(raised(error)))

    def stand(self) -> None:
        """Let the standing answer be its answer."""
        if not self.given_up:
            self._answered.callback(_STANDING)

    async def outcome(self) -> Any:
        """What the service class returns or raises."""
        try:
            return await self._answered
        finally:
            self.given_up = (
                not self._answered.called or self.given_up
            )  # its host may be gone: nothing is cancelled then

    def _once(self) -> None:
        if self.answered:
            raise RuntimeError(f"{_call(self._declared, self.arguments)} was answered already.")

    def _give_up(self, _: Deferred[Any]) -> None:
        self.given_up = True


class _Expectation:
    def __init__(self, operation: Operation, arguments: Mapping[str, Any]) -> None:
        self.operation = operation
        self.arguments = arguments
        self.given_up = False
        self.met: Deferred[Played] = Deferred(self._give_up)

    def meets(self, played: Played) -> bool:
        """Whether that call is the one: of this operation, with these arguments and whatever others."""
        return (
            not self.given_up
            and self.operation.name == played.operation
            and all(_same(value, played.arguments.get(name, UNSET)) for name, value in self.arguments.items())
        )

    def _give_up(self, _: Deferred[Played]) -> None:
        self.given_up = True


class Script:
    """The part of one sibling, played by a test.

    >>> from ropewalk import Contract, post
    >>> from ropewalk.driver import Driver
    >>> from ropewalk.memory.connection import LocalConnection
    >>> from ropewalk.dispatch import dispatch
    >>> from ropewalk.sibling import client_of
    >>> class Payments(Contract, name="payments"):
    ...     @post("/charges")
    ...     async def charge(self, amount: int) -> str: ...
    >>> script = Script(Payments)
    >>> cls = script.service_class()
    >>> payments = client_of(Payments, LocalConnection("test", describe(cls), dispatch(cls())))
    >>> async def test():
    ...     receipt = payments.charge(5)
    ...     charge = await script.expect("charge", amount=5)
    ...     charge.answer("paid")
    ...     return charge.arguments, await receipt
    >>> Driver.of().run(test()).result
    ({'amount': 5}, 'paid')
    >>> _ = script.expect("charge", amount=6)
    >>> script.leftovers()
    ['expected payments.charge(amount=6): no such call came']
    """

    def __init__(self, contract: type[Contract]) -> None:
        """`contract`: a Contract, or a Service class, of which nothing but its operations is then left."""
        self._service = playing(contract, self._play, "Scripted")
        self._operations = describe(contract).operations
        self._contract = contract
        self._expected: list[_Expectation] = []
        self._waiting: list[Played] = []  # calls that nobody expected so far
        self._standing: dict[str, Answers] = {}
        self._unanswered: list[Played] = []  # what an expectation was given
        self._amiss: deque[str] = deque(maxlen=LIMIT)

    def __repr__(self) -> str:
        name = describe(self._contract).name
        return f"<Script of {name}: {len(self._expected)} expected, {len(self._waiting)} waiting>"

    def service_class(self) -> type[Service]:
        """The class to run in the sibling's place; all its instances play this script. Its `__init__` needs nothing."""
        return self._service

    def expect(self, operation: str, /, **arguments: Any) -> Deferred[Played]:
        """Fires with the first call of `operation` that nobody else expects and that has these arguments, now or later.

        `arguments`: some of the call's, equal to it; Structs are compared by their values. Raises TypeError for a name
        that the contract has not.
        """
        declared = self._operation(operation)
        names = declared.binding.names
        for name in arguments:
            if name not in names:
                raise TypeError(f"{declared.id} has no parameter '{name}'; it has: {', '.join(names) or 'none'}.")
        if len(self._expected) + len(self._unanswered) >= LIMIT:
            raise RuntimeError(f"{LIMIT} calls are expected already that did not come or were not answered.")
        expectation = _Expectation(declared, arguments)
        played = next((played for played in self._waiting if expectation.meets(played)), None)
        if played is not None:
            self._waiting.remove(played)
            self._hand(played, expectation)
        else:
            self._expected.append(expectation)
        return expectation.met

    def answer(self, operation: str, answer: Any = None) -> None:
        """What calls of `operation` that nobody expects are answered, those that wait included.

        `answer`: as of `fake`: a value, an exception, a function of the arguments, or a list of these. Raises TypeError
        for a name that the contract has not and for what the operation cannot answer.
        """
        declared = self._operation(operation)
        self._standing[operation] = Answers(declared, answer)
        for played in [each for each in self._waiting if each.operation == operation]:
            self._waiting.remove(played)
            played.stand()

    def leftovers(self) -> list[str]:
        """What is not as the script has it: expectations never met, calls that nobody expected or answered."""
        unmet = [f"expected {_call(each.operation, each.arguments)}: no such call came" for each in self._expected]
        unasked = [f"{_told(each)} came: nobody expected it" for each in self._waiting]
        unanswered = [f"{_told(each)} came: nobody answered it" for each in self._unanswered if each.waits]
        return [*unmet, *unasked, *unanswered, *self._amiss]

    def verify(self) -> None:
        """Raises AssertionError that lists the leftovers, if there are any."""
        leftovers = self.leftovers()
        if leftovers:
            name = describe(self._contract).name
            raise AssertionError(
                "\n".join([f"The script of {name} was not kept:", *(f"* {each}" for each in leftovers)])
            )

    # -- a call comes

    async def _play(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        played = Played(operation, arguments)
        expectation = next((each for each in self._expected if each.meets(played)), None)
        if expectation is not None:
            self._expected.remove(expectation)
            self._hand(played, expectation)
        elif operation.name in self._standing:
            return await self._stand(operation, arguments)
        elif len(self._waiting) >= LIMIT:
            self._amiss.append(f"{_told(played)} came: {LIMIT} calls waited already, so it was turned away")
            raise TooManyRequests(f"{LIMIT} calls of this script wait, and nobody expects them.")
        else:
            self._waiting.append(played)
        answer = await played.outcome()
        return await self._stand(operation, arguments) if answer is _STANDING else answer

    async def _stand(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        try:
            return await self._standing[operation.name].next(arguments)
        except (AssertionError, TypeError) as error:  # the test's own mistake: its caller hears no more than a 500
            self._amiss.append(str(error))
            raise

    def _hand(self, played: Played, expectation: _Expectation) -> None:
        self._unanswered = [each for each in self._unanswered if each.waits]
        self._unanswered.append(played)
        expectation.met.callback(played)

    def _operation(self, name: str) -> Operation:
        if name not in self._operations:
            raise TypeError(no_operation(self._contract, name))
        return self._operations[name]


_STANDING: Any = object()  # fired into a call that waits: take the standing answer


def _call(operation: Operation, arguments: Mapping[str, Any]) -> str:
    """A call as people read it: "payments.charge(amount=5)"."""
    return f"{operation.id}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def _told(played: Played) -> str:
    return _call(played._declared, played.arguments) + ", given up by its caller," * played.given_up


def _same(expected: Any, got: Any) -> bool:
    return bool(expected == got) or (type(expected) is type(got) and _plain(expected) == _plain(got))


def _plain(value: Any) -> Any:
    """The value as JSON has it, if it has a form there: a Struct may be declared to equal none but itself."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError):
        return cast(Any, value)
