"""What the framework costs around an operation that does nothing.

Measures, in this process and without any socket: the driver, the making of a Request and the default server stack
(`runtime.stacks.server_stack`, as every service has it) around an empty operation, and where the time goes, by adding
one layer after the other. Does not measure the HTTP wire, JSON or the kernel; the log line of each request is off, as
its cost is that of its destination. The claim: at most 15 µs in all.

    python benchmarks/core.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
from collections.abc import Callable, Coroutine
from random import Random
from time import perf_counter
from typing import Any

from ropewalk.context import Context
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.engine import install
from ropewalk.filters.authenticate import Authenticate
from ropewalk.filters.deadline import Deadline
from ropewalk.filters.observe import Observe
from ropewalk.handler import Handler, compose
from ropewalk.message import Request, Response
from ropewalk.operation import get
from ropewalk.service import Service, describe
from ropewalk.telemetry.metrics import Calls

LIMIT = 15.0  # µs
CALLS = 20_000  # a round


class Empty(Service, name="empty"):
    """The operation that is measured, and nothing else."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Do nothing."""


async def bare(request: Request) -> Response:
    """The innermost handler of the first rows."""
    return Response()


def layers(clock: Any) -> list[tuple[str, Callable[[], Coroutine[Any, Any, Any]]]]:
    """(name, what makes the coroutine of one call), each with one layer more than the one before."""
    operation = describe(Empty).operations["nothing"]
    random, meter = Random(1), Calls("benchmark", "Requests")
    observe = Observe(random, clock.seconds, meter, lambda *_: None)
    deadline = Deadline(clock, 10.0, unless_given=True)
    authenticate = Authenticate(())
    metadata = {"host": "localhost", "user-agent": "benchmark"}

    async def empty() -> None:
        pass

    async def made(handler: Handler) -> Response:
        context = Context(None, None, "", 0, "", 1, None, "", "empty", "empty.nothing")
        return await handler(Request(operation, {}, context, metadata=metadata))

    def stack(handler: Handler, *filters: Any) -> Callable[[], Coroutine[Any, Any, Any]]:
        composed = compose(filters, handler)
        return lambda: made(composed)

    method = dispatch(Empty())
    return [
        ("driver, empty coroutine", empty),
        ("+ Request and Context", stack(bare)),
        ("+ dispatch to the method", stack(method)),
        ("+ authenticate", stack(method, authenticate)),
        ("+ deadline", stack(method, deadline, authenticate)),
        ("+ observe: the default stack", stack(method, observe, deadline, authenticate)),
    ]


def cost(driver: Driver, make: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """Microseconds a call, over one round."""
    start = driver.start
    began = perf_counter()
    for _ in range(CALLS):
        start(make())
    return (perf_counter() - began) / CALLS * 1e6


def main() -> None:
    """Print the table; exit with 1 when the last row is over the limit."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    install()
    from twisted.internet import reactor

    from ropewalk.runtime.clock import Clock

    driver, rows = Driver.of(reactor), layers(Clock(reactor))
    samples: dict[str, list[float]] = {name: [] for name, _ in rows}
    gc.freeze()
    for _ in range(chosen.rounds):  # layers in turn within a round, so that a slow moment of the machine meets all
        for name, make in rows:
            samples[name].append(cost(driver, make))
    medians = [(name, statistics.median(samples[name])) for name, _ in rows]
    total = medians[-1][1]
    if chosen.json:
        print(json.dumps({"microseconds": dict(medians), "limit": LIMIT, "python": platform.python_version()}))
    else:
        print(f"Python {platform.python_version()}, median of {chosen.rounds} rounds of {CALLS} calls\n")
        before = 0.0
        for name, value in medians:
            print(f"{name:<28} {value:6.2f} µs   {value - before:+6.2f}")
            before = value
        print(f"\nlimit {LIMIT:.0f} µs: {'kept' if total <= LIMIT else 'MISSED'}")
    raise SystemExit(total > LIMIT)


if __name__ == "__main__":
    main()
