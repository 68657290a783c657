"""A Klein application behind our Site: its routes compiled, and no Deferred for a handler that has answered already.

Klein asks Werkzeug for each request anew which rule it means, and answers each by four Deferreds and six closures.
Where the router knows the rule, its handler is called at once; where that returns bytes or text, the reply is written.
With whatever else came of it (a Deferred that waits, a resource, a Response, an error) Klein goes on by its own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from klein import Klein
from klein._resource import KleinResource, extractURLparts
from klein.interfaces import IKleinRequest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request

from .router import Router

_log = Logger("ropewalk.engine")


class CompiledRequest(Request):
    """A `twisted.web` request whose URL map is bound for Klein when somebody asks for that."""

    ropewalk_bind: Callable[[Any], Any] | None = None

    def getComponent(self, interface: Any, default: Any = None) -> Any:
        """As Componentized."""
        found = super().getComponent(interface, default)
        bind = self.ropewalk_bind
        if interface is IKleinRequest and bind is not None and found is not None and not hasattr(found, "mapper"):
            found.mapper = bind(self)
        return found


class CompiledResource(KleinResource):
    """The resource of a Klein application, which may get further routes."""

    request = CompiledRequest

    def __init__(self, app: Klein) -> None:
        super().__init__(app)
        self._rules = -1  # how many the router knows
        self._router: Router | None = None

    def render(self, request: Any) -> Any:
        """As IResource."""
        app: Any = self._app
        rules = app.url_map._rules
        if len(rules) != self._rules:
            self._rules, self._router = len(rules), Router(app.url_map)
        found = self._router.find(request.method, request.uri) if self._router and not request.prepath else None
        if found is None:
            return super().render(request)
        endpoint, values = found
        if isinstance(request, CompiledRequest):
            request.ropewalk_bind = self._bound
        else:
            IKleinRequest(request).mapper = self._bound(request)
        segments = app.endpoints[endpoint].segment_count
        request.prepath.extend(request.postpath[:segments])
        request.postpath = request.postpath[segments:]
        try:
            answer = app.execute_endpoint(endpoint, request, **values)
        except BaseException:
            answer = Failure()
        written = answer.result if type(answer) is Deferred and answer.called and not answer.paused else answer
        if request.finished:
            _finished(answer)
        elif type(written) is bytes:
            request.write(written)
            request.finish()
        elif type(written) is str:
            request.write(written.encode())
            request.finish()
        else:
            bound = IKleinRequest(request).mapper
            KleinResource(cast(Klein, _Answered(app, endpoint, answer, bound))).render(request)
        return NOT_DONE_YET

    def _bound(self, request: Any) -> Any:
        # The path is what it was, whatever has become of the request's prepath and postpath.
        scheme, server, _, _, _ = extractURLparts(request)
        path, method = request.path.decode("ascii"), request.method.decode("ascii")
        return self._app.url_map.bind(server, "", path_info=path, default_method=method, url_scheme=scheme)


class _Answered:
    """What Klein's own render is given for the application, whose handler has been called: it finds what came of it."""

    segment_count = 0  # they were moved before

    def __init__(self, app: Any, endpoint: str, answer: Any, mapper: Any) -> None:
        self._app = app
        self._answer = answer
        self._mapper = mapper
        self.endpoint = endpoint
        self.endpoints = {endpoint: self}
        self.url_map = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def bind(self, *_: Any, **__: Any) -> Any:
        """As a Map: what is bound already, and matches what was matched."""
        return _Matched(self._mapper, self)

    def execute_endpoint(self, *_: Any, **__: Any) -> Any:
        """As a Klein."""
        return self._answer


class _Matched:
    """A MapAdapter that knows its first match."""

    def __init__(self, mapper: Any, rule: Any) -> None:
        self._mapper = mapper
        self._rule = rule

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapper, name)

    def match(self, *args: Any, **options: Any) -> Any:
        """As a MapAdapter."""
        rule, self._rule = self._rule, None
        return self._mapper.match(*args, **options) if rule is None else (rule, {})


def _finished(answer: Any) -> None:
    """Of a handler that has written all of its reply itself only an error is still news, as with Klein."""

    def tell(failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("Unhandled Error Processing Request.", failure)

    maybeDeferred(lambda: answer).addErrback(tell)
