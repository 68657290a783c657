"""How an operation answers a request of HTTP, whoever reads the request and writes the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from ..driver import Run
from ..errors import NotAcceptable, RopewalkError
from ..message import Request, Response, Stream
from ..operation import Operation
from ..telemetry.propagation import extract
from .accept import accepts
from .wire import Wire

_log = Logger("ropewalk.http")


class Answer:
    """One request of one operation, and its reply; the payload of its Request."""

    __slots__ = ("headers", "operation", "path", "run", "wire")

    def __init__(self, wire: Wire, operation: Operation, path: Mapping[str, Any], headers: dict[str, str]) -> None:
        """`path`: the values in it; `headers`: those that are trusted here, by lower-case name."""
        self.wire = wire
        self.operation = operation
        self.path = path
        self.headers = headers
        self.run: Run[None] | None = None

    def begin(self) -> None:
        """Ask the service."""
        self.run = self.wire.driver.start(self._answer(), self.ended)

    async def _answer(self) -> None:
        operation, wire, headers = self.operation, self.wire, self.headers
        try:
            if "accept" in headers and not (
                operation.accepts_any or accepts(headers["accept"], operation.content_type)
            ):
                raise NotAcceptable(f"This operation answers {operation.content_type}.")
            context = extract(headers, wire.seconds(), wire.description.name, operation.id, trusted=not wire.public)
            response = await wire.handler(Request(operation, self, context, metadata=headers))
        except RopewalkError as error:
            self.refuse(error)
            return
        except asyncio.CancelledError:
            raise
        except Exception:  # logged with its traceback by `Observe`, which knows the operation
            self.refuse(RopewalkError())
            return
        if isinstance(response.body, Stream):
            await self.stream(response, response.body)
            return
        try:
            said, body = operation.sent(response)
            self.reply(response, said, body)
        except RopewalkError as error:
            self.refuse(error)
        except Exception:
            _log.failure("{operation} answered what cannot be sent", operation=operation.id)
            self.refuse(RopewalkError())

    # -- what each way has of its own

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        raise NotImplementedError

    def supply(self, type: Any) -> Any:
        """As Payload."""
        raise TypeError(f"{self.operation.id}: nothing supplies a {type!r} here.")

    def reply(self, response: Response, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        """Write all of it. `headers` are those of `response` and what they lack; its cookies are not among them."""
        raise NotImplementedError

    async def stream(self, response: Response, stream: Stream) -> None:
        """Write the head, then piece after piece."""
        raise NotImplementedError

    def refuse(self, error: RopewalkError) -> None:
        """Write a problem document, or what stands for one."""
        raise NotImplementedError

    def ended(self, run: Run[None]) -> None:
        """The run has, whatever came of it."""
        raise NotImplementedError
