"""One schedule again, in a fresh process. As a program it plays one, for that."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .simulation import simulate
from .values import Outcome, Schedule

SWEEPS = (250, 20_000)  # turns between two collections of garbage: often, and hardly ever


def verify(target: str, workloads: Sequence[str], schedule: Schedule, digest: str = "") -> str:
    """Play `schedule` again in fresh interpreters, unlike in all that must not matter; "" or the first difference.

    Twice; once when it was played already, with `digest`.
    """
    digests = [
        _elsewhere(target, workloads, schedule, 1, None),
        digest or _elsewhere(target, workloads, schedule, 2, None),
    ]
    if digests[0] == digests[1]:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in (1, 2)]
        for number, path in enumerate(paths, 1):
            _elsewhere(target, workloads, schedule, number, path)
        with open(paths[0], encoding="utf-8") as first, open(paths[1], encoding="utf-8") as second:
            for line, (one, other) in enumerate(zip(first, second, strict=False), 1):
                if one != other:
                    return f"line {line} of the log:\n  {one.rstrip()[:400]}\n  {other.rstrip()[:400]}"
    return f"digests {digests[0]} and {digests[1]}; in two fresh interpreters the logs have no line that differs"


def _elsewhere(target: str, workloads: Sequence[str], schedule: Schedule, number: int, trace: Path | None) -> str:
    command = [
        sys.executable,
        "-m",
        "ropewalk.testing.verifying",
        target,
        *workloads,
        "--sweep",
        str(SWEEPS[number - 1]),
    ]
    if trace is not None:
        command += ["--trace", str(trace)]
    environment = {**os.environ, "PYTHONHASHSEED": str(schedule.seed * 2 + number)}
    done = subprocess.run(
        command, input=msgspec.json.encode(schedule), capture_output=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"A simulation ended with exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        )
    return msgspec.json.decode(done.stdout, type=Outcome).digest


def main(arguments: Sequence[str]) -> None:
    """`target workload... [--sweep N] [--trace FILE]`: a Schedule as JSON on standard input, an Outcome on output."""
    from argparse import ArgumentParser

    parser = ArgumentParser("python -m ropewalk.testing.verifying", description=main.__doc__)
    parser.add_argument("target")
    parser.add_argument("workloads", nargs="+")
    parser.add_argument("--sweep", type=int, default=20_000)
    parser.add_argument("--trace")
    given = parser.parse_args(arguments)
    schedule = msgspec.json.decode(sys.stdin.buffer.read(), type=Schedule)
    if given.trace is None:
        outcome = simulate(given.target, given.workloads, schedule, sweep=given.sweep)
    else:
        with open(given.trace, "w", encoding="utf-8") as file:
            outcome = simulate(
                given.target, given.workloads, schedule, sweep=given.sweep, trace=lambda line: file.write(line + "\n")
            )
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(sys.argv[1:])
