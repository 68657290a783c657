"""The heads of HTTP messages: a request's headers and cookies, a reply's status and headers, a whole problem."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import NOT_DONE_YET

from ..codec import problem
from ..errors import RopewalkError
from ..message import Response

OWN = ("ropewalk-", "baggage")


def read_headers(request: Any, *, keep_own: bool) -> dict[str, str]:
    """The headers by lower-case name, repeated ones joined; without ours when they cannot be trusted.

    Then they are taken out of `request`, too: whoever is handed that must not meet them either.
    """
    headers: dict[str, str] = {}
    own: list[bytes] = []
    for name, values in request.requestHeaders.getAllRawHeaders():
        key = name.decode("latin-1").lower()
        if not keep_own and key.startswith(OWN):
            own.append(name)
        elif len(values) == 1:
            headers[key] = values[0].decode("latin-1")
        else:  # cookies may be split by HTTP/2 (RFC 9113, section 8.2.3)
            headers[key] = (b"; " if key == "cookie" else b", ").join(values).decode("latin-1")
    for name in own:
        request.requestHeaders.removeHeader(name)
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
