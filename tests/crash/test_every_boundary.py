"""One booking for each boundary: the process dies there, comes again, and the booking ends as it should.

A boundary is where something leaves the process or comes to it: a system call on a file of its databases or on a
socket, by strace; a piece of bytes to or from its servers and its callers, by gates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from injected import DIES, FAILS, Place, happened, injected
from machines import SERVICES, System, wait_until
from money import LIMIT

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

WHOLE = {"all": list(SERVICES)}
SPLIT = {"caller": ["trips"], "callee": ["rooms", "money", "diary"]}
ENDS = {"completed": 50, "compensated": LIMIT + 1}  # what a trip costs that comes to this

Say = Callable[[str], None]
Fault = Callable[[int], AbstractContextManager[Any]]  # comes at the n-th boundary from now, while this lasts


class Survey:
    """The bookings of one system, each with its fault."""

    def __init__(self, system: System, end: str, say: Say) -> None:
        self.recoveries: list[float] = []  # seconds from a death to the end of the booking, the start included
        self._system = system
        self._end = end
        self._say = say
        self._expected: dict[str, str] = {}

    def booking(self, what: str, process: str, fault: AbstractContextManager[Any]) -> bool:
        """Book while `fault` is about to come to `process`; whether it died. All is over, and right, in the end."""
        system, trip = self._system, f"trip-{len(self._expected)}"
        self._expected[trip] = self._end
        taken = False

        def over() -> bool:
            nonlocal taken
            taken = taken or system.order(trip, "ann", ENDS[self._end])
            return taken and self._over()

        with fault:
            wait_until(lambda: not system.runs(process) or over(), lambda: self._told(what, trip))
        died, began = not system.runs(process), time.monotonic()
        if died:
            system.gone(process)
            system.start()
        wait_until(over, lambda: self._told(what, trip))
        if died:
            self.recoveries.append(time.monotonic() - began)
        try:
            system.audit(self._expected, dict.fromkeys(self._expected, "ann"))
        except AssertionError as error:
            raise AssertionError(f"{self._told(what, trip)}\n{error}") from None
        return died

    def each(self, what: str, process: str, fault: Fault, numbers: Iterator[int]) -> int:
        """A booking for each of these boundaries, until one of them is not reached; how often the process died."""
        for done, number in enumerate(numbers):
            if not self.booking(f"{what}, {number}", process, fault(number)):
                return done
            if done % 10 == 9:
                self._say(f"{what}: killed at {number}")
        raise AssertionError("unreachable")

    def _over(self) -> bool:
        return self._system.over() and self._system.backend.idle()

    def _told(self, what: str, trip: str) -> str:
        return f"{trip}, {what}; the log:\n{self._system.log}"


def places(data: Path, services: Sequence[str]) -> list[Place]:
    """The boundaries of a process with these services, as strace sees them; the first one has the broker."""
    files = [data / f"{name}.sqlite3-wal" for name in (*services, "broker")]
    written = [Place(call, file) for file in files for call in ("pwrite64", "fdatasync")]
    return [*written, *(Place(call) for call in ("write", "sendto", "sendmsg"))]


def told(recoveries: list[float]) -> str:
    """For the table in the documentation."""
    if not recoveries:
        return "killed at 0"
    middle, longest = statistics.median(recoveries), max(recoveries)
    return f"killed at {len(recoveries)}, recovered in {middle:.1f} s (median), {longest:.1f} s (longest)"


@pytest.mark.backend("strace")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("processes", "victim"), [(WHOLE, "all"), (SPLIT, "caller"), (SPLIT, "callee")])
def test_sqlite_and_the_built_in_broker(systems, say, full, tmp_path, processes, victim, end):
    system = systems("sqlite", processes)
    system.start()
    survey = Survey(system, end, say)

    for place in places(system.backend.data, processes[victim]):

        def dies(number: int, place: Place = place) -> AbstractContextManager[Any]:
            return injected(system.pid(victim), place, DIES, number, tmp_path / "trace")

        survey.each(f"{victim}, {place}", victim, dies, count(1, 1 if full else 5))

    say(f"SQLite, {victim}, {end}: {told(survey.recoveries)}")
    assert len(survey.recoveries) > 5


@pytest.mark.backend("strace")
@pytest.mark.parametrize("end", ENDS)
def test_a_disk_that_fails_once(systems, say, full, tmp_path, end):
    system = systems("sqlite", WHOLE)
    system.start()
    survey = Survey(system, end, say)
    failed = 0

    for place in places(system.backend.data, SERVICES):
        for number in count(1, 1 if full else 5) if place.file else ():
            fails = injected(system.pid("all"), place, FAILS, number, tmp_path / "trace")
            assert not survey.booking(f"{place} fails, {number}", "all", fails)
            if not happened(tmp_path / "trace"):
                break
            failed += 1

    say(f"SQLite, {end}: failed at {failed}")
    assert failed > 5


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=[pytest.mark.backend("postgresql"), pytest.mark.backend(name)])
        for name in ("rabbitmq", "redis")
    ],
)
def test_postgresql_and_a_broker(systems, say, full, backend, end):
    lanes = [systems(backend, WHOLE) for _ in range(4)]  # for most of a recovery nobody does anything but wait
    step = 1 if full else 16

    def survey(lane: int) -> list[float]:
        system = lanes[lane]
        system.start()
        mine = Survey(system, end, say)
        toll = system.backend.toll
        mine.each(backend, "all", lambda number: armed(toll, number, system), count(1 + lane * step, step * len(lanes)))
        return mine.recoveries

    with ThreadPoolExecutor(len(lanes)) as pool:
        recoveries = [each for lane in pool.map(survey, range(len(lanes))) for each in lane]

    say(f"PostgreSQL and {backend}, {end}: {told(recoveries)}")
    assert len(recoveries) > 5


@contextmanager
def armed(toll: Any, number: int, system: System) -> Iterator[None]:
    """While this lasts, the process dies before the piece number `number` passes."""
    toll.arm(number, lambda: system.kill("all"))
    yield
    toll.arm(0, lambda: None)
