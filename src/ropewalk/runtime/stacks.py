"""Both filter orders, in the order a request meets them, each position with its reason.

What is on by default stands here and nowhere else. A filter that another piece brings takes the place its comment
keeps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from twisted.internet.interfaces import IReactorTime

from ..context import Keyed
from ..filters.authenticate import Authenticate
from ..filters.background import Background
from ..filters.deadline import Deadline
from ..filters.key import GiveKey, UnderKey
from ..filters.observe import Done, Meter, Observe
from ..handler import Filter
from ..interfaces import IAuthenticator
from ..policy.deadline import DEFAULT_TIMEOUT


def server_stack(
    *,
    clock: IReactorTime,
    random: Random,
    meter: Meter,
    done: Done | None = None,
    authenticators: Sequence[IAuthenticator] = (),
    timeout: float | None = DEFAULT_TIMEOUT,
    take_back: Callable[[Keyed], Awaitable[bool]] | None = None,
    background: Background | None = None,
) -> list[Filter]:
    """What stands before a service's operations."""
    return [
        # First: every line and number below belongs to its span, and whatever refuses or ends a call is counted.
        Observe(random, clock.seconds, meter, done),
        # (shed: before any work is done for a call that will be turned away)
        # Before authentication, which may wait on others and must not wait for ever.
        Deadline(clock, timeout, unless_given=True),
        # Before the payload is read: a stranger's body is not worth decoding.
        Authenticate(authenticators),
        # After it is known whose key it is.
        UnderKey(take_back),
        # Under the key: accepted twice it is one job.
        *([background] if background is not None else []),
    ]


def client_stack(
    *,
    clock: IReactorTime,
    random: Random,
    meter: Meter,
    timeout: float | None = None,
) -> list[Filter]:
    """What stands on an edge, between a caller and the connection to its sibling."""
    return [
        # The edge as its caller sees it: one span and one number for a call, not for its tries.
        Observe(random, clock.seconds, meter),
        # Of the whole call, all tries and waits between them included.
        Deadline(clock, timeout),
        # Before the tries: they all have one key.
        GiveKey(random, clock),
        # (budgeted retry → pick an instance → eject → timeout of the try)
    ]
