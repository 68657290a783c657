"""An error as its reader wants it: a problem document or, for a browser, a page of the service's own.

A service that shows pages has a method `error_page(error, request)` beside its operations; what it answers goes to
whoever would rather read HTML than a problem document. None, or a method that fails, leaves the problem document.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from ..codec.problem import CONTENT_TYPE
from ..errors import RopewalkError
from ..message import Response
from .accept import quality
from .heads import write_head, write_problem
from .sessions import write_session

ErrorPage = Callable[[RopewalkError, Any], "Response | None"]

_log = Logger("ropewalk.http")


def write_error(request: Any, error: RopewalkError, page: ErrorPage | None, *, redact: bool = False) -> bytes:
    """Write the head of what tells of `error`, the session's cookie included; the body's bytes.

    `redact` is for the problem document; a page says of a failure what its author lets it say.
    """
    response = _paged(request, error, page) if page is not None else None
    with suppress(RopewalkError):  # logged where it was raised, and what is told here goes before it
        write_session(request)
    if response is None:
        return write_problem(request, error, redact=redact)
    about = error.headers if response.status == error.status else ()  # a redirect tells nothing of it
    request.responseHeaders.removeHeader(b"content-type")
    write_head(request, Response(None, response.status, [*response.headers, *about, ("vary", "accept")]))
    body = response.body or b""
    body = body.encode() if isinstance(body, str) else bytes(body)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


def _paged(request: Any, error: RopewalkError, page: ErrorPage) -> Response | None:
    accept = request.getHeader("accept")
    if quality(accept, "text/html") <= quality(accept, CONTENT_TYPE):
        return None
    try:
        return page(error, request)
    except Exception:
        _log.failure("the page for {error!r} failed", error=error)
        return None
