"""The tree of errors: what each says of itself, how services add to it, how it survives a process boundary."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from ropewalk import errors
from ropewalk.errors import Conflict, RopewalkError, Unavailable


@pytest.fixture(autouse=True)
def _the_registry_is_as_before() -> Iterator[None]:
    before = dict(RopewalkError.registry)
    yield
    RopewalkError.registry.clear()
    RopewalkError.registry.update(before)


PROBLEM = "urn:ropewalk:problem:"


@pytest.mark.parametrize(
    ("name", "status", "type", "title", "fault", "ran", "retryable"),
    [
        ("RopewalkError", 500, "internal-server-error", "Internal Server Error", "callee", "maybe", False),
        ("BadRequest", 400, "bad-request", "Bad request", "caller", "no", False),
        ("Unauthorized", 401, "unauthorized", "Unauthorized", "caller", "no", False),
        ("Forbidden", 403, "forbidden", "Forbidden", "caller", "no", False),
        ("NotFound", 404, "not-found", "Not found", "caller", "no", False),
        ("MethodNotAllowed", 405, "method-not-allowed", "Method not allowed", "caller", "no", False),
        ("NotAcceptable", 406, "not-acceptable", "Not acceptable", "caller", "no", False),
        ("Conflict", 409, "conflict", "Conflict", "caller", "no", False),
        ("Gone", 410, "gone", "Gone", "caller", "no", False),
        ("ContentTooLarge", 413, "content-too-large", "Content too large", "caller", "no", False),
        ("UnsupportedMediaType", 415, "unsupported-media-type", "Unsupported media type", "caller", "no", False),
        ("Unprocessable", 422, "unprocessable", "Unprocessable", "caller", "no", False),
        ("TooManyRequests", 429, "too-many-requests", "Too many requests", "caller", "no", True),
        ("Unavailable", 503, "unavailable", "Unavailable", "callee", "maybe", False),
        ("DeadlineExceeded", 504, "deadline-exceeded", "Deadline exceeded", "callee", "maybe", False),
    ],
)
def test_each_error_answers_the_three_questions(name, status, type, title, fault, ran, retryable):
    cls = getattr(errors, name)

    assert (cls.status, cls.type, cls.title) == (status, PROBLEM + type, title)
    assert (cls.fault, cls.ran, cls.retryable) == (fault, ran, retryable)
    assert RopewalkError.registry[cls.type] is cls


def test_every_error_says_when_it_is_raised():
    told = {name: cls.__doc__ for name, cls in vars(errors).items() if isinstance(cls, type) and cls.__doc__}

    assert [name for name, doc in told.items() if issubclass(getattr(errors, name), Exception)] != []
    assert [
        name
        for name, doc in told.items()
        if issubclass(getattr(errors, name), Exception) and not doc.startswith("Raised when")
    ] == []


def test_what_it_was_made_of_is_what_it_holds():
    error = Conflict("Taken.", headers=[("retry-after", "3")], room=12, kind="double")

    assert (error.detail, str(error), error.members) == ("Taken.", "Taken.", {"room": 12, "kind": "double"})
    assert (error.status, error.headers) == (409, (("retry-after", "3"),))
    assert repr(error) == "<Conflict 409 'Taken.' fault=caller ran=no>"


def test_a_status_of_its_own_leaves_the_class_as_it_is():
    assert (Unavailable("down", status=502).status, Unavailable.status) == (502, 503)


def test_a_subclass_has_a_type_and_a_title_made_of_its_name():
    class HTTPRoomSoldOut(Conflict):
        """Raised when no room is left."""

    assert (HTTPRoomSoldOut.type, HTTPRoomSoldOut.title) == (PROBLEM + "http-room-sold-out", "Http room sold out")
    assert (HTTPRoomSoldOut.status, HTTPRoomSoldOut.fault) == (409, "caller")
    assert RopewalkError.registry[HTTPRoomSoldOut.type] is HTTPRoomSoldOut


def test_a_subclass_may_say_its_type_and_title_itself():
    class SoldOut(Conflict, type="https://hotel.example/sold-out", title="No room is left"):
        """Raised when no room is left."""

    assert (SoldOut.type, SoldOut.title) == ("https://hotel.example/sold-out", "No room is left")
    assert RopewalkError.registry["https://hotel.example/sold-out"] is SoldOut


def test_an_error_crosses_a_process_boundary_whole():
    error = Unavailable("down", status=502, headers=[("retry-after", "3")], cause="db")
    error.ran = "no"
    error.retryable = True

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is Unavailable
    assert vars(copy) == vars(error)
    assert copy.args == error.args == ("down",)
    assert Unavailable.ran == "maybe"


class Priced(Conflict):
    """Raised when the price changed; made of numbers, not of a detail."""

    def __init__(self, old: int, new: int) -> None:
        super().__init__(f"{old} became {new}", old=old, new=new)


def test_an_error_with_arguments_of_its_own_crosses_too():
    copy = pickle.loads(pickle.dumps(Priced(10, 12)))

    assert (copy.detail, copy.members) == ("10 became 12", {"old": 10, "new": 12})


def test_mistakes_of_who_builds_a_system_are_what_python_calls_them():
    assert issubclass(errors.DeclarationError, TypeError)
    assert issubclass(errors.ConfigurationError, ValueError)
