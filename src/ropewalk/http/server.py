"""Operations as Klein routes: an HTTP request becomes a Request, what the handler answers becomes the reply.

`application(...)` makes the Klein application beneath a service; `ServiceResource` is how a Site serves it. Routing,
converters, slashes, HEAD and 405 are Klein's and Werkzeug's; what Klein lets through unmatched goes to the service's
own `app`, if it has one. Every error is a problem document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from klein import Klein
from klein._resource import KleinResource
from klein.interfaces import IKleinRequest
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import RequestRedirect

from ..codec.binding import Parts
from ..codec.coding import plain
from ..codec.forms import read_form, read_query
from ..driver import Driver, Run
from ..errors import (
    BadRequest,
    ContentTooLarge,
    NotAcceptable,
    NotFound,
    RopewalkError,
    Unavailable,
    UnsupportedMediaType,
)
from ..errors import (
    MethodNotAllowed as MethodNotAllowedProblem,
)
from ..handler import Handler
from ..message import Request, Response, Stream
from ..operation import Operation
from ..service import Description
from ..telemetry.propagation import KEY, RAN, extract
from .accept import accepts
from .bodies import pieces_of
from .csrf import check_site, check_token
from .error_pages import ErrorPage, write_error
from .heads import read_cookies, read_headers, write_head, write_problem
from .sessions import Sessions, write_session
from .streams import send_stream

_log = Logger("ropewalk.http")


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


Behind = Callable[[IResource, str], IResource]


def application(
    wire: Wire,
    own: Klein | None = None,
    mounts: Mapping[str, IResource] | None = None,
    behind: Behind = lambda resource, name: resource,
) -> Klein:
    """The Klein application of a service. `own`, its author's, answers what no operation matches; `mounts` by path.

    `behind(resource, name)` puts `own` behind the filters, where its mounts are already.
    """
    app = Klein()
    for place in places(wire):
        _route(app, wire, *place)
    for path, mounted in (mounts or {}).items():
        mount(app, path, partial(_same, mounted))
    resource = behind(own.resource(), "app") if own is not None else None
    app.handle_errors(HTTPException)(lambda request, failure: _refused(wire, request, failure, own, resource))
    return app


def places(wire: Wire) -> Iterator[tuple[str, str, str, Operation]]:
    """Where a listener's operations are: Klein's endpoint, the route, its method, the operation."""
    description = wire.description
    for operation in description.operations.values():
        if not wire.serves(operation):
            continue
        if operation.route is not None:
            yield operation.name, operation.route, operation.method or "POST", operation
            continue
        for service in description.names:
            for name in (operation.name, *(alias.rpartition(".")[2] for alias in operation.aliases)):
                path = f"/-/{service}/{description.major}/{name}"
                yield path, path, "POST", operation


def _route(app: Klein, wire: Wire, endpoint: str, route: str, method: str, operation: Operation) -> None:
    def answer(request: Any, **path: Any) -> Deferred[Any]:
        return _Exchange(wire, operation, request, path).begin()

    answer.__name__ = operation.name
    app.route(route, methods=[method], endpoint=endpoint)(answer)


def _same(resource: IResource) -> IResource:
    return resource


def mount(app: Klein, path: str, resource: Callable[[], IResource]) -> None:
    """Serve a resource beneath a path; it is asked for with each request."""

    def serve(request: Any) -> IResource:
        return resource()

    serve.__name__ = "mount" + path.replace("/", "_")
    app.route(path if path.endswith("/") else path + "/", branch=True, strict_slashes=False)(serve)


class ServiceResource(KleinResource):
    """A service as an IResource; any `twisted.web` Site can serve it.

    `wire` and `url_map` are for a Site that can answer operations without it.
    """

    def __init__(self, app: Klein, wire: Wire) -> None:
        super().__init__(app)
        self.wire = wire
        self.url_map = app.url_map

    def render(self, request: Any) -> Any:
        """Refuse a path that is not UTF-8 with a problem document, and leave the rest to Klein."""
        try:
            b"/".join(request.postpath).decode("utf-8")
        except UnicodeDecodeError:
            return write_problem(request, BadRequest("The path is not UTF-8."))
        return super().render(request)


class _Exchange:
    """One HTTP request and its reply."""

    __slots__ = ("_deferred", "_operation", "_path", "_request", "_run", "_streaming", "_wire")

    def __init__(self, wire: Wire, operation: Operation, request: Any, path: Mapping[str, Any]) -> None:
        self._wire = wire
        self._operation = operation
        self._request = request
        self._path = path
        self._run: Run[bytes | None] | None = None
        self._streaming = False
        self._deferred: Deferred[Any] = Deferred(self._lost)

    def begin(self) -> Deferred[Any]:
        """Start answering; fires with the body's bytes, or None when a stream has been written."""
        self._run = self._wire.driver.start(self._answer(), self._ended)
        return self._deferred

    def _lost(self, _: Deferred[Any]) -> None:
        # Klein cancels when the client is gone. Only what may be cancelled is, and a stream, which has no other reader;
        # the rest runs to its deadline.
        if (self._operation.cancellable or self._streaming) and self._run is not None:
            self._run.interrupt()

    def _ended(self, run: Run[bytes | None]) -> None:
        if self._deferred.called:  # the client is gone, and what the answer was is already in the log
            if not run.cancelled():
                run.exception()
            return
        if run.cancelled():
            self._deferred.cancel()
            return
        error = run.exception()
        if error is not None:
            self._deferred.errback(Failure(error, type(error), error.__traceback__))
        else:
            self._deferred.callback(run.result())

    async def _answer(self) -> bytes | None:
        request, operation, wire = self._request, self._operation, self._wire
        try:
            headers = read_headers(request, keep_own=not wire.public)
            if wire.sessions is not None:
                request.ropewalk_visit = wire.sessions.visit(headers.get("cookie"))
            if not operation.accepts_any and not accepts(headers.get("accept"), operation.content_type):
                raise NotAcceptable(f"This operation answers {operation.content_type}.")
            response = await wire.handler(
                Request(
                    operation,
                    _HTTPPayload(request, operation, self._path, headers),
                    extract(headers, wire.seconds(), wire.description.name, operation.id, trusted=not wire.public),
                    metadata=headers,
                )
            )
            write_session(request)
        except RopewalkError as error:
            return self._refuse(error)
        except asyncio.CancelledError:
            raise
        except Exception:  # logged with its traceback by `Observe`, which knows the operation
            return self._refuse(RopewalkError())
        if isinstance(response.body, Stream):
            self._streaming = True
            write_head(request, response)
            await send_stream(request, response.body, headers.get("accept"), operation.id)
            return None
        try:
            return write_response(request, response, operation)
        except Exception:
            _log.failure("{operation} answered what cannot be sent", operation=operation.id)
            return self._refuse(RopewalkError())

    def _refuse(self, error: RopewalkError) -> bytes:
        if not self._wire.public:
            self._request.setHeader(RAN.encode(), error.ran.encode())
        return write_error(self._request, error, self._wire.error_page, redact=self._wire.public)


class _HTTPPayload:
    """The arguments of an operation, still in an HTTP request."""

    __slots__ = ("_headers", "_operation", "_path", "_request")

    def __init__(self, request: Any, operation: Operation, path: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self._request = request
        self._operation = operation
        self._path = path
        self._headers = headers

    async def read(self) -> Mapping[str, Any]:
        request, operation, headers = self._request, self._operation, self._headers
        visit = getattr(request, "ropewalk_visit", None)
        if visit is not None and (operation.binding.reads_form or visit.has_cookie):
            check_site(request.method.decode("latin-1"), headers, visit.sessions.origins)
        body = b""
        content = request.content
        if operation.binding.content_types:
            if content.closed:  # with its connection, while a filter waited
                raise gone(operation)
            content.seek(0, 2)
            check_size(operation, content.tell())
            content.seek(0)
            if not operation.takes_stream:
                body = content.read()
        parts = parts_of(request.uri, self._path, headers, body, operation.max_body)
        if operation.takes_stream:
            check_stream(headers)
            parts.stream = pieces_of(content, gone(operation))
        if visit is not None and visit.has_cookie and operation.binding.reads_form:
            parts.form = read_form(parts.content_type, parts.body)
            check_token(visit, headers, parts.form)
        return operation.binding.decode(parts)

    def supply(self, type: Any) -> Any:
        if type is IRequest:
            return self._request
        source = getattr(type, "of_request", None)
        if source is None:
            raise TypeError(f"{self._operation.id}: nothing supplies a {type!r} here.")
        return source(self._request)


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


def write_response(request: Any, response: Response, operation: Operation) -> bytes:
    """Write the head; the body's bytes, which Klein writes."""
    headers, body = operation.sent(response)
    request.responseHeaders.removeHeader(b"content-type")
    write_head(request, Response(None, response.status, headers, response.cookies))
    if response.status not in (204, 304):
        request.setHeader(b"content-length", b"%d" % len(body))
    return body


def _refused(wire: Wire, request: Any, failure: Failure, own: Klein | None, resource: IResource | None) -> Any:
    """What Klein could not route: the service's own Klein application, a redirect, OPTIONS, or a problem document."""
    error: Any = failure.value
    if isinstance(error, RequestRedirect):
        # Relative, so that it holds behind any proxy and for `sibling://`.
        _, mark, query = request.uri.partition(b"?")
        request.setHeader(b"location", urlsplit(error.new_url).path.encode("latin-1") + mark + query)
        request.setHeader(b"content-length", b"0")
        request.setResponseCode(308)
        return b""
    if isinstance(error, (NoRoute, MethodNotAllowed)) and own is not None:
        error = _told_by(own, request, error)
    if error is None:
        return resource
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
        request.setHeader(b"allow", allow.encode())
        if request.method == b"OPTIONS":
            request.responseHeaders.removeHeader(b"content-type")
            request.setResponseCode(204)
            return b""
        method = request.method.decode("latin-1")
        return _told(wire, request, MethodNotAllowedProblem(f"{method} is not for this path; it answers {allow}."))
    if isinstance(error, NoRoute):
        return _told(wire, request, NotFound("Nothing is here."))
    assert isinstance(error, HTTPException)
    return _told(wire, request, BadRequest(error.description or "", status=error.code))


def _told(wire: Wire, request: Any, error: RopewalkError) -> bytes:
    if wire.sessions is not None:
        request.ropewalk_visit = wire.sessions.visit(request.getHeader("cookie"))
    return write_error(request, error, wire.error_page)


def _told_by(own: Klein, request: Any, error: HTTPException) -> HTTPException | None:
    """What is told when the author's Klein application is asked too; None when it answers itself."""
    if own._error_handlers:
        return None
    mapper = own.url_map.bind("localhost", path_info=IKleinRequest(request).mapper.path_info)
    try:
        mapper.match(method=request.method.decode("latin-1"))
    except RequestRedirect:
        return None
    except MethodNotAllowed as not_allowed:
        return not_allowed if isinstance(error, NoRoute) else error
    except HTTPException:
        return error
    return None
