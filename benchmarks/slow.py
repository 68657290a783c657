"""What other clients notice of a slow attack, and how soon the server is rid of it: slowhttptest's four.

    slow head   a head whose fields come one by one (slowloris), until `head_time`
    slow body   a body that comes in drops, until `body_grace` and what came at `body_rate`
    ranges      heads of 13 KiB that ask for 2,000 ranges: no attack on whoever does not know Range
    slow read   a reply that is read by five bytes a second, until `write`

A process of `twistd ropewalk` is attacked from as many connections as are asked for, by ten processes that have the
lowest priority, as their machine would be another. Another process is its other clients: one asks over four kept
connections, 200 times a second, one over a new connection each time, 20 times a second. Both keep to the times at which
a request is due, so that one that waits for the one before it is seen to wait.

Printed are the connections that were open at once, the others' latency in milliseconds before and during the attack,
how many of their requests failed, and the seconds that any connection lasted: seen from without, every half second, by
the server's descriptors. Where attackers and clients share the cores of the server, latencies say more of them than of
it; so kept connections to another server, which nobody attacks, are measured at the same time: "beside".

Loopback's segments of 64 KiB would let the kernel keep 2.6 MB of a reply for each slow reader; here they are of 1,460
bytes, as on Ethernet. Needs slowhttptest; two cores.

    python benchmarks/slow.py [--connections 10000] [--rate 1250] [--seconds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PROCESSES = 10  # that attack; one of them alone opens a thousand connections a second, and fewer as they become many
EVERY = 0.5  # seconds between two looks at the server's descriptors
SERVICE = """
from ropewalk import Service, get, post

class Rooms(Service, name="rooms"):
    @get("/rooms/<int:number>")
    async def read(self, number: int) -> dict[str, int]:
        return {"number": number}

    @post("/rooms")
    async def add(self, number: int) -> dict[str, int]:
        return {"number": number}

    @get("/large")
    async def large(self) -> str:
        return "." * 200_000
"""
# Deadlines in which all connections are made, so that they are open at once.
LIMITS = {"connections": 15_000, "head_time": 12, "body_grace": 12, "write": 12, "linger": 1}


class Attack(NamedTuple):
    """One of slowhttptest's."""

    name: str
    options: tuple[str, ...]
    path: str
    limit: str  # which its connections meet
    earns: float = 0.0  # seconds that what it sends earns beside that
    holds: bool = True  # whether its connections are slow, or only many

    def lasts(self, limits: Mapping[str, float]) -> float:
        """Seconds that one of its connections may, at most."""
        return limits[self.limit] + self.earns


ATTACKS = (
    Attack("slow head", ("-H", "-i", "4", "-x", "24"), "/rooms/7", "head_time"),
    # A few drops of up to 70 bytes, of which 500 earn a second.
    Attack("slow body", ("-B", "-i", "4", "-x", "24"), "/rooms", "body_grace", earns=0.5),
    Attack("ranges", ("-R",), "/rooms/7", "head_time", holds=False),
    Attack("slow read", ("-X",), "/large", "write"),
)


class Seen(NamedTuple):
    """What came of an attack. Latencies are in seconds."""

    most: int  # connections that were open at once, the others' left out
    lasted: float  # seconds that one of them was seen to, at most
    left: int  # of them were open when the attackers had gone
    before: dict[str, list[float]]  # latencies, by how they ask
    during: dict[str, list[float]]
    failed: list[str]  # what became of requests that were not answered


# -- the server


def serve(port: int, target: str) -> None:
    """Become a server that was given its socket, as by systemd."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    os.dup2(listening.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
    twistd = str(Path(sys.executable).with_name("twistd"))
    os.execv(twistd, [twistd, "-n", "--pidfile=", "ropewalk", target, "--process=web"])


@contextmanager
def server(folder: Path, port: int, limits: Mapping[str, Any]) -> Iterator[int]:
    """The process id of a server with these limits, which answers."""
    (folder / "rooms.py").write_text(SERVICE, "utf-8")
    said = "\n".join(f"{name} = {json.dumps(value)}" for name, value in limits.items())
    web = '[processes.web]\nservices = ["rooms"]\nlisten = "systemd:domain=INET:index=0"'
    (folder / "system.toml").write_text(f'[services]\nrooms = "rooms:Rooms"\n{web}\n[limits]\n{said}\n', "utf-8")
    command = [sys.executable, __file__, "--serve", str(folder / "system.toml"), "--port", str(port)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                with closing(Asking(port)) as client:
                    client.ask()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"The server does not serve:\n{(folder / 'log').read_text()}") from None
                time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def connections(pid: int) -> set[str]:
    """The sockets of a process, by what no two ever share."""
    found = set()
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for each in descriptors:
            try:
                found.add(os.readlink(each.path))
            except OSError:  # it was closed
                continue
    return {each for each in found if each.startswith("socket:")}


# -- its other clients


class Asking:
    """A client that keeps one connection."""

    REQUEST = b"GET /rooms/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 20)

    def ask(self) -> None:
        """Return when it is answered; OSError with what came instead."""
        self._socket.sendall(self.REQUEST)
        came = b""
        while not came.endswith(b'{"number":7}'):
            some = self._socket.recv(4096)
            came += some
            if not some:
                raise OSError(f"The connection ended behind {came!r}.")
        if not came.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"Came: {came!r}")

    def close(self) -> None:
        """End it."""
        self._socket.close()


def others(port: int, beside: int | None) -> None:
    """Ask until standard input ends; then print the requests: [when it was due, seconds until answered, error]."""
    asked: dict[str, list[tuple[float, float, str]]] = {}
    ended = threading.Event()

    def ask(kind: str, port: int, every: float) -> None:
        kept = [Asking(port) for _ in range(4)] if kind != "new" else []
        due = time.monotonic()
        while not ended.wait(max(0.0, due - time.monotonic())):
            error = ""
            try:
                if kept:
                    kept[len(asked[kind]) % 4].ask()
                else:
                    with closing(Asking(port)) as client:
                        client.ask()
            except OSError as failure:
                error = f"{type(failure).__name__}: {failure}"
            asked[kind].append((due, time.monotonic() - due, error))
            due += every

    clients = [("kept", port, 0.005), ("new", port, 0.05)]
    if beside is not None:
        clients.append(("beside", beside, 0.005))
    asked.update((kind, []) for kind, _, _ in clients)
    threads = [threading.Thread(target=ask, args=each) for each in clients]
    for each in threads:
        each.start()
    sys.stdin.read()
    ended.set()
    for each in threads:
        each.join()
    print(json.dumps(asked))


# -- the attack


def attacked(
    attack: Attack,
    port: int,
    pid: int,
    count: int,
    *,
    rate: int,
    lasts: float,
    seconds: float,
    beside: int | None = None,
) -> Seen:
    """What is seen of an attack on a server, and for `seconds` before.

    `count` connections are made, `rate` a second; each `lasts` so many seconds, at most. `beside`: the port of a
    server that is not attacked.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    asking = [sys.executable, __file__, "--ask", "--port", str(port)]
    if beside is not None:
        asking += ["--beside", str(beside)]
    url = f"http://127.0.0.1:{port}{attack.path}"
    options = ["-c", str(count // PROCESSES), "-r", str(rate // PROCESSES), "-l", str(int(count / rate + lasts + 5))]
    options += ["-p", "10", "-u", url]
    with ExitStack() as stack:
        clients = subprocess.Popen(asking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(_end, clients)
        time.sleep(1)  # it is under way
        began = time.monotonic()
        time.sleep(seconds)
        base = len(connections(pid))
        attack_began = time.monotonic()
        attackers = []
        for _ in range(PROCESSES):
            command = ["nice", "-n", "19", "slowhttptest", *attack.options, *options]
            attackers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(_end, attackers[-1])
        first: dict[str, float] = {}
        last: dict[str, float] = {}
        most, until = 0, attack_began + lasts + 40
        while True:
            now = time.monotonic()
            seen = connections(pid)
            most = max(most, len(seen) - base)
            for each_seen in seen:
                first.setdefault(each_seen, now)
                last[each_seen] = now
            if all(process.poll() is not None for process in attackers) or now > until:
                break
            time.sleep(max(0.0, now + EVERY - time.monotonic()))
        attack_ended = time.monotonic()
        for process in attackers:
            _end(process)
        time.sleep(1)  # others ask once more, and their new connections end
        left = connections(pid)
        said, _ = clients.communicate("")
    begun = {each_seen for each_seen in first if first[each_seen] > attack_began + EVERY / 2}
    lasted = max((last[each_seen] - first[each_seen] for each_seen in begun), default=0.0)
    asked = json.loads(said)
    spans = (began, attack_began), (attack_began, attack_ended)
    before, during = (
        {kind: [took for due, took, _ in rows if a <= due < b] for kind, rows in asked.items()} for a, b in spans
    )
    return Seen(
        most, lasted, len(left & begun), before, during, [row[2] for rows in asked.values() for row in rows if row[2]]
    )


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


def bearable(count: int) -> int:
    """As many of these connections as this process's limit of open files lets a server have."""
    return min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500)


# -- the table


def percentile(latencies: list[float], part: int) -> float:
    """In seconds; `part` of a hundred."""
    return statistics.quantiles(latencies, n=100)[part - 1]


def row(name: str, seen: Seen) -> str:
    """A line of the table."""
    cells = [f"{name:<10}{seen.most:>8,}"]
    for kind in KINDS:
        before, during = seen.before.get(kind, []), seen.during.get(kind, [])
        if len(before) < 2 or len(during) < 2:
            cells.append(f"{'-':>39}")
            continue
        cells += [f"{percentile(some, part) * 1000:>8.1f}" for part in (50, 99) for some in (before, during)]
        cells.append(f"{percentile(during, 99) / percentile(before, 99):>7.2f}")
    return "".join(cells) + f"{len(seen.failed):>8}{seen.lasted:>8.1f}{seen.left:>6}"


KINDS = ("kept", "new", "beside")
HEAD = "\n".join(
    [
        " " * 18 + "".join(f"{kind + ': p50':>16}{'p99':>16}{'':>7}" for kind in KINDS),
        f"{'attack':<10}{'at once':>8}"
        + (f"{'before':>8}{'during':>8}" * 2 + f"{'ratio':>7}") * 3
        + f"{'failed':>8}{'lasted':>8}{'left':>6}",
    ]
)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--connections", type=int, default=10_000)
    options.add_argument("--rate", type=int, default=1_250, help="how many of them are made in a second")
    options.add_argument("--seconds", type=float, default=5, help="how long is measured before each attack")
    options.add_argument("--json", action="store_true")
    options.add_argument("--serve", help=argparse.SUPPRESS)
    options.add_argument("--beside", type=int, help=argparse.SUPPRESS)
    options.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, default=18_000, help="the first of five")
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.port, chosen.serve)
    elif chosen.ask:
        others(chosen.port, chosen.beside)
    else:
        if shutil.which("slowhttptest") is None:
            raise SystemExit("slowhttptest is not on PATH; Debian has it by this name.")
        count = bearable(chosen.connections)
        if not chosen.json:
            print(f"{count:,} connections, {chosen.rate:,} a second; latencies in milliseconds\n\n{HEAD}", flush=True)
        figures = {}
        for number, attack in enumerate(ATTACKS):  # each at a port of its own: nothing is left of the last one
            with ExitStack() as stack:
                folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
                pid = stack.enter_context(server(folders[0], chosen.port + number, LIMITS))
                stack.enter_context(server(folders[1], chosen.port + len(ATTACKS), LIMITS))
                seen = attacked(
                    attack,
                    chosen.port + number,
                    pid,
                    count,
                    rate=chosen.rate,
                    lasts=attack.lasts(LIMITS),
                    seconds=chosen.seconds,
                    beside=chosen.port + len(ATTACKS),
                )
            figures[attack.name] = seen._asdict()
            if not chosen.json:
                print(row(attack.name, seen), flush=True)
        if chosen.json:
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
