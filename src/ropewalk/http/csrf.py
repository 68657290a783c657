"""Forms that only our own pages can send. Two lines of defence, each enough against another attack.

* `check_site`: what changes something is not taken from a page of another site, which the browser itself tells
  (`Sec-Fetch-Site`, `Origin`; the algorithm is the one of Go's `http.CrossOriginProtection`).
* `check_token`: a form that comes with a session's cookie must bring a token made for that session, in the field
  `csrf_token` or, from a script, the header `X-CSRF-Token`. A page gets it by `{{ csrf_field() }}`.

Who brings no cookie has no authority to lend, so programs that send forms need no token.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup

from ..errors import Forbidden
from .sessions import Session, Visit

FIELD = "csrf_token"
HEADER = "x-csrf-token"
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")  # RFC 9110, section 9.2.1

_NONCE = 8  # bytes: no two tokens look alike, so that a compressed page does not give one away (BREACH)


def token(session: Session) -> str:
    """A token for one form of this session; "" when the session was made by hand, and no listener takes that.

    The session is kept from now on, even if nothing is in it.
    """
    sessions = session._sessions
    if sessions is None:
        return ""
    session.touch()
    return _signed(sessions.form_keys[0], session.id, sessions.random.randbytes(_NONCE))


def field(session: Session) -> Markup:
    """The hidden field that a form needs."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token(session))


def check_site(method: str, headers: Mapping[str, str], origins: Collection[str] = ()) -> None:
    """Raises Forbidden for an unsafe request that a browser sends for a page of another site.

    `headers` by lower-case name; `origins` are other sites that may, like "https://bank.example".
    """
    origin = headers.get("origin")
    if method in SAFE or origin in origins:
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        # Older browsers, and plain HTTP. Programs send neither, and are used by nobody but their owner.
        ours = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not ours:
        raise Forbidden(f"This request comes from another site: {origin or site}.")


def check_token(visit: Visit, headers: Mapping[str, str], fields: Iterable[tuple[str, Any]]) -> None:
    """Raises Forbidden when the request has a session's cookie and brings no token of that session.

    `fields` are those of the form, read only when the header says nothing.
    """
    if not visit.has_cookie:
        return
    brought = headers.get(HEADER) or next((value for name, value in fields if name == FIELD), "")
    session = visit.session
    if not isinstance(brought, str) or not _is_signed(brought, visit.sessions.form_keys, session.id):
        raise Forbidden("This form is not of your session, or no longer: go back, reload the page and send it again.")


def _signed(key: bytes, id: str, nonce: bytes) -> str:
    return urlsafe_b64encode(nonce + hmac.digest(key, nonce + id.encode(), "sha256")).decode()


def _is_signed(brought: str, keys: Iterable[bytes], id: str) -> bool:
    try:
        nonce = urlsafe_b64decode(brought.encode())[:_NONCE]
    except ValueError:
        return False
    return any(hmac.compare_digest(_signed(key, id, nonce).encode(), brought.encode()) for key in keys)
