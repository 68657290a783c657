"""A service over HTTP: what a stock `twisted.web` Site answers that serves `Service().resource()`."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import date
from io import BytesIO
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from klein import Klein
from msgspec import Meta, Struct
from pytest_twisted import ensureDeferred
from treq import content
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest

from ropewalk import (
    Conflict,
    Context,
    Cookie,
    DeadlineExceeded,
    Form,
    Gone,
    Header,
    NotFound,
    Principal,
    Response,
    Service,
    Stream,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Upload,
    compose,
    delete,
    get,
    given,
    operation,
    patch,
    post,
    put,
)
from ropewalk.errors import DeclarationError
from ropewalk.filters.authenticate import Authenticate
from ropewalk.http.raw import serve
from ropewalk.http.server import _Exchange
from ropewalk.http.site import Site
from ropewalk.service import describe

PROBLEM = ["application/problem+json"]
JSON = ["application/json"]


class Stay(Struct):
    hotel: str
    nights: Annotated[int, Meta(ge=1, le=30)] = 1


class SoldOut(Conflict):
    """Raised when no room is left."""


class Hotels(Service):
    """Every kind of operation."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.error: Exception = SoldOut("None on that day.", left=0)
        self.wait: Deferred[None] = Deferred()

    @get("/rooms/<int:room_id>", access="public")
    async def read(self, room_id: int, night: date | None = None) -> Stay:
        """Read a room."""
        return Stay(f"room {room_id}", 2)

    @post("/rooms", status=201, access="public", max_body=100)
    async def hold(self, stay: Stay) -> Stay:
        return stay

    @put("/rooms/<int:room_id>")
    async def replace(self, room_id: int, stay: Stay) -> None:
        self.seen.append(stay)

    @patch("/rooms/<int:room_id>")
    async def change(self, room_id: int, nights: int) -> int:
        return nights

    @delete("/rooms/<int:room_id>")
    async def remove(self, room_id: int) -> None: ...

    @get("/list/")
    async def list(self, page: int = 1) -> list[int]:  # type: ignore[valid-type]
        return [page]

    @operation
    async def count(self, of: str = "rooms") -> int:
        return 3

    @get("/fail", access="public", raises=(SoldOut,))
    async def fail(self) -> int:
        raise self.error

    @get("/mine", access="user")
    async def mine(self, principal: Principal = given) -> str | None:
        return principal.subject

    @post("/admin", access="public", scopes=("admin",))
    async def admin(self) -> None: ...

    @get("/html", access="public")
    async def html(self) -> Response:
        return Response("<p>é</p>", headers=[("Content-Type", "text/html")])

    @get("/latin")
    async def latin(self) -> Response:
        return Response("é".encode("latin-1"), headers=[("content-type", "text/plain; charset=latin-1")])

    @get("/octets")
    async def octets(self) -> bytes:
        return b"\0\xff"

    @get("/nothing")
    async def nothing(self) -> Response:
        return Response(status=202)

    @get("/cookies")
    async def cookies(self, sid: Annotated[str, Cookie], tenant: Annotated[str, Header("X-Tenant")]) -> Response:
        return Response([sid, tenant], 203, [("X-One", "1"), ("x-one", "2")], ["a=1; Path=/", "b=2"])

    @get("/unsendable")
    async def unsendable(self) -> Any:
        return object()

    @post("/form")
    async def form(self, form: Annotated[Stay, Form], photo: Upload | None = None) -> Stay:
        return form

    @get("/lines", access="public")
    async def lines(self, to: int = 2) -> AsyncIterator[Stay]:
        try:
            for n in range(to):
                yield Stay("é\n", n)
                await self.wait
        finally:
            self.seen.append("closed")

    @get("/csv")
    async def csv(self) -> Stream:
        async def rows() -> AsyncIterator[str]:
            yield "a;"
            yield "é\n"

        return Stream(rows(), "text/csv")

    @get("/slow")
    async def slow(self) -> str:
        self.seen.append("began")
        try:
            await self.wait
        except asyncio.CancelledError:
            self.seen.append("stopped")
            raise
        self.seen.append("went on")
        return "done"

    @post("/slow")
    async def slow_write(self) -> str:
        return await self.slow()

    @get("/context", access="public")
    async def context(self, context: Context = given, request: IRequest = given) -> Any:
        names = sorted(name.decode().lower() for name, _ in request.requestHeaders.getAllRawHeaders())
        return [context.request_id, context.priority, context.tenant, context.baggage, context.deadline is None, names]


@pytest.fixture
def hotels() -> Hotels:
    return Hotels()


@pytest.fixture
def ask(browse: Any, hotels: Hotels) -> Callable[..., Any]:
    """`ask(method, path, headers, body)` of a stock Site over `hotels.resource()`."""
    return type(browse(hotels))(hotels.resource()).ask  # type: ignore[no-any-return]


@pytest.fixture
def ask_outside(browse: Any, hotels: Hotels) -> Callable[..., Any]:
    """The same of its public listener."""
    return browse(hotels, public=True).ask  # type: ignore[no-any-return]


def problem(cls: type[Any], detail: str = "", **members: Any) -> dict[str, Any]:
    said = {"detail": detail} if detail else {}
    return {"type": cls.type, "title": cls.title, "status": cls.status, **said, **members}


JSON_BODY = {"Content-Type": "application/json"}


# -- answers


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "content_type", "answer"),
    [
        ("GET", "/rooms/7", b"", 200, JSON, b'{"hotel":"room 7","nights":2}'),
        ("GET", "/rooms/7?night=2027-05-01&unknown=1", b"", 200, JSON, b'{"hotel":"room 7","nights":2}'),
        ("POST", "/rooms", b'{"hotel":"x"}', 201, JSON, b'{"hotel":"x","nights":1}'),
        ("PATCH", "/rooms/7?nights=3", b"", 200, JSON, b"3"),
        ("GET", "/list/?page=2", b"", 200, JSON, b"[2]"),
        ("POST", "/-/hotels/1/count", b"{}", 200, JSON, b"3"),
        ("POST", "/-/hotels/1/count", b"", 200, JSON, b"3"),
        ("GET", "/html", b"", 200, ["text/html; charset=utf-8"], "<p>é</p>".encode()),
        ("GET", "/latin", b"", 200, ["text/plain; charset=latin-1"], b"\xe9"),
        ("GET", "/octets", b"", 200, ["application/octet-stream"], b"\0\xff"),
    ],
)
def test_an_answer_has_its_status_its_type_its_length_and_its_body(
    ask, method, path, body, status, content_type, answer
):
    reply = ask(method, path, JSON_BODY if body else {}, body)

    assert (status, {"content-type": content_type, "content-length": [str(len(answer))]}, answer) == reply


@pytest.fixture(params=["a stock Site", "our Site"])
def post_to(request: Any, browse: Any, ask: Callable[..., Any], hotels: Hotels) -> Callable[..., Any]:
    """`post_to(path, headers, body)` of `hotels`, by either way."""
    if request.param == "a stock Site":
        return lambda path, headers, body: ask("POST", path, headers, body)
    browser = type(browse(hotels))(hotels.resource())
    browser._site = Site(hotels.resource(), Clock(), 1 << 20)
    return lambda path, headers, body: browser.ask("POST", path, headers, body)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_body_may_be_compressed(post_to, compress):
    coding = "gzip" if compress is gzip.compress else "deflate"
    reply = post_to("/rooms", JSON_BODY | {"Content-Encoding": coding}, compress(b'{"hotel":"x"}'))

    assert (201, b'{"hotel":"x","nights":1}') == (reply.status, reply.body)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b'{"hotel":"%b"}' % (b"x" * 100)), 413),
    ],
    ids=["another coding", "not of it", "more than is taken"],
)
def test_a_compressed_body_that_is_not_taken_is_refused(post_to, coding, body, status):
    reply = post_to("/rooms", JSON_BODY | {"Content-Encoding": coding}, body)

    assert (status, PROBLEM) == (reply.status, reply.headers["content-type"])
    assert (["gzip, deflate"] if status == 415 else None) == reply.headers.get("accept-encoding")


@pytest.mark.parametrize(("method", "body"), [("PUT", b'{"hotel":"x"}'), ("DELETE", b"")])
def test_nothing_is_204_without_a_body(ask, method, body):
    assert (204, {}, b"") == ask(method, "/rooms/7", JSON_BODY if body else {}, body)


def test_a_response_without_a_body_has_none(ask):
    assert (202, {"content-length": ["0"]}, b"") == ask("GET", "/nothing")


def test_headers_and_cookies_go_out_in_order_and_repeated(ask):
    reply = ask("GET", "/cookies", {"Cookie": "other=x; sid=abc", "X-Tenant": "north"})

    assert (203, b'["abc","north"]', ["1", "2"], ["a=1; Path=/", "b=2"]) == (
        reply.status,
        reply.body,
        reply.headers["x-one"],
        reply.headers["set-cookie"],
    )


@pytest.mark.parametrize("path", ["/rooms/7", "/html", "/octets", "/nothing", "/fail", "/rooms/x", "/csv"])
def test_head_is_get_without_the_body(ask, path):
    got, head = ask("GET", path), ask("HEAD", path)

    assert (got.status, b"") == (head.status, head.body)
    assert {**got.headers, "transfer-encoding": ["chunked"]} if path == "/csv" else got.headers == head.headers


# -- refusals: every one a problem


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "detail"),
    [
        ("GET", "/nowhere", {}, b"", 404, "Nothing is here."),
        ("GET", "/rooms/x", {}, b"", 404, "Nothing is here."),
        ("GET", "/rooms/-1", {}, b"", 404, "Nothing is here."),
        ("GET", "/rooms/7/", {}, b"", 404, "Nothing is here."),
        ("POST", "/-/hotels/2/count", {}, b"", 404, "Nothing is here."),
        ("POST", "/-/hotels/1/read", {}, b"", 404, "Nothing is here."),
        ("POST", "/rooms", JSON_BODY, b"{", 400, "The body is not JSON: Input data was truncated."),
        ("POST", "/rooms", JSON_BODY, b"", 400, "A body is needed: application/json."),
        ("GET", "/rooms/7?night=%ff", {}, b"", 400, None),
        ("GET", "/rooms/%ff", {}, b"", 400, "The path is not UTF-8."),
        ("GET", "/rooms/7?" + "&".join(["a=1"] * 1001), {}, b"", 400, None),
        (
            "POST",
            "/rooms",
            {"Content-Type": "text/plain"},
            b"{}",
            415,
            "This operation reads application/json; got text/plain.",
        ),
        ("POST", "/rooms", JSON_BODY, b'"' + b"x" * 100 + b'"', 413, "hotels.hold takes 100 bytes, the body has 102."),
        ("GET", "/rooms/7", {"Accept": "text/html"}, b"", 406, "This operation answers application/json."),
        (
            "GET",
            "/octets",
            {"Accept": "application/json"},
            b"",
            406,
            "This operation answers application/octet-stream.",
        ),
        ("GET", "/rooms/7?night=soon", {}, b"", 422, '/night: Expected a date (YYYY-MM-DD) or null, got "soon".'),
        ("POST", "/rooms", JSON_BODY, b'{"nights":0}', 422, "2 fields are wrong; see `errors`."),
        ("GET", "/mine", {}, b"", 401, "hotels.mine needs to know who asks: sign in, or send a bearer token."),
        ("POST", "/admin", {}, b"", 401, "hotels.admin needs to know who asks: sign in, or send a bearer token."),
    ],
)
def test_a_refusal_is_a_problem_document(ask, method, path, headers, body, status, detail):
    reply = ask(method, path, headers, body)

    said = json.loads(reply.body)
    assert (status, PROBLEM, [str(len(reply.body))]) == (
        reply.status,
        reply.headers["content-type"],
        reply.headers["content-length"],
    )
    assert (status, True) == (said["status"], said["type"].startswith("urn:ropewalk:problem:"))
    assert detail in (None, said["detail"])


def test_a_method_that_is_not_for_a_path_is_told_which_are(ask):
    reply = ask("POST", "/rooms/7", JSON_BODY, b"{}")

    assert (405, PROBLEM, ["DELETE, GET, HEAD, OPTIONS, PATCH, PUT"]) == (
        reply.status,
        reply.headers["content-type"],
        reply.headers["allow"],
    )
    assert (
        "POST is not for this path; it answers DELETE, GET, HEAD, OPTIONS, PATCH, PUT."
        == json.loads(reply.body)["detail"]
    )


@pytest.mark.parametrize(
    ("path", "allow"), [("/rooms/7", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"), ("/rooms", "OPTIONS, POST")]
)
def test_options_tells_the_methods(ask, path, allow):
    assert (204, {"allow": [allow]}, b"") == ask("OPTIONS", path)


@pytest.mark.parametrize(
    ("path", "location"), [("/list", "/list/"), ("/list?page=2&q=%C3%A9", "/list/?page=2&q=%C3%A9")]
)
def test_a_missing_slash_is_a_redirect_that_keeps_method_and_query_and_names_no_host(ask, path, location):
    reply = ask("GET", path)

    assert (308, [location], b"") == (reply.status, reply.headers["location"], reply.body)


def test_who_must_say_who_they_are_is_told_how(ask):
    assert ["Bearer"] == ask("GET", "/mine").headers["www-authenticate"]


def test_an_error_of_the_operation_is_a_problem_with_its_members(ask):
    reply = ask("GET", "/fail")

    assert problem(SoldOut, "None on that day.", left=0) == json.loads(reply.body)
    assert (409, ["yes"]) == (reply.status, reply.headers["ropewalk-ran"])


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (Gone("x"), 410, {}),
        (TooManyRequests("x", headers=[("Retry-After", "3")]), 429, {"retry-after": ["3"]}),
        (Unauthorized("x", headers=[("WWW-Authenticate", "Basic")]), 401, {"www-authenticate": ["Basic"]}),
        (Unavailable("x", status=502), 502, {}),
    ],
)
def test_an_error_s_own_headers_and_status_go_out(ask, hotels, error, status, headers):
    hotels.error = error

    reply = ask("GET", "/fail")

    assert (status, headers) == (reply.status, {name: reply.headers[name] for name in headers})


def test_an_unexpected_exception_is_a_problem_without_details_and_in_the_log(ask, hotels, flush_logged_errors):
    hotels.error = ValueError("secret")

    reply = ask("GET", "/fail")

    assert (
        500,
        {"type": "urn:ropewalk:problem:internal-server-error", "title": "Internal Server Error", "status": 500},
    ) == (
        reply.status,
        json.loads(reply.body),
    )
    assert ["secret"] == [failure.getErrorMessage() for failure in flush_logged_errors(ValueError)]


def test_an_answer_that_cannot_be_sent_is_a_problem_and_in_the_log(ask, flush_logged_errors):
    reply = ask("GET", "/unsendable")

    assert (500, PROBLEM) == (reply.status, reply.headers["content-type"])
    assert ["Encoding objects of type object is unsupported"] == [f.getErrorMessage() for f in flush_logged_errors()]


def test_a_form_and_a_broken_one(ask):
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    assert b'{"hotel":"x y","nights":2}' == ask("POST", "/form", form, b"hotel=x+y&nights=2").body
    assert 422 == ask("POST", "/form", form, b"nights=2").status
    assert 400 == ask("POST", "/form", form, b"hotel=%ff").status
    assert 415 == ask("POST", "/form", JSON_BODY, b"{}").status


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/*", "application/json;q=0.1, text/html", "APPLICATION/JSON"]
)
def test_what_is_accepted_is_answered(ask, accept):
    assert 200 == ask("GET", "/rooms/7", {"Accept": accept} if accept else {}).status


# -- streams


def test_a_stream_is_lines_of_json_or_events_as_the_caller_prefers(ask, hotels):
    hotels.wait.callback(None)

    lines = ask("GET", "/lines")
    events = ask("GET", "/lines", {"Accept": "text/event-stream, */*;q=0.1"})
    csv = ask("GET", "/csv", {"Accept": "text/csv"})

    assert (["application/x-ndjson"], '{"hotel":"é\\n","nights":0}\n{"hotel":"é\\n","nights":1}\n') == (
        lines.headers["content-type"],
        lines.text,
    )
    assert (["text/event-stream"], 'data: {"hotel":"é\\n","nights":0}\n\ndata: {"hotel":"é\\n","nights":1}\n\n') == (
        events.headers["content-type"],
        events.text,
    )
    assert (["text/csv"], "a;é\n") == (csv.headers["content-type"], csv.text)


def test_head_of_a_stream_does_not_begin_it(ask, hotels):
    head = ask("HEAD", "/lines")

    assert (200, ["application/x-ndjson"], []) == (head.status, head.headers["content-type"], hotels.seen)


@pytest.fixture
def url(running: Any, listen: Any, hotels: Hotels) -> str:
    """Where `hotels.resource()` is served on loopback."""
    return f"http://{listen(hotels.resource()).host}"


async def until(running: Any, condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await deferLater(running, 0.005)
    raise AssertionError("it never came true")


@ensureDeferred
async def test_a_reader_that_leaves_closes_the_stream(running, url, hotels):
    reply = await Agent(running).request(b"GET", f"{url}/lines".encode())

    reply._transport.loseConnection()

    await until(running, lambda: hotels.seen == ["closed"])


@pytest.mark.parametrize(("method", "end"), [("GET", "stopped"), ("POST", "went on")])
@ensureDeferred
async def test_a_client_that_leaves_cancels_what_is_cancellable_and_no_more(running, url, hotels, method, end):
    lost = Agent(running).request(method.encode(), f"{url}/slow".encode())
    lost.addErrback(lambda _: None)
    await until(running, lambda: hotels.seen == ["began"])

    lost.cancel()

    if end == "stopped":
        await until(running, lambda: hotels.seen == ["began", "stopped"])
    else:
        await deferLater(running, 0.05)
        assert ["began"] == hotels.seen
        hotels.wait.callback(None)
        await until(running, lambda: hotels.seen == ["began", "went on"])


@ensureDeferred
async def test_what_does_not_answer_before_the_deadline_is_a_problem_too(running, url, hotels):
    reply = await Agent(running).request(b"GET", f"{url}/slow".encode(), Headers({"Ropewalk-Deadline": ["30"]}))

    assert (504, problem(DeadlineExceeded, "hotels.slow: no answer before the deadline.")) == (
        reply.code,
        json.loads(await content(reply)),
    )
    assert ["began", "stopped"] == hotels.seen


@ensureDeferred
async def test_a_reader_that_takes_nothing_holds_the_stream_up(running, url, hotels):
    hotels.wait.callback(None)
    reply = await Agent(running).request(b"GET", f"{url}/lines?to=1000000".encode())
    reply._transport.pauseProducing()

    await deferLater(running, 0.05)

    assert [] == hotels.seen
    reply._transport.loseConnection()
    await until(running, lambda: hotels.seen == ["closed"])


# -- the service's own Klein application


class Mixed(Service):
    """Operations and raw routes."""

    app = Klein()

    @app.route("/raw/<name>", methods=["GET", "POST"])
    def raw(self, request: Any, name: str) -> str:
        request.setHeader("x-raw", "1")
        return f"raw {name} of {type(self).__name__} {request.args.get(b'q')}"

    @app.route("/later")
    def later(self, request: Any) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._later())

    async def _later(self) -> bytes:
        return b"later"

    @app.route("/operation")
    def hidden(self, request: Any) -> str:
        return "hidden"

    @app.route("/refused")
    def refused(self, request: Any) -> str:
        raise NotFound("in the raw")

    @app.route("/passed-on")
    def passed_on(self, request: Any) -> str:
        error = NotFound("of a sibling")
        error.met_at = "hotels"
        raise error

    @app.route("/broken")
    def broken(self, request: Any) -> str:
        raise ValueError("in the raw")

    @get("/operation")
    async def operation(self) -> str:
        return "shown"


@pytest.fixture
def ask_mixed(browse: Any) -> Callable[..., Any]:
    mixed = Mixed()
    return type(browse(mixed))(mixed.resource()).ask  # type: ignore[no-any-return]


def test_raw_routes_keep_their_own_semantics_beside_operations(ask_mixed):
    raw = ask_mixed("GET", "/raw/a%20b?q=1")

    assert (200, ["1"], "raw a b of Mixed [b'1']") == (raw.status, raw.headers["x-raw"], raw.text)
    assert "raw x of Mixed None" == ask_mixed("POST", "/raw/x").text
    assert "later" == ask_mixed("GET", "/later").text
    assert '"shown"' == ask_mixed("GET", "/operation").text
    assert (404, PROBLEM) == (ask_mixed("GET", "/x").status, ask_mixed("GET", "/x").headers["content-type"])
    assert (405, ["GET, HEAD, OPTIONS, POST"]) == (
        ask_mixed("DELETE", "/raw/x").status,
        ask_mixed("DELETE", "/raw/x").headers["allow"],
    )


def test_an_error_of_ours_that_raw_code_lets_out_is_answered_as_an_operation_answers_it(ask_mixed):
    refused = ask_mixed("GET", "/refused")

    assert (404, PROBLEM) == (refused.status, refused.headers["content-type"])
    assert problem(NotFound, "in the raw") == json.loads(refused.body)


def test_a_sibling_s_error_that_raw_code_lets_out_is_a_failure_of_the_sibling(ask_mixed):
    failed = ask_mixed("GET", "/passed-on")

    assert (502, PROBLEM) == (failed.status, failed.headers["content-type"])
    assert "hotels" == json.loads(failed.body)["cause"]["from"]


def test_what_raw_code_raises_is_klein_s_to_answer(ask_mixed, flush_logged_errors):
    assert 500 == ask_mixed("GET", "/broken").status
    assert ["in the raw"] == [failure.getErrorMessage() for failure in flush_logged_errors(ValueError)]


# -- the public listener


def test_outside_only_what_is_declared_for_it_is_there(ask_outside):
    there = [
        ("GET", "/rooms/7"),
        ("POST", "/rooms"),
        ("PUT", "/rooms/7"),
        ("GET", "/list/"),
        ("GET", "/list"),
        ("POST", "/-/hotels/1/count"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/health/live"),
        ("GET", "/metrics"),
        ("GET", "/mine"),
    ]

    assert [200, 201, 405, 404, 404, 404, 404, 404, 404, 404, 401] == [
        ask_outside(method, path, JSON_BODY, b'{"hotel":"x"}' if path == "/rooms" else b"").status
        for method, path in there
    ]


def test_outside_the_methods_that_are_not_for_it_are_not_told(ask_outside):
    assert ["GET, HEAD, OPTIONS"] == ask_outside("OPTIONS", "/rooms/7").headers["allow"]


def test_outside_raw_routes_are_not_there(browse):
    assert 404 == browse(Mixed(), public=True).ask("GET", "/later").status


class Shown(Mixed):
    """Its raw routes are for everybody."""

    app_access = "public"


class Guarded(Mixed):
    """Its raw routes are for who has signed in."""

    app_access = "user"


def test_outside_raw_routes_are_there_for_whom_the_service_says(browse):
    stack = compose([Authenticate([])], serve)

    assert "later" == browse(Shown(), public=True, raw=stack).ask("GET", "/later").text
    assert 401 == browse(Guarded(), public=True, raw=stack).ask("GET", "/later").status


def test_whom_raw_routes_are_for_is_one_of_three():
    with pytest.raises(DeclarationError, match="Odd: app_access is one of public, user, siblings; got 'all'"):
        type("Odd", (Service,), {"app_access": "all"})


OWN = {
    "Ropewalk-Request-Id": "r-1",
    "Ropewalk-Priority": "9",
    "ropewalk-tenant": "north",
    "ROPEWALK-DEADLINE": "5",
    "Ropewalk-Identity": "x",
    "Baggage": "a=1",
    "X-Other": "1",
}


def test_outside_our_own_headers_are_stripped_before_anybody_reads_them(ask_outside):
    assert ["", 0, "", "", True, ["host", "x-other"]] == json.loads(ask_outside("GET", "/context", OWN).body)


def test_inside_our_own_headers_are_read(browse, hotels):
    (request_id, priority, tenant, baggage, endless, names) = json.loads(
        browse(hotels).ask("GET", "/context", OWN).body
    )

    assert ("r-1", 9, "north", "a=1", False) == (request_id, priority, tenant, baggage, endless)
    assert "ropewalk-tenant" in names


def test_outside_a_failure_tells_nothing_and_a_refusal_what_it_has_to_say(ask_outside, hotels):
    refusal = ask_outside("GET", "/fail")
    hotels.error = Unavailable("db-7 is down", cause="disk")
    failure = ask_outside("GET", "/fail")

    assert problem(SoldOut, "None on that day.", left=0) == json.loads(refusal.body)
    assert problem(Unavailable) == json.loads(failure.body)
    assert [] == [name for reply in (refusal, failure) for name in reply.headers if name.startswith("ropewalk")]


# -- beside the operations, inside


def test_inside_the_service_describes_itself(ask):
    document = json.loads(ask("GET", "/openapi.json").body)

    assert "/rooms/{room_id}" in document["paths"]
    assert (200, True) == (
        ask("GET", "/docs").status,
        ask("GET", "/docs").headers["content-type"][0].startswith("text/html"),
    )


def test_a_route_of_the_service_wins_over_a_page_of_the_inside(browse):
    class Own(Service):
        @get("/docs")
        async def docs(self) -> str:
            return "mine"

    assert b'"mine"' == browse(Own()).ask("GET", "/docs").body


# -- odd requests


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rooms/7?", 200),
        ("/rooms/%37", 200),
        ("//rooms//7", 308),
        ("/rooms/7%2Fx", 404),
        ("/rooms/７", 200),
        ("/rooms/7%00", 404),
    ],
)
def test_odd_paths_are_read_as_werkzeug_reads_them(ask, path, status):
    from urllib.parse import quote

    assert status == ask("GET", quote(path, safe="/%?")).status


@ensureDeferred
async def test_a_request_that_an_older_client_makes_is_answered(running, url, listen):
    from twisted.internet.endpoints import clientFromString, connectProtocol
    from twisted.internet.protocol import Protocol

    class Old(Protocol):
        got = b""

        def dataReceived(self, data: bytes) -> None:
            self.got += data

    port = url.rpartition(":")[2]
    old = await connectProtocol(clientFromString(running, f"tcp:127.0.0.1:{port}"), Old())
    old.transport.write(b"GET /rooms/7 HTTP/1.0\r\n\r\n")

    await until(running, lambda: old.got.endswith(b'"nights":2}'))
    assert old.got.startswith(b"HTTP/1.0 200 OK\r\n")


@ensureDeferred
async def test_requests_in_a_row_on_one_connection_are_answered_in_order(running, url):
    from twisted.internet.endpoints import clientFromString, connectProtocol
    from twisted.internet.protocol import Protocol

    class Pipeline(Protocol):
        got = b""

        def dataReceived(self, data: bytes) -> None:
            self.got += data

    port = url.rpartition(":")[2]
    pipeline = await connectProtocol(clientFromString(running, f"tcp:127.0.0.1:{port}"), Pipeline())
    for path in ("/rooms/1", "/rooms/x", "/rooms/3"):
        pipeline.transport.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    await until(running, lambda: b"room 3" in pipeline.got)
    assert [b"200", b"404", b"200"] == [part[:3] for part in pipeline.got.split(b"HTTP/1.1 ")[1:]]
    pipeline.transport.loseConnection()


def test_what_was_sent_by_a_client_that_is_gone_cannot_be_read_and_did_not_run():
    request = SimpleNamespace(
        content=BytesIO(b'{"hotel": "Ritz"}'), method=b"POST", uri=b"/rooms", requestHeaders=Headers()
    )
    wire = SimpleNamespace(public=False, sessions=None)
    request.content.close()  # as Twisted does with its connection
    operation = describe(Hotels).operations["hold"]

    with pytest.raises(Unavailable, match="the client is gone") as raised:
        _Exchange(wire, operation, request, {}).read().send(None)

    assert "no" == raised.value.ran
