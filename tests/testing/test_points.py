"""Crash points: all moments of a run, and what a crash at each of them brings to light."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
import sqlalchemy as sa

from ropewalk import Client, Database, Service, Settings, post
from ropewalk.testing import World, crash_points
from ropewalk.testing.points import Point, points

metadata = sa.MetaData()
halves = sa.Table("halves", metadata, sa.Column("name", sa.String), sa.Column("half", sa.Integer))


class StockSettings(Settings):
    at_once: bool = True  # whether both halves are taken in one transaction


class Stock(Service, name="stock", version="1.0.0"):
    """Gives things out, in two halves."""

    tables = metadata

    def __init__(self, database: Database, settings: StockSettings) -> None:
        self.database, self.settings = database, settings

    @post("/taken/<name>")
    async def take(self, name: str) -> None:
        """Take one."""
        if self.settings.at_once:
            await self.database.run(self._insert, name, (1, 2))
        else:
            await self.database.run(self._insert, name, (1,))
            await self.database.run(self._insert, name, (2,))

    def _insert(self, tx: Any, name: str, which: tuple[int, ...]) -> None:
        for half in which:
            tx.execute(sa.insert(halves).values(name=name, half=half))


class Shop(Service, name="shop", version="1.0.0"):
    """Sells what the stock has."""

    def __init__(self, stock: Annotated[Stock, Client(timeout=2)]) -> None:
        self.stock = stock

    @post("/sold/<name>")
    async def sell(self, name: str) -> None:
        """Sell one."""
        await self.stock.take(name)


def taken(world: World) -> int:
    return int(
        world.database("stock").peek(lambda tx: tx.execute(sa.select(sa.func.count()).select_from(halves)).scalar_one())
    )


def no_half(world: World) -> None:
    """Whoever took a half took the other."""
    if taken(world) % 2:
        raise AssertionError("only half of it")


async def sell(world: World) -> None:
    await world.client(Shop).sell("thing")


def made(at_once: bool) -> World:
    return World([Shop, Stock], instances=1, seed=5, settings={"stock": {"at_once": at_once}})


@pytest.fixture
def world() -> Iterator[World]:
    with made(at_once=True) as world:
        yield world


def test_the_moments_of_a_run_are_calls_statements_commits_and_frames_in_order(world):
    found = points(world, sell)

    told = [f"{point.host} {point.moment}" for point in found if not point.moment.endswith("frame")]
    assert [
        "shop/1 before:sell",
        "shop/1 before:take",
        "stock/1 before:take",
        "stock/1 before:insert",
        "stock/1 before:insert/commit",
        "stock/1 before:insert/1",
        "stock/1 after:insert/1",
        "stock/1 before:insert/2",
        "stock/1 after:insert/2",
        "stock/1 after:insert/commit",
        "stock/1 after:insert",
        "stock/1 after:take",
        "shop/1 after:take",
        "shop/1 after:sell",
    ] == told
    assert {("shop/1", "before:frame"), ("stock/1", "after:frame")} <= {(point.host, point.moment) for point in found}


def test_a_moment_that_comes_again_is_counted(world):
    async def twice(world: World) -> None:
        await sell(world)
        await sell(world)

    counted = [point.nth for point in points(world, twice) if (point.host, point.moment) == ("stock/1", "after:insert")]

    assert [1, 2] == counted


def test_looking_leaves_the_world_as_it_was(world):
    before = world.log.digest(), world.now, taken(world), os.getpid()

    first = points(world, sell)

    assert before == (world.log.digest(), world.now, taken(world), os.getpid())
    assert first == points(world, sell)
    world.run(sell(world))
    assert 2 == taken(world)


def broken(survivals: Iterator[Any]) -> list[tuple[str, str, str]]:
    return [(each.point.host, each.point.moment, each.broken) for each in survivals if each.broken]


@pytest.mark.long
def test_what_is_done_in_one_transaction_survives_every_crash(world):
    survivals = list(crash_points(world, sell, eventually=[no_half], settle=20.0, again=False))

    assert [] == broken(iter(survivals))
    assert points(world, sell) == [each.point for each in survivals]
    assert len(survivals) == len({(each.point.host, each.point.moment, each.point.nth) for each in survivals})


@pytest.mark.long
def test_what_is_done_in_two_is_found_half_done_between_them_and_nowhere_else():
    with made(at_once=False) as world:
        found = broken(crash_points(world, sell, eventually=[no_half], settle=5.0, again=False))

    between = [moment for host, moment, _ in found]
    assert {"stock/1"} == {host for host, _, _ in found}
    assert {"only half of it"} == {text for _, _, text in found}
    assert Counter(between) == Counter(
        f"{when}:insert{what}" for when in ("before", "after") for what in ("", "/commit", "/1")
    )


@pytest.mark.long
def test_a_second_crash_comes_in_the_recovery():
    with made(at_once=True) as world:
        survivals = crash_points(world, sell, eventually=[no_half], settle=20.0)
        every = points(world, sell)
        first_again = next(each for each in survivals if each.point.again)
        survivals.close()  # type: ignore[attr-defined]

    assert Point(every[0].host, every[0].moment, 1, again=True) == first_again.point
    assert "" == first_again.broken


def test_what_never_comes_true_says_so_with_its_moment(world):
    def two_of_them(world: World) -> None:
        if taken(world) != 4:
            raise AssertionError("not both of them")

    first = next(crash_points(world, sell, eventually=[two_of_them], settle=2.0, again=False))

    assert "not both of them" == first.broken


def test_an_act_that_never_ends_is_found(world):
    from twisted.internet.defer import Deferred

    async def never(world: World) -> None:
        await sell(world)
        await Deferred()

    survivals: Callable[..., Any] = crash_points
    with pytest.raises(RuntimeError, match="Stuck"):
        next(survivals(world, never, settle=2.0, again=False))


def test_what_an_act_raises_that_is_no_refusal_is_raised_here(world):
    async def wrong(world: World) -> None:
        raise KeyError("not an answer")

    with pytest.raises(RuntimeError, match=r"A copy of the world failed:[\s\S]*KeyError: 'not an answer'"):
        points(world, wrong)


def test_the_same_crash_is_the_same_run(world):
    first = [each.digest for each, _ in zip(crash_points(world, sell, again=False), range(4), strict=False)]
    again = [each.digest for each, _ in zip(crash_points(world, sell, again=False), range(4), strict=False)]

    assert first == again
    assert 4 == len({*first})
