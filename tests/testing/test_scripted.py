"""A scripted sibling hands every call to the test, which says what it expects and answers when it likes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ropewalk import (
    Conflict,
    Contract,
    DeadlineExceeded,
    Principal,
    Response,
    RopewalkError,
    Service,
    TooManyRequests,
    compose,
    get,
    given,
    operation,
    post,
)
from ropewalk.context import Context
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.filters.deadline import Deadline
from ropewalk.memory.connection import LocalConnection
from ropewalk.message import enter_principal
from ropewalk.service import describe
from ropewalk.sibling import client_of
from ropewalk.testing import scripted
from ropewalk.testing.fakes import WrongAnswer
from ropewalk.testing.scripted import Script


class Card(Struct, eq=False):
    number: str


class Order(Struct, frozen=True):
    amount: int
    card: Card


class PaymentDeclined(Conflict):
    """Raised when the card is declined."""


class Payments(Contract, name="payments"):
    @post("/charges", raises=(PaymentDeclined,))
    async def charge(self, order: Order, note: str = "none", principal: Principal = given) -> str: ...

    @operation
    async def add(self, amount: int, to: str = "") -> int: ...

    @operation
    def later(self, seconds: int) -> Deferred[int]: ...

    @get("/live")
    def watch(self) -> AsyncIterator[int]: ...


class RealPayments(Payments, Service):
    """A service that needs much, and is not run here."""

    def __init__(self, database: Any) -> None:
        self.database = database

    async def charge(self, order: Order, note: str = "none", principal: Principal = given) -> str:
        return self.database.charge(order)

    async def add(self, amount: int, to: str = "") -> int:
        return amount

    def later(self, seconds: int) -> Deferred[int]:
        return succeed(seconds)

    async def watch(self) -> AsyncIterator[int]:
        yield 1


class Stage:
    """A script, a client whose calls reach it, and a clock that makes them late."""

    def __init__(self, contract: type[Contract] = Payments) -> None:
        self.clock = Clock()
        self.driver = Driver.of(self.clock)
        self.script = Script(contract)
        cls = self.script.service_class()
        handler = compose([Deadline(self.clock, 30)], dispatch(cls()))
        self.client = client_of(contract, LocalConnection("test", describe(cls), handler), "test", self.driver)

    def call(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Where its result, or its error, will be."""
        outcome: list[Any] = []
        call = getattr(self.client, name)(*args, **kwargs)
        call.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        return outcome

    def expect(self, name: str, **arguments: Any) -> list[Any]:
        """Where the Played will be."""
        found: list[Any] = []
        self.script.expect(name, **arguments).addCallback(found.append)
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- calls and expectations


def test_an_expected_call_waits_for_its_answer(stage):
    expected = stage.expect("add", amount=5)
    outcome = stage.call("add", 5)
    [played] = expected
    assert [] == outcome

    played.answer(6)

    assert [6] == outcome
    assert ("add", {"amount": 5, "to": ""}) == (played.operation, played.arguments)
    stage.script.verify()


def test_a_call_that_came_before_it_was_expected_is_found(stage):
    outcome = stage.call("add", 5)

    [played] = stage.expect("add", amount=5)
    played.answer(6)

    assert [6] == outcome


def test_a_test_reads_as_a_story(stage):
    async def test() -> Any:
        charge = stage.script.expect("add", amount=5)
        total = stage.client.add(5)
        played = await charge
        played.answer(played.arguments["amount"] + 1)
        return await total

    assert 6 == stage.driver.run(test()).result


def test_only_the_arguments_that_are_given_must_be_equal(stage):
    expected = stage.expect("add", to="b")

    stage.call("add", 1, "a")
    assert [] == expected
    stage.call("add", 2, "b")

    assert [{"amount": 2, "to": "b"}] == [played.arguments for played in expected]


def test_a_default_that_the_caller_left_out_can_be_expected(stage):
    expected = stage.expect("add", to="")

    stage.call("add", 1)

    assert 1 == len(expected)


def test_structs_are_compared_by_value_however_deep(stage):
    other, this = stage.expect("charge", order=Order(5, Card("2"))), stage.expect("charge", order=Order(5, Card("1")))

    stage.call("charge", Order(5, Card("1")))

    assert (0, 1) == (len(other), len(this))


def test_calls_meet_expectations_in_order(stage):
    first, second = stage.expect("add"), stage.expect("add")

    outcomes = [stage.call("add", 1), stage.call("add", 2)]
    second[0].answer(20)
    first[0].answer(10)

    assert [[10], [20]] == outcomes


def test_who_asks_is_known(stage):
    async def as_ann() -> Any:
        enter_principal(Principal(subject="ann"))
        return await stage.client.charge(Order(1, Card("1")))

    stage.driver.run(as_ann())
    [played] = stage.expect("charge")

    assert Principal("test", "ann") == played.principal
    assert isinstance(played.context, Context)
    played.answer("paid")


# -- answers


def test_an_error_is_raised_in_the_caller(stage):
    outcome = stage.call("charge", Order(5, Card("1")))

    stage.expect("charge")[0].fail(PaymentDeclined("no money"))

    assert [PaymentDeclined] == [type(error) for error in outcome]
    assert "no money" == outcome[0].detail


def test_a_response_is_an_answer(stage):
    outcome = stage.call("charge", Order(5, Card("1")))

    stage.expect("charge")[0].answer(Response("paid", 202))

    assert ["paid"] == outcome


def test_a_wrong_answer_is_refused_and_another_can_be_given(stage):
    outcome = stage.call("add", 5)
    [played] = stage.expect("add")

    with pytest.raises(WrongAnswer, match=r"payments\.add answers int, and was told to answer 'six' \(str\)"):
        played.answer("six")
    played.answer(6)

    assert [6] == outcome


def test_a_second_answer_is_refused(stage):
    stage.call("add", 5)
    [played] = stage.expect("add")
    played.answer(6)

    for again in (played.fail, played.answer):
        with pytest.raises(RuntimeError, match=re.escape("payments.add(amount=5, to='') was answered already.")):
            again(KeyError)
    assert "<Played payments.add(amount=5, to=''), answered>" == repr(played)


def test_each_kind_of_operation_can_be_played(stage):
    async def read() -> list[int]:
        return [piece async for piece in stage.client.watch()]

    later, read_all = stage.call("later", 1), stage.driver.run(read())
    stage.expect("later")[0].answer(2)
    stage.expect("watch")[0].answer((1, 2))

    assert ([2], [1, 2]) == (later, read_all.result)


def test_the_operations_of_a_service_class_are_played_and_nothing_else_is_left_of_it():
    stage = Stage(RealPayments)
    outcome = stage.call("later", 1)

    stage.expect("later", seconds=1)[0].answer(5)

    assert [5] == outcome
    assert issubclass(stage.script.service_class(), RealPayments)


def test_every_instance_of_the_class_plays_one_script(stage):
    one, two = (stage.script.service_class()() for _ in range(2))

    expected = stage.expect("add"), stage.expect("add")
    outcomes = [stage.driver.run(service.add(1)) for service in (one, two)]
    for number, [played] in enumerate(expected):
        played.answer(number)

    assert [0, 1] == [outcome.result for outcome in outcomes]


# -- standing answers


def test_calls_that_nobody_expects_get_the_standing_answer(stage):
    stage.script.answer("add", lambda amount: amount + 1)
    expected = stage.expect("add", amount=5)

    outcomes = [stage.call("add", amount) for amount in (4, 5, 6)]
    expected[0].answer(0)

    assert [[5], [0], [7]] == outcomes
    stage.script.verify()


def test_a_standing_answer_is_given_to_calls_that_wait(stage):
    outcome = stage.call("add", 4)

    stage.script.answer("add", 9)

    assert [9] == outcome
    stage.script.verify()


def test_a_standing_answer_comes_too_late_for_a_caller_that_gave_up(stage):
    stage.call("add", 4)
    stage.clock.advance(30)

    stage.script.answer("add", 9)

    stage.script.verify()


def test_a_standing_answer_that_is_wrong_at_the_call_is_a_leftover(stage):
    stage.script.answer("add", lambda amount: "five")

    [error] = stage.call("add", 4)

    assert RopewalkError is type(error)
    assert ["payments.add answers int, and was told to answer 'five' (str): Expected `int`, got `str`."] == (
        stage.script.leftovers()
    )


# -- callers that give up


def test_an_answer_to_a_caller_that_has_given_up_is_dropped(stage):
    outcome = stage.call("add", 4)
    [played] = stage.expect("add")

    stage.clock.advance(30)
    assert [DeadlineExceeded] == [type(error) for error in outcome]
    assert played.given_up
    played.answer(5)

    stage.script.verify()


def test_a_call_that_nobody_expected_is_told_even_when_its_caller_gave_up(stage):
    stage.call("add", 4)
    stage.clock.advance(30)

    assert ["payments.add(amount=4, to=''), given up by its caller, came: nobody expected it"] == (
        stage.script.leftovers()
    )


def test_an_expectation_that_is_given_up_is_not_met(stage):
    expectation = stage.script.expect("add")
    expectation.addErrback(lambda failure: None)
    expectation.cancel()

    expected = stage.expect("add")
    stage.call("add", 1)

    assert 1 == len(expected)


# -- what is left over


def test_leftovers_are_listed_and_fail_the_test(stage):
    stage.expect("add", amount=7)
    stage.call("add", 5)
    stage.call("later", 1)
    stage.expect("later")

    assert [
        "expected payments.add(amount=7): no such call came",
        "payments.add(amount=5, to='') came: nobody expected it",
        "payments.later(seconds=1) came: nobody answered it",
    ] == stage.script.leftovers()
    with pytest.raises(
        AssertionError, match=re.escape("The script of payments was not kept:\n* expected payments.add(")
    ):
        stage.script.verify()
    assert "<Script of payments: 1 expected, 1 waiting>" == repr(stage.script)


# -- what the test did wrong


@pytest.mark.parametrize("verb", ["expect", "answer"])
def test_an_operation_that_is_not_there_is_refused_at_once(stage, verb):
    with pytest.raises(
        TypeError, match=r"^'chrage' is not an operation of payments; its operations: charge, add, later"
    ):
        getattr(stage.script, verb)("chrage")


@pytest.mark.parametrize("name", ["amont", "principal"])
def test_an_argument_that_is_not_there_is_refused_at_once(stage, name):
    with pytest.raises(TypeError, match=rf"^payments\.charge has no parameter '{name}'; it has: order, note\.$"):
        stage.script.expect("charge", **{name: 5})


def test_a_standing_answer_that_is_wrong_is_refused_at_once(stage):
    with pytest.raises(WrongAnswer):
        stage.script.answer("add", "five")


# -- bounded


def test_calls_beyond_the_limit_are_turned_away(stage, monkeypatch):
    monkeypatch.setattr(scripted, "LIMIT", 2)

    outcomes = [stage.call("add", amount) for amount in range(3)]

    assert ([], []) == (outcomes[0], outcomes[1])
    assert TooManyRequests is type(outcomes[2][0])
    assert "payments.add(amount=2, to='') came: 2 calls waited already, so it was turned away" in (
        stage.script.leftovers()
    )


def test_expectations_beyond_the_limit_are_refused(stage, monkeypatch):
    monkeypatch.setattr(scripted, "LIMIT", 2)
    stage.expect("add")
    stage.expect("add")

    with pytest.raises(RuntimeError, match="2 calls are expected already"):
        stage.script.expect("add")
