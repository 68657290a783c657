"""What becomes of the pieces of a stream whose reader leaves."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from ropewalk.codec.pieces import LINES, decoded
from ropewalk.driver import Driver


@pytest.mark.parametrize("content_type", [LINES, "text/csv"])
def test_who_leaves_a_stream_closes_where_it_comes_from_at_once(content_type):
    closed = []

    async def pieces():
        try:
            while True:
                yield b"1\n"
        finally:
            closed.append(True)

    async def leave():
        values = decoded(pieces(), content_type, json.loads)
        await anext(values)
        await values.aclose()
        return list(closed)

    assert [True] == Driver.of(Clock()).start(leave()).result()


def test_what_cannot_be_closed_is_read_all_the_same():
    class Pieces:
        def __init__(self) -> None:
            self.left = [b"1\n2", b"3\n4"]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    async def read():
        return [value async for value in decoded(Pieces(), LINES, json.loads)]

    assert [1, 23, 4] == Driver.of(Clock()).start(read()).result()
