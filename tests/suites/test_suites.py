"""Other people's suites on our engine: Klein's, treq's and Twisted's own, of the installed versions, which bring them.

Each is run twice, as it is and with `ropewalk.engine` in place of `twisted.web`, both times in a process of its own
(`outcomes.py`, `ours/sitecustomize.py`): what passes as it is has to pass on ours, but for EXCEPTIONS. No test leaves this
machine: most have both ends in memory, and treq's integration tests ask an httpbin, which they start on loopback.
Twisted's are those of its reactors (`reactors.py`), on its asyncio reactor and on ours.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

PATIENCE = 240  # seconds for a run, which takes eight of treq's; a test of it that hangs is given up by trial after 120
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * PATIENCE + 20)]

HERE = Path(__file__).parent
PASSED = "passed"  # as outcomes.py has it

# What is replaced -> the tests that fail then, each with the reason that lets it. One that passes is no exception.
LLHTTP = "it asks with a method that is called METHOD; llhttp takes only those that are registered, and some more"
EXCEPTIONS = {
    ("klein", "Agent Site"): {
        "klein.test.test_requirer.RequireURLTests.test_requiresURLBadlyBehavedClient": (
            "its client is to leave Host out, which a server refuses (RFC 9112, section 3.2), and our Agent does not do"
        ),
    },
    ("treq", "Agent Site"): {
        f"treq.test.test_testing.StubbingTests.{name}": LLHTTP
        for name in (
            "test_handles_failing_asynchronous_requests",
            "test_handles_successful_asynchronous_requests",
            "test_handles_successful_asynchronous_requests_with_response_data",
            "test_handles_successful_asynchronous_requests_with_streaming",
            "test_session_persistence_between_requests",
        )
    },
}
# In how many processes connections of ours have to be: that of the suite, and two with httpbin, one of them by TLS.
USED = {
    ("klein", "Agent Site"): {"ClientChannel": 1, "Channel": 1},
    ("treq", "Agent"): {"ClientChannel": 1},
    ("treq", "Agent Site"): {"ClientChannel": 1, "Channel": 3},
}
# Tests that have to be among those that pass as they are, or the comparison says little.
TELLING = {"klein": "klein.test.test_form.", "treq": "treq.test.test_treq_integration.HTTPSTreqIntegrationTests."}
# Modules of Twisted's, likewise; and the tests of a port that are run on a Site.
OF_REACTORS = {
    "SitePort_TheReactorTests", "test_core", "test_fdset", "test_newtls", "test_process", "test_socket", "test_stdio",
    "test_tcp", "test_threads", "test_time", "test_tls", "test_udp", "test_unix",
}  # fmt: skip


class Run(NamedTuple):
    """Of a suite."""

    outcomes: dict[str, str]  # by test: PASSED, or what became of it instead
    used: dict[str, int]  # in how many processes there were connections of ours, by what served or made them
    said: str

    @property
    def passed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == PASSED}


@cache
def run(suite: str, replaced: str) -> Run:
    """Runs a suite. `replaced`: what of Twisted's ours stands in for, "" for nothing."""
    with TemporaryDirectory() as folder:
        tally = Path(folder, "tally")
        tally.touch()
        environment = {}
        if replaced:
            environment |= {"ROPEWALK_SUITES_TALLY": str(tally), "ROPEWALK_SUITES_REPLACED": replaced}
            environment["PYTHONPATH"] = os.pathsep.join(
                [str(HERE / "ours"), *filter(None, [os.environ.get("PYTHONPATH")])]
            )
        outcomes, said = ended("outcomes.py", suite, folder, environment)
        used = Counter(line.split()[0] for line in set(tally.read_text().splitlines()))
        return Run(outcomes, dict(used), f"{suite}, replaced: {replaced or 'nothing'}\n{said}")


def ended(program: str, what: str, folder: str, more: dict[str, str]) -> tuple[dict[str, str], str]:
    """How each test ended that a program runs, in a process of its own; and what was said."""
    outcomes = Path(folder, "outcomes")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, str(HERE / program), what, str(outcomes)], timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment | more, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{program} {what}\n{done.stdout[-4000:]}"
    return json.loads(outcomes.read_text("utf-8")), done.stdout[-4000:]


@pytest.mark.parametrize(("suite", "replaced"), USED, ids=lambda each: each.replace(" ", " and "))
def test_what_passes_on_twisted_web_passes_on_the_engine(suite, replaced, require):
    if suite == "treq":
        require("httpbin", importlib.util.find_spec("httpbin"), "it is not installed; docs/ci.rst says how it is")

    twisted = run(suite, "")
    ours = run(suite, replaced)

    assert USED[suite, replaced] == ours.used, f"connections of ours were in other processes\n{ours.said}"
    excepted = EXCEPTIONS.get((suite, replaced), {})
    failed = {
        test: ours.outcomes.get(test, "it was not run") for test in sorted(twisted.passed - ours.passed - set(excepted))
    }
    assert not failed, "\n\n".join([f"{len(failed)} fail on the engine:", *failed, *map(": ".join, failed.items())])
    assert not (stale := sorted(set(excepted) - (twisted.passed - ours.passed))), f"no exceptions any more: {stale}"
    assert any(test.startswith(TELLING[suite]) for test in twisted.passed), twisted.said


def test_what_passes_on_twisteds_asyncio_reactor_passes_on_ours(require, tmp_path):
    require("hamcrest", importlib.util.find_spec("hamcrest"), "it is not installed; docs/ci.rst says how it is")

    twisted, _ = ended("reactors.py", "twisted", str(tmp_path), {})
    ours, _ = ended("reactors.py", "ours", str(tmp_path), {})

    passed = {test for test, outcome in twisted.items() if outcome == PASSED}
    failed = {test: ours.get(test, "it was not run") for test in sorted(passed) if ours.get(test) != PASSED}
    assert not failed, "\n\n".join([f"{len(failed)} fail on our reactor:", *map(": ".join, failed.items())])
    assert {name for test in passed for name in OF_REACTORS if f".{name}." in test} == OF_REACTORS
