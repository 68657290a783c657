"""Threads and processes for what would block the reactor, bounded, with the caller's context carried along."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 16  # at once; asyncio's own default is cores + 4, and most of this waiting is for I/O
PROCESSES = 2  # at once, and no more than this machine has cores to give
QUEUE = 1000  # calls that wait for a place; the next one is told Unavailable


class Workers:
    """Runs plain functions elsewhere: `await workers.thread(f, ...)`, `await workers.process(f, ...)`."""

    def __init__(self, reactor: Any, threads: int = THREADS, processes: int = PROCESSES, queue: int = QUEUE) -> None:
        """`reactor` for IReactorFromThreads; nothing is started before the first call."""
        self._reactor = reactor
        self._threads = self._thread_pool(threads)
        self._process_count = processes
        self._processes: Executor | None = None
        self._queue = queue
        self._running = 0

    async def thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function(*args, **kwargs)` returns, called in a thread; raises Unavailable when the queue is full.

        Cancelling takes back a call that has not begun; one that has runs to its end and its result is dropped.
        """
        context = contextvars.copy_context()
        run: Callable[[], R] = partial(context.run, partial(function, *args, **kwargs))
        return await self._submit(lambda: self._threads.submit(run))

    async def process(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same in another process: for work on the CPU. Function, arguments and result are pickled."""
        try:
            return await self._submit(lambda: self._pool().submit(partial(function, *args, **kwargs)))
        except BrokenProcessPool as error:
            self._processes = None  # the next call starts a new one
            raise Unavailable(f"A worker process died while it ran {function.__qualname__}.") from error

    async def close(self) -> None:
        """Wait for what runs, drop what waits, end the threads and processes. The last use."""
        pools = [pool for pool in (self._threads, self._processes) if pool is not None]
        done: Deferred[None] = Deferred()

        def shut() -> None:
            for pool in pools:
                pool.shutdown(wait=True, cancel_futures=True)
            self._reactor.callFromThread(done.callback, None)

        self._reactor.callInThread(shut)
        await done

    def statistics(self) -> dict[str, int]:
        """Calls that run or wait, and how many may."""
        return {"running": self._running, "queue": self._queue}

    def _pool(self) -> Executor:
        if self._processes is None:
            self._processes = self._process_pool(self._process_count)
        return self._processes

    def _thread_pool(self, count: int) -> Executor:
        return ThreadPoolExecutor(count, "ropewalk-worker")

    def _process_pool(self, count: int) -> Executor:
        # spawn: a fork of a process with threads and a reactor's sockets is a copy of all its locks.
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def _check_queue(self) -> None:
        if self._running >= self._queue:
            full = Unavailable(f"The workers' queue is full: {self._queue} calls run or wait.")
            full.ran = "no"
            raise full

    async def _submit(self, submit: Callable[[], Future[R]]) -> R:
        self._check_queue()
        self._running += 1
        try:
            future = submit()
            result: Deferred[R] = Deferred(lambda _: _cancel(future))
            future.add_done_callback(lambda ended: self._reactor.callFromThread(_hand_over, ended, result))
            return await result
        finally:
            self._running -= 1


def _end_with_parent() -> None:
    """In a process of the pool: end when the one that uses it is gone, however it went; nobody else would say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=[parent.sentinel], daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _cancel(future: Future[Any]) -> None:
    future.cancel()


def _hand_over(ended: Future[Any], result: Deferred[Any]) -> None:
    if result.called:
        return
    error = asyncio.CancelledError() if ended.cancelled() else ended.exception()
    if error is None:
        result.callback(ended.result())
    else:
        result.errback(Failure(error, type(error), error.__traceback__))
