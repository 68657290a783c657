"""How many requests a core answers, and how many calls it makes, beside others on the same work.

Serving: a GET with a path parameter and a reply in JSON, by one process on one core, asked by wrk from another over 32
connections. Calling: the same route, asked of the quickest of these servers by a process that has 32 calls under way.

    ceiling          uvloop and httptools, with one canned reply: what a Python server cannot pass
    ropewalk         an operation in a process of `twistd ropewalk`: validation, trace, metrics, deadline, limits, log
    klein, engine    a Klein application on `engine.Site`: uvloop's reactor, Twisted's transports
    klein, uvloop    the same on uvloop's own transports
    klein            the same on `twisted.web.server.Site`, on the default reactor
    fastapi          on uvicorn with uvloop and httptools, without an access log; where it is installed

Does not measure TLS, large bodies, or what an operation does. Needs wrk and taskset; two cores.

    python benchmarks/wire.py [--rounds 5] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONNECTIONS = 32
SERVERS = ("ceiling", "ropewalk", "klein, engine", "klein, uvloop", "klein", "fastapi")
CALLERS = ("ropewalk", "treq, engine", "treq", "httpx")
SERVICE = """
from ropewalk import Service, get

class Rooms(Service, name="rooms"):
    @get("/rooms/<int:number>")
    async def read(self, number: int) -> dict[str, int]:
        return {"number": number}
"""


# -- the servers


def serve(name: str, port: int) -> None:
    """Answer, until killed."""
    {"ceiling": ceiling, "klein, engine": klein, "klein, uvloop": klein, "klein": klein, "fastapi": fastapi}[name](
        name, port
    )


def ceiling(_: str, port: int) -> None:
    """A canned reply."""
    import asyncio

    import httptools
    import uvloop

    reply = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"number":7}'

    class Canned(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_message_complete(self) -> None:
            self.transport.write(reply)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


def klein(name: str, port: int) -> None:
    """A Klein application."""
    if name != "klein":
        from ropewalk.engine import install

        install()
    from klein import Klein
    from twisted.internet import reactor
    from twisted.web.server import Site as TwistedSite

    from ropewalk.engine import Site

    app = Klein()

    @app.route("/rooms/<int:number>")
    async def read(request: Any, number: int) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        return json.dumps({"number": number}).encode()

    running: Any = reactor
    site: Any = TwistedSite(app.resource()) if name == "klein" else Site(app.resource())
    if name == "klein, uvloop":
        loop = running._asyncioEventloop
        running.callWhenRunning(loop.create_task, loop.create_server(site.asyncio_protocol, "127.0.0.1", port))
    else:
        running.listenTCP(port, site, interface="127.0.0.1")
    running.run()


def fastapi(_: str, port: int) -> None:
    """A FastAPI application."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/rooms/{number}")
    async def read(number: int) -> dict[str, int]:
        return {"number": number}

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="error")


def start(name: str, port: int, folder: Path, core: int) -> subprocess.Popen[bytes]:
    """A server of its own process on one core, which answers."""
    if name == "ropewalk":
        (folder / "rooms.py").write_text(SERVICE, "utf-8")
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "ropewalk", "rooms:Rooms"]
        command += ["--port", str(port)]
    else:
        command = [sys.executable, __file__, "--serve", name, "--port", str(port)]
    pinned = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        pinned, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not serve") from None
            time.sleep(0.05)


def asked(port: int, seconds: float, core: int) -> float:
    """Requests a second, by wrk."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s"]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/rooms/7"], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


# -- the callers


def call(name: str, port: int, seconds: float) -> None:
    """Print how many calls a second are made."""
    url = f"http://127.0.0.1:{port}/rooms/7"
    if name == "httpx":
        import asyncio

        import httpx
        import uvloop

        async def main() -> None:
            async with httpx.AsyncClient() as client:

                async def once() -> None:
                    reply = await client.get(url)
                    assert reply.json() == {"number": 7}

                print(await paced(once, seconds, asyncio.gather))

        uvloop.run(main())
        return
    if name != "treq":
        from ropewalk.engine import install

        install()
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred, gatherResults

    async def together(*calls: Any) -> None:
        await gatherResults([ensureDeferred(each) for each in calls])

    async def work() -> None:
        print(await paced(once_of(name, port, url, reactor), seconds, together))

    running: Any = reactor
    running.callWhenRunning(lambda: ensureDeferred(work()).addBoth(ended, running))
    running.run()


def ended(result: Any, reactor: Any) -> None:
    """Print what failed."""
    if result is not None:
        result.printTraceback()
    reactor.stop()


def once_of(name: str, port: int, url: str, reactor: Any) -> Callable[[], Any]:
    """What makes one call."""
    if name == "ropewalk":
        from random import Random

        from ropewalk import Service, get
        from ropewalk.driver import Driver
        from ropewalk.engine.pool import Pool
        from ropewalk.handler import compose
        from ropewalk.http.client import HTTPConnection
        from ropewalk.runtime.clock import Clock
        from ropewalk.runtime.stacks import client_stack
        from ropewalk.service import client_of
        from ropewalk.telemetry.metrics import Calls

        class Rooms(Service, name="rooms"):
            @get("/rooms/<int:number>")
            async def read(self, number: int) -> dict[str, int]:
                """As the server's."""
                raise NotImplementedError

        clock = Clock(reactor)
        connection = HTTPConnection(Pool(reactor), f"http://127.0.0.1:{port}", "rooms", 0, clock.seconds)
        meter = Calls("benchmark", "Calls", (("caller", "benchmark"),))
        stack = client_stack(clock=clock, random=Random(1), meter=meter, timeout=10.0)
        rooms = client_of(Rooms, compose(stack, connection), "benchmark", Driver.of(reactor))

        async def typed() -> None:
            assert await rooms.read(7) == {"number": 7}

        return typed
    from treq.client import HTTPClient
    from twisted.web.client import Agent as TwistedAgent
    from twisted.web.client import HTTPConnectionPool

    from ropewalk.engine import Agent

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONNECTIONS
    client = HTTPClient(Agent(reactor) if name == "treq, engine" else TwistedAgent(reactor, pool=pool))

    async def once() -> None:
        reply = await client.get(url)
        assert await reply.json() == {"number": 7}

    return once


async def paced(once: Callable[[], Any], seconds: float, together: Callable[..., Any]) -> float:
    """Calls a second, `CONNECTIONS` of them under way."""
    made, begin = 0, time.perf_counter()
    end = begin + seconds

    async def caller() -> None:
        nonlocal made
        while time.perf_counter() < end:
            await once()
            made += 1

    await together(*(caller() for _ in range(CONNECTIONS)))
    return made / (time.perf_counter() - begin)


def called(name: str, port: int, seconds: float, core: int) -> float:
    """Calls a second that a process on one core makes."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, "--call", name, "--port", str(port)]
    done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"{name}: {done.stdout}{done.stderr}")
    return float(done.stdout)


# -- the rounds


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Requests and calls a second, by who, in each round; all in turn, so that a slow moment meets all."""
    servers = [name for name in SERVERS if name != "fastapi" or _has("fastapi", "uvicorn")]
    callers = [name for name in CALLERS if name != "httpx" or _has("httpx")]
    figures: dict[str, dict[str, list[float]]] = {"serving": {}, "calling": {}}
    with tempfile.TemporaryDirectory() as folder:
        ports = {name: free_port() for name in servers}
        processes = [start(name, ports[name], Path(folder), 0) for name in servers]
        try:
            for each in range(rounds):
                for name in servers:
                    _tell(f"round {each + 1} of {rounds}: {name} serves")
                    figures["serving"].setdefault(name, []).append(asked(ports[name], seconds, 1))
                for name in callers:
                    _tell(f"round {each + 1} of {rounds}: {name} calls")
                    figures["calling"].setdefault(name, []).append(called(name, ports["ceiling"], seconds, 1))
        finally:
            for process in processes:
                process.kill()
                process.wait()
    _tell("")
    return figures


def _has(*modules: str) -> bool:
    from importlib.util import find_spec

    return all(find_spec(module) for module in modules)


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=3, help="whole ones, as wrk takes them")
    options.add_argument("--json", action="store_true")
    for internal in ("--serve", "--call", "--port"):
        options.add_argument(internal, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.serve, int(chosen.port))
        return
    if chosen.call:
        call(chosen.call, int(chosen.port), chosen.seconds)
        return
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(
                f"{program} is not on PATH; Debian has it as {'wrk' if program == 'wrk' else 'util-linux'}."
            )
    figures = measured(chosen.rounds, chosen.seconds)
    if chosen.json:
        print(json.dumps({"python": platform.python_version(), "per_second": figures}))
        return
    of = f"{chosen.rounds} rounds of {chosen.seconds:g} s, one core each"
    print(f"Python {platform.python_version()}, medians of {of}\n")
    for kind, first in (("serving", "ceiling"), ("calling", "ropewalk")):
        base = statistics.median(figures[kind][first])
        print(f"{kind:<18}{'a second':>10}{'least':>10}{'most':>10}{'of ' + first:>16}")
        for name, samples in figures[kind].items():
            median = statistics.median(samples)
            print(f"{name:<18}{median:>10,.0f}{min(samples):>10,.0f}{max(samples):>10,.0f}{median / base:>16.2f}")
        print()


if __name__ == "__main__":
    main()
