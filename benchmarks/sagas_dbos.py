"""DBOS as its documentation has it: workflows of steps, as coroutines or as plain functions in threads.

A process of `benchmarks/sagas.py`, which says what is compared.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from time import perf_counter

import msgspec
import uvloop
from dbos import DBOS, DBOSConfig

from sagas import OUTSTANDING, Took, drive

WORKERS = max(OUTSTANDING)  # threads that may run a workflow, one for each


@DBOS.step()
async def add_soon(number: int) -> int:
    """Add one."""
    return number + 1


@DBOS.workflow()
async def count_soon(steps: int) -> int:
    """Count to `steps`."""
    number = 0
    for _ in range(steps):
        number = await add_soon(number)
    return number


@DBOS.step()
def add(number: int) -> int:
    """Add one."""
    return number + 1


@DBOS.workflow()
def count(steps: int) -> int:
    """Count to `steps`."""
    number = 0
    for _ in range(steps):
        number = add(number)
    return number


async def work_in_coroutines(number: int, outstanding: int, steps: int) -> Took:
    """So many workflows, so many of them outstanding."""

    async def one() -> None:
        handle = await DBOS.start_workflow_async(count_soon, steps)
        assert await handle.get_result() == steps

    return await drive(one, number, outstanding)


def work_in_threads(number: int, outstanding: int, steps: int) -> Took:
    """The same, a thread for each that is outstanding."""
    each: list[float] = []

    def some() -> None:
        for _ in range(number // outstanding):
            began = perf_counter()
            assert DBOS.start_workflow(count, steps).get_result() == steps
            each.append(perf_counter() - began)

    threads = [threading.Thread(target=some) for _ in range(outstanding)]
    began, processor = perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(each) == number // outstanding * outstanding
    return Took(perf_counter() - began, time.process_time() - processor, each)


async def serve(way: str, pool: int, url: str) -> None:
    """Do what it is told, a line of JSON each, and answer with one."""
    config: DBOSConfig = {
        "name": "counting",
        "system_database_url": url,
        "sys_db_pool_size": pool,
        "max_executor_threads": WORKERS,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    print("null", flush=True)
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        said = json.loads(line)
        del said["what"]
        if way == "coroutines":
            took = await work_in_coroutines(**said)
        else:
            took = await asyncio.get_running_loop().run_in_executor(None, lambda said=said: work_in_threads(**said))
        print(msgspec.json.encode(took).decode(), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    way, pool, url = sys.argv[1:]
    uvloop.run(serve(way, int(pool), url))
