"""The authenticators of this house keep what every authenticator keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from ropewalk import Principal
from ropewalk.http.auth import LEEWAY, BearerJWT, SessionCookie
from ropewalk.http.identity import LEEWAY as BETWEEN_SIBLINGS
from ropewalk.http.identity import LIFE, Identity, SiblingIdentity
from ropewalk.http.sessions import MAX_AGE, Session, Sessions
from ropewalk.testing.contracts import AuthenticatorContract

SECRET = "a secret that only tests know"
OTHER = "another secret of another system"
NOW = 1_800_000_000

Metadata = Mapping[str, str]


def making(authenticator: Any) -> Callable[[], Awaitable[Any]]:
    async def make() -> Any:
        return authenticator

    return make


class TestSiblingIdentity(AuthenticatorContract):
    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        return making(SiblingIdentity(SECRET, "hotels", lambda: NOW))

    def valid(self) -> tuple[Metadata, Principal]:
        principal = Principal("booking-ui", "ada", frozenset({"read", "book"}))
        return self._said(), principal

    def forged(self) -> Mapping[str, Metadata]:
        return {"signed by another": self._said(secret=OTHER), "for another": self._said(callee="payments")}

    def expired(self) -> Metadata:
        return self._said(now=NOW - LIFE - BETWEEN_SIBLINGS)

    def _said(self, secret: str = SECRET, callee: str = "hotels", now: float = NOW) -> Metadata:
        ada = Principal(None, "ada", frozenset({"read", "book"}))
        return {"ropewalk-identity": Identity(secret, "booking-ui", lambda: now).token(callee, ada)}


class TestBearerJWT(AuthenticatorContract):
    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        return making(BearerJWT(SECRET, lambda: NOW, issuer="https://ours.example", audience="hotel"))

    def valid(self) -> tuple[Metadata, Principal]:
        return self._said(scope="read book"), Principal(None, "ada", frozenset({"read", "book"}))

    def forged(self) -> Mapping[str, Metadata]:
        return {
            "signed by another": self._said(key=OTHER),
            "of another issuer": self._said(iss="https://evil.example"),
            "for another": self._said(aud="bank"),
            "without an end": self._said(exp=None),
            "not valid yet": self._said(nbf=NOW + LEEWAY + 1),
        }

    def expired(self) -> Metadata:
        return self._said(exp=NOW - int(LEEWAY))

    def _said(self, key: str = SECRET, **claims: Any) -> Metadata:
        said = {"sub": "ada", "exp": NOW + 60, "iss": "https://ours.example", "aud": "hotel", **claims}
        present = {name: value for name, value in said.items() if value is not None}
        return {"authorization": f"Bearer {jwt.encode({'alg': 'HS256'}, present, OctKey.import_key(key))}"}


class TestSessionCookie(AuthenticatorContract):
    refuses = False

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        return making(SessionCookie(self._sessions()))

    def valid(self) -> tuple[Metadata, Principal]:
        return self._said(self._sessions()), Principal(None, "ada", frozenset({"read"}))

    def forged(self) -> Mapping[str, Metadata]:
        return {"signed by another": self._said(self._sessions(OTHER))}

    def expired(self) -> Metadata:
        return self._said(self._sessions(now=NOW - MAX_AGE - 1))

    def _sessions(self, secret: str = SECRET, now: float = NOW) -> Sessions:
        return Sessions(secret, lambda: now, Random(1))

    def _said(self, sessions: Sessions) -> Metadata:
        session = Session(subject="ada", scopes=["read"], sessions=sessions)
        return {"cookie": sessions._cookie(session, False).partition(";")[0]}
