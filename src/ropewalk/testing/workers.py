"""What a simulated process has in the place of threads and processes: turns of its reactor, each at a seeded moment.

All else is the runtime's own `Workers`. In a simulation that lets improbable things happen a worker process may die.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NoReturn, ParamSpec, TypeVar

from ..buggify import buggify
from ..runtime.workers import Workers
from .hosts import Reactor

P = ParamSpec("P")
R = TypeVar("R")


class SimulatedWorkers(Workers):
    """Workers of a simulated process."""

    def _thread_pool(self, count: int) -> Executor:
        return Turns(self._reactor)

    def _process_pool(self, count: int) -> Executor:
        return ProcessTurns(self._reactor)


class Turns(Executor):
    """An executor whose functions run whole, in turns of a simulated reactor."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As Executor."""
        future: Future[R] = Future()
        call = partial(function, *args, **kwargs)
        self._reactor.getThreadPool().callInThreadWithCallback(None, self._run, future, call)
        return future

    def _run(self, future: Future[R], call: Callable[[], R]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)


class ProcessTurns(Turns):
    """The same; functions, arguments and results are pickled, and when a process has died the whole pool is broken."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(reactor)
        self._broken = False

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As Executor; raises BrokenProcessPool."""
        if self._broken:
            _die()
        future: Future[R] = super().submit(_elsewhere, pickle.dumps((function, args, kwargs)))
        return future

    def _run(self, future: Future[R], call: Callable[[], R]) -> None:
        self._broken = self._broken or buggify("workers: a process dies")
        super()._run(future, _die if self._broken else call)


def _elsewhere(pickled: bytes) -> Any:
    function, args, kwargs = pickle.loads(pickled)
    return pickle.loads(pickle.dumps(function(*args, **kwargs)))


def _die() -> NoReturn:
    raise BrokenProcessPool("A process of this pool has died.")
