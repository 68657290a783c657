"""The brokers of this house keep what every broker keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ropewalk import Database, Service
from ropewalk.memory import broker as embedded
from ropewalk.memory.shared_broker import make as make_shared
from ropewalk.testing import World
from ropewalk.testing.broker import SimulatedBroker
from ropewalk.testing.contracts import BrokerContract


class TestSharedBroker(BrokerContract):
    """Several processes on one folder; the first is the owner."""

    @pytest.fixture(autouse=True)
    def _again_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded, "AGAIN", 0.05)

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Awaitable[Any]]:
        from twisted.internet import reactor

        clock: Any = reactor

        async def make() -> Any:
            return make_shared(
                "memory", data=tmp_path, reactor=reactor, clock=clock, now=lambda: 1_777_626_000.0, random=Random(1)
            )

        return make


class TestSharedBrokerOfAnother(TestSharedBroker):
    """The same where the owner is none of those that are tested."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Callable[[], Awaitable[Any]]]:
        from twisted.internet import reactor

        clock: Any = reactor
        all_made: list[Any] = []

        def one() -> Any:
            made = make_shared(
                "memory", data=tmp_path, reactor=reactor, clock=clock, now=lambda: 1_777_626_000.0, random=Random(1)
            )
            all_made.append(made)
            return made

        async def make() -> Any:
            if not all_made:
                await one()._found()
            return one()

        yield make
        if all_made:
            self.drive(all_made[0].close())


class Anybody(Service):
    def __init__(self, database: Database) -> None: ...


class TestSimulatedBroker(BrokerContract):
    patience = 60.0

    @pytest.fixture(autouse=True)
    def _in_a_world(self) -> Iterator[None]:
        with World([Anybody], instances=4) as self.world:
            self.reactors = [host.reactor for host in self.world.instances_of("anybody")]
            yield

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        made: list[Any] = []

        async def make() -> SimulatedBroker:
            made.append(SimulatedBroker(self.reactors[len(made) % 4], self.world))
            return made[-1]

        return make

    def drive(self, awaitable: Awaitable[Any]) -> None:
        self.world.run(awaitable)
