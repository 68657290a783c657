"""W3C Trace Context and Ropewalk's own headers <-> Context. The one table of what travels, and whom it is taken from.

https://www.w3.org/TR/trace-context/ ; `Ropewalk-*` and `baggage` pass between siblings only: a public listener does not
read them, and they are sent to nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..context import Context, Trace
from ..policy.deadline import remaining_ms

DEADLINE = "ropewalk-deadline"  # remaining milliseconds
REQUEST_ID = "ropewalk-request-id"
PRIORITY = "ropewalk-priority"
TENANT = "ropewalk-tenant"
ATTEMPT = "ropewalk-attempt"
LONGEST = 86400.0  # seconds; what a sibling asks for beyond a day is an error of its own
IDENTITY = "ropewalk-identity"  # who calls: a signed token, see http/identity.py
KEY = "idempotency-key"
CANCEL = "ropewalk-cancel"  # "1": the key is taken back
LONGEST_KEY = 255  # characters
RAN = "ropewalk-ran"  # of a reply that is a problem: whether the operation ran (errors.Ran)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAFE = re.compile(r"[\x21-\x7e]{1,128}")
_NUMBER = re.compile(r"-?[0-9]{1,5}")
_MILLISECONDS = re.compile(r"[0-9]{1,12}")
_SAMPLED = 0x01  # the one flag this version of the standard has; the others are not passed on (section 3.2.2.5.2)


# "tracestate" and CANCEL only come with another of them.
_TRAVELS = frozenset(
    (
        "traceparent",
        DEADLINE,
        REQUEST_ID,
        PRIORITY,
        TENANT,
        ATTEMPT,
        KEY,
        "baggage",
    )
)


def extract(headers: Mapping[str, str], now: float, service: str, operation: str, *, trusted: bool) -> Context:
    """The Context a request with these headers (lower-case names) starts with here.

    `trusted`: it came over an internal listener. What cannot be read is ignored, as the trace standard asks.
    """
    if _TRAVELS.isdisjoint(headers):
        return Context(service=service, operation=operation)
    trace = parse_traceparent(headers.get("traceparent"), headers.get("tracestate", ""))
    key = headers.get(KEY)
    if not trusted:
        return Context(trace=trace, key=key, service=service, operation=operation)
    deadline = None
    sent = headers.get(DEADLINE)
    if sent is not None and _MILLISECONDS.fullmatch(sent):
        deadline = now + min(int(sent) / 1000, LONGEST)
    return Context(
        deadline,
        trace,
        _safe(headers.get(REQUEST_ID)),
        _number(headers.get(PRIORITY), 0),
        _safe(headers.get(TENANT)),
        max(1, _number(headers.get(ATTEMPT), 1)),
        key,
        headers.get("baggage", ""),
        service,
        operation,
        headers.get(CANCEL) == "1",
    )


def inject(context: Context, now: float) -> list[tuple[str, str]]:
    """The headers that carry `context` to a sibling."""
    headers = [(REQUEST_ID, context.request_id)] if context.request_id else []
    if context.trace is not None:
        headers.append(("traceparent", context.trace.traceparent))
        if context.trace.state:
            headers.append(("tracestate", context.trace.state))
    if context.deadline is not None:
        headers.append((DEADLINE, str(remaining_ms(context.deadline, now))))
    if context.priority:
        headers.append((PRIORITY, str(context.priority)))
    if context.tenant:
        headers.append((TENANT, context.tenant))
    if context.attempt != 1:
        headers.append((ATTEMPT, str(context.attempt)))
    if context.key is not None:
        headers.append((KEY, context.key))
        if context.cancel:
            headers.append((CANCEL, "1"))
    if context.baggage:
        headers.append(("baggage", context.baggage))
    return headers


def parse_traceparent(value: str | None, state: str = "") -> Trace | None:
    """The caller's position, or None when there is none or it is malformed (section 4.2: then start anew)."""
    match = _TRACEPARENT.fullmatch(value) if value else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Trace(trace_id, span_id, int(flags, 16) & _SAMPLED, state)


def _safe(value: str | None) -> str:
    return value if value and _SAFE.fullmatch(value) else ""


def _number(value: str | None, otherwise: int) -> int:
    return int(value) if value and _NUMBER.fullmatch(value) else otherwise
