"""The page that shows a service's document: what it is made of, how it is cached, who may take its place; it works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import msgspec
import pytest
import pytest_twisted
from klein import Klein
from twisted.internet.threads import deferToThreadPool
from twisted.web.resource import Resource

from ropewalk import Response, Service, get, post
from ropewalk.http.openapi import document
from ropewalk.service import describe


class Room(msgspec.Struct):
    number: int
    name: str


class Hotels(Service, name="hotels", version="2.1.0"):
    """Hotels and their rooms."""

    @get("/rooms/<int:number>")
    async def room(self, number: int) -> Room:
        """One room."""
        return Room(number, "Lavender")

    @post("/rooms", status=201)
    async def add(self, room: Room) -> Room:
        """Add a room."""
        return room


QUIET = [  # a browser that speaks to nobody of its own accord
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ASSETS = ["docs.css", "docs.js", "swagger-ui-bundle.js", "swagger-ui.css"]


# -- what is served


def test_the_document_is_served(browse: Callable[..., Any]):
    reply = browse(Hotels()).ask("GET", "/openapi.json")

    assert (200, ["application/json"]) == (reply.status, reply.headers["content-type"])
    assert document(describe(Hotels)) == msgspec.json.decode(reply.body)


def test_the_page_is_served_and_names_the_service(browse: Callable[..., Any]):
    reply = browse(Hotels()).ask("GET", "/docs")

    assert (200, ["text/html; charset=utf-8"]) == (reply.status, reply.headers["content-type"])
    assert "<title>hotels 2.1.0</title>" in reply.text


def test_all_that_the_page_needs_is_served_beside_it(browse: Callable[..., Any]):
    browser = browse(Hotels())
    page = browser.ask("GET", "/docs").text

    needed = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    replies = {name: browser.ask("GET", urljoin("/docs", name)) for name in needed}

    assert sorted([*(f"docs/-/{name}" for name in ASSETS), "openapi.json"]) == sorted(needed)
    assert {200} == {reply.status for reply in replies.values()}


def test_the_page_asks_nobody_but_the_service(browse: Callable[..., Any]):
    browser = browse(Hotels())

    policy = browser.ask("GET", "/docs").headers["content-security-policy"][0]
    ours = [browser.ask("GET", path).text for path in ("/docs", "/docs/-/docs.js", "/docs/-/docs.css")]

    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert [] == [found for text in ours for found in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)]


@pytest.mark.parametrize("name", ["", "nothing.js", "../docs.py", "docs.html"])
def test_no_other_file_is_served(browse: Callable[..., Any], name: str):
    assert 404 == browse(Hotels()).ask("GET", f"/docs/-/{name}").status


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", *(f"/docs/-/{name}" for name in ASSETS)])
def test_what_a_browser_has_it_is_not_sent_again(browse: Callable[..., Any], path: str):
    browser = browse(Hotels())

    first = browser.ask("GET", path)
    (tag,) = first.headers["etag"]
    again = browser.ask("GET", path, {"If-None-Match": tag})

    assert ["no-cache"] == first.headers["cache-control"]
    assert (304, b"") == (again.status, again.body)
    assert 200 == browser.ask("GET", path, {"If-None-Match": '"something else"'}).status


def test_a_head_has_no_body_and_a_post_is_refused(browse: Callable[..., Any]):
    browser = browse(Hotels())

    head = browser.ask("HEAD", "/docs")

    assert (200, b"") == (head.status, head.body)
    assert 405 == browser.ask("POST", "/openapi.json").status


# -- who may take its place


def test_a_public_listener_has_neither(browse: Callable[..., Any]):
    browser = browse(Hotels(), public=True)

    assert [404, 404, 404] == [
        browser.ask("GET", path).status for path in ("/openapi.json", "/docs", "/docs/-/docs.js")
    ]


def test_a_route_of_the_service_wins_and_takes_what_lies_beneath(browse: Callable[..., Any]):
    class Library(Service):
        @get("/docs")
        async def documents(self) -> list[str]:
            return ["a", "b"]

        @get("/openapi.json")
        async def mine(self) -> Response:
            return Response(b"{}", headers=[("content-type", "application/json")])

    browser = browse(Library())

    assert b'["a","b"]' == browser.ask("GET", "/docs").body
    assert b"{}" == browser.ask("GET", "/openapi.json").body
    assert 404 == browser.ask("GET", "/docs/-/docs.js").status


def test_a_route_of_the_services_own_klein_application_wins(browse: Callable[..., Any]):
    class Library(Service):
        app = Klein()

        @app.route("/docs/")
        def documents(self, request: Any) -> bytes:
            return b"mine"

    browser = browse(Library())

    assert b"mine" == browser.ask("GET", "/docs/").body
    assert 200 == browser.ask("GET", "/openapi.json").status


def test_what_answers_everything_leaves_the_page_where_it_is(browse: Callable[..., Any]):
    class Frontend(Service):
        app = Klein()

        @app.route("/", branch=True)
        def everything(self, request: Any) -> Resource:
            raise AssertionError("not asked")

    assert 200 == browse(Frontend()).ask("GET", "/docs").status


def test_a_single_service_serves_them_too():
    from klein.resource import KleinResource  # chooses a reactor

    resource = Hotels().resource()

    assert isinstance(resource, KleinResource)
    assert {"/openapi.json", "/docs"} <= {rule.rule for rule in resource._app.url_map.iter_rules()}


# -- it works


def driven(url: str, screenshot: Path) -> dict[str, Any]:
    """What a person finds on the page at `url` who asks for room 7."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {"asked": [], "complaints": []}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.on("request", lambda request: found["asked"].append(request.url))
        page.on("pageerror", lambda error: found["complaints"].append(str(error)))
        page.on("console", lambda line: found["complaints"].append(line.text) if line.type == "error" else None)
        page.goto(url)
        page.wait_for_selector(".opblock")
        found["operations"] = page.locator(".opblock-summary-path").all_inner_texts()
        operation = page.locator("#operations-hotels-room")
        operation.locator(".opblock-summary-control").click()
        operation.locator("input[placeholder=number]").fill("7")
        operation.locator("button.execute").click()
        page.wait_for_selector("#operations-hotels-room .live-responses-table")
        found["status"] = operation.locator(".live-responses-table .response-col_status").nth(1).inner_text()
        found["answer"] = operation.locator(".live-responses-table .highlight-code code").first.inner_text()
        page.screenshot(path=screenshot)
        browser.close()
    return found


@pytest.mark.browser
@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_an_operation_is_tried_on_the_page_and_nobody_else_is_asked(
    served: Callable[..., Any], running: Any, threads: Any, tmp_path: Path
):
    host = served(Hotels(), sessions=None).host

    found = await deferToThreadPool(running, threads, driven, f"http://{host}/docs", tmp_path / "docs.png")

    assert [] == found["complaints"]
    assert {f"http://{host}/"} == {urljoin(url, "/") for url in found["asked"]}
    assert ["/rooms/{number}", "/rooms"] == [path.replace("\u200b", "") for path in found["operations"]]
    assert "200" == found["status"].strip()
    assert {"number": 7, "name": "Lavender"} == msgspec.json.decode(found["answer"].encode())
