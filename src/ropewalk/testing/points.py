"""Exhaustive crash points: every moment of a run, one after the other, is the one at which its host is killed.

A run is played once to hear its moments: each call, statement, commit and frame, before and after. Then, for each of
them, a copy of the warm world is made (a fork of this process), the host dies there, is started again, and what must
hold is looked at until it holds. And once more with a second crash, at the first moment of the recovery.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import RopewalkError
from .garbage import only_what_is_new
from .hosts import OUTSIDE
from .moments import ANY
from .world import World

DOWN = 0.5  # seconds between the crash and the restart


class Point(Struct, frozen=True):
    """Where a host dies."""

    host: str
    moment: str  # "before:charge"
    nth: int  # of that host's moments of that name, from 1
    again: bool = False  # and a second time, at the first moment after its restart


class Survival(Struct, frozen=True):
    """How a run went on."""

    point: Point
    broken: str  # "" when everything held
    digest: str


def points(world: World, act: Callable[[World], Awaitable[object]]) -> list[Point]:
    """Every moment of `act(world)`, in order; `world` itself stays as it is."""

    def listen(copy: World) -> list[Point]:
        copy.moments.heard = []
        _played(copy, act)
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for host, moment in copy.moments.heard:
            if host == OUTSIDE:
                continue
            seen[host, moment] += 1
            found.append(Point(host, moment, seen[host, moment]))
        return found

    return msgspec.convert(_in_a_copy(world, listen), list[Point])


def crash_points(
    world: World,
    act: Callable[[World], Awaitable[object]],
    *,
    eventually: Sequence[Callable[[World], object]] = (),
    settle: float = 60.0,
    again: bool = True,
) -> Iterator[Survival]:
    """Crash at every moment of `act(world)`, and `again` during recovery; how each went on, in order.

    `eventually(world)` raises AssertionError until it holds, which must be within `settle` virtual seconds after.
    """
    found = points(world, act)
    with only_what_is_new():  # or each copy would copy the pages that its collector only looks at
        for point in found + [msgspec.structs.replace(point, again=True) for point in found] * again:
            crashed = partial(_crashed, act=act, point=point, eventually=eventually, settle=settle)
            broken, digest = _in_a_copy(world, crashed)
            yield Survival(point, broken, digest)


def _crashed(
    world: World, act: Any, point: Point, eventually: Sequence[Callable[[World], object]], settle: float
) -> tuple[str, str]:
    crashes = world.crashes[point.host]
    world.crash(point.host, at=point.moment, nth=point.nth)
    broken = ""
    try:
        ended = _begun(world, act)
        end = world.now + settle
        restarted = 0
        while True:
            world.advance(DOWN)
            if world.failures:
                return world.failures[0], world.log.digest()
            if not world.hosts[point.host].up:
                world.restart(point.host)
                restarted += 1
                if point.again and restarted == 1:
                    world.crash(point.host, at=ANY)
                continue
            broken = _open(world, ended, eventually)
            if not broken or world.now > end:
                break
        if world.crashes[point.host] == crashes:
            broken = broken or f"{point.moment} of {point.host} did not come again: the run is not the same."
    except AssertionError as error:
        broken = str(error)
    return broken, world.log.digest()


def _open(world: World, ended: list[object], eventually: Sequence[Callable[[World], object]]) -> str:
    """What is still to come true; "" when all is."""
    if not ended:
        return "the act has not ended"
    for check in eventually:
        try:
            check(world)
        except AssertionError as error:
            return str(error)
    return ""


def _begun(world: World, act: Any) -> list[object]:
    ended: list[object] = []
    world.driver.run(_forgiving(act, world)).addBoth(ended.append)
    return ended


def _played(world: World, act: Any) -> None:
    world.run(_forgiving(act, world))


async def _forgiving(act: Any, world: World) -> None:
    with suppress(RopewalkError):  # that it was told is what matters
        await act(world)


def _in_a_copy(world: World, function: Callable[[World], Any]) -> Any:
    """What `function(world)` returns in a fork of this process, as JSON has it; raises what it raised, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with tempfile.TemporaryDirectory(prefix="ropewalk-copy-") as folder:
                world.move(Path(folder))
                answer = msgspec.json.encode({"answer": function(world)})
        except BaseException:  # whatever it is, the parent is told
            answer = msgspec.json.encode({"failed": traceback.format_exc()})
        else:
            status = 0
        finally:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            os._exit(status)  # nothing of the parent's is closed here
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    said = msgspec.json.decode(told) if told else {"failed": "it ended without a word"}
    if "failed" in said:
        raise RuntimeError(f"A copy of the world failed:\n{said['failed']}")
    return said["answer"]
