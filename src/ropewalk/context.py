"""What travels with a request through every hop: deadline, trace, priority, tenant, attempt, key. Immutable values.

The Context travels *in the Request*; `current_context()` is the same value in ambient form, for log lines and for code
that has no request at hand. It is right inside operations and in the clocks, threads and callbacks that the framework
hands out; `bound(callback)` carries it into a bare `addCallback` or `callLater`. Authorization never reads it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from msgspec import Struct

P = ParamSpec("P")
R = TypeVar("R")


class Trace(Struct, frozen=True, gc=False):
    """A position in a distributed trace (W3C Trace Context): this hop's span and the trace it belongs to."""

    trace_id: str  # 32 lower-case hex digits, not all zero
    span_id: str  # 16 lower-case hex digits: the span of whoever holds this value
    flags: int = 1  # bit 0: sampled
    state: str = ""  # `tracestate`, passed on as it came
    parent_id: str = ""  # 16 hex digits, "" at the root

    @property
    def traceparent(self) -> str:
        """The header's value: "00-<trace>-<span>-<flags>"."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


class Context(Struct, frozen=True, gc=False):
    """What a request carries from hop to hop. A new one is derived, never changed."""

    deadline: float | None = None  # clock.seconds() value of this process, never wall time; on the wire, remaining ms
    trace: Trace | None = None
    request_id: str = ""  # one for everything that one outside request caused
    priority: int = 0  # higher is more important; a public listener cannot raise it
    tenant: str = ""
    attempt: int = 1  # 1 for the first try
    key: str | None = None  # idempotency key
    baggage: str = ""  # W3C baggage, among siblings only
    service: str = ""  # who is at work: for log lines
    operation: str = ""


NOWHERE = Context()

_current: contextvars.ContextVar[Context] = contextvars.ContextVar("ropewalk_context", default=NOWHERE)


def current_context() -> Context:
    """The Context of the operation that is running, or an empty one outside of any."""
    return _current.get()


def enter_context(context: Context) -> contextvars.Token[Context]:
    """Make `context` current in the running coroutine; give the token to `leave_context` in a `finally`.

    Only a filter inside a driven coroutine may call this: set in a bare callback it would leak to strangers.
    """
    return _current.set(context)


def leave_context(token: contextvars.Token[Context]) -> None:
    """Undo `enter_context`."""
    undo(_current, token)


def undo(variable: contextvars.ContextVar[R], token: contextvars.Token[R]) -> None:
    """Undo `variable.set`, where that was done: a coroutine that all have forgotten is closed in whichever context."""
    with suppress(ValueError):
        variable.reset(token)


def bound(callback: Callable[P, R]) -> Callable[P, R]:
    """`callback`, to be run in the context of now, whoever calls it and as often as they do.

    >>> from twisted.internet.defer import Deferred
    >>> Deferred().addCallback(bound(print))  # doctest: +ELLIPSIS
    <Deferred ...>
    """
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy per call: a Context cannot be entered twice, and callbacks may nest or repeat.
        return context.copy().run(callback, *args, **kwargs)

    return run
