"""`workers = N` of a process: the parent of its workers. It serves no request and runs none of the services' code.

It opens the listening sockets and keeps them; each worker accepts from them. So a worker may go, in order or not, and
no connection is lost with it: what it had not accepted waits for the others.

* A worker that crashes is started again, later each time it happens in a row (`policy/backoff.py`).
* A worker whose configuration cannot be used (exit status 78) is not: the supervisor ends with that line.
* SIGHUP replaces them one by one: the new one serves before the old one goes. One that cannot start ends the round.
* `/metrics`, whichever worker is asked, answers for all of them; one that hangs is left out.
* When the supervisor goes, its workers do: see `parent.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import Any, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.application.service import Service as LifecycleService
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..driver import Driver, settled
from ..errors import ConfigurationError
from ..policy.backoff import Backoff, Streak, began
from ..policy.backoff import failed as failed_again
from ..telemetry.metrics import exposition, merged
from .children import Child, End
from .clock import Clock
from .link import EX_CONFIG, All, AskForAll, Draining, Failed, FromChild, Given, Loaded, Page, Ready
from .listeners import Listeners
from .parent import Parent, failure_of

PAGE_TIMEOUT = 1.0  # seconds in which a worker that turns shows its metrics
START_LIMIT = 120.0  # seconds a worker may take until it serves; then it hangs


class Supervisor(LifecycleService):
    """The workers of one process, from none to drained."""

    def __init__(
        self,
        name: str,
        count: int,
        command: Sequence[str],
        listeners: Listeners,
        reactor: Any,
        *,
        patience: float,
        environment: Mapping[str, str],
        parent: Parent | None = None,
        backoff: Backoff | None = None,
        random: Random | None = None,
        on_failure: Callable[[Failed], object] | None = None,
    ) -> None:
        """`command` starts a worker; `patience`: seconds from being told to end until it is killed.

        `on_failure(failed)`: no worker can start, and no other one would.
        """
        self.name = name
        self.count = count
        self._command = tuple(command)
        self._listeners = listeners
        self._reactor = reactor
        self._clock = Clock(reactor)
        self._driver = Driver.of(reactor)
        self._patience = patience
        self._environment = dict(environment)
        self._parent = parent
        self._backoff = backoff or Backoff()
        self._random = random or SystemRandom()
        self._on_failure = on_failure
        self._current: dict[int, Child] = {}  # by number, 1 to count
        self._alive: set[Child] = set()  # those, and the ones that drain or are to replace one
        self._streaks = dict.fromkeys(range(1, count + 1), Streak())
        self._waiting: dict[int, Any] = {}  # the timers of those that will be started again
        self._files: dict[int, tuple[str, ...]] = {}
        self._stopping = False
        self._was_ready = False
        self._rolling = False
        self._roll_again = False
        self._askers: list[Child] = []  # who waits for everybody's metrics
        self._numbers = _Numbers(name)

    def statistics(self) -> dict[str, int]:
        """Workers that should be, that serve, and that live."""
        return {
            "workers": self.count,
            "ready": sum(child.ready for child in self._current.values()),
            "alive": len(self._alive),
        }

    # -- the lifecycle

    def startService(self) -> None:
        """Open the sockets, start the workers."""
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.roll))
        if self._parent is not None:
            self._parent.killed = self.kill
        self._driver.run(self._start()).addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Drain the workers; fires when none is left."""
        super().stopService()
        return self._driver.run(self._stop())

    async def _start(self) -> None:
        await self._listeners.open()
        if not self._stopping:
            for number in self._streaks:
                self._begin(number)

    async def _stop(self) -> None:
        self._stopping = True
        if self._parent is not None:
            self._parent.tell(Draining())
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        # First: what comes from now on is refused at once, instead of waiting for nobody; the workers have their own.
        await self._listeners.close()
        for child in self._alive:
            child.drain(self._patience)
        await DeferredList([child.gone for child in self._alive])
        if self._parent is not None:
            await self._parent.close()

    def kill(self) -> None:
        """End now, with all workers."""
        for child in self._alive:
            child.kill()
        os._exit(1)  # nothing of its own is left to end in order

    def _failed(self, failure: Failure) -> None:
        if not failure.check(ConfigurationError):
            _log_failure(failure)
        self._give_up(failure_of(cast(BaseException, failure.value)))

    def _give_up(self, failed: Failed) -> None:
        if not self._stopping:
            self._stopping = True  # before the workers that follow say the same
            if self._on_failure is not None:
                self._on_failure(failed)

    # -- workers

    def _begin(self, number: int) -> None:
        """Start a worker in an empty place."""
        self._waiting.pop(number, None)
        try:
            child = self._launch(number)
        except OSError as error:  # no more processes, no more memory
            self._begin_later(number, str(error))
        else:
            self._put(number, child)

    def _begin_later(self, number: int, why: str) -> None:
        now = self._clock.seconds()
        self._streaks[number], delay = failed_again(self._backoff, self._streaks[number], now, self._random.random())
        _log.warn(
            "worker {worker} ended ({why}); another one starts in {delay} s",
            worker=number,
            why=why,
            delay=round(delay, 2),
        )
        self._waiting[number] = self._reactor.callLater(delay, self._begin, number)

    def _launch(self, number: int) -> Child:
        child = Child(str(number), self._reactor, said=self._said, ended=self._ended)
        given = Given(listeners=self._listeners.descriptions, worker=number, watched=self._watched)
        child.start(self._command, self._environment, given, self._listeners.descriptors)
        self._alive.add(child)
        overdue = self._reactor.callLater(START_LIMIT, self._kill_overdue, child)
        child.started.addCallback(partial(_cancel, overdue))
        return child

    def _put(self, number: int, child: Child) -> None:
        self._current[number] = child
        self._streaks[number] = began(self._streaks[number], self._clock.seconds())

    def _kill_overdue(self, child: Child) -> None:
        _log.error("worker {worker} does not serve after {limit} s", worker=child.name, limit=START_LIMIT)
        child.kill()

    def _said(self, child: Child, message: FromChild) -> None:
        number = int(child.name)
        match message:
            case Ready():
                self._tell_ready()
            case Draining() if child.ready and self._current.get(number) is child and not self._stopping:
                # Somebody else told it to end. It still works on what it has; its successor need not wait for that.
                _log.info("worker {worker} drains; another one takes its place", worker=child.name)
                child.drain(self._patience)
                self._begin(number)
            case Page(page, last=True):
                self._numbers.keep(page)
            case AskForAll():
                self._askers.append(child)
                if len(self._askers) == 1:
                    self._driver.run(self._collect()).addErrback(_log_failure)
            case Loaded(files) if self._parent is not None:
                self._files[number] = files
                self._parent.tell(Loaded(tuple(sorted({file for each in self._files.values() for file in each}))))

    def _tell_ready(self) -> None:
        if self._was_ready or not all(child.ready for child in self._current.values()) or self._waiting:
            return
        self._was_ready = True
        _log.info("{process} has {count} workers", process=self.name, count=self.count)
        if self._parent is not None:
            self._parent.tell(Ready())

    def _ended(self, child: Child, end: End) -> None:
        self._alive.discard(child)
        self._numbers.count("order" if child.draining else "crash")
        number = int(child.name)
        if self._stopping or self._current.get(number) is not child:
            return  # it was told to go, or (in a round) did not come to serve
        del self._current[number]
        refused = child.failed
        if refused is None:
            self._begin_later(number, str(end))
        elif refused.status == EX_CONFIG or (self._watched and not self._was_ready):
            self._give_up(refused)
        else:
            self._begin_later(number, refused.line)

    @property
    def _watched(self) -> bool:
        return self._parent is not None and self._parent.given.watched

    # -- replacing all of them

    def roll(self) -> None:
        """Replace the workers one by one. Asked while it goes on, it is done once more afterwards."""
        if self._rolling or self._stopping:
            self._roll_again = not self._stopping
            return
        self._rolling = True
        self._driver.run(self._roll()).addErrback(_log_failure).addCallback(self._rolled)

    async def _roll(self) -> None:
        _log.info("the {count} workers of {process} are replaced", count=self.count, process=self.name)
        for number in self._streaks:
            if self._stopping:
                return
            new = self._launch(number)
            if not await new.started:
                why = new.failed.line if new.failed is not None else "it ended before it served"
                _log.error("worker {worker} was not replaced, nor those after it: {why}", worker=number, why=why)
                return
            old = self._current.get(number)
            if number in self._waiting:
                self._waiting.pop(number).cancel()
            self._put(number, new)
            if old is not None:
                old.drain(self._patience)
                await old.gone  # one by one: never more than one process beyond the count
        _log.info("the {count} workers of {process} were replaced", count=self.count, process=self.name)

    def _rolled(self, _: None) -> None:
        self._rolling = False
        if self._roll_again:
            self._roll_again = False
            self.roll()

    # -- metrics

    async def _collect(self) -> None:
        try:
            serving = sorted((child for child in self._alive if child.ready), key=lambda child: child.pid)
            asked = [child.page(PAGE_TIMEOUT) for child in serving]
            pages = [page for page in await settled(*asked) if isinstance(page, str)]
            page = merged([*pages, *self._numbers.pages(self.statistics())]).decode()
        finally:
            askers, self._askers = self._askers, []
        for each in askers:
            each.tell(All(page))


class _Numbers:
    """What the supervisor itself counts, and what workers that have gone had counted: totals only ever grow."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._ends = {"crash": 0, "order": 0}
        self._gone = ""

    def count(self, how: str) -> None:
        """A worker ended: by a `crash`, or in `order`."""
        self._ends[how] += 1

    def keep(self, page: str) -> None:
        """Add the totals of a worker's last page to those of the ones before it."""
        totals = exposition([_Totals(page)]).decode()
        self._gone = merged([self._gone, totals]).decode() if self._gone else totals

    def pages(self, workers: Mapping[str, int]) -> list[str]:
        """Pages to be merged with the workers' own."""
        own = exposition([_Own(self._process, dict(self._ends), workers)]).decode()
        return [own, self._gone] if self._gone else [own]


class _Totals:
    """A page without what is only true of a moment."""

    def __init__(self, page: str) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        """Its counters and histograms."""
        return (family for family in text_string_to_metric_families(self._page) if family.type != "gauge")


class _Own:
    def __init__(self, process: str, ends: Mapping[str, int], workers: Mapping[str, int]) -> None:
        self._process = process
        self._ends = ends
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        ends = CounterMetricFamily("ropewalk_worker_ends", "Workers that ended", labels=["process", "how"])
        for how, count in sorted(self._ends.items()):
            ends.add_metric([self._process, how], count)
        workers = GaugeMetricFamily("ropewalk_workers", "Workers by state", labels=["process", "state"])
        for state, count in sorted(self._workers.items()):
            workers.add_metric([self._process, state], count)
        yield ends
        yield workers


def _cancel(delayed: Any, result: bool) -> bool:
    if delayed.active():
        delayed.cancel()
    return result


def _log_failure(failure: Failure) -> None:
    _log.failure("the supervisor failed", failure)


_log = Logger("ropewalk.runtime")
