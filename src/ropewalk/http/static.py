"""Files of a folder, as they are: `@mount("/static", access="public")` on a method that returns `Static(folder)`.

Sending them and the refusal to leave the folder are Twisted's, what is still fresh decides Werkzeug. Not on
`twisted.web.static.File`: it has no ETag, If-Range or Cache-Control, takes a part longer than the file for one before
its beginning, lists folders, and warns of its own deprecated pages as soon as it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from mimetypes import MimeTypes
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath, InsecurePath
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.http import http_date, parse_date, parse_range_header
from werkzeug.sansio.http import is_resource_modified

from ..errors import BadRequest, ConfigurationError, Forbidden, MethodNotAllowed, NotFound, RopewalkError
from .heads import end_without_body, write_problem

# Kept by the browser, and asked about each time: a change is seen at once, and an unchanged file costs no body.
REVALIDATE = "no-cache"

# By ending. Python's own table, without what this machine adds to it, and what older Pythons lack of the web.
_TYPES: Mapping[str, str] = {
    **MimeTypes().types_map[True],
    ".avif": "image/avif",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


class Static(Resource):
    """The files in a folder and its folders. A link in it is followed; names that begin with a dot are not there."""

    isLeaf = True

    def __init__(self, folder: str | os.PathLike[str], *, cache: str = REVALIDATE, index: str = "index.html") -> None:
        """`cache`: what Cache-Control says ("public, max-age=31536000, immutable" where a new content has a new name).

        `index`: the file that answers for a folder. Raises ConfigurationError when there is no such folder.
        """
        super().__init__()
        if not Path(folder).is_dir():
            raise ConfigurationError(
                f"Expected a folder of files to serve; there is none at {Path(folder).absolute()}."
            )
        self._folder = FilePath(os.fspath(folder))
        self._cache = cache
        self._index = index

    def render(self, request: Any) -> Any:
        """Answer GET and HEAD with the file, the part of it that was asked for, or the news that nothing is new."""
        try:
            if request.method not in (b"GET", b"HEAD"):
                method = request.method.decode("latin-1")
                raise MethodNotAllowed(f"{method} is not for files.", headers=[("allow", "GET, HEAD")])
            path = self._find(request.postpath)
            if path.isdir():
                return self._to_folder(request)
            return _send(request, path.basename(), _opened(path), self._cache)
        except RopewalkError as error:
            return write_problem(request, error)

    def _find(self, segments: list[bytes]) -> FilePath[str]:
        path = self._folder
        for segment in segments:
            try:
                name = segment.decode("utf-8")
                if not path.isdir() or "\0" in name or (name.startswith(".") and name != ".well-known"):
                    raise NotFound("Nothing is here.")
                path = path.child(name)
            except (UnicodeDecodeError, InsecurePath):
                raise NotFound("Nothing is here.") from None
        if path.isdir() and segments and not segments[-1]:
            path = path.child(self._index)
        if not path.isfile() and not (path.isdir() and path.child(self._index).isfile()):
            raise NotFound("Nothing is here.")
        return path

    def _to_folder(self, request: Any) -> bytes:
        """Its index has links beside itself, so it lies beneath a slash."""
        last = (request.postpath or request.prepath)[-1].decode("utf-8")
        request.setResponseCode(308)
        request.setHeader(b"location", f"./{quote(last)}/".encode())  # relative: no name can make it another host
        return b""


def _opened(path: FilePath[str]) -> IO[bytes]:
    try:
        return path.open()
    except PermissionError:
        raise Forbidden("This file may not be read.") from None
    except OSError:  # gone since it was found
        raise NotFound("Nothing is here.") from None


def _send(request: Any, name: str, file: IO[bytes], cache: str) -> Any:
    try:
        length = _write_head(request, name, file, cache)
    except BaseException:
        file.close()
        raise
    if length is None:
        file.close()
        return b"" if request.method == b"HEAD" else end_without_body(request, 304)

    def ended(result: Any) -> None:
        file.close()
        if not isinstance(result, Failure):  # else it is the client who has ended it
            request.finish()

    FileSender().beginFileTransfer(_Part(file, length), request).addBoth(ended)
    return NOT_DONE_YET


def _write_head(request: Any, name: str, file: IO[bytes], cache: str) -> int | None:
    """How many bytes follow from where `file` then stands; None when it is the head alone that is sent."""
    status = os.fstat(file.fileno())
    # As strong as nginx's: another content has another size or another time, to the nanosecond.
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    asked = _Asked(request)
    part = asked.part(status.st_size, etag, modified)
    request.setHeader(b"etag", etag.encode())
    request.setHeader(b"last-modified", http_date(modified).encode())
    request.setHeader(b"cache-control", cache.encode("latin-1"))
    request.setHeader(b"accept-ranges", b"bytes")
    if asked.has(etag, modified):
        request.setResponseCode(304)
        return None
    media_type = _TYPES.get(os.path.splitext(name)[1].lower(), "application/octet-stream")
    charset = "; charset=utf-8" if media_type.startswith("text/") else ""
    request.setHeader(b"content-type", f"{media_type}{charset}".encode())
    request.setHeader(b"x-content-type-options", b"nosniff")
    start, stop = part or (0, status.st_size)
    request.setHeader(b"content-length", b"%d" % (stop - start))
    if part is not None:
        request.setResponseCode(206)
        request.setHeader(b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, status.st_size))
    file.seek(start)
    return stop - start if request.method == b"GET" else None


class _Part:
    """The next `length` bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self._left = length

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Asked:
    """The conditions of a request (RFC 9110, sections 13 and 14)."""

    def __init__(self, request: Any) -> None:
        self._get = request.getHeader
        self._ranged = request.method == b"GET"  # a range means nothing to another method

    def has(self, etag: str, modified: datetime) -> bool:
        """Whether who asks has this very content; a date is looked at only when no tag was given."""
        if_none_match = self._get("if-none-match")
        return not is_resource_modified(
            http_if_none_match=if_none_match,
            http_if_modified_since=None if if_none_match else self._get("if-modified-since"),
            etag=etag,
            last_modified=modified,
        )

    def part(self, size: int, etag: str, modified: datetime) -> tuple[int, int] | None:
        """The first byte and the one after the last; None for the whole file, as when several parts are asked for.

        Raises a problem of status 416 for a part that lies beyond the end.
        """
        wanted = parse_range_header(self._get("range")) if self._ranged and not self.has(etag, modified) else None
        if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1 or not self._still(etag, modified):
            return None
        start, stop = wanted.ranges[0]
        if start < 0:  # the last so many bytes, of which there may be fewer
            start = max(0, size + start)
        stop = size if stop is None else min(stop, size)
        if start >= stop:
            headers = [("content-range", f"bytes */{size}")]
            raise BadRequest(f"This file has {size} bytes.", status=416, headers=headers)
        return start, stop

    def _still(self, etag: str, modified: datetime) -> bool:
        """Whether the part belongs to what the client has the rest of; a weak tag does not prove that."""
        if_range = self._get("if-range")
        if not if_range:
            return True
        if "/" in if_range or '"' in if_range:
            return bool(if_range.strip() == etag)
        return parse_date(if_range) == modified.replace(microsecond=0)
