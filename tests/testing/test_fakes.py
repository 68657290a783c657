"""A fake sibling answers what it is told, by the types it declares; an example is of its type."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ropewalk import (
    Conflict,
    Contract,
    Header,
    NotFound,
    Principal,
    Response,
    RopewalkError,
    Service,
    Stream,
    Unprocessable,
    get,
    given,
    mount,
    operation,
    post,
)
from ropewalk.driver import Driver
from ropewalk.service import describe
from ropewalk.testing.examples import example
from ropewalk.testing.fakes import WrongAnswer, fake, playing


class Order(Struct, frozen=True):
    amount: Annotated[int, Meta(ge=1)]
    note: str = ""


class Charge(Struct, frozen=True):
    id: int
    on: date = date(2026, 5, 1)


class PaymentDeclined(Conflict):
    """Raised when the card is declined."""


class Payments(Contract, name="payments", version="2.0.0"):
    @post("/charges", status=201, raises=(PaymentDeclined,))
    async def charge(self, order: Order) -> Charge: ...

    @get("/charges/<int:charge_id>")
    async def read(self, charge_id: int, expand: bool = False, principal: Principal = given) -> Charge: ...

    @get("/charges")
    async def find(self) -> list[Charge]: ...

    @operation
    def later(self, seconds: int) -> Deferred[int]: ...

    @operation
    async def forget(self) -> None: ...

    @operation
    async def receipt(self) -> bytes: ...

    @get("/live")
    def watch(self) -> AsyncIterator[Charge]: ...

    @get("/lines")
    async def lines(self) -> AsyncIterator[int]: ...

    @get("/photo")
    def photo(self) -> AsyncIterator[bytes]: ...

    @get("/page")
    async def page(self) -> Response: ...

    @get("/hook")
    async def hook(self, signature: Annotated[str, Header("X-Signature")]) -> None: ...


class Orders(Service):
    """What a unit test is about: a service class that is called with a fake."""

    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    @post("/orders")
    async def place(self, amount: int) -> str:
        try:
            charge = await self.payments.charge(Order(amount))
        except PaymentDeclined as error:
            return f"declined: {error.detail}"
        return f"charged: {charge.id}"


@pytest.fixture
def play():
    """`play(awaitable)`: its result or what it raises, at once, on a driver without a real reactor."""
    driver = Driver.of(Clock())

    def play(awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        outcome: list[Any] = []
        driver.run(awaited()).addBoth(outcome.append)
        assert outcome, "it waits"
        if hasattr(outcome[0], "value"):
            raise outcome[0].value
        return outcome[0]

    return play


# -- answers


def test_a_service_class_is_called_with_a_fake(play):
    payments = fake(Payments, charge=Charge(7))

    assert "charged: 7" == play(Orders(payments).place(5))
    assert [("charge", {"order": Order(5)})] == payments.calls
    assert isinstance(payments, Payments)


def test_a_declared_error_is_raised_as_its_class_each_time(play):
    orders = Orders(fake(Payments, charge=PaymentDeclined("no money")))

    assert ["declined: no money"] * 2 == [play(orders.place(5)), play(orders.place(5))]


def test_two_fakes_of_one_contract_have_nothing_in_common(play):
    one, two = fake(Payments, read=Charge(1)), fake(Payments, read=Charge(2))

    assert [Charge(1), Charge(2), Charge(1)] == [play(each.read(0)) for each in (one, two, one)]
    assert (2, 1) == (len(one.calls), len(two.calls))


def test_the_error_that_was_told_stays_as_it_was(play):
    error = PaymentDeclined("no money")

    play(Orders(fake(Payments, charge=error)).place(5))

    assert ("no", "", None) == (error.ran, error.met_at, error.__traceback__)


def test_an_error_can_be_told_by_its_class(play):
    with pytest.raises(PaymentDeclined):
        play(fake(Payments, charge=PaymentDeclined).charge(Order(5)))


async def answered(order: Order) -> Charge:
    return Charge(order.amount)


@pytest.mark.parametrize(
    "answer",
    [
        lambda order: Charge(order.amount),
        answered,
        lambda order: succeed(Charge(order.amount)),
        lambda **arguments: Charge(arguments["order"].amount),
        lambda order: Response(Charge(order.amount), 202),
    ],
    ids=[
        "a function",
        "a coroutine function",
        "one that gives a Deferred",
        "one that takes whatever comes",
        "a Response",
    ],
)
def test_a_function_is_called_with_the_arguments(play, answer):
    assert Charge(9) == play(fake(Payments, charge=answer).charge(Order(9)))


def test_a_function_need_not_take_what_has_a_default(play):
    payments = fake(Payments, read=lambda charge_id: Charge(charge_id))

    assert Charge(3) == play(payments.read(3, expand=True))


def test_a_list_is_one_answer_for_each_call(play):
    payments = fake(Payments, read=[Charge(1), NotFound("gone"), lambda charge_id: Charge(charge_id)])

    assert Charge(1) == play(payments.read(5))
    with pytest.raises(NotFound, match="gone"):
        play(payments.read(5))
    assert Charge(5) == play(payments.read(5))
    with pytest.raises(AssertionError, match=r"^payments\.read was called 4 times, and told to answer 3\.$"):
        play(payments.read(5))


@pytest.mark.parametrize("answer", [(Charge(1), Charge(2)), [[Charge(1), Charge(2)]], lambda: [Charge(1), Charge(2)]])
def test_an_answer_that_is_a_list(play, answer):
    assert [Charge(1), Charge(2)] == play(fake(Payments, find=answer).find())


def test_each_kind_of_operation_is_answered(play):
    payments = fake(Payments, later=5, forget=None, receipt=b"paid", page=Response(b"<p>", 404))

    assert (5, None, b"paid") == (play(payments.later(1)), play(payments.forget()), play(payments.receipt()))
    assert (b"<p>", 404) == (play(payments.page()).body, play(payments.page()).status)


async def three() -> AsyncIterator[int]:
    for each in (1, 2, 3):
        yield each


@pytest.mark.parametrize(
    "answer",
    [(1, 2, 3), lambda: (1, 2, 3), three, lambda: Stream(three())],
    ids=["tuple", "function", "generator", "Stream"],
)
def test_a_stream_is_answered_by_its_pieces(play, answer):
    payments = fake(Payments, lines=answer)

    async def read() -> list[int]:
        return [piece async for piece in await payments.lines()]

    assert [1, 2, 3] == play(read())


async def all_of(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


def test_operations_that_are_iterated_at_once(play):
    payments = fake(Payments, watch=(Charge(1), Charge(2)), photo=(b"\x00", b"\xff"))

    assert [Charge(1), Charge(2)] == play(all_of(payments.watch()))
    assert b"\x00\xff" == b"".join(play(all_of(payments.photo())))


def test_a_stream_too_many_is_told_as_any_call(play):
    payments = fake(Payments, watch=[(Charge(1),)])
    play(all_of(payments.watch()))

    with pytest.raises(AssertionError, match=r"^payments\.watch was called 2 times, and told to answer 1\.$"):
        play(all_of(payments.watch()))


def test_arguments_are_heard_with_defaults_filled_in_and_without_what_is_supplied(play):
    payments = fake(Payments, read=Charge(1))

    play(payments.read(3))

    assert [("read", {"charge_id": 3, "expand": False})] == payments.calls


def test_what_is_answered_is_what_arrives_by_its_type(play):
    payments = fake(Payments, charge={"id": 7, "on": date(2026, 1, 2), "unknown": 1})

    assert Charge(7, date(2026, 1, 2)) == play(payments.charge(Order(5)))


# -- what a real caller would get


def test_an_error_that_is_not_declared_comes_as_it_would_from_the_wire(play):
    with pytest.raises(NotFound) as caught:
        play(fake(Payments, charge=NotFound("no card")).charge(Order(5)))

    assert ("no card", "yes", False) == (caught.value.detail, caught.value.ran, caught.value.retryable)


def test_an_error_that_is_none_of_ours_is_a_500(play):
    with pytest.raises(RopewalkError) as caught:
        play(fake(Payments, charge=KeyError("x")).charge(Order(5)))

    assert (500, "payments") == (caught.value.status, caught.value.met_at)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_wrong_call_raises_as_the_client_does(play):
    payments = fake(Payments, charge=Charge(1))

    with pytest.raises(TypeError, match=re.escape("payments.charge() has no parameter 'ordr'; it has: order")):
        payments.charge(ordr=Order(5))
    with pytest.raises(Unprocessable):
        play(payments.charge(Order(0)))
    assert [] == payments.calls


def test_what_is_no_operation_is_not_there():
    with pytest.raises(AttributeError, match=r"'chrage' is not an operation of payments"):
        getattr(fake(Payments), "chrage")  # noqa: B009


# -- what the test did wrong


def test_an_operation_that_nobody_answers_is_named(play):
    with pytest.raises(
        AssertionError,
        match=re.escape("payments.find was called, and nobody said what it answers: fake(..., find=...)."),
    ):
        play(fake(Payments).find())


@pytest.mark.parametrize("name", ["charge", "find", "forget", "receipt", "watch", "lines", "photo"])
def test_a_wrong_answer_is_refused_before_any_call(name):
    with pytest.raises(WrongAnswer, match=rf"^payments\.{name} answers .*, and was told to answer 3 \(int\): Expected"):
        fake(Payments, **{name: 3})


def test_a_wrong_answer_says_what_was_expected_and_where():
    with pytest.raises(WrongAnswer) as caught:
        fake(Payments, charge={"id": "7"})

    assert str(caught.value) == (
        "payments.charge answers Charge, and was told to answer {'id': '7'} (dict): Expected `int`, got `str` - at `$.id`."
    )


def test_a_wrong_answer_of_a_function_is_refused_at_the_call(play):
    with pytest.raises(WrongAnswer, match=r"payments\.charge answers Charge, and was told to answer None \(NoneType\)"):
        play(fake(Payments, charge=lambda order: None).charge(Order(5)))


def test_a_list_that_was_meant_as_one_answer_is_explained():
    with pytest.raises(WrongAnswer, match=re.escape("to answer a list, write [[...]] or (...).")):
        fake(Payments, find=[Charge(1)])


def test_a_wrong_piece_of_a_stream_is_refused():
    with pytest.raises(WrongAnswer, match=r"payments\.lines answers AsyncIterator\[int\], and was told to answer 'x'"):
        fake(Payments, lines=(1, "x"))
    with pytest.raises(
        WrongAnswer, match=r"payments\.photo answers AsyncIterator\[bytes\], and was told to answer 'YWJj'"
    ):
        fake(Payments, photo=(b"", "YWJj"))


def test_a_function_that_cannot_take_the_arguments_is_refused():
    with pytest.raises(WrongAnswer, match=r"payments\.charge is called with order, by name; .* takes amount\."):
        fake(Payments, charge=lambda amount: Charge(amount))


def test_an_assertion_within_a_function_reaches_the_test(play):
    def charge(order: Order) -> Charge:
        assert order.amount == 6
        return Charge(1)

    with pytest.raises(AssertionError):
        play(fake(Payments, charge=charge).charge(Order(5)))


def test_an_answer_for_what_is_no_operation_is_refused():
    with pytest.raises(
        TypeError, match=r"^'chrage' is not an operation of payments; its operations: charge, read, find"
    ):
        fake(Payments, chrage=1)


def test_an_answer_for_what_only_http_can_ask_is_refused():
    with pytest.raises(TypeError, match=r"payments\.hook takes what only HTTP can bring"):
        fake(Payments, hook=None)


# -- answers by chance


def test_any_answers_are_of_the_declared_types_and_the_same_from_one_seed(play):
    def heard() -> list[Any]:
        payments = fake(Payments, answers="any", random=Random(1), receipt=b"paid")
        return [
            play(payments.charge(Order(5))),
            play(payments.find()),
            play(payments.later(1)),
            play(payments.receipt()),
        ]

    charge, found, later, receipt = heard()

    assert isinstance(charge, Charge)
    assert all(isinstance(each, Charge) for each in found)
    assert isinstance(later, int)
    assert b"paid" == receipt
    assert [charge, found, later, receipt] == heard()


@pytest.mark.parametrize(
    "options", [{"answers": "any"}, {"random": Random(1)}, {"answers": "some", "random": Random(1)}]
)
def test_drawn_answers_take_both(options):
    with pytest.raises(TypeError, match="Drawn answers take both"):
        fake(Payments, **options)


# -- a service whose operations are played


class Legacy(Payments, Service):
    """A service with all that a fake has to leave out."""

    tables = object()

    def __init__(self, database: Any) -> None:
        self.database = database

    async def charge(self, order: Order) -> Charge:
        return self.database[order]

    async def read(self, charge_id: int, expand: bool = False, principal: Principal = given) -> Charge:
        return self.database[charge_id]

    async def find(self) -> list[Charge]:
        return list(self.database)

    def later(self, seconds: int) -> Deferred[int]:
        return succeed(seconds)

    async def forget(self) -> None: ...

    async def receipt(self) -> bytes:
        return b""

    async def watch(self) -> AsyncIterator[Charge]:
        yield Charge(1)

    async def lines(self) -> AsyncIterator[int]:
        return three()

    async def photo(self) -> AsyncIterator[bytes]:
        yield b""

    async def page(self) -> Response:
        return Response()

    async def hook(self, signature: Annotated[str, Header("X-Signature")]) -> None: ...

    @mount("/old")
    def old(self) -> Any:
        return self.database.resource

    async def start(self) -> None:
        await self.database.open()


async def silent(operation: Any, arguments: Any) -> Any:
    return None


@pytest.mark.parametrize("contract", [Payments, Legacy])
def test_a_played_service_declares_what_its_contract_does(contract):
    cls = playing(contract, silent)

    mine, theirs = describe(cls), describe(contract)
    assert (theirs.name, theirs.version, ()) == (mine.name, mine.version, mine.mounts)
    assert list(theirs.operations) == list(mine.operations)
    for name, kept in mine.operations.items():
        promised = theirs.operations[name]
        assert (promised.returns, promised.generates, promised.binding.parameters) == (
            kept.returns, kept.generates, kept.binding.parameters,
        )  # fmt: skip
    assert isinstance(cls(), contract)
    assert [None, None] == [getattr(cls, name, None) for name in ("start", "tables")]


def test_a_service_class_can_be_faked_too(play):
    assert Charge(7) == play(fake(Legacy, charge=Charge(7)).charge(Order(5)))
    assert 3 == play(fake(Legacy, later=3).later(1))


@pytest.mark.parametrize("contract", [Service, Contract, str, "payments"])
def test_what_is_no_contract_is_not_played(contract):
    for make in (playing, fake):
        with pytest.raises(TypeError, match="What is played is a Contract or Service class"):
            make(contract)


# -- examples


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Room(Struct, frozen=True):
    code: Annotated[str, Meta(pattern=r"^[A-Z]{2}-\d{3}(a|b)?$")]
    beds: Annotated[int, Meta(ge=1, le=4)]
    colour: Colour
    price: Decimal
    tags: frozenset[str] = frozenset()


class Tree(Struct):
    value: int
    left: Tree | None
    children: list[Tree]


class Cat(Struct, tag="cat"):
    lives: int


class Dog(Struct, tag="dog"):
    name: str


class Point(Struct, array_like=True):
    x: float
    y: float


@dataclass
class Guest:
    name: str
    born: date


class Stay(TypedDict):
    room: Room
    nights: int


class Pair(NamedTuple):
    left: int
    right: str


class Even(Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


@pytest.mark.parametrize(
    "declared",
    [
        int, str, float, bool, bytes, None, Any, date, datetime, timedelta, UUID, Decimal, Colour, Room, Tree, Point, Guest,
        Stay, Pair, Even, Cat | Dog, Room | None, int | str | None, Literal["a", 2, None], list[Room], dict[str, Room],
        dict[int, str], dict[UUID, date], set[int], frozenset[Room], tuple[int, str], tuple[date, ...], list[dict[str, Any]],
        Annotated[int, Meta(gt=3, lt=5)], Annotated[int, Meta(le=-7)], Annotated[int, Meta(multiple_of=7, ge=50)],
        Annotated[float, Meta(gt=0, lt=0.001)], Annotated[str, Meta(min_length=30)], Annotated[str, Meta(max_length=0)],
        Annotated[str, Meta(min_length=3, max_length=3)], Annotated[str, Meta(pattern="^[^a-z]+$", max_length=4)],
        Annotated[list[int], Meta(min_length=5, max_length=5)], Annotated[set[bool], Meta(min_length=2)],
        Annotated[dict[str, int], Meta(min_length=4)], Annotated[bytes, Meta(min_length=20)],
        Annotated[datetime, Meta(tz=True)], Annotated[datetime, Meta(tz=False)],
        Annotated[str, Meta(pattern=r"^(\w+)@\1\.(com|org)$")], Annotated[str, Meta(pattern=r"^\W\D?\S{2,}x*?$")],
    ],
    ids=str,
)  # fmt: skip
def test_an_example_is_of_its_type_and_the_same_from_one_seed(declared):
    for seed in range(20):
        drawn = example(declared, Random(seed))

        assert drawn == msgspec.json.decode(msgspec.json.encode(drawn), type=declared)
        assert drawn == example(declared, Random(seed))


def test_examples_differ():
    drawn = [example(Room, Random(seed)) for seed in range(20)]

    assert 20 == len(set(drawn))
    assert {1, 2, 3, 4} == {room.beds for room in drawn}
    assert set(Colour) == {room.colour for room in drawn}


class Impossible(Struct):
    number: int

    def __post_init__(self) -> None:
        raise ValueError("never")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Impossible, r"^No draw of 100 was a Impossible: never\.$"),
        (Random, r"^There is no example of Random\.$"),
        (Annotated[int, Meta(ge=8, le=9, multiple_of=7)], r"^No int is between 8 and 9 and a multiple of 7\.$"),
    ],
)
def test_a_type_without_examples_is_named(declared, message):
    with pytest.raises(TypeError, match=message):
        example(declared, Random(1))
