"""What services say to each other of who they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey
from zope.interface.verify import verifyObject

from ropewalk import Principal, Service, Unauthorized, get, given
from ropewalk.http.identity import LEEWAY, LIFE, Identity, SiblingIdentity
from ropewalk.http.keys import keys_of
from ropewalk.interfaces import IAuthenticator

SECRET = "a secret that only tests know"
OLD_SECRET = "the secret that it was before"
ADA = Principal(None, "ada", frozenset({"read", "book"}))


def read(token: str | None, now: Any, service: str = "hotels", secrets: Any = SECRET) -> Principal | None:
    metadata = {} if token is None else {"ropewalk-identity": token}
    return answered(SiblingIdentity(secrets, service, now).authenticate(metadata))


def answered(coroutine: Any) -> Any:
    """What a coroutine that waits for nothing returns or raises."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def test_a_callee_learns_which_service_asks_and_for_whom(now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", ADA)

    assert Principal("booking-ui", "ada", frozenset({"read", "book"})) == read(token, now)


def test_a_service_may_ask_for_itself(now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", Principal())

    assert Principal("booking-ui") == read(token, now)


def test_what_a_principal_says_of_a_service_is_not_passed_on(now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", Principal("someone-else", "ada"))

    assert Principal("booking-ui", "ada") == read(token, now)


def test_the_token_is_a_jwt_that_other_languages_can_read(now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", ADA)

    assert {
        "iss": "booking-ui",
        "aud": "hotels",
        "sub": "ada",
        "scopes": ["book", "read"],
        "iat": int(now()),
        "exp": int(now()) + LIFE,
    } == jwt.decode(token, OctKey.import_key(keys_of(SECRET, "identity")[0]), ["HS256"]).claims


def test_who_says_nothing_is_nobody(now):
    assert read(None, now) is None


def test_a_token_for_another_service_is_refused(now):
    token = Identity(SECRET, "booking-ui", now).token("payments", ADA)

    with pytest.raises(Unauthorized, match=r"The calling service's token is not valid here\."):
        read(token, now, "hotels")


def test_a_token_of_another_system_is_refused(now):
    token = Identity("the secret of another system", "booking-ui", now).token("hotels", ADA)

    with pytest.raises(Unauthorized):
        read(token, now)


def test_a_token_is_worth_nothing_after_a_minute_and_what_clocks_differ_by(now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", ADA)

    now.time += LIFE + LEEWAY - 1
    assert read(token, now) is not None

    now.time += 1
    with pytest.raises(Unauthorized):
        read(token, now)


def test_a_session_key_of_the_same_secret_signs_no_identity(now):
    claims = {"iss": "booking-ui", "aud": "hotels", "exp": int(now()) + LIFE}
    forged = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(keys_of(SECRET, "session")[0]))

    with pytest.raises(Unauthorized):
        read(forged, now)


def test_secrets_are_changed_one_service_after_the_other(now):
    old, new = Identity(OLD_SECRET, "a", now), Identity([SECRET, OLD_SECRET], "b", now)

    read_by_new = [read(each.token("hotels", ADA), now, secrets=[SECRET, OLD_SECRET]) for each in (old, new)]

    assert ["a", "b"] == [principal.service for principal in read_by_new]
    with pytest.raises(Unauthorized):
        read(old.token("hotels", ADA), now, secrets=SECRET)


@drawn(st.text(max_size=100))
def test_whatever_a_stranger_sends_is_refused(value):
    with pytest.raises(Unauthorized):
        read(value, lambda: 1_800_000_000.0)


def test_it_is_an_authenticator(now):
    assert verifyObject(IAuthenticator, SiblingIdentity(SECRET, "hotels", now))


# -- tokens are kept


def test_a_token_is_used_for_half_of_its_life(now):
    identity = Identity(SECRET, "booking-ui", now)
    first = identity.token("hotels", ADA)

    now.time += LIFE / 2 - 0.1
    assert first is identity.token("hotels", ADA)

    now.time += 0.1
    assert first != identity.token("hotels", ADA)


def test_a_clock_that_is_set_back_makes_a_new_one(now):
    identity = Identity(SECRET, "booking-ui", now)
    identity.token("hotels", ADA)

    now.time -= 3600
    token = identity.token("hotels", ADA)

    assert "ada" == read(token, now).subject


def test_there_is_one_for_each_callee_and_principal(now):
    identity = Identity(SECRET, "booking-ui", now)

    tokens = {
        identity.token(callee, principal)
        for callee in ("hotels", "payments")
        for principal in (ADA, Principal(None, "ada"), Principal(None, "eve"))
    }

    assert 6 == len(tokens)


def test_only_so_many_are_kept_those_that_were_asked_for_last(now):
    identity = Identity(SECRET, "booking-ui", now, cached=2)
    kept = identity.token("hotels", ADA)
    identity.token("hotels", Principal(None, "eve"))

    assert kept is identity.token("hotels", ADA)
    identity.token("hotels", Principal(None, "mallory"))

    assert kept is identity.token("hotels", ADA)
    assert "<Identity of booking-ui, 2 tokens>" == repr(identity)


def test_a_token_that_was_verified_once_is_only_looked_up(now):
    siblings = SiblingIdentity(SECRET, "hotels", now)
    tokens = [Identity(SECRET, "booking-ui", now).token("hotels", ADA) for _ in range(2)]

    first, second = (answered(siblings.authenticate({"ropewalk-identity": token})) for token in tokens)

    assert first is second


def test_one_that_was_verified_once_ends_when_it_ends(now):
    siblings = SiblingIdentity(SECRET, "hotels", now)
    metadata = {"ropewalk-identity": Identity(SECRET, "booking-ui", now).token("hotels", ADA)}

    answered(siblings.authenticate(metadata))
    now.time += LIFE + LEEWAY
    with pytest.raises(Unauthorized):
        answered(siblings.authenticate(metadata))


def test_only_so_many_are_remembered_and_the_others_verified_again(now):
    siblings = SiblingIdentity(SECRET, "hotels", now, cached=1)
    identity = Identity(SECRET, "booking-ui", now)
    metadata = [{"ropewalk-identity": identity.token("hotels", Principal(None, each))} for each in ("ada", "eve")]

    found = [answered(siblings.authenticate(each)) for each in (*metadata, *metadata)]

    assert ["ada", "eve", "ada", "eve"] == [principal.subject for principal in found]
    assert found[0] is not found[2]


# -- over the wire


class Hotels(Service):
    """Is asked."""

    @get("/whoami", access="public")
    async def whoami(self, principal: Principal = given) -> list[str | None]:
        return [principal.service, principal.subject]

    @get("/inside")
    async def inside(self) -> str:
        return "inside"


def test_siblings_are_known_on_an_internal_listener_and_nobody_is_on_a_public_one(browse, now):
    token = Identity(SECRET, "booking-ui", now).token("hotels", ADA)
    authenticators = [SiblingIdentity(SECRET, "hotels", now)]

    replies = [
        browse(Hotels(), authenticators, public=public).ask("GET", "/whoami", {"Ropewalk-Identity": said})
        for public in (False, True)
        for said in (token, "forged")
    ]

    assert [
        (200, b'["booking-ui","ada"]'),
        (401, True),
        (200, b"[null,null]"),
        (200, b"[null,null]"),
    ] == [(reply.status, reply.body if reply.status == 200 else bool(reply.body)) for reply in replies]
