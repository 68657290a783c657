"""The pytest plugin: one test, three worlds; failures replayed by their seed; nothing left behind.

    @pytest.mark.system("examples/hotel/system.toml", settings={"payments": {"latency": 0}})
    def test_a_stay_is_booked_once(system):
        reservations = system.client(Reservations, subject="ada")
        stay = system.run(reservations.book(order))

* `@pytest.mark.system(FILE)` or `(Class, Class, ...)`, with `settings={service: {field: value}}`: what runs. A file's
  path is relative to the folder pytest was configured in. One class alone is a list, `([Class])`: a mark that is given
  a class and nothing else marks that class, says pytest.
* `@pytest.mark.worlds("direct", "world", "processes")`: where; without it "direct" and "world". Of these,
  `--worlds=world,processes` chooses; without a marker it says them all.
* `@pytest.mark.seeds(3)`: in the World with the seeds 0, 1 and 2; `--seed N`: with that one.
* `ropewalk_leftovers = true` in pytest's configuration looks after every test, not only after those with a `system`.

Such a test is a plain function: `system.run` waits. Loading this imports no reactor.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from .leftovers import LoggedFailures, ReactorLeftovers
    from .systems import System

KINDS = ("direct", "world", "processes")
DEFAULT = ("direct", "world")
EVERY_TEST = "ropewalk_leftovers"
SYSTEM = pytest.StashKey[Any]()

pytest.register_assert_rewrite("ropewalk.testing.contracts")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ropewalk")
    group.addoption("--worlds", metavar="W,W", help=f"where tests with a `system` run: {', '.join(KINDS)}")
    group.addoption("--seed", type=int, metavar="N", help="the seed of their Worlds")
    parser.addini(EVERY_TEST, "look after every test for what it leaves behind", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "system(file_or_classes, settings): what the fixture `system` runs",
        "worlds(names): where it does: direct, world, processes",
        "seeds(count): how many seeds its World is run with",
    ):
        config.addinivalue_line("markers", line)
    _chosen(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    item = metafunc.definition
    if "system" in metafunc.fixturenames and item.get_closest_marker("system"):
        metafunc.parametrize("system", _runs(item), indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call what waits by itself, before pytest-twisted would call it where nothing can be waited for."""
    function = pyfuncitem.obj
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if getattr(pyfuncitem.instance, "__ropewalk_contract__", False):
        answer = function(**arguments)
        if inspect.isawaitable(answer):
            pyfuncitem.instance.drive(answer)
        return True
    if not _has_system(pyfuncitem):
        return None
    if inspect.iscoroutinefunction(function):
        pytest.fail("A test with a `system` is a plain function: `system.run(awaitable)` waits.", pytrace=False)
    function(**arguments)
    return True


@pytest.fixture
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system that `@pytest.mark.system` names, running: `client(Contract, subject=None, scopes=())`,
    `run(awaitable, timeout=60)`, `until(predicate, timeout=60)`, `seed`, `kind`, and in the World `world`."""
    marker = request.node.get_closest_marker("system")
    if marker is None or not marker.args:
        pytest.fail('A test with a `system` says which: @pytest.mark.system("system.toml") or (Class, ...).')
    from .split import NotHere
    from .systems import KINDS

    kind, seed = request.param
    try:
        made = KINDS[kind](
            _target(marker.args, request.config.rootpath),
            settings=marker.kwargs.get("settings", {}),
            seed=seed,
            folder=tmp_path_factory.mktemp("system"),
        )
    except NotHere as reason:
        pytest.skip(str(reason))
    request.node.stash[SYSTEM] = made
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[LoggedFailures | None]:
    # Autouse fixtures are set up first and torn down last: what other fixtures leave behind is seen too.
    if request.config.getini(EVERY_TEST) or _has_system(request.node):
        with _looked_after(request.node) as failures:
            yield failures
    else:
        yield None


@pytest.fixture
def flush_logged_errors(
    request: pytest.FixtureRequest, _nothing_is_left: LoggedFailures | None
) -> Iterator[Callable[..., list[Failure]]]:
    """`flush_logged_errors(*types)`: the failures logged so far, which then no longer fail the test."""
    if _nothing_is_left is None:
        with _looked_after(request.node) as failures:
            yield failures.flush
        return
    kept = _nothing_is_left

    def flush(*types: type[BaseException]) -> list[Failure]:
        world = _world(request.node)
        if world is not None:
            world.flush_failures(*types)
        return kept.flush(*types)

    yield flush


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getini(EVERY_TEST):
        # What is imported by now lives to the end: out of the collector's sight, a collection per test costs little.
        gc.collect()
        gc.freeze()


# -- which


def _runs(item: Any) -> list[Any]:
    """A parameter (kind, seed) for each run of a test."""
    marker = item.get_closest_marker("worlds")
    chosen = _chosen(item.config)
    unknown = sorted(set(marker.args if marker else ()) - set(KINDS))
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: worlds are {', '.join(KINDS)}; got {', '.join(unknown)}.")
    kinds = [kind for kind in KINDS if kind in (marker.args if marker else chosen or DEFAULT)]
    if marker and chosen:
        kinds = [kind for kind in kinds if kind in chosen]
    if not kinds:
        reason = f"runs in {', '.join(marker.args)} alone; --worlds chose {', '.join(chosen)}"
        return [pytest.param(("none", 0), id="none", marks=pytest.mark.skip(reason=reason))]
    seeds = item.get_closest_marker("seeds")
    option = item.config.getoption("--seed")
    found = [option] if option is not None else list(range(seeds.args[0])) if seeds else [0]
    runs = []
    for kind in kinds:
        if kind == "world" and (seeds or option is not None):
            runs += [pytest.param((kind, seed), id=f"world-seed{seed}") for seed in found]
        else:
            runs.append(pytest.param((kind, found[0]), id=kind))
    return runs


def _chosen(config: pytest.Config) -> tuple[str, ...]:
    """What `--worlds` says; raises UsageError for a name that is none."""
    names = tuple(filter(None, (config.getoption("--worlds") or "").replace(",", " ").split()))
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise pytest.UsageError(f"--worlds: expected some of {', '.join(KINDS)}; got {', '.join(unknown)}.")
    return names


def _target(said: tuple[Any, ...], root: Path) -> Any:
    if isinstance(said[0], (str, Path)):
        return root / said[0]
    return tuple(said[0]) if isinstance(said[0], (list, tuple)) else said


def _has_system(item: Any) -> bool:
    return "system" in getattr(item, "fixturenames", ()) and item.get_closest_marker("system") is not None


# -- what is left


@contextmanager
def _looked_after(item: Any) -> Iterator[LoggedFailures]:
    """Fail at the end when something is left: failures in the log that nobody took, timers, sockets."""
    from twisted.logger import globalLogPublisher

    from .leftovers import LoggedFailures, ReactorLeftovers

    failures, things = LoggedFailures(), ReactorLeftovers()
    globalLogPublisher.addObserver(failures)
    try:
        yield failures
        left = _left_by_now(things)
        world = _world(item)
        # What a World heard went to the log as well; what one of its timers raised did not.
        failed = failures.remaining() or (world.failures if world is not None else [])
    finally:
        globalLogPublisher.removeObserver(failures)
    said = [f"{len(failed)} failure(s) were left in the log:", *failed] * bool(failed)
    said += [f"{len(left)} thing(s) were left in the reactor:", *left] * bool(left)
    if said:
        pytest.fail("\n".join(said), pytrace=False)


def _world(item: Any) -> Any:
    """The World of a test; None for one that has none."""
    made = item.stash.get(SYSTEM, None)
    return made.world if made is not None and made.kind == "world" else None


def _left_by_now(things: ReactorLeftovers) -> list[str]:
    """What is left, once what is only on its way out has gone."""
    from .leftovers import GRACE
    from .waiting import can_wait, comes_true

    if things.remaining() and can_wait():
        comes_true(lambda: not things.remaining(), GRACE)
    return things.remaining()
