"""Whether the simulator bites: every planted bug, hunted with the workload and the audit of its system.

    python tests/planted/teeth.py [NUMBER ...] [--seeds 200] [--minutes M] [--jobs 2] [--no-shrink]

For each bug: the first seed that finds it, how many events its shrunk story has, and what broke. Exit status 1 when one
is not found. Each is hunted in an interpreter of its own, on a copy of the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from ropewalk.testing import Schedule

sys.path.insert(0, str(Path(__file__).parent))
from planted import Planted, corpus, planted, python_path

WORKLOADS = {"examples/hotel/system.toml": "workload", "examples/trips/system.toml": "play"}


class Bite(Struct, frozen=True):
    """What became of one hunt."""

    number: int
    name: str
    seed: int | None  # that found it; None when none did
    events: int | None  # of the shrunk schedule: acts and faults, and what comes after these
    broken: str


def hunt(bug: Planted, *, seeds: int, minutes: float | None, jobs: int, shrink: bool) -> Bite:
    """Hunt one bug, for as long as it says unless `minutes` does; raises RuntimeError when the simulator itself fails."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        planted(copy, bug.patch)
        command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "sim"]
        command += [
            str(copy / bug.system),
            "--json",
            "--workload",
            WORKLOADS[bug.system],
            "--graveyard",
            str(copy / "graveyard"),
        ]
        command += ["--seeds", str(seeds), "--minutes", str(minutes or bug.minutes), "--jobs", str(jobs)]
        command += [] if shrink else ["--no-shrink"]
        environment = {**os.environ, "PYTHONPATH": python_path(copy, bug.system)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{bug.patch.name}: exit status {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)["failures"]
    if not found:
        return Bite(bug.number, bug.name, None, None, "")
    schedule = msgspec.convert(found[0]["schedule"], Schedule)
    return Bite(bug.number, bug.name, schedule.seed, schedule.size, found[0]["broken"])


def main() -> None:
    """Hunt those that are named, by default all; a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--minutes", type=float, help="virtual, of each seed (default: what the bug says, mostly 1)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-shrink", action="store_true")
    given = parser.parse_args()
    bites = []
    for bug in corpus():
        if given.numbers and bug.number not in given.numbers:
            continue
        bite = hunt(bug, seeds=given.seeds, minutes=given.minutes, jobs=given.jobs, shrink=not given.no_shrink)
        bites.append(bite)
        said = f"seed {bite.seed}, {bite.events} events: {bite.broken[:140]}" if bite.seed is not None else "NOT FOUND"
        sys.stdout.write(f"{bite.number:02} {bite.name:40} {said}\n")
        sys.stdout.flush()
    found = [bite.events for bite in bites if bite.events is not None]
    median = statistics.median(found) if found else "-"
    sys.stdout.write(f"{len(found)} of {len(bites)} found; median story: {median} events\n")
    sys.exit(len(found) < len(bites))


if __name__ == "__main__":
    main()
