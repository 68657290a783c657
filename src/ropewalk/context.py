"""What travels with a request through every hop: deadline, trace, priority, tenant, attempt, key. Immutable values.

The Context travels *in the Request*; `current_context()` is the same value in ambient form, for log lines and for code
that has no request at hand. It is right inside operations and in the clocks, threads and callbacks that the framework
hands out; `bound(callback)` carries it into a bare `addCallback` or `callLater`. Authorization never reads it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
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
    cancel: bool = False  # the key is taken back: what has not run under it must not run any more


NOWHERE = Context()

ambient: contextvars.ContextVar[Context] = contextvars.ContextVar("ropewalk_context", default=NOWHERE)


def current_context() -> Context:
    """The Context of the operation that is running, or an empty one outside of any."""
    return ambient.get()


def enter_context(context: Context) -> contextvars.Token[Context]:
    """Make `context` current in the running coroutine; give the token to `leave_context` in a `finally`.

    Only a filter inside a driven coroutine may call this: set in a bare callback it would leak to strangers.
    """
    return ambient.set(context)


def leave_context(token: contextvars.Token[Context]) -> None:
    """Undo `enter_context`."""
    undo(ambient, token)


def undo(variable: contextvars.ContextVar[R], token: contextvars.Token[R]) -> None:
    """Undo `variable.set`, where that was done: a coroutine that all have forgotten is closed in whichever context."""
    try:  # noqa: SIM105
        variable.reset(token)
    except ValueError:  # contextlib.suppress costs more than the reset
        pass


class Keyed:
    """A request under an idempotency key, while it is worked on: what its repetition must count as it did.

    Its runs of `Database.run` and its calls of siblings are told apart by their number. The operation's own coroutine
    changes it; a task that outlives the operation is no part of it any more.
    """

    __slots__ = ("arguments", "calls", "errors", "key", "operation", "over", "running", "runs", "scope")

    def __init__(
        self, scope: str, key: str, operation: str, arguments: str, errors: tuple[type[Exception], ...]
    ) -> None:
        """`scope`: 32 hex digits of whose key for which operation it is; `arguments`: 32 of what was asked.

        `errors`: those the operation declares, which are answers, too.
        """
        self.scope = scope
        self.key = key
        self.operation = operation
        self.arguments = arguments
        self.errors = errors
        self.runs = 0  # of Database.run, so far
        self.running = False  # whether one of them is outstanding
        self.calls: dict[str, int] = {}  # callee's operation -> how many, so far
        self.over = False  # whether the operation has ended

    @property
    def reused(self) -> str:
        """What is said when its key stands for another request."""
        return (
            f"{self.operation}: the idempotency key {self.key!r} came with other arguments before; "
            "a new request needs a key of its own."
        )

    def uses(self, what: str) -> None:
        """Told of everything that is done within it: what has no place there raises."""

    def key_for(self, operation: str) -> str:
        """The key of the next call of a sibling's operation: the same in every repetition, and nobody else's."""
        number = self.calls[operation] = self.calls.get(operation, 0) + 1
        return digest(self.scope, operation, str(number))


class Outside(Keyed):
    """What is current in a saga's own code, outside of its steps: nothing may be done there."""

    def __init__(self, saga: str) -> None:
        super().__init__("", "", saga, "", ())

    def uses(self, what: str) -> None:
        """Raise RuntimeError."""
        raise RuntimeError(
            f"{self.operation}: {what} is used outside of flow. A saga's code runs again from its beginning, so what "
            "it does goes through `flow.step(...)` or `flow.transaction(...)`."
        )


def digest(*parts: str) -> str:
    """32 hex digits that stand for these texts in this order."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.hexdigest()


_keyed: contextvars.ContextVar[Keyed | None] = contextvars.ContextVar("ropewalk_keyed", default=None)


def current_key() -> Keyed | None:
    """The request under a key that the running operation answers; None without a key, or outside of any."""
    keyed = _keyed.get()
    return keyed if keyed is not None and not keyed.over else None


def derived_key(key: str | None, operation: str, safe: bool) -> str | None:
    """What a call of a sibling's operation is made under, in a context with `key`.

    A key somebody set is passed on as it is; that of the request which is answered is derived from, and a task that
    outlives its request has none, and what is `safe` needs none.
    """
    keyed = _keyed.get()
    if keyed is not None:
        keyed.uses(operation)
    if safe:
        return None
    if keyed is None or key != keyed.key:
        return key
    return None if keyed.over else keyed.key_for(operation)


enter_key = _keyed.set
leave_key = partial(undo, _keyed)


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
