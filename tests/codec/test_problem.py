"""Errors <-> problem documents: RFC 9457 out, the same class in."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from ropewalk import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Gone,
    NotFound,
    RopewalkError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from ropewalk.codec.problem import CONTENT_TYPE, from_problem, to_problem
from ropewalk.errors import ContentTooLarge, MethodNotAllowed, NotAcceptable, UnsupportedMediaType


class RoomTaken(Conflict, type="https://hotel.example/problems/room-taken", title="The room is taken"):
    """Raised when somebody was quicker."""

    def __init__(self, room: int, until: date) -> None:
        super().__init__(f"Room {room} is taken.", room=room, until=until)


class OtherRoomTaken(Conflict, type=RoomTaken.type):
    """Raised by another service, under the same type: the last one that was defined is in the registry."""


BUILT_IN = [
    *[BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, Gone, ContentTooLarge],
    *[UnsupportedMediaType, Unprocessable, TooManyRequests, RopewalkError, Unavailable, DeadlineExceeded],
]


def encoded(problem: Any) -> bytes:
    return msgspec.json.encode(problem)


def facts(error: RopewalkError) -> tuple[Any, ...]:
    return (
        type(error),
        error.status,
        error.detail,
        error.members,
        error.headers,
        error.fault,
        error.ran,
        error.retryable,
    )


def test_a_problem_says_type_title_status_detail_and_members():
    assert {
        "type": "https://hotel.example/problems/room-taken",
        "title": "The room is taken",
        "status": 409,
        "detail": "Room 7 is taken.",
        "room": 7,
        "until": date(2027, 5, 1),
    } == to_problem(RoomTaken(7, date(2027, 5, 1)))


def test_a_problem_without_detail_has_none():
    assert {"type": "urn:ropewalk:problem:not-found", "title": "Not found", "status": 404} == to_problem(NotFound())


def test_a_member_cannot_pass_for_what_the_document_itself_says():
    assert "urn:ropewalk:problem:conflict" == to_problem(Conflict("x", type="forged", title="forged"))["type"]


def test_outside_the_system_a_failure_tells_nothing_and_a_refusal_everything():
    failure, refusal = Unavailable("db-7 is down", cause="disk"), Conflict("Taken.", room=7)

    assert {"type": Unavailable.type, "title": "Unavailable", "status": 503} == to_problem(failure, redact=True)
    assert to_problem(refusal) == to_problem(refusal, redact=True)


@pytest.mark.parametrize("cls", BUILT_IN)
def test_each_error_comes_back_as_itself(cls):
    error = cls("why", also=[1, {"two": None}])

    back = from_problem(error.status, encoded(to_problem(error)), ran=error.ran)

    assert facts(error) == facts(back)


def test_an_error_with_a_status_of_its_own_keeps_it():
    back = from_problem(502, encoded(to_problem(Unavailable("x", status=502))))

    assert (Unavailable, 502) == (type(back), back.status)


def test_a_class_with_arguments_of_its_own_comes_back_without_them():
    back = from_problem(409, encoded(to_problem(RoomTaken(7, date(2027, 5, 1)))), [RoomTaken])

    assert (RoomTaken, "Room 7 is taken.", {"room": 7, "until": "2027-05-01"}) == (
        type(back),
        back.detail,
        back.members,
    )


def test_of_two_classes_with_one_type_the_declared_one_is_meant():
    body = encoded(to_problem(RoomTaken(7, date(2027, 5, 1))))

    assert (RoomTaken, OtherRoomTaken) == (type(from_problem(409, body, [RoomTaken])), type(from_problem(409, body)))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *[(cls.status, cls) for cls in BUILT_IN if cls is not RopewalkError],
        (418, RopewalkError),
        (500, Unavailable),
        (502, Unavailable),
        (507, Unavailable),
    ],
)
def test_a_reply_that_is_no_problem_is_what_its_status_means(status, expected):
    for body in (
        b"",
        b"<html>",
        b"[]",
        b'"x"',
        b"\xff",
        b"{}",
        b'{"type": "about:blank"}',
        b'{"type": 7}',
        b"[" * 100_000,
    ):
        back = from_problem(status, body)

        assert (expected, status, "", {}) == (type(back), back.status, back.detail, back.members)


def test_a_member_may_have_any_name():
    assert {"headers": [], "self": 1, "room kind": 2} == from_problem(
        409, b'{"headers":[],"self":1,"room kind":2}'
    ).members


def test_what_the_document_says_of_the_status_is_not_believed():
    assert 404 == from_problem(404, b'{"status": 200, "detail": "x"}').status


@pytest.mark.parametrize(
    ("cls", "said", "ran", "retryable"),
    [
        (TooManyRequests, "no", "no", True),
        (TooManyRequests, None, "no", True),
        (TooManyRequests, "yes", "yes", False),
        (Unavailable, "no", "no", False),
        (Unavailable, None, "maybe", False),
        (Unavailable, "nonsense", "maybe", False),
        (Conflict, None, "no", False),
        (Conflict, "yes", "yes", False),
    ],
)
def test_whether_it_ran_is_what_the_callee_said(cls, said, ran, retryable):
    back = from_problem(cls.status, encoded(to_problem(cls())), ran=said)

    assert (ran, retryable) == (back.ran, back.retryable)


def test_only_headers_that_a_caller_obeys_come_along():
    headers = [("content-type", CONTENT_TYPE), ("Retry-After", "3"), ("set-cookie", "a=1")]

    assert (("Retry-After", "3"),) == from_problem(429, b"", headers=headers).headers
