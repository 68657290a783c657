"""What `ropewalk sim` says in the end: each failure as a story, what was simulated, what fired; or that as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .sim_display import counted, ratio, size_of

if TYPE_CHECKING:
    from ..testing.hunt import Failure, Options, Report
    from ..testing.values import Schedule

LONGEST_REPORT = 2000  # characters of what broke that are shown; the file has all


def tell(console: Console, options: Options, report: Report) -> None:
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
        console.print(
            f"Shrunk from {size_of(failure.found)} to {size_of(schedule)} by {failure.simulations} simulations."
        )
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
    yield f"{schedule.seconds:>10.3f} s  the end" + (", and then" if schedule.late or schedule.blind else "")
    yield from (f"{'blind':>12}  {name} starts anew" for name in schedule.blind or ())
    yield from (f"{late.phase:>12}  {late.name} #{late.number}" for late in schedule.late or ())


def _again(options: Options, failure: Failure) -> str:
    """The command that plays it again: by its file where it has one, else by its seed."""
    from ..testing.hunt import graveyard_of

    schedule = failure.found
    command = ["ropewalk", "sim", options.target]
    for workload in options.workloads:
        command += ["--workload", workload]
    if failure.grave or failure.files:
        command += ["--seeds", "0"]
        if options.graveyard != graveyard_of(options.target):
            command += ["--graveyard", str(options.graveyard)]
    else:
        command += ["--first-seed", str(schedule.seed), "--seeds", "1", "--mode", schedule.mode]
        command += ["--minutes", f"{schedule.seconds / 60:g}", *["--verify"] * options.verify]
    return shlex.join(command)


def _statistics(report: Report) -> Table:
    tally = report.tally
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    never = [name for name, number in tally.points.items() if not number]
    rows = [
        ("simulated", f"{counted(tally.seeds - report.graves, 'seed')}, {counted(report.graves, 'grave')}"),
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


def document(options: Options, report: Report) -> dict[str, Any]:
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
