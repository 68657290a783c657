"""Finds out who asks, and whether they may: the only place that sets a request's principal."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ..errors import Forbidden, Unauthorized
from ..handler import Handler
from ..interfaces import IAuthenticator
from ..message import ANONYMOUS, Request, Response


class Authenticate:
    """Asks each authenticator in turn; the first that knows the caller decides. Then checks `access` and `scopes`.

    A request from this process (no metadata) brings the principal of its caller.
    """

    def __init__(self, authenticators: Sequence[IAuthenticator]) -> None:
        self._authenticators = tuple(authenticators)
        self._headers = frozenset(header for each in authenticators for header in each.headers)

    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        operation = request.operation
        if self._headers.isdisjoint(request.metadata) and operation.access != "user" and not operation.scopes:
            return handler(request)  # nearly always; without a frame of ours
        return self._authenticated(request, handler)

    async def _authenticated(self, request: Request, handler: Handler) -> Response:
        metadata = request.metadata
        if not self._headers.isdisjoint(metadata):
            for authenticator in self._authenticators:
                principal = await authenticator.authenticate(metadata)
                if principal is not None:
                    request = request.replace(principal=principal)
                    break
        operation = request.operation
        if operation.access == "user" or operation.scopes:
            self._check(request)
        return await handler(request)

    def _check(self, request: Request) -> None:
        operation, principal = request.operation, request.principal
        if principal.subject is None and (operation.access == "user" or principal == ANONYMOUS):
            raise Unauthorized(
                f"{operation.id} needs to know who asks: sign in, or send a bearer token.",
                headers=[("www-authenticate", "Bearer")],
            )
        missing = operation.scopes - principal.scopes
        if missing:
            raise Forbidden(f"{operation.id} needs the scope {', '.join(sorted(missing))}.")
