"""The Site a listener serves with: the engine's, with problem documents of ours, and operations answered straight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource
from twisted.web.server import Request as ServerRequest

from ..codec import problem
from ..codec.forms import MULTIPART, URLENCODED, read_form
from ..codec.types import Upload
from ..engine.exchange import Exchange, Receiver
from ..engine.heads import Refused
from ..engine.limits import DEFAULT, Limits
from ..engine.proxies import Proxies
from ..engine.site import Site as EngineSite
from ..errors import BadRequest, ContentTooLarge
from .direct import Direct
from .server import ServiceResource


class _Request(ServerRequest):
    def fill_args(self) -> None:
        """Put the fields of a posted form into `args`, as raw code expects; raises BadRequest when it is broken.

        Twisted would have done it before any route was known, for operations too, and answered a bare 400.
        """
        content_type = (self.getHeader(b"content-type") or b"").decode("latin-1")
        if self.method != b"POST" or not content_type.lower().startswith((URLENCODED, MULTIPART)):
            return
        content: Any = self.content
        for name, value in read_form(content_type, content.read()):
            each = value.content if isinstance(value, Upload) else value.encode()
            self.args.setdefault(name.encode(), []).append(each)
        content.seek(0)


class Site(EngineSite):
    """For one listener."""

    def __init__(
        self,
        resource: IResource,
        reactor: Any,
        max_body: int,
        limits: Limits = DEFAULT,
        proxies: Proxies | None = None,
    ) -> None:
        """`max_body`: bytes, of any request."""
        limits = replace(limits, body=max_body)
        super().__init__(
            resource, _Request, reactor=reactor, parsePOSTFormSubmission=False, limits=limits, proxies=proxies
        )
        self._direct = Direct(resource) if isinstance(resource, ServiceResource) else None

    def log(self, request: Any) -> None:
        """Nothing: the line of each request says more."""

    def _updateLogDateTime(self) -> None:
        """Nothing, and no timer every second: `log` writes no line that wants a date."""

    def drain(self) -> None:
        """From now on each connection ends with the reply to its next request, or when it has none."""
        self.server.drain()

    def wait_until_closed(self) -> Deferred[None]:
        """Fires when no connection is left."""
        return self.server.wait_until_closed()

    def abort(self) -> None:
        """Cut off the connections that are left."""
        self.server.abort()

    def serve(self, exchange: Exchange) -> Receiver:
        """Straight, or over the resource."""
        straight = self._direct.take(exchange) if self._direct is not None else None
        return straight if straight is not None else super().serve(exchange)

    def told(self, refused: Refused) -> bytes:
        """A problem document of ours."""
        cls = ContentTooLarge if refused.status == 413 else BadRequest
        return msgspec.json.encode(problem.to_problem(cls(str(refused), status=refused.status)))
