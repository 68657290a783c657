"""What calls: each prints, as a line of JSON, how many calls a second it made and how busy its core was.

`CONNECTIONS` calls are under way at any time, each begun when one before it has its answer, as JSON and looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from .work import CONNECTIONS, ROOM, ROOM_PATH

WARM_UP = 0.5  # seconds before the measured ones: connections are made, and lazy imports


async def report(once: Callable[[], Any], seconds: float, together: Callable[..., Any]) -> None:
    """Call `once` for so long; `together` awaits several awaitables."""
    await paced(once, WARM_UP, together)
    rate, busy = await paced(once, seconds, together)
    print(json.dumps({"per_second": rate, "busy": busy}))


async def paced(once: Callable[[], Any], seconds: float, together: Callable[..., Any]) -> tuple[float, float]:
    """(calls a second, this process's share of its core)."""
    made, begin, used = 0, time.perf_counter(), time.process_time()
    end = begin + seconds

    async def caller() -> None:
        nonlocal made
        while time.perf_counter() < end:
            await once()
            made += 1

    await together(*(caller() for _ in range(CONNECTIONS)))
    took = time.perf_counter() - begin
    return made / took, (time.process_time() - used) / took


# -- on Twisted


def sibling(port: int, seconds: float) -> None:
    """The client that a service is given, with the filters it has there."""
    from ropewalk.engine import install

    install()
    on_reactor(sibling_call(port), seconds)


def sibling_call(port: int) -> Callable[[], Any]:
    """What makes one call; put together here as `runtime.link` does it for a service."""
    from random import Random

    from twisted.internet import reactor

    from ropewalk.driver import Driver
    from ropewalk.engine.pool import Pool
    from ropewalk.handler import compose
    from ropewalk.http.client import HTTPConnection
    from ropewalk.runtime.clock import Clock
    from ropewalk.runtime.stacks import client_stack
    from ropewalk.sibling import client_of
    from ropewalk.telemetry.metrics import Calls

    from .services import Rooms

    running: Any = reactor
    clock = Clock(running)
    connection = HTTPConnection(Pool(running), f"http://127.0.0.1:{port}", "rooms", 0, clock.seconds)
    meter = Calls("benchmark", "Calls", (("caller", "benchmark"),))
    stack = client_stack(clock=clock, random=Random(1), meter=meter, timeout=10.0)
    rooms = client_of(Rooms, compose(stack, connection), "benchmark", Driver.of(running))

    async def once() -> None:
        assert await rooms.read(7) == ROOM

    return once


def treq_on_engine(port: int, seconds: float) -> None:
    """treq over our Agent, on uvloop's reactor."""
    from ropewalk.engine import Agent, install

    install()
    from twisted.internet import reactor

    on_reactor(treq_call(Agent(reactor), port), seconds)


def treq_on_twisted(port: int, seconds: float) -> None:
    """treq as it comes, but for a pool that keeps as many connections as there are calls."""
    from twisted.internet import reactor
    from twisted.web.client import Agent, HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONNECTIONS
    on_reactor(treq_call(Agent(reactor, pool=pool), port), seconds)


def treq_call(agent: Any, port: int) -> Callable[[], Any]:
    """What makes one call."""
    from treq.client import HTTPClient

    client = HTTPClient(agent)

    async def once() -> None:
        reply = await client.get(f"http://127.0.0.1:{port}{ROOM_PATH}")
        assert await reply.json() == ROOM

    return once


def on_reactor(once: Callable[[], Any], seconds: float) -> None:
    """Run the reactor for it."""
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred, gatherResults

    running: Any = reactor

    async def together(*calls: Any) -> None:
        await gatherResults([ensureDeferred(each) for each in calls])

    def ended(result: Any) -> None:
        if result is not None:
            result.printTraceback()
        running.stop()

    running.callWhenRunning(lambda: ensureDeferred(report(once, seconds, together)).addBoth(ended))
    running.run()


# -- on asyncio


def aiohttp(port: int, seconds: float) -> None:
    """aiohttp's client, one session."""
    import asyncio

    import uvloop
    from aiohttp import ClientSession

    async def main() -> None:
        async with ClientSession(f"http://127.0.0.1:{port}") as session:

            async def once() -> None:
                async with session.get(ROOM_PATH) as reply:
                    assert await reply.json() == ROOM

            await report(once, seconds, asyncio.gather)

    uvloop.run(main())


def httpx(port: int, seconds: float) -> None:
    """httpx, one client with its own limits: one that keeps a connection for each call is slower still."""
    import asyncio

    import uvloop
    from httpx import AsyncClient

    async def main() -> None:
        async with AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def once() -> None:
                reply = await client.get(ROOM_PATH)
                assert reply.json() == ROOM

            await report(once, seconds, asyncio.gather)

    uvloop.run(main())
