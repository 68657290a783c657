"""`ropewalk sim TARGET`: the system under a workload, in simulated worlds, until one of them breaks.

    sim       the command: options in, exit status out
    hunt      the search: graveyard, seeds, shrinking; it writes files and tells a Display
    Display   what is seen while it goes on: a progress bar on a terminal, else lines

How schedules become outcomes is `testing/seeds.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..errors import ConfigurationError, DeclarationError

if TYPE_CHECKING:
    from ..testing.seeds import Simulate, Tally, Verify
    from ..testing.values import Outcome, Schedule

Plan = Callable[[str, Sequence[str], int, float, str], "Schedule"]

LONGEST_REPORT = 2000  # characters of what broke that are shown; the file has all


class Tools(Struct, frozen=True):
    """What the command works with; given as click's context object, a test brings its own."""

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


@click.command()
@click.argument("target", default="system.toml")
@click.option(
    "--workload",
    "-w",
    "workloads",
    multiple=True,
    required=True,
    metavar="MODULE[:NAME]",
    help="What the outside does to the system; of a module alone, all of its workloads. May be given several times: "
    "they then run together.",
)
@click.option(
    "--seeds", default=200, show_default=True, type=click.IntRange(min=0), help="How many; 0: the graveyard alone."
)
@click.option("--first-seed", default=0, show_default=True, help="The first of them; each next one is one more.")
@click.option(
    "--minutes",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Virtual minutes for each seed.",
)
@click.option(
    "--mode",
    type=click.Choice(["safety", "liveness", "fair", "all"]),
    default="all",
    show_default=True,
    help="safety: faults to the end, and no invariant may break. liveness: faults stop at two thirds of the time, and "
    "then all must finish. fair: no faults, and nothing may be refused. all: of eight seeds two safety, five "
    "liveness, one fair.",
)
@click.option(
    "--verify", is_flag=True, help="Run each seed a second time in a fresh interpreter; a difference is a failure."
)
@click.option(
    "--graveyard",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where failing schedules are kept, to be replayed first. (default: graveyard/ beside the system file)",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=0),
    help="Child processes. 0: none, for a debugger. (default: as many as there are processors)",
)
@click.option(
    "--stop-at", default=1, show_default=True, type=click.IntRange(min=0), help="Failures to stop at; 0: at none."
)
@click.option("--no-shrink", is_flag=True, help="Keep failing schedules as large as they were found.")
@click.option("--json", "as_json", is_flag=True, help="For a script: one JSON document on standard output.")
@click.pass_obj
def sim(
    tools: Tools | None,
    target: str,
    workloads: tuple[str, ...],
    seeds: int,
    first_seed: int,
    minutes: float,
    mode: str,
    verify: bool,
    graveyard: Path | None,
    jobs: int | None,
    stop_at: int,
    no_shrink: bool,
    as_json: bool,
) -> None:
    """Run TARGET in simulated worlds, one for each seed, and look for one that breaks.

    Each seed is a schedule of work and of faults: crashes, partitions, slow links, clocks that jump. What breaks is
    shrunk to the few events that matter, told as a sequence diagram, kept in the graveyard as a schedule, a Mermaid
    diagram and a pytest file, and replayed first from then on.

    Exit status 1 when something broke.

    \b
        ropewalk sim system.toml --workload workloads
        ropewalk sim system.toml -w workloads:book -w workloads:cancel --seeds 5000 --mode safety
    """
    options = Options(
        target=target,
        workloads=tuple(workloads),
        seeds=seeds,
        first_seed=first_seed,
        seconds=minutes * 60,
        mode=mode,
        verify=verify,
        graveyard=graveyard or _beside(target),
        jobs=len(os.sched_getaffinity(0)) if jobs is None else jobs,
        stop_at=stop_at,
        shrink=not no_shrink,
    )
    # A script reads standard output; whoever watches it reads the other one.
    stream = sys.stderr if as_json else sys.stdout
    console = Console(stderr=as_json, width=None if stream.isatty() else 120, highlight=False, soft_wrap=True)
    with _display(console) as display:
        try:
            tools = tools or _real_tools()
            if tools.expand is not None:
                options = msgspec.structs.replace(options, workloads=tuple(tools.expand(target, workloads)))
            report = hunt(options, tools, display)
        except (ConfigurationError, DeclarationError) as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_document(options, report), indent=2))
    else:
        _tell(console, options, report)
    sys.exit(1 if report.failures else 130 if report.interrupted else 0)


def _beside(target: str) -> Path:
    """`graveyard/` in the folder of the system file; in the working folder for `module:Service`."""
    path = Path(target)
    return (path.parent if ":" not in path.name else Path()) / "graveyard"


def _real_tools() -> Tools:
    from ..engine import install

    install()  # before any service module is imported: it may import klein at its top
    from ..testing.simulation import expand, plan, verify

    return Tools(plan, None, verify, expand)


# -- the search


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


def hunt(options: Options, tools: Tools, display: Display) -> Report:
    """Replay the graveyard, then run the seeds; shrink and keep what breaks.

    Ctrl-C ends the search and not the report. ConfigurationError or DeclarationError when the system or a workload
    cannot be used.
    """
    from ..testing.seeds import Tally

    report = Report(Tally())
    broken: list[Failure] = []
    began = display.now()
    try:
        _replay(options, tools, display, report.tally, broken)
        report.graves = report.tally.seeds
        if not _is_enough(options, broken):
            _try_seeds(options, tools, display, report.tally, broken)
    except KeyboardInterrupt:
        options, report.interrupted = msgspec.structs.replace(options, shrink=False), True
    report.elapsed = display.now() - began
    for failure in broken:
        report.failures.append(_kept(options, tools, display, failure))
    return report


def _is_enough(options: Options, broken: Sequence[Failure]) -> bool:
    return 0 < options.stop_at <= len(broken)


def _replay(options: Options, tools: Tools, display: Display, tally: Tally, broken: list[Failure]) -> None:
    """Simulate the graveyard, adding to `tally` and to `broken`."""
    from ..testing.graveyard import exhume
    from ..testing.seeds import run_seeds

    graves = [grave for grave in exhume(options.graveyard) if _is_playable(options, grave[1])]
    schedules = [schedule for _, schedule in graves]
    display.begin("graveyard", len(graves))
    with closing(
        run_seeds(options.target, options.workloads, schedules, options.jobs, simulate=tools.simulate)
    ) as outcomes:
        for (path, schedule), outcome in zip(graves, outcomes, strict=True):
            tally.add(outcome)
            if outcome.broken:
                broken.append(Failure(outcome, schedule, grave=path))
            display.done(outcome.seconds, len(broken))


def _is_playable(options: Options, schedule: Schedule) -> bool:
    """Whether its acts are of the workloads that were named; a grave of others waits for a run with these."""
    return {act.name for act in schedule.acts} <= {workload.rpartition(":")[2] for workload in options.workloads}


def _try_seeds(options: Options, tools: Tools, display: Display, tally: Tally, broken: list[Failure]) -> None:
    """Simulate the seeds until enough broke, adding to `tally` and to `broken`."""
    from ..testing.graveyard import bury
    from ..testing.seeds import run_seeds

    display.begin("seeds", options.seeds)
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
            display.done(outcome.seconds, len(broken))
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
    from ..testing.seeds import IRREPRODUCIBLE

    return not outcome.broken.startswith(IRREPRODUCIBLE)


# -- what is done about a failure


def _kept(options: Options, tools: Tools, display: Display, failure: Failure) -> Failure:
    """The failure, shrunk and written down; one from the graveyard as it is."""
    from ..testing.seeds import HUNG

    if failure.grave is not None or not _is_kept(failure.outcome):
        return failure
    # One that hangs takes minutes of patience a try.
    if options.shrink and not failure.outcome.broken.startswith(HUNG):
        failure = _shrunk(options, tools, display, failure)
    return msgspec.structs.replace(failure, files=_written(options, failure.outcome))


def _shrunk(options: Options, tools: Tools, display: Display, failure: Failure) -> Failure:
    """The same failure from a smaller schedule; Ctrl-C is content with the smallest so far."""
    from ..testing.graveyard import cause
    from ..testing.seeds import Runner
    from ..testing.shrink import BUDGET, shrink

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
        display.begin(f"shrinking seed {failure.found.seed}", BUDGET)
        ended = failure.outcome.seconds
        try:
            shrink(failure.found, fails, ended=ended, budget=BUDGET, progress=display.shrunk, ahead=runner.expect)
        except KeyboardInterrupt:
            display.end()
    return msgspec.structs.replace(failure, outcome=smallest, simulations=calls)


def _written(options: Options, outcome: Outcome) -> tuple[Path, ...]:
    """Write the schedule, the diagram and the test; returns their paths."""
    from ..testing.graveyard import bury, slug
    from ..testing.story import mermaid, test_file

    schedule = bury(options.graveyard, outcome)
    diagram = schedule.with_suffix(".mmd")
    test = schedule.with_name(f"test_{slug(outcome)}.py")
    diagram.write_text(mermaid(outcome), encoding="utf-8")
    test.write_text(test_file(outcome, options.target, options.workloads, options.graveyard), encoding="utf-8")
    return schedule, diagram, test


# -- what is seen while it goes on


class Display:
    """Progress as lines: for a log, and for whoever has no terminal. It is the base of the other one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._title = ""
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._virtual = 0.0  # seconds simulated in this stage

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def now(self) -> float:
        """The console's clock, in seconds: real time, monotonic."""
        return self.console.get_time()

    def begin(self, title: str, total: int) -> None:
        """A stage of `total` steps begins; a stage without steps is not shown."""
        self.end()
        self._title, self._total, self._done, self._virtual = title, total, 0, 0.0
        self._began = self.now()

    def done(self, seconds: float, failures: int) -> None:
        """A simulation of that many virtual seconds is done; `failures`: how many there were so far."""
        self._done += 1
        self._virtual += seconds
        self.show(f"{ratio(self._virtual, self.now() - self._began)}, {_counted(failures, 'failure')}")

    def shrunk(self, calls: int, smallest: Schedule) -> None:
        """A smaller schedule was tried."""
        self._done = calls
        self.show(_size(smallest))

    def show(self, words: str) -> None:
        """Show where it stands: at every tenth part, and at the end."""
        step = max(1, self._total // 10)
        if self._done % step == 0 or self._done == self._total:
            self.console.print(f"{self._title}: {self._done}/{self._total}, {words}", markup=False)

    def end(self) -> None:
        """The stage is over."""


class LiveDisplay(Display):
    """Progress as a bar on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress: Progress | None = None

    def begin(self, title: str, total: int) -> None:
        super().begin(title, total)
        if total == 0:
            return
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"),
            console=self.console, transient=True,
        )  # fmt: skip
        self._progress.add_task(title, total=total, words="")
        self._progress.start()

    def show(self, words: str) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self._done, words=words)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _display(console: Console) -> Display:
    return LiveDisplay(console) if console.is_terminal else Display(console)


def ratio(virtual: float, real: float) -> str:
    """How much faster than life, of seconds and seconds.

    >>> ratio(3600, 1.5)
    '2,400 : 1'
    """
    return f"{virtual / real:,.0f} : 1" if real > 0 else "- : 1"


# -- what is said at the end


def _tell(console: Console, options: Options, report: Report) -> None:
    for failure in report.failures:
        _tell_failure(console, options, failure)
    console.print(_statistics(report))
    if report.interrupted:
        console.print("Interrupted: the rest was not simulated.")
    elif not report.failures:
        console.print("Nothing broke.")


def _tell_failure(console: Console, options: Options, failure: Failure) -> None:
    from ..testing.story import text

    schedule = failure.outcome.schedule
    where = f" ({failure.grave})" if failure.grave else ""
    console.print(Text(f"\nSeed {schedule.seed}, {schedule.mode}{where}: broken", style="bold red"))
    console.print(f"{failure.outcome.broken[:LONGEST_REPORT]}\n", markup=False)
    if failure.simulations:
        console.print(f"Shrunk from {_size(failure.found)} to {_size(schedule)} by {failure.simulations} simulations.")
    for line in _lines(schedule):
        console.print(f"  {line}", markup=False)
    console.print()
    told = text(failure.outcome, width=console.width, colour=console.is_terminal and not console.no_color)
    console.print(Text.from_ansi(told), no_wrap=True)
    for path in failure.files:
        console.print(f"Written: {path}", markup=False)
    console.print(f"Once more: {_again(options, failure)}\n", markup=False)


def _lines(schedule: Schedule) -> Iterable[str]:
    """The schedule for reading, by time."""
    acts = [(act.at, f"{act.name} #{act.number}") for act in schedule.acts]
    faults = [
        (fault.at, f"{fault.kind} {fault.target}" + (f" {fault.value:g}" if fault.value else ""))
        for fault in schedule.faults
    ]
    yield from (f"{at:>10.3f} s  {what}" for at, what in sorted(acts + faults, key=lambda entry: entry[0]))
    yield f"{schedule.seconds:>10.3f} s  the end"


def _again(options: Options, failure: Failure) -> str:
    """The command that plays it again: by its file where it has one, else by its seed."""
    schedule = failure.found
    command = ["ropewalk", "sim", options.target]
    for workload in options.workloads:
        command += ["--workload", workload]
    if failure.grave or failure.files:
        command += ["--seeds", "0"]
        if options.graveyard != _beside(options.target):
            command += ["--graveyard", str(options.graveyard)]
    else:
        command += ["--first-seed", str(schedule.seed), "--seeds", "1", "--mode", schedule.mode]
        command += ["--minutes", f"{schedule.seconds / 60:g}", *["--verify"] * options.verify]
    return shlex.join(command)


def _size(schedule: Schedule) -> str:
    return (
        f"{_counted(len(schedule.acts), 'act')} and {_counted(len(schedule.faults), 'fault')} in {schedule.seconds:g} s"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _statistics(report: Report) -> Table:
    tally = report.tally
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    never = [name for name, number in tally.points.items() if not number]
    rows = [
        ("simulated", f"{_counted(tally.seeds - report.graves, 'seed')}, {_counted(report.graves, 'grave')}"),
        (
            "virtual time",
            f"{tally.seconds / 3600:,.1f} hours in {report.elapsed:,.1f} s, {ratio(tally.seconds, report.elapsed)}",
        ),
        ("acts", _numbers(tally.acts)),
        ("faults", _numbers(tally.faults)),
        ("points that fired", _numbers({name: number for name, number in tally.points.items() if number})),
        ("that never did", ", ".join(never)),
        ("counts", _numbers(tally.counts)),
    ]
    for name, value in rows:
        table.add_row(name, Text(value or "none"))
    return table


def _numbers(numbers: Any) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(numbers.items()))


def _document(options: Options, report: Report) -> dict[str, Any]:
    tally = report.tally
    return {
        "target": options.target,
        "workloads": list(options.workloads),
        "seeds": tally.seeds - report.graves,
        "graves": report.graves,
        "interrupted": report.interrupted,
        "virtual_seconds": tally.seconds,
        "real_seconds": report.elapsed,
        "acts": dict(sorted(tally.acts.items())),
        "faults": tally.faults,
        "points": tally.points,
        "counts": dict(sorted(tally.counts.items())),
        "failures": [_failure_document(failure) for failure in report.failures],
    }


def _failure_document(failure: Failure) -> dict[str, Any]:
    outcome = failure.outcome
    return {
        "seed": outcome.schedule.seed,
        "mode": outcome.schedule.mode,
        "broken": outcome.broken,
        "digest": outcome.digest,
        "schedule": msgspec.to_builtins(outcome.schedule),
        "simulations": failure.simulations,
        "grave": str(failure.grave) if failure.grave else None,
        "files": [str(path) for path in failure.files],
    }
