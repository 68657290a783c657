"""`sibling://payments/charges/7` for treq: an IAgent that knows the siblings and sends them what is theirs to know.

A plain `http://` URL is never a sibling: it gets no header of ours.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import directlyProvides, implementer, providedBy

from ..context import current_context
from ..errors import Unavailable
from ..telemetry.propagation import IDENTITY, inject

SCHEME = "sibling"

# So that a relative redirect of a sibling is joined as one of http is (urllib's own way to make a scheme known).
for _known in (urllib.parse.uses_relative, urllib.parse.uses_netloc):
    if SCHEME not in _known:
        _known.append(SCHEME)


@implementer(IAgent)
class SiblingAgent:
    """Sends `sibling://name/path` to an instance of that sibling, with the caller's context; the rest as it is."""

    def __init__(
        self,
        agent: Any,
        address: Callable[[str], str | None],
        seconds: Callable[[], float],
        identity: Callable[[str], str] | None = None,
    ) -> None:
        """`address(name)`: "http://host:port" of an instance, None when there is none; `identity(name)`: who calls."""
        self._agent = agent
        self._address = address
        self._seconds = seconds
        self._identity = identity

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """As IAgent; fails with Unavailable when the sibling has no instance."""
        prefix = SCHEME.encode() + b"://"
        if not uri.startswith(prefix):
            return self._agent.request(method, uri, headers, bodyProducer)  # type: ignore[no-any-return]
        host, slash, rest = uri[len(prefix) :].partition(b"/")
        name = host.decode("ascii")
        address = self._address(name)
        if address is None:
            return fail(Unavailable(f"sibling://{name}: no instance of {name} is known."))
        headers = Headers(dict(headers.getAllRawHeaders())) if headers is not None else Headers()
        for header, value in inject(current_context(), self._seconds()):
            headers.setRawHeaders(header, [value])
        if self._identity is not None:
            headers.setRawHeaders(IDENTITY, [self._identity(name)])
        target = address.encode("ascii") + (slash or b"/") + rest
        answer: Deferred[IResponse] = self._agent.request(method, target, headers, bodyProducer)
        return answer.addCallback(_as_asked, uri)


class _Asked:
    """The request as its caller wrote it: redirects are resolved against this."""

    def __init__(self, request: Any, uri: bytes) -> None:
        self._request = request
        self.absoluteURI = uri
        directlyProvides(self, providedBy(request))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def _as_asked(response: Any, uri: bytes) -> Any:
    response.request = _Asked(response.request, uri)
    return response


__all__ = ["SCHEME", "SiblingAgent"]
