"""Which deadline holds, and what is left of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.policy.deadline import earlier, remaining_ms


@pytest.mark.parametrize(
    ("deadline", "now", "timeout", "holds"),
    [
        (None, 100.0, None, None),
        (None, 100.0, 5.0, 105.0),
        (None, 100.0, 0.0, 100.0),
        (110.0, 100.0, None, 110.0),
        (110.0, 100.0, 5.0, 105.0),
        (104.0, 100.0, 5.0, 104.0),
        (105.0, 100.0, 5.0, 105.0),
        (90.0, 100.0, 5.0, 90.0),
    ],
)
def test_the_earlier_one_holds(deadline, now, timeout, holds):
    assert earlier(deadline, now, timeout) == holds


@pytest.mark.parametrize(
    ("deadline", "now", "left"),
    [(102.5, 100.0, 2500), (100.0009, 100.0, 0), (100.0019, 100.0, 1), (100.0, 100.0, 0), (99.0, 100.0, 0)],
)
def test_what_is_left_is_whole_milliseconds_and_never_less_than_none(deadline, now, left):
    assert remaining_ms(deadline, now) == left


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e4))
def test_over_any_hop_time_only_gets_less(deadline, now, underway):
    received = now + underway + remaining_ms(deadline, now) / 1000

    assert received <= max(deadline, now) + underway + 1e-6
