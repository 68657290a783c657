"""Facts about waiting before another try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.policy.backoff import Backoff, Streak, began, delay, failed

EXACT = Backoff(first=0.1, limit=10.0, factor=2.0, spread=0.0, calm=30.0)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (6, 3.2), (7, 6.4), (8, 10.0), (9, 10.0), (10_000, 10.0)],
)
def test_each_failure_in_a_row_doubles_the_wait_up_to_the_limit(failures, expected):
    assert expected == pytest.approx(delay(EXACT, failures, chance=0.5))


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_chance_takes_away_at_most_the_spread(chance, expected):
    spread = Backoff(first=1.0, spread=0.5)

    assert expected == pytest.approx(delay(spread, 1, chance))


def test_failures_in_quick_succession_are_counted_and_a_long_run_begins_the_count_anew():
    story = []
    streak = Streak()
    for began_at, ended_at in [(0.0, 1.0), (1.1, 2.0), (2.2, 32.1), (40.0, 70.0), (70.1, 70.2)]:
        streak, wait = failed(EXACT, began(streak, began_at), ended_at, chance=0.0)
        story.append((streak.failures, round(wait, 3)))

    assert [(1, 0.1), (2, 0.2), (3, 0.4), (1, 0.1), (2, 0.2)] == story


def test_a_run_is_long_from_the_very_moment_it_has_lasted_that_long():
    streak = Streak(failures=5, began=100.0)

    assert (6, 1) == (
        failed(EXACT, streak, 129.999, 0.0)[0].failures,
        failed(EXACT, streak, 130.0, 0.0)[0].failures,
    )


@given(failures=st.integers(1, 10**6), chance=st.floats(0.0, 1.0, exclude_max=True), spread=st.floats(0.0, 1.0))
def test_a_wait_is_never_negative_and_never_beyond_the_limit(failures, chance, spread):
    backoff = Backoff(spread=spread)

    assert 0.0 <= delay(backoff, failures, chance) <= backoff.limit


@given(failures=st.integers(1, 10**6))
def test_one_more_failure_never_shortens_the_wait(failures):
    assert delay(EXACT, failures, 0.0) <= delay(EXACT, failures + 1, 0.0)
