"""The hotel in one process and in virtual time: its real services, stacks and tables, without sockets and threads."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock as VirtualTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ropewalk import (
    Context,
    Database,
    DeadlineExceeded,
    InFlight,
    KeyCancelled,
    Principal,
    Request,
    Response,
    RopewalkError,
    Sagas,
    Service,
    Unavailable,
    Unprocessable,
    Workers,
    compose,
)
from ropewalk.context import enter_context
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.handler import Handler
from ropewalk.http.sibling_agent import SiblingAgent
from ropewalk.memory.broker import EmbeddedBroker
from ropewalk.memory.broker import metadata as broker_tables
from ropewalk.memory.connection import LocalConnection
from ropewalk.memory.store import open_sqlite
from ropewalk.message import enter_principal
from ropewalk.runtime.backstage import Backstage
from ropewalk.runtime.clock import WallClock
from ropewalk.runtime.inject import construct
from ropewalk.runtime.stacks import client_stack, server_stack
from ropewalk.service import Contract, describe
from ropewalk.sibling import client_of
from ropewalk.telemetry.metrics import Calls

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hotel"
sys.path.insert(0, str(EXAMPLE))  # as the system does that has its file there

STARTS_AT = "2026-05-01T09:00:00+00:00"
ALWAYS = (Unprocessable, DeadlineExceeded, InFlight, KeyCancelled)  # what any operation may answer, and need not list
TICK = 0.01  # seconds of virtual time: shorter than anything the hotel waits for


class InlineWorkers(Workers):
    """Workers whose threads and processes are this one."""

    def __init__(self) -> None:
        """Nothing is started."""

    async def thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def process(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Unhurried:
    """A client whose calls are coroutines, to be driven in virtual time; outside of a run a client's begin at once."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await getattr(self._client, name)(*args, **kwargs)

        return call


class _InTurn:
    """What events need of a reactor."""

    def __init__(self, time: Any) -> None:
        self._time = time

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._time.callLater(0, function, *args)


class House:
    """The services of the hotel, each behind its server stack; `client(cls)` is one's client, as a sibling has it."""

    def __init__(self, settings: Mapping[str, Mapping[str, Any]], seed: int = 0) -> None:
        """`settings`: those that differ from the defaults, by service; `seed`: of all chance and the order of turns."""
        from hotel.clock import Clock
        from hotel.hotels import Hotels
        from hotel.notifications import Notifications
        from hotel.payments import Payments
        from hotel.receipts import Receipts
        from hotel.reservations import Reservations
        from hotel.users import Users

        self.time = VirtualTime()
        self.random = Random(seed)
        self.driver = Driver.of(self.time)
        self.cut: set[str] = set()  # services nobody reaches
        self.undeclared: list[str] = []  # errors that met a caller who could not know of them
        self._settings = settings
        self._handlers: dict[str, Handler] = {}
        self.services: dict[str, Service] = {}
        began = settings.get("clock", {}).get("starts_at", STARTS_AT)
        self.now = lambda: datetime.fromisoformat(began).timestamp() + self.time.seconds()
        self.services["clock"] = Clock(self.time, WallClock(self.now))
        broker = EmbeddedBroker(lambda: self.database("broker", broker_tables), self.time, self.driver)
        self.backstage = Backstage(broker, self.time, self.random, self.driver, _InTurn(self.time), 86400.0)
        for cls in (Users, Notifications, Payments, Hotels, Reservations, Receipts):
            self._build(cls)
        clock: Any = self.services["clock"]
        self._web = RequestTraversalAgent(clock.app.resource())
        self.play(self.backstage.start())

    def _build(self, cls: type[Service]) -> None:
        name = describe(cls).name
        database, in_reactor = self.database(name, getattr(cls, "tables", None)), self.backstage.in_reactor
        things = {
            Database: lambda: database,
            Sagas: lambda: Sagas(cls, database, self.time, lambda heard: database.listen(in_reactor(heard))),
            Workers: InlineWorkers,
            Random: lambda: self.random,
            IReactorTime: lambda: self.time,
            HTTPClient: lambda: HTTPClient(SiblingAgent(self, self._address, self.time.seconds)),
        }
        service = construct(
            cls,
            things,
            lambda contract, policy: self.sibling(contract, name, policy.timeout),
            lambda settings: settings(**self._settings.get(name, {})),
        )
        meter: Any = Calls("ropewalk_server", "Requests", (("service", name),))
        self.services[name] = service
        stack = server_stack(clock=self.time, random=self.random, meter=meter, take_back=database.take_back)
        self._handlers[name] = compose(stack, dispatch(service))
        self.backstage.add(name, service, self._handlers[name], self._handlers[name], database)

    def client(self, contract: type[Contract]) -> Any:
        """A client of `contract` for a test; a call of it begins when it is played."""
        return Unhurried(self.sibling(contract, "test", None))

    def sibling(self, contract: type[Contract], caller: str, timeout: float | None) -> Any:
        """A client of `contract` for the service `caller`."""
        callee = describe(contract).name
        meter: Any = Calls("ropewalk_client", "Calls", (("caller", caller), ("callee", callee)))
        stack = client_stack(clock=self.time, random=self.random, meter=meter, timeout=timeout)

        async def reach(request: Request) -> Response:
            if callee in self.cut:
                raise Unavailable(f"{callee} cannot be reached.")
            service = type(self.services[callee])
            try:
                return await LocalConnection(caller, describe(service), self._handlers[callee])(request)
            except RopewalkError as error:
                if not isinstance(error, (*request.operation.raises, *ALWAYS)):
                    self.undeclared.append(f"{request.operation.id} raised {error!r}")
                raise

        return client_of(contract, compose(stack, reach), caller)

    def database(self, name: str, tables: Any) -> Database:
        """A database in memory; each transaction has its turn after a moment, so that others come between."""

        def in_a_while(function: Callable[[], Any]) -> Awaitable[Any]:
            return deferLater(self.time, self.random.random() * TICK, function)

        database = open_sqlite(name, None, tables, in_a_while, self.now)
        database.random, database.member = self.random, "the only one"
        return database

    # -- what SiblingAgent asks of an agent

    def _address(self, name: str) -> str | None:
        return f"http://{name}" if name == "clock" and name not in self.cut else None

    def request(self, *args: Any) -> Any:
        """The reply of the clock service, in memory."""
        return self._web.request(*args)

    # -- playing

    def play(self, *awaitables: Awaitable[Any], within: float = 60.0) -> Any:
        """What the awaitable returns or raises, in virtual time; of several at once a list, errors in their place."""
        outcomes: list[Any] = [None] * len(awaitables)
        for index, awaitable in enumerate(awaitables):
            self.driver.run(awaitable).addBoth(lambda value, index=index: outcomes.__setitem__(index, (value,)))
        waited = 0.0
        while None in outcomes:
            assert waited < within, f"{outcomes.count(None)} of {len(outcomes)} did not end within {within} seconds"
            self.pass_time(TICK)
            waited += TICK
        values = [value.value if isinstance(value, Failure) else value for (value,) in outcomes]
        if len(values) > 1:
            return values
        if isinstance(values[0], BaseException):
            raise values[0]
        return values[0]

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass, in steps."""
        end = self.time.seconds() + seconds
        while self.time.seconds() < end:
            self.time.advance(min(TICK, end - self.time.seconds()))
            self._web.flush()


async def asked_by(subject: str | None, call: Callable[[], Awaitable[Any]], key: str | None = None) -> Any:
    """What `call()` returns when that user asks, under an idempotency key if one is given."""
    enter_principal(Principal(subject=subject))
    enter_context(Context(key=key))
    return await call()


@pytest.fixture
def build() -> Iterator[Callable[..., House]]:
    """`build(seed=0, **settings)`: a House of its own; settings by service: `build(payments={"latency": 1.0})`.

    At the end no operation of it has raised what it does not declare.
    """
    built: list[House] = []

    def build(seed: int = 0, **settings: Mapping[str, Any]) -> House:
        cheap = {"time_cost": 1, "memory_cost": 8, "parallelism": 1}
        built.append(House({"users": cheap, **settings}, seed))
        return built[-1]

    yield build

    assert [raised for house in built for raised in house.undeclared] == []


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A House with the defaults, at nine o'clock UTC on 1 May 2026."""
    return build()


@pytest.fixture
def as_user() -> Callable[..., Awaitable[Any]]:
    """`as_user("ann", lambda: client.mine(), key=None)`: a call by that user, to be played."""
    return asked_by


@pytest.fixture
def example() -> Path:
    """The folder of the example."""
    return EXAMPLE
