"""HTML forms <-> fields: `application/x-www-form-urlencoded` and `multipart/form-data`, in memory."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import parse_qsl, urlencode

from multipart import MultipartError, MultipartParser, parse_options_header

from ..errors import BadRequest, UnsupportedMediaType
from .types import Upload

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
MAX_FIELDS = 1000  # as Django's DATA_UPLOAD_MAX_NUMBER_FIELDS; the body's length is limited before


def read_form(content_type: str, body: bytes) -> list[tuple[str, str | Upload]]:
    """The fields in order, names repeated as they came. Raises BadRequest or UnsupportedMediaType."""
    media_type, options = parse_options_header(content_type or "")
    if media_type == URLENCODED:
        try:
            return list(read_query(body.decode("utf-8"), "form"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"The form is not UTF-8: {error}") from error
    if media_type != MULTIPART:
        got = content_type or "nothing"
        raise UnsupportedMediaType(f"This operation reads {URLENCODED} or {MULTIPART}; got {got}.")
    boundary = options.get("boundary")
    if not boundary:
        raise BadRequest("The multipart form names no boundary in its content type.")
    fields: list[tuple[str, str | Upload]] = []
    try:
        # It lies in memory already: no part of it goes through a file.
        limits = {"part_limit": MAX_FIELDS, "spool_limit": len(body) + 1, "memory_limit": len(body) + 1}
        for part in MultipartParser(BytesIO(body), boundary, content_length=len(body), strict=True, **limits).parts():
            if part.filename is None:
                fields.append((part.name, part.raw.decode("utf-8")))
            elif part.filename or part.raw:  # else what browsers send when no file was chosen
                fields.append((part.name, Upload(part.filename, part.content_type or "", part.raw)))
    except (MultipartError, UnicodeDecodeError, ValueError) as error:
        raise BadRequest(f"The multipart form cannot be read: {error}") from error
    return fields


def read_query(text: str, what: str = "query") -> list[tuple[str, str]]:
    """The pairs of a query string or URL-encoded form; raises BadRequest when it is not UTF-8 or has too many."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadRequest(f"The {what} cannot be read: {error}") from error


def write_form(fields: list[tuple[str, str]]) -> bytes:
    """The fields, URL-encoded."""
    return urlencode(fields).encode()
