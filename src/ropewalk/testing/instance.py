"""One instance of one service on its host: the runtime's own Process on a simulated reactor.

Here is what it is given in the place of threads, clocks and a store, and the filters that publish its moments and hold
each call to what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError

from ..codec.problem import to_problem
from ..discovery.resolve import Resolve
from ..errors import RopewalkError, Unavailable
from ..handler import Handler, compose
from ..http.sibling_agent import SiblingAgent
from ..message import ANONYMOUS, Principal, Request, Response
from ..operation import Operation
from ..policy.deadline import DEFAULT_TIMEOUT
from ..runtime.config import Config
from ..runtime.placement import Placement
from ..runtime.process import Process
from ..runtime.stacks import client_stack
from ..service import Client, Contract, Service
from ..sibling import client_of
from ..telemetry.logs import request_line
from ..telemetry.metrics import Calls
from . import carried
from .broker import SimulatedBroker
from .direct import Direct
from .hosts import Reactor
from .store import SimulatedStore
from .workers import SimulatedWorkers


class Instance(Process):
    """A service that runs on a simulated host."""

    def __init__(self, config: Config, placement: Placement, reactor: Reactor, world: Any, folder: Path) -> None:
        host = reactor.host
        self._world = world
        self.failure: BaseException | None = None
        self._timeouts: dict[tuple[str, str], float | None] = {}  # by caller and callee: of the edge
        super().__init__(
            config,
            placement,
            host.name,
            reactor,
            data=folder,
            now=partial(world.wall, host),
            random=world.chance(f"process/{host.name}/{len(host.past)}"),
            seconds=host.seconds,
            store=SimulatedStore(reactor, world),
            broker=SimulatedBroker(reactor, world),
            workers=SimulatedWorkers(reactor),
            drain_delay=0.0,
        )

    def _failed(self, failure: Any) -> None:
        if failure.check(Unavailable):  # its database is down: no failure of its own
            self._world.could_not_start(self.reactor)
        elif self.running or not failure.check(CancelledError):  # else it was to stop before it was ready
            self.failure = failure.value
            self._world.failed(self.reactor.host, failure)

    def _server_stack(self, name: str, done: Any = None, **options: Any) -> Sequence[Any]:
        return super()._server_stack(name, done or self._answered, **options)

    def _answered(self, request: Request, status: int, outcome: str, seconds: float, error: Any) -> None:
        made = asked_by(self._world, request)
        if made is not None:
            made.error = error
        # The rest is said by `Told`, and costs less.
        if isinstance(error, Exception) and not isinstance(error, RopewalkError):
            request_line(request, status, outcome, seconds, error)

    def _innermost(self, service: Service) -> Handler:
        return compose([AtMoments(self.reactor, self._world)], super()._innermost(service))

    def _client(self, caller: str, contract: type[Contract], policy: Client) -> Any:
        callee = self.config.keeper(contract)
        edge = self.config.file.edges.get(f"{caller} -> {callee}")
        self._timeouts[caller, callee] = policy.timeout if edge is None or edge.timeout is None else edge.timeout
        return super()._client(caller, contract, policy)

    def _connection(self, caller: str, callee: str, contract: type[Contract]) -> Handler:
        told = Told(self.reactor, self._world, callee, self._timeouts.get((caller, callee)))
        if self._world.wire == "direct":
            connection: Handler = Resolve(
                callee,
                lambda: self.placement.places[callee].urls,
                lambda address: Direct(self._world, self.reactor, caller, address, callee),
            )
        else:
            connection = super()._connection(caller, callee, contract)
        return compose([told], connection)

    def _watch_lag(self, due: float) -> None:
        """In virtual time a reactor is never late."""

    def handler_of(self, service: str) -> Handler:
        """Its server stack, for a call that is not made over HTTP."""
        return self._servers[service]


INSTANT = 0.001  # seconds: by so much a deadline that was sent in milliseconds may be off
GRACE = 1.0  # seconds after its deadline within which a call has ended


class UnderWay(Struct):
    """A call that was made and has not ended."""

    host: str
    service: str  # that calls
    began: float  # virtual seconds
    request: Request
    ran: bool = False  # whether the operation's own code has begun
    answer: tuple[Operation, Response] | None = None  # what that is at its callee, and has answered
    error: BaseException | None = None  # that the callee answered with


def key_of(span: str, request: Request) -> tuple[str, int]:
    """What tells one try of one call from all others: the caller's span, and which try it is."""
    return span, request.context.attempt


def asked_by(world: Any, request: Request) -> UnderWay | None:
    """The call that a request, as it came, was made by; None when nobody waits for it, or it is no client's."""
    trace = request.context.trace
    made: UnderWay | None = world.calls.get(key_of(trace.parent_id, request)) if trace is not None else None
    return made


class AtMoments:
    """The filter around the method itself: the moments before and after; whether the call came as it was made."""

    def __init__(self, reactor: Reactor, world: Any) -> None:
        self._reactor = reactor
        self._world = world

    async def __call__(self, request: Request, handler: Handler) -> Response:
        name = cast(Operation, request.operation).name
        self._world.asked[self._reactor.host.name] += 1
        made = self._compare(request)
        if made is not None and not isinstance(request.payload, Mapping):
            request = request.replace(payload=carried.Watched(request.payload, partial(self._read, made, request)))
        await self._world.moments.reach(self._reactor, f"before:{name}")
        try:
            with _in_time(self._world, self._reactor.host, request):
                response = await handler(request)
        except asyncio.CancelledError:
            self._was_due(request)
            raise
        if made is not None:
            made.answer = cast(Operation, request.operation), response
        await self._world.moments.reach(self._reactor, f"after:{name}")
        return response

    def _compare(self, request: Request) -> UnderWay | None:
        """The call that it was made by, if one waits for it: it comes once, in the name of whoever made it."""
        host, name = self._reactor.host, request.operation.id
        if request.context.deadline is None:
            self._world.wrong(host, f"{name} runs without a deadline")
        made = asked_by(self._world, request)
        if made is None:
            return None
        if made.ran:
            self._world.wrong(host, f"{name} was asked once and came twice")
        made.ran = True
        if request.principal.service is None:  # it did not say, and gets what the public gets
            return None
        if differs := carried.caller(made.service, made.request, request):
            self._world.wrong(host, f"{name} {differs}")
        return made

    def _read(self, made: UnderWay, request: Request, arguments: Mapping[str, Any]) -> None:
        differs = carried.arguments(made.request, cast(Operation, request.operation), arguments)
        if differs:
            self._world.wrong(self._reactor.host, f"{request.operation.id}: {differs}")

    def _was_due(self, request: Request) -> None:
        """Cancelled is what may be, what its deadline has caught, and what is stopping; nothing else."""
        host, deadline = self._reactor.host, request.context.deadline
        early = deadline is None or host.seconds() < deadline - INSTANT
        if early and not request.operation.cancellable and host.name not in self._world.stopping:
            self._world.wrong(host, f"{request.operation.id} may not be cancelled, and was, before its deadline")


class Told:
    """The filter before the wire: a call, how it ended, and the moments before and after it."""

    def __init__(self, reactor: Reactor, world: Any, callee: str, timeout: float | None) -> None:
        """`timeout`: seconds that its edge gives a call."""
        self._reactor = reactor
        self._world = world
        self._callee = callee
        self._timeout = timeout

    async def __call__(self, request: Request, handler: Handler) -> Response:
        operation, host, world = cast(Operation, request.operation), self._reactor.host, self._world
        await world.moments.reach(self._reactor, f"before:{operation.name}")
        world.tell(host, "call", operation.id, self._callee)
        span = request.context.trace.span_id if request.context.trace is not None else ""
        made = UnderWay(host.name, host.name.partition("/")[0], world.now, request)
        world.begin_call(key_of(span, request), made)
        deadline, latest = request.context.deadline, host.seconds() + (self._timeout or 0.0) + INSTANT
        if self._timeout is not None and (deadline is None or deadline > latest):
            world.wrong(host, f"{operation.id} may take longer than the {self._timeout:g} s of its edge")
        try:
            with _in_time(world, host, request):
                response = await handler(request)
            if made.error is not None:
                world.wrong(host, f"{operation.id} failed with {made.error!r}, and its caller got {response!r}")
            elif made.answer is not None:
                theirs, sent = made.answer
                if differs := carried.answer(theirs, sent, operation, response):
                    world.wrong(host, f"{operation.id}: {differs}")
        except RopewalkError as error:
            self._compare(made, error)
            world.tell(host, "error", f"{operation.id}: {type(error).__name__}", self._callee)
            raise
        except asyncio.CancelledError:
            world.tell(host, "error", f"{operation.id}: cancelled", self._callee)
            raise
        finally:
            world.calls.pop(key_of(span, request), None)
        world.tell(host, "answer", operation.id, self._callee)
        await world.moments.reach(self._reactor, f"after:{operation.name}")
        return response

    def _compare(self, made: UnderWay, error: RopewalkError) -> None:
        """What the caller is told is what became of it."""
        name, theirs = made.request.operation.id, made.error
        if error.fault == "network":
            if error.ran == "no" and made.ran:
                self._world.wrong(self._reactor.host, f"{name} ran, and its caller is told that it did not: {error!r}")
        elif isinstance(theirs, RopewalkError):
            sent, came = (msgspec.json.decode(msgspec.json.encode(to_problem(each))) for each in (theirs, error))
            if sent != came:
                self._world.wrong(self._reactor.host, f"{name} failed with {sent}, and its caller got {came}")


@contextmanager
def _in_time(world: Any, host: Any, request: Request) -> Iterator[None]:
    """Whatever ends long after its deadline is wrong, unless its process stood still meanwhile."""
    began, deadline = world.now, request.context.deadline
    try:
        yield
    finally:
        late = host.seconds() - deadline if deadline is not None else 0.0
        if late > GRACE and host.resumed < began and host.reactor.alive:
            world.wrong(host, f"{request.operation.id} ended {late:.3f} s after its deadline")


class SimulatedClient(Instance):
    """The caller outside: no service of its own, and a client of every one."""

    def __init__(self, config: Config, placement: Placement, reactor: Reactor, world: Any, folder: Path) -> None:
        self._shared: dict[str, Handler] = {}  # connections by callee
        super().__init__(config, placement, reactor, world, folder)

    def http(self) -> HTTPClient:
        """A treq client that knows the siblings."""
        return HTTPClient(SiblingAgent(self._agent, self._address, self.clock.seconds))

    def client(self, contract: type[Contract], principal: Principal) -> Any:
        """A client of `contract` whose calls are on behalf of `principal`."""
        callee = self.config.keeper(contract)
        meter = Calls("ropewalk_client", "Calls", (("caller", "outside"), ("callee", callee)))
        stack = client_stack(clock=self.clock, random=self._ids, meter=meter, timeout=DEFAULT_TIMEOUT)
        if callee not in self._shared:  # by all clients, or each would begin with the first instance
            self._shared[callee] = self._connection("outside", callee, contract)
        handler = compose(stack, self._shared[callee])

        def ask(request: Request) -> Awaitable[Response]:
            if request.principal == ANONYMOUS:
                request = request.replace(principal=principal)
            return handler(request)

        return client_of(contract, ask, "outside", self.driver)
