"""Runs a suite in this process, as trial does: `python outcomes.py PACKAGE FILE` writes to FILE how each test ended.

Where `ours/` is on PYTHONPATH, Twisted's Site and Agent were replaced before this is read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.reporter import VerboseTextReporter
from twisted.trial.runner import TestLoader, TrialRunner
from twisted.web import client

from ropewalk.engine import Agent

PASSED = "passed"


class Reporter(VerboseTextReporter):
    """Notes how each test ended: PASSED, or what became of it instead."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, str] = {}

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._note(test, PASSED)

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._note(test, self._formatFailureTraceback(self._getFailure(error)))

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self._note(test, self._formatFailureTraceback(self._getFailure(fail)))

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._note(test, f"skipped: {reason}")

    def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
        super().addExpectedFailure(test, error, todo)
        self._note(test, PASSED)

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        super().addUnexpectedSuccess(test, todo)
        self._note(test, "succeeded, which its suite does not expect")

    def _note(self, test: Any, outcome: str) -> None:
        if self.outcomes.get(test.id(), PASSED) == PASSED:  # what it leaves behind is noted after its success
            self.outcomes[test.id()] = outcome


def end_connections() -> None:
    """Let treq's tests against a real server end what their agent keeps; Twisted's own, without a pool, keeps nothing."""
    from treq.test.test_treq_integration import TreqIntegrationTests

    tear_down = TreqIntegrationTests.tearDown

    def tearDown(self: Any) -> Any:
        return self.agent.pool.close().addCallback(lambda _: tear_down(self))

    TreqIntegrationTests.tearDown = tearDown


def write(suite: Any, path: Path) -> None:
    """Run tests, and write how each ended."""
    result: Any = TrialRunner(Reporter).run(suite)
    path.write_text(json.dumps(result.outcomes), "utf-8")


def main(package: str, path: str) -> None:
    """Exits with 0 however the tests ended."""
    if package == "treq" and client.Agent is Agent:
        end_connections()
    write(TestLoader().loadByName(package, recurse=True), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
