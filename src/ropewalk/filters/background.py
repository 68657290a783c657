"""Takes requests for what is done in the background: what is durable is accepted, and done by whoever comes to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import msgspec

from ..handler import Handler
from ..message import Accepted, Request, Response, enter, leave
from ..operation import Operation

STATUS = "/background/"  # the path under which a service says what became of a job


class Background:
    """Answers 202 for operations that are declared so; `accept(operation, arguments)` keeps one and gives it an id."""

    def __init__(self, accept: Callable[[str, bytes], Awaitable[str]]) -> None:
        self._accept = accept

    async def __call__(self, request: Request, handler: Handler) -> Response:
        operation = cast(Operation, request.operation)
        if not operation.background:
            return await handler(request)
        payload = request.payload
        arguments = payload if isinstance(payload, Mapping) else await payload.read()
        parts = msgspec.json.encode(operation.binding.encode(arguments))
        entered = enter(request)
        try:
            job = await self._accept(operation.id, parts)
        finally:
            leave(entered)
        accepted = Accepted(job, f"{STATUS}{job}")
        return Response(accepted, operation.status, [("location", accepted.status)])
