"""What a simulated system is made to do, and what must hold meanwhile.

@workload(every=1.0, always=[no_room_twice], eventually=[nothing_stuck], settings={"users": {"time_cost": 1}})
async def book(world, random):
    reservations = world.client(Reservations, subject="ann")
    await reservations.book(...)
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from random import Random
from typing import Any

from msgspec import Struct

from ..errors import ConfigurationError

Play = Callable[..., Awaitable[object] | object]
Check = Callable[[Any], object]


class Workload(Struct, frozen=True):
    """One kind of act, again and again."""

    name: str
    play: Play  # play(world, random): one act; an error of a sibling ends it, any other is a bug found
    every: float = 1.0  # seconds between two acts, on average
    always: tuple[Check, ...] = ()  # check(world) after every commit; raises AssertionError when broken
    eventually: tuple[Check, ...] = ()  # check(world) that must hold some time after the faults have ended
    settle: float = 180.0  # seconds of quiet within which that must be
    settings: Mapping[str, Mapping[str, Any]] = {}  # by service, over the file's
    trouble: bool = False  # what others meet while it acts may be an error: it has no place in fair weather
    without: frozenset[str] = frozenset()  # services it can do without: when only these are hurt, nobody is refused

    async def __call__(self, world: Any, random: Random) -> object:
        """One act: `play(world, random)`, or `play(world)`; it may also drive the world itself, as a test does."""
        takes = len(inspect.signature(self.play).parameters)
        played: Any = self.play(*(world, random)[:takes])
        return await played if inspect.isawaitable(played) else played


def workload(
    *,
    every: float = 1.0,
    always: Sequence[Check] = (),
    eventually: Sequence[Check] = (),
    settle: float = 180.0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    trouble: bool = False,
    without: Iterable[str] = (),
) -> Callable[[Play], Workload]:
    """Make a workload of `async def act(world, random)`; the arguments as in `Workload`."""
    if every <= 0:
        raise ValueError(f"every: expected seconds above zero, got {every!r}.")

    def made(play: Play) -> Workload:
        name = str(getattr(play, "__name__", "act"))
        checks, apart = (tuple(always), tuple(eventually)), frozenset(without)
        return Workload(name, play, every, *checks, settle, settings or {}, trouble, apart)

    return made


def find(target: str) -> Workload:
    """The workload `module:name`, an undecorated function with the defaults; raises ConfigurationError without one."""
    module, colon, name = target.partition(":")
    if not colon:
        raise ConfigurationError(f"--workload {target}: expected module:function.")
    found = getattr(_module(target), name, None)
    if isinstance(found, Workload):
        return found
    if callable(found):
        return Workload(name, found)
    what = f"{module} has no {name!r}" if found is None else f"got {found!r}"
    raise ConfigurationError(f"--workload {target}: expected an async function of (world, random); {what}.")


def all_of(target: str) -> list[str]:
    """The targets that `target` means: itself, or of a module alone each of its workloads, in order."""
    if ":" in target:
        return [target]
    names = [name for name, value in vars(_module(target)).items() if isinstance(value, Workload)]
    if not names:
        raise ConfigurationError(f"--workload {target}: that module has no workload; expected module:function.")
    return [f"{target}:{name}" for name in names]


def _module(target: str) -> Any:
    try:
        return import_module(target.partition(":")[0])
    except ImportError as error:
        raise ConfigurationError(f"--workload {target}: {error}.") from error
