"""The whole idea on one page: a Handler answers, a Filter stands between, compose is the only fold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeAlias

from .message import Request, Response

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Everything that answers: a server, a client, a sibling in the same process."""


class Filter(Protocol):
    """Everything that stands between: one coroutine that reads before, await, after.

    One that has nothing to do with a request may return `handler(request)` as it is.
    """

    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]: ...


def compose(filters: Iterable[Filter], handler: Handler) -> Handler:
    """`handler` behind `filters`, the first of them outermost. Done once, at start; the stack never changes.

    >>> async def shout(request, handler):
    ...     answer = await handler(request)
    ...     return Response(answer.body.upper())
    >>> async def hello(request):
    ...     return Response("hello")
    >>> handler = compose([shout], hello)
    """
    for filter in reversed(list(filters)):
        handler = _behind(filter, handler)
    return handler


def _behind(filter: Filter, handler: Handler) -> Handler:
    # Returns the filter's own coroutine: no frame of ours lies between two filters.
    def filtered(request: Request) -> Awaitable[Response]:
        return filter(request, handler)

    return filtered
