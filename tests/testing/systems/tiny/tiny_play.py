"""What is done to the tiny system, and what must hold: one workload for each way in which it can be wrong."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import sqlalchemy as sa
from tiny_services import Shop, Stock, taken

from ropewalk import RopewalkError
from ropewalk.testing import workload


def halves(world: Any) -> dict[str, int]:
    rows = world.database("stock").peek(
        lambda tx: tx.execute(sa.select(taken.c.name, sa.func.count()).group_by(taken.c.name)).all()
    )
    return dict(tuple(row) for row in rows)


def no_half(world: Any) -> None:
    """Whoever took a half took the other."""
    odd = sorted(name for name, count in halves(world).items() if count % 2)
    assert not odd, f"only half of {', '.join(odd)}"


def nothing_at_all(world: Any) -> None:
    """What cannot come true once something was sold."""
    assert not halves(world), "something was taken"


async def _sell(world: Any, random: Random) -> None:
    try:
        await world.client(Shop).sell(f"thing-{random.randrange(10**6)}")
    except RopewalkError:
        await world.client(Shop).sell(f"another-{random.randrange(10**6)}")


async def _take(world: Any, random: Random) -> None:
    await world.client(Stock).take(f"thing-{random.randrange(10**6)}")


@workload(every=0.5, always=[no_half], eventually=[no_half])
async def sell(world: Any, random: Random) -> None:
    """All is right."""
    await _sell(world, random)


@workload(every=0.5, always=[no_half], settings={"stock": {"wrong": "half"}})
async def sell_by_halves(world: Any, random: Random) -> None:
    """Two transactions for what is one."""
    await _sell(world, random)


@workload(every=0.5)
async def leave_open(world: Any, random: Random) -> None:
    """One of two fails, and nobody gets to hear of it before the other has ended: that is when the world has."""

    async def fails() -> None:
        raise LookupError("of a world that is gone")

    async def waits() -> None:
        await asyncio.sleep(3600.0)

    await asyncio.gather(fails(), waits(), return_exceptions=True)


@workload(every=0.5, settings={"stock": {"wrong": "raises"}})
async def sell_and_fail(world: Any, random: Random) -> None:
    """An error that nobody expects."""
    await _take(world, random)


@workload(every=0.5, eventually=[nothing_at_all], settle=10.0)
async def sell_and_hope(world: Any, random: Random) -> None:
    """What is to come true never does."""
    await _take(world, random)


@workload(every=0.5, settings={"stock": {"wrong": "empty"}})
async def sell_out(world: Any, random: Random) -> None:
    """An error of a sibling, and none that nobody expects."""
    await _take(world, random)


@workload(every=0.5, settings={"stock": {"wrong": "empty"}}, without=["shop"])
async def sell_out_alone(world: Any, random: Random) -> None:
    """The same, for which no shop is needed."""
    await _take(world, random)


@workload(every=0.5, settings={"stock": {"wrong": "stays"}})
async def sell_for_ever(world: Any, random: Random) -> None:
    """What is asked to stop never does."""
    await _take(world, random)


@workload(every=0.5, settings={"shop": {"wrong": "sulks"}})
async def sell_or_sulk(world: Any, random: Random) -> None:
    """Whoever could not sell the first thing sells nothing."""
    await _sell(world, random)


@workload(every=0.5, trouble=True)
async def strike(world: Any, random: Random) -> None:
    """What makes trouble for the others."""
    world.reset("shop", "stock")


@workload(every=1.0)
async def complain(world: Any, random: Random) -> None:
    """An act that asserts what is not so."""
    raise AssertionError("this is not what I ordered")


@workload(every=0.2, settings={"shop": {"wrong": "set"}})
async def sell_by_set(world: Any, random: Random) -> None:
    """In the order of a set of strings."""
    await _sell(world, random)


@workload(every=0.2, settings={"shop": {"wrong": "id"}})
async def sell_by_id(world: Any, random: Random) -> None:
    """In the order in which things lie in memory."""
    await _sell(world, random)


@workload(every=0.2, settings={"shop": {"wrong": "collector"}})
async def sell_by_collector(world: Any, random: Random) -> None:
    """As many as the collector has found circles."""
    await _sell(world, random)
