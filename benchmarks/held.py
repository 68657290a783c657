"""Thousands of requests that wait on a sibling at once, in one process; and what each keeps in memory.

A service in one process asks a sibling in another, over HTTP, for each request; the sibling answers after a second.
All requests are sent at once, over as many connections. Measured: seconds from the first byte sent to the last reply,
in several rounds (in the first the connections to the sibling are made, too); and in the asking process its resident
memory, for each connection that is open and unused, and for each request while it waits, its connection and the one to
the sibling included. Beside it the same in WSGI, with 64 threads that wait (waitress, where it is installed).

    python benchmarks/held.py [--requests 9000] [--rounds 3] [--json]

Needs two cores, and some more than twice as many open files as requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SERVICES = """
import asyncio
from ropewalk import Service, get

class Far(Service, name="far"):
    @get("/far/<int:number>")
    async def wait(self, number: int) -> dict[str, int]:
        await asyncio.sleep(1)
        return {"number": number}

class Near(Service, name="near"):
    def __init__(self, far: Far) -> None:
        self.far = far

    @get("/near/<int:number>")
    async def ask(self, number: int) -> dict[str, int]:
        return await self.far.wait(number)
"""
SYSTEM = """
[system]
name = "held"
secret = "no secret: this is a benchmark"

[services]
near = "held_services:Near"
far = "held_services:Far"

[processes]
near = ["near"]
far = ["far"]
"""
WSGI = """
import json, sys
from http.client import HTTPConnection
from threading import local
from waitress import serve

here, far = local(), int(sys.argv[2])

def near(environ, start_response):
    if not hasattr(here, "connection"):
        here.connection = HTTPConnection("127.0.0.1", far)
    here.connection.request("GET", environ["PATH_INFO"].replace("near", "far"))
    body = here.connection.getresponse().read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

serve(near, host="127.0.0.1", port=int(sys.argv[1]), threads=64, connection_limit=20000, channel_timeout=600)
"""
PATIENCE = 60.0  # seconds for a process to serve


class Connection(asyncio.Protocol):
    """Asks, and hears one reply at a time."""

    transport: Any
    answered: asyncio.Future[bytes]

    def __init__(self) -> None:
        self._said = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, number: int) -> asyncio.Future[bytes]:
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(b"GET /near/%d HTTP/1.1\r\nHost: near\r\n\r\n" % number)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self._said += data
        if self._said.endswith(b"}"):
            said, self._said = self._said, b""
            self.answered.set_result(said.split(b" ", 2)[1])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or EOFError())


def memory(pid: int) -> int:
    """Resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def connected(port: int, count: int) -> list[Connection]:
    """So many connections, some at a time."""
    loop = asyncio.get_running_loop()
    made: list[Connection] = []
    while len(made) < count:
        some = min(100, count - len(made))
        pairs = (loop.create_connection(Connection, "127.0.0.1", port) for _ in range(some))
        made += [connection for _, connection in await asyncio.gather(*pairs)]
    return made


async def held(port: int, pid: int, requests: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round, and KiB for each connection and for each request that waits."""
    fresh = memory(pid)
    connections = await connected(port, requests)
    idle = waiting = (memory(pid) - fresh) / requests
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        replies = asyncio.gather(*(each.ask(number) for number, each in enumerate(connections)))
        while not replies.done():
            waiting = max(waiting, (memory(pid) - fresh) / requests)
            await asyncio.wait([replies], timeout=0.1)
        seconds.append(time.perf_counter() - began)
        statuses = Counter(replies.result())
        if statuses != {b"200": requests}:
            raise SystemExit(f"not all were answered: {dict(statuses)}")
    return {"seconds": seconds, "idle_kib": idle, "waiting_kib": waiting}


def free_port() -> int:
    """One that nobody listens on, nor on the next."""
    while True:
        with socket.socket() as probe, socket.socket() as following:
            probe.bind(("127.0.0.1", 0))
            with suppress(OSError):
                following.bind(("127.0.0.1", probe.getsockname()[1] + 1))
                return int(probe.getsockname()[1])


def started(command: list[str], folder: Path, port: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that serves."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"does not serve: {' '.join(command)}")
        time.sleep(0.05)


def measured(requests: int, rounds: int) -> dict[str, dict[str, Any]]:
    """By who waits."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "held_services.py").write_text(SERVICES, "utf-8")
        (folder / "system.toml").write_text(SYSTEM, "utf-8")
        (folder / "wsgi.py").write_text(WSGI, "utf-8")
        near, wsgi = free_port(), free_port()
        far = near + 1  # the services' ports follow one another
        environment = {**os.environ, "PYTHONPATH": name}
        twistd = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "ropewalk", "system.toml"]
        processes = []
        try:
            for process, port in (("far", far), ("near", near)):
                command = [*twistd, "--process", process, "--port", str(near), "--data", str(folder / process)]
                processes.append(started(command, folder, port, environment))
            found["ropewalk"] = asyncio.run(held(near, processes[-1].pid, requests, rounds))
            if find_spec("waitress") is not None:
                command = [sys.executable, "wsgi.py", str(wsgi), str(far)]
                processes.append(started(command, folder, wsgi, environment))
                some = min(requests, 64 * 5)  # it answers 64 a second
                found[f"WSGI, 64 threads, {some} requests"] = asyncio.run(held(wsgi, processes[-1].pid, some, 1))
        finally:
            for each in processes:
                each.kill()
                each.wait()
    return found


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=9000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = measured(chosen.requests, chosen.rounds)
    if chosen.json:
        print(json.dumps({"python": platform.python_version(), "requests": chosen.requests, "found": found}))
        return
    print(
        f"Python {platform.python_version()}, {chosen.requests:,} requests at once, each waits a second on a sibling\n"
    )
    for name, figures in found.items():
        rounds = ", ".join(f"{each:.2f}" for each in figures["seconds"])
        print(f"{name}: all done after {rounds} s")
        print(
            f"  {figures['idle_kib']:.1f} KiB for an open connection, {figures['waiting_kib']:.1f} for one that waits\n"
        )


if __name__ == "__main__":
    main()
