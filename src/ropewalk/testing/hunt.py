"""The search for a seed that breaks: the graveyard first, then the seeds; what breaks is shrunk and written down.

How schedules become outcomes is `seeds.py`; who is shown how far it has come, and told in the end, is the command's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct, field

from .graveyard import bury, cause, exhume, slug
from .seeds import HUNG, IRREPRODUCIBLE, Runner, Simulate, Tally, Verify, run_seeds
from .shrink import BUDGET, shrink
from .story import mermaid, test_file
from .values import Outcome, Schedule

Plan = Callable[[str, Sequence[str], int, float, str], Schedule]


class Tools(Struct, frozen=True):
    """What it works with; a test brings its own."""

    plan: Plan
    simulate: Simulate | None = None  # None: the real one, found by the child process itself
    verify: Verify | None = None
    expand: Callable[[str, Sequence[str]], Sequence[str]] | None = None  # a module's name to those of its workloads


class Options(Struct, frozen=True):
    """What was asked for."""

    target: str
    workloads: tuple[str, ...]
    seeds: int
    first_seed: int
    seconds: float  # virtual, of each seed
    mode: str
    verify: bool
    graveyard: Path
    jobs: int
    stop_at: int  # failures; 0: never
    shrink: bool


class Shown(Protocol):
    """Whoever is shown how far it has come."""

    def now(self) -> float:
        """Real seconds, monotonic."""

    def begin(self, title: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def done(self, seconds: float, failures: int) -> None:
        """A simulation of that many virtual seconds is done; `failures`: how many there were so far."""

    def shrunk(self, calls: int, smallest: Schedule) -> None:
        """A smaller schedule was tried."""

    def end(self) -> None:
        """The stage is over."""


class Failure(Struct, frozen=True):
    """Something that broke."""

    outcome: Outcome  # of the shrunk schedule
    found: Schedule  # as it was before
    simulations: int = 0  # that shrinking took
    grave: Path | None = None  # what was replayed, if it was
    files: tuple[Path, ...] = ()  # what was written


class Report(Struct):
    """What came of it."""

    tally: Tally
    failures: list[Failure] = field(default_factory=list)
    graves: int = 0  # replayed
    elapsed: float = 0.0  # real seconds of simulating, shrinking apart
    interrupted: bool = False


def hunt(options: Options, tools: Tools, shown: Shown) -> Report:
    """Replay the graveyard, then run the seeds; shrink and keep what breaks.

    Ctrl-C ends the search and not the report. ConfigurationError or DeclarationError when the system or a workload
    cannot be used.
    """
    report = Report(Tally())
    broken: list[Failure] = []
    began = shown.now()
    try:
        _replay(options, tools, shown, report.tally, broken)
        report.graves = report.tally.seeds
        if not _is_enough(options, broken):
            _try_seeds(options, tools, shown, report.tally, broken)
    except KeyboardInterrupt:
        options, report.interrupted = msgspec.structs.replace(options, shrink=False), True
    report.elapsed = shown.now() - began
    for failure in broken:
        report.failures.append(_kept(options, tools, shown, failure))
    return report


def _is_enough(options: Options, broken: Sequence[Failure]) -> bool:
    return 0 < options.stop_at <= len(broken)


def _replay(options: Options, tools: Tools, shown: Shown, tally: Tally, broken: list[Failure]) -> None:
    """Simulate the graveyard, adding to `tally` and to `broken`."""
    graves = [grave for grave in exhume(options.graveyard) if _is_playable(options, grave[1])]
    schedules = [schedule for _, schedule in graves]
    shown.begin("graveyard", len(graves))
    with closing(
        run_seeds(options.target, options.workloads, schedules, options.jobs, simulate=tools.simulate)
    ) as outcomes:
        for (path, schedule), outcome in zip(graves, outcomes, strict=True):
            tally.add(outcome)
            if outcome.broken:
                broken.append(Failure(outcome, schedule, grave=path))
            shown.done(outcome.seconds, len(broken))


def _is_playable(options: Options, schedule: Schedule) -> bool:
    """Whether its acts are of the workloads that were named; a grave of others waits for a run with these."""
    names = {act.name for act in schedule.acts} | {late.name for late in schedule.late or ()}
    return names <= {workload.rpartition(":")[2] for workload in options.workloads}


def _try_seeds(options: Options, tools: Tools, shown: Shown, tally: Tally, broken: list[Failure]) -> None:
    """Simulate the seeds until enough broke, adding to `tally` and to `broken`."""
    shown.begin("seeds", options.seeds)
    outcomes = run_seeds(
        options.target,
        options.workloads,
        _schedules(options, tools),
        options.jobs,
        simulate=tools.simulate,
        verify=tools.verify if options.verify else None,
    )
    with closing(outcomes):
        for outcome in outcomes:
            tally.add(outcome)
            if outcome.broken:
                broken.append(Failure(outcome, outcome.schedule))
                if _is_kept(outcome):
                    bury(options.graveyard, outcome)  # at once: shrinking takes a while, and may be interrupted
            shown.done(outcome.seconds, len(broken))
            if _is_enough(options, broken):
                return


def _schedules(options: Options, tools: Tools) -> Iterator[Schedule]:
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        yield tools.plan(options.target, options.workloads, seed, options.seconds, _mode(options.mode, seed))


def _mode(mode: str, seed: int) -> str:
    if mode != "all":
        return mode
    return {0: "safety", 2: "safety", 7: "fair"}.get(seed % 8, "liveness")


def _is_kept(outcome: Outcome) -> bool:
    """A difference between two runs of a seed has no schedule to replay: the report says all there is."""
    return not outcome.broken.startswith(IRREPRODUCIBLE)


# -- what is done about a failure


def _kept(options: Options, tools: Tools, shown: Shown, failure: Failure) -> Failure:
    """The failure, shrunk and written down; one from the graveyard as it is."""
    if failure.grave is not None or not _is_kept(failure.outcome):
        return failure
    # One that hangs takes minutes of patience a try.
    if options.shrink and not failure.outcome.broken.startswith(HUNG):
        failure = _shrunk(options, tools, shown, failure)
    return msgspec.structs.replace(failure, files=_written(options, failure.outcome))


def _shrunk(options: Options, tools: Tools, shown: Shown, failure: Failure) -> Failure:
    """The same failure from a smaller schedule; Ctrl-C is content with the smallest so far."""
    smallest, calls = failure.outcome, 0

    def fails(schedule: Schedule) -> bool:
        nonlocal smallest, calls
        calls += 1
        outcome = runner.run(schedule)
        # Another failure is another story; it has a seed of its own.
        if not outcome.broken or cause(outcome) != cause(failure.outcome):
            return False
        smallest = outcome
        return True

    with Runner(options.target, options.workloads, jobs=options.jobs, simulate=tools.simulate) as runner:
        shown.begin(f"shrinking seed {failure.found.seed}", BUDGET)
        ended = failure.outcome.seconds
        try:
            shrink(failure.found, fails, ended=ended, budget=BUDGET, progress=shown.shrunk, ahead=runner.expect)
        except KeyboardInterrupt:
            shown.end()
    return msgspec.structs.replace(failure, outcome=smallest, simulations=calls)


def _written(options: Options, outcome: Outcome) -> tuple[Path, ...]:
    """Write the schedule, the diagram and the test; returns their paths."""
    schedule = bury(options.graveyard, outcome)
    diagram = schedule.with_suffix(".mmd")
    test = schedule.with_name(f"test_{slug(outcome)}.py")
    diagram.write_text(mermaid(outcome), encoding="utf-8")
    test.write_text(test_file(outcome, options.target, options.workloads, options.graveyard), encoding="utf-8")
    return schedule, diagram, test


def graveyard_of(target: str) -> Path:
    """`graveyard/` in the folder of the system file; in the working folder for `module:Service`."""
    path = Path(target)
    return (path.parent if ":" not in path.name else Path()) / "graveyard"
