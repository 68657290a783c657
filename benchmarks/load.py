"""What the full stack adds to a request at half load, and what a second worker brings.

Half load: an operation and a canned reply on uvloop and httptools (the ceiling of benchmarks.wire), each on a core of
its own, are asked at one steady rate, half of what the operation answers at most. A request's latency counts from the
moment at which it was due, whoever is busy then. Shown: the median and the 99th percentile of each, and what the
operation's are more.

Workers: an operation that takes a millisecond of processor time, asked by wrk, in a process of one worker and in one of
two; on as many cores, which they share with wrk where there are no more.

    python benchmarks/load.py [--rounds 3] [--seconds 3] [--json]

Needs Linux, uvloop, httptools, wrk and two cores, and nobody else on them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.wire.peers import SERVERS
from benchmarks.wire.processes import Cores, Server, asked, twistd
from benchmarks.wire.work import CONNECTIONS, ROOM_PATH, check

SERVICE = """
import time
from ropewalk import Service, get

class Rooms(Service, name="rooms"):
    @get("/rooms/<int:number>")
    async def read(self, number: int) -> dict[str, int]:
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass
        return {"number": number}
"""
SYSTEM = """
[services]
rooms = "busy:Rooms"

[processes]
rooms = {{services = ["rooms"], workers = {workers}}}
"""
REQUEST = f"GET {ROOM_PATH} HTTP/1.1\r\nHost: rooms\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    """Asks when it is told to; what is due meanwhile waits for its turn."""

    transport: Any

    def __init__(self, latencies: list[float]) -> None:
        self._latencies = latencies
        self._due: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, due: float) -> None:
        self._due.append(due)
        if len(self._due) == 1:
            self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"answered {data[:80]!r}")
        self._latencies.append(time.perf_counter() - self._due.pop(0))
        if self._due:
            self.transport.write(REQUEST)


async def steadily(port: int, rate: float, seconds: float) -> list[float]:
    """Seconds that each request took, of so many a second."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    made = [await loop.create_connection(lambda: Connection(latencies), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    begin, sent = time.perf_counter(), 0
    while (now := time.perf_counter()) < begin + seconds:
        while begin + sent / rate <= now:
            made[sent % CONNECTIONS][1].ask(begin + sent / rate)
            sent += 1
        await asyncio.sleep(0)
    while len(latencies) < sent:
        await asyncio.sleep(0.01)
    for transport, _ in made:
        transport.close()
    return latencies


def half(rounds: int, seconds: int, cores: Cores, stack: ExitStack, folder: Path) -> dict[str, Any]:
    """Milliseconds, by server: of each round the median and the 99th percentile."""
    import uvloop

    servers: dict[str, Server] = {}
    for peer in SERVERS[:2]:
        server = servers[peer.name] = Server.of(peer, "get", cores.measured, folder)
        stack.callback(server.end)
        server.wait_until_it_serves()
        check(server.port, "get")  # of workers the socket is there before they are
        server.halt()
    servers["ropewalk"].wake()
    rate = statistics.median(asked(servers["ropewalk"], "get", 2, cores.load, folder).per_second for _ in range(3)) / 2
    servers["ropewalk"].halt()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    os.sched_setaffinity(0, {cores.load})
    for _ in range(rounds):
        for name, server in servers.items():
            server.wake()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                latencies = runner.run(steadily(server.port, rate, seconds))
            server.halt()
            cut = statistics.quantiles(latencies, n=100)
            found[name].append((cut[49] * 1000, cut[98] * 1000))
    return {"rate": rate, "milliseconds": found}


def workers(rounds: int, seconds: int, cores: Cores, stack: ExitStack, folder: Path) -> dict[int, list[float]]:
    """Requests a second in each round, by the number of workers."""
    (folder / "busy.py").write_text(SERVICE, "utf-8")
    servers: dict[int, Server] = {}
    for count in (1, 2):
        (folder / f"{count}.toml").write_text(SYSTEM.format(workers=count), "utf-8")
        server = servers[count] = Server(
            f"{count} workers", f"workers-{count}", f"{cores.measured},{cores.load}", folder, command(count, folder)
        )
        stack.callback(server.end)
        server.wait_until_it_serves()
        check(server.port, "get")  # of workers the socket is there before they are
        server.halt()
    found: dict[int, list[float]] = {count: [] for count in servers}
    for _ in range(rounds):
        for count, server in servers.items():
            server.wake()
            found[count].append(asked(server, "get", seconds, cores.load, folder).per_second)
            server.halt()
    return found


def command(count: int, folder: Path) -> Callable[[int], list[str]]:
    """Of a process of so many workers, by its port."""
    return lambda port: twistd([f"{count}.toml", "--process=rooms", f"--port={port}", f"--data={folder / str(count)}"])


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    cores = Cores.found()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        busy = workers(chosen.rounds, chosen.seconds, cores, stack, folder)
        steady = half(chosen.rounds, chosen.seconds, cores, stack, folder)
    if chosen.json:
        print(json.dumps({"python": platform.python_version(), "workers": busy, "half_load": steady}))
        return
    one, two = (statistics.median(busy[count]) for count in (1, 2))
    print(f"Python {platform.python_version()}, medians of {chosen.rounds} rounds of {chosen.seconds} s\n")
    print(f"an operation of 1 ms: one worker {one:,.0f} a second, two {two:,.0f}: {two / one:.2f} times as many\n")
    print(f"{steady['rate']:,.0f} requests a second, half of what the operation answers at most; milliseconds")
    middles = {
        name: tuple(statistics.median(each[at] for each in found) for at in (0, 1))
        for name, found in steady["milliseconds"].items()
    }
    for name, (p50, p99) in middles.items():
        print(f"  {name:10} p50 {p50:6.3f}   p99 {p99:6.3f}")
    more = [ours - theirs for ours, theirs in zip(middles["ropewalk"], middles["ceiling"], strict=True)]
    print(f"  {'more':10} p50 {more[0]:6.3f}   p99 {more[1]:6.3f}")


if __name__ == "__main__":
    main()
