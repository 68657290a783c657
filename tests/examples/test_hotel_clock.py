"""The clock: a plain Klein application, and how its siblings ask it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hotel.today import read_clock
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, StringStubbingResource

from ropewalk import Unavailable
from ropewalk.http.sibling_agent import SiblingAgent


def test_a_sibling_learns_the_time_over_http(house):
    http = HTTPClient(SiblingAgent(house, lambda name: f"http://{name}", house.time.seconds))

    assert house.play(read_clock(http)) == datetime(2026, 5, 1, 9, 0, tzinfo=UTC)


def test_a_clock_that_was_set_goes_on_with_the_reactors_time(house):
    http = HTTPClient(SiblingAgent(house, lambda name: f"http://{name}", house.time.seconds))

    house.pass_time(90)

    assert house.play(read_clock(http)) == datetime(2026, 5, 1, 9, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("code", "body", "detail"),
    [
        (500, b"", "The clock answered 500 instead of the time."),
        (200, b"noon", "The clock answered what is not a time"),
    ],
)
def test_whoever_asks_a_broken_clock_is_told_unavailable(house, code, body, detail):
    broken = RequestTraversalAgent(StringStubbingResource(lambda *_: (code, {}, body)))
    http = HTTPClient(SiblingAgent(broken, lambda name: f"http://{name}", house.time.seconds))

    with pytest.raises(Unavailable, match=detail):
        house.play(read_clock(http))


def test_whoever_asks_a_clock_that_is_nowhere_is_told_unavailable(house):
    http = HTTPClient(SiblingAgent(house, lambda name: None, house.time.seconds))

    with pytest.raises(Unavailable, match="no instance of clock"):
        house.play(read_clock(http))


def test_the_time_it_tells_has_whole_seconds(house):
    http = HTTPClient(SiblingAgent(house, lambda name: f"http://{name}", house.time.seconds))

    house.pass_time(0.9)

    assert house.play(read_clock(http)) - datetime(2026, 5, 1, 9, 0, tzinfo=UTC) < timedelta(seconds=1)
