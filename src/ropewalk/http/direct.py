"""Operations straight from the engine: a request that needs nothing of `twisted.web` meets nothing of it.

What asks for more than its arguments (the raw IRequest, a session, a form under the guard of a cookie, an error page)
takes the way over Klein, as everything does on a stock Site. Both ways end in the same handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from twisted.logger import Logger

from ..codec import problem
from ..context import Context
from ..driver import Run
from ..engine.exchange import Exchange
from ..engine.router import Router
from ..errors import NotAcceptable, RopewalkError
from ..message import Principal, Request, Response, Stream
from ..operation import Operation
from ..telemetry.propagation import RAN, extract
from .accept import accepts
from .bodies import Body
from .heads import headers_of
from .server import ServiceResource, Wire, check_size, check_stream, gone, parts_of, places
from .streams import Flow, content_type_of, write_pieces

_OF_ANY_WIRE = (Principal, Context, Request)  # what an operation may be given without its HTTP request
_log = Logger("ropewalk.http")


class Direct:
    """The operations of one listener that can be answered so."""

    def __init__(self, resource: ServiceResource) -> None:
        self._wire = resource.wire
        self._router = Router(resource.url_map)
        self._operations = {endpoint: each for endpoint, _, _, each in places(resource.wire) if _needs_no_request(each)}

    def take(self, exchange: Exchange) -> Answering | None:
        """Who answers it; None when it has to go over Klein."""
        found = self._router.find(exchange.method, exchange.target)
        if found is None:
            return None
        endpoint, path = found
        operation = self._operations.get(endpoint)
        if operation is None:
            return None
        wire = self._wire
        headers = headers_of(exchange.fields, keep_own=not wire.public)
        if wire.sessions is not None and ("cookie" in headers or operation.binding.reads_form):
            return None
        if wire.error_page is not None and "html" in headers.get("accept", ""):
            return None
        answering = Streaming if operation.takes_stream else Answering
        return answering(wire, operation, path, headers, exchange)


def _needs_no_request(operation: Operation) -> bool:
    return all(kind in _OF_ANY_WIRE for kind in operation.binding.given.values())


class Answering:
    """One exchange of one operation: the exchange's Receiver, and the payload of its Request."""

    __slots__ = ("_body", "_exchange", "_flow", "_headers", "_operation", "_path", "_run", "_wire")

    def __init__(
        self, wire: Wire, operation: Operation, path: Mapping[str, Any], headers: dict[str, str], exchange: Exchange
    ) -> None:
        self._wire = wire
        self._operation = operation
        self._path = path
        self._headers = headers
        self._exchange = exchange
        self._body: list[bytes] = []
        self._run: Run[None] | None = None
        self._flow: Flow | None = None  # of a stream

    # -- the exchange's receiver

    def chunk(self, data: bytes) -> None:
        """As Receiver."""
        self._body.append(data)

    def complete(self) -> None:
        """As Receiver."""
        self._begin()

    def lost(self) -> None:
        """As Receiver. Only what may be cancelled is, and a stream, which has no other reader; the rest runs on."""
        if self._flow is not None:
            self._flow.stopProducing()
        if self._run is not None and (self._operation.cancellable or self._flow is not None):
            self._run.interrupt()

    def pause(self) -> None:
        """As Receiver."""
        if self._flow is not None:
            self._flow.pauseProducing()

    def resume(self) -> None:
        """As Receiver."""
        if self._flow is not None:
            self._flow.resumeProducing()

    # -- the request's payload

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        if self._exchange.gone:
            raise gone(self._operation)
        body = b"".join(self._body) if self._body else b""
        check_size(self._operation, len(body))
        parts = parts_of(self._exchange.target, self._path, self._headers, body, self._operation.max_body)
        return self._operation.binding.decode(parts)

    def supply(self, type: Any) -> Any:
        """As Payload."""
        raise TypeError(f"{self._operation.id}: nothing supplies a {type!r} here.")

    # -- the answer

    def _begin(self) -> None:
        self._run = self._wire.driver.start(self._answer(), self._ended)

    async def _answer(self) -> None:
        operation, wire, headers = self._operation, self._wire, self._headers
        try:
            if "accept" in headers and not (
                operation.accepts_any or accepts(headers["accept"], operation.content_type)
            ):
                raise NotAcceptable(f"This operation answers {operation.content_type}.")
            context = extract(headers, wire.seconds(), wire.description.name, operation.id, trusted=not wire.public)
            response = await wire.handler(Request(operation, self, context, metadata=headers))
        except RopewalkError as error:
            self._refuse(error)
            return
        except asyncio.CancelledError:
            raise
        except Exception:  # logged with its traceback by `Observe`, which knows the operation
            self._refuse(RopewalkError())
            return
        if isinstance(response.body, Stream):
            await self._stream(response, response.body)
            return
        try:
            said, body = operation.sent(response)
            if response.cookies:
                said = (*said, *(("set-cookie", cookie) for cookie in response.cookies))
            self._exchange.reply(response.status, _encoded(said), body)
        except Exception:
            _log.failure("{operation} answered what cannot be sent", operation=operation.id)
            self._refuse(RopewalkError())

    async def _stream(self, response: Response, stream: Stream) -> None:
        exchange = self._exchange
        self._flow = flow = Flow()
        fields = [*response.headers, *(("set-cookie", cookie) for cookie in response.cookies)]
        said = {name.lower(): value for name, value in fields}
        kind = content_type_of(stream, self._headers.get("accept"))
        if "content-type" not in said:
            fields.append(("content-type", kind))
        exchange.start(response.status, _encoded(tuple(fields)))
        if exchange.gone or exchange.method == b"HEAD":
            flow.stopProducing()
        try:
            await write_pieces(stream, kind, flow, exchange.write)
        except Exception:
            _log.failure("{operation} failed in the middle of its stream", operation=self._operation.id)
            exchange.close()  # what was sent arrives, and what would end it does not
        else:
            exchange.end()

    def _ended(self, run: Run[None]) -> None:
        if run.failed:
            if run.cancelled():
                self._exchange.abort()
            else:
                run.result()  # raises what is left to raise

    def _refuse(self, error: RopewalkError) -> None:
        public = self._wire.public
        ran = () if public else ((RAN, error.ran),)
        said = (("content-type", problem.CONTENT_TYPE), *error.headers, *ran)
        body = msgspec.json.encode(problem.to_problem(error, redact=public))
        self._exchange.reply(error.status, _encoded(said), body)


class Streaming(Answering):
    """One whose operation begins with the head, and takes the body as it comes."""

    __slots__ = ("_pieces",)

    def __init__(
        self, wire: Wire, operation: Operation, path: Mapping[str, Any], headers: dict[str, str], exchange: Exchange
    ) -> None:
        super().__init__(wire, operation, path, headers, exchange)
        self._pieces = Body(exchange)
        exchange.max_body = operation.max_body
        if (exchange.length or 0) <= exchange.max_body:  # else it is refused, unasked
            self._begin()

    def chunk(self, data: bytes) -> None:
        """As Receiver."""
        self._pieces.add(data)

    def complete(self) -> None:
        """As Receiver."""
        self._pieces.end()

    def lost(self) -> None:
        """As Receiver."""
        self._pieces.fail(gone(self._operation))
        super().lost()

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        check_stream(self._headers)
        parts = parts_of(self._exchange.target, self._path, self._headers, b"", 0)
        parts.stream = self._pieces
        return self._operation.binding.decode(parts)


@lru_cache(256)  # the same few, again and again
def _encoded(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
