"""`/openapi.json`, `/asyncapi.json` and `/docs`: what a service says of itself, and the page to read and try the first.

The page is Swagger UI, from the files that the package `mkdocs-swagger-ui-tag` keeps current (byte for byte those of
`swagger-ui-dist`; the package itself imports nothing of MkDocs). Nothing is fetched from elsewhere: it works offline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec
from twisted.web.http import CACHED

from ..errors import NotFound
from ..service import Description
from . import asyncapi
from .heads import write_problem
from .openapi import document

Answer = Callable[..., Any]

_SWAGGER = "mkdocs_swagger_ui_tag", "swagger-ui"
_OURS = __package__, "assets"
_FILES: dict[str, tuple[tuple[str, ...], bytes]] = {  # name -> where it lies, its content type
    "docs.css": ((*_OURS, "docs.css"), b"text/css; charset=utf-8"),
    "docs.js": ((*_OURS, "docs.js"), b"text/javascript; charset=utf-8"),
    "swagger-ui.css": ((*_SWAGGER, "stylesheets", "swagger-ui.css"), b"text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ((*_SWAGGER, "javascripts", "swagger-ui-bundle.js"), b"text/javascript; charset=utf-8"),
}
# Swagger UI styles elements and shows icons as data; it needs no script but the two files, and asks its origin alone.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def documented(description: Description) -> dict[str, Answer]:
    """The Klein handlers by path. Each document is made when it is first asked for."""
    described = cache(lambda: msgspec.json.encode(document(description)))
    of_events = cache(lambda: msgspec.json.encode(asyncapi.document([description])))

    def openapi(request: Any) -> bytes:
        return _sent(request, described(), b"application/json")

    def events(request: Any) -> bytes:
        return _sent(request, of_events(), b"application/json")

    def page(request: Any) -> bytes:
        request.setHeader(b"content-security-policy", _POLICY)
        title = escape(f"{description.name} {description.version}")
        text = _read((*_OURS, "docs.html")).replace(b"{{ title }}", title.encode())
        return _sent(request, text, b"text/html; charset=utf-8")

    def asset(request: Any, name: str) -> bytes:
        if name not in _FILES:
            return write_problem(request, NotFound("Nothing is here."))
        place, content_type = _FILES[name]
        return _sent(request, _read(place), content_type)

    return {"/openapi.json": openapi, "/asyncapi.json": events, "/docs": page, "/docs/-/<name>": asset}


@cache
def _read(place: tuple[str, ...]) -> bytes:
    package, *names = place
    file: Traversable = files(package)
    for name in names:
        file = file / name
    return file.read_bytes()


def _sent(request: Any, body: bytes, content_type: bytes) -> bytes:
    """The body, or nothing when the browser has it already. It asks each time: cheap, and never stale."""
    request.setHeader(b"cache-control", b"no-cache")
    request.setHeader(b"x-content-type-options", b"nosniff")
    if request.setETag(b'"%s"' % sha256(body).hexdigest()[:32].encode()) is CACHED:
        return b""
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body
