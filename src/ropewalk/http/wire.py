"""What every request of one listener needs to become a Request, and what of an HTTP request its arguments are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..codec.binding import Parts
from ..codec.coding import plain
from ..codec.forms import read_query
from ..driver import Driver
from ..errors import BadRequest, ContentTooLarge, Unavailable, UnsupportedMediaType
from ..handler import Handler
from ..operation import Operation
from ..service import Description
from ..telemetry.propagation import KEY
from .error_pages import ErrorPage
from .heads import read_cookies
from .sessions import Sessions


class Wire:
    """What every request of one listener needs to become a Request: the service's handler and who is trusted."""

    def __init__(
        self,
        handler: Handler,
        description: Description,
        driver: Driver,
        seconds: Callable[[], float],
        *,
        public: bool,
        sessions: Sessions | None = None,
        error_page: ErrorPage | None = None,
    ) -> None:
        self.handler = handler
        self.description = description
        self.driver = driver
        self.seconds = seconds
        self.public = public
        self.sessions = sessions
        self.error_page = error_page

    def serves(self, operation: Operation) -> bool:
        """Whether this listener knows the operation: a public one has only what is declared for the outside."""
        return not self.public or (operation.route is not None and operation.access != "siblings")


def gone(operation: Operation) -> Unavailable:
    """What becomes of a request whose client has left before it was read."""
    error = Unavailable(f"{operation.id}: the client is gone, and what it sent with it.")
    error.ran = "no"
    return error


def check_size(operation: Operation, size: int) -> None:
    """Raise ContentTooLarge for a body of more bytes than the operation takes."""
    if size > operation.max_body:
        raise ContentTooLarge(
            f"{operation.id} takes {operation.max_body} bytes, the body has {size}.", max_body=operation.max_body
        )


def check_stream(headers: Mapping[str, str]) -> None:
    """Raise BadRequest or UnsupportedMediaType for what a body that is not kept cannot have."""
    if KEY in headers:
        raise BadRequest("This operation takes no Idempotency-Key: its body is gone once it has been read.")
    coding = headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaType(
            f"This body is taken as it comes, and may not be compressed; got {coding!r}.",
            headers=[("accept-encoding", "identity")],
        )


def parts_of(target: bytes, path: Mapping[str, Any], headers: Mapping[str, str], body: bytes, max_body: int) -> Parts:
    """What of a request its arguments are decoded from.

    Raises BadRequest for a query that is not UTF-8, and what `coding.plain` raises for a body that was compressed.
    """
    if body and "content-encoding" in headers:
        body = plain(body, headers["content-encoding"], max_body)
    _, _, query = target.partition(b"?")
    try:
        pairs = read_query(query.decode("utf-8")) if query else ()
    except UnicodeDecodeError as error:
        raise BadRequest("The query is not UTF-8.") from error
    cookies = read_cookies(headers["cookie"]) if "cookie" in headers else {}
    return Parts(path, pairs, headers, cookies, headers.get("content-type", ""), body)
