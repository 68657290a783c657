"""Operations as Klein routes: an HTTP request becomes a Request, what the handler answers becomes the reply.

`application(...)` makes the Klein application beneath a service; `ServiceResource` is how a Site serves it. Routing,
converters, slashes, HEAD and 405 are Klein's and Werkzeug's; what Klein lets through unmatched goes to the service's
own `app`, if it has one. Every error is a problem document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from klein import Klein
from klein._resource import KleinResource
from klein.interfaces import IKleinRequest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import RequestRedirect

from ..codec.forms import read_form
from ..driver import Run
from ..errors import BadRequest, NotFound, RopewalkError
from ..errors import MethodNotAllowed as MethodNotAllowedProblem
from ..message import Response, Stream
from ..operation import Operation
from ..telemetry.propagation import RAN
from .answer import Answer
from .bodies import pieces_of
from .csrf import check_site, check_token
from .error_pages import write_error
from .heads import read_headers, write_head, write_problem
from .sessions import write_session
from .streams import send_stream
from .wire import Wire, check_size, check_stream, gone, parts_of

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
        return _Exchange(wire, operation, request, path).answered()

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


class _Exchange(Answer):
    """That of a `twisted.web` request: Klein's way."""

    __slots__ = ("_body", "_deferred", "_request", "_streaming")

    def __init__(self, wire: Wire, operation: Operation, request: Any, path: Mapping[str, Any]) -> None:
        super().__init__(wire, operation, path, read_headers(request, keep_own=not wire.public))
        self._request = request
        self._streaming = False
        self._body: bytes | None = None  # which Klein writes; None: a stream has been
        self._deferred: Deferred[Any] = Deferred(self._lost)
        if wire.sessions is not None:
            request.ropewalk_visit = wire.sessions.visit(self.headers.get("cookie"))

    def answered(self) -> Deferred[Any]:
        """Start answering; fires with the body's bytes, or None when a stream has been written."""
        self.begin()
        return self._deferred

    def _lost(self, _: Deferred[Any]) -> None:
        # Klein cancels when the client is gone. Only what may be cancelled is, and a stream, which has no other reader;
        # the rest runs to its deadline.
        if (self.operation.cancellable or self._streaming) and self.run is not None:
            self.run.interrupt()

    def ended(self, run: Run[None]) -> None:
        """As Answer."""
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
            self._deferred.callback(self._body)

    def reply(self, response: Response, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        """As Answer."""
        request = self._request
        write_session(request)
        request.responseHeaders.removeHeader(b"content-type")
        write_head(request, Response(None, response.status, headers, response.cookies))
        if response.status not in (204, 304):
            request.setHeader(b"content-length", b"%d" % len(body))
        self._body = body

    async def stream(self, response: Response, stream: Stream) -> None:
        """As Answer."""
        try:
            write_session(self._request)
        except RopewalkError as error:
            self.refuse(error)
            return
        self._streaming = True
        write_head(self._request, response)
        await send_stream(self._request, stream, self.headers.get("accept"), self.operation.id)

    def refuse(self, error: RopewalkError) -> None:
        """As Answer."""
        if not self.wire.public:
            self._request.setHeader(RAN.encode(), error.ran.encode())
        self._body = write_error(self._request, error, self.wire.error_page, redact=self.wire.public)

    # -- the request's payload

    async def read(self) -> Mapping[str, Any]:
        """As Payload."""
        request, operation, headers = self._request, self.operation, self.headers
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
        parts = parts_of(request.uri, self.path, headers, body, operation.max_body)
        if operation.takes_stream:
            check_stream(headers)
            parts.stream = pieces_of(content, gone(operation))
        if visit is not None and visit.has_cookie and operation.binding.reads_form:
            parts.form = read_form(parts.content_type, parts.body)
            check_token(visit, headers, parts.form)
        return operation.binding.decode(parts)

    def supply(self, type: Any) -> Any:
        """As Payload."""
        if type is IRequest:
            return self._request
        source = getattr(type, "of_request", None)
        return source(self._request) if source is not None else super().supply(type)


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
