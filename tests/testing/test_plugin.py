"""The pytest plugin, by running tests with it: where they run, what they are given, and what they may not leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SHOP = """
import asyncio

import pytest
import sqlalchemy as sa
from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from klein import Klein

from ropewalk import Conflict, Database, Principal, Service, Settings, get, given, operation, post

metadata = sa.MetaData()
sold = sa.Table("sold", metadata, sa.Column("thing", sa.Text, primary_key=True))


class StockSettings(Settings):
    greeting: str = "hello"


class Stock(Service):
    tables = metadata

    def __init__(self, database: Database, settings: StockSettings) -> None:
        self.database, self.settings = database, settings

    @post("/sell/<thing>", raises=(Conflict,))
    async def sell(self, thing: str) -> None:
        def insert(tx):
            if tx.execute(sa.select(sold).where(sold.c.thing == thing)).first():
                raise Conflict(f"{thing} is sold.")
            tx.execute(sold.insert().values(thing=thing))

        await self.database.run(insert)

    @get("/sold")
    async def all_sold(self) -> list[str]:
        return await self.database.run(lambda tx: [row.thing for row in tx.execute(sold.select())])

    @get("/greeting")
    async def greeting(self) -> str:
        return self.settings.greeting


class Desk(Service):
    def __init__(self, stock: Stock, clock: IReactorTime) -> None:
        self.stock, self.clock = stock, clock

    @post("/buy/<thing>", raises=(Conflict,), access="user")
    async def buy(self, thing: str, principal: Principal = given) -> list[str | None]:
        await self.stock.sell(thing)
        return [principal.service, principal.subject, *sorted(principal.scopes)]

    @operation(cancellable=True)
    async def later(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "later"

    @operation
    async def wrong(self) -> None:
        self.clock.callLater(0, self._mistake)

    def _mistake(self) -> None:
        raise ValueError("a mistake in the desk")
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """`run(*options)`: pytest in the test's folder, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugin may be installed, and is loaded by name here
    monkeypatch.delenv("CI", raising=False)  # or pytest says everything twice
    pytester.makeini("[pytest]\nfilterwarnings = error\nstrict = true\n")
    pytester.makepyfile(shop=SHOP)

    def run(*options: str):
        return pytester.runpytest_subprocess("-v", "-p", "pytest_twisted", "-p", "ropewalk.testing.plugin", *options)

    return run


ONE_TEST = """
import pytest
from shop import Conflict, Desk, Stock

@pytest.mark.worlds("direct", "world", "processes")
@pytest.mark.system(Stock, Desk, settings={"stock": {"greeting": "moin"}})
def test_a_thing_is_sold_once(system):
    desk, stock = system.client(Desk, subject="ada", scopes=["buyer"]), system.client(Stock)

    assert ["outside", "ada", "buyer"] == system.run(desk.buy("chair"))
    with pytest.raises(Conflict, match="chair is sold"):
        system.run(desk.buy("chair"))

    assert ["chair"] == system.run(stock.all_sold())
    assert "moin" == system.run(stock.greeting())
    called = desk.later(0.05)
    system.until(lambda: called.called)
    assert "later" == system.run(called)
    assert system.kind in ("direct", "world", "processes")
    assert 0 == system.seed
    with pytest.raises(AssertionError, match="not within 0.1"):
        system.run(desk.later(30), timeout=0.1)
"""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_one_test_runs_in_three_worlds(run, pytester):
    pytester.makepyfile(test_shop=ONE_TEST)

    result = run()

    result.stdout.fnmatch_lines(
        [
            "*test_shop.py::test_a_thing_is_sold_once[[]direct[]] PASSED*",
            "*test_shop.py::test_a_thing_is_sold_once[[]world[]] PASSED*",
            "*test_shop.py::test_a_thing_is_sold_once[[]processes[]] PASSED*",
        ]
    )
    result.assert_outcomes(passed=3)


FILE = """
[system]
name = "shop"

[services]
desk = "shop:Desk"
stock = "shop:Stock"

[public]
desk = "tcp:1"

[processes]
all = ["desk", "stock"]

[edges."desk -> stock"]
timeout = 5.0

[settings.stock]
greeting = "from the file"
"""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_system_file_runs_in_three_worlds(run, pytester):
    pytester.path.joinpath("system.toml").write_text(FILE)
    pytester.makepyfile(
        test_shop="""
        import pytest

        @pytest.mark.worlds("direct", "world", "processes")
        @pytest.mark.system("system.toml")
        def test_it_is_as_the_file_says(system):
            from shop import Desk, Stock

            assert "from the file" == system.run(system.client(Stock).greeting())
            assert ["outside", "ada"] == system.run(system.client(Desk, "ada").buy("chair"))
        """
    )

    run().assert_outcomes(passed=3)


HOTEL = Path(__file__).resolve().parents[2] / "examples" / "hotel"


@pytest.mark.long
@pytest.mark.timeout(180)
def test_services_that_ask_each_other_by_raw_http_do_so_in_three_worlds(run, pytester):
    pytester.makepyfile(
        test_hotel=f"""
        import sys
        from datetime import date

        import pytest

        sys.path.insert(0, {str(HOTEL)!r})
        from hotel.reservations import Guest, Hold, Reservations, Stay, StayNotPossible

        @pytest.mark.worlds("direct", "world", "processes")
        @pytest.mark.system({str(HOTEL / "system.toml")!r}, settings={{"payments": {{"latency": 0.0}}}})
        def test_a_night_that_is_over_cannot_be_held(system):
            reservations = system.client(Reservations, subject="ann")
            hold = Hold(Stay(6, "double", date(2000, 1, 1), 1, 1), Guest("Ann Example", "ann@example.org"))

            with pytest.raises(StayNotPossible):  # so the clock was asked, which is a raw Klein application
                system.run(reservations.hold(hold))
        """
    )

    run().assert_outcomes(passed=3)


# -- which worlds, which seeds


WORLDS = """
import pytest
from shop import Stock

pytestmark = pytest.mark.system([Stock])

def test_default(system): pass

@pytest.mark.worlds("world")
def test_world(system): pass

@pytest.mark.seeds(3)
def test_seeds(system): pass

def test_without(): pass
"""

CHOICES = {
    "nothing said": ([], ["default[direct]", "default[world]", "seeds[direct]", "seeds[world-seed0]", "seeds[world-seed1]", "seeds[world-seed2]", "without", "world[world]"]),
    "worlds": (["--worlds=world"], ["default[world]", "seeds[world-seed0]", "seeds[world-seed1]", "seeds[world-seed2]", "without", "world[world]"]),
    "a seed": (["--worlds=world,direct", "--seed=7"], ["default[direct]", "default[world-seed7]", "seeds[direct]", "seeds[world-seed7]", "without", "world[world-seed7]"]),
    "processes": (["--worlds", "processes"], ["default[processes]", "seeds[processes]", "without", "world[none]"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("options", "expected"), CHOICES.values(), ids=CHOICES)
def test_marks_say_where_a_test_can_run_and_the_command_line_where_it_does(run, pytester, options, expected):
    pytester.makepyfile(test_shop=WORLDS)

    lines = run("--collect-only", "-q", "-q", *options).outlines

    ids = sorted(line.partition("::test_")[2] for line in lines if "::test_" in line)
    assert expected == ids or expected == sorted(ids)


@pytest.mark.slow
def test_what_is_misspelt_is_told(run, pytester):
    pytester.makepyfile(test_shop=WORLDS)
    unknown = run("--worlds=wrold")
    pytester.makepyfile(test_shop=WORLDS.replace('worlds("world")', 'worlds("wrold")'))
    marked = run()

    unknown.stderr.fnmatch_lines(["*--worlds: expected some of direct, world, processes; got wrold.*"])
    marked.stdout.fnmatch_lines(["*test_world: worlds are direct, world, processes; got wrold.*"])


# -- what cannot be


CANNOT = """
import pytest
from shop import Desk, Service, Stock, operation

class Own(Service):
    @operation
    async def name(self) -> str:
        return "of the test's own module"

@pytest.fixture
def made_here(): pass

@pytest.mark.worlds("direct", "world")
@pytest.mark.system([Stock])
def test_partition(system):
    system.world.advance(1)

@pytest.mark.worlds("direct", "world")
@pytest.mark.system([Own])
def test_own(system):
    assert "of the test's own module" == system.run(system.client(Own).name())

def local():
    class Local(Service):
        @operation
        async def name(self) -> str:
            return "local"
    return Local

Local = local()

@pytest.mark.worlds("direct", "world", "processes")
@pytest.mark.system([Local])
def test_local(system):
    assert "local" == system.run(system.client(Local).name())

@pytest.mark.worlds("direct")
@pytest.mark.system([Stock])
async def test_async(system): pass

def test_unmarked(system): pass
"""


@pytest.mark.slow
def test_what_cannot_be_is_skipped_or_refused_with_its_reason(run, pytester):
    pytester.makepyfile(test_shop=CANNOT)

    result = run("-rs")

    result.assert_outcomes(passed=5, skipped=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*A test with a `system` is a plain function: `system.run(awaitable)` waits.*",
        ]
    )
    text = result.stdout.str()
    assert "this test asks for the World, and it runs as 'direct': here is no network to cut" in text
    assert "test_shop.local.<locals>.Local was made inside of something" in text
    assert "A test with a `system` says which: @pytest.mark.system(" in text


# -- what may not be left


LEFT = """
import pytest
from shop import Desk, Stock

pytestmark = [pytest.mark.system(Desk, Stock), pytest.mark.worlds("direct", "world")]

def test_wrong(system):
    system.run(system.client(Desk).wrong())
    system.run(system.client(Desk).later(0.01))

def test_taken(system, flush_logged_errors):
    test_wrong(system)

    flush_logged_errors(ValueError)

def tick(): pass

@pytest.mark.worlds("direct")
def test_timer(system):
    from twisted.internet import reactor

    reactor.callLater(60, tick)

@pytest.mark.worlds("direct")
def test_after(system): pass
"""


@pytest.mark.slow
def test_what_a_test_leaves_behind_is_named(run, pytester):
    pytester.makepyfile(test_shop=LEFT)

    result = run()

    result.assert_outcomes(passed=6, errors=3)
    text = result.stdout.str()
    assert 2 == text.count("1 failure(s) were left in the log:\n")
    assert "\nValueError: a mistake in the desk (logged by twisted.internet.base)\n" in text
    assert ": ValueError: a mistake in the desk\n" in text.partition("\ndesk/")[2]
    assert 1 == text.count("1 thing(s) were left in the reactor:\na timer of test_shop.tick")


PLAIN = """
import pytest
from twisted.internet.defer import fail
from pytest_twisted import ensureDeferred

def test_lost():
    fail(ValueError("nobody looked"))

def test_taken(flush_logged_errors):
    fail(ValueError("nobody looked"))
    assert 1 == len(flush_logged_errors(ValueError))

def test_not_taken(flush_logged_errors):
    fail(ValueError("nobody looked"))

@ensureDeferred
async def test_timer():
    from twisted.internet import reactor

    reactor.callLater(60, print)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("every", "errors"), [("true", 3), ("false", 1)])
def test_tests_without_a_system_are_looked_after_when_the_configuration_says_so(run, pytester, every, errors):
    pytester.makeini(f"[pytest]\nropewalk_leftovers = {every}\n")
    pytester.makepyfile(test_plain=PLAIN)

    run().assert_outcomes(passed=4, errors=errors)


# -- contracts


GULLIBLE = """
import pytest
from ropewalk import Principal
from ropewalk.testing.contracts import AuthenticatorContract

class Gullible:
    headers = frozenset({"X-Name"})

    async def authenticate(self, metadata):
        return Principal(None, metadata["x-name"])

class TestGullible(AuthenticatorContract):
    @pytest.fixture
    def make(self):
        async def make():
            return Gullible()

        return make

    def valid(self):
        return {"x-name": "ada"}, Principal(None, "ada")

    def forged(self):
        return {"eve": {"x-name": "eve"}}

    def expired(self):
        return None

class TestWithoutMake(AuthenticatorContract):
    pass
"""


@pytest.mark.slow
def test_a_contract_is_not_kept_by_who_believes_everybody(run, pytester):
    pytester.makepyfile(test_gullible=GULLIBLE)

    result = run("--tb=short")

    text = result.stdout.str()
    assert [
        "test_it_answers_the_same_each_time",
        "test_other_headers_beside_it_change_nothing",
    ] == sorted(
        line.partition("TestGullible::")[2].split()[0]
        for line in result.outlines
        if "TestGullible::" in line and " PASSED " in line
    )
    assert "TestWithoutMake has no fixture `make`: expected one whose value is an `async def make()`" in text


# -- loading it


def test_loading_the_plugin_loads_no_reactor_and_no_klein():
    code = (
        "import sys, ropewalk.testing.plugin\n"
        "heavy = ['twisted.internet.reactor', 'klein', 'treq', 'sqlalchemy', 'ropewalk.testing.world']\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "" == done.stdout.strip()


def test_it_knows_all_the_ways_there_are_to_run_a_system():
    from ropewalk.testing import plugin, systems

    assert tuple(systems.KINDS) == plugin.KINDS
    assert tuple(cls.kind for cls in systems.KINDS.values()) == plugin.KINDS


@pytest.mark.parametrize(
    "value", ["", 'a "b" \\ c\n', "日本語", 3, -1.5, True, [1, [2, "x"]], {"a b": {"c": []}}, {}], ids=repr
)
def test_what_a_setting_can_be_a_system_file_can_say(value):
    import tomllib

    from ropewalk.testing.split import as_toml

    assert {"it": value} == tomllib.loads(f"it = {as_toml(value)}")


def test_what_a_system_file_cannot_say_is_told():
    from ropewalk.testing.split import as_toml

    with pytest.raises(TypeError, match=r"A system file says texts, numbers, .*; got None\."):
        as_toml({"a": None})
