"""ASGI applications on Twisted, on whatever reactor runs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from ropewalk.driver import Driver
from ropewalk.http.asgi import ASGIResource


@pytest.fixture
def serve(running, listen):
    """`serve(application)`: a browser for it."""
    return lambda application: listen(ASGIResource(application, Driver.of(running)))


def answering(*events: dict[str, Any]) -> Any:
    """An application that sends these, whatever it is asked, and has no lifespan."""

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        for event in events:
            await send(event)

    return application


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(piece: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


# -- the request


@ensureDeferred
async def test_the_scope_says_what_was_asked(serve):
    seen = {}

    async def application(scope, receive, send):
        seen.update(scope)
        await answering(start(), body(b""))(scope, receive, send)

    browser = serve(application)
    await browser.ask("PATCH", "/a%20b/%C3%A9?x=1&y=%20", {"X-Twice": "1", "Accept": "*/*"}, data=b"1")

    headers = [(name, value) for name, value in seen.pop("headers") if name in (b"x-twice", b"accept", b"host")]
    client = seen.pop("client")
    assert "127.0.0.1" == client[0]
    assert [(b"accept", b"*/*"), (b"host", browser.host.encode()), (b"x-twice", b"1")] == sorted(headers)
    assert {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "PATCH",
        "scheme": "http",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=1&y=%20",
        "root_path": "",
        "server": ("127.0.0.1", int(browser.host.partition(":")[2])),
        "state": {},
    } == seen


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says how many pieces came, and what they were."""
    assert scope["type"] == "http"
    pieces, more = [], True
    while more:
        event = await receive()
        assert "http.request" == event["type"]
        pieces.append(event["body"])
        more = event["more_body"]
    await send(start(200, (b"x-pieces", str(len(pieces)).encode())))
    await send(body(b"".join(pieces)))


@pytest.mark.parametrize(("size", "pieces"), [(0, 1), (10, 1), (1 << 16, 2), (200_000, 4)])
@ensureDeferred
async def test_the_body_comes_in_pieces(serve, size, pieces):
    sent = bytes(size)

    reply = await serve(echo).ask("POST", "/", data=sent)

    assert (sent, [str(pieces)]) == (reply.body, reply.headers["x-pieces"])


# -- the reply


@ensureDeferred
async def test_status_headers_and_body_are_the_applications(serve):
    application = answering(
        start(201, (b"content-type", b"text/x"), (b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"2")), body(b"ok")
    )

    reply = await serve(application).ask("GET", "/")

    assert (201, {"content-type": ["text/x"], "x-a": ["1", "2"]}, b"ok") == (
        reply.status,
        {name: value for name, value in reply.headers.items() if name != "content-length"},
        reply.body,
    )


@ensureDeferred
async def test_no_type_is_made_up(serve):
    reply = await serve(answering(start(), body(b"ok"))).ask("GET", "/")

    assert "content-type" not in reply.headers


@ensureDeferred
async def test_a_body_may_come_in_pieces_and_have_none_at_its_end(serve):
    reply = await serve(answering(start(), body(b"a", True), body(b"", True), body(b"b", True), body(b""))).ask(
        "GET", "/"
    )

    assert (200, b"ab") == (reply.status, reply.body)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@ensureDeferred
async def test_where_there_is_no_body_none_is_sent(serve, method, status):
    reply = await serve(answering(start(status), body(b""))).ask(method, "/")

    assert (status, b"") == (reply.status, reply.body)


@ensureDeferred
async def test_it_may_await_deferreds_and_asyncio_alike(serve, running):
    async def application(scope, receive, send):
        assert scope["type"] == "http"
        await deferLater(running, 0, lambda: None)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(send(start()))
        await asyncio.sleep(0)
        await send(body(b"both"))

    reply = await serve(application).ask("GET", "/")

    assert b"both" == reply.body


@ensureDeferred
async def test_a_body_larger_than_every_buffer_arrives_whole(serve):
    piece = bytes(range(256)) * 256

    reply = await serve(answering(start(), *[body(piece, True)] * 100, body(b""))).ask("GET", "/")

    assert piece * 100 == reply.body


# -- what goes wrong


@ensureDeferred
async def test_an_application_that_fails_before_its_answer_is_a_problem(serve, flush_logged_errors):
    async def application(scope, receive, send):
        raise ZeroDivisionError

    reply = await serve(application).ask("GET", "/")

    assert [ZeroDivisionError] == [failure.type for failure in flush_logged_errors()]
    assert (500, ["application/problem+json"]) == (reply.status, reply.headers["content-type"])


@ensureDeferred
async def test_its_headers_are_not_those_of_the_problem(serve, flush_logged_errors):
    async def application(scope, receive, send):
        assert scope["type"] == "http"
        await send(start(200, (b"x-half", b"done"), (b"content-length", b"1000")))
        raise ZeroDivisionError

    reply = await serve(application).ask("GET", "/")

    assert [ZeroDivisionError] == [failure.type for failure in flush_logged_errors()]
    assert (500, "x-half" in reply.headers) == (reply.status, False)


@ensureDeferred
async def test_one_that_says_nothing_is_a_problem(serve):
    reply = await serve(answering()).ask("GET", "/")

    assert 500 == reply.status


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@ensureDeferred
async def test_an_answer_that_breaks_off_does_not_look_whole(serve, flush_logged_errors, fails):
    async def application(scope, receive, send):
        assert scope["type"] == "http"
        await send(start())
        await send(body(b"half", True))
        if fails:
            raise ZeroDivisionError

    with pytest.raises(ResponseFailed):
        await serve(application).ask("GET", "/")

    assert [ZeroDivisionError] * fails == [failure.type for failure in flush_logged_errors()]


OUT_OF_TURN = {
    "a body before the head": ([body(b"x")], "before the head"),
    "a second head": ([start(), start()], "after the head"),
    "more after the end": ([start(), body(b"x"), body(b"y")], "after the end"),
    "an unknown event": ([{"type": "http.response.push"}], "'http.response.push' before the head"),
}


@pytest.mark.parametrize(("events", "message"), OUT_OF_TURN.values(), ids=OUT_OF_TURN)
@ensureDeferred
async def test_events_out_of_turn_are_errors_of_the_application(serve, flush_logged_errors, events, message):
    await serve(answering(*events)).ask("GET", "/")

    (failure,) = flush_logged_errors()
    assert message in failure.getErrorMessage()


# -- the client


class Caller(Protocol):
    """Asks, and hangs up when it is told to."""

    def connectionMade(self) -> None:
        self.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def call(running: Any, browser: Any) -> Caller:
    factory = ClientFactory()
    caller = Caller()
    factory.noisy = False
    factory.protocol = lambda: caller
    host, _, port = browser.host.partition(":")
    running.connectTCP(host, int(port), factory)
    return caller


@ensureDeferred
async def test_an_application_is_told_that_its_client_is_gone_and_runs_on(serve, running):
    asked, told = Deferred(), Deferred()

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        seen = [(await receive())["type"]]
        asked.callback(None)
        seen.append((await receive())["type"])
        await send(start())
        with pytest.raises(OSError, match="The client is gone"):
            await send(body(b"too late"))
        told.callback(seen)

    caller = call(running, serve(application))
    await asked
    caller.transport.loseConnection()

    assert ["http.request", "http.disconnect"] == await told


@ensureDeferred
async def test_one_that_does_not_care_that_its_client_is_gone_is_no_failure(serve, running):
    asked, ended = Deferred(), Deferred()

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        asked.callback(None)
        await receive()
        await receive()
        try:
            await answering(start(), body(b"too late"))(scope, receive, send)
        finally:
            ended.callback(None)

    caller = call(running, serve(application))
    await asked
    caller.transport.abortConnection()
    await ended


@ensureDeferred
async def test_after_its_answer_receive_says_that_it_is_over(serve):
    told = Deferred()

    async def application(scope, receive, send):
        await answering(start(), body(b"ok"))(scope, receive, send)
        await receive()
        told.callback(await receive())

    await serve(application).ask("GET", "/")

    assert {"type": "http.disconnect"} == await told


# -- its life


class Living:
    """An application with a lifespan, and a diary."""

    def __init__(self, fails: str = "") -> None:
        self.diary: list[str] = []
        self.fails = fails

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.diary.append(f"asked {scope['state']}")
            await answering(start(), body(b"ok"))(scope, receive, send)
            return
        while True:
            said = (await receive())["type"].removeprefix("lifespan.")
            self.diary.append(said)
            scope["state"]["born"] = True
            if self.fails == said:
                await send({"type": f"lifespan.{said}.failed", "message": "no database"})
                return
            await send({"type": f"lifespan.{said}.complete"})
            if said == "shutdown":
                return


@ensureDeferred
async def test_it_is_started_and_stopped_once(running):
    application = Living()
    resource = ASGIResource(application, Driver.of(running))

    for _ in range(2):
        await Driver.of(running).run(resource.start())
    for _ in range(2):
        await Driver.of(running).run(resource.stop())

    assert ["startup", "shutdown"] == application.diary


@ensureDeferred
async def test_it_is_started_at_the_first_request_if_not_before(serve):
    application = Living()
    browser = serve(application)

    for _ in range(2):
        await browser.ask("GET", "/")

    assert ["startup", "asked {'born': True}", "asked {'born': True}"] == application.diary


@ensureDeferred
async def test_one_that_cannot_start_says_why_each_time(running):
    resource = ASGIResource(Living(fails="startup"), Driver.of(running))

    for _ in range(2):
        with pytest.raises(RuntimeError, match="An ASGI application could not start: no database"):
            await Driver.of(running).run(resource.start())
    await Driver.of(running).run(resource.stop())


@ensureDeferred
async def test_one_that_was_never_started_needs_no_stop(running):
    application = Living()

    await Driver.of(running).run(ASGIResource(application, Driver.of(running)).stop())

    assert [] == application.diary


@ensureDeferred
async def test_one_that_does_not_end_is_cancelled(running, monkeypatch):
    monkeypatch.setattr("ropewalk.http.asgi.STOP_LIMIT", 0.01)
    cancelled = Deferred()

    async def application(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await Deferred()
        except asyncio.CancelledError:
            cancelled.callback(None)
            raise

    resource = ASGIResource(application, Driver.of(running))
    await Driver.of(running).run(resource.start())
    await Driver.of(running).run(resource.stop())
    await cancelled


# -- a framework


@pytest.mark.slow
@ensureDeferred
async def test_fastapi_with_all_that_it_builds_on_anyio(serve):
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from starlette.middleware.base import BaseHTTPMiddleware

    api = FastAPI()

    @api.get("/waits")
    async def waits(number: int):
        await asyncio.sleep(0)
        return {"number": number}

    @api.get("/blocks")
    def blocks():
        return "from a thread"

    @api.get("/streams")
    async def streams():
        async def lines():
            for line in "ab":
                await asyncio.sleep(0)
                yield line

        return StreamingResponse(lines())

    async def marks(request, call_next):
        reply = await call_next(request)
        reply.headers["x-marked"] = "yes"
        return reply

    api.add_middleware(BaseHTTPMiddleware, dispatch=marks)
    browser = serve(api)

    replies = {path: await browser.ask("GET", path) for path in ("/waits?number=3", "/blocks", "/streams", "/waits")}

    assert [(200, b'{"number":3}'), (200, b'"from a thread"'), (200, b"ab")] == [
        (reply.status, reply.body) for reply in list(replies.values())[:3]
    ]
    assert (422, "number") == (
        replies["/waits"].status,
        msgspec.json.decode(replies["/waits"].body)["detail"][0]["loc"][1],
    )
    assert [["yes"]] * 4 == [reply.headers["x-marked"] for reply in replies.values()]
