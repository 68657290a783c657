"""Forms that only our own pages can send."""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec
import pytest

from ropewalk import Forbidden, Form, Response, Service, Upload, get, given, post
from ropewalk.http.csrf import check_site, field, token
from ropewalk.http.sessions import Session, Sessions

SECRET = "a secret that only tests know"
CROSS = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=cut"}


class Transfer(msgspec.Struct):
    to: str


class Bank(Service):
    """Has forms."""

    @get("/form")
    async def form(self, session: Session = given) -> Response:
        return Response(str(field(session)), headers=[("content-type", "text/html")])

    @post("/transfer")
    async def transfer(self, form: Annotated[Transfer, Form]) -> str:
        return form.to

    @post("/upload")
    async def upload(self, photo: Upload) -> int:
        return len(photo.content)

    @post("/json")
    async def json(self, transfer: Transfer) -> str:
        return transfer.to

    @post("/rotate")
    async def rotate(self, session: Session = given) -> None:
        session.rotate()


def part(name: str, value: str, filename: str = "") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    return f'--cut\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n'.encode()


# -- the token


def test_a_form_with_the_token_of_its_session_is_taken(browse):
    browser = browse(Bank())
    page = browser.ask("GET", "/form")

    sent = browser.ask("POST", "/transfer", form={"to": "ada", "csrf_token": page.token})

    assert (200, b'"ada"') == (sent.status, sent.body)


def test_a_form_with_a_session_and_no_token_is_refused_with_what_to_do(browse):
    browser = browse(Bank())
    browser.ask("GET", "/form")

    sent = browser.ask("POST", "/transfer", form={"to": "ada"})

    assert {
        "type": "urn:ropewalk:problem:forbidden",
        "title": "Forbidden",
        "status": 403,
        "detail": "This form is not of your session, or no longer: go back, reload the page and send it again.",
    } == msgspec.json.decode(sent.body)


def test_a_token_of_another_session_is_refused(browse):
    mallory, ada = browse(Bank()), browse(Bank())
    stolen = mallory.ask("GET", "/form").token
    ada.ask("GET", "/form")

    assert 403 == ada.ask("POST", "/transfer", form={"to": "mallory", "csrf_token": stolen}).status


def test_a_token_of_before_the_session_got_a_new_id_is_refused(browse):
    browser = browse(Bank())
    old = browser.ask("GET", "/form").token

    browser.ask("POST", "/rotate")

    assert 403 == browser.ask("POST", "/transfer", form={"to": "ada", "csrf_token": old}).status


def test_a_script_may_say_the_token_in_a_header(browse):
    browser = browse(Bank())
    page = browser.ask("GET", "/form")

    sent = browser.ask("POST", "/transfer", {"X-CSRF-Token": page.token}, form={"to": "ada"})

    assert 200 == sent.status


def test_a_multipart_form_says_it_in_a_field(browse):
    browser = browse(Bank())
    page = browser.ask("GET", "/form")

    file = part("photo", "12345", "me.png")
    without = browser.ask("POST", "/upload", MULTIPART, file + b"--cut--\r\n")
    sent = browser.ask("POST", "/upload", MULTIPART, part("csrf_token", page.token) + file + b"--cut--\r\n")

    assert (403, 200, b"5") == (without.status, sent.status, sent.body)


def test_a_file_is_no_token(browse):
    browser = browse(Bank())
    page = browser.ask("GET", "/form")

    body = part("csrf_token", page.token, "token.txt") + part("photo", "1", "me.png") + b"--cut--\r\n"

    assert 403 == browser.ask("POST", "/upload", MULTIPART, body).status


def test_who_has_no_session_needs_no_token(browse):
    assert 200 == browse(Bank()).ask("POST", "/transfer", form={"to": "ada"}).status


def test_a_cookie_that_is_no_session_any_more_needs_one_all_the_same(browse):
    browser = browse(Bank())
    browser.cookies["session"] = "of another time"

    assert 403 == browser.ask("POST", "/transfer", form={"to": "ada"}).status


def test_tokens_of_one_session_do_not_look_alike_and_all_count(browse):
    browser = browse(Bank())

    tokens = [browser.ask("GET", "/form").token for _ in range(3)]

    sent = [browser.ask("POST", "/transfer", form={"to": "ada", "csrf_token": each}).status for each in tokens]
    assert (3, [200] * 3) == (len({each[:10] for each in tokens}), sent)


def test_asking_for_a_token_keeps_the_session_and_sends_it_once(browse):
    browser = browse(Bank())

    first, second = browser.ask("GET", "/form"), browser.ask("GET", "/form")

    assert (True, False) == ("set-cookie" in first.headers, "set-cookie" in second.headers)


@pytest.mark.parametrize("altered", ["", "x", "AAAA", "é", "=" * 40, "A" * 54, "A" * 56])
def test_what_is_no_token_is_refused(browse, altered):
    browser = browse(Bank())
    browser.ask("GET", "/form")

    assert 403 == browser.ask("POST", "/transfer", form={"to": "ada", "csrf_token": altered}).status


def test_a_token_that_an_older_secret_made_counts_while_that_secret_does(browse, now):
    old = browse(Bank(), sessions=Sessions("the secret that it was before", now, Random(1)))
    page = old.ask("GET", "/form")
    new = browse(Bank(), sessions=Sessions([SECRET, "the secret that it was before"], now, Random(1)))
    new.cookies = old.cookies

    assert 200 == new.ask("POST", "/transfer", form={"to": "ada", "csrf_token": page.token}).status


def test_a_session_made_by_hand_has_a_token_that_no_listener_takes():
    assert "" == token(Session())
    assert '<input type="hidden" name="csrf_token" value="">' == str(field(Session()))


def test_where_there_are_no_sessions_forms_are_taken_from_anywhere(browse):
    assert 200 == browse(Bank(), sessions=None).ask("POST", "/transfer", CROSS, form={"to": "ada"}).status


# -- the site


def test_a_form_of_another_site_is_refused_even_without_a_session(browse):
    sent = browse(Bank()).ask("POST", "/transfer", CROSS, form={"to": "mallory"})

    assert (403, True) == (sent.status, "https://evil.example" in sent.text)


def test_what_is_no_form_is_refused_from_another_site_when_a_session_comes_along(browse):
    browser = browse(Bank())
    without = browser.ask("POST", "/json", CROSS, b'{"to":"mallory"}')
    browser.ask("GET", "/form")

    refused = browser.ask("POST", "/json", CROSS, b'{"to":"mallory"}')
    taken = browser.ask("POST", "/json", {"Sec-Fetch-Site": "same-origin"}, b'{"to":"ada"}')

    assert (200, 403, 200) == (without.status, refused.status, taken.status)


def test_a_page_may_be_reached_from_another_site(browse):
    browser = browse(Bank())
    browser.ask("GET", "/form")

    assert 200 == browser.ask("GET", "/form", CROSS).status


def test_a_site_that_the_runtime_names_may_send_forms(browse, now):
    sessions = Sessions(SECRET, now, Random(1), origins=["https://evil.example"])

    assert 200 == browse(Bank(), sessions=sessions).ask("POST", "/transfer", CROSS, form={"to": "ada"}).status


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://a.example"}, True),
        ({"origin": "http://pages.example"}, True),
        ({"origin": "https://pages.example"}, True),  # a proxy has ended TLS
        ({"origin": "http://pages.example:8080"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "https://bank.example", "sec-fetch-site": "cross-site"}, True),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"])
def test_what_changes_something_is_taken_from_our_own_pages_and_from_programs(headers, ours, method):
    def check() -> None:
        check_site(method, {"host": "pages.example", **headers}, ["https://bank.example"])

    if ours or method in ("GET", "HEAD", "OPTIONS"):
        check()
    else:
        with pytest.raises(Forbidden, match="comes from another site"):
            check()
