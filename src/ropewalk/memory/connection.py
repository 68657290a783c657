"""The wire that is no wire: a call to a sibling in this process, meaning exactly what a remote one means.

Arguments and results are encoded and decoded by type, errors become problems and errors again, the sibling's own
filters run. Only the socket is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import msgspec
from twisted.logger import Logger

from ..codec.binding import Parts
from ..codec.pieces import LINES, encoder
from ..codec.problem import from_problem, to_problem
from ..codec.routes import names, shape
from ..driver import current_run
from ..errors import ContentTooLarge, NotFound, RopewalkError, Unavailable
from ..handler import Handler
from ..message import Principal, Request, Response, Stream
from ..operation import Operation
from ..service import Description

_log = Logger("ropewalk.memory")


class LocalConnection:
    """A Handler of the caller's side that ends in the callee's server stack."""

    def __init__(self, caller: str, callee: Description, handler: Handler) -> None:
        """`handler` is the callee's server stack."""
        self._caller = caller
        self._callee = callee
        self._handler = handler
        self._found: dict[Operation, Operation | None] = {}

    async def __call__(self, request: Request) -> Response:
        mine = cast(Operation, request.operation)
        if mine not in self._found:
            self._found[mine] = _find(mine, self._callee)
        theirs = self._found[mine]
        if theirs is None:
            raise NotFound("Nothing is here.")
        parts = crossing(mine, theirs, cast(Mapping[str, Any], request.payload))
        try:
            response = await self._handler(
                Request(
                    theirs,
                    _LocalPayload(theirs, parts),
                    msgspec.structs.replace(request.context, service=self._callee.name, operation=theirs.id),
                    Principal(self._caller, request.principal.subject, request.principal.scopes),
                )
            )
        except RopewalkError as error:
            body = msgspec.json.encode(to_problem(error))
            raise from_problem(error.status, body, mine.raises, ran=error.ran, headers=error.headers) from error
        except asyncio.CancelledError:
            run = current_run()
            if run is None or run.cancelling():
                raise
            raise RopewalkError() from None  # it cancelled itself
        except Exception as error:  # logged with its traceback by the sibling's own filters
            raise RopewalkError() from error
        return await _crossed(response, mine, theirs)


def crossing(mine: Operation, theirs: Operation, arguments: Mapping[str, Any]) -> Parts:
    """What the callee's operation decodes of what the caller's contract has encoded: a path may have other names."""
    parts = mine.binding.encode(arguments)
    if mine.route is not None and theirs.route is not None and mine.route != theirs.route:
        in_order = [parts.path[name] for name in names(mine.route)]
        parts.path = dict(zip(names(theirs.route), in_order, strict=True))
    return parts


def _find(mine: Operation, callee: Description) -> Operation | None:
    """The callee's operation that the caller's contract means: by its route, as on the wire, else by its name."""
    for theirs in callee.operations.values():
        if mine.route is None or theirs.route is None:
            names = (theirs.name, *(alias.rpartition(".")[2] for alias in theirs.aliases))
            if mine.route is theirs.route and mine.name in names:
                return theirs
        elif (mine.method, shape(mine.route)) == (theirs.method, shape(theirs.route)):
            return theirs
    return None


async def _crossed(response: Response, mine: Operation, theirs: Operation) -> Response:
    """The answer as the caller's types have it."""
    cookies = [("set-cookie", cookie) for cookie in response.cookies]
    stream = response.body
    if isinstance(stream, Stream):
        content_type = stream.content_type or LINES
        headers = [(name.lower(), value) for name, value in response.headers]
        headers += [("content-type", content_type)] * ("content-type" not in dict(headers))
        pieces = _pieces(stream, encoder(content_type), theirs)
        data = pieces if mine.streams else b"".join([piece async for piece in pieces])
        return mine.received(response.status, [*headers, *cookies], data)
    try:
        said, data = theirs.sent(response)
    except Exception as error:
        _log.failure("{operation} answered what cannot be sent", operation=theirs.id)
        raise RopewalkError() from error
    return mine.received(response.status, [*said, *cookies], data)


async def _pieces(stream: Stream, encode: Callable[[Any], bytes], theirs: Operation) -> AsyncIterator[bytes]:
    try:
        async for value in stream.iterator:
            yield encode(value)
    except Exception as error:
        _log.failure("{operation} failed in the middle of its stream", operation=theirs.id)
        broken_off = Unavailable(f"{theirs.id} broke off.")
        broken_off.fault = "network"
        raise broken_off from error
    finally:
        await cast(Any, stream.iterator).aclose()


class _LocalPayload:
    __slots__ = ("_operation", "_parts")

    def __init__(self, operation: Operation, parts: Parts) -> None:
        self._operation = operation
        self._parts = parts

    async def read(self) -> Mapping[str, Any]:
        operation = self._operation
        if len(self._parts.body) > operation.max_body:
            raise ContentTooLarge(
                f"{operation.id} takes {operation.max_body} bytes, the body has {len(self._parts.body)}.",
                max_body=operation.max_body,
            )
        return operation.binding.decode(self._parts)

    def supply(self, type: Any) -> Any:
        raise TypeError(f"{self._operation.id}: a call in this process has no {type!r}.")
