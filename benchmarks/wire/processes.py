"""Processes on their cores, and wrk.

Whoever is measured has a core of its own; what asks it, or what it asks, is on another. All servers are started before
the first round, and stand still (SIGSTOP) while they are not measured: their timers would run on the measured core.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .peers import TWISTD, Peer
from .work import BOOKING, BOOKING_PATH, CONNECTIONS, ROOM_PATH

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds for a server to begin
TICKS = os.sysconf("SC_CLK_TCK")
GATEWAY_SYSTEM = """
[services]
gateway = "benchmarks.wire.services:Gateway"
rooms   = "benchmarks.wire.services:Rooms"

[processes]
front = ["gateway"]
back  = ["rooms"]

[instances]
rooms = ["http://127.0.0.1:{upstream}"]
"""


class Cores(NamedTuple):
    """Which core is for whom; the same one for `load` and `upstream` where there are only two."""

    measured: int
    load: int
    upstream: int

    @classmethod
    def found(cls) -> Cores:
        """One of each physical core that this process may use, the highest first: the lowest take most interrupts."""
        usable = sorted(os.sched_getaffinity(0), reverse=True)
        physical = {_siblings(core): core for core in usable}
        cores = sorted(physical.values(), reverse=True) if len(physical) > 1 else usable
        if len(cores) < 2:
            raise SystemExit("two cores are needed: one for whoever is measured, one for what asks it")
        return cls(cores[0], cores[1], cores[2 % len(cores)] if len(cores) > 2 else cores[1])


def _siblings(core: int) -> str:
    """The hardware threads of the physical core that this one belongs to."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text("ascii")
    except OSError:
        return str(core)


class Figure(NamedTuple):
    """What one measurement gives."""

    per_second: float
    busy: float  # the share of its core that whoever was measured used


class Server:
    """A server in a process of its own, pinned to a core, that stands still unless it is awake."""

    @classmethod
    def of(cls, peer: Peer, claim: str, core: int, folder: Path, upstream: int = 0) -> Server:
        """The peer's that the claim is about."""
        return cls(
            peer.name,
            f"{claim}-{peer.name}",
            str(core),
            folder,
            lambda port: _command(peer, claim, port, upstream, folder),
        )

    def __init__(self, name: str, log: str, cores: str, folder: Path, command: Callable[[int], list[str]]) -> None:
        """`log`: the file for its errors, without its suffix; `cores` as taskset has them; `command` by the port."""
        self.name = name
        self.port = _free_port()
        self._errors = folder / f"{log}.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["taskset", "-c", cores, *command(self.port)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # a group that is stopped and ended as one: some have workers
            )

    def wait_until_it_serves(self) -> None:
        """SystemExit, with what it said, when it does not."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not serve\n{self.errors}")
            time.sleep(0.05)

    @property
    def errors(self) -> str:
        """The end of what it wrote there."""
        return self._errors.read_text("utf-8", "replace")[-4000:]

    def wake(self) -> None:
        """Let it run."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def halt(self) -> None:
        """Let it stand still."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def end(self) -> None:
        """Without a farewell."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def cpu(self) -> float:
        """Seconds of processor time that it has used, with its workers."""
        used = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
                if int(fields[2]) == self._process.pid:  # its process group: see proc(5)
                    used += int(fields[11]) + int(fields[12])
        return used / TICKS


def _command(peer: Peer, claim: str, port: int, upstream: int, folder: Path) -> list[str]:
    if peer.target != TWISTD:
        return [sys.executable, "-m", "benchmarks.wire.peers", peer.target, str(port), str(upstream)]
    target = ["benchmarks.wire.services:Rooms"]
    if claim == "gateway":
        target = ["gateway.toml", "--process=front"]
        (folder / target[0]).write_text(GATEWAY_SYSTEM.format(upstream=upstream), "utf-8")
    return twistd([*target, f"--port={port}", f"--data={folder / f'{claim}-data'}"])


def twistd(arguments: list[str]) -> list[str]:
    """The command of `twistd -n ropewalk`."""
    run = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, "-n", "--pidfile=", "ropewalk", *arguments]


def asked(server: Server, claim: str, seconds: int, core: int, folder: Path) -> Figure:
    """Requests a second, by wrk; SystemExit when one of them is not answered with 2xx."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    path = ROOM_PATH
    if claim == "post":
        path = BOOKING_PATH
        script = folder / "post.lua"
        body = json.dumps(BOOKING, separators=(",", ":"))
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = [[{body}]]\nwrk.headers["Content-Type"] = "application/json"\n', "utf-8"
        )
        command += ["-s", str(script)]
    used, begin = server.cpu(), time.perf_counter()
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{path}"], capture_output=True, text=True, check=False
    )
    busy = (server.cpu() - used) / (time.perf_counter() - begin)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if done.returncode or found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{server.name}, {claim}:\n{done.stdout}{done.stderr}{server.errors}")
    return Figure(float(found[1]), busy)


def called(peer: Peer, port: int, seconds: int, core: int) -> Figure:
    """Calls a second that a process makes; SystemExit when one of them fails."""
    command = [sys.executable, "-m", "benchmarks.wire.peers", peer.target, str(port), str(seconds)]
    done = subprocess.run(
        ["taskset", "-c", str(core), *command],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"{peer.name} calls:\n{done.stdout}{done.stderr}")
    return Figure(**json.loads(done.stdout))


def _free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
