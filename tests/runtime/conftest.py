"""What tests of real processes stand on: they run on loopback, are waited for by conditions, and none is left behind.

* `twistd(...)` and `up(...)` start one; `machine` is what a test knows of this machine: ports, processes, conditions.
* `load(port)` asks without a pause, over connections it keeps, and tells what was lost.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SYSTEMS = Path(__file__).resolve().parent / "systems"
PATIENCE = 30.0  # seconds for a condition; on a busy machine a process takes ten to start


def wait_until(condition: Callable[[], Any], what: str = "", timeout: float = PATIENCE) -> Any:
    """The first true value of `condition()`."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < until, f"{what or condition} did not come true in {timeout} s"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> set[int]:
    """The processes that `pid` started and that run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.add(int(stat.parent.name))
    return found


def family_of(pid: int) -> set[int]:
    """`pid` and everything below it."""
    return {pid}.union(*(family_of(child) for child in children_of(pid)))


class Started:
    """A process that runs, and what it has printed."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self.popen.pid
        self.family = {self.pid}
        self._printed: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._printed.append(line.decode())

    @property
    def printed(self) -> str:
        """All of it so far."""
        return "".join(self._printed)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines that are JSON."""
        return [json.loads(line) for line in list(self._printed) if line.startswith("{")]

    def until_printed(self, text: str, times: int = 1) -> None:
        """Wait for it."""
        try:
            wait_until(lambda: self.printed.count(text) >= times, f"{text!r} in the output")
        except AssertionError as error:
            raise AssertionError(f"{error}; there was:\n{self.printed}") from None

    def children(self) -> set[int]:
        """Its children that run."""
        children = children_of(self.pid)
        self.family |= children
        return children

    def signal(self, number: signal.Signals) -> None:
        """Send it one."""
        self.family |= family_of(self.pid)
        self.popen.send_signal(number)

    def ended(self, timeout: float = PATIENCE) -> int:
        """Its status, once it has ended and printed all."""
        status = self.popen.wait(timeout)
        self._reader.join(timeout)
        return status

    def leave(self) -> None:
        """End it and whatever it started."""
        self.family |= family_of(self.pid)
        for pid in self.family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@pytest.fixture(scope="session")
def machine(free_ports: Callable[[int], int]) -> SimpleNamespace:
    """`free_ports` and the functions above, for tests, which cannot import them."""
    return SimpleNamespace(
        wait_until=wait_until, free_ports=free_ports, is_alive=is_alive, answer=answer, systems=SYSTEMS
    )


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """`start(command, folder)`: a process, ended after the test."""
    running: list[Started] = []
    path = [str(CHECKOUT), *sys.path]  # twisted/plugins of a bare checkout lies there

    def start(command: list[str], folder: Path, **environment: str) -> Started:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROPEWALK_")}
        started = Started(
            [sys.executable, "-P", *command],
            folder,
            {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, path)), **environment},
        )
        running.append(started)
        return started

    yield start
    for each in running:
        each.leave()


@pytest.fixture
def twistd(start: Callable[..., Started], tmp_path: Path) -> Callable[..., Started]:
    """`twistd(target, *options, folder=...)`: `twistd -n ropewalk`, its data in a temporary folder."""

    def run(target: str, *options: str, folder: Path = SYSTEMS / "pair", **environment: str) -> Started:
        command = ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "ropewalk", target]
        return start([*command, f"--data={tmp_path / 'data'}", *options], folder, **environment)

    return run


@pytest.fixture
def up(start: Callable[..., Started], tmp_path: Path) -> Callable[..., Started]:
    """`up(target, *options, folder=...)`: `ropewalk up`, its data in a temporary folder."""

    def run(target: str, *options: str, folder: Path = SYSTEMS / "pair", **environment: str) -> Started:
        command = ["-c", "from ropewalk.cli import main; main()", "up", target, f"--data={tmp_path / 'data'}"]
        return start([*command, *options], folder, **environment)

    return run


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A copy of the system with two services, for a test that changes it."""
    return Path(shutil.copytree(SYSTEMS / "pair", tmp_path / "pair", ignore=shutil.ignore_patterns("__pycache__")))


def answer(port: int, path: str, timeout: float = 5.0) -> str | None:
    """The body of a 200, over a connection of its own; None when there is no such answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        return body if response.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


class Load:
    """Threads that ask without a pause, each over a connection that it keeps as long as the server lets it."""

    def __init__(self, port: int, paths: tuple[str, ...], threads: int) -> None:
        self.served: Counter[str] = Counter()  # by the body
        self.retried = 0
        self.lost: list[str] = []
        self._port = port
        self._paths = paths
        self._going = True
        self._threads = [threading.Thread(target=self._ask, args=[index], daemon=True) for index in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        """Requests answered."""
        return self.served.total()

    def end(self) -> None:
        """Ask no more; what was asked is waited for."""
        self._going = False
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _ask(self, index: int) -> None:
        connection: socket.socket | None = None
        for turn in itertools.count(index):
            if not self._going:
                break
            path = self._paths[turn % len(self._paths)]
            for _ in range(5):  # a reused connection may be closed just then, and the next one too
                reused = connection is not None
                began = time.monotonic()
                heard = False
                try:
                    if connection is None:
                        connection = socket.create_connection(("127.0.0.1", self._port), timeout=20)
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._send(connection, path, turn)
                    heard = bool(connection.recv(1, socket.MSG_PEEK))
                    body, keep = self._read(connection)
                except (OSError, HTTPException, AssertionError) as error:
                    if connection is not None:
                        connection.close()
                    connection = None
                    if reused and not heard and not isinstance(error, TimeoutError):
                        self.retried += 1
                        continue
                    after = time.monotonic() - began
                    self.lost.append(f"{path}: {error!r} after {after:.3f} s, {reused=}, {heard=}")
                    break
                self.served[body] += 1
                if not keep:
                    connection.close()
                    connection = None
                break
            else:
                self.lost.append(f"{path}: closed five times")
        if connection is not None:
            connection.close()

    def _send(self, connection: socket.socket, path: str, turn: int) -> None:
        if path != "/echo":
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            return
        body = json.dumps(["word"] * (turn % 50 + 1)).encode()
        head = f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + body[:3])
        time.sleep(0.005)  # the subject: a body that is on its way while the server drains
        connection.sendall(body[3:])

    def _read(self, connection: socket.socket) -> tuple[str, bool]:
        response = HTTPResponse(connection)
        try:
            response.begin()
            body = response.read().decode()
            assert response.status == 200, f"status {response.status}: {body}"
            return ("echo" if body.startswith("[") else body), not response.will_close
        finally:
            response.close()


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    """`load(port, *paths, threads=4)`: begins at once; `end()` it and look at what it counted."""
    running: list[Load] = []

    def begin(port: int, *paths: str, threads: int = 4) -> Load:
        running.append(Load(port, paths, threads))
        return running[-1]

    yield begin
    for each in running:
        each.end()
