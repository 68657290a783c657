"""What every test stands on: what must be there is there, and no failure is lost.

* A test says what it needs beside Python: `@pytest.mark.backend("redis")`, `@pytest.mark.browser`, or, in its own
  words, the `require` fixture. What is absent skips the test with a reason; it fails the test instead when
  `ROPEWALK_REQUIRED` names it ("chromium redis"), which is how a CI lane proves that nothing was left out.
* After each test the log holds no failure: neither one that was logged nor one that a Deferred took to its grave. A
  test whose subject is a failure takes what was logged from `flush_logged_errors`.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def absence_of_chromium() -> str | None:
    """Why no test can drive a browser here; None when one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (it comes with ropewalk[test])"
    if not any(map(shutil.which, CHROMIUM)):
        return f"none of {', '.join(CHROMIUM)} is on PATH"
    return None


# What a marker may name -> a function that says why it is absent, or None. A backend gets its line with its adapter.
PROBES: dict[str, Callable[[], str | None]] = {
    "chromium": absence_of_chromium,
}


# -- what must be there


def required() -> frozenset[str]:
    """The names in `ROPEWALK_REQUIRED`, separated by spaces or commas."""
    return frozenset(os.environ.get("ROPEWALK_REQUIRED", "").replace(",", " ").split())


def require(name: str, present: object, reason: str) -> None:
    """Go on when `present` is true; else skip the test, or fail it when `name` is required here."""
    if present:
        return
    if name in required():
        pytest.fail(f"{name} is required here (ROPEWALK_REQUIRED) and absent: {reason}", pytrace=False)
    pytest.skip(f"{name} is absent: {reason}")


@pytest.fixture(name="require")
def _require() -> Callable[[str, object, str], None]:
    """`require(name, present, reason)`, for a test that finds out for itself what it has."""
    return require


def pytest_report_header() -> str:
    return f"required backends: {', '.join(sorted(required())) or 'none'}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for marker in item.iter_markers("backend") for name in marker.args]
    if item.get_closest_marker("browser"):
        names.append("chromium")
    for name in names:
        if name not in PROBES:
            pytest.fail(
                f"No probe for backend {name!r}; PROBES in tests/conftest.py knows {', '.join(sorted(PROBES))}."
            )
        reason = PROBES[name]()
        require(name, reason is None, reason or "")


# -- no failure is lost


class LoggedFailures:
    """A log observer that keeps every failure until someone takes it."""

    def __init__(self) -> None:
        self._kept: list[tuple[Failure, str]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure") or (event.get("isError") and event.get("failure"))  # new style, log.err's
        if isinstance(failure, Failure):
            self._kept.append((failure, event.get("log_namespace", "the log")))

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        """The failures logged so far, oldest first, and forget them; only those of `types` when some are given."""
        gc.collect()  # a Deferred logs its unhandled failure when it is collected
        taken = [failure for failure, _ in self._kept if not types or failure.check(*types)]
        self._kept = [(failure, by) for failure, by in self._kept if failure not in taken]
        return taken

    def remaining(self) -> list[str]:
        """One paragraph for each failure nobody took."""
        gc.collect(1)  # what this test made is young; a whole collection after each test would cost more than the test
        return [_named(failure, by) for failure, by in self._kept]


def _named(failure: Failure, by: str) -> str:
    where = "unhandled in a Deferred" if by == "twisted.internet.defer" else f"logged by {by}"
    title = f"{failure.type.__name__}: {failure.getErrorMessage()} ({where})"
    return f"{title}\n{failure.getTraceback(elideFrameworkCode=True)}"


@pytest.fixture(autouse=True)
def _no_failure_is_lost() -> Iterator[LoggedFailures]:
    # Autouse fixtures are set up first and torn down last: what other fixtures leave behind is seen too.
    failures = LoggedFailures()
    globalLogPublisher.addObserver(failures)
    try:
        yield failures
        remaining = failures.remaining()
    finally:
        globalLogPublisher.removeObserver(failures)
    if remaining:
        lines = "\n".join(remaining)
        pytest.fail(f"{len(remaining)} failure(s) were left in the log:\n{lines}", pytrace=False)


@pytest.fixture
def flush_logged_errors(_no_failure_is_lost: LoggedFailures) -> Callable[..., list[Failure]]:
    """`flush_logged_errors(*types)`: the failures logged so far, which then no longer fail the test."""
    return _no_failure_is_lost.flush


def pytest_collection_finish() -> None:
    # What is imported by now lives to the end: out of the collector's sight, a collection per test costs little.
    gc.collect()
    gc.freeze()
