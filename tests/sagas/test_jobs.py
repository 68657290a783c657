"""What is done in the background and at times: accepted is durable, one instance does it, its outcome can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk import (
    Accepted,
    Conflict,
    Database,
    NotFound,
    Principal,
    Service,
    Transaction,
    at,
    every,
    given,
    operation,
    post,
)
from ropewalk.errors import DeclarationError
from ropewalk.store.tables import sagas
from ropewalk.testing import World

metadata = sa.MetaData()
done = sa.Table("done", metadata, sa.Column("n", sa.Integer, primary_key=True), sa.Column("what", sa.String(60)))


class TooMany(Conflict):
    """Raised when it cannot be drawn."""


class Press(Service):
    tables = metadata
    broken = False

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/prints", background=True, raises=(TooMany,), idempotent=True)
    async def draw(self, text: str, copies: int = 1, principal: Principal = given) -> list[str]:
        if copies > 10:
            raise TooMany(f"{copies} copies.")
        if type(self).broken:
            raise ZeroDivisionError("out of ink")
        return [await self._database.run(self._note, f"{text} for {principal.subject}") for _ in range(copies)]

    @every(10)
    async def clean(self) -> None:
        await self._database.run(self._note, "cleaned")

    @at("09:01")
    async def morning(self) -> None:
        await self._database.run(self._note, "morning")

    def _note(self, tx: Transaction, what: str) -> str:
        tx.execute(done.insert().values(what=what))
        return what


@pytest.fixture
def world():
    with World([Press], seed=5) as world:
        yield world


def noted(world: World, what: str) -> int:
    return world.database("press").peek(
        lambda tx: tx.execute(sa.select(sa.func.count()).select_from(done).where(done.c.what == what)).scalar_one()
    )


def outcome(press: Any, world: World, accepted: Accepted) -> Any:
    def is_over() -> bool:
        state = sa.select(sagas.c.state).where(sagas.c.id == accepted.id)
        return world.database("press").peek(lambda tx: tx.execute(state).scalar_one()) != "running"

    for _ in range(200):
        if is_over():
            break
        world.advance(1)
    return world.run(press.background_status(accepted.id))


def test_what_was_accepted_is_done_and_its_result_can_be_asked_for(world):
    press = world.client(Press, subject="ann")

    accepted = world.run(press.draw("a page", 2))

    assert Accepted(accepted.id, f"/background/{accepted.id}") == accepted
    status = outcome(press, world, accepted)
    assert ("completed", ["a page for ann", "a page for ann"]) == (status.state, status.result)
    assert 2 == noted(world, "a page for ann")


def test_over_http_it_is_202_with_a_place_to_look(world):
    async def ask() -> Any:
        reply = await world.http.post("sibling://press/prints?text=x", json={"text": "x"})
        return reply.code, await reply.json(), reply.headers.getRawHeaders("location")

    code, body, location = world.run(ask())

    assert (202, [body["status"]]) == (code, location)


def test_what_was_accepted_survives_a_crash_of_everybody(world):
    press = world.client(Press, subject="ann")
    accepted = world.run(press.draw("a page"))
    world.crash("press")
    world.advance(1)
    world.restart()
    world.advance(10)

    assert "completed" == outcome(press, world, accepted).state
    assert 1 == noted(world, "a page for ann")


def test_what_is_refused_says_so_in_its_status(world):
    press = world.client(Press, subject="ann")

    status = outcome(press, world, world.run(press.draw("a page", 11)))

    assert ("failed", "11 copies.") == (status.state, status.problem["detail"])


def test_what_keeps_failing_is_parked(world, monkeypatch, flush_logged_errors):
    monkeypatch.setattr(Press, "broken", True)
    press = world.client(Press, subject="ann")

    status = outcome(press, world, world.run(press.draw("a page")))

    assert "parked" == status.state
    world.flush_failures(ZeroDivisionError)
    flush_logged_errors()


def test_nobody_else_may_ask(world):
    accepted = world.run(world.client(Press, subject="ann").draw("a page"))

    with pytest.raises(NotFound):
        world.run(world.client(Press, subject="bob").background_status(accepted.id))


def test_what_is_done_every_so_often_is_done_once_by_all_instances(world):
    world.advance(65)

    assert 6 == noted(world, "cleaned")


def test_what_is_done_at_a_time_is_done_then_and_not_at_the_first_start(world):
    world.advance(50)
    assert 0 == noted(world, "morning")  # it is 09:00:50

    world.advance(20)

    assert 1 == noted(world, "morning")


def test_moments_that_were_missed_are_made_up_for_once(world):
    world.advance(15)
    before = noted(world, "cleaned")
    world.crash("press")
    world.advance(100)
    world.restart()
    world.advance(5)

    assert before + 1 == noted(world, "cleaned")


def test_what_cannot_work_is_refused_when_the_class_is_made():
    with pytest.raises(DeclarationError, match=r'@every\("often"\)|expected a time like'):
        every("often")
    with pytest.raises(DeclarationError, match="takes nothing"):

        class Wrong(Service):
            @every(5)
            async def clean(self, what: str) -> None: ...

    with pytest.raises(DeclarationError, match="done in the background"):

        class Read(Service):
            @operation(background=True)
            async def fine(self) -> int: ...

            from ropewalk import get

            @get("/x", background=True)
            async def x(self) -> int: ...
