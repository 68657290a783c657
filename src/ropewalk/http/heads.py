"""The heads of HTTP messages: a request's headers and cookies, a reply's status and headers, a whole problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from twisted.web.server import NOT_DONE_YET

from ..codec import problem
from ..errors import RopewalkError
from ..message import Response

_OWN = ("ropewalk-", "baggage")


def read_headers(request: Any, *, keep_own: bool) -> dict[str, str]:
    """`headers_of` a `twisted.web` request.

    Ours are taken out of `request`, too, when they are not kept: whoever is handed that must not meet them either.
    """
    fields = [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    if not keep_own:
        for name, _ in fields:
            if name.decode("latin-1").lower().startswith(_OWN):
                request.requestHeaders.removeHeader(name)
    return headers_of(fields, keep_own=keep_own)


def headers_of(fields: Iterable[tuple[bytes, bytes]], *, keep_own: bool) -> dict[str, str]:
    """The fields of a head by lower-case name, repeated ones joined; without ours when they cannot be trusted."""
    headers: dict[str, str] = {}
    for raw, value in fields:
        name = raw.decode("latin-1").lower()
        if name in headers:  # cookies may be split by HTTP/2 (RFC 9113, section 8.2.3)
            headers[name] += ("; " if name == "cookie" else ", ") + value.decode("latin-1")
        elif keep_own or not name.startswith(_OWN):
            headers[name] = value.decode("latin-1")
    return headers


def read_cookies(header: str) -> dict[str, str]:
    """The cookies of a Cookie header (RFC 6265, section 5.4); of a repeated name the first counts."""
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, separator, value = pair.strip().partition("=")
        if separator:
            cookies.setdefault(name, value.strip('"'))
    return cookies


def write_head(request: Any, response: Response) -> None:
    """Status, headers and cookies of `response`."""
    request.setResponseCode(response.status)
    for name, value in response.headers:
        request.responseHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
    for cookie in response.cookies:
        request.responseHeaders.addRawHeader(b"set-cookie", cookie.encode("latin-1"))


def write_problem(request: Any, error: RopewalkError, *, redact: bool = False) -> bytes:
    """Write the head of `error`'s problem document; its bytes."""
    body = msgspec.json.encode(problem.to_problem(error, redact=redact))
    request.setResponseCode(error.status)
    request.setHeader(b"content-type", problem.CONTENT_TYPE.encode())
    for name, value in error.headers:
        request.setHeader(name.encode("latin-1"), value.encode("latin-1"))
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


def abort(request: Any) -> None:
    """Cut the reply off, for all to see: a clean end would pass for the whole of it."""
    channel = request.channel
    end = channel if hasattr(channel, "abortConnection") else channel.transport  # of HTTP/2, the stream alone
    end.abortConnection()


def end_without_body(request: Any, status: int) -> int:
    """Answer 204 or 304; what `render` returns then. Returning b"" would say `Content-Length: 0`, which is not so."""
    request.setResponseCode(status)
    request.finish()
    return NOT_DONE_YET
