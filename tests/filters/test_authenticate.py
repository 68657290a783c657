"""Who asks is found out once, from what is believed; and nobody gets in who may not."""

from __future__ import annotations

from typing import Any

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ropewalk.errors import Forbidden, Unauthorized
from ropewalk.filters.authenticate import Authenticate
from ropewalk.handler import compose
from ropewalk.interfaces import IAuthenticator
from ropewalk.message import ANONYMOUS, Principal, Response

ANN = Principal(subject="ann", scopes=frozenset({"read", "pay"}))
BOT = Principal(service="booking-ui", scopes=frozenset({"read"}))


@implementer(IAuthenticator)
class Tokens:
    """Knows who holds which token."""

    def __init__(self, header: str, **holders: Principal) -> None:
        self.headers = (header,)
        self._header = header
        self._holders = holders
        self.asked = 0

    async def authenticate(self, metadata: Any) -> Principal | None:
        self.asked += 1
        token = metadata.get(self._header)
        if token == "forged":
            raise Unauthorized("That token is not one of ours.")
        return self._holders.get(token)


@pytest.fixture
def bearer() -> Tokens:
    return Tokens("authorization", ann=ANN)


@pytest.fixture
def identity() -> Tokens:
    return Tokens("ropewalk-identity", bot=BOT)


def test_the_authenticator_of_these_tests_is_one(bearer):
    assert verifyObject(IAuthenticator, bearer)


# -- who asks


@pytest.mark.parametrize(
    ("metadata", "principal", "asked"),
    [
        ({}, ANONYMOUS, (0, 0)),
        ({"accept": "*/*"}, ANONYMOUS, (0, 0)),
        ({"authorization": "ann"}, ANN, (1, 0)),
        ({"ropewalk-identity": "bot"}, BOT, (1, 1)),
        ({"authorization": "ann", "ropewalk-identity": "bot"}, ANN, (1, 0)),  # the first that knows decides
        ({"authorization": "unknown"}, ANONYMOUS, (1, 1)),
    ],
)
def test_the_first_authenticator_that_knows_the_caller_decides(
    sibling, request_of, start, bearer, identity, metadata, principal, asked
):
    start(compose([Authenticate([bearer, identity])], sibling), request_of(metadata=metadata))

    assert [request.principal for request in sibling.asked] == [principal]
    assert (bearer.asked, identity.asked) == asked


def test_what_must_not_be_believed_is_refused(sibling, request_of, start, bearer):
    outcome = start(compose([Authenticate([bearer])], sibling), request_of(metadata={"authorization": "forged"}))

    assert (type(outcome.result), outcome.result.detail) == (Unauthorized, "That token is not one of ours.")
    assert sibling.asked == []


def test_a_request_of_this_process_keeps_the_principal_of_its_caller(sibling, request_of, start, bearer):
    start(compose([Authenticate([bearer])], sibling), request_of(principal=BOT))

    assert [request.principal for request in sibling.asked] == [BOT]


# -- whether they may

NOBODY = Principal()  # equal to ANONYMOUS, and made by somebody else
SERVICE = Principal(service="booking-ui")


@pytest.mark.parametrize(
    ("access", "scopes", "principal", "refused"),
    [
        ("public", (), ANONYMOUS, None),
        ("siblings", (), ANONYMOUS, None),
        ("siblings", (), SERVICE, None),
        ("user", (), ANN, None),
        ("user", (), ANONYMOUS, Unauthorized),
        ("user", (), SERVICE, Unauthorized),  # a service that speaks for nobody is not a user
        ("user", ("read",), ANN, None),
        ("user", ("admin",), ANN, Forbidden),
        ("siblings", ("read",), BOT, None),
        ("siblings", ("pay",), BOT, Forbidden),
        ("siblings", ("pay",), SERVICE, Forbidden),
        ("siblings", ("pay",), ANONYMOUS, Unauthorized),
        ("siblings", ("pay",), NOBODY, Unauthorized),
        ("public", ("pay", "read"), ANN, None),
        ("public", ("pay", "admin"), ANN, Forbidden),
        ("public", ("pay",), ANONYMOUS, Unauthorized),
    ],
)
def test_who_may_call_what(sibling, request_of, start, access, scopes, principal, refused):
    request = request_of(access=access, scopes=frozenset(scopes), principal=principal)

    outcome = start(compose([Authenticate([])], sibling), request)

    if refused is None:
        assert (outcome.result, sibling.asked) == (Response("done"), [request])
    else:
        assert (type(outcome.result), sibling.asked) == (refused, [])


def test_a_stranger_is_told_how_to_say_who_it_is(sibling, request_of, start):
    outcome = start(compose([Authenticate([])], sibling), request_of(access="user"))

    error = outcome.result
    assert error.detail == "payments.charge needs to know who asks: sign in, or send a bearer token."
    assert error.headers == (("www-authenticate", "Bearer"),)
    assert (error.status, error.fault, error.ran, error.retryable) == (401, "caller", "no", False)


def test_who_is_known_is_told_what_it_lacks(sibling, request_of, start):
    request = request_of(scopes=frozenset({"refund", "admin", "pay"}), principal=ANN)

    error = start(compose([Authenticate([])], sibling), request).result

    assert error.detail == "payments.charge needs the scope admin, refund."
    assert (error.status, error.fault, error.ran) == (403, "caller", "no")
