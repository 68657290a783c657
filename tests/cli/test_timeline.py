"""A saga's journal as people read it: a row for each entry, and for what is being done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ropewalk.cli.sagas import advice, state, timeline
from ropewalk.runtime.operating import Attempt, SagaWhole, Step

NOON = datetime(2027, 5, 1, 12, tzinfo=UTC)
LATER = NOON.replace(minute=30)


def whole(**said: Any) -> SagaWhole:
    values: dict[str, Any] = {
        "service": "trips",
        "id": "trip-1",
        "saga": "trips.book",
        "state": "running",
        "started": NOON,
        "ended": None,
        "waits": "",
        "until": None,
        "cancelled": False,
        "error": "",
        "arguments": {},
        "result": None,
        "subject": None,
        "request_id": "",
        "steps": [],
        "now": [],
    }
    return SagaWhole(**values | said)


def step(name: str, state: Any = "done", result: Any = None, **said: Any) -> Step:
    values: dict[str, Any] = {"number": 1, "branch": "", "use": 1, "kind": "step", "until": None, "version": "1.0.0"}
    return Step(step=name, state=state, result=result, at=NOON, **values | said)


def attempt(name: str, **said: Any) -> Attempt:
    values: dict[str, Any] = {"branch": "", "use": 1, "attempt": 1, "since": NOON, "error": "", "until": None}
    return Attempt(step=name, **values | said)


def rows(saga: SagaWhole) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in timeline(saga)]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (step("rooms.hold", result={"room": 3}), ("", "✓ rooms.hold", '{"room": 3}')),
        (step("rooms.hold", use=2), ("", "✓ rooms.hold (2)", "")),
        (step("_note", kind="transaction", result=7), ("", "✓ _note (transaction)", "7")),
        (
            step("money.charge", "failed", {"title": "Too dear", "detail": "120 is more than 100."}),
            ("", "✗ money.charge", "Too dear: 120 is more than 100."),
        ),
        (
            step("sleep", "begun", kind="sleep", branch="race:1/1", until=LATER),
            ("race:1/1", "… sleep", "until 2027-05-01 12:30:00Z"),
        ),
        (step("race", kind="race", result=0), ("", "✓ race", "branch race:1/0 was first")),
        (
            step("race", kind="race", result=1, branch="gather:1/0"),
            ("gather:1/0", "✓ race", "branch gather:1/0/race:1/1 was first"),
        ),
        (step("write", result="a" * 400), ("", "✓ write", f'"{"a" * 299}… (402 characters; --json has all)')),
    ],
)
def test_an_entry_is_a_row(entry: Step, expected: tuple[str, ...]):
    assert [("2027-05-01 12:00:00Z", *expected)] == rows(whole(steps=[entry]))


@pytest.mark.parametrize(
    ("trying", "expected"),
    [
        (attempt("rooms.hold"), "asked since 2027-05-01 12:00:00Z, no answer yet"),
        (
            attempt("rooms.hold", attempt=5, error="Unavailable: nobody is there"),
            "asked 5 times since 2027-05-01 12:00:00Z; the last time: Unavailable: nobody is there",
        ),
        (attempt("rooms.hold", since=None), "waits"),
        (attempt("rooms.hold", since=None, until=LATER), "waits until 2027-05-01 12:30:00Z"),
    ],
)
def test_what_is_being_done_is_a_row_that_says_how_it_goes(trying: Attempt, expected: str):
    assert [("now", "", "… rooms.hold", expected)] == rows(whole(now=[trying]))


def test_a_wait_that_stands_in_the_journal_is_not_said_twice():
    saga = whole(
        steps=[step("sleep", "begun", kind="sleep", until=LATER)], now=[attempt("sleep", since=None, until=LATER)]
    )

    assert [("2027-05-01 12:00:00Z", "", "… sleep", "until 2027-05-01 12:30:00Z")] == rows(saga)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "running"),
        ({"waits": "approved"}, "waiting"),
        ({"waits": "approved", "cancelled": True}, "is undone"),
        ({"state": "parked"}, "parked"),
        ({"state": "completed", "cancelled": True}, "completed"),
    ],
)
def test_a_state_is_a_word(said: dict[str, Any], expected: str):
    assert expected == state(whole(**said))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ""),
        ({"waits": "sleep of race:1/1"}, ""),
        ({"waits": "saga trip-1~home"}, ""),
        (
            {"waits": "approved (2) of race:1/0, sleep of race:1/1"},
            "To tell it what it waits for: `ropewalk sagas signal system.toml trip-1 approved [JSON]`.",
        ),
        (
            {"waits": "approved, refused"},
            "To tell it what it waits for: `ropewalk sagas signal system.toml trip-1 NAME [JSON]`.",
        ),
        (
            {"state": "parked"},
            "Once that is mended: `ropewalk sagas retry system.toml trip-1`. "
            "To undo what it did: `ropewalk sagas cancel system.toml trip-1`.",
        ),
    ],
)
def test_it_is_said_what_may_be_done(said: dict[str, Any], expected: str):
    assert expected == advice(whole(**said), "system.toml")
