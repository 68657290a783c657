"""Foreign applications beneath a path of a service."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from ropewalk import Principal, Request, Response, Service, current_context, get, mount, wait
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.errors import DeclarationError
from ropewalk.http.auth import SessionCookie
from ropewalk.http.mounts import Mounts
from ropewalk.http.sessions import Session
from ropewalk.sibling import client_of


class Hotels(Service):
    """The sibling that is called from within."""

    @get("/hotels/<city>")
    async def find(self, city: str) -> str:
        return f"a hotel in {city}"


class Says(Resource):
    """Says what it was asked; its children are found by Twisted."""

    def __init__(self, path: bytes = b"") -> None:
        super().__init__()
        self.path = path

    def getChild(self, path: bytes, request: Any) -> Says:
        return Says(self.path + b"/" + path)

    def render(self, request: Any) -> bytes:
        return b"resource " + self.path


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Says where it is, and what it was sent."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "1")])
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
    return [" ".join(f"{environ[name]!r}" for name in names).encode(), b" ", environ["wsgi.input"].read()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Says where it is."""
    assert scope["type"] == "http"
    said = f"{scope['method']} {scope['root_path']} {scope['path']} {scope['query_string'].decode()}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": said.encode()})


class Front(Service):
    """Has one of each, and counts how often it is asked for them."""

    def __init__(self, hotels: Any = None) -> None:
        self.hotels = hotels
        self.made: list[str] = []

    @get("/rooms")
    async def rooms(self) -> str:
        return "rooms"

    @mount("/resource")
    def resource_(self) -> Says:
        self.made.append("resource")
        return Says()

    @mount("/wsgi", access="public")
    def wsgi(self) -> Any:
        self.made.append("wsgi")
        return wsgi

    @mount("/asgi", access="public")
    def asgi(self) -> Any:
        self.made.append("asgi")
        return asgi

    @mount("/klein")
    def klein(self) -> Klein:
        self.made.append("klein")
        app = Klein()

        @app.route("/<int:number>")
        def number(request: Any, number: int) -> str:
            return f"klein {number}"

        return app

    @mount("/deep/er", access="user")
    def calls(self) -> Any:
        def application(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            context = current_context()
            found = wait(self.hotels.find("Köln"))
            return [msgspec.json.encode([found, context.operation, context.trace.trace_id])]

        return application


@pytest.fixture
def front(running, threads, served, sessions):
    """`front(hotels=None, **options of surface)`: a browser for a Front."""

    def front(hotels: Any = None, **options: Any) -> Any:
        service = Front(hotels)
        mounts = Mounts(service, running, threads, Driver.of(running))
        return served(service, [SessionCookie(sessions)], mounts=mounts, **options)

    return front


def signed_in(browser: Any, sessions: Any) -> Any:
    cookie = sessions._cookie(Session(subject="ada", scopes=["book"], sessions=sessions), False)
    browser.cookies["session"] = cookie.partition(";")[0].partition("=")[2]
    return browser


ASKED = {
    "/resource": "resource ",
    "/resource/": "resource /",
    "/resource/a/b": "resource /a/b",
    "/wsgi": "'GET' '/wsgi' '' '' ",
    "/wsgi/": "'GET' '/wsgi' '/' '' ",
    "/wsgi/a%20b/c?x=1": "'GET' '/wsgi' '/a b/c' 'x=1' ",
    "/asgi": "GET /asgi /asgi ",
    "/asgi/a%20b?x=1": "GET /asgi /asgi/a b x=1",
    "/klein/7": "klein 7",
    "/rooms": '"rooms"',
}


@pytest.mark.parametrize(("path", "said"), ASKED.items())
@ensureDeferred
async def test_each_is_there_with_all_that_lies_beneath(front, path, said):
    reply = await front().ask("GET", path)

    assert (200, said) == (reply.status, reply.text)


@ensureDeferred
async def test_what_lies_beside_is_not_theirs(front):
    browser = front()

    assert [404, 404] == [(await browser.ask("GET", path)).status for path in ("/wsgix", "/klein/x")]


@ensureDeferred
async def test_methods_and_bodies_are_theirs(front):
    browser = front()

    posted = await browser.ask("POST", "/wsgi/form", data={"a": "ü"})
    deleted = await browser.ask("DELETE", "/asgi/7")

    assert ("'POST' '/wsgi' '/form' '' a=%C3%BC", ["1"], ["text/plain"]) == (
        posted.text,
        posted.headers["x-own"],
        posted.headers["content-type"],
    )
    assert "DELETE /asgi /asgi/7 " == deleted.text


def test_each_method_is_called_once(running, threads):
    service = Front()

    mounts = Mounts(service, running, threads, Driver.of(running))

    assert ["resource", "wsgi", "asgi", "klein"] == service.made
    assert ["/resource", "/wsgi", "/asgi", "/klein", "/deep/er"] == [mount.route for mount in mounts.resources]


@ensureDeferred
async def test_a_public_listener_has_those_that_are_declared_for_it(front):
    browser = front(public=True)

    found = {
        path: (await browser.ask("GET", path)).status
        for path in ("/resource", "/wsgi", "/asgi", "/klein/7", "/deep/er")
    }

    assert {"/resource": 404, "/wsgi": 200, "/asgi": 200, "/klein/7": 404, "/deep/er": 401} == found


@ensureDeferred
async def test_a_public_listener_shows_them_none_of_our_headers(front, running, threads, served):
    class Shows(Service):
        @mount("/", access="public")
        def shows(self) -> Any:
            def application(environ: Any, start_response: Any) -> list[bytes]:
                start_response("200 OK", [])
                return [" ".join(sorted(name for name in environ if re.match("HTTP_(ROPE|BAGG|X_)", name))).encode()]

            return application

    service = Shows()
    mounts = Mounts(service, running, threads, Driver.of(running))
    headers = {"Ropewalk-Identity": "forged", "Ropewalk-Priority": "9", "Baggage": "a=b", "X-Own": "1"}

    said = [
        (await served(service, mounts=mounts, public=public).ask("GET", "/any", headers)).text
        for public in (True, False)
    ]

    assert ["HTTP_X_OWN", "HTTP_BAGGAGE HTTP_ROPEWALK_IDENTITY HTTP_ROPEWALK_PRIORITY HTTP_X_OWN"] == said


@ensureDeferred
async def test_from_the_thread_of_a_wsgi_application_a_sibling_is_called_in_the_callers_context(
    front, running, sessions
):
    called: list[Request] = []
    hotels = dispatch(Hotels())

    async def handler(request: Request) -> Response:
        turn: Deferred[None] = Deferred()
        running.callLater(0, turn.callback, None)
        await turn
        called.append(request)
        return await hotels(request)

    browser = signed_in(front(client_of(Hotels, handler, "front")), sessions)
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    reply = await browser.ask("GET", "/deep/er/and/er", {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})

    assert ["a hotel in Köln", "front.calls", trace_id] == msgspec.json.decode(reply.body)
    assert [("front.calls", trace_id, Principal(None, "ada", frozenset({"book"})))] == [
        (request.context.operation, request.context.trace.trace_id, request.principal) for request in called
    ]


@ensureDeferred
async def test_an_asgi_application_awaits_siblings(running, threads, served):
    class Awaits(Service):
        def __init__(self, hotels: Any) -> None:
            self.hotels = hotels

        @mount("/api")
        def api(self) -> Any:
            async def application(scope: Any, receive: Any, send: Any) -> None:
                assert scope["type"] == "http"
                found = await self.hotels.find("Wien")
                await send({"type": "http.response.start", "status": 200})
                await send(
                    {"type": "http.response.body", "body": f"{found} for {current_context().operation}".encode()}
                )

            return application

    service = Awaits(client_of(Hotels, dispatch(Hotels()), "awaits"))

    reply = await served(service, mounts=Mounts(service, running, threads, Driver.of(running))).ask("GET", "/api")

    assert "a hotel in Wien for awaits.api" == reply.text


@ensureDeferred
async def test_a_wsgi_application_that_fails_is_a_500(running, threads, served, flush_logged_errors):
    class Fails(Service):
        @mount("/")
        def fails(self) -> Any:
            def application(environ: Any, start_response: Any) -> list[bytes]:
                raise ZeroDivisionError

            return application

    service = Fails()

    reply = await served(service, mounts=Mounts(service, running, threads, Driver.of(running))).ask("GET", "/")

    assert 500 == reply.status
    assert [ZeroDivisionError] == [failure.type for failure in flush_logged_errors()]


class Held:
    """Threads that begin when they are told to."""

    def __init__(self, threads: Any) -> None:
        self.threads = threads
        self.waiting: list[Any] = []

    def callInThread(self, func: Any, *args: Any, **kwargs: Any) -> None:
        self.waiting.append((func, args, kwargs))

    def begin(self) -> None:
        for func, args, kwargs in self.waiting:
            self.threads.callInThread(func, *args, **kwargs)
        self.waiting = []


@ensureDeferred
async def test_only_so_many_requests_wait_for_a_thread(running, threads, served):
    held = Held(threads)
    service = Front()
    browser = served(service, mounts=Mounts(service, running, held, Driver.of(running), queue=1))
    first = Driver.of(running).run(browser.ask("GET", "/wsgi"))
    while not held.waiting:
        turn: Deferred[None] = Deferred()
        running.callLater(0, turn.callback, None)
        await turn

    second = await browser.ask("GET", "/wsgi")
    held.begin()
    answered = await first
    third = Driver.of(running).run(browser.ask("GET", "/wsgi"))
    while not held.waiting:
        turn = Deferred()
        running.callLater(0, turn.callback, None)
        await turn
    held.begin()

    assert (503, "The application's queue is full: 1 requests run or wait.") == (
        second.status,
        msgspec.json.decode(second.body)["detail"],
    )
    assert [200, 200] == [answered.status, (await third).status]


@ensureDeferred
async def test_they_are_started_in_order_and_stopped_the_last_one_first(running, threads):
    diary: list[str] = []

    def living(name: str) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            for event in ("startup", "shutdown"):
                assert f"lifespan.{event}" == (await receive())["type"]
                diary.append(f"{name} {event}")
                await send({"type": f"lifespan.{event}.complete"})

        return application

    class Two(Service):
        @mount("/one")
        def one(self) -> Any:
            return living("one")

        @mount("/two")
        def two(self) -> Any:
            return living("two")

    mounts = Mounts(Two(), running, threads, Driver.of(running))
    await Driver.of(running).run(mounts.start())
    await Driver.of(running).run(mounts.stop())

    assert ["one startup", "two startup", "two shutdown", "one shutdown"] == diary


WRONG = {
    "nothing": lambda self: None,
    "a text": lambda self: "legacy",
    "a class": lambda self: Says,
}


async def awaited(self: Any) -> Any:
    return wsgi


@pytest.mark.parametrize("method", [*WRONG.values(), awaited], ids=[*WRONG, "a coroutine"])
def test_something_else_is_refused_with_what_would_do(running, threads, method):
    class Wrong(Service):
        legacy = mount("/legacy")(method)

    with pytest.raises(DeclarationError, match=r"^wrong\.legacy: expected an IResource, a Klein application, a WSGI"):
        Mounts(Wrong(), running, threads, Driver.of(running))


def test_a_surface_without_what_mounts_need_says_so(browse):
    with pytest.raises(TypeError, match="front has mounts: surface\\(\\) needs `mounts=Mounts"):
        browse(Front())
