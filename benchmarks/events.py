"""Events from one process to another through RabbitMQ and PostgreSQL, beside FastStream and aio-pika.

Measures, for each side, with a sending and a taking process, each pinned to a core of its own where there are two:

* `events a second`: transactions that insert a row and publish an event, 32 outstanding, until the last one is handled
  by a transaction that inserts a row. From the first one's beginning to the last one's end. `processor`: what both
  processes, without the servers, take of it for one event; that is much the same on a machine that has other work.
* `latency`: from just before the sender's COMMIT (the event carries that moment) to after the taker's, at a moderate
  rate.
* `takeover`: a sender commits events and is killed at once; how long until the last of them is handled, by the relay of
  another process of the sender, which has been there and idle.
* `without a database`: events published and confirmed, 32 outstanding, and handled by a function that does nothing.

The same is promised by all: an event goes out if and only if its effect commits; publisher confirms, persistent
messages, quorum queues; acknowledged after the taker's commit; what comes twice has its effect once. For FastStream and
aio-pika this is written by hand, as one does, on asyncpg and uvloop: an outbox, whose relay is woken in its process and
looks each second for what others left, takes rows with SKIP LOCKED, publishes all of them at once, deletes them; an
inbox, INSERT ... ON CONFLICT DO NOTHING. Each has as many connections as it is quickest with here: they eight (with two
FastStream did 606 a second, with eight 849), Ropewalk two. They run READ COMMITTED and keep no order. Ropewalk runs
SERIALIZABLE, and is measured without keys, as they are, and with a hundred keys, in order for each. FastStream's
messages are bytes without validation, and nobody writes a log.

The servers are on 127.0.0.1 and pinned to nothing: on a machine of two cores they take from all. What a COMMIT costs is
the disk's affair, and much of some rows. Sides are measured in turn within a round, so that a slow moment meets all.

    pip install -e '.[benchmarks]'
    python benchmarks/events.py [--rounds 5] [--events 1500] [--rate 200] [--seconds 5] [--sides ...] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic  # one clock for all processes of a machine
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from ropewalk import Database, Event, Service, Transaction, operation, subscribe
from ropewalk.event import Message

OUTSTANDING = 32  # publishing transactions at a time
AT_ONCE = 16  # events that are handled at a time
CONNECTIONS = 8  # of each process to PostgreSQL: what the peers are quickest with here
OURS = 2  # of those that share transactions, with the server on the same machine
LEFT = 50  # events that a sender commits before it is killed
KEYS = 100
NAME = f"ropewalk-events-{os.getpid()}"
RABBITMQ = os.environ.get("BENCHMARK_RABBITMQ", "guest:guest@127.0.0.1:5672/%2F")
POSTGRESQL = os.environ.get("BENCHMARK_POSTGRESQL", "postgres@127.0.0.1:5432")
TEXT = "Two nights, breakfast, and a view of the harbour."
HANDLED = 20_000  # events that were before: PostgreSQL takes all that lie on one page of an index for one another
PATIENCE = 60.0  # seconds, for anything


class Times(Struct, frozen=True):
    """What a taker has seen: when each event was about to be committed, and when it was handled."""

    events: list[tuple[float, float]]


async def produce(one: Callable[[], Awaitable[object]], number: int, rate: float) -> float:
    """Do `one` so many times, 32 of them outstanding, or `rate` a second whatever is outstanding; when it began."""
    began = monotonic()

    async def some() -> None:
        for _ in range(number // OUTSTANDING):
            await one()

    async with asyncio.TaskGroup() as group:
        if not rate:
            for _ in range(OUTSTANDING):
                group.create_task(some())
        for each in range(number if rate else 0):
            await asyncio.sleep(max(0.0, began + each / rate - monotonic()))
            group.create_task(one())  # type: ignore[arg-type]
    return began


def die() -> None:
    """As a process does that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


# -- Ropewalk: two services, a process each

sent = sa.MetaData()
_sent = sa.Table("sent", sent, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("text", sa.Text))
taken = sa.MetaData()
_taken = sa.Table("taken", taken, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("text", sa.Text))
SEND, TAKE = _sent.insert(), _taken.insert()


class Happened(Event, topic="benchmark.happened"):
    """What is published."""

    at: float
    text: str = TEXT


class Sender(Service, name="sender"):
    """Publishes."""

    tables = sent

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = 0
        self._broker: Any = None

    @operation
    async def send(self, number: int, rate: float, keys: int = 0) -> float:
        """Events with an effect each."""
        return await produce(lambda: self._database.run(self._send, keys), number, rate)

    @operation
    async def send_bare(self, number: int) -> float:
        """Events without a database."""
        self._broker = self._broker or bare_broker()
        return await produce(self._publish, number, 0.0)

    @operation
    async def die(self) -> None:
        """Commit some, and no more."""
        await self._database.run(self._send_many)
        die()

    def _send(self, tx: Transaction, keys: int) -> None:
        self._number += 1
        tx.execute(SEND, {"text": TEXT})
        tx.publish(Happened(at=monotonic()), key=f"key-{self._number % keys}" if keys else None)

    def _send_many(self, tx: Transaction) -> None:
        for _ in range(LEFT):
            tx.publish(Happened(at=monotonic()))

    async def _publish(self) -> None:
        data = msgspec.Raw(msgspec.json.encode(Happened(at=monotonic())))
        message = Message(uuid4().hex, "benchmark.bare", 1, "", "sender", time.time(), data, "", "", "", "", "")
        assert not await self._broker.publish([message])


class Taker(Service, name="taker"):
    """Handles what was published."""

    tables = taken

    def __init__(self, database: Database) -> None:
        self._database = database
        self._times: list[tuple[float, float]] = []
        self._broker: Any = None

    @subscribe(Happened, at_once=AT_ONCE)
    async def take(self, event: Happened) -> None:
        """Insert a row."""
        await self._database.run(self._take, event.text)
        self._times.append((event.at, monotonic()))

    @operation
    async def start_bare(self) -> None:
        """Take what is published without a database, too."""
        self._broker = self._broker or bare_broker()
        await self._broker.subscribe("taker.bare", ("benchmark.bare",), self._take_bare, AT_ONCE)

    @operation
    async def taken(self) -> Times:
        """What was handled since somebody asked."""
        times, self._times = self._times, []
        return Times(times)

    async def stop(self) -> None:
        """Leave the broker."""
        if self._broker is not None:
            await self._broker.close()

    def _take(self, tx: Transaction, text: str) -> None:
        tx.execute(TAKE, {"text": text})

    async def _take_bare(self, message: Message, attempt: int) -> None:
        self._times.append((msgspec.json.decode(message.data)["at"], monotonic()))


def bare_broker() -> Any:
    """A broker as the runtime makes one, for a service that goes around the outbox."""
    from random import Random

    from twisted.internet import reactor

    from ropewalk_rabbitmq.broker import make

    clock: Any = reactor
    where = os.environ["ROPEWALK_ADAPTERS__BROKER"]
    return make(where, data=Path(), reactor=reactor, clock=clock, now=time.time, random=Random())


class Asked:
    """A process that is asked over HTTP, as any service is."""

    def __init__(self, environment: dict[str, str], folder: Path, process: str, port: int) -> None:
        run = ("-P", "-c", "from twisted.scripts.twistd import run; run()")
        said = (f"--process={process}", f"--port={port}", f"--data={folder}", str(folder / "system.toml"))
        self._url = f"http://127.0.0.1:{port + (process == 'taker')}"
        self._process = process
        self._log = (folder / f"{process}-{port}.log").open("wb")
        command = [sys.executable, *run, "--nodaemon", "--pidfile=", "ropewalk", *said]
        self.child = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)

    def ask(self, what: str, **values: Any) -> Any:
        """What it answers."""
        return self._get(f"/-/{self._process}/1/{what}", json.dumps(values).encode())

    def wait(self) -> None:
        """Until it is ready."""
        until = monotonic() + PATIENCE
        while True:
            try:
                self._get("/health/ready", None)
                return
            except OSError:
                if monotonic() > until or self.child.poll() is not None:
                    raise RuntimeError(Path(self._log.name).read_text("utf-8")) from None
            time.sleep(0.1)

    def end(self) -> None:
        """End it."""
        self.child.terminate()
        self.child.wait(PATIENCE)
        self._log.close()

    def _get(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json", "Ropewalk-Deadline": f"{PATIENCE * 1000:.0f}"}
        asked = urllib.request.Request(self._url + path, body, headers)
        with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
            answer = reply.read()
            return json.loads(answer) if answer and body is not None else None


# -- by hand

PEERS = ("FastStream", "aio-pika")
BY_HAND = """
CREATE TABLE sent (id bigserial PRIMARY KEY, text text);
CREATE TABLE outbox (position bigserial PRIMARY KEY, id varchar(32) NOT NULL, body bytea NOT NULL);
CREATE TABLE taken (id bigserial PRIMARY KEY, text text);
CREATE TABLE inbox (id varchar(32) PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
INSERT INTO inbox SELECT md5(n::text) FROM generate_series(1, {handled}) n;
ANALYZE
"""
RECORDS = """
INSERT INTO taker.ropewalk_records
SELECT md5(n::text), 1, '_take', md5('arguments'), 'taker.take', md5('key' || n), 0, '', 'null'::bytea, 0
FROM generate_series(1, {handled}) n;
ANALYZE
"""


def schema_of(side: str) -> str:
    """Of a peer's tables."""
    return side.lower().replace("-", "_")


class Told:
    """A process of a peer."""

    def __init__(self, side: str, role: str, dsn: str, name: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("events_by_hand.py")), side, role, dsn, name]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str, **values: Any) -> Any:
        """What it answers."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"what": what, **values}) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def wait(self) -> None:
        """Until it is ready."""
        self._answer()

    def end(self) -> None:
        """End it."""
        self.child.terminate()
        self.child.wait(PATIENCE)
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> Any:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise ConnectionResetError(f"The process has ended: {self.child.wait(PATIENCE)}.")
        return json.loads(line)


# -- what is measured


class Side:
    """A sender and a taker."""

    def __init__(self, name: str, start: Callable[[str, int], Any]) -> None:
        """`start("sender", n)`: another process."""
        self.name = name
        self._start = start
        self.sender, self.taker = self.start("sender"), self.start("taker")
        if isinstance(self.taker, Asked):
            self.taker.ask("start_bare")

    def start(self, role: str, number: int = 0) -> Any:
        """A process of it, on its core, that is ready."""
        process = self._start(role, number)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.child.pid, {cores[0] if role == "sender" else cores[-1]})
        process.wait()
        return process

    def throughput(self, events: int, **said: int) -> tuple[float, float]:
        """Events a second, and the processor's seconds that both processes took for one."""
        before = self._processor()
        began = self.sender.ask("send", number=events, rate=0.0, **said)
        rate = self._rate(began, events)
        return rate, (self._processor() - before) / events

    def bare(self, events: int) -> float:
        """The same, without a database."""
        began = self.sender.ask("send_bare", number=events)
        return self._rate(began, events)

    def latencies(self, events: int, rate: float) -> list[float]:
        """Seconds, sorted."""
        self.sender.ask("send", number=events, rate=rate)
        return sorted(end - at for at, end in self._taken(events))

    def takeover(self, idle: float) -> float:
        """Seconds until all is handled that a sender left behind; the other one has been there for `idle` seconds."""
        other = self.start("sender", 1)
        time.sleep(idle)
        try:
            self.sender.ask("die")
        except OSError:
            self.sender.child.wait(PATIENCE)
        self.sender.end()
        times = self._taken(LEFT)
        self.sender, self._start = other, self._swapped(self._start)
        return max(end for _, end in times) - max(at for at, _ in times)

    def end(self) -> None:
        """End both."""
        self.sender.end()
        self.taker.end()

    def _processor(self) -> float:
        """Seconds that both processes have had of a processor."""
        ticks = 0
        for process in (self.sender, self.taker):
            said = Path(f"/proc/{process.child.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            ticks += int(said[11]) + int(said[12])  # in the program and in the kernel: proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _swapped(start: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
        return lambda role, number: start(role, 1 - number)

    def _rate(self, began: float, events: int) -> float:
        return events / (max(end for _, end in self._taken(events)) - began)

    def _taken(self, events: int) -> list[tuple[float, float]]:
        times: list[tuple[float, float]] = []
        until = monotonic() + PATIENCE
        while len(times) < events:
            assert monotonic() < until, f"{self.name}: {len(times)} of {events} events were handled"
            time.sleep(0.25)
            times += [(at, end) for at, end in self.taker.ask("taken")["events"]]
        assert len(times) == events, f"{self.name}: {len(times)} events were handled, and {events} sent"
        return times


@contextmanager
def database() -> Iterator[str]:
    """A database of its own: its URL, without a scheme."""
    import psycopg

    name = NAME.replace("-", "_")
    with psycopg.connect(f"postgresql://{POSTGRESQL}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(f"postgresql://{POSTGRESQL}/{name}", autocommit=True) as there:
            for side in PEERS:
                there.execute(f"CREATE SCHEMA {schema_of(side)}")
                there.execute(f"SET search_path = {schema_of(side)}")
                there.execute(BY_HAND.format(handled=HANDLED))
        yield f"{POSTGRESQL}/{name}"
    finally:
        with psycopg.connect(f"postgresql://{POSTGRESQL}/postgres", autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def queues() -> Iterator[None]:
    """Whatever is on the server afterwards of ours is deleted."""
    import pika

    try:
        yield
    finally:
        connection = pika.BlockingConnection(pika.URLParameters(f"amqp://{RABBITMQ}"))
        channel = connection.channel()
        for side in PEERS:
            for queue in (f"{NAME}-{side}", f"{NAME}-{side}-bare"):
                channel.queue_delete(queue)
        for group in ("taker.take", "taker.bare"):
            for partition in range(8):
                channel.queue_delete(f"{NAME}.{group}.{partition}")
        channel.exchange_delete(f"{NAME}.events")
        connection.close()


SYSTEM = """
[system]
name = "events"
secret = "no secret: this is a benchmark"

[services]
sender = "events:Sender"
taker = "events:Taker"

[processes]
sender = ["sender"]
taker = ["taker"]

[log]
level = "warning"
"""


@contextmanager
def sides(chosen: Sequence[str]) -> Iterator[list[Side]]:
    """Those of that name, each with its processes."""
    with ExitStack() as stack:
        dsn = stack.enter_context(database())
        stack.enter_context(queues())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "system.toml").write_text(SYSTEM, "utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "ROPEWALK_ADAPTERS__STORE": f"postgresql://{dsn}?pool={OURS}",
            "ROPEWALK_ADAPTERS__BROKER": f"rabbitmq://{RABBITMQ}?prefix={NAME}",
        }
        ports = [free(), free()]

        def ropewalk(role: str, number: int) -> Asked:
            return Asked(environment, folder, role, ports[number])

        def by_hand(side: str) -> Callable[[str, int], Told]:
            return lambda role, _: Told(side, role, f"postgresql://{dsn}", f"{NAME}-{side}")

        found: list[Side] = []
        for name in chosen:
            side = Side(name, by_hand(name)) if name in PEERS else Side(name, ropewalk)
            stack.callback(side.end)
            found.append(side)
            if name not in PEERS:
                fill(dsn)
        yield found


def fill(dsn: str) -> None:
    """A taker of Ropewalk's has been at work."""
    import psycopg

    with psycopg.connect(f"postgresql://{dsn}", autocommit=True) as there:
        there.execute(RECORDS.format(handled=HANDLED))


def free() -> int:
    """A port that is free, as is the next one."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


SIDES = ("Ropewalk", *PEERS)
ROWS = {
    "events a second": "{:8,.0f}  ",
    "processor, an event": "{:8.2f} ms",
    "in order for each key": "{:8,.0f}  ",
    "without a database": "{:8,.0f}  ",
    "latency, p50": "{:8.1f} ms",
    "latency, p99": "{:8.1f} ms",
    "takeover": "{:8.2f} s ",
}


def measure(chosen: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """What each side had, by row, a value for each round."""
    values: dict[str, dict[str, list[float]]] = {row: {side: [] for side in chosen.sides} for row in ROWS}
    number = int(chosen.rate * chosen.seconds)

    def note(row: str, side: Side, value: float) -> None:
        values[row][side.name].append(value)

    with sides(chosen.sides) as found:
        for side in found:  # to connect and compile
            side.throughput(OUTSTANDING * 10)
            side.bare(OUTSTANDING * 10)
        for _ in range(chosen.rounds):
            for side in found:
                rate, processor = side.throughput(chosen.events)
                note("events a second", side, rate)
                note("processor, an event", side, processor * 1e3)
            for side in found:
                if side.name == "Ropewalk":
                    note("in order for each key", side, side.throughput(chosen.events, keys=KEYS)[0])
            for side in found:
                note("without a database", side, side.bare(chosen.events * 2))
            for side in found:
                seconds = side.latencies(number, chosen.rate)
                note("latency, p50", side, statistics.median(seconds) * 1e3)
                note("latency, p99", side, seconds[int(len(seconds) * 0.99)] * 1e3)
        for number in range(chosen.takeovers):
            for side in found:  # at other moments between two looks of the one that stays
                note("takeover", side, side.takeover(2.0 + 5.0 * number / chosen.takeovers))
    return values


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--events", type=int, default=1500 // OUTSTANDING * OUTSTANDING)
    options.add_argument("--rate", type=float, default=200.0)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--takeovers", type=int, default=3)
    options.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    values = measure(chosen)
    medians = {
        row: {side: statistics.median(found) for side, found in sides.items() if found} for row, sides in values.items()
    }
    if chosen.json:
        print(json.dumps({"values": values, "medians": medians, "python": platform.python_version()}))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, median (least, most) of {chosen.rounds} rounds")
    for row, form in ROWS.items():
        print(f"\n{row}" + (f", {chosen.rate:g} a second" if row.startswith("latency") else ""))
        for side, median in medians[row].items():
            least, most = min(values[row][side]), max(values[row][side])
            print(f"  {side:<12} {form.format(median)}  ({form.format(least).strip()}, {form.format(most).strip()})")


if __name__ == "__main__":
    main()
