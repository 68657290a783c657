"""Facts about what a process and its parent say to each other."""

from __future__ import annotations

import msgspec
import pytest

from ropewalk.runtime.link import (
    All,
    AskForAll,
    AskForPage,
    Draining,
    Failed,
    FromChild,
    FromParent,
    Kill,
    Lines,
    Loaded,
    Page,
    Ready,
    line_of,
    literal,
)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Ready(), FromChild),
        (Draining(), FromChild),
        (Failed(78, "no\nsuch thing"), FromChild),
        (Loaded(("a.py",)), FromChild),
        (Page("# EOF\n", last=True), FromChild),
        (AskForAll(), FromChild),
        (AskForPage(), FromParent),
        (All("# EOF\n"), FromParent),
        (Kill(), FromParent),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_message_travels_as_one_line(message, kind):
    line = line_of(message)

    assert (1, True) == (line.count(b"\n"), line.endswith(b"\n"))
    assert message == msgspec.json.decode(line, type=kind)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_the_same_however_their_bytes_arrive(size):
    data = b"one\n\ntwo\nthree"
    lines = Lines()

    found = [line for start in range(0, len(data), size) for line in lines.cut(data[start : start + size])]

    assert ([b"one", b"", b"two"], [b"three"], []) == (found, lines.rest(), lines.rest())


def test_a_line_beyond_the_limit_is_cut_so_that_it_does_not_fill_memory():
    lines = Lines(limit=10)

    assert ([b"x" * 11], [b"yy"]) == (lines.cut(b"x" * 11), lines.cut(b"yy\n"))


def test_a_literal_says_just_itself():
    from twisted.logger import formatEvent

    text = "SyntaxError: f-string: {expecting '}'"

    assert text == formatEvent({"log_format": literal(text)})
