"""What drives a world: the loop over its turns, the guards around it, and what is noticed while it goes on.

`Driven` is the part of a World that knows time and turns. Failures, commits and moments are reported here by the other
modules of this room; invariants are looked at here.
"""

from __future__ import annotations

import contextvars
import gc
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Self, TypeVar, cast

from twisted.internet.task import Cooperator
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from ..buggify import deciding
from ..driver import Driver
from .guards import Guards
from .hosts import OUTSIDE, Host
from .log import Log
from .moments import Moments, Stopped
from .network import Network
from .timeline import Timeline
from .values import Event

T = TypeVar("T")

BEGINS = 1_777_626_000.0  # what the wall clocks show at first: 2026-05-01T09:00:00Z
SWEEP = 20_000  # turns between two collections of garbage, so that they come at the same moments in every run


class Stuck(AssertionError):
    """Raised when what is waited for does not come, in virtual time or because nothing is left to happen."""


class Driven:
    """Time, turns, and what is noticed. Call `_begin` once, with the packages that are the product's own."""

    driver: Driver  # of the caller outside
    _guards: Guards
    _unchecked = False  # something was committed since the invariants were looked at
    _checking = False
    _driven = False
    _closed = False

    def __init__(self, seed: int, trace: Callable[[str], object] | None, sweep: int, moments: Moments) -> None:
        """`trace` is given each line of the log; `sweep`: turns between garbage collections."""
        self.seed = seed
        self.random = Random(f"{seed}/test")
        self.log = Log(trace)
        self.timeline = Timeline()
        self.network = Network(self.timeline, seed)
        self.hosts: dict[str, Host] = {}
        self.moments = moments
        self.current: Any = None  # the reactor whose turn it is
        self.failures: list[str] = []  # by host: what was logged as a failure, what a timer raised
        self.points: Counter[str] = Counter()  # what fired: faults, buggify points, transactions that ran again
        self._changes: Counter[tuple[str, str]] = Counter()  # service, table -> commits that changed it
        self.buggified: dict[str, float] = {}  # point -> how likely it fires
        self._raised: dict[str, type[BaseException]] = {}  # of the failures
        self._buggify: Random | None = None
        self._invariants: list[Callable[[Any], object]] = []
        self._sweep = sweep
        self._context = contextvars.Context()
        self._chances: dict[str, Random] = {}
        self._cooperators: dict[Any, Cooperator] = {}

    def _begin(self, product: frozenset[str]) -> None:
        self.current = self.hosts[OUTSIDE].reactor
        self.driver = Driver.of(self.current)
        self._guards = Guards(
            product, self._wall_here, self._monotonic_here, self.chance("third parties"), self._cooperator
        )

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.timeline.now

    def run(self, awaitable: Awaitable[T], timeout: float = 3600.0) -> T:
        """Drive until `awaitable` is done; what it returns, or raises. Raises Stuck after `timeout` virtual seconds."""
        ended: list[Any] = []
        with self.driving():
            deferred = self._context.copy().run(self.driver.run, awaitable)
        deferred.addBoth(ended.append)
        self._drive(lambda: bool(ended), timeout, f"{awaitable!r}")
        (result,) = ended
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]

    def until(self, predicate: Callable[[], object], timeout: float = 60.0) -> None:
        """Drive until `predicate()` is true; raises Stuck after `timeout` virtual seconds."""
        self._drive(predicate, timeout, getattr(predicate, "__name__", repr(predicate)))

    def advance(self, seconds: float) -> None:
        """Drive for so many virtual seconds."""
        if seconds < 0:
            raise ValueError(f"advance: expected seconds, 0 or more; got {seconds!r}.")
        end = self.timeline.now + seconds
        with self.driving():
            while self._turn(end):
                pass
        self.timeline.now = max(self.timeline.now, end)
        self._check()

    def at(self, at: float, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` at the moment `at`, as the caller outside."""
        self.timeline.call_at(at, self.hosts[OUTSIDE].reactor, function, args)

    def invariant(self, function: Callable[[Self], object]) -> Callable[[Self], object]:
        """`function(world)` is called whenever something was committed; it raises AssertionError when broken.

        A plain function: it looks by `world.database(name).peek(...)`, which takes no time.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{_name(function)}: an invariant is a plain function; look by database(name).peek(...).")
        self._invariants.append(function)
        return function

    def buggify(self, random: Random) -> None:
        """Choose which of the points in the product's code may fire, as they come."""
        self._buggify = random

    def flush_failures(self, *types: type[BaseException]) -> list[str]:
        """The failures so far, only those of `types` when some are given, which then no longer fail the test."""
        taken = [
            text for text in self.failures if not types or issubclass(self._raised.get(text, AssertionError), types)
        ]
        self.failures = [text for text in self.failures if text not in taken]
        return taken

    # -- for the modules of this room

    def chance(self, name: str) -> Random:
        """The chance of one part of the world, which takes nothing from any other's."""
        if name not in self._chances:
            self._chances[name] = Random(f"{self.seed}/{name}")
        return self._chances[name]

    def wall(self, host: Host) -> float:
        """What the wall clock of a host shows."""
        return BEGINS + host.wall()

    def tell(self, host: Host, kind: str, text: str, peer: str = "") -> None:
        """Something that people read."""
        self.log.tell(Event(self.timeline.now, host.name, kind, text, peer))

    def delivered(self, host: Host, data: bytes) -> None:
        """Bytes have come to a host."""
        self.log.bytes(self.timeline.now, host.index, data)
        self.moments.now(host.reactor, "before:frame")

    def taken(self, host: Host) -> None:
        """A host has taken the bytes that came."""
        self.moments.now(host.reactor, "after:frame")

    def failed(self, host: Host, failure: Failure) -> None:
        """Code of a host has raised where nobody catches it."""
        if isinstance(failure.value, Stopped):
            return
        text = f"{host.name} at {self.now:.6f} s: {described(failure)}"
        text = f"{text}\n{failure.getTraceback(elideFrameworkCode=True)}"
        self.failures.append(text)
        self._raised[text] = failure.type or Exception
        self.log.tell(Event(self.timeline.now, host.name, "failed", described(failure)))

    def wrong(self, host: Host, what: str) -> None:
        """The framework broke a promise of its own."""
        self.failures.append(f"{host.name} at {self.now:.6f} s: {what}.")
        self.tell(host, "failed", what)

    def changed(self, service: str, tables: Iterable[str]) -> None:
        """A change of `tables` was committed by a service: what must always hold is looked at after this turn."""
        for table in tables:
            self._changes[service, table] += 1
        self._unchecked = True

    def changes(self, service: str = "", *tables: str) -> int:
        """A number that is another one once a commit of a service has changed one of these tables of its database.

        Without a service: once any commit has changed anything.
        """
        if not service:
            return self._changes.total()
        return sum(self._changes[service, table] for table in (*tables, ""))  # "": by a statement that does not tell

    def fired(self, point: str) -> None:
        """Something improbable has happened."""
        self.points[point] += 1

    # -- driving

    def _drive(self, predicate: Callable[[], object], timeout: float, what: str) -> None:
        end = self.timeline.now + timeout
        with self.driving():
            while not predicate():
                if not self._turn(end):
                    self.timeline.now = max(self.timeline.now, end)
                    raise Stuck(
                        f"{what}: not within {timeout:g} virtual seconds, at {self.now:.3f} s.\n{self._recent()}"
                    )
        self._check()

    def _turn(self, until: float) -> bool:
        """Let the next thing happen; False when there is none before `until`."""
        timer = self.timeline.next(until)
        if timer is None:
            return False
        owner = timer.owner
        host = owner.host
        if not owner.alive:
            owner.keep(timer)
            return True
        if host.paused and owner is not host:  # what the network brings is its kernel's
            self.timeline.postpone(timer)
            host.backlog.append(timer)
            return True
        function, args, kwargs = timer.take()
        self.log.turn(self.timeline.now, host.index, getattr(function, "__qualname__", type(function).__name__))
        self.current = owner if owner is not host else host.reactor
        try:
            # A copy: what a turn sets is gone with it, and in a turn a test may drive the world on.
            self._context.copy().run(function, *args, **kwargs)
        except Stopped:
            pass
        except Exception:
            self.failed(host, Failure())
        self.current = self.hosts[OUTSIDE].reactor
        if self.timeline.fired % self._sweep == 0:
            gc.collect()
        if self._unchecked and self._invariants:
            self._check()
        return True

    def _improbable(self, point: str) -> bool:
        """Whether a point in the product's code fires: a quarter of them may, and then every fourth time."""
        if self._buggify is None:
            return False
        if point not in self.buggified:
            self.buggified[point] = 0.25 if Random(f"{self.seed}/{point}").random() < 0.25 else 0.0
            self.points[point] += 0
        fires = self._buggify.random() < self.buggified[point]
        if fires:
            self.points[point] += 1
        return fires

    def _check(self) -> None:
        self._unchecked = False
        if self._checking:
            return  # an invariant that drives the world to look at something
        self._checking = True
        try:
            for function in self._invariants:
                try:
                    function(self)
                except AssertionError as error:
                    self.log.tell(Event(self.timeline.now, "", "broken", f"{_name(function)}: {error}"))
                    raise
        finally:
            self._checking = False

    @contextmanager
    def driving(self) -> Iterator[None]:
        """As long as this lasts the guards are up, and garbage is collected by turns alone; may be nested."""
        if self._closed:
            raise RuntimeError("This World is closed.")
        if self._driven:
            yield
            return
        self._driven = True
        collecting, hear = gc.isenabled(), cast(Any, self._hear)
        self.current = self.hosts[OUTSIDE].reactor
        gc.disable()
        globalLogPublisher.addObserver(hear)
        try:
            with self._guards.up(), deciding(self._improbable):
                yield
        finally:
            self._driven = False
            globalLogPublisher.removeObserver(hear)
            if collecting:
                gc.enable()

    def _hear(self, event: Any) -> None:
        failure = event.get("log_failure") or (event.get("isError") and event.get("failure"))
        if isinstance(failure, Failure):
            self.failed(self.current.host, failure)

    def _recent(self) -> str:
        return "\n".join(
            f"  {event.at:10.3f}  {event.host:20} {event.kind:8} {event.text} {event.peer}"
            for event in list(self.log.events)[-20:]
        )

    # -- what the guards answer

    def _wall_here(self) -> float:
        return self.wall(self.current.host)

    def _monotonic_here(self) -> float:
        return float(self.current.host.seconds())

    def _cooperator(self) -> Cooperator:
        reactor = self.current
        if reactor not in self._cooperators:
            self._cooperators[reactor] = Cooperator(
                terminationPredicateFactory=lambda: lambda: True,  # one step a turn
                scheduler=lambda function: reactor.callLater(0, function),
            )
        return self._cooperators[reactor]


def described(failure: Failure) -> str:
    """A failure in one line."""
    return f"{type(failure.value).__name__}: {failure.getErrorMessage()}"


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
