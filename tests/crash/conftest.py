"""Crash tests: real processes, real servers, SIGKILL. `pytest -m crash`, as the lane `crash` of CI does.

ROPEWALK_CRASH=full  every boundary instead of a sample of them, and a thousand bookings under load
ROPEWALK_CRASH_SEED  which processes die when, under load
ROPEWALK_CRASH_RESTARTS  the servers of this machine that may be restarted meanwhile: "postgresql rabbitmq"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [each for each in (str(HERE), str(HERE.parents[1] / "examples" / "trips")) if each not in sys.path]


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether everything is wanted."""
    return os.environ.get("ROPEWALK_CRASH") == "full"


@pytest.fixture(scope="session")
def seed() -> int:
    """Of what is left to chance."""
    return int(os.environ.get("ROPEWALK_CRASH_SEED", "1"))


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`say(line)`: how far it is, for whoever waits; also when output is captured."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"  {line}", flush=True)  # noqa: T201

    return say


@pytest.fixture
def systems(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`systems("redis", processes, workers=2)`: a System over a Backend of its own, not yet started."""
    from machines import BACKENDS, System

    closing: list[Any] = []

    def make(backend: str, processes: dict[str, list[str]], workers: int = 1) -> Any:
        folder = tmp_path / f"system-{len(closing)}"
        folder.mkdir()
        closing.append(BACKENDS[backend](folder))
        closing.append(System(folder, closing[-1], processes, workers))
        return closing[-1]

    yield make
    for each in reversed(closing):
        each.close()
