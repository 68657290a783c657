"""Sagas of three durable steps on SQLite and on PostgreSQL, beside workflows of DBOS on the same PostgreSQL.

Measures, for each side in a process of its own that nothing else is asked of, a saga that is started and awaited; its
steps add one to a number, so that what is seen is the keeping:

* `sagas a second`: with 1, 50 and 300 outstanding, from the first one's start to the last one's result. `processor`:
  what the process takes of it for one saga, without the server; that depends least on what else the machine does.
* `alone`: from just before the start to the result, one at a time; the median.
* `one more step`: what a saga of eight steps takes longer than one of three, by a fifth.

The same is promised by both: a start is durable when it returns, a step's result before the next step begins, and the
end before it is told; what a crash has left is gone on with; a step that has a result is not done again, one whose
result was lost is; and a process that was taken for dead writes no more. Ropewalk asks a step under an idempotency key,
so that what it did in a database of Ropewalk's happens once even then; DBOS has that for the transactions of its data
sources. Both write READ COMMITTED with the saga's row locked: Ropewalk what is kept of many sagas in one transaction,
DBOS each thing in its own. In Ropewalk a saga runs where it is claimed, not because it was started there, and its
result is read from the database; DBOS runs it where it was started, and has the result in memory.

DBOS is measured with coroutines on uvloop and with plain functions in threads, each with the connections said. Nobody
writes a log or traces. Ropewalk has 4 connections, its default, and is asked for it all over HTTP once for each number.

The server is on 127.0.0.1 and pinned to nothing. What a COMMIT costs is the disk's affair. Sides are measured in turn
within a round, and each round begins with another one; `times` compares
round by round, so that a slow moment meets all.

    pip install -e '.[benchmarks]'
    python benchmarks/sagas.py [--rounds 5] [--sagas 900] [--alone 100] [--pools 20 50] [--sides ...] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from msgspec import Struct

import events
from events import POSTGRESQL
from ropewalk import Flow, Sagas, Service, operation, saga

STEPS, MORE_STEPS = 3, 8
OUTSTANDING = (1, 50, 300)
MANY = OUTSTANDING[1]  # with so many the processor's time is taken
NAME = f"ropewalk_sagas_{os.getpid()}"


class Took(Struct, frozen=True):
    """What some sagas took: seconds from the first start to the last result, of the processor, and each by itself."""

    all: float
    processor: float
    each: list[float]


async def drive(one: Callable[[], Awaitable[object]], number: int, outstanding: int) -> Took:
    """Do `one` so many times, so many of them outstanding."""
    each: list[float] = []

    async def some() -> None:
        for _ in range(number // outstanding):
            began = perf_counter()
            await one()
            each.append(perf_counter() - began)

    began, processor = perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(outstanding):
            group.create_task(some())
    return Took(perf_counter() - began, time.process_time() - processor, each)


# -- Ropewalk


class Counting(Service, name="counting"):
    """Counts."""

    def __init__(self, sagas: Sagas) -> None:
        self._sagas = sagas

    @operation
    async def work(self, number: int, outstanding: int, steps: int) -> Took:
        """Count with so many sagas."""
        return await drive(lambda: self._one(steps), number, outstanding)

    @saga
    async def count(self, flow: Flow, steps: int) -> int:
        """Count to `steps`."""
        number = 0
        for _ in range(steps):
            number = await flow.step(self._add, number)
        return number

    async def _add(self, number: int) -> int:
        return number + 1

    async def _one(self, steps: int) -> None:
        id = await self._sagas.start(self.count, steps)
        assert await self._sagas.result(id) == steps


SYSTEM = """
[system]
name = "sagas"
secret = "no secret: this is a benchmark"

[services]
counting = "sagas:Counting"

[processes]
counting = ["counting"]

[log]
level = "warning"
"""


def ropewalk(store: str, folder: Path) -> events.Asked:
    """Its process, as anybody runs it."""
    folder.mkdir()
    (folder / "system.toml").write_text(SYSTEM, "utf-8")
    found = {"PYTHONPATH": str(Path(__file__).parent), "ROPEWALK_ADAPTERS__STORE": store}
    return events.Asked({**os.environ, **found}, folder, "counting", events.free())


# -- DBOS


class Told(events.Told):
    """A process of DBOS."""

    def __init__(self, way: str, pool: int, url: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("sagas_dbos.py")), way, str(pool), url]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# -- what is measured


@contextmanager
def database(name: str) -> Iterator[str]:
    """A database of its own: its URL."""
    import psycopg

    with psycopg.connect(f"postgresql://{POSTGRESQL}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    try:
        yield f"postgresql://{POSTGRESQL}/{name}"
    finally:
        with psycopg.connect(f"postgresql://{POSTGRESQL}/postgres", autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


Side = Callable[..., Took]


@contextmanager
def sides(chosen: Sequence[str], pools: Sequence[int]) -> Iterator[dict[str, Side]]:
    """Those that were chosen, each with its process: `side(number=, outstanding=, steps=)`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, Any] = {}
        for number, side in enumerate(chosen):
            if side == "Ropewalk, SQLite":
                found[side] = ropewalk("sqlite", folder / "sqlite")
            elif side == "Ropewalk, PostgreSQL":
                found[side] = ropewalk(stack.enter_context(database(NAME)), folder / "postgresql")
            else:
                for pool in pools:
                    url = stack.enter_context(database(f"{NAME}_dbos_{number}_{pool}"))
                    found[f"{side}, {pool}"] = Told(side.split()[1], pool, url)
        for process in found.values():
            stack.callback(process.end)
        for process in found.values():
            process.wait()
        yield {name: _side(process) for name, process in found.items()}


def _side(process: Any) -> Side:
    return lambda **said: Took(**process.ask("work", **said))


SIDES = ("Ropewalk, SQLite", "Ropewalk, PostgreSQL", "DBOS coroutines", "DBOS threads")
RATES = {many: f"sagas a second, {many} outstanding" for many in OUTSTANDING}
ROWS = {
    **dict.fromkeys(RATES.values(), "{:8,.0f}  "),
    "processor, a saga": "{:8.2f} ms",
    "processor, one more step": "{:8.2f} ms",
    "alone, p50": "{:8.1f} ms",
    "alone, one more step": "{:8.1f} ms",
}


def once(side: Side, sagas: int, alone: int) -> dict[str, float]:
    """A round of one side, by row."""
    numbers = {many: sagas if many > 1 else alone for many in OUTSTANDING}
    found = {many: side(number=number, outstanding=many, steps=STEPS) for many, number in numbers.items()}
    longer = {many: side(number=numbers[many], outstanding=many, steps=MORE_STEPS) for many in (1, MANY)}
    processor = [each[MANY].processor / len(each[MANY].each) * 1e3 for each in (found, longer)]
    median = [statistics.median(each[1].each) * 1e3 for each in (found, longer)]
    return {
        **{RATES[many]: len(took.each) / took.all for many, took in found.items()},
        "processor, a saga": processor[0],
        "processor, one more step": (processor[1] - processor[0]) / (MORE_STEPS - STEPS),
        "alone, p50": median[0],
        "alone, one more step": (median[1] - median[0]) / (MORE_STEPS - STEPS),
    }


def measure(chosen: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """What each side had, by row, a value for each round."""
    values: dict[str, dict[str, list[float]]] = {row: {} for row in ROWS}
    with sides(chosen.sides, chosen.pools) as found:
        for side in found.values():
            once(side, OUTSTANDING[-1], 10)  # to connect and compile
        names = list(found)
        for number in range(chosen.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                for row, value in once(found[name], chosen.sagas, chosen.alone).items():
                    values[row].setdefault(name, []).append(value)
    return values


def times(row: str, found: dict[str, list[float]]) -> dict[str, float]:
    """How much better than the best of DBOS each side of Ropewalk's is, round by round; the median."""
    peers = [values for name, values in found.items() if name.startswith("DBOS")]
    if not peers or row.endswith("one more step"):  # a difference, which may be none
        return {}
    higher = row in RATES.values()
    best = [max(each) if higher else min(each) for each in zip(*peers, strict=True)]
    return {
        name: statistics.median(mine / peer if higher else peer / mine for mine, peer in zip(values, best, strict=True))
        for name, values in found.items()
        if name.startswith("Ropewalk")
    }


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--sagas", type=int, default=900)
    options.add_argument("--alone", type=int, default=100)
    options.add_argument("--pools", nargs="+", type=int, default=[20], help="connections of DBOS; 20 is its default")
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    values = measure(chosen)
    better = {row: times(row, found) for row, found in values.items()}
    if chosen.json:
        medians = {
            row: {side: statistics.median(each) for side, each in found.items()} for row, found in values.items()
        }
        said = {"values": values, "medians": medians, "times": better, "python": platform.python_version()}
        print(json.dumps(said))
        return
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, a load of {load:.1f}", end=", ")
    print(f"median (least, most) of {chosen.rounds} rounds; times: than the best of DBOS")
    for row, form in ROWS.items():
        print(f"\n{row}")
        for side, each in values[row].items():
            least, most = (form.format(value).strip() for value in (min(each), max(each)))
            than = f"{better[row][side]:6.1f} times" if side in better[row] else ""
            print(f"  {side:<22} {form.format(statistics.median(each))}  {f'({least}, {most})':<26} {than}".rstrip())


if __name__ == "__main__":
    main()
