"""The same seed is the same run, in any process; and code that is not is found, with the first line that differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.testing import Act, Fault, Schedule
from ropewalk.testing.verifying import verify

TINY = Path(__file__).parent / "systems" / "tiny" / "system.toml"


def schedule(name: str, count: int, every: float, *faults: Fault) -> Schedule:
    return Schedule(3, every * (count + 1), tuple(Act(every * (n + 1), name, n) for n in range(count)), faults)


def difference(name: str, count: int = 4, every: float = 1.0, *faults: Fault) -> str:
    return verify(str(TINY), [f"tiny_play:{name}"], schedule(name, count, every, *faults))


@pytest.mark.long
def test_what_is_right_is_the_same_in_another_process_with_other_hashes_in_any_weather():
    faults = (
        Fault(0.5, "partition-one-way", "shop/1 stock/2"),
        Fault(1.5, "crash", "stock/1"),
        Fault(2.2, "heal", "shop/1 stock/2"),
        Fault(2.5, "restart", "stock/1"),
        Fault(2.6, "drift", "shop/2", 1.05),
        Fault(2.7, "crash-at-moment", "shop/1", 4.0),
        Fault(3.0, "lossy", "shop stock", 0.2),
        Fault(3.5, "pause", "stock/2"),
        Fault(4.5, "resume", "stock/2"),
    )

    assert "" == difference("sell", 6, 1.0, *faults)


@pytest.mark.long
def test_the_order_of_a_set_of_strings_is_found_where_it_first_shows():
    found = difference("sell_by_set")

    assert found.startswith("line ")
    assert " of the log:\n" in found
    one, other = found.splitlines()[1:3]
    assert one != other
    assert "/taken/thing-" in one
    assert "/taken/thing-" in other


@pytest.mark.long
def test_the_order_of_addresses_in_memory_is_found():
    assert difference("sell_by_id", 12).startswith("line ")


@pytest.mark.long
def test_what_follows_from_the_moments_of_the_collector_is_found():
    assert difference("sell_by_collector", 300, 0.1).startswith("line ")


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from ropewalk import Unavailable
from ropewalk.testing import World
with World({target!r}, seed={seed}) as world:
    from tiny_services import Shop
    for number in range(3):
        world.run(world.client(Shop).sell(str(number)))
    world.crash("stock/1", power=True)
    world.advance(1.0)
    world.restart()
    world.advance(1.0)
    for number in range(4):
        try:
            world.run(world.client(Shop).sell("last"))
        except Unavailable as error:
            print(error)  # the connections to the machine that was dark are of no use
    print(world.log.digest(), world.now, world.timeline.fired)
"""


def told(seed: int, hashes: str, *, more: str = "") -> str:
    program = more + PROGRAM.format(folder=str(TINY.parent), target=str(TINY), seed=seed)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": hashes, "PATH": "/usr/bin:/bin", "TZ": "Asia/Tokyo" if hashes == "77" else "UTC"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.long
def test_a_world_is_the_same_in_another_zone_with_other_hashes_after_other_worlds_and_with_other_modules():
    before = f"import decimal, sqlite3, xml.dom.minidom\nfrom ropewalk.testing import World\nWorld({str(TINY)!r}, seed=99).close()\n"

    assert told(4, "1") == told(4, "77", more=before)
