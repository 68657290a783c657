"""What a caller accepts, as a table (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import pytest

from ropewalk.http.accept import accepts, quality

JSON = "application/json"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, 1.0),
        ("", 1.0),
        ("*/*", 1.0),
        ("application/json", 1.0),
        ("Application/JSON ; charset=utf-8", 1.0),
        ("application/*;q=0.5", 0.5),
        ("text/html, */*;q=0.1", 0.1),
        ("*/*, application/json;q=0.2", 0.2),
        ("*/*;q=0.9, application/*;q=0.3", 0.3),
        ("application/json;q=0, */*", 0.0),
        ("text/html", 0.0),
        ("application/jsonp", 0.0),
        ("application/json;q=2", 1.0),
        ("application/json;q=-1", 0.0),
        ("application/json;q=much", 0.0),
        ("application/json;q=nan", 0.0),
        ("application/json; Q=0.4", 0.4),
        (",,;q=1,", 0.0),
    ],
)
def test_the_most_specific_range_decides(accept, expected):
    assert (expected, expected > 0) == (quality(accept, JSON), accepts(accept, JSON))
