"""What a filter is tested with: virtual time, a request, and a sibling that plays whatever part it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ropewalk.context import Context
from ropewalk.driver import Driver
from ropewalk.handler import Handler
from ropewalk.message import Request, Response


class Operation(msgspec.Struct, frozen=True):
    """What a filter may know of an operation."""

    id: str = "payments.charge"
    idempotent: bool = False
    safe: bool = False
    keyed: bool = False
    raises: tuple[type[Exception], ...] = ()
    cancellable: bool = False
    takes_stream: bool = False
    access: str = "siblings"
    scopes: frozenset[str] = frozenset()


class Sibling:
    """A handler that notes what it was asked, and answers, raises or waits as it was told."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answer: Any = Response("done")  # a Response, an exception, or an awaitable of one

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self.answer
        if not isinstance(answer, Response | BaseException):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Driver:
    return Driver.of(clock)


@pytest.fixture
def sibling() -> Sibling:
    return Sibling()


@pytest.fixture
def request_of() -> Callable[..., Request]:
    """`request_of(**facts of the operation)`, with `context=`, `principal=` and `metadata=` of the request."""

    def make(**facts: Any) -> Request:
        rest = {name: facts.pop(name) for name in ("context", "principal", "metadata") if name in facts}
        return Request(Operation(**facts), {}, **{"context": Context(service="payments"), **rest})

    return make


@pytest.fixture
def start(driver: Driver) -> Callable[[Handler, Request], Deferred[Response]]:
    """`start(handler, request)`: the Deferred of its answer. Its failure is taken, whoever looks at it."""

    def start(handler: Handler, request: Request) -> Deferred[Response]:
        outcome: Deferred[Response] = driver.run(handler(request))
        outcome.addErrback(lambda failure: failure.value)
        return outcome

    return start
