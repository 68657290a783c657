"""Operations straight from the engine: a request that needs nothing of `twisted.web` meets nothing of it.

What asks for more than its arguments (the raw IRequest, a session, a form under the guard of a cookie, an error page)
takes the way over Klein, as everything does on a stock Site. Both ways end in the same handler.
"""

from __future__ import annotations

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
from ..errors import RopewalkError
from ..message import Principal, Request, Response, Stream
from ..operation import Operation
from ..telemetry.propagation import RAN
from .answer import Answer
from .bodies import Body
from .heads import headers_of
from .server import ServiceResource, places
from .streams import Flow, content_type_of, write_pieces
from .wire import Wire, check_size, check_stream, gone, parts_of

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


class Answering(Answer):
    """One exchange of one operation: the exchange's Receiver."""

    __slots__ = ("_body", "_exchange", "_flow", "_size")

    def __init__(
        self, wire: Wire, operation: Operation, path: Mapping[str, Any], headers: dict[str, str], exchange: Exchange
    ) -> None:
        super().__init__(wire, operation, path, headers)
        self._exchange = exchange
        self._body: list[bytes] = []
        self._size = 0  # bytes that have come
        self._flow: Flow | None = None  # of a stream

    # -- the exchange's receiver

    def chunk(self, data: bytes) -> None:
        """As Receiver."""
        self._size += len(data)
        if self._size <= self.operation.max_body:  # else it will be refused; its listener takes what others want
            self._body.append(data)

    def complete(self) -> None:
        """As Receiver."""
        self.begin()

    def lost(self) -> None:
        """As Receiver. Only what may be cancelled is, and a stream, which has no other reader; the rest runs on."""
        if self._flow is not None:
            self._flow.stopProducing()
        if self.run is not None and (self.operation.cancellable or self._flow is not None):
            self.run.interrupt()

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
            raise gone(self.operation)
        check_size(self.operation, self._size)
        body = b"".join(self._body) if self._body else b""
        parts = parts_of(self._exchange.target, self.path, self.headers, body, self.operation.max_body)
        return self.operation.binding.decode(parts)

    # -- the reply

    def reply(self, response: Response, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        """As Answer."""
        if response.cookies:
            headers = (*headers, *(("set-cookie", cookie) for cookie in response.cookies))
        self._exchange.reply(response.status, _encoded(headers), body)

    async def stream(self, response: Response, stream: Stream) -> None:
        """As Answer."""
        exchange = self._exchange
        self._flow = flow = Flow()
        fields = [*response.headers, *(("set-cookie", cookie) for cookie in response.cookies)]
        said = {name.lower(): value for name, value in fields}
        kind = content_type_of(stream, self.headers.get("accept"))
        if "content-type" not in said:
            fields.append(("content-type", kind))
        exchange.start(response.status, _encoded(tuple(fields)))
        if exchange.gone or exchange.method == b"HEAD":
            flow.stopProducing()
        try:
            await write_pieces(stream, kind, flow, exchange.write)
        except Exception:
            _log.failure("{operation} failed in the middle of its stream", operation=self.operation.id)
            exchange.close()  # what was sent arrives, and what would end it does not
        else:
            exchange.end()

    def refuse(self, error: RopewalkError) -> None:
        """As Answer."""
        public = self.wire.public
        ran = () if public else ((RAN, error.ran),)
        said = (("content-type", problem.CONTENT_TYPE), *error.headers, *ran)
        body = msgspec.json.encode(problem.to_problem(error, redact=public))
        self._exchange.reply(error.status, _encoded(said), body)

    def ended(self, run: Run[None]) -> None:
        """As Answer."""
        if run.failed:
            if run.cancelled():
                self._exchange.abort()
            else:
                run.result()  # raises what is left to raise


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
            self.begin()

    def chunk(self, data: bytes) -> None:
        """As Receiver."""
        self._pieces.add(data)

    def complete(self) -> None:
        """As Receiver."""
        self._pieces.end()

    def lost(self) -> None:
        """As Receiver."""
        self._pieces.fail(gone(self.operation))
        super().lost()

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        check_stream(self.headers)
        parts = parts_of(self._exchange.target, self.path, self.headers, b"", 0)
        parts.stream = self._pieces
        return self.operation.binding.decode(parts)


@lru_cache(256)  # the same few, again and again
def _encoded(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
