"""What seeds have not met yet, by hand: one fault, made again and again in the right moment, and the audit of the trips.

    python tests/planted/by_hand.py [NUMBER ...]

For each planted bug that has a fault here: what the checks of `examples/trips/play.py` say with the bug, and that they
say nothing without it. Exit status 1 when one of both is not so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from planted import ROOT, corpus, planted, python_path

Acts = Any  # examples/trips/play.py, of the copy
Case = Callable[[Any, Random, Acts], Iterator[None]]  # does a fault, and yields where the books are to be looked at


def the_other_is_slow(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """One process of the trips cannot reach the broker, and the other one's way there is slow."""
    world.partition("trips/1", "broker")
    world.link("trips/2", "broker", latency=(0.3, 0.6))
    for _ in range(8):
        act(world, random, play.flock)
        yield


def dies_before_it_is_handed_on(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """A process of the trips cannot reach the broker, and dies before it can."""
    act(world, random, play.travel)
    world.partition("trips/1", "broker")
    for _ in range(4):
        act(world, random, play.flock)
    world.crash("trips/1")
    world.advance(2)
    world.heal()
    world.restart()
    world.advance(60)
    yield


def a_hold_comes_late(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """A process of the rooms cannot reach its database for twelve seconds."""
    for _ in range(6):
        world.partition("rooms/1", "rooms/database")
        act(world, random, play.flock)
        world.advance(12)
        world.heal()
        yield


def answers_come_late(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """What the trips' database answers, a moment after some were ordered, is held for six seconds."""
    for number in range(20):
        for _ in range(5):
            world.client(play.Trips).order(play._new(random, 5)).addErrback(lambda _: None)  # it may be refused
        world.advance(0.004 + 0.006 * number)
        world.partition("trips/database", "trips", one_way=True)
        world.advance(6)
        world.heal()
        world.advance(4)
        yield


def a_tick_is_not_answered(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """What the trips' database answers, at the moment of a tick, is held for six seconds."""
    for _ in range(8):
        world.advance(20.0 - world.now % 20.0 + random.uniform(-0.01, 0.02))
        world.partition("trips/database", "trips", one_way=True)
        world.advance(6)
        world.heal()
        world.advance(8)
        yield


def approved_while_undone(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """Time for approval is up, one thing cannot be undone; then it is approved of, and the trips die."""
    for kept in ("money", "rooms") * 3:  # what is undone first is a matter of chance
        trip = world.run(play._order(world, random, 90))
        world.advance(13)
        world.partition(kept, "trips")
        world.advance(4)
        world.run(world.client(play.Trips).approve(trip))
        world.advance(1)
        world.crash("trips")
        world.heal()
        world.restart("trips")
        world.advance(20)
        yield


def the_diary_dies(world: Any, random: Random, play: Acts, *others: str) -> Iterator[None]:
    """A process of the diary dies while events are handled."""
    world.disk("diary", (0.3, 0.5))
    for _ in range(6):
        act(world, random, play.flock)
        act(world, random, play.flock)
        world.advance(random.uniform(0.0, 0.5))
        for name in others or (f"diary/{random.choice((1, 2))}",):
            world.crash(name)
        world.advance(1)
        world.restart()
        world.advance(3)
        yield


def the_broker_dies_with_it(world: Any, random: Random, play: Acts) -> Iterator[None]:
    """The broker and the diary die at once, while events are handled."""
    yield from the_diary_dies(world, random, play, "broker", "diary")


CASES: dict[int, Case] = {
    43: the_other_is_slow,
    44: dies_before_it_is_handed_on,
    45: the_other_is_slow,
    47: a_hold_comes_late,
    48: a_hold_comes_late,
    49: a_tick_is_not_answered,
    55: approved_while_undone,
    62: answers_come_late,
    63: answers_come_late,
    64: the_broker_dies_with_it,
    65: the_diary_dies,
}


def act(world: Any, random: Random, workload: Any) -> None:
    """One act, which may be refused."""
    from ropewalk import RopewalkError

    with suppress(RopewalkError):
        world.run(workload(world, random))


def audited(case: Case, system: str) -> str:
    """What the checks say in the end, or as soon as one is broken; "" when all holds."""
    from ropewalk.testing import World

    with World(system, seed=5) as world:
        import play

        random = Random(7)
        try:
            act(world, random, play.travel)
            for _ in case(world, random, play):
                for check in play.ALWAYS:
                    check(world)
            world.calm()
            world.advance(120)
            for check in (*play.ALWAYS, *play.EVENTUALLY):
                check(world)
        except AssertionError as error:
            return f"{world.now:.1f} s: {error}"
    return ""


def apart(number: int, copy: Path) -> str:
    """`audited` in an interpreter of its own, of the sources in the folder `copy`."""
    environment = {**os.environ, "PYTHONPATH": python_path(copy, "examples/trips/system.toml")}
    command = [sys.executable, __file__, "--here", str(number), str(copy / "examples/trips/system.toml")]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout


def main() -> None:
    """Those that are named, by default all; a line for each."""
    if sys.argv[1:2] == ["--here"]:
        sys.stdout.write(audited(CASES[int(sys.argv[2])], sys.argv[3]))
        return
    wanted, wrong = {int(number) for number in sys.argv[1:]} or set(CASES), 0
    for bug in corpus():
        if bug.number in wanted & set(CASES):
            with tempfile.TemporaryDirectory(prefix="planted-") as folder:
                planted(Path(folder), bug.patch)
                said, without = apart(bug.number, Path(folder)), apart(bug.number, ROOT)
            wrong += not said or bool(without)
            sys.stdout.write(f"{bug.number} {said or 'holds'}; without: {without or 'holds'}\n")
            sys.stdout.flush()
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
