"""compose: the first filter is the outermost, and nothing of ours lies between two."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from twisted.internet.task import Clock

from ropewalk.driver import Driver
from ropewalk.handler import Handler, compose
from ropewalk.message import Request, Response


class Operation:
    id = "desk.greet"


def call(handler: Handler, payload: Any = None) -> Any:
    outcome: Any = Driver.of(Clock()).run(handler(Request(Operation(), payload or {})))
    taken = []
    outcome.addBoth(taken.append)
    return taken[0]


def marking(name: str, seen: list[str]):
    async def mark(request: Request, handler: Handler) -> Response:
        seen.append(f"{name} before")
        try:
            return await handler(request)
        finally:
            seen.append(f"{name} after")

    return mark


async def hello(request: Request) -> Response:
    return Response("hello")


def test_without_filters_the_handler_is_itself():
    assert compose([], hello) is hello


def test_the_first_filter_is_the_outermost():
    seen: list[str] = []

    answer = call(compose([marking("outer", seen), marking("inner", seen)], hello))

    assert answer == Response("hello")
    assert seen == ["outer before", "inner before", "inner after", "outer after"]


def test_the_filters_are_taken_once_from_whatever_holds_them():
    seen: list[str] = []
    filters = [marking("a", seen)]
    handler = compose((each for each in filters), hello)
    filters.append(marking("b", seen))

    call(handler)
    call(handler)

    assert seen == ["a before", "a after"] * 2


def test_a_filter_may_change_the_request_and_the_answer():
    async def shout(request: Request, handler: Handler) -> Response:
        answer = await handler(request.replace(metadata={"tone": "loud"}))
        return Response(answer.body.upper())

    async def echo(request: Request) -> Response:
        return Response(f"{request.metadata['tone']} hello")

    assert call(compose([shout], echo)) == Response("LOUD HELLO")


def test_a_filter_may_answer_itself_or_ask_twice():
    asked: list[int] = []

    async def count(request: Request) -> Response:
        asked.append(1)
        return Response(len(asked))

    async def twice(request: Request, handler: Handler) -> Response:
        await handler(request)
        return await handler(request)

    async def closed(request: Request, handler: Handler) -> Response:
        return Response("closed", 503)

    assert call(compose([twice], count)) == Response(2)
    assert call(compose([closed], count)) == Response("closed", 503)
    assert len(asked) == 2


def test_an_error_passes_every_filter_on_its_way_out():
    seen: list[str] = []

    async def fail(request: Request) -> Response:
        raise KeyError("room")

    failure = call(compose([marking("outer", seen), marking("inner", seen)], fail))

    assert repr(failure.value) == "KeyError('room')"
    assert seen == ["outer before", "inner before", "inner after", "outer after"]


def test_no_frame_of_ours_lies_between_two_filters():
    async def fail(request: Request) -> Response:
        raise KeyError("room")

    failure = call(compose([marking("outer", []), marking("inner", [])], fail))

    assert [frame.name for frame in traceback.extract_tb(failure.value.__traceback__)] == ["mark", "mark", "fail"]


@pytest.mark.parametrize("depth", [100])
def test_a_hundred_filters_are_no_trouble(depth):
    assert call(compose([marking(str(n), []) for n in range(depth)], hello)) == Response("hello")
