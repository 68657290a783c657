"""The World's verbs: what each does, what it says of a wrong name, and what runs inside as it would outside."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from traceback import walk_tb
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ropewalk import (
    Client,
    Conflict,
    Database,
    DeadlineExceeded,
    Principal,
    RopewalkError,
    Service,
    Settings,
    Unavailable,
    Workers,
    get,
    given,
    post,
)
from ropewalk.discovery.resolve import Resolve
from ropewalk.errors import ConfigurationError
from ropewalk.filters.deadline import Deadline
from ropewalk.interfaces import IWallClock
from ropewalk.message import Response
from ropewalk.runtime.stacks import client_stack, server_stack
from ropewalk.testing import World
from ropewalk.testing.driving import BEGINS, Stuck

metadata = sa.MetaData()
entries = sa.Table("entries", metadata, sa.Column("number", sa.Integer), sa.Column("by", sa.String))


class LedgerSettings(Settings):
    currency: str = "EUR"
    limit: int = 100


class Ledger(Service, name="ledger", version="1.0.0"):
    """Writes down."""

    tables = metadata

    def __init__(self, database: Database, settings: LedgerSettings, clock: IReactorTime, wall: IWallClock) -> None:
        self.database, self.settings, self.clock, self.wall = database, settings, clock, wall
        self.last_words: list[str] = []

    @post("/entries/<int:number>", raises=(Conflict,))
    async def write(self, number: int, principal: Principal = given) -> str:
        """Write one down."""
        if number > self.settings.limit:
            raise Conflict(f"{number} is above {self.settings.limit}")
        await self.database.run(self._insert, number, principal.subject or "nobody")
        return self.settings.currency

    @post("/entries/<int:number>/after/<float:seconds>")
    async def write_later(self, number: int, seconds: float) -> str:
        """Write one down, in so many seconds."""
        await deferLater(self.clock, seconds)
        return await self.write(number, Principal())

    @get("/slow/<float:seconds>")
    async def slow(self, seconds: float) -> float:
        """Take so long; answers the wall clock's time of day, in seconds."""
        try:
            await deferLater(self.clock, seconds)
        finally:
            self.last_words.append("finally")
        return self.wall.now().timestamp() - BEGINS

    @get("/broken")
    async def broken(self) -> None:
        """Raises what nobody expects."""
        raise ZeroDivisionError("on purpose")

    def _insert(self, tx: Any, number: int, by: str) -> None:
        tx.execute(sa.insert(entries).values(number=number, by=by))


class Till(Service, name="till", version="1.0.0"):
    """Asks the ledger."""

    def __init__(
        self,
        ledger: Annotated[Ledger, Client(timeout=5)],
        http: HTTPClient,
        workers: Workers,
        random: Random,
        wall: IWallClock,
    ) -> None:
        self.ledger, self.http, self.workers, self.random, self.wall = ledger, http, workers, random, wall

    @post("/pay/<int:number>", raises=(Conflict,))
    async def pay(self, number: int) -> str:
        """Write it down at the ledger."""
        return await self.ledger.write(number)

    @get("/pay-later/<int:number>")
    async def pay_later(self, number: int) -> str:
        """Write it down at the ledger, in three seconds; whoever asked may go, and it is written all the same."""
        return await self.ledger.write_later(number, 3.0)

    @get("/wait/<float:seconds>")
    async def wait(self, seconds: float) -> float:
        """Wait for the ledger."""
        return await self.ledger.slow(seconds)

    @get("/asyncio")
    async def with_asyncio(self) -> list[str]:
        """What asyncio has to offer."""
        told = []
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(0.2):
                await asyncio.sleep(1)
        except TimeoutError:
            told.append(f"timeout after {asyncio.get_running_loop().time() - begun:.1f}")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._slept(seconds)) for seconds in (0.3, 0.1, 0.2)]
        told += [task.result() for task in tasks]
        told += await asyncio.gather(self._slept(0.1), self._slept(0.2))
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._slept(10))
                group.create_task(self._fails())
        try:
            await asyncio.wait_for(self._slept(5), 0.1)
        except TimeoutError:
            told.append("given up")
        lock, event = asyncio.Lock(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, event.set)
        async with lock:
            await event.wait()
        told.append(f"{asyncio.get_running_loop().time() - begun:.1f} in all")
        return told

    @get("/deferreds")
    async def with_deferreds(self) -> list[Any]:
        """Deferreds and what is made of them."""
        both = await DeferredList([succeed(1), self._later(2)])
        try:
            await fail(ValueError("seen"))
        except ValueError as error:
            both.append(str(error))
        return [both[0][1], both[1][1], both[2], await self._later(4)]

    @get("/deferred")
    def plain(self) -> Deferred[str]:
        """An operation that returns a Deferred."""
        return self._later("plain").addCallback(str.upper)

    @get("/http")
    async def over_http(self) -> list[Any]:
        """The ledger by hand."""
        response = await self.http.post("sibling://ledger/entries/7")
        missing = await self.http.get("sibling://ledger/nowhere")
        return [response.code, await response.json(), missing.code]

    @get("/workers")
    async def with_workers(self) -> list[Any]:
        """Threads and processes."""
        results = [await self.workers.thread(abs, -3), await self.workers.process(divmod, 7, 2)]
        for way in (self.workers.thread, self.workers.process):
            try:
                await way(int, "x")
            except ValueError as error:
                results.append(type(error).__name__)
        return results

    @get("/chance")
    async def chance(self) -> int:
        """Of this process."""
        return self.random.randrange(10**12)

    @get("/now")
    async def now(self) -> datetime:
        """By the wall clock."""
        return self.wall.now()

    @get("/real")
    async def real(self) -> float:
        """Asks what it must not."""
        return time.time()

    async def _slept(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"slept {seconds}"

    async def _fails(self) -> None:
        await asyncio.sleep(0.1)
        raise ValueError

    def _later(self, value: Any) -> Deferred[Any]:
        return deferLater(self.ledger_clock, 1.0, lambda: value)

    @property
    def ledger_clock(self) -> Any:
        return asyncio.get_running_loop()._reactor  # type: ignore[attr-defined]


@pytest.fixture
def world() -> Iterator[World]:
    with World([Till, Ledger], seed=6) as world:
        yield world


@pytest.fixture
def till(world: World) -> Any:
    return world.client(Till)


@pytest.fixture
def ledger(world: World) -> Any:
    return world.client(Ledger)


def not_made(raised: Any) -> None:
    """Take away the folder of a World whose constructor raised, if it left it."""
    for frame, _ in walk_tb(raised.tb):
        world = frame.f_locals.get("self")
        if isinstance(world, World) and hasattr(world, "_folder"):
            world._folder.cleanup()


def written(world: World) -> list[tuple[int, str]]:
    return world.database("ledger").peek(lambda tx: [tuple(row) for row in tx.execute(sa.select(entries))])


def unavailable(world: World, awaitable: Any) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        world.run(awaitable)
    return raised.value


async def later(world: World, seconds: float, value: Any = None) -> Any:
    await deferLater(world.hosts["outside"].reactor, seconds)
    if isinstance(value, Exception):
        raise value
    return value


# -- the hosts


def test_there_is_a_host_for_each_instance_each_database_and_the_caller(world):
    assert ["outside", "till/1", "till/2", "ledger/1", "ledger/2", "ledger/database"] == list(world.hosts)
    assert 6 == len({host.address for host in world.hosts.values()})


@pytest.mark.parametrize("instances", [1, 3])
def test_there_are_as_many_instances_as_one_likes(instances):
    with World([Till, Ledger], instances=instances) as world:
        assert [f"till/{number}" for number in range(1, instances + 1)] == [n for n in world.hosts if n[:4] == "till"]
        assert "EUR" == world.run(world.client(Till).pay(1))


def test_two_services_of_one_name_are_refused():
    class Other(Service, name="ledger", version="1.0.0"):
        """Calls itself the same."""

    with pytest.raises(ConfigurationError, match="one name") as raised:
        World([Ledger, Other])
    not_made(raised)


def test_two_services_that_say_the_same_tables_are_refused():
    class Copy(Ledger, name="copy"): ...

    with pytest.raises(ConfigurationError, match="ledger and copy say the same tables"):
        World([Ledger, Copy])


def test_another_wire_is_refused():
    with pytest.raises(ValueError, match='expected "http" or "direct", got ..?pigeon'):
        World([Ledger], wire="pigeon")


def test_what_keeps_a_service_from_starting_is_raised():
    class Sick(Service, name="sick", version="1.0.0"):
        """Does not start."""

        async def start(self) -> None:
            raise ZeroDivisionError("not today")

    with pytest.raises(ZeroDivisionError, match="not today") as raised:
        World([Sick])
    not_made(raised)


def test_start_and_stop_may_take_their_time():
    class Late(Service, name="late", version="1.0.0"):
        """Takes ten seconds to start."""

        async def start(self) -> None:
            await asyncio.sleep(10)

        @get("/x")
        async def x(self) -> str:
            """Answers."""
            return "here"

    with World([Late]) as world:
        assert "here" == world.run(world.client(Late).x())
        assert world.now >= 10


# -- asking


@pytest.mark.parametrize("wire", ["http", "direct"])
def test_a_call_through_two_services_comes_back(wire):
    with World([Till, Ledger], seed=6, wire=wire) as world:
        assert "EUR" == world.run(world.client(Till).pay(5))
        with pytest.raises(Conflict, match="101 is above 100"):
            world.run(world.client(Till).pay(101))
        assert [(5, "nobody")] == written(world)


def test_a_client_asks_on_behalf_of_its_subject(world):
    world.run(world.client(Ledger, subject="ann").write(1))
    world.run(world.client(Ledger).write(2))

    assert [(1, "ann"), (2, "nobody")] == written(world)


def test_a_call_has_begun_when_it_is_made_and_goes_on_when_the_world_does(world, till):
    call = till.pay(3)
    assert [] == written(world)

    world.advance(1.0)
    assert [(3, "nobody")] == written(world)
    assert "EUR" == world.run(call)


def test_the_client_of_one_who_is_not_here_is_refused(world):
    class Elsewhere(Service, name="elsewhere", version="1.0.0"):
        """Not of this system."""

    with pytest.raises(ConfigurationError, match="elsewhere"):
        world.client(Elsewhere)


def test_settings_are_given_by_service():
    with World([Till, Ledger], settings={"ledger": {"currency": "CHF"}}) as world:
        assert "CHF" == world.run(world.client(Till).pay(1))


def test_settings_of_a_stranger_are_refused():
    with pytest.raises(ConfigurationError, match="nobody") as raised:
        World([Till, Ledger], settings={"nobody": {"currency": "CHF"}}).close()
    not_made(raised)


@pytest.mark.parametrize(
    "awaitable",
    [
        lambda world: later(world, 2.0, "done"),
        lambda world: deferLater(world.hosts["outside"].reactor, 2.0, lambda: "done"),
        lambda world: succeed("done"),
    ],
    ids=["coroutine", "deferred", "fired"],
)
def test_run_takes_whatever_can_be_awaited(world, awaitable):
    assert "done" == world.run(awaitable(world))


def test_run_raises_what_is_raised(world):
    with pytest.raises(ValueError, match="this"):
        world.run(later(world, 1.0, ValueError("this")))


def test_run_takes_no_longer_than_it_needs_and_no_more_than_it_may(world):
    begun = world.now
    world.run(later(world, 2.0))
    needed = world.now - begun

    with pytest.raises(Stuck, match=r"not within 10 virtual seconds, at 12\.\d+ s"):
        world.run(Deferred(), timeout=10.0)

    assert (pytest.approx(2.0), pytest.approx(12.0)) == (needed, world.now - begun)


def test_what_was_given_up_does_no_harm_later(world):
    with pytest.raises(Stuck):
        world.run(later(world, 20.0, ValueError("too late")), timeout=10.0)

    world.advance(20.0)
    gc.collect()

    assert [] == world.failures


def test_until_waits_for_a_condition_and_names_it(world):
    begun = world.now
    world.until(lambda: world.now - begun >= 0, timeout=1.0)

    def the_cows_come_home() -> bool:
        return False

    with pytest.raises(Stuck, match="the_cows_come_home: not within 60 virtual seconds"):
        world.until(the_cows_come_home)


def test_advance_lets_exactly_so_much_time_pass(world):
    begun = world.now
    for seconds in (0.0, 0.25, 1000.0):
        world.advance(seconds)

    assert 1000.25 == pytest.approx(world.now - begun)


def test_a_closed_world_is_closed(world):
    world.close()
    world.close()

    with pytest.raises(RuntimeError, match="closed"):
        world.advance(1.0)


def test_a_world_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with World([Ledger]) as world:
        assert [] != os.listdir(tmp_path)
        world.run(world.client(Ledger).write(1))

    assert [] == os.listdir(tmp_path)


def test_a_world_that_could_not_start_leaves_no_files(tmp_path, monkeypatch):
    class Sick(Service, name="sick", version="1.0.0"):
        """Does not start."""

        async def start(self) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError) as raised:
        World([Sick])
    left = os.listdir(tmp_path)
    not_made(raised)

    assert [] == left


# -- inside


def test_asyncio_means_the_same_in_virtual_time(world, till):
    assert [
        "timeout after 0.2",
        "slept 0.3",
        "slept 0.1",
        "slept 0.2",
        "slept 0.1",
        "slept 0.2",
        "given up",
        "1.0 in all",
    ] == world.run(till.with_asyncio())


def test_deferreds_can_be_awaited_and_returned(world, till):
    assert [1, 2, "seen", 4] == world.run(till.with_deferreds())
    assert "PLAIN" == world.run(till.plain())


def test_treq_reaches_a_sibling_by_its_name(world, till):
    assert [200, "EUR", 404] == world.run(till.over_http())
    assert [(7, "nobody")] == written(world)


def test_a_worker_process_that_dies_fails_what_it_worked_on_and_nothing_after_that(world, till, monkeypatch):
    deaths = iter([True])
    monkeypatch.setattr("ropewalk.testing.workers.buggify", lambda point: next(deaths, False))

    with pytest.raises(Unavailable, match="A worker process died while it ran divmod"):
        world.run(till.with_workers())
    after = [world.run(till.with_workers()) for _ in range(4)]  # of both instances

    assert [[3, [3, 1], "ValueError", "ValueError"]] * 4 == after


def test_workers_answer_and_raise(world, till):
    assert [3, [3, 1], "ValueError", "ValueError"] == world.run(till.with_workers())


def test_each_process_has_a_chance_of_its_own_the_same_for_a_seed():
    def chances(seed: int) -> list[int]:
        with World([Till, Ledger], seed=seed) as world:
            till = world.client(Till)
            first = [world.run(till.chance()) for _ in range(4)]
            world.crash("till")
            world.restart("till")
            world.advance(1.0)
            return first + [world.run(till.chance()) for _ in range(2)]

    one = chances(1)

    assert one == chances(1)
    assert 6 == len({*one})
    assert set() == {*one} & {*chances(2)}


def test_the_wall_clock_is_that_of_the_host_and_jumps(world, till):
    first = world.run(till.now())
    world.jump("till", 20.0)  # a token of the caller's is still good
    world.advance(10.0)
    second = world.run(till.now())

    assert datetime(2026, 5, 1, 9, tzinfo=UTC) <= first < datetime(2026, 5, 1, 9, 1, tzinfo=UTC)
    assert timedelta(seconds=30) <= second - first < timedelta(seconds=31)


def test_what_the_product_may_not_ask_for_fails_its_call_and_says_why(world, till, flush_logged_errors):
    with pytest.raises(RopewalkError):
        world.run(till.real())

    failures = world.flush_failures()
    flush_logged_errors()
    assert any("time.time() was asked for in a simulation by" in failure for failure in failures)


# -- failures


def test_a_failure_that_is_left_fails_the_test(flush_logged_errors):
    with (
        pytest.raises(
            AssertionError, match=r"1 failures were left in the world:\nledger/\d at .* on purpose"
        ) as raised,
        World([Ledger]) as world,
        pytest.raises(RopewalkError),
    ):
        world.run(world.client(Ledger).broken())
    flush_logged_errors()

    assert "ZeroDivisionError" in str(raised.value)


def test_what_the_test_itself_raises_comes_first(flush_logged_errors):
    with pytest.raises(KeyError), World([Ledger]) as world:
        with pytest.raises(RopewalkError):
            world.run(world.client(Ledger).broken())
        raise KeyError
    flush_logged_errors()


def test_failures_are_taken_once(world):
    reactor = world.hosts["till/1"].reactor
    reactor.callLater(1.0, lambda: 1 // 0)
    reactor.callLater(1.0, lambda: [][0])
    world.advance(2.0)

    assert [2, 0] == [len(world.flush_failures()), len(world.flush_failures())]


# -- wrong names

WRONG: dict[str, Any] = {
    "crash": lambda world: world.crash("paiments"),
    "crash at": lambda world: world.crash("paiments", at="before:write"),
    "restart": lambda world: world.restart("paiments"),
    "partition": lambda world: world.partition("till", "paiments"),
    "heal": lambda world: world.heal("paiments"),
    "hold": lambda world: world.hold("paiments", "till"),
    "release": lambda world: world.release("paiments", "till"),
    "link": lambda world: world.link("till", "paiments", loss=0.1),
    "stop": lambda world: world.stop("paiments"),
    "hesitate": lambda world: world.hesitate("paiments", 1.0),
    "coincide": lambda world: world.coincide("paiments"),
    "pause": lambda world: world.pause("paiments"),
    "resume": lambda world: world.resume("paiments"),
    "jump": lambda world: world.jump("paiments", 1.0),
    "drift": lambda world: world.drift("paiments", 1.0),
    "reset": lambda world: world.reset("paiments", "till"),
    "an instance": lambda world: world.crash("till/3"),
    "a database of none": lambda world: world.crash("till/database"),
}


@pytest.mark.parametrize("verb", WRONG)
def test_a_name_that_means_nobody_is_refused_with_those_there_are(world, verb):
    with pytest.raises(
        ValueError, match=r"There is no '.*' in this world; there are: outside, till/1, .*ledger/database"
    ):
        WRONG[verb](world)


@pytest.mark.parametrize("at", ["", "write", "during:write", "after:", "before write"])
def test_a_moment_that_is_none_is_refused(world, at):
    with pytest.raises(ValueError, match="expected a moment like"):
        world.crash("ledger", at=at)


WRONG_VALUES: dict[str, Any] = {
    "rate of nothing": lambda world: world.drift("till", 0.0),
    "rate backwards": lambda world: world.drift("till", -1.0),
    "latency": lambda world: world.link("till", "ledger", latency=(1.0, 0.5)),
    "negative latency": lambda world: world.link("till", "ledger", latency=(-1.0, 0.5)),
    "loss": lambda world: world.link("till", "ledger", loss=1.5),
    "bandwidth": lambda world: world.link("till", "ledger", bandwidth=-1.0),
    "advance": lambda world: world.advance(-1.0),
    "hesitation": lambda world: world.hesitate("till", -1.0),
    "the caller": lambda world: world.crash("outside"),
    "the caller, asked to stop": lambda world: world.stop("outside"),
    "a database, asked to stop": lambda world: world.stop("ledger/database"),
}


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_a_value_that_means_nothing_is_refused_at_once(world, value):
    with pytest.raises(ValueError, match="expected|caller|outside|asked|below|zero|seconds"):
        WRONG_VALUES[value](world)


def test_a_property_that_no_link_has_is_refused(world):
    with pytest.raises(TypeError):
        world.link("till", "ledger", latncy=(0.1, 0.2))


# -- faults


def test_nothing_passes_a_partition_until_it_heals(world, till):
    world.partition("till", "ledger")
    begun = world.now
    error = unavailable_or_late(world, till.pay(1))
    waited = world.now - begun

    world.heal("till", "ledger")
    assert "EUR" == world.run(till.pay(2))
    assert (5.0, "maybe") == (pytest.approx(waited, abs=0.1), error.ran)


def unavailable_or_late(world: World, awaitable: Any) -> Any:
    with pytest.raises((Unavailable, DeadlineExceeded)) as raised:
        world.run(awaitable)
    return raised.value


def test_what_is_cut_off_from_all_others_is_reached_by_nobody_until_it_heals(world, till):
    world.partition("ledger", "*")
    begun = world.now

    unavailable_or_late(world, till.pay(1))
    waited = world.now - begun
    world.heal("ledger")

    assert "EUR" == world.run(till.pay(2))
    assert 5.0 == pytest.approx(waited, abs=0.1)


def test_a_held_call_arrives_when_it_is_released(world, ledger):
    world.run(ledger.write(0))
    world.run(ledger.write(0))
    world.hold("outside", "ledger")
    calls = [ledger.write(number) for number in (1, 2)]
    world.advance(2.0)
    before = len(written(world))

    world.release("outside", "ledger")
    for call in calls:
        world.run(call)

    assert (2, 4) == (before, len(written(world)))


def test_what_is_down_refuses_and_what_has_restarted_answers(world, ledger):
    world.crash("ledger")
    error = unavailable(world, ledger.write(1))
    world.crash("ledger")  # what is down stays as it is
    world.restart("ledger")
    world.restart("ledger")
    world.until(lambda: all(world.processes[name].ready for name in ("ledger/1", "ledger/2")))

    assert ("no", "EUR") == (error.ran, world.run(ledger.write(2)))
    assert {"ledger/1": 1, "ledger/2": 1} == dict(world.crashes)


def test_restart_starts_everything_that_is_down(world, till):
    for name in ("till/1", "ledger", "ledger/database"):
        world.crash(name)
    world.restart("ledger/database")
    world.restart()
    world.advance(1.0)

    assert ["EUR"] * 4 == [world.run(till.pay(number)) for number in range(4)]


def test_an_instance_alone_is_named_by_its_number(world, ledger):
    world.crash("ledger/1")

    ends = []
    for number in range(4):
        try:
            ends.append(world.run(ledger.write(number)))
        except Unavailable as error:
            ends.append(error.ran)

    assert ["EUR", "EUR", "no", "no"] == sorted(ends)


@pytest.mark.parametrize(
    ("moment", "left", "wire"),
    [
        ("before:write", 0, "http"),
        ("before:insert", 0, "http"),
        ("after:insert", 1, "http"),
        ("after:write", 1, "http"),
        ("before:write", 0, "direct"),
        ("before:insert", 0, "direct"),
        ("after:insert", 1, "direct"),
        ("after:write", 1, "direct"),
    ],
)
def test_a_crash_at_a_moment_of_the_callee_is_a_maybe_for_the_caller(moment, left, wire):
    with World([Ledger], wire=wire, seed=3) as world:
        world.crash("ledger", at=moment)

        error = unavailable(world, world.client(Ledger).write(1))
        down = sum(world.crashes.values())

        assert ("maybe", left, 1) == (error.ran, len(written(world)), down)


@pytest.mark.parametrize(("at", "left"), [("before:write", 0), ("after:write", 1)])
def test_a_caller_dies_before_or_after_its_call(world, till, at, left):
    world.crash("till", at=at)

    unavailable(world, till.pay(1))
    world.advance(10.0)

    assert left == len(written(world))
    assert {1} == set(world.crashes.values())


def test_the_nth_time_is_counted(world, ledger):
    world.crash("ledger", at="after:write", nth=3)

    assert ["EUR", "EUR"] == [world.run(ledger.write(number)) for number in (1, 2)]
    unavailable(world, ledger.write(3))


@pytest.mark.parametrize(("at", "left"), [("before:write", 0), ("after:insert/commit", 1)])
def test_a_partition_at_a_moment_begins_with_it_and_ends_when_it_is_healed(world, ledger, at, left):
    world.partition("ledger", "ledger/database", at=at)

    unavailable(world, ledger.write(1))
    lost = len(written(world))
    world.heal()

    assert left == lost
    assert "EUR" == world.run(ledger.write(2))


def test_a_partition_that_is_healed_before_its_moment_does_not_come(world, ledger):
    world.partition("ledger", "ledger/database", at="before:write", nth=2)
    world.partition("till", "ledger/database", at="before:write")
    world.heal("ledger", "ledger/database")

    assert ["EUR", "EUR"] == [world.run(ledger.write(number)) for number in (1, 2)]


def test_moments_are_those_of_instances(world):
    with pytest.raises(ValueError, match="name a service"):
        world.crash("ledger/database", at="before:write")
    with pytest.raises(ValueError, match="name a service"):
        world.partition("ledger/database", "outside", at="before:write")


def test_a_crash_at_a_frame_is_before_or_after_its_bytes_are_taken():
    def left(at: str) -> int:
        with World([Ledger], instances=1) as world:
            world.run(world.client(Ledger).write(0))
            world.crash("ledger/1", at=at)
            unavailable(world, world.client(Ledger).write(1))
            assert {"ledger/1": 1} == dict(world.crashes)
            return len(written(world))

    assert [1, 1] == [left("before:frame"), left("after:frame")]


def test_of_a_call_in_a_process_that_dies_no_finally_block_is_executed(world):
    client = world.client(Ledger)
    call = client.slow(60.0)
    world.advance(1.0)
    words = [world.processes[f"ledger/{number}"].services["ledger"].last_words for number in (1, 2)]  # type: ignore[attr-defined]

    world.crash("ledger")
    gc.collect()
    error = unavailable(world, call)
    world.restart("ledger")
    world.advance(120.0)
    gc.collect()

    assert ("maybe", [[], []]) == (error.ran, words)


def test_after_a_power_failure_the_caller_waits_for_his_own_timeout(world, till):
    calls = [till.wait(60.0)]
    world.advance(1.0)
    world.crash("ledger", power=True)
    begun = world.now

    error = unavailable_or_late(world, calls[0])

    assert (4.0, "maybe") == (pytest.approx(world.now - begun, abs=0.1), error.ran)


def test_a_pause_delays_and_nothing_else(world, ledger):
    for number in (8, 9):
        world.run(ledger.write(number))
    world.pause("ledger")
    call = ledger.write(1)
    world.advance(5.0)
    before = written(world)

    world.resume("ledger")
    assert (2, "EUR", 3) == (len(before), world.run(call), len(written(world)))


def test_a_restarted_process_has_forgotten_everything_but_its_database(world, ledger):
    world.run(ledger.write(1))
    before = world.processes["ledger/1"]
    world.crash("ledger")
    world.restart("ledger")
    world.advance(1.0)

    assert before is not world.processes["ledger/1"]
    assert [(1, "nobody")] == written(world)


def test_a_broken_connection_is_made_anew(world, till):
    world.run(till.pay(1))
    world.run(till.pay(2))
    world.reset("till", "ledger")
    world.reset("outside", "till")
    world.advance(0.1)

    assert ["EUR", "EUR"] == [world.run(till.pay(number)) for number in (3, 4)]


def test_what_a_reset_makes_the_product_do_it_does_inside_the_simulation(world):
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
    from twisted.internet.protocol import Protocol

    told: list[Any] = []

    class Asks(Protocol):
        def connectionLost(self, reason: Any = None) -> None:
            try:
                told.append(time.time())
            except RuntimeError as error:
                told.append(type(error).__name__)

    host = world.hosts["till/1"]
    world.run(connectProtocol(TCP4ClientEndpoint(host.reactor, world.hosts["ledger/1"].address, 8001), Asks()))
    world.reset("till", "ledger")
    world.advance(1.0)

    assert ["NotSimulated"] == told


def test_who_hesitates_answers_the_same_and_later(world, till):
    def taken() -> float:
        begun = world.now
        assert ["EUR"] * 20 == [world.run(till.pay(number)) for number in range(20)]
        return world.now - begun

    before = taken()
    world.hesitate("till", 0.5)
    during = taken()
    world.hesitate("till", 0.0)
    after = taken()

    assert before < 0.5 > after
    assert 5.0 < during < 60.0


def test_how_far_a_clock_was_wrong_is_known_of_every_moment(world):
    world.advance(10.0)
    world.jump("till/1", 20.0)
    world.advance(10.0)
    world.jump("till/1", -20.0)
    world.advance(10.0)
    world.jump("ledger/2", -5.0)

    begun = world.now - 30.0
    assert [20.0, 20.0, 20.0, 5.0] == [pytest.approx(world.strayed(begun + at)) for at in (0.0, 10.5, 19.5, 20.5)]
    assert 20.0 == pytest.approx(world.strayed())


def test_that_a_clock_was_wrong_is_known_when_all_is_calm_again(world):
    world.jump("till/1", 50.0)
    world.advance(10.0)
    world.calm()
    calm = world.now
    world.advance(10.0)

    assert (50.0, 0.0) == (pytest.approx(world.strayed()), pytest.approx(world.strayed(calm + 1.0), abs=1e-6))


def test_a_clock_that_is_too_fast_strays_more_and_more_and_a_jump_back_does_not_hide_it(world):
    assert 0.0 == pytest.approx(world.strayed(), abs=1e-6)

    world.drift("till/1", 1.1)
    world.advance(100.0)
    ten = world.strayed()
    world.jump("till/1", -10.0)
    right = world.now
    world.drift("till/1", 1.0)
    world.advance(10.0)

    assert (10.0, 10.0, 0.0) == (
        pytest.approx(ten),
        pytest.approx(world.strayed()),
        pytest.approx(world.strayed(right + 1.0), abs=1e-6),
    )


def test_a_clock_that_goes_wrong_bends_its_hosts_timers(world, ledger):
    world.drift("ledger", 2.0)
    begun = world.now

    world.run(ledger.slow(10.0))

    assert 5.0 == pytest.approx(world.now - begun, abs=0.1)


def test_calm_ends_everything(world, till):
    world.partition("till", "ledger")
    world.link("outside", "till", loss=1.0, latency=(5.0, 9.0))
    world.pause("till/1")
    world.jump("till/2", 500.0)
    world.drift("ledger/1", 1.5)
    world.crash("ledger/2")
    world.crash("till/2", at="before:pay")
    world.hesitate("till", 5.0)
    world.coincide("ledger")

    world.calm()
    world.advance(5.0)

    assert ["EUR"] * 4 == [world.run(till.pay(number)) for number in range(4)]
    assert [] == [
        host.name
        for host in world.hosts.values()
        if host.offset or not host.up or host.paused or host.hesitates or host.coincides
    ]


# -- stopping


def up(world: World) -> list[str]:
    """The instances whose processes run."""
    return [name for name, host in world.hosts.items() if host.up and name[-1].isdecimal()]


def started_and_stopped(world: World) -> list[tuple[str, str]]:
    """All that was told of a process's beginning and end, since all of them first ran."""
    told = [(event.kind, event.text) for event in world.log.events if event.kind in ("fault", "started", "stopped")]
    return told[4:]


@pytest.mark.parametrize("wire", ["http", "direct"])
def test_who_is_asked_to_stop_answers_what_it_was_asked_takes_nothing_new_and_is_down(wire):
    with World([Till, Ledger], seed=6, wire=wire) as world:
        ledger = world.client(Ledger)
        calls = [ledger.write_later(number, 3.0) for number in (1, 2)]
        world.advance(1.0)

        world.stop("ledger")
        world.advance(0.1)
        refused = unavailable(world, ledger.write(3))
        during = up(world)
        ends = [world.run(call) for call in calls]
        world.advance(1.0)

        assert ["till/1", "till/2", "ledger/1", "ledger/2"] == during
        assert (["EUR", "EUR"], "no", ["till/1", "till/2"]) == (ends, refused.ran, up(world))
        assert [1, 2] == sorted(number for number, _ in written(world))
        assert {} == dict(world.crashes)


def test_a_restart_of_what_is_stopping_starts_it_when_it_has_stopped(world, ledger):
    calls = [ledger.write_later(number, 3.0) for number in (1, 2)]
    world.advance(1.0)
    world.stop("ledger/1")
    world.restart("ledger/1")
    world.restart("ledger/1")
    world.advance(5.0)

    assert ["EUR"] * 4 == [world.run(call) for call in (*calls, ledger.write(3), ledger.write(4))]
    assert [
        ("fault", "stop ledger/1"),
        ("stopped", "stop of ledger/1"),
        ("fault", "restart ledger/1"),
        ("started", "ledger/1"),
    ] == started_and_stopped(world)


def test_a_stop_of_what_is_down_or_stopping_does_nothing(world):
    world.crash("ledger/2")
    world.stop("ledger")
    world.stop("ledger")
    world.advance(5.0)
    world.stop("ledger")
    world.advance(5.0)

    assert [("fault", "stop ledger/1"), ("stopped", "stop of ledger/1")] == started_and_stopped(world)
    assert ["till/1", "till/2"] == up(world)


def test_who_crashes_while_it_stops_is_down_at_once_and_its_calls_are_lost(world, ledger):
    calls = [ledger.write_later(number, 3.0) for number in (1, 2)]
    world.advance(1.0)
    world.stop("ledger")
    world.advance(1.0)

    world.crash("ledger")

    assert (["till/1", "till/2"], [], {"ledger/1": 1, "ledger/2": 1}) == (
        up(world),
        world.stopping_longer_than(0.0),
        dict(world.crashes),
    )
    assert ["maybe", "maybe"] == [unavailable(world, call).ran for call in calls]


def test_who_stands_still_stops_when_it_goes_on(world):
    world.pause("ledger/1")
    world.stop("ledger/1")
    world.advance(100.0)
    during = up(world), world.stopping_longer_than(50.0)

    world.resume("ledger/1")
    world.advance(5.0)

    assert (["till/1", "till/2", "ledger/1", "ledger/2"], []) == during
    assert ["till/1", "till/2", "ledger/2"] == up(world)


def test_what_takes_long_to_stop_is_named_until_it_has(world, ledger):
    calls = [ledger.write_later(number, 8.0) for number in (1, 2)]
    world.advance(1.0)
    world.stop("ledger/2")
    world.advance(5.0)
    during = world.stopping_longer_than(4.0), world.stopping_longer_than(6.0)
    for call in calls:
        world.run(call)
    world.advance(1.0)

    assert [1, 0, 0] == [len(names) for names in (*during, world.stopping_longer_than(0.0))]
    assert during[0][0].startswith("ledger/2, asked to at 1.0")


def test_a_process_asked_to_stop_before_it_has_begun_is_down(world):
    world.crash("ledger/1")
    world.restart("ledger/1")
    world.stop("ledger/1")
    world.advance(5.0)

    assert ["till/1", "till/2", "ledger/2"] == up(world)


class Forgetful(Service, name="forgetful", version="1.0.0"):
    """Leaves two timers behind."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock

    async def start(self) -> None:
        for seconds in (100.0, 200.0):
            self.clock.callLater(seconds, self.remember)

    def remember(self) -> None:
        """Nothing."""


def test_what_it_leaves_to_come_when_it_has_stopped_is_a_failure():
    with World([Forgetful], seed=6) as world:
        world.stop("forgetful/1")
        world.advance(5.0)

        (failure,) = world.flush_failures()

    assert failure.startswith("forgetful/1 at ")
    assert failure.endswith(f"it has stopped and left 2 of {__name__}.Forgetful.remember to come.")


@pytest.mark.parametrize("rate", [1.0, 1.1, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_cut_off_at_the_drain_limit_is_no_failure(seed, rate):
    with World([Ledger], seed=seed) as world:
        # A deadline of its own: whoever calls by a client waits for ten seconds.
        url, headers = "http://ledger-1:8000/entries/1/after/100.0", {"ropewalk-deadline": "1000000"}
        call = world.driver.run(world.http.post(url, headers=headers))
        call.addErrback(lambda _: None)
        world.advance(1.0)
        world.drift("ledger/1", rate)

        begun = world.now
        world.stop("ledger/1")
        world.until(lambda: "ledger/1" not in up(world))

        assert 30.0 / rate == pytest.approx(world.now - begun, abs=0.1)
        assert [] == written(world)


def test_a_stop_waits_for_what_may_not_be_cancelled_though_nobody_waits_for_it(world):
    call = world.client(Till).pay_later(1)
    asked = world.driver.run(call)
    asked.addErrback(lambda _: None)
    world.advance(1.0)
    world.at(world.now, asked.cancel)
    world.advance(0.5)

    world.stop("till")
    world.advance(1.0)
    during = len(up(world)), written(world)
    world.advance(2.0)

    assert ((3, []), 2, [(1, "nobody")]) == (during, len(up(world)), written(world))


def test_what_was_answered_is_written_and_nothing_else_while_instances_are_replaced_in_turn():
    with World([Till, Ledger], seed=6, settings={"ledger": {"limit": 1000}}) as world:
        till, calls = world.client(Till), []
        for name in ("ledger/1", "till/1", "ledger/2", "till/2"):
            for step in range(40):
                calls.append(till.pay(len(calls)))
                if step == 5:
                    world.stop(name)
                if step == 10:
                    world.restart(name)
                world.advance(0.1)

        answered = []
        for number, call in enumerate(calls):
            with suppress(Unavailable):
                world.run(call)
                answered.append(number)

        assert answered == [number for number, _ in written(world)]
        assert 140 < len(answered) < 160
        assert 4 == [kind for kind, _ in started_and_stopped(world)].count("started")


# -- what a call is held to: what broke the promise is put in the place of what keeps it


class NoRoomLeft(Conflict):
    """Raised when there is none."""


class Desk(Service, name="desk", version="1.0.0"):
    """Does what it is told."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock, self.done = clock, 0

    @post("/done/<float:seconds>", raises=(NoRoomLeft,))
    async def do(self, seconds: float) -> str:
        """Something, which takes so long and may not be cancelled."""
        await deferLater(self.clock, seconds)
        self.done += 1
        return "done"

    @get("/seen/<float:seconds>")
    async def look(self, seconds: float) -> str:
        """For so long; that may be cancelled."""
        await deferLater(self.clock, seconds)
        return "seen"

    @post("/refused", raises=(NoRoomLeft,))
    async def refuse(self) -> str:
        """An error of the operation's own."""
        raise NoRoomLeft("None is left.", status=410, headers=[("Retry-After", "3")], rooms=[7, 12])

    @post("/failed")
    async def fail(self) -> None:
        """An error that nobody expects."""
        raise ZeroDivisionError


class Bell(Service, name="bell", version="1.0.0"):
    """Asks at the desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @post("/rung/<float:seconds>", raises=(NoRoomLeft,))
    async def ring(self, seconds: float) -> str:
        """Let them do something."""
        return await self.desk.do(seconds)


def held_to(world: World, awaitable: Any) -> list[str]:
    """What the world found wrong with a call, whatever became of it, without its host and moment."""
    with suppress(RopewalkError):
        world.run(awaitable)
    world.advance(1.0)
    return [failure.partition(" s: ")[2] for failure in world.flush_failures()]


def abandoned(world: World, call: Any) -> list[str]:
    """What is found wrong with a call whose caller goes, a second after it was made."""
    asked = world.driver.run(call)
    asked.addErrback(lambda _: None)
    world.advance(1.0)
    world.at(world.now, asked.cancel)
    world.reset("outside", "desk")
    world.advance(20.0)
    return [failure.partition(" s: ")[2] for failure in world.flush_failures()]


def done(world: World) -> int:
    """How often something was done at the desk."""
    return sum(world.processes[name].services["desk"].done for name in ("desk/1", "desk/2"))  # type: ignore[attr-defined]


@pytest.fixture(params=["http", "direct"])
def either(request: pytest.FixtureRequest) -> Iterator[World]:
    """A desk, over either wire."""
    with World([Bell, Desk], seed=4, wire=request.param) as world:
        yield world


@pytest.fixture
def front(either: World) -> Any:
    return either.client(Desk, subject="ann")


def test_a_call_that_comes_as_it_was_made_and_ends_as_it_went_is_right(either, front):
    done = [held_to(either, call()) for call in (lambda: front.do(0.5), lambda: front.look(0.5), front.refuse)]

    assert [[]] * 3 == done
    with pytest.raises(NoRoomLeft, match="None is left") as raised:
        either.run(front.refuse())
    assert ({"rooms": [7, 12]}, 410) == (raised.value.members, raised.value.status)


def test_an_error_that_nobody_expects_is_told_as_itself_and_as_nothing_else(either, front, flush_logged_errors):
    (found,) = held_to(either, front.fail())
    flush_logged_errors()

    assert found.startswith("ZeroDivisionError")


def test_a_call_that_comes_twice_is_found(either, front, monkeypatch):
    ask = Resolve.__call__

    async def twice(self: Any, request: Any) -> Any:
        await ask(self, request)
        return await ask(self, request)

    monkeypatch.setattr(Resolve, "__call__", twice)

    assert ["desk.do was asked once and came twice."] == held_to(either, front.do(0.5))


@pytest.mark.parametrize("at_once", [False, True])
def test_two_tries_of_one_call_are_told_apart(either, monkeypatch, at_once):
    async def tries(request: Any, handler: Any) -> Any:
        again = request.replace(context=replace(request.context, attempt=2))
        if at_once:
            return (await asyncio.gather(handler(request), handler(again)))[1]
        await handler(request)
        return await handler(again)

    monkeypatch.setattr("ropewalk.testing.instance.client_stack", lambda **options: [*client_stack(**options), tries])
    front = either.client(Desk)

    assert [] == held_to(either, front.do(0.5))
    assert 2 == done(either)


def test_a_call_that_is_given_more_time_than_its_edge_has_is_found(monkeypatch):
    def patient(*, timeout: float | None, **options: Any) -> Any:
        return client_stack(timeout=30.0, **options)

    with World([Till, Ledger], seed=4) as world:
        right = held_to(world, world.client(Till).pay(1))
    monkeypatch.setattr("ropewalk.runtime.process.client_stack", patient)
    with World([Till, Ledger], seed=4) as world:
        wrong = held_to(world, world.client(Till).pay(1))

    assert ([], "ledger.write may take longer than the 5 s of its edge.") == (right, wrong[0])


def test_an_operation_that_runs_without_a_deadline_is_found(monkeypatch):
    def patient(**options: Any) -> Any:
        return [each for each in server_stack(**options) if not isinstance(each, Deadline)]

    monkeypatch.setattr("ropewalk.runtime.process.server_stack", patient)
    with World([Ledger], seed=4) as world:
        found = held_to(world, world.http.post("sibling://ledger/entries/1"))

    assert ["ledger.write runs without a deadline."] == found


def test_a_call_in_the_name_of_another_is_found(either, front, monkeypatch):
    ask = Resolve.__call__

    def as_bob(self: Any, request: Any) -> Any:
        return ask(self, request.replace(principal=Principal(None, "bob")))

    monkeypatch.setattr(Resolve, "__call__", as_bob)
    (found,) = held_to(either, front.do(0.5))

    assert "desk.do was asked by subject 'ann' and came as by subject 'bob'" in found


class Echo(Service, name="echo", version="1.0.0"):
    """Says what it is told."""

    @post("/words", idempotent=True)
    async def say(self, word: str, times: int = 1) -> list[str]:
        """So many of it."""
        return [word] * times


@pytest.mark.parametrize("wire", ["direct", "http"])
def test_what_comes_otherwise_than_it_was_sent_is_found(wire, monkeypatch):
    ask = Resolve.__call__

    def other_words(self: Any, request: Any) -> Any:
        return ask(self, request.replace(payload={**request.payload, "word": "no"}))

    async def other_answer(self: Any, request: Any) -> Any:
        return replace(await ask(self, request), body=["no"])

    found = []
    for wrong in (ask, other_words, other_answer):
        monkeypatch.setattr(Resolve, "__call__", wrong)
        with World([Echo], wire=wire, seed=4) as world:
            found.append(held_to(world, world.client(Echo).say("yes", times=2)))

    assert [
        [],
        [
            'echo.say: {"times":2,"word":"yes"} was sent, and {"times":2,"word":"no"} came.',
        ],
        ['echo.say: ["yes","yes"] was sent, and ["no"] came.'],
    ] == found


def test_a_caller_told_that_a_call_did_not_run_when_it_did_is_found(either, front, monkeypatch):
    ask = Resolve.__call__

    async def never_ran(self: Any, request: Any) -> Any:
        try:
            return await ask(self, request)
        except Unavailable as error:
            error.ran = "no"
            raise

    monkeypatch.setattr(Resolve, "__call__", never_ran)
    either.crash("desk", at="after:do")
    (found,) = held_to(either, front.do(0.5))

    assert "desk.do ran, and its caller is told that it did not: <Unavailable 503 " in found


def test_a_reply_that_is_lost_and_a_call_that_is_refused_are_right(either, front):
    either.crash("desk", at="after:do")
    lost = held_to(either, front.do(0.5))
    either.crash("desk")
    refused = held_to(either, front.do(0.5))

    assert ([], []) == (lost, refused)


def test_an_error_whose_reply_is_lost_is_right():
    with World([Desk], seed=4) as world:
        desk = world.client(Desk)
        for _ in range(2):
            world.run(desk.do(0.0))  # the connections are there
        world.hold("desk", "outside")
        call = desk.refuse()
        world.advance(1.0)
        world.reset("outside", "desk")

        assert ("maybe", []) == (unavailable(world, call).ran, world.failures)


def test_an_error_that_is_told_as_a_success_is_found(either, front, monkeypatch):
    ask = Resolve.__call__

    async def always_well(self: Any, request: Any) -> Any:
        with suppress(NoRoomLeft):
            return await ask(self, request)
        return Response("done")

    monkeypatch.setattr(Resolve, "__call__", always_well)
    (found,) = held_to(either, front.refuse())

    assert found.startswith("desk.refuse failed with <NoRoomLeft 410 'None is left.'")
    assert "and its caller got Response(body='done'" in found


@pytest.mark.parametrize(
    "other",
    [
        Conflict("None is left.", status=410, rooms=[7, 12]),
        NoRoomLeft("None is left.", rooms=[7, 12]),
        NoRoomLeft("None was left.", status=410, rooms=[7, 12]),
        NoRoomLeft("None is left.", status=410, rooms=[7]),
    ],
    ids=["class", "status", "detail", "members"],
)
def test_an_error_that_is_told_as_another_is_found(either, front, monkeypatch, other):
    ask = Resolve.__call__

    async def another(self: Any, request: Any) -> Any:
        try:
            return await ask(self, request)
        except NoRoomLeft:
            raise other from None

    monkeypatch.setattr(Resolve, "__call__", another)
    (found,) = held_to(either, front.refuse())

    assert "desk.refuse failed with {'type': 'urn:ropewalk:problem:no-room-left'" in found
    assert "and its caller got {'type': " in found


def test_what_may_not_be_cancelled_and_is_is_found(monkeypatch):
    monkeypatch.setattr("ropewalk.http.direct.Answering.lost", lambda self: self.run.interrupt())
    with World([Bell, Desk], seed=4) as world:
        found = abandoned(world, world.client(Desk).do(5.0))
        safe = abandoned(world, world.client(Desk).look(5.0))

        assert (["desk.do may not be cancelled, and was, before its deadline."], []) == (found, safe)
        assert 0 == done(world)


def test_what_its_caller_has_left_is_right_whether_it_may_be_cancelled_or_not(either):
    safe, unsafe = (abandoned(either, call) for call in (either.client(Desk).look(5.0), either.client(Desk).do(5.0)))

    assert ([], [], 1) == (safe, unsafe, done(either))


def test_what_its_deadline_has_caught_is_right(either, front):
    for rate in (1.0, 1.1, 0.9):
        either.drift("desk", rate)

        assert [] == held_to(either, front.do(100.0))
        assert [] == held_to(either, either.client(Bell).ring(100.0))
    assert 0 == done(either)


def test_what_ends_long_after_its_deadline_is_found(either, front, monkeypatch):
    monkeypatch.setattr("ropewalk.filters.deadline._Expiry.ring", lambda self: None)

    at_the_callee, at_the_caller = held_to(either, front.do(12.0))

    assert at_the_callee.startswith("desk.do ended 2.00")
    assert at_the_caller.startswith("desk.do ended 2.00")


# -- seeing


def test_a_call_is_told_with_its_callee_its_commit_and_its_answer(world, till):
    world.run(till.pay(1))

    told = [(event.kind, event.text, event.peer) for event in world.log.events if event.kind != "started"]
    assert [
        ("call", "till.pay", "till"),
        ("call", "ledger.write", "ledger"),
        ("commit", "insert", "ledger/database"),
        ("answer", "ledger.write", "ledger"),
        ("answer", "till.pay", "till"),
    ] == told


def test_an_error_is_told_by_its_name(world, till):
    with pytest.raises(Conflict):
        world.run(till.pay(101))

    assert [("error", "ledger.write: Conflict"), ("error", "till.pay: Conflict")] == [
        (event.kind, event.text) for event in world.log.events if event.kind == "error"
    ]


def test_every_verb_is_told(world):
    world.partition("till/1", "ledger/1", one_way=True)
    world.heal()
    world.pause("till/1")
    world.resume("till/1")
    world.jump("till/1", -5.0)
    world.hesitate("till/1", 0.25)
    world.coincide("till/1")
    world.coincide("till/1", False)
    world.crash("till/1")
    world.restart("till/1")

    told = [(event.kind, event.text) for event in world.log.events]
    assert [
        ("fault", "partition till/1 → ledger/1"),
        ("fault", "heal"),
        ("fault", "pause till/1"),
        ("fault", "resume till/1"),
        ("fault", "clock of till/1 jumps -5 s"),
        ("fault", "till/1 hesitates for 0.25 s"),
        ("fault", "coincidences at till/1"),
        ("fault", "coincidences at till/1 end"),
        ("crashed", "crash till/1"),
        ("fault", "restart till/1"),
        ("started", "till/1"),
    ] == told[-11:]


def test_calls_that_take_long_are_named(world, till):
    call = till.wait(4.5)
    world.advance(3.0)

    old = world.calls_older_than(2.0)
    world.run(call)

    assert 2 == len(old)
    assert old[0].startswith("till.wait of outside, begun at 0.0")
    assert old[1].startswith("ledger.slow of till/")
    assert [] == world.calls_older_than(0.0)


def test_a_world_says_what_it_is(world):
    world.crash("till/2")

    said = repr(world)

    assert "till" in said
    assert "ledger" in said
    assert "seed 6" in said
    assert said.endswith("down: till/2>")


def test_an_invariant_is_looked_at_after_every_commit_and_stops_the_world(world, ledger):
    seen: list[int] = []

    @world.invariant
    def at_most_two(world: World) -> None:
        seen.append(len(written(world)))
        assert len(written(world)) <= 2, "that is one too many"

    world.run(ledger.write(1))
    world.run(ledger.write(2))
    with pytest.raises(AssertionError, match="one too many"):
        world.run(ledger.write(3))

    assert {0, 1, 2, 3} >= set(seen) >= {1, 2, 3}
    assert "at_most_two: that is one too many" in next(e.text for e in world.log.events if e.kind == "broken")


def test_an_asynchronous_invariant_is_refused(world):
    async def never(world: World) -> None:
        """Nobody would await it."""

    with pytest.raises(TypeError, match="never: an invariant is a plain function"):
        world.invariant(never)


# -- two worlds


def test_worlds_after_each_other_and_in_turns_are_the_same():
    def begin() -> World:
        return World([Till, Ledger], seed=12)

    def step(world: World, number: int) -> None:
        world.run(world.client(Till).pay(number))
        if number == 2:
            world.crash("ledger/1")
        if number == 4:
            world.restart()
            world.advance(1.0)

    def play(world: World, number: int) -> None:
        with suppress(Unavailable):
            step(world, number)

    with begin() as alone:
        for number in range(6):
            play(alone, number)
    with begin() as one, begin() as other:
        for number in range(6):
            play(one, number)
            play(other, number)

    assert alone.log.digest() == one.log.digest() == other.log.digest()


def test_another_seed_is_another_world_and_one_event_more_another_digest():
    def digest(seed: int, calls: int) -> str:
        with World([Ledger], seed=seed) as world:
            for number in range(calls):
                world.run(world.client(Ledger).write(number))
            return world.log.digest()

    assert 3 == len({digest(1, 2), digest(2, 2), digest(1, 3)})
    assert digest(1, 2) == digest(1, 2)


def test_a_call_that_is_cancelled_is_cancelled_where_it_may_be(world):
    call = world.client(Ledger).slow(60.0)
    running = world.driver.run(call)
    world.advance(1.0)
    ended: list[Any] = []
    running.addBoth(ended.append)

    world.at(world.now, running.cancel)
    world.advance(1.0)

    words = [world.processes[f"ledger/{number}"].services["ledger"].last_words for number in (1, 2)]  # type: ignore[attr-defined]
    assert ["finally"] in words
    assert ended[0].check(CancelledError)
