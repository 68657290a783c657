"""A service that shows pages, as its author writes it and a browser meets it: a guest book, over a real socket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta
from pytest_twisted import ensureDeferred

from ropewalk import Form, NotFound, Principal, Response, Service, Upload, current_context, get, given, mount, post
from ropewalk.driver import Driver
from ropewalk.http.auth import SessionCookie
from ropewalk.http.mounts import Mounts
from ropewalk.http.pages import Session, Static, Templates, path_for, redirect

LAYOUT = """<!doctype html>
<title>{{ title }}</title><link rel="stylesheet" href="/static/book.css">
{% for message in session.flashes() %}<p class="flash">{{ message }}</p>{% endfor %}
{% block content %}{% endblock %}
"""
SIGN_IN = """{% extends "layout.html" %}{% block content %}
<form method="post" action="{{ path_for("sign_in") }}">{{ csrf_field() }}<input name="name"></form>
{% endblock %}
"""
BOOK = """{% extends "layout.html" %}{% block content %}
<p>Signed in: {{ principal.subject }}</p>
{% for entry in entries %}<a href="{{ path_for("entry", number=loop.index0) }}">{{ entry }}</a>{% endfor %}
<form method="post" action="{{ path_for("write") }}">{{ csrf_field() }}<input name="text"></form>
{% endblock %}
"""


class SignIn(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1)]


class Entry(msgspec.Struct):
    text: Annotated[str, Meta(min_length=1, max_length=80)]
    stars: int | None = None
    tags: list[str] = []


class GuestBook(Service):
    """Guests sign in and write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[str] = []
        self.pages = Templates(folder, self)

    @get("/sign-in", access="public")
    async def sign_in_page(self, session: Session = given) -> Response:
        return self.pages.page("sign_in.html", title="Sign in", session=session)

    @post("/sign-in", access="public")
    async def sign_in(self, form: Annotated[SignIn, Form], session: Session = given) -> Response:
        session.sign_in(form.name)
        session.flash(f"Welcome, {form.name}.")
        return redirect(path_for(self.book))

    @post("/sign-out", access="user")
    async def sign_out(self, session: Session = given) -> Response:
        session.clear()
        return redirect(path_for(self.sign_in_page))

    @get("/", access="user")
    async def book(self, session: Session = given, principal: Principal = given) -> Response:
        return self.pages.page(
            "book.html", title="Guest book", entries=self.entries, session=session, principal=principal
        )

    @post("/", access="user")
    async def write(
        self, entry: Annotated[Entry, Form], session: Session = given, principal: Principal = given
    ) -> Response:
        stars = "" if entry.stars is None else " " + "*" * entry.stars
        self.entries.append(f"{principal.subject}: {entry.text}{stars} {entry.tags}")
        session.flash("Thank you.")
        return redirect(path_for(self.book))

    @get("/entries/<int:number>", access="public")
    async def entry(self, number: int) -> str:
        if number >= len(self.entries):
            raise NotFound("There is no such entry.")
        return self.entries[number]

    @post("/photo", access="user")
    async def photo(self, photo: Upload) -> Response:
        return redirect(path_for(self.entry, number=len(photo.content)))

    @mount("/static", access="public")
    def static(self) -> Static:
        return Static(self.folder / "static", cache="public, max-age=60")

    @mount("/old", access="user")
    def old(self) -> Any:
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{environ['PATH_INFO']} in {current_context().operation}".encode()]

        return application

    @mount("/new", access="public")
    def new(self) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 202, "headers": [(b"x-path", scope["path"].encode())]})
            await send({"type": "http.response.body", "body": b"new"})

        return application


@pytest.fixture
def service(tmp_path: Path) -> GuestBook:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "book.css").write_text("body { margin: 0 }")
    for name, text in {"layout.html": LAYOUT, "sign_in.html": SIGN_IN, "book.html": BOOK}.items():
        (tmp_path / name).write_text(text)
    return GuestBook(tmp_path)


@pytest.fixture
def browser(service, served, sessions, running, threads):
    """A browser at the guest book's public listener."""
    mounts = Mounts(service, running, threads, Driver.of(running))
    return served(service, [SessionCookie(sessions)], mounts=mounts, public=True)


async def sign_in(browser: Any, name: str) -> Any:
    page = await browser.ask("GET", "/sign-in")
    return await browser.ask("POST", "/sign-in", data={"name": name, "csrf_token": page.token})


@ensureDeferred
async def test_a_guest_signs_in_and_is_welcomed_once(browser):
    stranger = await browser.ask("GET", "/")
    signed_in = await sign_in(browser, "Zoë")
    first, second = [await browser.ask("GET", "/") for _ in range(2)]

    assert (401, 303, ["/"]) == (stranger.status, signed_in.status, signed_in.headers["location"])
    assert ["text/html; charset=utf-8"] == first.headers["content-type"]
    assert [True, False] == ['<p class="flash">Welcome, Zoë.</p>' in page.text for page in (first, second)]
    assert [True, True] == ["<p>Signed in: Zoë</p>" in page.text for page in (first, second)]


@ensureDeferred
async def test_what_a_guest_writes_is_shown_and_never_run(browser, service):
    await sign_in(browser, "ada")
    page = await browser.ask("GET", "/")

    written = await browser.ask(
        "POST",
        "/",
        data=[("text", "<script>"), ("stars", ""), ("tags", "a"), ("tags", "ü"), ("csrf_token", page.token)],
    )
    shown = await browser.ask("GET", "/")
    entry = await browser.ask("GET", "/entries/0")

    assert (303, ["ada: <script> ['a', 'ü']"]) == (written.status, service.entries)
    assert '<a href="/entries/0">ada: &lt;script&gt; [&#39;a&#39;, &#39;ü&#39;]</a>' in shown.text
    assert ("ada: <script> ['a', 'ü']", 404) == (
        msgspec.json.decode(entry.body),
        (await browser.ask("GET", "/entries/1")).status,
    )


@ensureDeferred
async def test_a_form_that_is_wrong_names_every_field(browser):
    await sign_in(browser, "ada")
    page = await browser.ask("GET", "/")

    wrong = await browser.ask("POST", "/", data={"text": "", "stars": "many", "csrf_token": page.token})

    assert (422, ["/text", "/stars"]) == (
        wrong.status,
        [each["pointer"] for each in msgspec.json.decode(wrong.body)["errors"]],
    )


@ensureDeferred
async def test_nobody_else_writes_in_a_guests_name(browser, service):
    await sign_in(browser, "ada")
    form = {"text": "eve was here"}

    forged = [
        await browser.ask("POST", "/", data=form),
        await browser.ask("POST", "/", {"Origin": "https://evil.example"}, data=form),
        await browser.ask("POST", "/sign-out", {"Sec-Fetch-Site": "cross-site"}),
    ]

    assert ([403, 403, 403], []) == ([reply.status for reply in forged], service.entries)


@ensureDeferred
async def test_a_file_is_sent_with_the_token_beside_it(browser):
    await sign_in(browser, "ada")
    page = await browser.ask("GET", "/")

    sent = await browser.ask(
        "POST", "/photo", data={"csrf_token": page.token}, files={"photo": ("ich.png", "image/png", b"12345")}
    )

    assert (303, ["/entries/5"]) == (sent.status, sent.headers["location"])


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"]
)
@ensureDeferred
async def test_a_broken_form_is_a_problem(browser, content_type):
    await sign_in(browser, "ada")

    broken = await browser.ask("POST", "/photo", {"Content-Type": content_type}, data=b"--cut\r\n\r\n--cut--\r\n")

    assert (400, ["application/problem+json"]) == (broken.status, broken.headers["content-type"])


@ensureDeferred
async def test_who_signs_out_is_a_stranger_again(browser):
    await sign_in(browser, "ada")

    out = await browser.ask("POST", "/sign-out")
    after = await browser.ask("GET", "/")

    assert (303, ["/sign-in"], {}, 401) == (out.status, out.headers["location"], browser.cookies, after.status)


@ensureDeferred
async def test_files_and_foreign_applications_are_beside_the_pages(browser):
    before = await browser.ask("GET", "/old/page")
    await sign_in(browser, "ada")
    css, old, new = [await browser.ask("GET", path) for path in ("/static/book.css", "/old/page", "/new/page?x=1")]

    assert 401 == before.status
    assert (b"body { margin: 0 }", ["public, max-age=60"]) == (css.body, css.headers["cache-control"])
    assert (200, "/page in guest-book.old") == (old.status, old.text)
    assert (202, "new", ["/new/page"]) == (new.status, new.text, new.headers["x-path"])


@ensureDeferred
async def test_all_of_it_works_without_a_system_around_it(service, listen):
    browser = listen(service.resource())

    await sign_in(browser, "ada")
    page, css, old, new = [
        await browser.ask("GET", path) for path in ("/", "/static/book.css", "/old/page", "/new/page")
    ]

    assert ["guest-book-session"] == list(browser.cookies)
    assert "Welcome, ada." in page.text
    assert [200, 200, 202] == [css.status, old.status, new.status]


def test_an_operation_is_called_in_a_test_with_a_session_made_by_hand(service):
    session = Session({"theme": "dark"})

    with pytest.raises(StopIteration) as done:  # it waits for nothing
        service.sign_in(SignIn("ada"), session).send(None)

    assert redirect("/") == done.value.value
    assert ("ada", ["Welcome, ada."], {"theme": "dark"}) == (session.subject, session.flashes(), dict(session))


@pytest.mark.slow
def test_what_pages_need_is_imported_without_a_reactor_and_without_klein():
    code = "import sys, ropewalk.http.pages; print(*{'klein', 'twisted.internet.reactor'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)

    assert (0, "\n", "") == (done.returncode, done.stdout, done.stderr)
