"""Heads of HTTP/1.1 messages: what a request's must satisfy beyond what llhttp sees to, and how a reply's is written.

llhttp, in its strict mode, refuses obs-fold, bare CR and LF, NUL, blanks before the colon, a Content-Length that is
doubled, signed, listed or beside a Transfer-Encoding, and malformed chunks. What it lets pass is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address

Fields = Sequence[tuple[bytes, bytes]]

# By RFC 9110; older Pythons have older phrases for two of them.
PHRASES = {each.value: each.phrase for each in HTTPStatus} | {413: "Content Too Large", 422: "Unprocessable Content"}
STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in PHRASES.items()}
BODILESS = frozenset({*range(100, 200), 204, 304})  # statuses whose replies have no body (RFC 9112, section 6.3)

# RFC 3986, section 3.2.2, and a port; no userinfo (RFC 9110, section 4.2.4).
_HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Refused(Exception):
    """Raised when a request cannot be taken: `status` is what it is answered with, and then its connection ends."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def examine(version: str, method: bytes, target: bytes, fields: Fields) -> tuple[int | None, bool]:
    """How long the body is, None when only its end will tell, and whether its sender waits for 100 Continue.

    Raises Refused for what may not be taken: what two readers could understand differently is read by none.
    """
    if version not in ("1.1", "1.0"):
        raise Refused(505, f"HTTP/{version} is not spoken here; HTTP/1.1 is.")
    length: int | None = 0
    host: bytes | None = None
    expects = False
    for name, value in fields:
        match len(name):
            case 4 if name.lower() == b"host":
                if host is not None:
                    raise Refused(400, "A request has one Host; this one has more.")
                host = value
            case 6 if name.lower() == b"expect":
                if value.lower() != b"100-continue":
                    raise Refused(417, "The only expectation met is 100-continue.")
                expects = version == "1.1"
            case 14 if name.lower() == b"content-length":
                if value[:1] == b"0" and value != b"0":
                    raise Refused(400, "A Content-Length has no leading zeros.")
                length = int(value)
            case 17 if name.lower() == b"transfer-encoding":
                if version == "1.0":
                    raise Refused(400, "HTTP/1.0 has no Transfer-Encoding.")
                if value.lower() != b"chunked":
                    raise Refused(400, "The only Transfer-Encoding taken is chunked.")
                length = None
    if host is None and version == "1.1":
        raise Refused(400, "A request has one Host; this one has none.")
    if host and not names_host(host):  # it is empty where the target has no authority
        raise Refused(400, "The Host is malformed.")
    if target[:1] != b"/" or b"#" in target or method == b"CONNECT":
        _examine_target(method, target, host)
    return length, expects


def _examine_target(method: bytes, target: bytes, host: bytes | None) -> None:
    if b"#" in target:
        raise Refused(400, "A request's target has no fragment.")
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(400, "Only OPTIONS asks for *.")
        return
    absolute = _ABSOLUTE.match(target)
    if absolute is None or method == b"CONNECT":
        raise Refused(400, "A request's target is a path; this server is no proxy.")
    if not names_host(absolute[1]):
        raise Refused(400, "The authority of the request's target is malformed.")
    if host is not None and absolute[1].lower() != host.lower():
        raise Refused(400, "The request's target and its Host name two hosts.")


def origin_form(target: bytes) -> bytes:
    """A target as applications have it: without the scheme and the host that it may begin with (RFC 9112, 3.2.2)."""
    if target[:1] == b"/":
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


@lru_cache(256)  # the same few, again and again
def names_host(authority: bytes) -> bool:
    """Whether these are a host, and perhaps a port."""
    match = _HOST.fullmatch(authority)
    if match is None or int(match[2] or 0) > 65535:
        return False
    try:
        return match[1] is None or bool(IPv6Address(match[1].decode()))
    except AddressValueError:
        return False


def reply_head(status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes | None = None) -> bytes:
    """A reply's head. ValueError when a field, or the reason, would end its line or the head before its time."""
    if reason is None and status in STATUS_LINES:
        return _head(STATUS_LINES[status], fields)
    return _head(b"HTTP/1.1 %d %b\r\n" % (status, reason or b""), fields)


def usual_head(status: int, fields: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    """`reply_head` where the body's length is still to be put in, by %; None for one of more than a field or two."""
    return _usual_head(status, fields) if len(fields) < 3 else None


@lru_cache(256)  # the same few, again and again
def _usual_head(status: int, fields: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    if status not in STATUS_LINES or any(name.lower() == b"connection" for name, _ in fields):
        return None
    return reply_head(status, fields)[:-2].replace(b"%", b"%%") + b"content-length: %d\r\n\r\n"


def request_head(method: bytes, target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A request's head. ValueError as `reply_head`, and for a target with a blank."""
    if b" " in target or b" " in method:
        raise ValueError(f"A request's method and target have no blanks; these do: {method!r}, {target!r}")
    return _head(b"%b %b HTTP/1.1\r\n" % (method, target), fields)


def request_head_of_texts(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """`request_head` of texts in Latin-1; ValueError (UnicodeEncodeError) for others."""
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    head = f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")
    if " " in target:
        raise ValueError(f"A request's target has no blanks; this does: {target!r}")
    return _sound(head, len(lines))


def _head(first: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [b"%b: %b\r\n" % field for field in fields]
    return _sound(b"%b%b\r\n" % (first, b"".join(lines)), len(lines))


def _sound(head: bytes, fields: int) -> bytes:
    """The head, which has so many fields, and no end but its own."""
    ends = fields + 2
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError(f"A head of {fields} fields has a CR, LF or NUL within: {head[:200]!r}")
    return head
