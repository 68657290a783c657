"""Who may read a listener's answers."""

from __future__ import annotations

import pytest

from ropewalk import Conflict, Service, get, post
from ropewalk.errors import ConfigurationError
from ropewalk.http.cors import CORS

APP = "https://app.example"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


class Rooms(Service):
    """Answers."""

    @get("/rooms")
    async def rooms(self) -> str:
        return "rooms"

    @post("/rooms")
    async def add(self) -> str:
        raise Conflict("Full.")


def cors_of(headers: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


def test_without_a_policy_nothing_is_said(browse):
    browser = browse(Rooms())

    replies = [browser.ask("GET", "/rooms", {"Origin": APP}), browser.ask("OPTIONS", "/rooms", PREFLIGHT)]

    assert [{}, {}] == [cors_of(reply.headers) for reply in replies]


def test_a_reply_says_that_the_origin_may_read_it(browse):
    reply = browse(Rooms(), cors=CORS((APP, "https://two.example"))).ask("GET", "/rooms", {"Origin": APP})

    assert b'"rooms"' == reply.body
    assert {
        "vary": ["origin"],
        "access-control-allow-origin": [APP],
        "access-control-expose-headers": ["location, retry-after"],
    } == cors_of(reply.headers)


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null", ""])
def test_another_origin_is_told_nothing_and_answered_all_the_same(browse, origin):
    reply = browse(Rooms(), cors=CORS((APP,))).ask("GET", "/rooms", {"Origin": origin})

    assert (200, {"vary": ["origin"]}) == (reply.status, cors_of(reply.headers))


def test_caches_are_told_even_when_nobody_asked(browse):
    reply = browse(Rooms(), cors=CORS((APP,))).ask("GET", "/rooms")

    assert {"vary": ["origin"]} == cors_of(reply.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/rooms", 409), ("GET", "/none", 404), ("PUT", "/rooms", 405)]
)
def test_problems_may_be_read_too(browse, method, path, status):
    reply = browse(Rooms(), cors=CORS((APP,))).ask(method, path, {"Origin": APP})

    assert (status, [APP]) == (reply.status, reply.headers["access-control-allow-origin"])


def test_every_origin_may_read_what_is_for_all(browse):
    reply = browse(Rooms(), cors=CORS(("*",), exposed=())).ask("GET", "/rooms", {"Origin": APP})

    assert {"access-control-allow-origin": ["*"]} == cors_of(reply.headers)


def test_credentials_come_along_where_that_is_said(browse):
    reply = browse(Rooms(), cors=CORS((APP,), credentials=True)).ask("GET", "/rooms", {"Origin": APP})

    assert ["true"] == reply.headers["access-control-allow-credentials"]


def test_a_preflight_is_answered_for_every_path(browse):
    browser = browse(Rooms(), cors=CORS((APP,), ("GET", "POST"), ("content-type",), (), max_age=60))

    replies = [browser.ask("OPTIONS", path, PREFLIGHT) for path in ("/rooms", "/none")]

    assert [
        (
            204,
            b"",
            {
                "vary": ["origin"],
                "access-control-allow-origin": [APP],
                "access-control-allow-methods": ["GET, POST"],
                "access-control-allow-headers": ["content-type"],
                "access-control-max-age": ["60"],
            },
        )
    ] * 2 == [(reply.status, reply.body, reply.headers) for reply in replies]


def test_a_preflight_of_another_origin_is_an_options_request_like_any_other(browse):
    reply = browse(Rooms(), cors=CORS((APP,))).ask("OPTIONS", "/rooms", {**PREFLIGHT, "Origin": "https://evil.example"})

    assert (204, {"vary": ["origin"], "allow": ["GET, HEAD, OPTIONS, POST"]}) == (reply.status, reply.headers)


def test_options_without_a_method_to_come_is_no_preflight(browse):
    reply = browse(Rooms(), cors=CORS((APP,))).ask("OPTIONS", "/rooms", {"Origin": APP})

    assert ["GET, HEAD, OPTIONS, POST"] == reply.headers["allow"]


@pytest.mark.parametrize("origin", ["https://app.example/", "app.example", "https://", "HTTPS://APP.example", ""])
def test_an_origin_is_written_as_browsers_do(origin):
    with pytest.raises(ConfigurationError, match=r'An origin is like "https://app\.example"'):
        CORS((origin,))


def test_credentials_are_not_for_all():
    with pytest.raises(ConfigurationError, match="would let every site act for whoever visits it"):
        CORS(("*",), credentials=True)
