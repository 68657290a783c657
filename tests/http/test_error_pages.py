"""What a browser is shown instead of a problem document, and what everybody else still gets."""

from __future__ import annotations

from typing import Any

import pytest

from ropewalk import NotFound, Response, RopewalkError, Service, Unavailable, get
from ropewalk.http.pages import Session

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Shop(Service):
    """Shows pages, also of what went wrong."""

    @get("/busy", access="public", raises=(Unavailable,))
    async def busy(self) -> Response:
        raise Unavailable("a secret", headers=[("retry-after", "3")])

    def error_page(self, error: RopewalkError, request: Any) -> Response | None:
        if request.uri.startswith(b"/elsewhere"):
            return Response(None, 303, [("location", "/sign-in")])
        if request.uri.startswith(b"/broken"):
            raise RuntimeError("the page itself is broken")
        if request.uri.startswith(b"/plain"):
            return None
        Session.of_request(request).flash("noted")
        return Response(f"<h1>{error.status}</h1>", error.status, [("content-type", "text/html; charset=utf-8")])


def test_who_prefers_html_is_shown_the_services_page_with_what_the_error_says_of_itself(browse):
    reply = browse(Shop(), public=True).ask("GET", "/busy", BROWSER)

    assert (reply.status, reply.text) == (503, "<h1>503</h1>")
    assert reply.headers["content-type"] == ["text/html; charset=utf-8"]
    assert reply.headers["retry-after"] == ["3"]
    assert "accept" in reply.headers["vary"]


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0.5, application/problem+json"])
def test_whoever_does_not_is_told_the_problem(browse, accept):
    reply = browse(Shop(), public=True).ask("GET", "/busy", {"Accept": accept} if accept else {})

    assert (reply.status, reply.headers["content-type"]) == (503, ["application/problem+json"])
    assert "a secret" not in reply.text


def test_a_path_nobody_serves_has_the_page_too_and_it_may_use_the_session(browse):
    browser = browse(Shop())
    reply = browser.ask("GET", "/nowhere", BROWSER)

    assert (reply.status, reply.text) == (404, "<h1>404</h1>")
    assert list(browser.cookies) == ["session"]


def test_a_method_nobody_serves_has_the_page_and_still_says_which_there_are(browse):
    reply = browse(Shop()).ask("POST", "/busy", BROWSER)

    assert (reply.status, reply.text, reply.headers["allow"]) == (405, "<h1>405</h1>", ["GET, HEAD, OPTIONS"])


def test_the_page_may_send_the_browser_elsewhere(browse):
    reply = browse(Shop()).ask("GET", "/elsewhere", BROWSER)

    assert (reply.status, reply.headers["location"], reply.text) == (303, ["/sign-in"], "")


def test_a_page_that_is_not_made_leaves_the_problem(browse):
    reply = browse(Shop()).ask("GET", "/plain", BROWSER)

    assert (reply.status, reply.headers["content-type"]) == (404, ["application/problem+json"])


def test_a_page_that_fails_leaves_the_problem_and_is_logged(browse, flush_logged_errors):
    reply = browse(Shop()).ask("GET", "/broken", BROWSER)

    assert (reply.status, reply.headers["content-type"]) == (404, ["application/problem+json"])
    assert [failure.getErrorMessage() for failure in flush_logged_errors(RuntimeError)] == ["the page itself is broken"]


def test_a_service_without_such_pages_tells_problems(browse):
    class Quiet(Service):
        @get("/", access="public", raises=(NotFound,))
        async def look(self) -> Response:
            raise NotFound("not here")

    reply = browse(Quiet()).ask("GET", "/", BROWSER)

    assert (reply.status, reply.headers["content-type"]) == (404, ["application/problem+json"])
