"""Services, contracts and clients: what a class says of itself, what it must keep, and both ends of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from msgspec import Struct
from twisted.internet.defer import Deferred, FirstError, ensureDeferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.defer import fail as defer_fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from ropewalk import (
    Conflict,
    Context,
    Contract,
    DeadlineExceeded,
    Header,
    NotFound,
    Principal,
    Query,
    Request,
    Response,
    RopewalkError,
    Service,
    Stream,
    Unavailable,
    current_context,
    get,
    given,
    operation,
    post,
    put,
    settled,
)
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.errors import DeclarationError
from ropewalk.message import caller
from ropewalk.service import describe, names_known_to
from ropewalk.sibling import Call, client_of


class Order(Struct, frozen=True):
    room: int
    price: int = 0


class Charge(Struct, frozen=True):
    id: int


class BankRefused(Conflict):
    """Raised when the bank says no."""


class PaymentsContract(Contract, name="payments", version="2.1.0"):
    """Takes money."""

    @post("/charges", status=201, raises=(BankRefused,))
    async def charge(self, order: Order, currency: str = "EUR") -> Charge:
        """Charge a card."""
        ...

    @operation(aliases=("payments.cancel",))
    async def void(self, charge_id: int) -> None: ...


class Payments(PaymentsContract, Service, version="2.3.1"):
    """Takes money, and gives it back."""

    async def charge(
        self, order: Order, currency: str = "EUR", note: Annotated[str, Query] = "", principal: Principal = given
    ) -> Charge:
        return Charge(order.room)

    async def void(self, charge_id: int) -> None: ...

    @get("/charges/<int:charge_id>")
    async def read(self, charge_id: int) -> Charge:
        """Read one."""
        return Charge(charge_id)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(DeclarationError) as refused:
        make()
    return str(refused.value)


# -- what a class says of itself


def test_a_service_is_named_as_it_says_or_like_its_class():
    class BookingUI(Service): ...

    class HTTPProxy2(Service): ...

    class Rooms(Service, name="hotel-rooms", version="3.2.1-rc.1"):
        """Rooms.

        And more.
        """

    described = [describe(cls) for cls in (BookingUI, HTTPProxy2, Rooms, Payments)]

    assert [
        ("booking-ui", "1.0.0", 1, ""),
        ("http-proxy2", "1.0.0", 1, ""),
        ("hotel-rooms", "3.2.1-rc.1", 3, "Rooms."),
        ("payments", "2.3.1", 2, "Takes money, and gives it back."),
    ] == [(d.name, d.version, d.major, d.summary) for d in described]


def test_an_instance_and_a_client_describe_themselves_as_their_class_does():
    client = client_of(Payments, answering(None))

    assert describe(Payments) is describe(Payments()) is describe(client)


def test_operations_come_in_order_of_definition_a_base_s_first():
    assert ["charge", "void", "read"] == list(describe(Payments).operations)


def test_a_decorator_is_inherited_with_the_name():
    charge = describe(Payments).operations["charge"]

    assert ("payments.charge", "POST", "/charges", 201, (BankRefused,)) == (
        charge.id,
        charge.method,
        charge.route,
        charge.status,
        charge.raises,
    )


def test_types_are_inherited_where_an_override_does_not_say_them():
    class Fake(Payments):
        async def charge(self, order, currency="EUR", note="", principal=given):
            return Charge(1)

    kept, fake = (describe(cls).operations["charge"] for cls in (Payments, Fake))

    assert ([(p.name, p.type) for p in kept.binding.parameters], kept.returns) == (
        [(p.name, p.type) for p in fake.binding.parameters],
        fake.returns,
    )


def test_an_operation_can_be_taken_back_by_a_subclass_that_promised_nothing():
    class Base:
        @get("/a")
        async def read(self) -> int: ...

    class Rooms(Base, Service):
        read = None  # type: ignore[assignment]

    assert {} == describe(Rooms).operations


def test_a_class_inside_a_function_may_use_types_of_that_function():
    class Local(Struct):
        inner: int

    class Rooms(Service):
        @post("/a")
        async def hold(self, local: Local, ids: Annotated[list[int], Query] = []) -> Local: ...

        def __init__(self, later: Later) -> None: ...

    class Later(Service): ...

    class Fake(Rooms):
        pass

    assert (Local, Local) == (
        describe(Fake).operations["hold"].binding.parameters[0].type,
        describe(Fake).operations["hold"].returns,
    )
    assert Later is names_known_to(Rooms)["Later"]


def test_a_class_may_use_types_made_inside_it_and_names_that_hide_typing_s():
    class Match(Struct):
        score: int

    class Games(Service):
        class Move(Struct):
            to: str

        @post("/moves")
        async def move(self, move: Move) -> Match: ...

        @get("/list")
        async def list(self, page: int = 1) -> list[int]: ...

    operations = describe(Games).operations

    assert (Games.Move, Match, list[int]) == (
        operations["move"].binding.parameters[0].type,
        operations["move"].returns,
        operations["list"].returns,
    )


def test_annotations_need_not_be_postponed():
    source = """
class Rooms(Service):
    @post("/rooms")
    async def hold(self, order: Order, n: "int" = 1) -> "Charge": ...
"""
    names: dict[str, Any] = {"Service": Service, "post": post, "Order": Order, "Charge": Charge, "__name__": "rooms"}
    exec(compile(source, "rooms.py", "exec", dont_inherit=True), names)

    hold = describe(names["Rooms"]).operations["hold"]

    assert ([Order, int], Charge) == ([p.type for p in hold.binding.parameters], hold.returns)


# -- what a class must keep


def missing_operation():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: str = "EUR") -> Charge: ...


def taken_back():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: str = "EUR") -> Charge: ...

        void = None  # type: ignore[assignment]


def another_type():
    class Broken(Payments):
        async def charge(self, order: dict[str, int], currency: str = "EUR") -> Charge: ...


def another_result():
    class Broken(Payments):
        async def charge(
            self, order: Order, currency: str = "EUR", note: Annotated[str, Query] = ""
        ) -> Charge | None: ...


def parameter_gone():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order) -> Charge: ...


def parameter_renamed():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, money: str = "EUR") -> Charge: ...


def parameter_added():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, tip: int, currency: str = "EUR") -> Charge: ...


def default_gone():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: str) -> Charge: ...


def another_place():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: Annotated[str, Query("money")] = "EUR") -> Charge: ...


def only_by_http():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: str = "EUR", request: IRequest = given) -> Charge: ...


def another_route():
    class Broken(PaymentsContract, Service, version="2.0.0"):
        @put("/charges")
        async def charge(self, order: Order, currency: str = "EUR") -> Charge: ...


def a_route_where_there_was_none():
    class Broken(Payments):
        @post("/voids")
        async def void(self, charge_id: int) -> None: ...


def another_major():
    class Broken(PaymentsContract, Service, version="1.9.0"):
        async def charge(self, order: Order, currency: str = "EUR") -> Charge: ...

        async def void(self, charge_id: int) -> None: ...


def same_route_twice():
    class Broken(Service):
        @get("/rooms/<int:room_id>")
        async def read(self, room_id: int) -> int: ...

        @get("/rooms/<int:id>")
        async def look(self, id: int) -> int: ...


def alias_of_another():
    class Broken(Service):
        @operation
        async def read(self) -> int: ...

        @operation(aliases=("broken.read",))
        async def look(self) -> int: ...


def not_a_method():
    class Broken(Payments):
        read = 3  # type: ignore[assignment]


def class_method():
    class Broken(Service):
        @classmethod
        @get("/a")
        async def read(cls) -> int: ...


def plain_start():
    class Broken(Service):
        def start(self) -> None: ...


def wrong_name():
    class Broken(Service, name="Rooms"): ...


def wrong_version():
    class Broken(Service, version="1.0"): ...


KEEPS = "Broken.charge does not keep its contract: expected "


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (
                each,
                "Broken does not keep its contract: PaymentsContract promises 'void'; write "
                "`async def void(...) -> None: ...` in Broken.",
            )
            for each in (missing_operation, taken_back)
        ],
        (another_type, KEEPS + "`order: Order`, got `order: dict[str, int]`."),
        (another_result, KEEPS + "`-> Charge`, got `-> Charge | None`."),
        (parameter_gone, KEEPS + "`currency: str`, got nothing."),
        (parameter_renamed, KEEPS + "`currency: str`, got nothing."),
        (parameter_added, KEEPS + "a default for 'tip', which its callers do not know, got none."),
        (default_gone, KEEPS + "a default for 'currency', which its callers may leave out, got none."),
        (another_place, KEEPS + "'currency' in the query as 'currency', got in the query as 'money'."),
        (only_by_http, KEEPS + "what a sibling can send, got a parameter that only HTTP can bring."),
        (another_route, KEEPS + '`@post("/charges")`, got `@put("/charges")`.'),
        (
            a_route_where_there_was_none,
            'Broken.void does not keep its contract: expected `@operation`, got `@post("/voids")`.',
        ),
        (
            another_major,
            "Broken is version 1.9.0, its contract PaymentsContract 2.1.0, and who calls by that asks for 2; give them one "
            "major.",
        ),
        (same_route_twice, "Broken: read and look are both GET /rooms/<int:id>; change one."),
        (alias_of_another, "Broken: read and look are both called 'read'."),
        (not_a_method, "Broken.read: an operation is a plain method; got int."),
        (class_method, "Broken.read: an operation is a plain method; got classmethod."),
        (plain_start, "Broken.start is awaited: `async def start(self) -> None`."),
        (wrong_name, "Broken: a service's name is like \"booking-ui\"; got 'Rooms'."),
        (wrong_version, "Broken: a version is like \"1.0.0\"; got '1.0'."),
    ],
)
def test_a_class_that_breaks_its_word_is_refused(make, message):
    assert message == refusal(make)


def test_a_contract_may_be_kept_by_a_mixin_and_need_not_be_kept_by_another_contract():
    class Voids:
        async def void(self, charge_id: int) -> None: ...

    class Kept(Voids, PaymentsContract, Service, version="2.0.0"):
        async def charge(self, order: Order, currency: str = "EUR") -> Charge: ...

    class Wider(PaymentsContract, version="2.2.0"):
        @operation
        async def refund(self, charge_id: int) -> None: ...

    assert ["charge", "void"] == list(describe(Kept).operations)
    assert ["charge", "void", "refund"] == list(describe(Wider).operations)


def test_two_contracts_can_be_kept_by_one_service():
    class Occupancy(Contract, name="rooms"):
        @operation
        async def taken(self, night: int) -> int: ...

    class Rooming(Contract):
        @operation
        async def free(self, night: int) -> int: ...

    class Both(Occupancy, Rooming, Service, name="rooms"):
        async def taken(self, night: int) -> int: ...

        async def free(self, night: int) -> int: ...

    assert ("rooms", {"taken", "free"}) == (describe(Both).name, set(describe(Both).operations))


def test_a_fake_may_subclass_a_service_without_its_init():
    class Needy(Service):
        def __init__(self, payments: Payments) -> None: ...

        @operation
        async def count(self) -> int:
            return 1

    class Fake(Needy):
        def __init__(self) -> None: ...

    assert isinstance(Fake(), Needy)


# -- the callee's end


class Played:
    """Runs handlers over a virtual clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.driver = Driver.of(self.clock)

    def run(self, awaitable: Any) -> Any:
        """What it answers or raises, at once."""
        outcome: list[Any] = []
        self.driver.run(awaitable).addBoth(outcome.append)
        self.clock.pump([0] * 5)
        assert outcome, "it waits for something"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]


@pytest.fixture
def played() -> Played:
    return Played()


def ask(service: Service, name: str, **arguments: Any) -> Any:
    """The coroutine of a request for one of its operations."""
    context, principal = Context(request_id="r1", deadline=30.0), Principal("ui", "ada")
    return dispatch(service)(Request(describe(service).operations[name], arguments, context, principal))


class Rooms(Service):
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.error: Exception = NotFound("none")

    @post("/a", status=201)
    async def plain(self, x: int, more: int = 2) -> int:
        return x + more

    @get("/b")
    def deferred(self) -> Deferred[int]:
        self.seen.append(Deferred())
        return self.seen[0]

    @get("/c")
    async def response(self) -> Response:
        return Response("x", 202, [("a", "b")], ["c=d"])

    @get("/d")
    async def nothing(self) -> None: ...

    @get("/e")
    async def context(
        self, principal: Principal = given, context: Context = given, request: Request = given
    ) -> list[str]:
        self.seen += [principal, context, request.operation.id, current_context(), caller()]
        return []

    @get("/f")
    async def counting(self) -> AsyncIterator[int]:
        for n in range(2):
            self.seen.append((current_context().request_id, current_context().deadline, caller().subject))
            yield n

    @get("/g")
    async def raw(self) -> AsyncIterator[bytes]:
        yield b"x"

    @get("/h")
    async def later(self) -> Stream:
        return Stream(self.counting(), "text/plain")

    @get("/i", raises=(BankRefused,))
    async def failing(self) -> int:
        raise self.error


async def everything(stream: Stream) -> list[Any]:
    return [piece async for piece in stream.iterator]


def test_a_plain_result_is_a_response_with_the_declared_status(played):
    rooms = Rooms()

    got = [played.run(ask(rooms, "plain", x=1)), played.run(ask(rooms, "nothing")), played.run(ask(rooms, "response"))]

    assert [Response(3, 201), Response(None, 204), Response("x", 202, [("a", "b")], ["c=d"])] == got


def test_an_operation_may_return_a_deferred(played):
    rooms = Rooms()
    answer = played.driver.run(ask(rooms, "deferred"))
    answers: list[Any] = []
    answer.addCallback(answers.append)

    rooms.seen[0].callback(7)

    assert [Response(7)] == answers


def test_what_is_given_and_the_ambient_context_are_the_request_s(played):
    rooms = Rooms()

    played.run(ask(rooms, "context"))

    context, principal = Context(request_id="r1", deadline=30.0), Principal("ui", "ada")
    assert [principal, context, "rooms.context", context, principal] == rooms.seen
    assert Context() == current_context()


@pytest.mark.parametrize(
    ("name", "content_type", "pieces"),
    [("counting", None, [0, 1]), ("raw", "application/octet-stream", [b"x"]), ("later", "text/plain", [0, 1])],
)
def test_a_stream_is_a_stream_however_it_is_declared(played, name, content_type, pieces):
    stream = played.run(ask(Rooms(), name)).body

    assert (content_type, pieces) == (stream.content_type, played.run(everything(stream)))


def test_the_pieces_of_a_stream_are_made_in_the_operation_s_context_after_the_deadline_of_its_head(played):
    rooms = Rooms()
    outside: list[str] = []

    async def take() -> None:
        async for _ in (await ask(rooms, "counting")).body.iterator:
            outside.append(current_context().request_id)

    played.run(take())

    assert ([("r1", None, "ada")] * 2, ["", ""]) == (rooms.seen, outside)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BankRefused("no", reason="limit"), (BankRefused, 409, "no", {"reason": "limit"}, "yes", False)),
        (Unavailable("full"), (Unavailable, 503, "full", {}, "yes", False)),
    ],
)
def test_an_error_of_the_operation_leaves_as_itself_and_says_that_it_ran(played, error, expected):
    rooms = Rooms()
    rooms.error = error

    with pytest.raises(RopewalkError) as left:
        played.run(ask(rooms, "failing"))

    got = left.value
    assert expected == (type(got), got.status, got.detail, got.members, got.ran, got.retryable)


def test_a_siblings_declared_error_leaves_as_itself(played):
    rooms = Rooms()
    rooms.error = BankRefused("no")
    rooms.error.met_at = "bank"

    with pytest.raises(BankRefused) as left:
        played.run(ask(rooms, "failing"))

    assert ("", "yes") == (left.value.met_at, left.value.ran)


def test_a_siblings_undeclared_error_becomes_unavailable_with_its_cause(played):
    rooms = Rooms()
    rooms.error = error = NotFound("secret detail")
    error.met_at = "bank"

    with pytest.raises(Unavailable) as left:
        played.run(ask(rooms, "failing"))

    assert (
        502,
        "rooms.failing could not finish: bank failed.",
        {"cause": {"type": NotFound.type, "status": 404, "from": "bank"}},
        "maybe",
        error,
    ) == (left.value.status, left.value.detail, left.value.members, left.value.ran, left.value.__cause__)


async def failing_gather():
    await gatherResults([defer_fail(BankRefused("no"))], consumeErrors=True)


async def failing_group():
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in (BankRefused("no"), NotFound("nor this")):
            group.create_task(fail(error))


async def group_with_a_stranger():
    raise ExceptionGroup("both", [BankRefused("no"), ValueError("what")])


@pytest.mark.parametrize(
    ("failing", "expected"),
    [(failing_gather, BankRefused), (failing_group, BankRefused), (group_with_a_stranger, ExceptionGroup)],
)
def test_an_error_of_several_calls_at_once_leaves_as_itself(played, failing, expected):
    class Desk(Service):
        @operation(raises=(BankRefused,))
        async def pay(self) -> None:
            await failing()

    with pytest.raises(expected):
        played.run(ask(Desk(), "pay"))


def test_an_undeclared_error_of_its_own_is_warned_about_once(played):
    rooms = Rooms()
    handler, called = dispatch(rooms), describe(rooms).operations["failing"]
    warnings: list[tuple[str, str]] = []

    def note(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "ropewalk.service":
            warnings.append((event["operation"], event["error"]))

    globalLogPublisher.addObserver(note)
    try:
        for rooms.error in (NotFound("a"), NotFound("b"), BankRefused("c"), Unavailable("d"), NotFound("e")):
            with pytest.raises(RopewalkError):
                played.run(handler(Request(called, {})))
    finally:
        globalLogPublisher.removeObserver(note)

    assert [("rooms.failing", "NotFound"), ("rooms.failing", "Unavailable")] == warnings


# -- the caller's end


def answering(answer: Any) -> Any:
    """A handler that answers a Response with that body, raises an error, or answers when a Deferred fires."""

    async def handler(request: Request) -> Response:
        body = await answer if isinstance(answer, Deferred) else answer
        if isinstance(body, BaseException):
            raise body
        return body if isinstance(body, Response) else Response(body)

    return handler


def test_a_client_is_an_instance_of_its_contract_with_its_operations_and_nothing_else():
    client = client_of(Payments, answering(None), "desk")

    assert isinstance(client, Payments)
    assert isinstance(client, PaymentsContract)
    assert not isinstance(client, Rooms)
    assert "<client of payments for desk>" == repr(client)
    assert ("payments.charge", "charge", "Charge a card.") == (
        client.charge.__qualname__,
        client.charge.__name__,
        client.charge.__doc__,
    )
    with pytest.raises(AttributeError) as unknown:
        _ = client.refund
    assert (
        "'refund' is not an operation of payments, which is a sibling here; its operations: charge, void, read"
        == str(unknown.value)
    )
    with pytest.raises(AttributeError):
        client.resource()


def test_an_operation_that_only_http_can_ask_for_is_not_on_the_client():
    class Web(Service):
        @get("/a")
        async def page(self, request: IRequest = given) -> Response: ...

        @get("/b")
        async def tenant(self, tenant: Annotated[str, Header("X-Tenant")]) -> str: ...

        @get("/c")
        async def count(self) -> int: ...

    client = client_of(Web, answering(1))

    with pytest.raises(AttributeError) as unknown:
        _ = client.tenant
    assert "'tenant' of web takes what only HTTP can bring; ask for it by HTTPClient: sibling://web/..." == str(
        unknown.value
    )
    with pytest.raises(AttributeError, match="its operations: count$"):
        _ = client.pages


def test_a_call_is_a_request_with_the_caller_s_context_and_principal(played):
    asked: list[Request] = []

    async def handler(request: Request) -> Response:
        asked.append(request)
        return Response(Charge(1))

    class Desk(Service):
        def __init__(self, payments: Payments) -> None:
            self.payments = payments

        @operation
        async def pay(self, order: Order) -> Charge:
            return await self.payments.charge(order, currency="USD")

    response = played.run(ask(Desk(client_of(Payments, handler)), "pay", order=Order(3)))

    assert Response(Charge(1)) == response
    (request,) = asked
    assert (
        "payments.charge",
        {"order": Order(3), "currency": "USD"},
        Context(request_id="r1", deadline=30.0),
        Principal("ui", "ada"),
    ) == (request.operation.id, request.payload, request.context, request.principal)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"order": 2}), ((1,), {"tip": 2}), ((1,), {"principal": 2})]
)
def test_a_wrong_call_raises_where_it_is_made(args, kwargs):
    client = client_of(PaymentsContract, answering(None))

    with pytest.raises(TypeError, match=r"^payments\.charge\(\) "):
        client.charge(*args, **kwargs)


def test_an_error_of_the_edge_itself_was_met_at_the_sibling_too(played):
    client = client_of(Payments, answering(DeadlineExceeded("late")), driver=played.driver)

    with pytest.raises(DeadlineExceeded) as met:
        played.run(client.read(1))

    assert "payments" == met.value.met_at


# -- a call may be awaited by whatever there is


async def in_a_coroutine(calls):
    return [await call for call in calls]


async def in_gather_results(calls):
    return await gatherResults(calls, consumeErrors=True)


async def in_a_task_group(calls):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def in_asyncio_gather(calls):
    return await asyncio.gather(*calls)


async def in_settled(calls):
    return await settled(*calls)


async def in_ensure_deferred(calls):
    return await gatherResults([ensureDeferred(call) for call in calls], consumeErrors=True)


async def in_from_coroutine(calls):
    return await gatherResults([Deferred.fromCoroutine(call) for call in calls], consumeErrors=True)


async def in_inline_callbacks(calls):
    @inlineCallbacks
    def old() -> Any:
        results = []
        for call in calls:
            results.append((yield call))
        return results

    return await old()


async def in_maybe_deferred(calls):
    return [await maybeDeferred(lambda call=call: call) for call in calls]


async def in_wait_for(calls):
    return [await asyncio.wait_for(call, 5) for call in calls]


async def in_a_callback(calls):
    return [await call.addCallback(lambda charge: charge) for call in calls]


async def in_a_coroutine_that_twisted_drives(calls):
    return await Deferred.fromCoroutine(in_a_coroutine(calls))


WAYS = [each for name, each in globals().items() if name.startswith("in_")]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_calls_are_awaited_in_every_way(played, way, at_once):
    answers = [Charge(1), Charge(2)] if at_once else [Deferred(), Deferred()]
    if not at_once:
        played.clock.callLater(0, answers[1].callback, Charge(2))
        played.clock.callLater(0, answers[0].callback, Charge(1))
    calls = [client_of(Payments, answering(answer), driver=played.driver).read(1) for answer in answers]

    assert [Charge(1), Charge(2)] == list(played.run(way(calls)))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_call_that_fails_fails_in_every_way(played, way, at_once):
    answer = NotFound("gone") if at_once else Deferred()
    if not at_once:
        played.clock.callLater(0, answer.callback, NotFound("gone"))
    call = client_of(Payments, answering(answer), driver=played.driver).read(1)

    async def failing() -> str:
        try:
            (outcome,) = await way([call])
        except ExceptionGroup as group:
            (outcome,) = group.exceptions
        except FirstError as first:
            outcome = first.subFailure.value
        except NotFound as error:
            outcome = error
        return outcome.detail

    assert "gone" == played.run(failing())


def test_a_call_begins_when_it_is_made(played):
    asked: list[str] = []

    async def handler(request: Request) -> Response:
        asked.append(request.operation.id)
        return Response(Charge(1))

    client = client_of(Payments, handler, driver=played.driver)
    call = client.read(1)

    assert (["payments.read"], True) == (asked, isinstance(call, Call))


@pytest.mark.parametrize(("name", "stopped"), [("read", True), ("charge", False)])
def test_a_call_that_is_given_up_stops_when_it_is_cancellable_and_goes_on_when_it_is_not(played, name, stopped):
    ends: list[str] = []

    async def handler(request: Request) -> Response:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ends.append("stopped")
            raise
        ends.append("went on")
        return Response(None)

    client = client_of(Payments, handler, driver=played.driver)

    async def impatient() -> None:
        async with asyncio.timeout(1):
            await getattr(client, name)(1)

    outcome = played.driver.run(impatient())
    played.clock.pump([0.5] * 20)

    assert (TimeoutError, ["stopped"] if stopped else ["went on"]) == (outcome.result.type, ends)
    outcome.addErrback(lambda _: None)


def test_a_failure_that_nobody_awaits_is_not_lost(played, flush_logged_errors):
    client_of(Payments, answering(NotFound("gone")), driver=played.driver).read(1)

    assert ["gone"] == [failure.getErrorMessage() for failure in flush_logged_errors(NotFound)]


# -- streams


class Feed(Contract):
    @get("/a")
    async def numbers(self) -> AsyncIterator[int]: ...

    @get("/b")
    def at_once(self) -> AsyncIterator[int]: ...

    @get("/c")
    async def stream(self) -> Stream: ...


async def counting(closed: list[str]) -> AsyncIterator[int]:
    try:
        for n in range(3):
            yield n
    finally:
        closed.append("closed")


@pytest.mark.parametrize("name", ["numbers", "at_once", "stream"])
def test_a_stream_is_iterated_at_once_or_awaited_first(played, name):
    client = client_of(Feed, lambda request: answering(Response(counting([])))(request), driver=played.driver)

    async def at_once() -> list[int]:
        return [n async for n in getattr(client, name)()]

    async def awaited_first() -> list[int]:
        return [n async for n in await getattr(client, name)()]

    assert ([0, 1, 2], [0, 1, 2]) == (played.run(at_once()), played.run(awaited_first()))


def test_a_stream_is_ended_by_its_reader(played):
    closed: list[str] = []
    client = client_of(Feed, answering(Response(counting(closed))), driver=played.driver)

    async def first() -> int:
        numbers = client.numbers()
        n = await anext(numbers)
        await numbers.aclose()
        return n

    assert (0, ["closed"]) == (played.run(first()), closed)


def test_nothing_is_asked_of_a_stream_that_nobody_reads():
    client_of(Feed, answering(AssertionError("asked")), driver=Driver.of(Clock())).numbers()


def test_a_client_class_is_made_once_for_a_contract():
    assert type(client_of(Payments, answering(1))) is type(client_of(Payments, answering(2)))
