"""Paths built from operations."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

import msgspec
import pytest

from ropewalk import Query, Service, get, operation, post
from ropewalk.http.paths import path_for, path_of
from ropewalk.service import describe


class Search(msgspec.Struct):
    city: str
    nights: int = 1


class Rooms(Service):
    """Has addresses."""

    @get("/rooms/<int:room_id>")
    async def read(self, room_id: int, expand: bool = False, tags: list[str] = [], since: date | None = None) -> str:
        return ""

    @get("/rooms")
    async def search(self, search: Annotated[Search, Query], page_number: Annotated[int, Query("page")] = 1) -> str:
        return ""

    @get("/files/<path:name>")
    async def file(self, name: str) -> str:
        return ""

    @get("/bookings/<uuid:id>/<guest>")
    async def booking(self, id: UUID, guest: str) -> str:
        return ""

    @post("/rooms")
    async def add(self, search: Search) -> str:
        return ""

    @operation
    async def hidden(self) -> None: ...


rooms = Rooms()
ID = UUID("12345678123456781234567812345678")


PATHS = {
    "a number": (lambda: path_for(rooms.read, room_id=12), "/rooms/12"),
    "a number as text": (lambda: path_for(rooms.read, room_id="12"), "/rooms/12"),
    "a flag in the query": (lambda: path_for(rooms.read, room_id=12, expand=True), "/rooms/12?expand=true"),
    "a list": (lambda: path_for(rooms.read, room_id=12, tags=["a b", "c&d"]), "/rooms/12?tags=a+b&tags=c%26d"),
    "a date": (lambda: path_for(rooms.read, room_id=12, since=date(2027, 5, 1)), "/rooms/12?since=2027-05-01"),
    "what is None anyway": (lambda: path_for(rooms.read, room_id=12, since=None), "/rooms/12"),
    "no query where one is required": (lambda: path_for(rooms.search), "/rooms"),
    "a structure and another name": (
        lambda: path_for(rooms.search, search=Search("Köln"), page_number=2),
        "/rooms?city=K%C3%B6ln&nights=1&page=2",
    ),
    "slashes that are meant": (lambda: path_for(rooms.file, name="a b/c?d#e"), "/files/a%20b/c%3Fd%23e"),
    "two of them": (lambda: path_for(rooms.booking, id=ID, guest="b? é"), f"/bookings/{ID}/b%3F%20%C3%A9"),
    "where a form goes to": (lambda: path_for(rooms.add), "/rooms"),
    "an Operation": (lambda: path_for(describe(Rooms).operations["file"], name="x"), "/files/x"),
    "by name, of the class": (lambda: path_of(Rooms, "read", room_id=1), "/rooms/1"),
    "by name, of the service": (lambda: path_of(rooms, "read", room_id=1), "/rooms/1"),
}


@pytest.mark.parametrize(("build", "expected"), PATHS.values(), ids=PATHS)
def test_a_path_is_the_route_filled_and_the_rest_as_a_query(build, expected):
    assert expected == build()


WRONG = [
    (lambda: path_for(rooms.read), "rooms.read lies at /rooms/<int:room_id>: say what room_id should be."),
    (
        lambda: path_for(rooms.read, room_id=1, floor=2),
        "'floor' is not in the path or the query of rooms.read; these are: room_id, expand, tags, since.",
    ),
    (lambda: path_for(rooms.booking, id=ID, guest="a/b"), "guest='a/b' has no place in /bookings/<uuid:id>/<guest>."),
    (lambda: path_for(rooms.add, search=Search("x")), "'search' is not in the path or the query of rooms.add;"),
    (lambda: path_for(rooms.read, room_id="x"), "room_id='x' has no place in /rooms/<int:room_id>."),
    (lambda: path_for(rooms.hidden), "rooms.hidden has no path: it is declared by @operation and called by its id."),
    (lambda: path_for(Rooms.read, room_id=1), "Expected an operation as a method of its service, like"),
    (lambda: path_for(print), "Expected an operation as a method of its service, like"),
    (
        lambda: path_of(rooms, "reed"),
        "rooms has no operation 'reed'; those with a path: read, search, file, booking, add.",
    ),
]


@pytest.mark.parametrize(("build", "message"), WRONG, ids=map(str, range(len(WRONG))))
def test_what_cannot_be_built_says_why(build, message):
    with pytest.raises(TypeError) as wrong:
        build()

    assert str(wrong.value).startswith(message)
