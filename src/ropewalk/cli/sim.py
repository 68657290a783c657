"""`ropewalk sim TARGET`: the system under a workload, in simulated worlds, until one of them breaks.

The search itself is `testing/hunt.py`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console

from ..errors import ConfigurationError, DeclarationError
from .sim_display import display_on
from .sim_report import document, tell

if TYPE_CHECKING:
    from ..testing.hunt import Tools


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
    from ..testing.hunt import Options, graveyard_of, hunt

    options = Options(
        target=target,
        workloads=tuple(workloads),
        seeds=seeds,
        first_seed=first_seed,
        seconds=minutes * 60,
        mode=mode,
        verify=verify,
        graveyard=graveyard or graveyard_of(target),
        jobs=len(os.sched_getaffinity(0)) if jobs is None else jobs,
        stop_at=stop_at,
        shrink=not no_shrink,
    )
    # A script reads standard output; whoever watches it reads the other one.
    stream = sys.stderr if as_json else sys.stdout
    console = Console(stderr=as_json, width=None if stream.isatty() else 120, highlight=False, soft_wrap=True)
    with display_on(console) as display:
        try:
            tools = tools or _real_tools()
            if tools.expand is not None:
                options = msgspec.structs.replace(options, workloads=tuple(tools.expand(target, workloads)))
            report = hunt(options, tools, display)
        except (ConfigurationError, DeclarationError) as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(document(options, report), indent=2))
    else:
        tell(console, options, report)
    sys.exit(1 if report.failures else 130 if report.interrupted else 0)


def _real_tools() -> Tools:
    from ..engine import install

    install()  # before any service module is imported: it may import klein at its top
    from ..testing.hunt import Tools
    from ..testing.planning import expand, plan
    from ..testing.verifying import verify

    return Tools(plan, None, verify, expand)
