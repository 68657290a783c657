"""One system, three ways to run it, one shape: what a test's `system` is.

* `DirectSystem`: all services in this process on the real reactor, calling each other without sockets.
* `WorldSystem`: in a `World`, on its virtual clock.
* `ProcessesSystem`: `ropewalk up`, a process for each service, asked over HTTP on loopback.

Each is ready when it is made and gone after `close()`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater

from ..discovery.resolve import Resolve
from ..driver import Driver
from ..engine.agent import Agent
from ..engine.pool import Pool
from ..handler import Handler, compose
from ..http.client import HTTPConnection
from ..http.identity import Identity
from ..memory.connection import LocalConnection
from ..message import ANONYMOUS, Principal, Request, Response
from ..runtime.clock import Clock
from ..runtime.config import Config
from ..runtime.inject import dependencies_of
from ..runtime.placement import EVERYTHING, Placement, place
from ..runtime.process import Process
from ..runtime.stacks import client_stack
from ..runtime.trust import says_who
from ..service import Contract, Service, describe
from ..sibling import client_of
from ..telemetry.metrics import Calls
from .configured import SECRET, configured
from .split import free_ports, refuse_unimportable, split_file
from .waiting import POLL, comes_true, wait_for, wait_until

T = TypeVar("T")

OUTSIDE = "outside"  # who a test's clients say they are, as a World's do
START_LIMIT = 60.0  # seconds until all serve; several interpreters on a busy machine
STOP_LIMIT = 60.0  # seconds until all are gone

Target = str | Path | Sequence[type[Service]]  # a system file, or the classes
SettingsByService = Mapping[str, Mapping[str, Any]]


class _RealSystem:
    """What the two on the real reactor share."""

    kind: str
    driver: Driver
    clock: Clock
    config: Config
    seed: int

    def client(self, contract: type[Contract], subject: str | None = None, scopes: Iterable[str] = ()) -> Any:
        """A client of `contract`, whose calls are made on behalf of `subject` with `scopes`."""
        callee = self.config.keeper(contract)
        meter = Calls("ropewalk_client", "Calls", (("caller", OUTSIDE), ("callee", callee)))
        stack = [
            OnBehalf(Principal(None, subject, frozenset(scopes))),
            *client_stack(clock=self.clock, random=Random(f"{self.seed}/{callee}"), meter=meter),
        ]
        return client_of(contract, compose(stack, self._connection(callee, contract)), OUTSIDE, self.driver)

    def run(self, awaitable: Awaitable[T], timeout: float = 60.0) -> T:
        """What it answers or raises; it is cancelled, and Stuck raised, after `timeout` seconds."""
        return wait_for(awaitable, timeout)

    def until(self, predicate: Callable[[], object], timeout: float = 60.0) -> None:
        """Wait until `predicate()` is true; raises Stuck after `timeout` seconds."""
        wait_until(predicate, timeout)

    @property
    def world(self) -> Any:
        """There is none: the test is skipped."""
        import pytest

        pytest.skip(f"this test asks for the World, and it runs as {self.kind!r}: here is no network to cut")

    def _connection(self, callee: str, contract: type[Contract]) -> Handler:
        raise NotImplementedError


class DirectSystem(_RealSystem):
    """All services in this process: the runtime's own Process, on the real reactor.

    A listener is opened, on any free port of loopback, only for a system with a service that asks siblings by raw
    HTTP (`sibling://`).
    """

    kind = "direct"

    def __init__(self, target: Target, *, settings: SettingsByService, seed: int, folder: Path) -> None:
        """`folder`: where its databases lie. Raises what it could not start with."""
        from twisted.internet import reactor

        self.seed = seed
        self.config = configured(target, settings)
        made = place(self.config, together=True)
        self._placement = Placement(dict(made.places), made.workers)
        self._reactor: Any = reactor
        self._speaks_http = any(HTTPClient in _needs(self.config.service_class(each)) for each in self.config.services)
        started: Deferred[None] = Deferred()
        self._process = Process(
            self.config,
            self._placement,
            EVERYTHING,
            reactor,
            data=folder,
            random=Random(f"{seed}/direct"),
            listen=self._listen,
            drain_delay=0.0,
            on_ready=lambda: started.callback(None),
            on_failure=started.errback,
        )
        self.driver, self.clock = self._process.driver, self._process.clock
        self._process.startService()
        try:
            wait_for(started, START_LIMIT)
        except BaseException:
            self.close()
            raise

    def service(self, contract: type[Contract]) -> Any:
        """The service itself that keeps `contract`, for looking."""
        return self._process.services[self.config.keeper(contract)]

    def close(self) -> None:
        """Stop the services; everything of theirs is gone then."""
        wait_for(self._process.stopService(), STOP_LIMIT)

    def _connection(self, callee: str, contract: type[Contract]) -> Handler:
        cls = self.config.service_class(callee)
        return LocalConnection(OUTSIDE, describe(cls), self._process._servers[callee])

    def _listen(self, site: Any, description: str) -> Deferred[Any]:
        places = cast(dict[str, Any], self._placement.places)
        mine = [name for name, there in places.items() if there.listen == description]
        if not mine or not self._speaks_http:  # a public listener, or one that nobody would ask
            return succeed(_NoPort())

        def opened(port: Any) -> Any:
            url = f"http://127.0.0.1:{port.getHost().port}"
            places[mine[0]] = msgspec.structs.replace(places[mine[0]], urls=(url,))
            return port

        opening: Deferred[Any] = serverFromString(self._reactor, "tcp:0:interface=127.0.0.1").listen(site)
        return opening.addCallback(opened)


class WorldSystem:
    """A World, as the two others are used."""

    kind = "world"

    def __init__(self, target: Target, *, settings: SettingsByService, seed: int, folder: Path) -> None:
        """Raises what it could not start with."""
        from .world import World

        self.seed = seed
        self.world = World(target, seed=seed, settings=settings)

    def client(self, contract: type[Contract], subject: str | None = None, scopes: Iterable[str] = ()) -> Any:
        """A client of `contract`, whose calls are made on behalf of `subject` with `scopes`."""
        return self.world.client(contract, subject, scopes)

    def run(self, awaitable: Awaitable[T], timeout: float = 60.0) -> T:
        """What it answers or raises, in virtual time; raises Stuck after `timeout` virtual seconds."""
        return self.world.run(awaitable, timeout)

    def until(self, predicate: Callable[[], object], timeout: float = 60.0) -> None:
        """Let virtual time pass until `predicate()` is true; raises Stuck after `timeout` virtual seconds."""
        self.world.until(predicate, timeout)

    def close(self) -> None:
        """End it."""
        self.world.close()


class ProcessesSystem(_RealSystem):
    """A process for each service, as `ropewalk up` runs them; on loopback, on free ports, with data of its own."""

    kind = "processes"

    def __init__(self, target: Target, *, settings: SettingsByService, seed: int, folder: Path) -> None:
        """`folder`: where its system file, its log and its data lie.

        Raises NotHere for a class that another process cannot import, RuntimeError with the log when it did not start.
        """
        from twisted.internet import reactor

        self.seed = seed
        self.config = configured(target, settings)
        self.driver, self.clock = Driver.of(cast(Any, reactor)), Clock(reactor)
        self._reactor: Any = reactor
        self._identity = Identity(SECRET, OUTSIDE, time.time)
        self._pool = Pool(reactor)
        self._agent = Agent(reactor, pool=self._pool)
        if not isinstance(target, (str, Path)):
            refuse_unimportable(target)
        first = free_ports(len(self.config.services))
        self._urls = {name: f"http://127.0.0.1:{first + at}" for at, name in enumerate(self.config.services)}
        file = folder / "system.toml"
        file.write_text(split_file(self.config, settings), "utf-8")
        self._log = folder / "log.txt"
        self._popen = self._up(file, first, folder / "data")
        try:
            wait_for(self._wait_until_ready(), START_LIMIT)
        except BaseException as error:
            self.close()
            if isinstance(error, AssertionError):
                raise RuntimeError(self._told("does not serve")) from error
            raise

    def close(self) -> None:
        """End the processes in order; kill them when that takes too long."""
        wait_for(self._pool.close())
        self._popen.terminate()
        if not comes_true(lambda: self._popen.poll() is not None, STOP_LIMIT):
            self._popen.kill()  # its processes notice, and end by themselves
            self._popen.wait()
            raise RuntimeError(self._told(f"did not end within {STOP_LIMIT:g} seconds"))

    def _up(self, file: Path, port: int, data: Path) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROPEWALK_")}
        path = [str(self.config.folder), *filter(None, sys.path)]
        command = [sys.executable, "-P", "-c", "from ropewalk.cli import main; main()", "up", str(file)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*command, "--port", str(port), "--data", str(data)],
                cwd=self.config.folder,
                env={**inherited, "PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests, which then end it
            )

    async def _wait_until_ready(self) -> None:
        for name, url in self._urls.items():
            while not await self._is_ready(url):
                if self._popen.poll() is not None:
                    raise RuntimeError(self._told(f"ended with status {self._popen.returncode} before {name} served"))
                await deferLater(self._reactor, POLL * 5)

    async def _is_ready(self, url: str) -> bool:
        from twisted.internet.error import ConnectError
        from twisted.web.client import ResponseFailed

        try:
            reply = await HTTPClient(self._agent).get(f"{url}/health/ready")
            await reply.content()
        except (ConnectError, ResponseFailed):
            return False
        return bool(reply.code == 200)

    def _told(self, what: str) -> str:
        return f"`ropewalk up` {what}; its log:\n{self._log.read_text('utf-8', 'replace')[-5000:]}"

    def _connection(self, callee: str, contract: type[Contract]) -> Handler:
        major = describe(contract).major
        identity = says_who(self._identity, callee)
        return Resolve(
            callee,
            lambda: (self._urls[callee],),
            lambda address: HTTPConnection(self._pool, address, callee, major, self.clock.seconds, identity),
        )


System = DirectSystem | WorldSystem | ProcessesSystem

KINDS: Mapping[str, type[System]] = {"direct": DirectSystem, "world": WorldSystem, "processes": ProcessesSystem}


class OnBehalf:
    """A filter: calls are made on behalf of `principal`, unless they are on somebody else's."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    async def __call__(self, request: Request, handler: Handler) -> Response:
        return await handler(request if request.principal != ANONYMOUS else request.replace(principal=self._principal))


class _NoPort:
    """A listener that was not opened."""

    async def stopListening(self) -> None:
        """Nothing listens."""


def _needs(cls: type[Service]) -> list[Any]:
    return [hint for hint, _, _ in dependencies_of(cls).values()]
