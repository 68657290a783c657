"""The guards: each way out is closed to the product, answered for everybody else, and open again afterwards."""

from __future__ import annotations

import datetime
import http.cookiejar
import importlib
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import monotonic, perf_counter
from time import time as clock
from types import ModuleType
from typing import Any

import pytest

from ropewalk import Service, get
from ropewalk.testing import World
from ropewalk.testing.driving import BEGINS
from ropewalk.testing.guards import NotSimulated


class Idle(Service, name="idle", version="1.0.0"):
    """Its package, that of these tests, is what the guards call the product."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""


@pytest.fixture
def world() -> Any:
    with World([Idle], seed=9) as world:
        yield world


async def doing(function: Callable[[], Any]) -> Any:
    return function()


def third_party(name: str, source: str) -> ModuleType:
    """A module that is not of the product's package."""
    module = ModuleType(name)
    exec(source, vars(module))
    return module


@pytest.fixture
def folder_on_path(tmp_path: Path) -> Iterator[Path]:
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


# -- closed to the product

ASKED: dict[str, tuple[Callable[[], Any], str]] = {
    "time.time": (lambda: time.time(), "IReactorTime"),
    "time.time_ns": (lambda: time.time_ns(), "IReactorTime"),
    "time.monotonic": (lambda: time.monotonic(), "IReactorTime"),
    "time.monotonic_ns": (lambda: time.monotonic_ns(), "IReactorTime"),
    "time.perf_counter": (lambda: time.perf_counter(), "IReactorTime"),
    "time.perf_counter_ns": (lambda: time.perf_counter_ns(), "IReactorTime"),
    "time.gmtime": (lambda: time.gmtime(), "IWallClock"),
    "time.localtime": (lambda: time.localtime(), "IWallClock"),
    "time.ctime": (lambda: time.ctime(), "IWallClock"),
    "time.asctime": (lambda: time.asctime(), "IWallClock"),
    "time.strftime": (lambda: time.strftime("%Y"), "IWallClock"),
    "time.sleep": (lambda: time.sleep(0.01), "deferLater"),
    "from time import time": (lambda: clock(), "IReactorTime"),
    "from time import monotonic": (lambda: monotonic(), "IReactorTime"),
    "from time import perf_counter": (lambda: perf_counter(), "IReactorTime"),
    "datetime.now": (lambda: datetime.datetime.now(), "IWallClock"),
    "datetime.now, aware": (lambda: datetime.datetime.now(datetime.UTC), "IWallClock"),
    "datetime.now, by keyword": (lambda: datetime.datetime.now(tz=datetime.UTC), "IWallClock"),
    "datetime.today": (lambda: datetime.datetime.today(), "IWallClock"),
    "date.today": (lambda: datetime.date.today(), "IWallClock"),
    "random.random": (lambda: random.random(), "random.Random"),
    "random.choice": (lambda: random.choice("ab"), "random.Random"),
    "random.shuffle": (lambda: random.shuffle([1, 2]), "random.Random"),
    "random.randint": (lambda: random.randint(1, 2), "random.Random"),
    "os.urandom": (lambda: os.urandom(4), "random.Random"),
    "uuid.uuid4": (lambda: uuid.uuid4(), "random.Random"),
    "uuid.uuid1": (lambda: uuid.uuid1(), "random.Random"),
    "secrets.token_hex": (lambda: secrets.token_hex(), "random.Random"),
    "secrets.token_urlsafe": (lambda: secrets.token_urlsafe(), "random.Random"),
    "secrets.choice": (lambda: secrets.choice("ab"), "random.Random"),
    "threading.Thread": (lambda: threading.Thread(target=id, args=(1,)).start(), "none"),
    "socket.socket": (lambda: socket.socket(), "none"),
    "socket.create_connection": (lambda: socket.create_connection(("127.0.0.1", 1)), "none"),
    "socket.getaddrinfo": (lambda: socket.getaddrinfo("localhost", 80), "none"),
    "subprocess.Popen": (lambda: subprocess.Popen(["true"]), "none"),
    "os.getenv": (lambda: os.getenv("HOME"), "Settings"),
    "os.environ[]": (lambda: os.environ["HOME"], "Settings"),
    "os.environ.get": (lambda: os.environ.get("HOME"), "Settings"),
    "in os.environ": (lambda: "HOME" in os.environ, "Settings"),
    "random.expovariate": (lambda: random.expovariate(1.0), "random.Random"),
    "random.normalvariate": (lambda: random.normalvariate(), "random.Random"),
    "random.triangular": (lambda: random.triangular(), "random.Random"),
    "random.betavariate": (lambda: random.betavariate(1, 1), "random.Random"),
    "random.seed": (lambda: random.seed(), "random.Random"),
    "random.Random, unseeded": (lambda: Random().random(), "random.Random"),
    "time.clock_gettime": (lambda: time.clock_gettime(time.CLOCK_REALTIME), "IReactorTime"),
    "time.process_time": (lambda: time.process_time(), "IReactorTime"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_product_is_refused_and_told_what_to_ask_for(world, asked):
    ask, instead = ASKED[asked]

    with pytest.raises(NotSimulated) as raised:
        world.run(doing(ask))

    said = str(raised.value)
    if instead == "none":
        instead = {"threading": "Workers", "socket": "IReactorTCP", "subprocess": "Workers"}[asked.partition(".")[0]]
    assert instead in said
    assert __name__ in said


def test_the_message_names_the_line_that_asked(world):
    with pytest.raises(NotSimulated) as raised:
        world.run(doing(lambda: time.time()))

    line = (lambda: 0).__code__.co_firstlineno - 2
    assert (
        f"time.time() was asked for in a simulation by {__name__}, line {line}. It would not be the same the next time. "
        "Ask for it in __init__: IReactorTime for durations or ropewalk.interfaces.IWallClock for dates."
    ) == str(raised.value)


def test_an_executor_starts_no_threads(world):
    with ThreadPoolExecutor(1) as pool, pytest.raises(NotSimulated, match=r"Thread\.start"):
        world.run(doing(lambda: pool.submit(id, 1)))
    pool._threads.clear()  # it counts the one that did not start


def test_what_is_computed_from_a_given_time_is_no_guess_and_allowed(world):
    def computed() -> Any:
        return (
            time.gmtime(0).tm_year,
            time.strftime("%Y", time.gmtime(0)),
            datetime.datetime.fromtimestamp(0, datetime.UTC).year,
            datetime.datetime(2026, 5, 1).year,
            Random(7).random(),
            uuid.UUID(int=7),
            uuid.uuid5(uuid.NAMESPACE_DNS, "x"),
        )

    assert computed() == world.run(doing(computed))


def test_every_simulated_host_is_in_utc(world, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        told = world.run(doing(lambda: (time.localtime(0).tm_hour, time.ctime(0))))
    finally:
        monkeypatch.undo()
        time.tzset()

    assert (0, "Thu Jan  1 00:00:00 1970") == told


# -- answered for everybody else

THIRD = """
import datetime, os, random, secrets, socket, time, uuid
from time import time as kept
def times(): return [time.time(), kept(), time.time_ns() / 1e9, datetime.datetime.now(datetime.UTC).timestamp(), datetime.datetime.utcnow().replace(tzinfo=datetime.UTC).timestamp()]
def clocks(): return [time.monotonic(), time.perf_counter(), time.monotonic_ns() / 1e9]
def date(): return datetime.date.today(), datetime.datetime.now().replace(microsecond=0), time.strftime("%Y-%m-%d %H:%M"), time.gmtime().tm_hour
def chance(): return [random.random(), random.choice(range(1000)), os.urandom(8), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(), secrets.randbelow(10**9), random.SystemRandom().random(), random.sample(range(99), 3)]
def environment(): return os.environ["HOME"], os.getenv("HOME"), os.environ.get("HOME")
def sleep(): time.sleep(1)
def connect(): socket.create_connection(("127.0.0.1", 1))
"""


@pytest.fixture
def library() -> Iterator[Any]:
    module = sys.modules["a_library"] = third_party("a_library", THIRD)
    yield module
    del sys.modules["a_library"]


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_others_see_the_wall_clock_of_the_host_whose_turn_it_is(world, library):
    world.jump("outside", 1000.0)
    world.advance(12.5)

    times = world.run(doing(library.times))
    date = world.run(doing(library.date))

    assert [pytest.approx(BEGINS + 1012.5, abs=0.1)] * len(times) == times
    assert (
        datetime.date(2026, 5, 1),
        datetime.datetime(2026, 5, 1, 9, 16, 52),
        "2026-05-01 09:16",
        9,
    ) == date


def test_others_see_the_monotonic_clock_of_the_host_whose_turn_it_is(world, library):
    world.drift("outside", 2.0)
    before = world.run(doing(library.clocks))
    world.advance(10.0)

    after = world.run(doing(library.clocks))

    assert [pytest.approx(20.0, abs=0.1)] * 3 == [b - a for a, b in zip(before, after, strict=True)]


def test_others_get_the_worlds_chance_the_same_for_a_seed(library):
    def told(seed: int) -> Any:
        with World([Idle], seed=seed) as world:
            return world.run(doing(library.chance))

    state = random.getstate()
    first = told(1)

    assert first == told(1)
    assert first != told(2)
    assert state == random.getstate()
    assert 4 == first[3].version


def test_others_may_read_the_environment(world, library):
    assert [os.environ["HOME"]] * 3 == list(world.run(doing(library.environment)))


@pytest.mark.parametrize("way", ["sleep", "connect"])
def test_what_cannot_be_answered_is_refused_to_others_too_naming_them(world, library, way):
    with pytest.raises(NotSimulated, match="by a_library, and there is none"):
        world.run(doing(getattr(library, way)))


def test_logging_takes_the_hosts_time(world):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("a library")
    logger.addHandler(handler)
    try:
        world.advance(100.0)
        world.run(doing(lambda: logger.error("x")))
    finally:
        logger.removeHandler(handler)

    assert [pytest.approx(BEGINS + 100.0, abs=1.0)] == [record.created for record in records]


def test_tempfile_works_and_a_cookie_jar_lets_cookies_expire_in_virtual_time(world):
    def made() -> str:
        with tempfile.NamedTemporaryFile() as file:
            return file.name

    jar = http.cookiejar.CookieJar()
    cookie = http.cookiejar.Cookie(
        0, "a", "b", None, False, "x.example", False, False, "/", False, False, int(BEGINS) + 60, False, None, None, {}
    )
    jar.set_cookie(cookie)
    request = urllib.request.Request("http://x.example/")

    def sent() -> Any:
        asked = urllib.request.Request(request.full_url)
        jar.add_cookie_header(asked)
        return asked.get_header("Cookie")

    assert world.run(doing(made))
    before = world.run(doing(sent))
    world.advance(61.0)
    assert ("a=b", None) == (before, world.run(doing(sent)))


# -- and open again

HELD: list[tuple[Any, str]] = [
    (time, "time"),
    (time, "monotonic"),
    (time, "sleep"),
    (random, "random"),
    (os, "urandom"),
    (os, "getenv"),
    (uuid, "uuid4"),
    (secrets, "token_hex"),
    (socket, "socket"),
    (subprocess, "Popen"),
    (threading.Thread, "start"),
    (type(os.environ), "__getitem__"),
    (sys.modules[__name__], "clock"),
    (sys.modules[__name__], "monotonic"),
]


def found() -> list[Any]:
    held = [getattr(holder, name) for holder, name in HELD]
    return [*held, datetime.datetime.__dict__["now"], datetime.datetime.__dict__["utcnow"]]


@pytest.mark.parametrize("how", ["well", "raising", "interrupted", "by a timer", "stuck"])
def test_everything_is_as_it_was_however_it_ended(how):
    before = found()

    class Interrupted(BaseException):
        pass

    async def act() -> None:
        if how == "raising":
            raise ValueError(how)
        if how == "stuck":
            from twisted.internet.defer import Deferred

            await Deferred()

    def interrupt() -> None:
        raise Interrupted

    with World([Idle], seed=1) as world:
        if how in ("interrupted", "by a timer"):
            world.hosts["idle/1"].reactor.callLater(1.0, interrupt if how == "interrupted" else lambda: 1 // 0)
        try:
            world.run(act(), timeout=5.0)
            world.advance(5.0)
        except (ValueError, AssertionError, Interrupted):
            pass
        world.flush_failures()

    assert before == found()
    assert abs(datetime.datetime.now().timestamp() - time.time()) < 60


def test_between_two_drives_the_test_itself_has_the_real_things(world):
    before = found()
    world.advance(1.0)

    assert before == found()
    assert time.time() != world.wall(world.hosts["outside"])
    assert os.environ["HOME"]


def test_another_thread_has_the_real_things_meanwhile(world):
    told: list[float] = []
    asked, answered = threading.Event(), threading.Event()

    def other() -> None:
        asked.wait(10)
        told.append(time.time())
        told.append(datetime.datetime.now().timestamp())
        answered.set()

    thread = threading.Thread(target=other)
    thread.start()
    begun = time.time()

    def ask() -> None:
        asked.set()
        answered.wait(10)

    world.run(doing(ask))
    thread.join()

    assert [True, True] == [abs(at - begun) < 60 for at in told]


def test_what_a_module_has_imported_by_name_is_its_own_again(folder_on_path):
    (folder_on_path / "lately_before.py").write_text(
        "from time import time, monotonic as m\ndef ask(): return time()\n"
    )
    module = importlib.import_module("lately_before")

    with World([Idle], seed=1) as world:
        during = world.run(doing(module.ask))

    assert BEGINS == pytest.approx(during, abs=10)
    assert (time.time, time.monotonic) == (module.time, module.m)


def test_a_module_that_is_first_imported_in_a_simulation_has_the_real_things_afterwards(folder_on_path):
    (folder_on_path / "lately_within.py").write_text("from time import time\nfrom random import random\n")

    with World([Idle], seed=1) as world:
        module: Any = world.run(doing(lambda: importlib.import_module("lately_within")))

    assert (time.time, random.random) == (module.time, module.random)


def test_a_module_first_imported_in_one_world_asks_the_next_world_in_the_next(folder_on_path):
    (folder_on_path / "lately_again.py").write_text("from time import time\ndef ask(): return time()\n")
    with World([Idle], seed=1) as world:
        world.advance(500.0)
        module: Any = world.run(doing(lambda: importlib.import_module("lately_again")))

    with World([Idle], seed=1) as world:
        during = world.run(doing(module.ask))

    assert BEGINS == pytest.approx(during, abs=10)


def test_a_module_that_comes_when_another_has_gone_is_guarded_too(folder_on_path):
    for name in ("that_goes_1", "that_goes_2", "that_goes_3", "that_comes"):
        (folder_on_path / f"{name}.py").write_text("from time import time\ndef ask(): return time()\n")
    for number in (1, 2, 3):
        importlib.import_module(f"that_goes_{number}")
    World([Idle]).close()
    for number in (1, 2, 3):
        del sys.modules[f"that_goes_{number}"]
    module: Any = importlib.import_module("that_comes")

    with World([Idle], seed=1) as world:
        during = world.run(doing(module.ask))

    assert BEGINS == pytest.approx(during, abs=10)


def test_two_worlds_in_turns_each_answer_for_themselves(library):
    with World([Idle], seed=1) as one, World([Idle], seed=1) as other:
        one.advance(100.0)
        told = [world.run(doing(library.times))[0] - BEGINS for world in (one, other, one)]

    assert [pytest.approx(100.0, abs=0.5), pytest.approx(0.0, abs=0.5), pytest.approx(100.0, abs=0.5)] == told
