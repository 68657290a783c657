"""What a call carries, there and back: it comes as it was given, whatever wire is between.

What a value should be on the other side is what the two codecs make of it with nothing between them. So what differs is
the wire's doing: another's body, a head that belongs to somebody else, an answer that was meant for an earlier call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..memory.connection import crossing
from ..message import Payload, Request, Response, Stream
from ..operation import Operation

Differs = str  # what was sent and what came, for people; "" when that is the same


def caller(service: str | None, sent: Request, came: Request) -> Differs:
    """Of in whose name, and under what, a request of `service` was made, and as what it came."""
    before, after = _beside(service, sent), _beside(came.principal.service, came)
    wrong = [each for each in before if before[each] != after[each]]
    if not wrong:
        return ""
    as_sent, as_came = (", ".join(f"{each} {said[each]!r}" for each in wrong) for said in (before, after))
    return f"was asked by {as_sent} and came as by {as_came}"


def _beside(service: str | None, request: Request) -> Mapping[str, Any]:
    context, principal = request.context, request.principal
    return {
        "service": service,
        "subject": principal.subject,
        "scopes": sorted(principal.scopes),
        "request id": context.request_id,
        "trace": context.trace.trace_id if context.trace is not None else "",
        "tenant": context.tenant,
        "priority": context.priority,
        "key": context.key if not request.operation.safe else None,
    }


def arguments(sent: Request, theirs: Operation, came: Mapping[str, Any]) -> Differs:
    """Of what a caller has sent, and the arguments that its callee has read."""
    if sent.payload == came or not isinstance(sent.payload, Mapping) or theirs.takes_stream:
        return ""
    mine: Any = sent.operation
    return _differ(theirs.binding.decode(crossing(mine, theirs, sent.payload)), came)


def answer(theirs: Operation, sent: Response, mine: Operation, came: Response) -> Differs:
    """Of what a callee's method has answered, and what its caller got."""
    if sent.body == came.body or isinstance(sent.body, Stream) or mine.streams:
        return ""
    headers, data = theirs.sent(sent)
    return _differ(mine.received(sent.status, headers, data).body, came.body)


class Watched:
    """A payload of which `seen` hears when it is read."""

    __slots__ = ("_payload", "_seen")

    def __init__(self, payload: Payload, seen: Callable[[Mapping[str, Any]], object]) -> None:
        self._payload = payload
        self._seen = seen

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        arguments = await self._payload.read()
        self._seen(arguments)
        return arguments

    def supply(self, type: Any) -> Any:
        """As Payload."""
        return self._payload.supply(type)


def _differ(sent: Any, came: Any) -> Differs:
    if sent == came:
        return ""
    try:  # what has no equality of its own is compared by its bytes, and what has neither not at all
        before, after = (msgspec.json.encode(each, order="deterministic").decode() for each in (sent, came))
    except TypeError:
        return ""
    return "" if before == after else f"{before} was sent, and {after} came"
