"""Many simulations: over seeds, over child processes, in order; and what they amount to.

    run_seeds(target, workloads, schedules, jobs)   an iterator of Outcomes, in the order of the schedules
    Runner                                          the same, one at a time, for shrinking
    Tally                                           what many outcomes amount to

A child simulates one schedule after another. When one takes its interpreter along, or does not come to an end, that is
an outcome like any other: broken, with the child's last words; another child takes over. No display and no clock here.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import IO, Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.logger import globalLogBeginner

from ..errors import ConfigurationError, DeclarationError
from .values import Outcome, Schedule

Simulate = Callable[[str, Sequence[str], Schedule], Outcome]
Verify = Callable[[str, Sequence[str], Schedule, str], str]  # the digest of the first time comes last

PATIENCE = 300.0  # seconds of real time for one schedule: hundreds of times what ten virtual minutes take
AHEAD = 8  # schedules per child that may be done before an earlier one is: what waits for its turn is bounded
LAST_WORDS = 4000  # characters of what a dead child wrote

# How a report of what broke begins when no invariant did.
RAISED = "The simulation raised"
HUNG = "The simulation did not end"
DIED = "The interpreter died"
IRREPRODUCIBLE = "Not reproducible"

_EXPECTED = {error.__name__: error for error in (ConfigurationError, DeclarationError)}


def run_seeds(
    target: str,
    workloads: Sequence[str],
    schedules: Iterable[Schedule],
    jobs: int,
    *,
    simulate: Simulate | None = None,
    verify: Verify | None = None,
    patience: float = PATIENCE,
) -> Generator[Outcome, None, None]:
    """Simulate the schedules in `jobs` child processes (0: in this one), yielding outcomes in the schedules' order.

    Whatever `jobs` is, the outcomes are the same. `schedules` may be endless: it is read as children become free, and
    closing the iterator ends them. `simulate` defaults to that of `simulation.py`; a child must be able to import it,
    and `verify`, which is called after it and breaks the outcome by finding a difference. `patience`: seconds of real
    time for one schedule.

    ConfigurationError or DeclarationError when the system or a workload cannot be used.
    """
    work = _Work(target, tuple(workloads), simulate or _simulate, verify)
    if jobs <= 0:
        yield from map(work.outcome, schedules)
        return
    children = [_Child(work, patience) for _ in range(jobs)]
    try:
        yield from _in_order(children, iter(schedules))
    finally:
        for child in children:
            child.close()


class Runner:
    """Simulates one schedule at a time, in child processes: what crashes there ends no search.

    with Runner("system.toml", ["workloads:book"], jobs=2) as runner:
        runner.expect([schedule, other])
        runner.run(schedule).broken
    """

    def __init__(
        self,
        target: str,
        workloads: Sequence[str],
        *,
        jobs: int = 1,
        simulate: Simulate | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`jobs`: child processes, all but one of which may be ahead; 0 simulates in this process."""
        self._work = _Work(target, tuple(workloads), simulate or _simulate, None)
        self._free = [_Child(self._work, patience) for _ in range(jobs)]
        self._busy: list[tuple[Schedule, _Child]] = []  # the one that was given its schedule first comes first
        self._inline = jobs <= 0

    def expect(self, schedules: Iterable[Schedule]) -> None:
        """Begin with these, as far as children are free: one of them is probably what is run next."""
        for schedule in schedules:
            if not self._free:
                return
            if all(schedule != begun for begun, _ in self._busy):
                self._begin(schedule)

    def run(self, schedule: Schedule) -> Outcome:
        """The outcome of `schedule`; errors as of `run_seeds`."""
        if self._inline:
            return self._work.outcome(schedule)
        if all(schedule != begun for begun, _ in self._busy):
            if not self._free:
                self._end(0)  # nobody asked for it after all
            self._begin(schedule)
        return self._end(next(place for place, (begun, _) in enumerate(self._busy) if begun == schedule))

    def close(self) -> None:
        """End the children. Closing twice does nothing."""
        for child in [*self._free, *(child for _, child in self._busy)]:
            child.close()

    def _begin(self, schedule: Schedule) -> None:
        child = self._free.pop()
        child.give(0, schedule)
        self._busy.append((schedule, child))

    def _end(self, place: int) -> Outcome:
        _, child = self._busy.pop(place)
        self._free.append(child)
        return child.take()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# -- what they amount to


class Tally:
    """What many outcomes amount to; each is added once."""

    def __init__(self) -> None:
        self.seeds = 0
        self.seconds = 0.0  # virtual
        self.acts: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._fired: Counter[str] = Counter()
        self._kinds: set[str] = set()

    def add(self, outcome: Outcome) -> None:
        """Count `outcome`."""
        self.seeds += 1
        self.seconds += outcome.seconds
        for total, part in ((self.acts, outcome.acts), (self.counts, outcome.counts), (self._fired, outcome.fired)):
            for name, number in part.items():
                total[name] += number  # update() would do, but for names whose number is 0: they are news, too
        self._kinds.update(fault.kind for fault in outcome.schedule.faults)

    @property
    def faults(self) -> dict[str, int]:
        """How often each kind of fault happened that some schedule held, by name; 0 for one that never did."""
        return {kind: self._fired[kind] for kind in sorted(self._kinds)}

    @property
    def points(self) -> dict[str, int]:
        """How often each point in the code that may misbehave did, by name; 0 for one that never did."""
        return {name: number for name, number in sorted(self._fired.items()) if name not in self._kinds}


# -- in a child process


def _simulate(target: str, workloads: Sequence[str], schedule: Schedule) -> Outcome:
    from ..engine import install

    install()  # before any service module is imported: it may import klein at its top
    from .simulation import simulate

    return simulate(target, workloads, schedule)


class _Work(Struct, frozen=True):
    """What a child is told once."""

    target: str
    workloads: tuple[str, ...]
    simulate: Simulate
    verify: Verify | None

    def outcome(self, schedule: Schedule) -> Outcome:
        """Simulate. An error that is raised breaks the outcome as an invariant does, but for a wrong declaration."""
        try:
            outcome = self.simulate(self.target, self.workloads, schedule)
            difference = self.verify(self.target, self.workloads, schedule, outcome.digest) if self.verify else ""
        except (ConfigurationError, DeclarationError):
            raise
        except Exception as error:
            said = "".join(traceback.format_exception(error))
            return broken(schedule, f"{RAISED} {type(error).__name__}: {error}\n{said[-LAST_WORDS:]}")
        if difference and not outcome.broken:
            return replace(outcome, broken=f"{IRREPRODUCIBLE}: {difference}")
        return outcome


def broken(schedule: Schedule, why: str) -> Outcome:
    """The outcome of a schedule that could not be simulated to its end."""
    return Outcome(schedule, broken=why, digest="", events=(), seconds=0.0, acts={}, fired={}, counts={})


def _serve(connection: Connection, output: str, work: _Work, patience: float) -> None:
    """A child's life: a schedule in, an outcome out, until the parent is gone. `output`: the file of its last words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    words = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(words, stream)
    faulthandler.enable()
    # Until somebody begins to log, Twisted keeps thousands of events, and with them the worlds they came from.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    while True:
        try:
            schedule = connection.recv()
        except EOFError:
            return
        os.ftruncate(words, 0)
        faulthandler.dump_traceback_later(patience, exit=True)
        try:
            answer: Any = work.outcome(schedule)
        except (ConfigurationError, DeclarationError) as error:
            answer = (next(name for name, kind in _EXPECTED.items() if isinstance(error, kind)), str(error))
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(answer)


# -- in the parent


class _Child:
    """One child process, and the one after it when it dies. It starts with its first schedule."""

    def __init__(self, work: _Work, patience: float) -> None:
        self.place = -1  # of the schedule it has
        self._work = work
        self._patience = patience
        self._schedule: Schedule | None = None
        self._process: Any = None
        self._connection: Connection | None = None
        self._output: IO[bytes] | None = None

    @property
    def connection(self) -> Connection:
        """Readable once the outcome is there, or the child is dead."""
        assert self._connection is not None, "A child that was given no schedule has nothing to say."
        return self._connection

    def give(self, place: int, schedule: Schedule) -> None:
        """Let it simulate `schedule`, the `place`-th."""
        if self._process is None:
            self._start()
        self.place, self._schedule = place, schedule
        try:
            self.connection.send(schedule)
        except OSError:  # it is dead already; take() tells why
            return

    def take(self) -> Outcome:
        """Wait for the outcome of what it was given. The child's death is one."""
        assert self._schedule is not None, "A child that was given no schedule has no outcome."
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            answer = broken(self._schedule, self._death())
        if isinstance(answer, tuple):
            name, said = answer
            raise _EXPECTED[name](said)
        outcome: Outcome = answer
        return outcome

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._forget()

    def _start(self) -> None:
        # Spawned: a forked child would share the parent's reactor, and its hash seed.
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._output = tempfile.NamedTemporaryFile(prefix="ropewalk-sim-")  # noqa: SIM115 - closed by _forget
        self._process = context.Process(
            target=_serve, args=(theirs, self._output.name, self._work, self._patience), daemon=True
        )
        self._process.start()
        theirs.close()  # else the end of the child would not be the end of the connection

    def _death(self) -> str:
        """How it died, and its last words."""
        assert self._output is not None
        self._process.join(5.0)
        self._process.kill()  # nothing to one that is dead; one that closed its connection and lives on is of no use
        self._process.join()
        code = self._process.exitcode
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._output.seek(0)
        said = self._output.read().decode(errors="replace")
        self._forget()
        if "Timeout (" in said and code == 1:
            return f"{HUNG} within {self._patience:g} s of real time: {said[-LAST_WORDS:].strip()}"
        return f"{DIED} ({how}): {said[-LAST_WORDS:].strip() or 'it said nothing.'}"

    def _forget(self) -> None:
        self._process.close()
        self._process = None
        if self._connection is not None:
            self._connection.close()
        if self._output is not None:
            self._output.close()


def _in_order(children: Sequence[_Child], schedules: Iterator[Schedule]) -> Iterator[Outcome]:
    """Keep all children busy; yield as soon as an outcome's turn has come."""
    free = deque(children)
    busy: dict[Connection, _Child] = {}
    done: dict[int, Outcome] = {}
    given = told = 0
    more = True
    while more or busy:
        while more and free and given - told < AHEAD * len(children):
            schedule = next(schedules, None)
            if schedule is None:
                more = False
                break
            child = free.popleft()
            child.give(given, schedule)
            busy[child.connection] = child
            given += 1
        for ready in wait(list(busy)) if busy else []:
            child = busy.pop(ready)  # type: ignore[call-overload]
            done[child.place] = child.take()
            free.append(child)
        while told in done:
            yield done.pop(told)
            told += 1
