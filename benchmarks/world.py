"""How fast a simulated world is: what a virtual second, a call, a cold start and a crash cost in real ones.

Measures, on one core: the hotel (eight services, two instances each, their databases, real HTTP bytes) with one booking
a virtual second; calls between two services, over real HTTP bytes and direct; a cold start of the whole hotel; and one
crash at each moment of a booking, in forks of a warm world. Does not measure what a particular workload finds.

    python benchmarks/world.py [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from ropewalk import Service, operation
from ropewalk.testing import World, crash_points

HOTEL = Path(__file__).resolve().parents[1] / "examples" / "hotel"
CHEAP = {"users": {"time_cost": 1, "memory_cost": 8, "parallelism": 1}}
SECONDS = 60  # virtual ones, a round
CALLS = 500  # a round


class Echo(Service, name="echo"):
    """Says what it is told."""

    @operation
    async def say(self, text: str) -> str:
        """Say it again."""
        return text


class Front(Service, name="front"):
    """Asks, one call after the other."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    @operation
    async def ask(self, times: int) -> int:
        """Ask so many times."""
        return sum([len(await self._echo.say("hello")) for _ in range(times)])


async def book(world: World, random: Random) -> object:
    """One booking, with a search of the hotel before."""
    from hotel.hotels import Hotels
    from hotel.reservations import Booking, Card, Guest, Reservations
    from hotel.words import Stay

    hotel = await world.client(Hotels).read(random.randrange(1, 200))
    arrival = date(2026, 6, 1) + timedelta(random.randrange(100))
    stay = Stay(hotel.id, random.choice(hotel.room_kinds).kind, arrival, 2, 1)
    booking = Booking(stay, Guest("A guest", "guest@example.org"), Card("4242424242424242", "12/30", "123"))
    return await world.client(Reservations, subject="guest").book(booking)


def hotel(**options: Any) -> World:
    """A world of the hotel."""
    return World(HOTEL / "system.toml", settings=CHEAP, **options)


def ratio() -> float:
    """Virtual seconds per real one, with one booking in each."""
    with hotel(seed=1) as world:
        began = perf_counter()
        for number in range(SECONDS):
            world.at(world.now + number, lambda number=number: world.driver.run(book(world, Random(number))))
        world.advance(SECONDS)
        return SECONDS / (perf_counter() - began)


def calls(wire: str) -> float:
    """Calls a real second from one service to another."""
    with World([Front, Echo], seed=1, wire=wire) as world:
        front = world.client(Front)
        world.run(front.ask(50))
        began = perf_counter()
        world.run(front.ask(CALLS))
        return CALLS / (perf_counter() - began)


def cold() -> float:
    """Milliseconds until the whole hotel serves, and its end."""
    began = perf_counter()
    with hotel(seed=1):
        pass
    return (perf_counter() - began) * 1000


def crash() -> float:
    """Milliseconds of one run with a crash at one of a booking's moments: the median of all of them, twice."""
    with hotel(seed=1) as world:
        world.run(book(world, Random(1)))
        times = [perf_counter(), *(perf_counter() for _ in crash_points(world, lambda copy: book(copy, Random(2))))]
        return statistics.median(after - before for before, after in pairwise(times)) * 1000


ROWS: list[tuple[str, Callable[[], float], str, float, bool]] = [
    # what, how, unit, the figure to reach, whether more is better
    ("the hotel, a booking a second", ratio, "virtual : real", 60.0, True),
    ("calls over real HTTP bytes", lambda: calls("http"), "a second", 1000.0, True),
    ("calls without bytes", lambda: calls("direct"), "a second", 10_000.0, True),
    ("the whole hotel, cold", cold, "ms", 1000.0, False),
    ("one crash of a booking, forked", crash, "ms", 50.0, False),
]


def main() -> None:
    """Print the table; exit with 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(HOTEL))
    rows = []
    for what, measure, unit, goal, more in ROWS:
        values = [measure() for _ in range(given.rounds)]
        value = statistics.median(values)
        met = value >= goal if more else value <= goal
        rows.append({"what": what, "median": value, "unit": unit, "goal": goal, "met": met, "all": values})
        if not given.json:
            print(f"{what:34} {value:10.1f} {unit:15} (goal {goal:g}: {'met' if met else 'missed'})", flush=True)
    if given.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows}, indent=2))
    sys.exit(not all(row["met"] for row in rows))


if __name__ == "__main__":
    main()
