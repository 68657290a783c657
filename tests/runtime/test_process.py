"""One process: from nothing to ready, and to nothing again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import pytest_twisted
import sqlalchemy
from pytest_twisted import ensureDeferred
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface import Attribute, Interface, implementer
from zope.interface.verify import verifyObject

from ropewalk import Contract, Database, Service, Settings, Workers, get, operation
from ropewalk.errors import ConfigurationError
from ropewalk.runtime.config import Config, SystemFile
from ropewalk.runtime.placement import Placement, place
from ropewalk.runtime.process import Process

HAPPENED: list[str] = []
metadata = sqlalchemy.MetaData()
notes = sqlalchemy.Table("notes", metadata, sqlalchemy.Column("text", sqlalchemy.Text))


class IMailer(Interface):
    """Sends mail."""

    sender = Attribute("Whose mail it is.")

    def send(text: str) -> None:
        """Send it."""


@implementer(IMailer)
class Mailer:
    sender = "hotel"

    def send(self, text: str) -> None:
        HAPPENED.append(text)


@implementer(IMailer)
class HalfMailer:
    """Promises more than it has."""


class FirstSettings(Settings):
    greeting: str = "hello"


class SecondContract(Contract, name="second-of-all"):
    @operation
    async def count(self) -> int: ...


class First(Service):
    """Takes everything there is to take."""

    tables = metadata

    def __init__(
        self,
        settings: FirstSettings,
        database: Database,
        workers: Workers,
        random: Random,
        clock: IReactorTime,
        tcp: IReactorTCP,
        http: HTTPClient,
        second: SecondContract,
        mailer: IMailer,
    ) -> None:
        self.given = [settings, database, workers, random, clock, tcp, http, second, mailer]
        self.second = second
        self.workers = workers
        self.database = database

    async def start(self) -> None:
        await asyncio.sleep(0)
        HAPPENED.append("first started")

    async def stop(self) -> None:
        await asyncio.sleep(0)
        HAPPENED.append("first stopped")

    @get("/count")
    async def count(self) -> int:
        return await self.second.count()

    @operation
    async def busy(self) -> str:
        await self.database.run(lambda tx: tx.execute(sqlalchemy.insert(notes).values(text="a")))
        return await self.workers.thread(lambda: "done")


class Second(SecondContract, Service, name="second-of-all"):
    def __init__(self) -> None:
        self.asked: Deferred[None] = Deferred()
        self.answer: Deferred[int] | None = None

    async def start(self) -> None:
        HAPPENED.append("second started")

    async def stop(self) -> None:
        HAPPENED.append("second stopped")

    async def count(self) -> int:
        if self.answer is None:
            return 3
        self.asked.callback(None)
        return await self.answer


class Unwilling(Service):
    async def start(self) -> None:
        raise ValueError("not today")


class Grumbling(Service):
    async def stop(self) -> None:
        raise ValueError("not yet")


class Mute(Service): ...


def keeps(*columns: str) -> sqlalchemy.MetaData:
    """A table of these columns."""
    tables = sqlalchemy.MetaData()
    sqlalchemy.Table("kept", tables, *(sqlalchemy.Column(name, sqlalchemy.Text) for name in columns))
    return tables


class KeeperBefore(Service):
    tables = keeps("name")

    def __init__(self, database: Database) -> None: ...


class KeeperTwice(KeeperBefore): ...


class KeeperNow(KeeperBefore):
    tables = keeps("name", "place")


class Needy(Service):
    def __init__(self, unheard_of: IReactorTCP, other: UnheardOf) -> None: ...


class UnheardOf(Contract): ...


def config(folder: Path, services: dict[str, str], **sections: Any) -> Config:
    file = SystemFile(
        services={name: f"{__name__}:{cls}" for name, cls in services.items()},
        system={"secret": "a secret that only tests know"},
        **sections,
    )
    return Config(file=file, target="test", folder=folder, origins={}, environment={})


class Started:
    """Processes that are stopped when the test ends, on any free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Process] = []
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.http = HTTPClient(Agent(reactor, pool=self.pool))

    def make(self, config: Config, process: str = "all", placement: Placement | None = None, **options: Any) -> Process:
        made = placement or place(config)
        self.placement = Placement(dict(made.places), made.workers)
        options = {"listen": self._listen, "drain_delay": 0, **options}
        return Process(config, self.placement, process, reactor, data=self.folder, random=Random(7), **options)

    async def start(self, process: Process) -> Process:
        """Started; raises what it failed with."""
        done: Deferred[None] = Deferred()
        process._on_ready = lambda: done.callback(None)
        process._on_failure = done.errback
        self.running.append(process)
        process.startService()
        await done
        return process

    async def start_apart(self, config: Config) -> tuple[Process, Process]:
        """The processes "one" and "two" of a system; each knows where the other is."""
        made = place(config)
        one = await self.start(self.make(config, "one", Placement(dict(made.places), made.workers)))
        placement = self.placement
        two = self.make(config, "two", placement)
        two.placement = self.placement = placement
        return one, await self.start(two)

    async def _listen(self, site: Any, description: str) -> Any:
        port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        for name, there in self.placement.places.items():
            if there.listen == description:
                url = f"http://127.0.0.1:{port.getHost().port}"
                self.placement.places[name] = msgspec.structs.replace(there, urls=(url,))  # type: ignore[index]
        return port

    async def get(self, service: str, path: str) -> tuple[int, bytes]:
        reply = await self.http.get(self.placement.places[service].urls[0] + path)
        return reply.code, await reply.content()

    async def stop(self) -> None:
        for process in self.running:
            await process.stopService()
        self.running.clear()


@pytest_twisted.async_yield_fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    HAPPENED.clear()
    made = Started(tmp_path)
    yield made
    await made.stop()


BOTH = {"first": "First", "second": "Second"}
MAILER = {f"{__name__}:IMailer": f"{__name__}:Mailer"}


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; ten seconds are long enough."""
    for _ in range(1000):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not come true")


def in_flight(process: Process) -> list[int]:
    """Of each thing the process measures, the calls under way: those it makes, those it was asked."""
    return [meter.in_flight for meter in process.meters]


def leftovers() -> tuple[list[Any], list[str], list[str]]:
    """(timers, listeners and connections, threads) of this moment."""
    pool = reactor.getThreadPool()  # type: ignore[attr-defined]
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread() and t not in pool.threads]
    timers = [call for call in reactor.getDelayedCalls() if "_Waker" not in str(call)]  # type: ignore[attr-defined]
    readers = [str(r) for r in (*reactor.getReaders(), *reactor.getWriters()) if "aker" not in type(r).__name__]  # type: ignore[attr-defined]
    return timers, readers, threads


@ensureDeferred
async def test_a_process_gives_starts_serves_and_leaves_nothing(started):
    before = leftovers()
    process = await started.start(
        started.make(config(started.folder, BOTH, provide=MAILER, settings={"first": {"greeting": "hi"}}))
    )
    first = process.services["first"]
    settings, database, workers, random, clock, tcp, _http, second, mailer = first.given

    assert (True, ["first started", "second started"]) == (process.ready, HAPPENED)
    assert ("hi", process.random, True, True, reactor) == (
        settings.greeting,
        random,
        isinstance(database, Database),
        isinstance(workers, Workers),
        tcp,
    )
    assert (True, True, True) == (
        verifyObject(IMailer, mailer),
        verifyObject(IReactorTime, clock),
        isinstance(second, SecondContract),
    )
    assert (200, b"3") == await started.get("first", "/count")
    assert (200, b'{"status":"live"}') == await started.get("first", "/health/live")
    assert (200, b'{"status":"ready"}') == await started.get("second", "/health/ready")
    status, page = await started.get("second", "/metrics")
    assert (200, True) == (status, page.endswith(b"# EOF\n"))
    assert b"ropewalk_server_requests_total{" in page
    assert "done" == await process.driver.run(first.busy())

    await started.stop()

    assert ["first started", "second started", "second stopped", "first stopped"] == HAPPENED
    assert before == leftovers()


@ensureDeferred
async def test_what_is_asked_while_it_stops_is_answered_to_its_end(started):
    process = await started.start(started.make(config(started.folder, BOTH, provide=MAILER)))
    second: Any = process.services["second"]
    second.answer = Deferred()
    waiting = process.driver.run(started.get("first", "/count"))
    await second.asked

    stopping = process.stopService()
    started.running.clear()

    assert (False, False) == (process.ready, stopping.called)
    second.answer.callback(4)
    assert (200, b"4") == await waiting
    await stopping


@ensureDeferred
async def test_a_stop_waits_for_a_call_that_may_not_be_cancelled_though_its_caller_is_gone(started):
    apart = config(started.folder, BOTH, provide=MAILER, processes={"one": ["first"], "two": ["second"]})
    one, two = await started.start_apart(apart)
    second: Any = two.services["second"]
    second.answer = Deferred()
    waiting = one.driver.run(started.get("first", "/count"))
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    await second.asked
    waiting.cancel()  # a GET, which may be cancelled; the call it has made may not
    await until(lambda: [1, 0] == in_flight(one))

    stopping = one.stopService()
    started.running.remove(one)
    await until(lambda: "first stopped" in HAPPENED)
    during = in_flight(one)
    second.answer.callback(4)
    await stopping

    assert ([1, 0], [0, 0]) == (during, in_flight(one))


@ensureDeferred
async def test_a_service_that_cannot_start_ends_the_process_and_the_rest_is_stopped(started, flush_logged_errors):
    before = leftovers()
    with pytest.raises(ValueError, match="not today"):
        await started.start(started.make(config(started.folder, {"mute": "Mute", "unwilling": "Unwilling"})))

    await started.stop()

    assert before == leftovers()
    assert ["not today"] == [failure.getErrorMessage() for failure in flush_logged_errors(ValueError)]


@ensureDeferred
async def test_a_service_that_cannot_stop_does_not_keep_the_others_from_it(started, flush_logged_errors):
    await started.start(started.make(config(started.folder, {**BOTH, "grumbling": "Grumbling"}, provide=MAILER)))

    await started.stop()

    assert ["first started", "second started", "second stopped", "first stopped"] == HAPPENED
    assert ["not yet"] == [failure.getErrorMessage() for failure in flush_logged_errors(ValueError)]


REFUSALS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "a dependency nobody provides": ({"first": "First", "second": "Second"}, {}, "nothing provides 'mailer: IMailer'"),
    "a sibling nobody is": ({"needy": "Needy"}, {}, "No service of this system keeps the contract UnheardOf"),
    "tables of another": (
        {"keeper": "KeeperBefore", "twice": "KeeperTwice"},
        {},
        "keeper and twice say the same tables",
    ),
    "settings nobody reads": ({"mute": "Mute"}, {"settings": {"mute": {"x": 1}}}, "takes no Settings"),
    "a provider that does not exist": (BOTH, {"provide": {f"{__name__}:IMailer": f"{__name__}:Nothing"}}, "Nothing"),
}


@pytest.mark.parametrize("case", REFUSALS)
@ensureDeferred
async def test_what_cannot_be_built_is_refused_by_name(started, case):
    services, sections, message = REFUSALS[case]

    with pytest.raises(ConfigurationError) as refused:
        await started.start(started.make(config(started.folder, services, **sections)))

    assert message in str(refused.value)


@ensureDeferred
async def test_a_service_whose_tables_are_others_than_those_that_are_there_is_refused_with_the_way_out(started):
    before = await started.start(started.make(config(started.folder, {"keeper": "KeeperBefore"})))
    await before.stopService()

    with pytest.raises(ConfigurationError) as refused:
        await started.start(started.make(config(started.folder, {"keeper": "KeeperNow"})))

    assert str(refused.value) == (
        "The tables of keeper are not those of the code: column kept.place is missing. "
        f"Run `ropewalk migrate test --service keeper --data {started.folder}`."
    )


@ensureDeferred
async def test_a_provider_that_lacks_what_it_promises_is_refused(started, flush_logged_errors):
    half = {f"{__name__}:IMailer": f"{__name__}:HalfMailer"}

    with pytest.raises(ConfigurationError, match="IMailer"):
        await started.start(started.make(config(started.folder, BOTH, provide=half)))

    flush_logged_errors()


@ensureDeferred
async def test_a_port_that_is_taken_is_told_with_the_service(started):
    site = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory.forProtocol(Protocol))
    port = site.getHost().port
    taken = config(started.folder, {"mute": "Mute"})

    with pytest.raises(ConfigurationError, match=rf"^mute cannot listen at tcp:{port}:interface=127\.0\.0\.1: "):
        await started.start(
            started.make(
                taken, placement=place(taken, port), listen=lambda s, d: serverFromString(reactor, d).listen(s)
            )
        )
    await site.stopListening()


@ensureDeferred
async def test_a_service_may_have_another_name_in_the_system_than_its_class(started, tmp_path):
    """It is called by the class's name on the wire, wherever it lives."""
    split = {"one": ["first"], "two": ["till"]}
    services = {"first": "First", "till": "Second"}
    first, _ = await started.start_apart(config(started.folder, services, provide=MAILER, processes=split))

    assert (200, b"3") == await started.get("first", "/count")
    assert first.services.keys() == {"first"}
