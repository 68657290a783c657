"""The adopted ticket shop in simulated worlds: orders, events and sagas while everything around them fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ropewalk import Context, RopewalkError
from ropewalk.context import enter_context
from ropewalk.testing import World, plan, replay
from ropewalk.testing.graveyard import exhume
from ropewalk.testing.planning import expand
from ropewalk.testing.seeds import run_seeds
from ropewalk.testing.story import text

SHOP = str(Path(__file__).resolve().parents[2] / "examples" / "adopt_klein" / "system.toml")
GRAVEYARD = Path(__file__).parent / "graveyard_of_adopt_klein"
MODES = ("safety", "liveness")


@pytest.fixture(scope="module")
def workloads() -> tuple[str, ...]:
    return expand(SHOP, ["box_office"])


def rows(world: World, service: str, statement: str) -> list[Any]:
    return world.database(service).peek(lambda tx: [tuple(row) for row in tx.execute(sa.text(statement))])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dies", "nth"),
    [
        ("after:start/commit", 1),  # the saga is there, and nobody has been told
        ("before:transact/commit", 1),  # of the seats
        ("after:transact/commit", 1),
        ("after:charge", 1),  # the bank has taken the money
        ("before:transact/commit", 2),  # of the sale and its event
        ("after:transact/commit", 2),
        ("after:print/commit", 1),  # the event is handled, and nobody knows
    ],
)
def test_whatever_dies_under_an_order_it_is_done_once(dies: str, nth: int) -> None:
    with World(SHOP, seed=3) as world:
        world.run(world.http.put("http://shop:8080/shows/Cats", json={"price": 20, "seats": 10}))
        for instance in ("shop/1", "shop/2"):
            world.crash(instance, at=dies, nth=nth)

        first, again = world.run(clicked(world, 2))
        world.advance(30)

        assert [event.text for event in world.log.events if event.kind == "crashed"]
        assert first == again
        assert [(1, True)] == rows(world, "shop", "SELECT number, sold FROM orders")
        assert [(1, 40)] == rows(world, "bank", 'SELECT "order", amount FROM entries')
        assert [("ann",), ("ann",)] == rows(world, "shop", "SELECT guest FROM tickets")
        assert [("completed",)] == rows(world, "shop", "SELECT state FROM ropewalk_sagas")


async def clicked(world: World, times: int) -> list[Any]:
    """What somebody is told who clicks again under one key, until there is an answer, and so many times."""
    from after import Shop, Wanted

    enter_context(Context(key="of all clicks"))
    told: list[Any] = []
    while len(told) < times:
        try:
            told.append(await world.client(Shop).order(Wanted("Cats", "ann", 2)))
        except RopewalkError as error:
            if error.status < 500:
                raise
            world.restart("shop")  # whoever died
            await asyncio.sleep(1)
    return told


@pytest.mark.slow
def test_what_broke_before_holds(workloads: tuple[str, ...]) -> None:
    for _, schedule in exhume(GRAVEYARD):
        replay(SHOP, workloads, schedule)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(2))
def test_half_a_minute_of_faults_breaks_nothing(seed: int, workloads: tuple[str, ...]) -> None:
    outcome = replay(SHOP, workloads, plan(SHOP, workloads, seed, 30.0, MODES[seed % 2]))

    assert outcome.acts["done"] > 10


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_minute_of_faults_breaks_nothing_whatever_the_seed(workloads: tuple[str, ...]) -> None:
    schedules = (plan(SHOP, workloads, seed, 60.0, MODES[seed % 2]) for seed in range(20))

    outcomes = run_seeds(SHOP, workloads, schedules, os.cpu_count() or 1)

    broken = [f"seed {each.schedule.seed}: {text(each)}" for each in outcomes if each.broken]
    assert not broken, "\n\n".join(broken)
