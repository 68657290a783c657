"""The callee's end: from a Request to the service's method, and from what that returns or raises to a Response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from twisted.internet.defer import FirstError
from twisted.logger import Logger

from .codec.binding import BINARY
from .context import Context
from .errors import RopewalkError, Unavailable
from .handler import Handler
from .message import Principal, Request, Response, Stream, enter, leave
from .operation import Operation
from .service import Service, describe

_log = Logger("ropewalk.service")


def dispatch(service: Service) -> Handler:
    """The innermost Handler of a service: reads the payload, calls the method, answers.

    An error that leaves is the operation's own: it ran, and nobody further out may repeat it. A sibling's error that
    the operation does not declare becomes Unavailable with its cause.
    """
    said = describe(service)
    methods = {
        name: cast(Callable[..., Awaitable[Any]], getattr(service, name))
        for name in (*said.operations, *said.subscriptions, *said.schedules)
    }
    undeclared: set[tuple[str, type]] = set()  # what has been warned about

    async def call(request: Request) -> Response:
        operation = cast(Operation, request.operation)
        payload = request.payload
        arguments = payload if isinstance(payload, dict) else await payload.read()  # type: ignore[union-attr]
        given = operation.binding.given
        if given:
            arguments = {**arguments, **_supplied(given, request)}
        entered = enter(request)
        try:
            result: Any = methods[operation.name](**arguments)
            if not operation.generates:
                result = await result
        except (RopewalkError, FirstError, ExceptionGroup) as raised:
            error = _meant(raised)
            if error is None:
                raise
            fact = operation.name, type(error)
            if not error.met_at and not isinstance(error, operation.raises) and fact not in undeclared:
                undeclared.add(fact)
                _log.warn(
                    "{operation} raised {error}, which it does not declare: add it to raises=",
                    operation=operation.id,
                    error=type(error).__name__,
                )
            leaving = as_it_leaves(error, operation)
            if leaving is raised:
                raise
            raise leaving from raised
        finally:
            leave(entered)
        response = result if type(result) is Response else Response(result, operation.status)
        if operation.streams or isinstance(response.body, Stream):
            return msgspec.structs.replace(response, body=_streamed(response.body, operation, request))
        return response

    return call


def _streamed(body: Any, operation: Operation, request: Request) -> Stream:
    stream = body if isinstance(body, Stream) else Stream(body, BINARY if operation.item is bytes else None)
    return Stream(_Within(request, aiter(stream.iterator)), stream.content_type)


class _Within:
    """A stream whose pieces are made in the operation's context. Its deadline was that of the head, and is over."""

    def __init__(self, request: Request, pieces: AsyncIterator[Any]) -> None:
        self._request = request.replace(context=msgspec.structs.replace(request.context, deadline=None))
        self._pieces = pieces

    def __aiter__(self) -> _Within:
        return self

    async def __anext__(self) -> Any:
        # Around each piece: set once around them all, it would be seen by whoever takes them.
        entered = enter(self._request)
        try:
            return await anext(self._pieces)
        finally:
            leave(entered)

    async def aclose(self) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


def _supplied(given: Mapping[str, Any], request: Request) -> dict[str, Any]:
    supplied: dict[str, Any] = {}
    for name, type in given.items():
        if type is Principal:
            supplied[name] = request.principal
        elif type is Context:
            supplied[name] = request.context
        elif type is Request:
            supplied[name] = request
        else:
            supplied[name] = request.payload.supply(type)  # type: ignore[union-attr]
    return supplied


def _meant(raised: BaseException) -> RopewalkError | None:
    """The error of ours in what was raised: `gatherResults` and TaskGroup wrap what failed of several calls."""
    while isinstance(raised, FirstError):
        raised = cast(BaseException, raised.subFailure.value)
    if isinstance(raised, ExceptionGroup):
        meant = [_meant(each) for each in raised.exceptions]
        return meant[0] if None not in meant else None
    return raised if isinstance(raised, RopewalkError) else None


def as_it_leaves(error: RopewalkError, operation: Any) -> RopewalkError:
    """`error` as it leaves an operation, or what stands for one: its own, or a sibling's that it does not declare."""
    if error.met_at and not isinstance(error, operation.raises):
        unavailable = Unavailable(f"{operation.id} could not finish: {error.met_at} failed.", status=502)
        unavailable.members["cause"] = {"type": error.type, "status": error.status, "from": error.met_at}
        unavailable.ran = "maybe"
        return unavailable
    error.ran = "yes"
    error.retryable = False
    error.met_at = ""
    return error
