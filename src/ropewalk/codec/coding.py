"""Bodies that were compressed for the way (RFC 9110, section 8.4.1), made plain, within limits.

>>> import gzip
>>> plain(gzip.compress(b"rooms"), "gzip", 100)
b'rooms'
"""

from __future__ import annotations

import zlib

from ..errors import BadRequest, ContentTooLarge, UnsupportedMediaType

RATIO = 200  # bytes that one byte may become, as Apache's DeflateInflateRatioLimit
SMALL = 64 << 10  # bytes that may come of however few
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # what zlib is told to read


def plain(body: bytes, coding: str, limit: int) -> bytes:
    """`body` without `coding`, the value of Content-Encoding; "" or "identity" leave it as it is.

    Raises UnsupportedMediaType for a coding that is not read, BadRequest for a body that is not of it, ContentTooLarge
    when it would become more than `limit` bytes, or more than it may have come from.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    window = _WINDOWS.get(name)
    if window is None:
        raise UnsupportedMediaType(
            f"A body may be compressed by gzip or deflate, once; got {coding!r}.",
            headers=[("accept-encoding", "gzip, deflate")],
        )
    allowed = min(limit, max(SMALL, RATIO * len(body)))
    inflater = zlib.decompressobj(window)
    try:
        whole = inflater.decompress(body, allowed + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not {name}: {error}.") from error
    if len(whole) > allowed:
        raise ContentTooLarge(f"{len(body)} bytes of {name} become more than {allowed}, which are taken.")
    if not inflater.eof or inflater.unused_data:
        raise BadRequest(
            f"The body is not {name}: {'bytes come behind its end' if inflater.eof else 'its end is missing'}."
        )
    return whole
