"""Who people say they are: bearer tokens and signed-in sessions, and what access and scopes then allow."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from zope.interface.verify import verifyObject

from ropewalk import Principal, Service, Unauthorized, get, given, post
from ropewalk.errors import ConfigurationError
from ropewalk.http.auth import LEEWAY, BearerJWT, SessionCookie
from ropewalk.http.sessions import Session, Sessions
from ropewalk.interfaces import IAuthenticator

SECRET = "a secret that only tests know"
RSA = RSAKey.generate_key(2048, private=True)
EC = ECKey.generate_key("P-256", private=True)
ED = OKPKey.generate_key("Ed25519", private=True)
NOW = 1_800_000_000


def public(key: Any) -> str:
    return key.as_pem(private=False).decode()


def token(key: Any = None, alg: str = "HS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {"sub": "ada", "exp": NOW + 60, **claims}
    present = {name: value for name, value in said.items() if value is not None}
    return jwt.encode({"alg": alg, **(header or {})}, present, key or OctKey.import_key(SECRET), algorithms=[alg])


def answered(coroutine: Any) -> Any:
    """What a coroutine that waits for nothing returns or raises."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def authenticate(authenticator: Any, **metadata: str) -> Principal | None:
    return answered(authenticator.authenticate(metadata))


def bearer(key: Any = SECRET, **options: Any) -> BearerJWT:
    return BearerJWT(key, lambda: NOW, **options)


# -- bearer tokens


def test_a_token_names_its_subject_and_scopes():
    principal = authenticate(bearer(), authorization=f"Bearer {token(scope='read book')}")

    assert Principal(None, "ada", frozenset({"read", "book"})) == principal


SCOPES = {
    "none": ({}, set()),
    "a text": ({"scope": "a b"}, {"a", "b"}),
    "an empty text": ({"scope": ""}, set()),
    "a list": ({"scopes": ["a", "b c"]}, {"a", "b c"}),
}


@pytest.mark.parametrize(("claims", "scopes"), SCOPES.values(), ids=SCOPES)
def test_scopes_are_a_text_or_a_list(claims, scopes):
    assert scopes == authenticate(bearer(), authorization=f"Bearer {token(**claims)}").scopes


FAMILIES = {
    "HS256": (SECRET, OctKey.import_key(SECRET)),
    "HS512": (SECRET, OctKey.import_key(SECRET)),
    "RS256": (public(RSA), RSA),
    "PS256": (public(RSA), RSA),
    "ES256": (public(EC), EC),
    "Ed25519": (public(ED), ED),
}


@pytest.mark.parametrize(("algorithm", "key", "signer"), [(name, *keys) for name, keys in FAMILIES.items()])
def test_each_algorithm_takes_its_kind_of_key(algorithm, key, signer):
    authenticator = bearer(key, algorithms=[algorithm])

    assert "ada" == authenticate(authenticator, authorization=f"Bearer {token(signer, algorithm)}").subject


def test_of_a_set_of_keys_the_token_names_the_one():
    rsa, ec = (type(key).import_key({**key.as_dict(private=True), "kid": kid}) for key, kid in ((RSA, "1"), (EC, "2")))
    keys = {"keys": [key.as_dict(private=False) for key in (rsa, ec)]}
    authenticator = bearer(keys, algorithms=["RS256", "ES256"])

    for signer, algorithm, kid in ((rsa, "RS256", "1"), (ec, "ES256", "2")):
        signed = token(signer, algorithm, {"kid": kid})
        assert "ada" == authenticate(authenticator, authorization=f"Bearer {signed}").subject
    with pytest.raises(Unauthorized):
        authenticate(authenticator, authorization=f"Bearer {token(rsa, 'RS256', {'kid': '3'})}")


REFUSED = {
    "signed by another": token(OctKey.import_key("another secret of another issuer")),
    "with another algorithm": token(OctKey.import_key(SECRET), "HS512"),
    "with none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEiLCJleHAiOjE4MDAwMDAwNjB9.",
    "without an end": token(exp=None),
    "without a subject": token(sub=None),
    "with an empty subject": token(sub=""),
    "with a number for a subject": token(sub=7),
    "not valid yet": token(nbf=NOW + LEEWAY + 1),
    "issued in the future": token(iat=NOW + LEEWAY + 1),
    "of another issuer": token(iss="https://evil.example"),
    "for another audience": token(aud="other"),
    "with scopes that are none": token(scope=7),
    "cut off": token()[:-4],
    "empty": "",
    "no token": "a.b.c",
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_what_must_not_be_believed_is_refused(refused):
    options = {"issuer": "https://ours.example"} if refused == REFUSED["of another issuer"] else {}
    options |= {"audience": "hotel"} if refused == REFUSED["for another audience"] else {}

    with pytest.raises(Unauthorized) as error:
        authenticate(bearer(**options), authorization=f"Bearer {refused}")

    assert "The bearer token is not valid here." == error.value.detail
    assert (
        ("www-authenticate", 'Bearer error="invalid_token", error_description="The token is not valid here"'),
    ) == error.value.headers


def test_a_token_ends_when_it_says_so_and_the_clocks_may_differ_by_half_a_minute():
    ended = token(exp=NOW - int(LEEWAY))

    with pytest.raises(Unauthorized, match=r"The bearer token has expired\."):
        authenticate(bearer(), authorization=f"Bearer {ended}")
    assert authenticate(bearer(leeway=LEEWAY + 1), authorization=f"Bearer {ended}") is not None


def test_issuer_and_audience_are_asked_for_where_they_are_configured():
    authenticator = bearer(issuer="https://ours.example", audience="hotel")
    fitting = token(iss="https://ours.example", aud=["hotel", "bank"])

    assert "ada" == authenticate(authenticator, authorization=f"Bearer {fitting}").subject
    for claims in ({}, {"iss": "https://ours.example"}, {"aud": "hotel"}):
        with pytest.raises(Unauthorized):
            authenticate(authenticator, authorization=f"Bearer {token(**claims)}")


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Basic YTpi"}, {"authorization": ""}, {"cookie": "a=b"}])
def test_what_is_no_bearer_token_is_for_the_next_authenticator(metadata):
    assert authenticate(bearer(), **metadata) is None


def test_the_scheme_may_be_written_as_one_likes():
    assert "ada" == authenticate(bearer(), authorization=f"bEARER  {token()} ").subject


@pytest.mark.slow
@drawn(st.text(max_size=100))
def test_whatever_a_stranger_sends_is_refused(value):
    with pytest.raises(Unauthorized):
        authenticate(bearer(), authorization=f"Bearer {value}")


WRONG_KEYS = {
    "no algorithm": (SECRET, []),
    "the algorithm none": (SECRET, ["none"]),
    "an encryption": (SECRET, ["dir"]),
    "algorithms of two kinds for one key": (public(RSA), ["HS256", "RS256"]),
    "a public key as a secret": (public(RSA), ["HS256"]),
    "a secret as a public key": (SECRET, ["RS256"]),
    "the key of another kind": (public(EC), ["RS256"]),
    "a short secret": ("short", ["HS256"]),
    "no set of keys": ({"kid": "1"}, ["HS256"]),
    "an empty set": ({"keys": []}, ["HS256"]),
}


@pytest.mark.parametrize(("key", "algorithms"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_a_key_that_does_not_fit_its_algorithms_is_refused_at_once(key, algorithms):
    with pytest.raises(ConfigurationError):
        bearer(key, algorithms=algorithms)


# -- sessions


def cookie(session: Session, sessions: Sessions) -> str:
    return sessions._cookie(session, False).partition(";")[0]


def test_a_session_somebody_signed_in_to_names_who_and_what_was_granted(sessions):
    session = Session({"cart": [1]}, subject="ada", scopes=["read"], sessions=sessions)

    principal = authenticate(SessionCookie(sessions), cookie=cookie(session, sessions))

    assert Principal(None, "ada", frozenset({"read"})) == principal


def test_a_session_that_is_nobodys_and_one_that_is_no_more_name_nobody(sessions, now):
    nobodys = cookie(Session({"cart": [1]}, sessions=sessions), sessions)
    adas = cookie(Session(subject="ada", sessions=sessions), sessions)

    now.time += 15 * 86400

    assert [None] * 4 == [
        authenticate(SessionCookie(sessions), **metadata)
        for metadata in ({"cookie": nobodys}, {"cookie": adas}, {"cookie": "session=x"}, {})
    ]


@pytest.mark.parametrize("make", [lambda sessions: bearer(), SessionCookie], ids=["BearerJWT", "SessionCookie"])
def test_they_are_authenticators(make, sessions):
    assert verifyObject(IAuthenticator, make(sessions))


# -- what they are allowed


class Desk(Service):
    """Serves people."""

    @get("/open")
    async def open(self, principal: Principal = given) -> str | None:
        return principal.subject

    @get("/mine", access="user")
    async def mine(self, principal: Principal = given) -> str | None:
        return principal.subject

    @get("/books", access="public", scopes=["read", "audit"])
    async def books(self) -> str:
        return "books"

    @post("/sign-in", access="public")
    async def sign_in(self, name: str, scopes: str = "", session: Session = given) -> None:
        session.sign_in(name, scopes.split())


def test_only_who_is_known_comes_in_where_users_do(browse, sessions):
    browser = browse(Desk(), [SessionCookie(sessions)])

    before = browser.ask("GET", "/mine")
    browser.ask("POST", "/sign-in?name=ada")
    after = browser.ask("GET", "/mine")

    assert (401, ["Bearer"]) == (before.status, before.headers["www-authenticate"])
    assert (200, b'"ada"') == (after.status, after.body)


def test_where_everybody_may_come_in_the_known_are_known(browse, sessions):
    browser = browse(Desk(), [SessionCookie(sessions)])

    before = browser.ask("GET", "/open").body
    browser.ask("POST", "/sign-in?name=ada")

    assert (b"null", b'"ada"') == (before, browser.ask("GET", "/open").body)


def test_a_missing_scope_is_named(browse, sessions):
    browser = browse(Desk(), [SessionCookie(sessions)])

    stranger = browser.ask("GET", "/books")
    browser.ask("POST", "/sign-in?name=ada&scopes=read")
    reader = browser.ask("GET", "/books")
    browser.ask("POST", "/sign-in?name=ada&scopes=read+audit")
    auditor = browser.ask("GET", "/books")

    assert [401, 403, 200] == [stranger.status, reader.status, auditor.status]
    assert "desk.books needs the scope audit." == msgspec.json.decode(reader.body)["detail"]


def test_the_first_authenticator_that_knows_somebody_decides(browse, sessions):
    authenticators = [BearerJWT(SECRET, lambda: NOW), SessionCookie(sessions)]
    browser = browse(Desk(), authenticators)
    browser.ask("POST", "/sign-in?name=eve")

    both = browser.ask("GET", "/mine", {"Authorization": f"Bearer {token()}"})
    other = browser.ask("GET", "/mine", {"Authorization": "Basic YTpi"})

    assert (b'"ada"', b'"eve"') == (both.body, other.body)


def test_a_token_that_is_not_believed_ends_the_matter(browse, sessions):
    browser = browse(Desk(), [BearerJWT(SECRET, lambda: NOW), SessionCookie(sessions)])

    refused = browser.ask("GET", "/open", {"Authorization": "Bearer x"})

    assert 401 == refused.status


def test_on_a_public_listener_only_public_operations_are_there(browse, sessions):
    browser = browse(Desk(), [SessionCookie(sessions)], public=True)

    assert [404, 401] == [browser.ask("GET", path).status for path in ("/open", "/mine")]


def test_sessions_of_another_secret_name_nobody(browse, sessions, now):
    other = Sessions("another secret of another runtime", now, Random(1))
    browser = browse(Desk(), [SessionCookie(other)])
    browser.ask("POST", "/sign-in?name=ada")

    assert 401 == browser.ask("GET", "/mine").status
