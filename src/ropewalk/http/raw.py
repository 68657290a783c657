"""What is no operation (a raw Klein application, a mounted one) behind the same filters: traced, measured, admitted.

It keeps its own semantics; the framework only stands before it, waits for its end, and answers an error of ours that it
lets out as an operation does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET

from ..dispatch import as_it_leaves
from ..driver import Driver, Run
from ..errors import RopewalkError
from ..handler import Handler
from ..message import Request, Response, enter, leave
from ..telemetry.propagation import extract
from .heads import abort, read_headers, write_problem


class Foreign(Struct, frozen=True):
    """What filters know of a request that no operation answers."""

    id: str
    access: str = "siblings"
    idempotent: bool = False
    safe: bool = True  # its own affair: what it takes is not known, and so no key of it
    keyed: bool = False
    raises: tuple[type[RopewalkError], ...] = ()
    cancellable: bool = True
    takes_stream: bool = False
    scopes: frozenset[str] = frozenset()


async def serve(request: Request) -> Response:
    """The innermost Handler: lets the resource answer, and waits until it has."""
    exchange: Any = request.payload
    entered = enter(request)
    try:
        exchange.render()
    finally:
        leave(entered)
    await exchange.finished
    if exchange.error is not None:
        raise exchange.error
    return Response(status=exchange.request.code)


class Behind(Resource):
    """A resource behind `handler`, which ends in `serve`."""

    isLeaf = True

    def __init__(
        self,
        resource: IResource,
        handler: Handler,
        call: Foreign,
        driver: Driver,
        seconds: Callable[[], float],
        *,
        public: bool,
    ) -> None:
        super().__init__()
        self._resource = resource
        self._handler = handler
        self._call = call
        self._driver = driver
        self._seconds = seconds
        self._public = public

    def render(self, request: Any) -> int:
        """Answer when the resource does."""
        service, _, _ = self._call.id.partition(".")
        headers = read_headers(request, keep_own=not self._public)
        context = extract(headers, self._seconds(), service, self._call.id, trusted=not self._public)
        exchange = _Exchange(request, self._resource, self._call, self._public)
        asked = Request(self._call, exchange, context, metadata=headers)  # type: ignore[arg-type]
        self._driver.start(_answer(self._handler, asked), exchange.ended)
        return NOT_DONE_YET


async def _answer(handler: Handler, request: Request) -> Response:
    return await handler(request)


class _Exchange:
    """One such request, and when it ended."""

    error: RopewalkError | None = None  # what it let out

    def __init__(self, request: Any, resource: IResource, call: Foreign, public: bool) -> None:
        self.request = request
        self.finished = request.notifyFinish().addErrback(_gone)
        self._resource = resource
        self._call = call
        self._public = public

    def render(self) -> None:
        """What `twisted.web` does with a resource it found."""
        fill_args = getattr(self.request, "fill_args", None)
        if fill_args is not None:
            fill_args()
        self.request.processingFailed = partial(self._failed, self.request.processingFailed)
        self.request.render(getChildForRequest(self._resource, self.request))

    def _failed(self, otherwise: Callable[[Failure], object], failure: Failure) -> object:
        """What a request is told when nobody in the application has caught an error."""
        if not isinstance(failure.value, RopewalkError) or self.request.startedWriting:
            return otherwise(failure)
        self.error = as_it_leaves(failure.value, self._call)
        self.request.write(write_problem(self.request, self.error, redact=self._public))
        self.request.finish()
        return failure

    def ended(self, run: Run[Response]) -> None:
        """Answer what a filter refused; whatever else went wrong the resource has answered itself."""
        if run.cancelled():
            return
        error = run.exception()
        if error is None or self.request.finished or self.request._disconnected:
            return
        if self.request.startedWriting:
            abort(self.request)
            return
        problem = error if isinstance(error, RopewalkError) else RopewalkError()
        self.request.write(write_problem(self.request, problem))
        self.request.finish()


def _gone(failure: Failure) -> None:
    failure.trap(ConnectionDone, ConnectionLost)
    raise asyncio.CancelledError()
