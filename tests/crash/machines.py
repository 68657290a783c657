"""The trips as processes of this machine, and what they stand on: databases, brokers, a folder.

* `Backend`: which store and broker a system uses, through which gates, and how a test looks into the databases.
* `System`: its processes by name; they are started, killed and asked. `audit` reads the books.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from http.client import HTTPConnection, HTTPException
from itertools import count, cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import play
import sqlalchemy as sa
from gate import Gate, Toll
from sqlalchemy.exc import DBAPIError

CHECKOUT = Path(__file__).resolve().parents[2]
TRIPS = CHECKOUT / "examples" / "trips"
SERVICES = ("trips", "rooms", "money", "diary")
POOL = 2  # connections of a service in a process: a server has a hundred, for all that runs beside these tests
PATIENCE = 60.0  # seconds for a condition; a process that was killed is taken for dead after four
PORTS = range(8500, 9500)

RESTARTS = os.environ.get("ROPEWALK_CRASH_RESTARTS", "").split()  # servers that nobody else is using now
END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND application_name <> 'audit'"
)

_numbers = count()
_ports = cycle(PORTS[:: len(SERVICES)])  # those that were given last come last again
for _ in range(os.getpid() % 50 * 5):
    next(_ports)  # two runs of the tests at a time seldom meet


def wait_until(condition: Callable[[], Any], what: Callable[[], object], timeout: float = PATIENCE) -> Any:
    """The first true value of `condition()`; fails with `what()`."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {timeout:g} s: {what()}"
        time.sleep(0.05)
    return value


def free_ports() -> int:
    """The first of as many free ports in a row as there are services."""
    for first in islice(_ports, len(PORTS) // len(SERVICES)):
        with suppress(OSError):
            for port in range(first, first + len(SERVICES)):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
                    probe.listen()
            return first
    raise AssertionError(f"no {len(SERVICES)} free ports in a row in {PORTS}")


# -- what they stand on


class Backend:
    """SQLite and the built-in broker: files in the folder of the system."""

    def __init__(self, folder: Path) -> None:
        self.name = f"crash_{os.getpid()}_{next(_numbers)}"
        self.data = folder / "data"
        self.toll = Toll()
        self.gates: list[Gate] = []

    def adapters(self) -> Mapping[str, str]:
        """What `[adapters]` says."""
        return {}

    def engine(self, service: str) -> sa.Engine:
        """For looking into what a service has written."""
        path = self.data / f"{service}.sqlite3"
        # Read-only: whoever else is the last to close it would write its log into the file.
        look = partial(sqlite3.connect, f"file:{path}?mode=ro", uri=True, check_same_thread=False)
        return sa.create_engine("sqlite://", creator=look, poolclass=sa.NullPool)

    def idle(self) -> bool:
        """Whether the broker has nothing to do."""
        with self.engine("broker").connect() as connection:
            return not connection.execute(sa.text("SELECT count(*) FROM queue")).scalar_one()

    def misfortunes(self) -> Mapping[str, Callable[[], object]]:
        """What may happen to what they stand on, by what it is called."""
        return {}

    def close(self) -> None:
        """Nothing is left."""
        for gate in self.gates:
            gate.close()

    def gate(self, port: int) -> int:
        """A gate to that port; its own port."""
        self.gates.append(Gate(port, self.toll))
        return self.gates[-1].port


class PostgreSQL(Backend):
    """PostgreSQL as the store, a database of its own; a subclass has a broker."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server("CREATE DATABASE {}")
        self._port = self.gate(5432)

    def adapters(self) -> Mapping[str, str]:
        return {"store": f"postgresql://postgres@127.0.0.1:{self._port}/{self.name}?pool={POOL}"}

    def engine(self, service: str) -> sa.Engine:
        options = f"-c search_path={service} -c application_name=audit"
        url = f"postgresql+psycopg://postgres@127.0.0.1:5432/{self.name}"
        return sa.create_engine(url, connect_args={"options": options}, isolation_level="AUTOCOMMIT", pool_size=1)

    def idle(self) -> bool:
        return self.toll.quiet(0.3)

    def misfortunes(self) -> Mapping[str, Callable[[], object]]:
        restart = {"PostgreSQL crashes": _crash_postgresql} if "postgresql" in RESTARTS else {}
        return {"PostgreSQL ends its sessions": partial(self._server, END_SESSIONS), **restart}

    def close(self) -> None:
        super().close()
        self._server("DROP DATABASE {} WITH (FORCE)")

    def _server(self, statement: str) -> None:
        import psycopg

        with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as server:
            server.execute(statement.format(self.name))  # type: ignore[call-overload]


class WithRabbitMQ(PostgreSQL):
    """PostgreSQL and RabbitMQ."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._broker = self.gate(5672)

    def adapters(self) -> Mapping[str, str]:
        return {**super().adapters(), "broker": f"rabbitmq://127.0.0.1:{self._broker}?prefix={self.name}"}

    def misfortunes(self) -> Mapping[str, Callable[[], object]]:
        restart = {"RabbitMQ restarts": _restart_rabbitmq} if "rabbitmq" in RESTARTS else {}
        return {**super().misfortunes(), "RabbitMQ's connections break": self.gates[1].cut, **restart}

    def close(self) -> None:
        super().close()
        import pika

        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1"))
        channel = connection.channel()
        for partition in range(8):
            channel.queue_delete(f"{self.name}.diary.note.{partition}")
        channel.exchange_delete(f"{self.name}.events")
        connection.close()


class WithRedis(PostgreSQL):
    """PostgreSQL and a server of Redis of its own, which writes down what it says it has."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._redis: int = free.getsockname()[1]
        self._folder = folder / "redis"
        self._folder.mkdir()
        self._start()
        self._broker = self.gate(self._redis)

    def adapters(self) -> Mapping[str, str]:
        return {**super().adapters(), "broker": f"redis://127.0.0.1:{self._broker}"}

    def misfortunes(self) -> Mapping[str, Callable[[], object]]:
        return {**super().misfortunes(), "Redis is killed": self._crash}

    def _crash(self) -> None:
        self._kill()
        self._start()

    def close(self) -> None:
        super().close()
        self._kill()

    def _start(self) -> None:
        keeps = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
        where = ("--bind", "127.0.0.1", "--port", str(self._redis), "--dir", str(self._folder))
        self._process = subprocess.Popen(["redis-server", *where, *keeps], stdout=subprocess.DEVNULL)
        wait_until(self._answers, lambda: "Redis answers")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._redis), 1) as server:
            server.sendall(b"PING\r\n")
            return server.recv(100).startswith(b"+PONG")
        return False

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _crash_postgresql() -> None:
    """Without a checkpoint, so that it recovers from its log."""
    clusters = subprocess.run(["pg_lsclusters", "-h"], check=True, capture_output=True, text=True).stdout
    version, name = next(line.split()[:2] for line in clusters.splitlines() if line.split()[2] == "5432")
    _as_root("pg_ctlcluster", "--skip-systemctl-redirect", version, name, "restart", "--mode", "immediate")


def _restart_rabbitmq() -> None:
    _as_root("rabbitmqctl", "stop_app")
    _as_root("rabbitmqctl", "start_app")
    _as_root("rabbitmqctl", "await_startup")


def _as_root(*command: str) -> None:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}
    done = subprocess.run([*root, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


BACKENDS: Mapping[str, type[Backend]] = {"sqlite": Backend, "rabbitmq": WithRabbitMQ, "redis": WithRedis}


# -- the system


class System:
    """The processes of the trips, over one backend."""

    def __init__(
        self, folder: Path, backend: Backend, processes: Mapping[str, Sequence[str]], workers: int = 1
    ) -> None:
        """`processes`: the services of each, by its name; `workers`: of each."""
        self.backend = backend
        self.began = time.monotonic()
        self._looks = count()
        self._port = free_ports()
        self._door = backend.gate(self._port) if backend.gates else self._port
        self._processes = processes
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._log = (folder / "log").open("ab")
        self._file = folder / "system.toml"
        self._file.write_text(_file(backend.adapters(), processes, workers))

    # -- its processes

    def start(self, *names: str) -> None:
        """Start those that do not run, and return when all are ready."""
        for name in names or self._processes:
            if name not in self._running:
                self._running[name] = self._run("twistd", "-n", "--pidfile=", "ropewalk", f"--process={name}")
        wait_until(self.ready, lambda: f"all are ready; the log:\n{self.log}")

    def up(self) -> None:
        """Start them by `ropewalk up`, which starts them again when they die, once all of them have served."""
        before = self._announced()
        self._running["up"] = self._run("ropewalk", "up")
        wait_until(lambda: self.ready() and self._announced() > before, lambda: f"it is up; the log:\n{self.log}")

    def _announced(self) -> int:
        return Path(self._log.name).read_text().count("trips is up. ")

    def ready(self) -> bool:
        """Whether each of the services is."""
        for name, running in self._running.items():
            assert running.poll() is None, f"{name} has ended with {running.returncode}; the log:\n{self.log}"
        return all(_answer(self._port + index, "GET", "/health/ready")[0] == 200 for index in range(len(SERVICES)))

    def pid(self, name: str) -> int:
        """Of a process that was started."""
        return self._running[name].pid

    def runs(self, name: str) -> bool:
        """Whether a process does that was started."""
        return self._running[name].poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is gone."""
        running = self._running[name]
        running.kill()
        running.wait()

    def gone(self, name: str) -> None:
        """It was killed, and may be started again."""
        status = self._running.pop(name).wait()
        assert status == -signal.SIGKILL, f"{name} ended with {status}; the log:\n{self.log}"

    def family(self) -> list[int]:
        """The processes of this system that run, whoever started them."""
        return [pid for pid in sorted(map(int, filter(str.isdecimal, os.listdir("/proc")))) if self._is_ours(pid)]

    def children(self) -> list[int]:
        """Those of them that `up` and its children have started."""
        started = {running.pid for running in self._running.values()}
        return [pid for pid in self.family() if pid not in started]

    def _is_ours(self, pid: int) -> bool:
        try:
            return bytes(self._file) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            return False

    def end_family(self) -> None:
        """SIGKILL for `up`; returns when the others have ended by themselves."""
        self.kill("up")
        self.gone("up")
        wait_until(lambda: not self.family(), lambda: f"{self.family()} end; the log:\n{self.log}")

    @property
    def log(self) -> str:
        """The end of what they printed."""
        return Path(self._log.name).read_text()[-6000:]

    def close(self) -> None:
        """Nothing is left."""
        while family := self.family():
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for running in self._running.values():
                running.wait()
        self._log.close()
        for engine in self._engines.values():
            engine.dispose()

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        where = [str(TRIPS), str(CHECKOUT), *sys.path]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROPEWALK_")}
        environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, where)),
            "ROPEWALK_LOG__LEVEL": "warning",
        }
        program, *arguments = command
        script = shutil.which(program, path=Path(sys.executable).parent)
        assert script is not None, f"{program} is not beside {sys.executable}"
        arguments += [f"--port={self._port}", f"--data={self.backend.data}", str(self._file)]
        return subprocess.Popen(
            [script, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    # -- what a client does

    def order(self, trip: str, traveller: str, amount: int) -> bool:
        """Order a trip; whether the order was taken, as far as one hears."""
        order = {"trip": trip, "traveller": traveller, "amount": amount}
        return _answer(self._door, "POST", "/trips", order) == (202, trip)

    def outcome(self, trip: str) -> str | None:
        """What it came to; None while nobody says so."""
        status, said = _answer(self._door, "GET", f"/trips/{trip}")
        return "completed" if (status, said) == (200, trip) else "compensated" if status == 409 else None

    # -- the books

    def database(self, service: str) -> SimpleNamespace:
        """As a World has it, for the checks of the simulation."""
        return SimpleNamespace(peek=partial(self._peek, service))

    def changes(self, service: str, *tables: str) -> int:
        """Likewise; another number each time, for nobody tells this process of commits."""
        return next(self._looks)

    @property
    def now(self) -> float:
        """Seconds since it began, likewise."""
        return time.monotonic() - self.began

    def strayed(self) -> float:
        """How wrong a clock is, likewise."""
        return 0.0

    def over(self) -> bool:
        """Whether every booking that was taken has ended, and is in the diary if it is to be there."""
        try:
            left = self._count("trips", "ropewalk_sagas WHERE saga = 'trips.book' AND state = 'running'")
            left += self._count("trips", "ropewalk_outbox")
            return not left and self._count("trips", "booked") <= self._count("diary", "lines")
        except DBAPIError:  # its process is about to open it, or its server to be back
            return False

    def audit(self, expected: Mapping[str, str], travellers: Mapping[str, str]) -> None:
        """Raise unless all holds that is to hold, and each trip has come to what is expected, for who ordered it."""
        books = play.read(self)
        for what, rows in (("booked", books.booked), ("written down", books.noted)):
            strange = [(trip, name) for trip, name in rows if travellers[trip] != name]
            assert not strange, f"{what} for somebody else: {strange}"
        held = sa.text("SELECT saga, result FROM ropewalk_journal WHERE step = 'rooms.hold' AND status = 0")
        for saga, result in self._peek("trips", lambda tx: tx.execute(held).all()):
            assert {"trip": saga} == json.loads(bytes(result)), f"{saga} was answered with the room {bytes(result)!r}"
        for check in (*play.ALWAYS, *play.EVENTUALLY):
            check(self)
        assert expected == books.sagas

    def _count(self, service: str, rows: str) -> int:
        return self._peek(service, lambda tx: tx.execute(sa.text(f"SELECT count(*) FROM {rows}")).scalar_one())

    def _peek(self, service: str, look: Callable[[Any], Any]) -> Any:
        with self._engines[service].connect() as connection:
            return look(connection)

    @cached_property
    def _engines(self) -> Mapping[str, sa.Engine]:
        return {service: self.backend.engine(service) for service in SERVICES}


def _file(adapters: Mapping[str, str], processes: Mapping[str, Sequence[str]], workers: int) -> str:
    """The system file."""
    return "\n".join(
        [
            '[system]\nname = "trips"\nsecret = "no secret: this is a test"\n\n[services]',
            *(f'{name} = "{name}:{name.title()}"' for name in SERVICES),
            "\n[processes]",
            *(f"{name} = {{ services = {json.dumps(of)}, workers = {workers} }}" for name, of in processes.items()),
            "\n[drain]\nlimit = 2  # seconds: what is orphaned waits for siblings that are gone as well",
            "\n[adapters]",
            *(f'{port} = "{adapter}"' for port, adapter in adapters.items()),
        ]
    )


def _answer(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The status and the body; 0 when nothing comes back."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()
