"""Idempotency keys: a caller's call has one for all of its tries, and a callee knows which request it repeats.

What a key is worth is decided where effects are: each `Database.run` under a key has its effect once, see
`store/records.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..context import Keyed, current_key, digest, enter_key, leave_key
from ..errors import BadRequest, InFlight, KeyCancelled, KeyReused
from ..handler import Handler
from ..message import Payload, Request, Response
from ..telemetry.propagation import LONGEST_KEY

AGAIN = 1.0  # seconds after which to ask again for what is being answered


class GiveKey:
    """The caller's side: a call that may be repeated under a key has one, the same for all of its tries.

    While a try that was given up is still being answered, it asks again: until then nobody knows what came of it.
    """

    def __init__(self, random: Random, clock: IReactorTime) -> None:
        self._random = random
        self._clock = clock

    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if not request.operation.keyed and request.context.key is None:
            return handler(request)
        return self._keyed(request, handler)

    async def _keyed(self, request: Request, handler: Handler) -> Response:
        if request.context.key is None:
            request = _with(request, key=f"{self._random.getrandbits(128):032x}")
        while True:  # to the deadline of the call, which is around this
            try:
                return await handler(request)
            except InFlight:
                await deferLater(self._clock, AGAIN)
                request = _with(request, attempt=request.attempt + 1)


def _with(request: Request, **changes: Any) -> Request:
    return request.replace(context=msgspec.structs.replace(request.context, **changes))


class UnderKey:
    """The callee's side: whose key it is, for what; one request at a time.

    Raises InFlight while the same request is being answered by this process, and KeyReused for another one under its
    key. Safe operations need no key, and ignore one. A request that takes its key back raises KeyCancelled, unless
    something was done under it already: then it is answered as any repetition.
    """

    def __init__(self, take_back: Callable[[Keyed], Awaitable[bool]] | None = None) -> None:
        """`take_back(keyed)`: whether nothing was done under that key, and nothing will be; None where none is kept."""
        self._take_back = take_back
        self._in_flight: dict[str, str] = {}  # scope -> arguments

    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        key = request.context.key
        if key and not request.operation.safe:
            return self._under(key, request, handler)
        if key is not None:  # nor may what it calls be asked under it
            request = _with(request, key=None)
        return handler(request) if current_key() is None else _without_key(request, handler)

    async def _under(self, key: str, request: Request, handler: Handler) -> Response:
        request, keyed = await _keyed(request, key)
        answering = self._in_flight.get(keyed.scope)
        if answering is not None and answering != keyed.arguments:
            raise KeyReused(keyed.reused)
        if answering is not None:
            raise InFlight(
                f"{keyed.operation}: the request with this key is being answered.",
                headers=[("retry-after", f"{AGAIN:g}")],
            )
        self._in_flight[keyed.scope] = keyed.arguments
        token = enter_key(keyed)
        try:
            if request.context.cancel:
                if self._take_back is not None and await self._take_back(keyed):
                    raise KeyCancelled(f"{keyed.operation}: the request with this key was taken back.")
                request = _with(request, cancel=False)
            return await handler(request)
        finally:
            keyed.over = True
            del self._in_flight[keyed.scope]
            leave_key(token)


async def _without_key(request: Request, handler: Handler) -> Response:
    # A call in this process is made within its caller's context, whose key is none of ours.
    token = enter_key(None)
    try:
        return await handler(request)
    finally:
        leave_key(token)


async def _keyed(request: Request, key: str) -> tuple[Request, Keyed]:
    """The request with its arguments read, and what it is known by. Raises BadRequest, and what reading raises."""
    if len(key) > LONGEST_KEY:
        raise BadRequest(f"Idempotency-Key: expected {LONGEST_KEY} characters at most, got {len(key)}.")
    payload = request.payload
    arguments = payload if isinstance(payload, Mapping) else await payload.read()
    operation, principal = request.operation, request.principal
    scope = digest(request.context.tenant, principal.service or "", principal.subject or "", operation.id, key)
    asked = digest(msgspec.json.encode(arguments, order="deterministic").decode())
    if not isinstance(payload, Mapping):
        request = request.replace(payload=_Read(arguments, payload))
    return request, Keyed(scope, key, operation.id, asked, operation.raises)


class _Read:
    """A payload that has been read."""

    __slots__ = ("_arguments", "_payload")

    def __init__(self, arguments: Mapping[str, Any], payload: Payload) -> None:
        self._arguments = arguments
        self._payload = payload

    async def read(self) -> Mapping[str, Any]:
        return self._arguments

    def supply(self, type: Any) -> Any:
        return self._payload.supply(type)
