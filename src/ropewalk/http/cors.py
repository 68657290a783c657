"""Which pages of other origins may read a listener's answers: the Fetch standard's CORS, off unless configured.

It opens reading to a browser's scripts and protects nothing: what a form of another site may send is `csrf`'s affair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from twisted.web.resource import IResource, Resource

from ..errors import ConfigurationError
from .heads import end_without_body

ANY = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_PREFLIGHT = "access-control-request-method"


class CORS(Struct, frozen=True):
    """A policy. `origins`: "https://app.example", as browsers say it, or "*" for all."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = ("authorization", "content-type", "idempotency-key")  # that scripts may send
    exposed: tuple[str, ...] = ("location", "retry-after")  # that scripts may read, beside the harmless ones
    credentials: bool = False  # whether cookies come along
    max_age: int = 600  # seconds a browser remembers a preflight: all that Safari keeps

    def __post_init__(self) -> None:
        for origin in self.origins:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f'An origin is like "https://app.example", without a path or a slash at its end; got {origin!r}.'
                )
        if self.credentials and ANY in self.origins:
            raise ConfigurationError(
                'CORS with credentials for "*" would let every site act for whoever visits it; name the origins.'
            )

    def allows(self, origin: str) -> bool:
        """Whether pages of `origin` may read."""
        return origin in self.origins or ANY in self.origins

    def reply(self, origin: str | None) -> list[tuple[str, str]]:
        """The headers of a reply to a request with this Origin.

        >>> CORS(("https://app.example",)).reply("https://other.example")
        [('vary', 'origin')]
        >>> CORS(("*",), exposed=()).reply("https://other.example")
        [('access-control-allow-origin', '*')]
        """
        if ANY in self.origins:
            said = [("access-control-allow-origin", ANY)]
        else:
            said = [("vary", "origin")]
            if origin is None or not self.allows(origin):
                return said
            said.append(("access-control-allow-origin", origin))
        if self.credentials:
            said.append(("access-control-allow-credentials", "true"))
        if self.exposed:
            said.append(("access-control-expose-headers", ", ".join(self.exposed)))
        return said

    def preflight(self, method: str, headers: Mapping[str, str]) -> list[tuple[str, str]] | None:
        """The headers that answer a preflight, beside `reply`'s; None when the request is none, or not allowed one."""
        if method != "OPTIONS" or _PREFLIGHT not in headers or not self.allows(headers.get("origin", "")):
            return None
        return [
            ("access-control-allow-methods", ", ".join(self.methods)),
            ("access-control-allow-headers", ", ".join(self.headers)),
            ("access-control-max-age", str(self.max_age)),
        ]


class AllowOrigins(Resource):
    """`resource` under a policy: every reply says who may read it, and preflights are answered here."""

    isLeaf = True

    def __init__(self, resource: IResource, cors: CORS) -> None:
        super().__init__()
        self._resource = resource
        self._cors = cors

    def render(self, request: Any) -> Any:
        """Add the policy's headers, and let the resource answer."""
        origin = request.getHeader("origin")
        _add(request, self._cors.reply(origin))
        if request.method == b"OPTIONS" and origin is not None:
            asked = {"origin": origin}
            if request.getHeader(_PREFLIGHT):
                asked[_PREFLIGHT] = request.getHeader(_PREFLIGHT)
            said = self._cors.preflight("OPTIONS", asked)
            if said is not None:
                _add(request, said)
                return end_without_body(request, 204)
        return self._resource.render(request)


def _add(request: Any, headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        request.responseHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
