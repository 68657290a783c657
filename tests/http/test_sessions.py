"""Signed sessions: what goes into the cookie, what comes out of it, and whose word is believed."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey

from ropewalk import Conflict, Response, Service, Stream, get, given, post
from ropewalk.errors import ConfigurationError, RopewalkError
from ropewalk.http.keys import keys_of
from ropewalk.http.redirect import redirect
from ropewalk.http.sessions import MAX_AGE, NOTES, Session, Sessions, Visit

SECRET = "a secret that only tests know"
OLD_SECRET = "the secret that it was before"


class Notebook(Service):
    """Writes down and reads out."""

    @get("/look")
    async def look(self, session: Session = given) -> dict[str, Any]:
        return {"id": session.id, "subject": session.subject, "scopes": sorted(session.scopes), **session}

    @get("/nothing")
    async def nothing(self) -> str:
        return "nothing"

    @get("/ignored")
    async def ignored(self, session: Session = given) -> str:
        return "ignored"

    @post("/put/<name>")
    async def put(self, name: str, value: str, session: Session = given) -> None:
        session[name] = value

    @post("/append")
    async def append(self, value: str, session: Session = given) -> None:
        session.setdefault("list", []).append(value)

    @post("/refused")
    async def refused(self, session: Session = given) -> None:
        session["tries"] = session.get("tries", 0) + 1
        raise Conflict("Not now.")

    @post("/moved")
    async def moved(self, session: Session = given) -> Response:
        session["moved"] = True
        return redirect("/look")

    @get("/streamed")
    async def streamed(self, session: Session = given) -> Stream:
        session["seen"] = True

        async def lines():
            yield "one"

        return Stream(lines(), "text/plain")

    @post("/sign-in")
    async def sign_in(self, name: str, session: Session = given) -> None:
        session.sign_in(name, ["read", "book"])

    @post("/sign-out")
    async def sign_out(self, session: Session = given) -> None:
        session.clear()

    @post("/start-over")
    async def start_over(self, session: Session = given) -> None:
        session.clear()
        session["fresh"] = True

    @post("/flash")
    async def flash(self, message: str, session: Session = given) -> None:
        session.flash(message)

    @get("/flashes")
    async def flashes(self, session: Session = given) -> list[str]:
        return session.flashes()


def contents(value: str) -> dict[str, object]:
    """What a cookie says, to whoever does not ask whether it is true."""
    return msgspec.json.decode(jws.extract_compact(value.encode()).payload)


def signed(content: bytes, secret: str = SECRET, purpose: str = "session") -> str:
    return jws.serialize_compact({"alg": "HS256"}, content, OctKey.import_key(keys_of(secret, purpose)[0]))


# -- over the wire


def test_what_one_request_puts_in_the_next_one_has(browse):
    browser = browse(Notebook())

    put = browser.ask("POST", "/put/colour?value=blau%20%E2%98%82")
    looked = browser.ask("GET", "/look")

    assert 204 == put.status
    assert "blau ☂" == msgspec.json.decode(looked.body)["colour"]


def test_the_cookie_is_for_http_alone_and_for_this_site_and_lasts_two_weeks(browse):
    (cookie,) = browse(Notebook()).ask("POST", "/put/a?value=b").headers["set-cookie"]

    _, *attributes = cookie.split("; ")

    assert ["HttpOnly", "Max-Age=1209600", "Path=/", "SameSite=Lax"] == sorted(attributes)


def test_over_tls_the_cookie_is_for_tls_alone(browse):
    (cookie,) = browse(Notebook(), tls=True).ask("POST", "/put/a?value=b").headers["set-cookie"]

    assert "Secure" in cookie.split("; ")


def test_behind_a_proxy_that_ends_tls_the_runtime_says_that_the_cookie_is_for_tls_alone(browse, now):
    sessions = Sessions(SECRET, now, Random(1), secure=True)

    (cookie,) = browse(Notebook(), sessions=sessions).ask("POST", "/put/a?value=b").headers["set-cookie"]

    assert "Secure" in cookie.split("; ")


def test_the_cookie_holds_the_values_the_time_and_the_id_and_nothing_else(browse, now):
    browser = browse(Notebook())

    browser.ask("POST", "/put/a?value=b")

    assert contents(browser.cookies["session"]) == {
        "id": f"{Random(1).getrandbits(128):032x}",
        "at": int(now()),
        "data": {"a": "b"},
    }


@pytest.mark.parametrize("path", ["/nothing", "/ignored", "/look"])
def test_who_puts_nothing_in_gets_no_cookie(browse, path):
    assert "set-cookie" not in browse(Notebook()).ask("GET", path).headers


def test_what_has_not_changed_is_not_sent_again(browse):
    browser = browse(Notebook())
    browser.ask("POST", "/put/a?value=b")

    looked = browser.ask("GET", "/look")

    assert "set-cookie" not in looked.headers


def test_a_reply_that_looked_at_the_session_says_so_to_caches(browse):
    browser = browse(Notebook())

    assert ["cookie"] == browser.ask("GET", "/look").headers["vary"]
    assert "vary" not in browser.ask("GET", "/nothing").headers


def test_a_change_inside_a_value_is_kept_too(browse):
    browser = browse(Notebook())

    for value in "ab":
        browser.ask("POST", f"/append?value={value}")

    assert {"list": ["a", "b"]} == contents(browser.cookies["session"])["data"]


def test_a_problem_takes_the_session_along(browse):
    browser = browse(Notebook())

    replies = [browser.ask("POST", "/refused") for _ in range(2)]

    assert [409, 409] == [reply.status for reply in replies]
    assert {"tries": 2} == contents(browser.cookies["session"])["data"]


def test_a_redirect_takes_the_session_along(browse):
    browser = browse(Notebook())

    reply = browser.ask("POST", "/moved")

    assert (303, ["/look"]) == (reply.status, reply.headers["location"])
    assert {"moved": True} == contents(browser.cookies["session"])["data"]


def test_a_stream_takes_what_was_put_in_before_it_began(browse):
    browser = browse(Notebook())

    reply = browser.ask("GET", "/streamed")

    assert b"one" == reply.body
    assert {"seen": True} == contents(browser.cookies["session"])["data"]


def test_signing_in_gives_a_new_id_and_keeps_the_rest(browse):
    browser = browse(Notebook())
    browser.ask("POST", "/put/cart?value=3")
    before = contents(browser.cookies["session"])

    browser.ask("POST", "/sign-in?name=ada")

    after = contents(browser.cookies["session"])
    assert after["id"] != before["id"]
    assert after == {**before, "id": after["id"], "subject": "ada", "scopes": ["book", "read"]}


def test_clearing_takes_the_cookie_back(browse):
    browser = browse(Notebook())
    browser.ask("POST", "/sign-in?name=ada")

    (cookie,) = browser.ask("POST", "/sign-out").headers["set-cookie"]

    assert "session=; Max-Age=0; HttpOnly; Path=/; SameSite=Lax" == cookie
    assert {} == browser.cookies


def test_clearing_what_was_never_there_says_nothing(browse):
    assert "set-cookie" not in browse(Notebook()).ask("POST", "/sign-out").headers


def test_what_is_put_in_after_clearing_is_in_a_session_of_its_own(browse):
    browser = browse(Notebook())
    browser.ask("POST", "/sign-in?name=ada")
    before = contents(browser.cookies["session"])

    browser.ask("POST", "/start-over")

    after = contents(browser.cookies["session"])
    assert after["id"] != before["id"]
    assert ({"fresh": True}, None) == (after["data"], after.get("subject"))


def test_a_flash_is_read_once(browse):
    browser = browse(Notebook())
    browser.ask("POST", "/flash?message=one")
    browser.ask("POST", "/flash?message=two")

    read = [msgspec.json.decode(browser.ask("GET", "/flashes").body) for _ in range(2)]

    assert [["one", "two"], []] == read


def test_of_flashes_that_nobody_reads_the_oldest_go(browse):
    browser = browse(Notebook())

    for number in range(NOTES + 2):
        browser.ask("POST", f"/flash?message={number}")

    read = msgspec.json.decode(browser.ask("GET", "/flashes").body)
    assert read == [str(number) for number in range(2, NOTES + 2)]


def test_a_session_too_large_for_a_cookie_is_an_error_where_it_becomes_that(browse):
    browser = browse(Notebook())

    reply = browser.ask("POST", f"/put/a?value={'x' * 4000}")

    assert (500, {}) == (reply.status, browser.cookies)


def test_one_that_became_too_large_inside_a_value_is_told_of_before_the_reply(browse, flush_logged_errors):
    browser = browse(Notebook())

    reply = browser.ask("POST", f"/append?value={'x' * 4000}")

    (logged,) = flush_logged_errors(ValueError)
    assert (500, {}) == (reply.status, browser.cookies)
    assert logged.getErrorMessage().startswith("A session holds 3017 bytes of JSON, this one would have 40")


def test_without_a_secret_no_operation_has_a_session(browse):
    browser = browse(Notebook(), sessions=None)

    assert 500 == browser.ask("GET", "/look").status
    assert 200 == browser.ask("GET", "/nothing").status


# -- whose word is believed


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cookie_with_another_byte_anywhere_is_none(sessions, place):
    value = sessions._cookie(Session({"a": 1}, sessions=sessions), False).partition(";")[0].partition("=")[2]
    parts = value.split(".")
    parts[place] = ("A" if parts[place][3] != "A" else "B").join([parts[place][:3], parts[place][4:]])

    assert {"a": 1} == sessions.read(f"session={value}")
    assert sessions.read(f"session={'.'.join(parts)}") is None


@pytest.mark.parametrize(
    "value",
    [
        signed(b'{"id":"1","at":1800000000}', "some other secret of somebody"),
        signed(b'{"id":"1","at":1800000000}', purpose="form"),
        signed(b'{"at":1800000000}'),
        signed(b"[]"),
        signed(b"no JSON"),
        signed(b'{"id":"1","at":1800000000,"data":[]}'),
        "eyJhbGciOiJub25lIn0.eyJpZCI6IjEiLCJhdCI6MTgwMDAwMDAwMH0.",  # {"alg":"none"}
        "a.b.c",
        "..",
        "",
        '"quoted"',
        "x" * 5000,
    ],
)
def test_what_we_did_not_sign_is_no_session(sessions, value):
    assert sessions.read(f"other=1; session={value}") is None


@pytest.mark.slow
@drawn(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=200))
@example("eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYiJdfQ.e30.AAAA")
@settings(max_examples=200)
def test_whatever_a_stranger_sends_is_no_session_and_no_error(value):
    sessions = Sessions(SECRET, lambda: 1_800_000_000.0, Random(1))

    assert sessions.read(f"session={value}") is None


def test_no_header_and_a_header_without_it_hold_no_session(sessions):
    assert [None] * 5 == [sessions.read(header) for header in (None, "", "other=1", "session", ";;")]


@pytest.mark.parametrize(
    ("age", "believed"),
    [(0, True), (MAX_AGE - 1, True), (MAX_AGE, False), (-60, True), (-61, False)],
)
def test_a_session_is_believed_until_it_is_too_old_and_not_before_its_time(sessions, now, age, believed):
    cookie = sessions._cookie(Session({"a": 1}, sessions=sessions), False)

    now.time += age

    assert (sessions.read(cookie.partition(";")[0]) is not None) is believed


def test_a_session_in_use_is_written_anew_when_half_its_time_is_over(browse, now):
    browser = browse(Notebook())
    browser.ask("POST", "/put/a?value=b")

    now.time += MAX_AGE / 2
    early = browser.ask("GET", "/look")
    now.time += 1
    late = browser.ask("GET", "/look")

    assert "set-cookie" not in early.headers
    assert "set-cookie" in late.headers
    assert int(now()) == contents(browser.cookies["session"])["at"]


def test_what_an_older_secret_signed_is_believed_and_signed_by_the_newest(browse, now):
    browser = browse(Notebook(), sessions=Sessions(OLD_SECRET, now, Random(1)))
    browser.ask("POST", "/put/a?value=b")
    after = browse(Notebook(), sessions=Sessions([SECRET, OLD_SECRET], now, Random(1)))
    after.cookies = browser.cookies

    looked = after.ask("GET", "/look")

    assert "b" == msgspec.json.decode(looked.body)["a"]
    assert {"a": "b"} == Sessions(SECRET, now, Random(1)).read(f"session={after.cookies['session']}")


def test_once_a_secret_is_gone_what_it_signed_is_nothing(now):
    cookie = Sessions(OLD_SECRET, now, Random(1))._cookie(Session({"a": 1}), False)

    assert Sessions(SECRET, now, Random(1)).read(cookie.partition(";")[0]) is None


def test_services_on_one_host_have_cookies_of_their_own(now):
    one = Sessions(SECRET, now, Random(1), name="one-session")
    other = Sessions(SECRET, now, Random(1), name="other-session")

    cookie = one._cookie(Session({"a": 1}, sessions=one), False).partition(";")[0]

    assert ({"a": 1}, None) == (one.read(cookie), other.read(cookie))


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ([], "Expected 1 to 8 secrets, the newest first; got 0."),
        ([SECRET] * 9, "Expected 1 to 8 secrets, the newest first; got 9."),
        ("short", "Secret 1 of 1 has 5 bytes, and 16 are needed; make one with"),
        ([SECRET, "short"], "Secret 2 of 2 has 5 bytes, and 16 are needed; make one with"),
    ],
)
def test_secrets_that_could_be_guessed_are_refused(secrets, message, now):
    with pytest.raises(ConfigurationError) as refused:
        Sessions(secrets, now, Random(1))

    assert str(refused.value).startswith(message)


# -- a mapping


def test_a_session_made_by_hand_is_a_mapping_with_a_subject():
    session = Session({"cart": [3]}, subject="ada", scopes=["read"])

    session["seen"] = True
    del session["cart"]

    assert ({"seen": True}, "ada", {"read"}, "") == (dict(session), session.subject, session.scopes, session.id)


def test_a_value_becomes_what_json_makes_of_it_at_once():
    session = Session()

    session["day"] = (
        date(2027, 5, 1),
        {
            "a",
        },
    )

    assert ["2027-05-01", ["a"]] == session["day"]


def test_a_value_without_a_form_in_json_is_refused_where_it_is_put_in():
    with pytest.raises(TypeError, match="object"):
        Session()["x"] = object()


def test_a_session_shows_its_names_and_not_its_values():
    assert "<Session of ada: card>" == repr(Session({"card": "4111"}, subject="ada"))
    assert "<Session of nobody: empty>" == repr(Session())


def test_the_largest_session_fits_into_the_cookie_that_every_browser_keeps(sessions):
    session = Session(sessions=sessions)
    session["x"] = ""
    room = sessions._room - len(sessions.content_of(session))

    session["x"] = "x" * room
    cookie = sessions._cookie(session, False).partition(";")[0]

    assert 4092 <= len(cookie) <= 4096
    with pytest.raises(ValueError, match="keep what is large in the database"):
        session["x"] = "x" * (room + 1)


def test_a_session_is_written_once(sessions):
    visit = Visit(sessions, None)
    visit.session["a"] = 1
    head = Head()

    visit.write(head)
    visit.write(head)

    assert [b"vary", b"set-cookie"] == [name for name, _ in head.raw]


def test_one_that_cannot_be_kept_is_not_tried_again(sessions, flush_logged_errors):
    visit = Visit(sessions, None)
    visit.session["a"] = []
    visit.session["a"].append(object())
    head = Head()

    with pytest.raises(RopewalkError, match="could not be kept"):
        visit.write(head)
    visit.write(head)

    assert [TypeError] == [failure.type for failure in flush_logged_errors()]
    assert [b"vary"] == [name for name, _ in head.raw]


class Head:
    """A reply's head."""

    def __init__(self) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        self.responseHeaders = self

    def addRawHeader(self, name: bytes, value: bytes) -> None:
        self.raw.append((name, value))

    def isSecure(self) -> bool:
        return False
