"""A call to a sibling means the same whether that lives in this process or behind a socket.

Every test here runs three times: with all services in one process, with each in a process of its own that the others
reach over HTTP on loopback, and with each on a simulated host, the same bytes on simulated connections in virtual time.
No test can tell which.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import wraps
from pathlib import Path
from random import Random
from typing import Annotated, Any
from uuid import UUID

import attrs
import msgspec
import pytest
import pytest_twisted
import treq
from klein import Klein
from msgspec import Meta, Struct
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from ropewalk import (
    Client,
    Conflict,
    Context,
    Contract,
    DeadlineExceeded,
    Form,
    Header,
    NotFound,
    Principal,
    Query,
    Response,
    RopewalkError,
    Service,
    Stream,
    TooManyRequests,
    Unavailable,
    Unprocessable,
    Workers,
    bound,
    current_context,
    delete,
    get,
    given,
    operation,
    post,
    put,
    settled,
    wait,
)
from ropewalk.errors import ContentTooLarge
from ropewalk.http.raw import Foreign
from ropewalk.message import Request, caller, enter, leave
from ropewalk.runtime.config import Config, SystemFile
from ropewalk.runtime.placement import Placement, place
from ropewalk.runtime.process import Process
from ropewalk.testing import World


class Kind(Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Line(Struct, frozen=True, tag=True):
    text: str
    price: Decimal


class Fee(Struct, frozen=True, tag=True):
    rate: float


@dataclass
class Guest:
    name: str
    born: date | None = None


@attrs.define
class Card:
    number: str


class Bill(Struct):
    id: UUID
    lines: list[Line | Fee]
    guests: dict[str, Guest]
    card: Card
    kinds: set[Kind] = set()
    paid: date | None = None


class Filter(Struct):
    city: str
    stars: int | None = None
    tags: tuple[str, ...] = ()


class CardDeclined(Conflict, type="urn:journey:card-declined"):
    """Raised when the bank says no."""


class OutOfOrder(RopewalkError):
    """Raised when the till is broken."""

    status = 507


# What the front knows of the till: an older contract, in other words, of a service in another repository.
class TillContract(Contract, name="till", version="1.0.0"):
    @post("/bills", raises=(CardDeclined,))
    async def echo(self, bill: Bill) -> Bill: ...

    @get("/rooms/<int:number>/<name>")
    async def look(self, number: int, name: str, night: date, kinds: list[Kind] = [], page: int = 1) -> list[str]: ...

    @operation
    async def close(self, on: date) -> None: ...

    @operation
    async def unheard_of(self) -> None: ...

    @operation
    async def count(self) -> str: ...


class Till(Service, name="till", version="1.7.2"):
    """The callee."""

    def __init__(self, desk: Desk, clock: IReactorTime) -> None:
        self.desk = desk
        self.clock = clock
        self.seen: list[Any] = []
        self.given: Any = None
        self.arrived: Deferred[None] = Deferred()

    @post("/bills", raises=(CardDeclined,))
    async def echo(self, bill: Bill) -> Bill:
        self.seen.append(bill)
        return bill

    @get("/rooms/<int:room>/<guest>")
    async def look(
        self,
        room: int,
        guest: str,
        night: date,
        kinds: list[Kind] = [],
        page: int = 1,
        note: str | None = None,
    ) -> list[str]:
        return [repr(value) for value in (room, guest, night, kinds, page, note)]

    @get("/search")
    async def search(self, filter: Annotated[Filter, Query]) -> Filter:
        return filter

    @post("/forms")
    async def sign(self, form: Annotated[Filter, Form]) -> Filter:
        return form

    @put("/notes/<path:place>", max_body=100)
    async def note(self, place: str, text: dict[str, str]) -> str:
        return place

    @operation(aliases=("till.close",))
    async def close_day(self, on: date) -> None: ...

    @operation
    async def count(self) -> int:
        return 3

    @operation(raises=(CardDeclined, OutOfOrder))
    async def fail(self) -> None:
        raise self.given

    @get("/fail")
    def fail_later(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._raise())

    async def _raise(self) -> int:
        raise self.given

    @operation
    async def wrong(self) -> Bill:
        return "no bill"  # type: ignore[return-value]

    @operation
    async def unsendable(self) -> Any:
        return object()

    @operation
    async def small(self, number: Annotated[int, Meta(le=9)]) -> int:
        return number

    @operation
    async def who(self, principal: Principal = given, context: Context = given) -> str:
        self.seen.append((principal, context, current_context(), caller()))
        return "known"

    @operation
    async def ask_back(self) -> str:
        return await self.desk.name()

    # -- waiting

    async def _wait(self) -> str:
        deadline = current_context().deadline
        self.seen.append(None if deadline is None else deadline - self.clock.seconds())  # no two hosts have one clock
        self.arrived.callback(None)
        try:
            await self.given
        except asyncio.CancelledError:
            self.seen.append("stopped")
            raise
        self.seen.append("went on")
        return "done"

    @get("/slow")
    async def slow_read(self) -> str:
        return await self._wait()

    @post("/slow")
    async def slow_write(self) -> str:
        return await self._wait()

    # -- answers of every kind

    @get("/text")
    async def text(self, kind: str) -> Response:
        return {
            "html": Response("<p>é</p>", 200, [("Content-Type", "text/html"), ("X-Two", "1"), ("X-Two", "2")], ["a=1"]),
            "json": Response({"a": Decimal("1.5")}, 202),
            "bytes": Response(b"\0\xff"),
            "nothing": Response(),
            "moved": Response(None, 303, [("location", "/elsewhere")]),
            "stream": Response(Stream(self._count(2), "text/plain")),
        }[kind]

    @get("/octets")
    async def octets(self) -> bytes:
        return b"\0\xff"

    @get("/nothing")
    async def nothing(self) -> None: ...

    @get("/maybe")
    async def perhaps(self, there: bool) -> Bill | None:
        return None

    # -- streams

    async def _count(self, to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n

    @get("/lines")
    async def lines(self, to: int, broken: bool = False) -> AsyncIterator[Line | Fee]:
        try:
            for n in range(to):
                self.seen.append(current_context().request_id)
                yield Line("é\n", Decimal(n)) if n % 2 else Fee(n)
            if broken:
                raise self.given
        finally:
            self.seen.append("closed")

    @get("/halting")
    async def halting(self) -> AsyncIterator[int]:
        yield 1
        await self.given
        yield 2
        yield 3

    @get("/at-once")
    def lines_at_once(self) -> AsyncIterator[str]:
        return self._texts()

    async def _texts(self) -> AsyncIterator[str]:
        yield "a\n"
        yield ""
        yield "é"

    @get("/blob")
    async def blob(self) -> AsyncIterator[bytes]:
        yield b"\0\n"
        yield b"\xff"

    @get("/csv")
    async def csv(self) -> Stream:
        async def rows() -> AsyncIterator[str]:
            yield "a;b\n"
            yield "é;1\n"

        return Stream(rows(), "text/csv")

    @get("/refused", raises=(CardDeclined,))
    async def refused_stream(self) -> Stream:
        raise CardDeclined("no")

    # -- for HTTP alone

    @get("/headers")
    async def headers(self, request: IRequest = given) -> dict[str, str]:
        return {name.decode().lower(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()}

    @get("/tenant")
    async def tenant(self, tenant: Annotated[str, Header("X-Tenant")]) -> str:
        return tenant

    @get("/old/<int:number>")
    async def moved(self, number: int) -> Response:
        return Response(None, 302, [("location", f"../new/{number}")])

    @get("/new/<int:number>")
    async def found(self, number: int) -> int:
        return number


class Desk(Service, name="desk"):
    """Calls the till, and is called by the front."""

    def __init__(self, till: Till, workers: Workers, tcp: IReactorTCP) -> None:
        self.till = till
        self.workers = workers
        self.reactor: Any = tcp  # itself: what an IReactorTime calls has its context already

    @operation
    async def name(self) -> str:
        return "desk"

    @operation(raises=(CardDeclined,))
    async def pay(self) -> None:
        await self.till.fail()

    @operation
    async def pay_and_look(self) -> str:
        try:
            await self.till.fail()
        except CardDeclined as error:
            return f"{error.detail} {error.members}"
        return ""

    @operation
    async def ask_until(self, seconds: float) -> str:
        async with asyncio.timeout(seconds):
            return await self.till.slow_read()

    @get("/slow")
    async def slow_read(self) -> str:
        return await self.till.slow_read()

    @get("/slow-write")
    async def slow_write(self) -> str:
        return await self.till.slow_write()

    @delete("/slow")
    async def stubborn(self) -> str:
        return await self.till.slow_read()

    @operation
    async def who(self) -> str:
        return await self.till.who()

    @operation
    async def ring(self) -> str:
        return await self.till.ask_back()

    @operation
    async def in_a_thread(self) -> list[Any]:
        def work() -> list[Any]:
            return [wait(self.till.count()), wait(self.till.who())]

        return await self.workers.thread(work)

    @operation
    def deferred(self) -> Deferred[list[int]]:
        return gatherResults([self.till.count(), self.till.count()])

    @operation
    async def together(self) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.till.count()) for _ in range(2)]
        more = await asyncio.gather(self.till.count(), self.till.who())
        return [*(task.result() for task in tasks), *more, *await settled(self.till.count(), self.till.who())]

    @operation
    def by_callback(self) -> Deferred[str]:
        asked: Deferred[None] = Deferred()
        asked.addCallback(bound(lambda _: self.till.who()))
        self.reactor.callLater(0, asked.callback, None)
        return asked

    @get("/relay")
    async def relay(self) -> AsyncIterator[str]:
        for _ in range(2):
            yield await self.till.who()


class Front(Service, name="front"):
    """Where the tests stand: its clients are what they call."""

    def __init__(
        self,
        desk: Desk,
        till: Till,
        known: TillContract,
        http: HTTPClient,
        patient: Annotated[Impatient, Client(timeout=0.05)],
    ) -> None:
        self.desk = desk
        self.till = till
        self.known = known
        self.http = http
        self.patient = patient

    app = Klein()

    @app.route("/raw")
    async def raw(self, request: IRequest) -> str:
        first = await self.till.who()
        later = await self.desk.who()
        return f"{first} {later}"

    @app.route("/raw/plain")
    def plain(self, request: IRequest) -> Any:
        return self.till.who().addCallback(bound(lambda answer: self.desk.who()))

    @app.route("/raw/old")
    @inlineCallbacks
    def old(self, request: IRequest) -> Any:
        first = yield self.till.who()
        return first + " " + (yield self.desk.who())

    @app.route("/raw/stream")
    async def stream(self, request: IRequest) -> str:
        return " ".join([str(line) async for line in self.till.lines(2)])


class Impatient(Service, name="impatient"):
    """What is called with a timeout of the edge."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    @post("/slow")
    async def slow(self) -> None:
        try:
            await Deferred()
        except asyncio.CancelledError:
            self.ends.append("stopped")
            raise


SERVICES: dict[str, type[Service]] = {"front": Front, "desk": Desk, "till": Till, "impatient": Impatient}


class System:
    """All of them, running."""

    reactor: Any = reactor

    def __init__(self, data: Path, *, split: bool) -> None:
        processes = {f"p{name}": {"services": [name]} for name in SERVICES} if split else {}
        file = SystemFile(
            services={name: f"{__name__}:{cls.__name__}" for name, cls in SERVICES.items()},
            processes=processes,
            system={"secret": "a secret that only tests know"},
        )
        config = Config(file=file, target="test", folder=data, origins={}, environment={})
        made: Placement = place(config)
        self.placement = Placement(dict(made.places), made.workers)
        self.processes = [
            Process(
                config,
                self.placement,
                name,
                reactor,
                data=data,
                random=Random(name),  # two that draw alike would give two spans one id
                listen=self._listen,
                drain_delay=0,
                on_failure=self._failures().append,
            )
            for name in self.placement.processes
        ]
        self.driver = self.processes[0].driver
        self.clock = self.processes[0].clock

    def _failures(self) -> list[BaseException]:
        self.failures: list[BaseException] = getattr(self, "failures", [])
        return self.failures

    async def _listen(self, site: Any, description: str) -> Any:
        """On any free port, of which the others then know."""
        port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        for name, there in self.placement.places.items():
            if there.listen == description:
                url = f"http://127.0.0.1:{port.getHost().port}"
                self.placement.places[name] = msgspec.structs.replace(there, urls=(url,))  # type: ignore[index]
        return port

    async def start(self) -> None:
        for process in self.processes:
            process.startService()
            await process._started
        assert [] == self.failures

    async def stop(self) -> None:
        for process in self.processes:
            await process.stopService()

    def service(self, name: str) -> Any:
        return next(process.services[name] for process in self.processes if name in process.services)

    def url(self, name: str) -> str:
        return self.placement.places[name].urls[0]

    def drive(self, test: Coroutine[Any, Any, None]) -> Any:
        return self.driver.run(test)

    def failures_left(self) -> list[str]:
        return []  # that each is in the log, and found there

    def needs_threads(self, why: str) -> None:
        """They are here."""


class Simulated:
    """All of them in a World, each on a host of its own; a test stands on the front's."""

    def __init__(self) -> None:
        self.world = World(list(SERVICES.values()), instances=1)
        self.front = self.world.processes["front/1"]
        self.reactor, self.driver, self.clock = self.front.reactor, self.front.driver, self.front.clock

    async def start(self) -> None:
        """It has."""

    async def stop(self) -> None:
        self.world.close()

    def service(self, name: str) -> Any:
        return self.world.processes[f"{name}/1"].services[name]

    def url(self, name: str) -> str:
        return self.front.placement.places[name].urls[0]

    def drive(self, test: Coroutine[Any, Any, None]) -> None:
        self.world.run(test)

    def failures_left(self) -> list[str]:
        return self.world.flush_failures()

    def needs_threads(self, why: str) -> None:
        pytest.skip(f"There are no threads in a World, and {why}.")


KINDS: dict[str, Callable[[Path], System | Simulated]] = {
    "colocated": lambda data: System(data, split=False),
    "remote": lambda data: System(data, split=True),
    "simulated": lambda data: Simulated(),
}


def driven(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    """A test that waits: for the reactor, or in virtual time."""

    @wraps(test)
    def drive(house: House, **others: Any) -> Any:
        return house.system.drive(test(house, **others))

    return drive


PATIENCE = 5.0  # seconds; nothing here takes one


async def until(condition: Callable[[], bool]) -> None:
    """Let time pass until it is true."""
    waited = 0.0
    while not condition():
        assert waited < PATIENCE, "it never came true"
        await asyncio.sleep(0.005)
        waited += 0.005


@pytest_twisted.async_yield_fixture(scope="module", params=KINDS)
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System | Simulated]:
    system = KINDS[request.param](tmp_path_factory.mktemp("data"))
    before = set(reactor.getDelayedCalls())  # type: ignore[attr-defined]
    await system.driver.run(system.start())
    yield system
    await system.driver.run(system.stop())
    left = [call for call in reactor.getDelayedCalls() if call not in before]  # type: ignore[attr-defined]
    assert [] == left, "something was left behind"


class House:
    """What a test sees of the running system."""

    def __init__(self, system: System | Simulated) -> None:
        self.system = system
        self.reactor = system.reactor
        self.front: Any = system.service("front")
        self.desk: Any = self.front.desk
        self.till: Any = self.front.till
        self.inside: Till = system.service("till")
        self.inside.seen.clear()
        self.inside.given = None
        self.inside.arrived = Deferred()

    def run(self, awaitable: Any, context: Context | None = None, principal: Principal | None = None) -> Any:
        """What it answers or raises, called from within an operation of the front."""
        return self.start(awaitable, context, principal).addTimeout(PATIENCE, self.reactor)

    def start(self, awaitable: Any, context: Context | None = None, principal: Principal | None = None) -> Any:
        call = awaitable if callable(awaitable) else lambda: awaitable
        with within(context or Context(service="front"), principal or Principal()):
            return self.system.driver.run(awaited(call))

    @property
    def now(self) -> float:
        return self.system.clock.seconds()


@contextmanager
def within(context: Context, principal: Principal) -> Iterator[None]:
    entered = enter(Request(Foreign("outside"), {}, context, principal))
    try:
        yield
    finally:
        leave(entered)


async def awaited(call: Callable[[], Any]) -> Any:
    return await call()


@pytest.fixture
def house(running: System | Simulated) -> Iterator[House]:
    yield House(running)
    assert [] == running.failures_left()


@pytest.fixture
def flush_logged_errors(flush_logged_errors: Callable[..., Any], running: System | Simulated) -> Callable[..., Any]:
    """As everywhere; a World has heard of them too."""

    def flush(*types: type[BaseException]) -> Any:
        running.failures_left()
        return flush_logged_errors(*types)

    return flush


BILL = Bill(
    UUID(int=7),
    [Line("é\0", Decimal("1.10")), Fee(0.1)],
    {"ada": Guest("Ada", date(2000, 1, 1)), "ben": Guest("Ben")},
    Card("1234"),
    {Kind.DOUBLE},
)


# -- arguments and results


@driven
async def test_arguments_and_results_are_copies_by_type(house):
    answer = await house.run(lambda: house.till.echo(BILL))

    (arrived,) = house.inside.seen
    assert (BILL, BILL) == (arrived, answer)
    assert 3 == len({id(bill) for bill in (BILL, arrived, answer)})
    assert 3 == len({id(bill.guests["ada"]) for bill in (BILL, arrived, answer)})


@driven
async def test_arguments_go_by_position_and_by_name_and_the_callee_fills_in_its_defaults(house):
    night = date(2027, 5, 1)

    async def looks():
        return [
            await house.till.look(7, "a b?/".replace("/", ""), night),
            await house.till.look(7, guest="é%", night=night, kinds=[Kind.SINGLE], page=2, note=""),
            await house.till.look(guest="..", room=0, night=night, kinds=[], note=None),
        ]

    assert [
        ["7", "'a b?'", repr(night), "[]", "1", "None"],
        ["7", "'é%'", repr(night), "[<Kind.SINGLE: 'single'>]", "2", "''"],
        ["0", "'..'", repr(night), "[]", "1", "None"],
    ] == await house.run(looks())


@driven
async def test_objects_travel_in_queries_forms_and_paths(house):
    wanted = Filter("Reggio nell'Emilia", None, ("a&b", ""))

    async def asked():
        return [
            await house.till.search(wanted),
            await house.till.sign(wanted),
            await house.till.note("a/b c/é", {"x": "y"}),
        ]

    assert [wanted, wanted, "a/b c/é"] == await house.run(asked())


WRONG = {
    "too few": lambda till: till.echo(),
    "too many": lambda till: till.echo(BILL, BILL),
    "unknown name": lambda till: till.echo(bill=BILL, tip=1),
    "twice": lambda till: till.look(1, "a", room=2, night=date(2027, 1, 1)),
    "negative in a path": lambda till: till.look(-1, "a", date(2027, 1, 1)),
    "slash in a segment": lambda till: till.look(1, "a/b", date(2027, 1, 1)),
    "empty segment": lambda till: till.look(1, "", date(2027, 1, 1)),
    "no wire form": lambda till: till.echo(object()),
    "no text": lambda till: till.note("a", {"x": "\ud800"}),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
@driven
async def test_a_wrong_call_is_a_type_error_and_reaches_nobody(house, call):
    with pytest.raises(TypeError):
        await house.run(lambda: call(house.till))

    assert [] == house.inside.seen


@driven
async def test_a_value_the_callee_does_not_take_is_refused_with_its_reason(house):
    with pytest.raises(Unprocessable) as refused:
        await house.run(lambda: house.till.small(10))

    error = refused.value
    assert ("/number: Expected an integer, at most 9, got 10.", "no", "till") == (error.detail, error.ran, error.met_at)


@driven
async def test_a_body_larger_than_the_callee_takes_is_refused(house):
    with pytest.raises(ContentTooLarge) as refused:
        await house.run(lambda: house.till.note("a", {"x": "y" * 100}))

    assert ("till.note takes 100 bytes, the body has 108.", {"max_body": 100}) == (
        refused.value.detail,
        refused.value.members,
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "html",
            Response(
                "<p>é</p>".encode(),
                200,
                [("content-type", "text/html; charset=utf-8"), ("x-two", "1"), ("x-two", "2")],
                ("a=1",),
            ),
        ),
        ("json", Response(b'{"a":"1.5"}', 202, [("content-type", "application/json")])),
        ("bytes", Response(b"\0\xff", 200, [("content-type", "application/octet-stream")])),
        ("nothing", Response(b"", 200, [])),
        ("moved", Response(b"", 303, [("location", "/elsewhere")])),
        ("stream", Response(b"01", 200, [("content-type", "text/plain")])),
    ],
)
@driven
async def test_an_operation_that_says_itself_what_goes_out_answers_a_response_of_bytes(house, kind, expected):
    answer = await house.run(lambda: house.till.text(kind))

    assert expected == msgspec.structs.replace(answer, headers=sorted(answer.headers))


@driven
async def test_bytes_and_nothing_come_as_they_are(house):
    async def asked():
        return [
            await house.till.octets(),
            await house.till.nothing(),
            await house.till.perhaps(there=False),
            await house.till.close_day(date(2027, 1, 1)),
        ]

    assert [b"\0\xff", None, None, None] == await house.run(asked())


# -- what a client is


@driven
async def test_a_client_is_the_sibling_as_far_as_types_go_and_has_its_operations_alone(house):
    assert isinstance(house.till, Till)
    assert isinstance(house.front.known, TillContract)
    with pytest.raises(AttributeError) as unknown:
        _ = house.till.seen
    assert str(unknown.value).startswith(
        "'seen' is not an operation of till, which is a sibling here; its operations: "
    )
    with pytest.raises(AttributeError, match="takes what only HTTP can bring"):
        _ = house.till.tenant


@driven
async def test_a_contract_in_other_words_reaches_the_same_operations(house):
    night = date(2027, 5, 1)

    async def asked():
        return [
            await house.front.known.echo(BILL),
            await house.front.known.look(3, "Ada", night, page=4),
            await house.front.known.close(night),
        ]

    assert [BILL, ["3", "'Ada'", repr(night), "[]", "4", "None"], None] == await house.run(asked())


@driven
async def test_an_operation_that_is_not_there_is_not_found(house):
    with pytest.raises(NotFound) as missing:
        await house.run(lambda: house.front.known.unheard_of())

    assert ("Nothing is here.", "till") == (missing.value.detail, missing.value.met_at)


@pytest.mark.parametrize(
    "call", [lambda house: house.till.wrong(), lambda house: house.front.known.count()], ids=["callee", "caller"]
)
@driven
async def test_an_answer_of_another_type_is_unavailable(house, call):
    with pytest.raises(Unavailable, match=r"^till\.\w+ was answered with what is not its result: "):
        await house.run(lambda: call(house))


@driven
async def test_an_answer_that_cannot_be_sent_is_a_failure_and_in_the_log(house, flush_logged_errors):
    with pytest.raises(RopewalkError) as failed:
        await house.run(lambda: house.till.unsendable())

    assert (RopewalkError, 500, "") == (type(failed.value), failed.value.status, failed.value.detail)
    assert ["Encoding objects of type object is unsupported"] == [f.getErrorMessage() for f in flush_logged_errors()]


@driven
async def test_siblings_that_name_each_other_call_each_other(house):
    assert "desk" == await house.run(lambda: house.desk.ring())


# -- errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CardDeclined("limit", left=3), (CardDeclined, 409, "limit", {"left": 3}, "caller", "yes", False)),
        (OutOfOrder("paper", tray=None), (OutOfOrder, 507, "paper", {"tray": None}, "callee", "yes", False)),
        (NotFound("undeclared"), (NotFound, 404, "undeclared", {}, "caller", "yes", False)),
        (Unavailable("full", status=502), (Unavailable, 502, "full", {}, "callee", "yes", False)),
        (TooManyRequests("slow down"), (TooManyRequests, 429, "slow down", {}, "caller", "yes", False)),
    ],
)
@pytest.mark.parametrize("name", ["fail", "fail_later"])
@driven
async def test_a_sibling_s_error_comes_back_as_the_same_class_and_says_that_it_ran(house, name, error, expected):
    house.inside.given = error

    with pytest.raises(RopewalkError) as met:
        await house.run(lambda: getattr(house.till, name)())

    got = met.value
    assert expected == (type(got), got.status, got.detail, got.members, got.fault, got.ran, got.retryable)
    assert (error is not got, "till") == (True, got.met_at)


@driven
async def test_when_to_come_back_travels_with_an_error(house):
    house.inside.given = TooManyRequests("later", headers=[("Retry-After", "3"), ("X-Other", "1")])

    with pytest.raises(TooManyRequests) as met:
        await house.run(lambda: house.till.fail())

    assert [("retry-after", "3")] == [(name.lower(), value) for name, value in met.value.headers]


@driven
async def test_an_unexpected_exception_is_an_error_without_details(house, flush_logged_errors):
    house.inside.given = ValueError("secret")

    with pytest.raises(RopewalkError) as met:
        await house.run(lambda: house.till.fail())

    got = met.value
    assert (RopewalkError, 500, "", {}, "maybe", "till") == (
        type(got),
        got.status,
        got.detail,
        got.members,
        got.ran,
        got.met_at,
    )
    flush_logged_errors(ValueError)


@driven
async def test_a_declared_error_passes_through_the_one_that_called(house):
    house.inside.given = CardDeclined("limit", left=3)

    with pytest.raises(CardDeclined) as met:
        await house.run(lambda: house.desk.pay())

    assert ("limit", {"left": 3}, "desk") == (met.value.detail, met.value.members, met.value.met_at)
    assert "limit {'left': 3}" == await house.run(lambda: house.desk.pay_and_look())


@pytest.mark.parametrize("error", [OutOfOrder("paper"), NotFound("x"), Unavailable("down"), TooManyRequests("x")])
@driven
async def test_an_undeclared_error_of_a_sibling_is_unavailable_with_its_cause_to_those_further_out(house, error):
    house.inside.given = error

    with pytest.raises(Unavailable) as met:
        await house.run(lambda: house.desk.pay())

    assert (
        502,
        "desk.pay could not finish: till failed.",
        {"cause": {"type": error.type, "status": error.status, "from": "till"}},
    ) == (met.value.status, met.value.detail, met.value.members)


# -- what travels


CONTEXT = Context(request_id="r-1", priority=2, tenant="north", key="k-1", baggage="a=1", service="front")
ADA = Principal(subject="ada", scopes=frozenset({"rooms:read"}))


@driven
async def test_who_asks_and_for_whom_travels_from_hop_to_hop(house):
    await house.run(lambda: house.till.who(), CONTEXT, ADA)
    await house.run(lambda: house.desk.who(), CONTEXT, ADA)
    await house.run(lambda: house.till.who())

    assert [
        Principal("front", "ada", ADA.scopes),
        Principal("desk", "ada", ADA.scopes),
        Principal("front", None, frozenset()),
    ] == [principal for principal, *_ in house.inside.seen]
    assert all(principal == ambient for principal, _, _, ambient in house.inside.seen)


@driven
async def test_one_request_id_and_one_trace_for_all_that_one_request_caused(house):
    await house.run(lambda: house.desk.who(), CONTEXT)

    ((_, context, ambient, _),) = house.inside.seen
    assert context == ambient
    assert ("r-1", "north", "a=1", "till", "till.who", 1) == (
        context.request_id,
        context.tenant,
        context.baggage,
        context.service,
        context.operation,
        context.attempt,
    )


@driven
async def test_spans_nest_from_hop_to_hop(house):
    await house.run(lambda: house.till.who(), CONTEXT)
    await house.run(lambda: house.desk.who(), CONTEXT)

    (_, first, _, _), (_, second, _, _) = house.inside.seen
    assert first.trace.trace_id != second.trace.trace_id
    for trace in (first.trace, second.trace):
        assert 32 == len(trace.trace_id)
        assert trace.span_id != trace.parent_id
        assert 16 == len(trace.parent_id)


@driven
async def test_a_request_that_came_from_nowhere_gets_an_id(house):
    await house.run(lambda: house.till.who())

    ((_, context, _, _),) = house.inside.seen
    assert context.request_id


# -- deadlines


@driven
async def test_a_deadline_shrinks_from_hop_to_hop_and_never_grows(house):
    house.inside.given = Deferred()
    call = house.start(lambda: house.desk.slow_read(), msgspec.structs.replace(CONTEXT, deadline=house.now + 30))
    await house.inside.arrived

    house.inside.given.callback(None)

    assert "done" == await call
    assert 29 < house.inside.seen[0] <= 30


@driven
async def test_a_call_has_a_deadline_even_when_nobody_gave_it_one(house):
    house.inside.given = Deferred()
    call = house.start(lambda: house.till.slow_read())
    await house.inside.arrived

    house.inside.given.callback(None)

    await call
    assert 9 < house.inside.seen[0] <= 10


@pytest.mark.parametrize("name", ["slow_read", "slow_write"])
@driven
async def test_at_its_deadline_a_call_ends_at_both_ends(house, name):
    house.inside.given = Deferred()

    with pytest.raises(DeadlineExceeded) as late:
        await house.run(lambda: getattr(house.till, name)(), msgspec.structs.replace(CONTEXT, deadline=house.now + 0.1))

    assert ("till", 504) == (late.value.met_at, late.value.status)
    await until(lambda: "stopped" in house.inside.seen)


@driven
async def test_an_edge_has_a_timeout_of_its_own(house):
    inside = house.system.service("impatient")

    with pytest.raises(DeadlineExceeded):
        await house.run(lambda: house.front.patient.slow())

    await until(lambda: inside.ends == ["stopped"])


@driven
async def test_a_deadline_that_has_passed_is_not_begun(house):
    with pytest.raises(DeadlineExceeded) as late:
        await house.run(lambda: house.till.who(), msgspec.structs.replace(CONTEXT, deadline=house.now - 1))

    assert ("no", []) == (late.value.ran, house.inside.seen)


# -- being given up


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("slow_read", "stopped"),  # may be cancelled here and there
        ("slow_write", "went on"),  # may be cancelled here, not there
        ("stubborn", "went on"),  # may not be cancelled here
    ],
)
@driven
async def test_what_is_cancellable_is_cancelled_all_the_way_down_and_what_is_not_goes_on(house, name, end):
    house.inside.given = Deferred()
    call = house.start(lambda: getattr(house.desk, name)())
    call.addErrback(lambda _: None)
    await house.inside.arrived

    call.cancel()

    if end == "stopped":
        await until(lambda: "stopped" in house.inside.seen)
    else:
        await house.run(lambda: house.till.count())  # time enough for bad news to travel
        assert 1 == len(house.inside.seen)
        house.inside.given.callback(None)
        await until(lambda: "went on" in house.inside.seen)


@driven
async def test_a_caller_s_own_timeout_gives_the_call_up(house, flush_logged_errors):
    house.inside.given = Deferred()

    with pytest.raises(RopewalkError):
        await house.run(lambda: house.desk.ask_until(0.05))

    await until(lambda: "stopped" in house.inside.seen)
    flush_logged_errors(TimeoutError)


# -- streams


@driven
async def test_a_stream_comes_piece_by_piece_by_type(house):
    async def read():
        return [piece async for piece in house.till.lines(3)]

    pieces = await house.run(read(), CONTEXT)

    assert [Fee(0.0), Line("é\n", Decimal(1)), Fee(2.0)] == pieces
    await until(lambda: ["r-1", "r-1", "r-1", "closed"] == house.inside.seen)


@driven
async def test_texts_bytes_and_other_media_come_as_they_went(house):
    async def read():
        return [
            [piece async for piece in house.till.lines_at_once()],
            b"".join([piece async for piece in house.till.blob()]),
            b"".join([piece async for piece in await house.till.csv()]),
            [piece async for piece in await house.desk.relay()],
        ]

    assert [["a\n", "", "é"], b"\0\n\xff", "a;b\né;1\n".encode(), ["known", "known"]] == await house.run(
        read(), CONTEXT, ADA
    )
    assert [Principal("desk", "ada", ADA.scopes)] * 2 == [seen[0] for seen in house.inside.seen]
    assert {"r-1"} == {seen[1].request_id for seen in house.inside.seen}


@driven
async def test_a_stream_that_fails_midway_is_broken_off_and_never_taken_for_whole(house, flush_logged_errors):
    house.inside.given = CardDeclined("midway")
    pieces = []

    async def read():
        async for piece in house.till.lines(2, broken=True):
            pieces.append(piece)

    with pytest.raises(Unavailable) as broken:
        await house.run(read())

    assert (2, "network", "maybe") == (len(pieces), broken.value.fault, broken.value.ran)
    assert ["midway"] == [failure.getErrorMessage() for failure in flush_logged_errors(CardDeclined)]


@driven
async def test_an_error_before_the_first_piece_is_the_callee_s_error(house):
    async def read():
        return [piece async for piece in house.till.refused_stream()]

    with pytest.raises(CardDeclined, match="no"):
        await house.run(read())


@driven
async def test_a_stream_that_its_reader_leaves_is_closed_at_the_other_end(house):
    async def first():
        pieces = house.till.lines(1_000_000)
        piece = await anext(pieces)
        await pieces.aclose()
        return piece

    assert Fee(0.0) == await house.run(first())
    await until(lambda: "closed" == house.inside.seen[-1])


@driven
async def test_a_reader_that_leaves_when_the_rest_is_there_already_takes_no_later_call_along(house):
    house.inside.given = Deferred()

    async def read_two_and_ask():
        pieces = house.till.halting()
        first = await anext(pieces)
        house.inside.given.callback(None)
        second = await anext(pieces)
        another = asyncio.create_task(awaited(lambda: house.till.count()))  # begins in the next turn
        await pieces.aclose()
        return first, second, await another

    assert (1, 2, 3) == await house.run(read_two_and_ask())


# -- from wherever it is called


@driven
async def test_calls_are_awaited_by_whatever_the_caller_likes(house):
    assert [3, 3] == await house.run(lambda: house.desk.deferred())
    assert [3, 3, 3, "known", 3, "known"] == await house.run(lambda: house.desk.together())


@pytest.mark.parametrize("name", ["in_a_thread", "by_callback"])
@driven
async def test_the_context_is_there_in_threads_and_callbacks(house, name):
    if name == "in_a_thread":
        house.system.needs_threads("wait() blocks the one that calls it")

    await house.run(lambda: getattr(house.desk, name)(), CONTEXT, ADA)

    ((principal, context, _, _),) = house.inside.seen
    assert (Principal("desk", "ada", ADA.scopes), "r-1") == (principal, context.request_id)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/raw", "known known"), ("/raw/plain", "known"), ("/raw/old", "known known")],
)
@driven
async def test_raw_klein_code_calls_as_operations_do(house, path, expected):
    async def asked():
        reply = await treq.get(
            house.system.url("front") + path,
            headers={"ropewalk-request-id": "r-2"},
            persistent=False,
            reactor=house.reactor,
        )
        return reply.code, await reply.text()

    assert (200, expected) == await house.run(asked())
    assert {("front", "r-2"), ("desk", "r-2")} == {(seen[0].service, seen[1].request_id) for seen in house.inside.seen}


@driven
async def test_raw_klein_code_reads_streams(house):
    async def asked():
        reply = await treq.get(house.system.url("front") + "/raw/stream", persistent=False, reactor=house.reactor)
        return reply.code, (await reply.content()).decode()

    assert (200, f"{Fee(0.0)} {Line('é' + chr(10), Decimal(1))}") == await house.run(asked())


# -- as HTTP


@driven
async def test_treq_reaches_a_sibling_by_name_with_the_caller_s_context(house):
    async def asked():
        reply = await house.front.http.get("sibling://till/headers", headers={"x-own": "1"})
        return await reply.json()

    headers = await house.run(asked(), CONTEXT, ADA)

    assert ("r-1", "north", "2", "k-1", "a=1", "1") == tuple(
        headers[name]
        for name in (
            "ropewalk-request-id",
            "ropewalk-tenant",
            "ropewalk-priority",
            "idempotency-key",
            "baggage",
            "x-own",
        )
    )
    assert {"ropewalk-identity"} <= set(headers)


@driven
async def test_treq_follows_a_sibling_s_relative_redirect(house):
    async def asked():
        reply = await house.front.http.get("sibling://till/old/7")
        return reply.code, await reply.json()

    assert (200, 7) == await house.run(asked())


@driven
async def test_a_problem_of_a_sibling_is_a_plain_reply_to_treq(house):
    async def asked():
        reply = await house.front.http.post("sibling://till/-/till/1/small", json={"number": 10})
        return reply.code, reply.headers.getRawHeaders("content-type"), (await reply.json())["type"]

    assert (422, ["application/problem+json"], Unprocessable.type) == await house.run(asked())


@driven
async def test_a_sibling_that_nobody_knows_is_unavailable(house):
    with pytest.raises(Unavailable, match=r"^sibling://nobody: no instance of nobody is known\.$"):
        await house.run(lambda: house.front.http.get("sibling://nobody/"))


@driven
async def test_a_plain_url_gets_nothing_of_ours(house):
    seen: list[Headers] = []

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            seen.append(request.requestHeaders)
            request.setHeader(b"connection", b"close")
            return b"ok"

    site = Site(Page(), reactor=house.reactor)
    site.log = lambda request: None  # type: ignore[method-assign]

    async def asked():
        port = await serverFromString(house.reactor, "tcp:0:interface=127.0.0.1").listen(site)
        try:
            reply = await house.front.http.get(f"http://127.0.0.1:{port.getHost().port}/")
            return await reply.text()
        finally:
            await maybeDeferred(port.stopListening)

    assert "ok" == await house.run(asked(), CONTEXT, ADA)
    names = {name.decode().lower() for name, _ in seen[0].getAllRawHeaders()}
    assert set() == {name for name in names if name.startswith(("ropewalk", "baggage", "trace", "idempotency"))}


@driven
async def test_a_lost_client_cancels_what_is_cancellable_all_the_way_down(house):
    house.inside.given = Deferred()
    agent = Agent(house.reactor)
    lost = agent.request(b"GET", f"{house.system.url('desk')}/slow".encode())
    lost.addErrback(lambda _: None)
    await house.inside.arrived

    lost.cancel()

    await until(lambda: "stopped" in house.inside.seen)


@pytest.mark.parametrize(("method", "path"), [(b"GET", "/slow-write"), (b"DELETE", "/slow")])
@driven
async def test_a_lost_client_does_not_cancel_what_is_not(house, method, path):
    house.inside.given = Deferred()
    lost = Agent(house.reactor).request(method, f"{house.system.url('desk')}{path}".encode())
    lost.addErrback(lambda _: None)
    await house.inside.arrived

    lost.cancel()

    await house.run(lambda: house.desk.who())
    house.inside.given.callback(None)
    await until(lambda: "went on" in house.inside.seen)
