"""Failing schedules are kept as files that people and version control can live with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ropewalk.errors import ConfigurationError
from ropewalk.testing.graveyard import bury, cause, exhume, slug
from ropewalk.testing.values import Act, Event, Fault, Outcome, Schedule

BOOKED_TWICE = "No double booking: room 12 has 2 guests, at 31.4 s"


def outcome(broken: str = BOOKED_TWICE, seed: int = 7) -> Outcome:
    schedule = Schedule(seed, 60.0, (Act(1.5, "book", 3),), (Fault(2.0, "crash", "payments/1"),), "liveness")
    return Outcome(schedule, broken, "d1", (), 60.0, {}, {}, {})


def test_what_is_buried_is_exhumed(tmp_path):
    path = bury(tmp_path / "graveyard", outcome())

    assert [(path, outcome().schedule)] == exhume(tmp_path / "graveyard")


def test_a_grave_is_named_by_what_broke_and_the_seed(tmp_path):
    assert "no_double_booking_7.json" == bury(tmp_path, outcome()).name


def test_graves_are_exhumed_by_name(tmp_path):
    for seed in (3, 1, 2):
        bury(tmp_path, outcome(seed=seed))

    assert [1, 2, 3] == [schedule.seed for _, schedule in exhume(tmp_path)]


def test_no_folder_is_an_empty_graveyard(tmp_path):
    assert [] == exhume(tmp_path / "nowhere")


def test_a_grave_is_indented_sorted_and_says_what_broke(tmp_path):
    lines = bury(tmp_path, outcome()).read_text().splitlines()

    assert ["{", f'  "broken": "{BOOKED_TWICE}",', '  "schedule": {', '    "acts": ['] == lines[:4]


def test_burying_again_replaces_the_grave(tmp_path):
    first = bury(tmp_path, outcome())
    content = first.read_bytes()

    assert first == bury(tmp_path, outcome())
    assert content == first.read_bytes()
    assert [first] == list(tmp_path.iterdir())


def test_a_file_that_is_no_grave_is_named(tmp_path):
    (tmp_path / "other.json").write_text("{}")

    with pytest.raises(ConfigurationError, match="other.json is not a schedule of this version: .*Delete it"):
        exhume(tmp_path)


@given(st.text(max_size=500), st.integers())
def test_a_name_is_a_bounded_identifier_whatever_broke(broken, seed):
    name = slug(outcome(broken, seed))

    assert name.isidentifier()
    assert name.isascii()
    assert len(name) < 90


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("At 3.25 s: No double booking: room 12", "No double booking"),
        ("At 3.25 s: room 12 has 2 guests", "room has guests"),
        ("At 3.25 s: 60 s after the last fault book #3, begun at 1.5 s has not ended.", "book begun at has not ended."),
        ("At 3.25 s: 180 s after the last fault: saga 7 is stuck", "saga is stuck"),
        ("At 3.25 s: book #3 failed: KeyError: 'room'", "book failed KeyError"),
        (
            "A failure that nobody caught: payments/1 at 3 s: TypeError: no\nTraceback",
            "A failure that nobody caught TypeError",
        ),
        ("The interpreter died (SIGSEGV): Fatal Python error: no", "The interpreter died (SIGSEGV)"),
        ("", ""),
    ],
)
def test_the_cause_is_what_broke_without_the_particulars(broken, expected):
    assert expected == cause(outcome(broken))


def test_the_cause_is_the_invariant_where_one_broke():
    failed = replace(outcome(), events=(Event(3.0, "", "broken", "no_room_twice: room 12 is held twice"),))

    assert "no_room_twice" == cause(failed)
    assert "no_room_twice_7" == slug(failed)
