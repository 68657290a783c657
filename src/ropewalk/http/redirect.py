"""Sending a browser elsewhere."""

from __future__ import annotations

import re
from html import escape

from werkzeug.urls import iri_to_uri

from ..errors import BadRequest
from ..message import Response

# "//host" and "/\host" are other sites to a browser, which also skips tabs and line breaks.
_OF_THIS_SITE = re.compile(r"/(?![/\\])[^\x00-\x1f\x7f\\]*")
_ANYWHERE = re.compile(r"https?://[^\x00-\x1f\x7f\\]+", re.IGNORECASE)


def redirect(path: str, status: int = 303, *, anywhere: bool = False) -> Response:
    """Go to `path`: 303 after a form, so that a reload does not send it again; 307 or 308 to repeat the request there.

    A path of this site, so that a `next` out of the query may be given as it came: anything else raises BadRequest.
    With `anywhere`, an http or https URL too.
    """
    if not _OF_THIS_SITE.fullmatch(path) and not (anywhere and _ANYWHERE.fullmatch(path)):
        raise BadRequest(
            f'A redirect goes to a path of this site, like "/rooms/3"; got {path!r}. An address elsewhere is only '
            "taken from the program itself: `redirect(url, anywhere=True)`."
        )
    where = iri_to_uri(path)
    # RFC 9110, section 15.4: a short note with a link, for whoever does not follow by itself.
    note = f'<!doctype html><title>Moved</title><p>Go on at <a href="{escape(where)}">{escape(where)}</a>.</p>\n'
    return Response(note, status, [("location", where), ("content-type", "text/html; charset=utf-8")])
