"""One driver runs every operation: inside, Deferreds and asyncio awaitables are awaited alike, on every reactor.

* `Driver(reactor).run(coroutine)` is the door from Twisted: it answers with a Deferred.
* `Run` steps one coroutine. To asyncio it is the current task, so `asyncio.timeout`, `TaskGroup`, `gather` and locks
  work on it; what it spawns are Runs too. A coroutine that never suspends is finished when `start` returns.
* On Twisted's asyncio reactor it runs on the real loop, on any other on a `ReactorLoop`.

Cancellation has one meaning inside: `asyncio.CancelledError` at the await, whatever was awaited there; a Deferred that
is waited for is cancelled first. Outside, the Deferred of `run` fails with Twisted's `CancelledError`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import tasks
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .reactor_loop import ReactorLoop, enter, here, leave

T = TypeVar("T")
_log = Logger("ropewalk.driver")

if sys.version_info >= (3, 12):
    _swap_current_task = tasks._swap_current_task  # type: ignore[attr-defined]
else:
    _current_tasks: dict[asyncio.AbstractEventLoop, Any] = tasks._current_tasks  # type: ignore[attr-defined]

    def _swap_current_task(loop: asyncio.AbstractEventLoop, task: Any) -> Any:
        outer = _current_tasks.get(loop)
        if task is None:
            del _current_tasks[loop]
        else:
            _current_tasks[loop] = task
        return outer


class Run(Generic[T]):
    """One coroutine being driven. To asyncio it is the task that is current inside; to its owner, what it answered.

    Not a Future: most operations never suspend, and a Future costs as much as all the rest. `Spawned` is one.
    """

    # What most runs never change costs them nothing here.
    _name: str | None = None
    _waiting: Any = None  # the Deferred or Future the coroutine is suspended on
    _must_cancel = False
    _cancels = 0
    _shares_context = False
    _ended = False
    value: Any = None  # what it answered, once it has
    _error: BaseException | None = None
    on_wait: Callable[[], None] | None = None  # called before it waits, each time: who is within it may set it a while

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        done: Callable[[Run[T]], object] | None = None,
    ) -> None:
        """`done` is called synchronously with this Run at its end; without one, a failure goes to the log."""
        self._coroutine = coroutine
        self._loop = loop
        self._context = context
        self._done = done

    def start(self) -> Run[T]:
        """Take the first step now. Call once."""
        self._context.run(self._step, None, None)
        return self

    # -- what its owner asks, as of a Future

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._ended

    @property
    def failed(self) -> bool:
        """Whether it ended, and did not answer."""
        return self._error is not None

    def cancelled(self) -> bool:
        """Whether it ended by being cancelled."""
        return isinstance(self._error, asyncio.CancelledError)

    def exception(self) -> BaseException | None:
        """What was raised, None when it answered; raises CancelledError, or InvalidStateError before the end."""
        if not self._ended:
            raise asyncio.InvalidStateError(f"{self.get_name()} has not ended yet.")
        if self.cancelled():
            raise asyncio.CancelledError
        return self._error

    def result(self) -> T:
        """What it answered; raises what was raised."""
        error = self.exception()
        if error is not None:
            raise error
        return cast(T, self.value)

    def add_done_callback(self, fn: Callable[[Run[T]], object], *, context: contextvars.Context | None = None) -> None:
        """Call `fn` with this Run in the turn after its end."""
        before = self._done
        if self._ended:
            self._loop.call_soon(fn, self, context=context)
            return

        def done(run: Run[T]) -> None:
            self._loop.call_soon(fn, run, context=context)
            if before is not None:
                before(run)

        self._done = done

    # -- what asyncio asks of its current task

    def cancel(self, msg: Any = None) -> bool:
        """Ask the coroutine to stop: it meets `CancelledError` at its await, in a later turn; False if it has ended.

        Never at once: `asyncio.timeout` marks itself expired only after this returns.
        """
        if self.done():
            return False
        self._cancels += 1
        waiting = self._waiting
        if isinstance(waiting, (Deferred, Once)):
            self._must_cancel = True
            self._loop.call_soon(self._interrupt_waiting)
        elif waiting is None or not waiting.cancel(msg):
            self._must_cancel = True
        return True

    def interrupt(self) -> None:
        """Cancel as cancelling a Deferred does: if it waits for one, cleanup begins before this returns."""
        if isinstance(self._waiting, (Deferred, Once)) and not self.done():
            self._cancels += 1
            self._must_cancel = True
            self._waiting.cancel()
        else:
            self.cancel()

    def cancelling(self) -> int:
        """How many cancellations were asked for and not taken back."""
        return self._cancels

    def uncancel(self) -> int:
        """Take one cancellation back; the number that remain."""
        self._cancels = max(0, self._cancels - 1)
        if not self._cancels:
            self._must_cancel = False
        return self._cancels

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on."""
        return self._loop

    def get_coro(self) -> Coroutine[Any, Any, T]:
        """The coroutine that is driven."""
        return self._coroutine

    def get_context(self) -> contextvars.Context:
        """The contextvars.Context every step runs in."""
        return self._context

    def get_name(self) -> str:
        """A name for people."""
        return self._name or str(getattr(self._coroutine, "__qualname__", "run"))

    def set_name(self, value: object) -> None:
        """Change the name for people."""
        self._name = str(value)

    @property
    def _fut_waiter(self) -> asyncio.Future[Any] | None:
        """What asyncio's own tasks have, and anyio reads before it cancels one."""
        return self._waiting if isinstance(self._waiting, asyncio.Future) else None

    # -- stepping

    def _interrupt_waiting(self) -> None:
        if self._must_cancel and isinstance(self._waiting, (Deferred, Once)):
            self._waiting.cancel()

    def _step(self, value: Any, error: BaseException | None) -> None:
        # Runs in self._context.
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, asyncio.CancelledError):
                error = asyncio.CancelledError()
        self._waiting = None
        loop = self._loop
        # To ask asyncio whether it is the running one costs a system call before Python 3.12.
        enters = here.loops > 0 or not loop.is_running() or type(loop) is ReactorLoop
        outer_loop = enter(loop) if enters else None
        outer_task = _swap_current_task(loop, self)
        try:
            if error is None:
                awaited = self._coroutine.send(value)
            else:
                awaited = self._coroutine.throw(error)
        except StopIteration as stop:
            value, error = stop.value, None
        except (KeyboardInterrupt, SystemExit) as raised:
            self._end(None, raised)
            raise
        except BaseException as raised:
            # Its traceback begins where the coroutine's own frames do.
            error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
        else:
            self._suspend(awaited)
            return
        finally:
            _swap_current_task(loop, outer_task)
            if enters:
                leave(loop, outer_loop)
        if self._must_cancel and error is None:  # asked for in the last step: there was no await left to meet it at
            error = asyncio.CancelledError()
        self._end(value, error)
        # An error keeps the coroutine's frames and, from Python 3.12 on, their callers': this must not keep the error.
        del error

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._ended = True
        self.value = value
        self._error = error
        done = self._done
        if done is not None:
            self._done = None
            done(self)
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            _log.failure("Nobody was there to hear how {name} failed.", _failure(error), name=self.get_name())

    def _suspend(self, awaited: Any) -> None:
        if self.on_wait is not None:
            self.on_wait()
        if type(awaited) is Once or isinstance(awaited, Deferred):
            if isinstance(awaited, Once):
                awaited.run = self
            else:
                awaited.addBoth(self._deferred_fired)
            self._waiting = awaited
            if self._must_cancel:
                self._loop.call_soon(self._interrupt_waiting)
        elif getattr(awaited, "_asyncio_future_blocking", None):
            awaited._asyncio_future_blocking = False
            self._waiting = awaited
            awaited.add_done_callback(self._future_done, context=self._context)
            if self._must_cancel and awaited.cancel():
                self._must_cancel = False
        elif awaited is None:  # a bare yield, as in asyncio.sleep(0)
            self._loop.call_soon(self._step, None, None, context=self._context)
        else:
            wrong = TypeError(
                "An operation awaits Deferreds, coroutines and asyncio awaitables; "
                f"{self.get_name()} awaited {awaited!r}."
            )
            self._loop.call_soon(self._step, None, wrong, context=self._context)

    def _deferred_fired(self, result: Any) -> Any:
        value: Any = result
        error: BaseException | None = None
        if isinstance(result, Failure):
            value, error = None, cast(BaseException, result.value)
            if result.tb is not None:  # a cleaned failure has none, and its exception keeps what it has
                error = error.with_traceback(result.tb)
        if self._waiting is None or self._shares_context:
            # Fired in the step that awaited it, or perhaps by a Run whose context is also this one's: not within that.
            self._loop.call_soon(self._step, value, error, context=self._context)
            return value  # which the Deferred keeps until then: its iterator looks there
        self._context.run(self._step, value, error)
        del result, error  # as in _step
        return None

    def go_on(self) -> None:
        """What it waits for is there: a Once calls this."""
        if self._shares_context:  # perhaps with the Run in which that became so: not within that
            self._loop.call_soon(self._step, None, None, context=self._context)
        else:
            self._context.run(self._step, None, None)

    def _future_done(self, future: asyncio.Future[Any]) -> None:
        try:
            error = future.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        self._step(None, error)
        del error  # as in _step


class Once(Generic[T]):
    """What one Run waits for: a Deferred without callbacks, where each request has one. The first end counts."""

    __slots__ = ("_error", "_value", "done", "run")

    def __init__(self) -> None:
        self.done = False
        self.run: Run[Any] | None = None  # who waits
        self._value: T | None = None
        self._error: BaseException | None = None

    def fire(self, value: T) -> None:
        """It is there."""
        if not self.done:
            self._value = value
            self._end()

    def fail(self, error: BaseException) -> None:
        """It never will be."""
        if not self.done:
            self._error = error
            self._end()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.fail(asyncio.CancelledError())

    def __await__(self) -> Generator[Any, Any, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def _end(self) -> None:
        self.done = True
        run, self.run = self.run, None
        if run is not None:
            run.go_on()


class Spawned(asyncio.Future[T], Run[T]):  # type: ignore[override]  # a Future's `_loop` is read-only, and set by it
    """A Run that `asyncio.create_task` made: a Future too, for `TaskGroup`, `gather` and whoever awaits it."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
        name: str | None,
    ) -> None:
        """Starts in the next turn, as asyncio's tasks do."""
        asyncio.Future.__init__(self, loop=loop)
        self._coroutine = coroutine
        self._shares_context = context is not None
        self._context = contextvars.copy_context() if context is None else context
        self._name = name
        loop.call_soon(self._step, None, None, context=self._context)

    def cancel(self, msg: Any = None) -> bool:
        """Ask the coroutine to stop; see `Run.cancel`."""
        return Run.cancel(self, msg)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            asyncio.Future.cancel(self)
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)


class Driver:
    """Runs coroutines on one reactor. Use `Driver.of(reactor)`: there is one for each."""

    def __init__(self, reactor: IReactorTime) -> None:
        self.loop: asyncio.AbstractEventLoop = getattr(reactor, "_asyncioEventloop", None) or _loop_of(reactor)
        if not isinstance(self.loop, ReactorLoop):
            _accept_deferreds(self.loop)

    @classmethod
    def of(cls, reactor: IReactorTime | None = None) -> Driver:
        """The driver of `reactor`; without one, of the loop that is running here, else of the installed reactor."""
        if reactor is None:
            task = current_run()
            if task is not None:
                return _of_loop(task.get_loop())
            from twisted.internet import reactor as installed

            reactor = cast(IReactorTime, installed)
        # Kept by the reactor itself, and gone with it: a simulated world has one of its own.
        driver: Driver | None = getattr(reactor, "_ropewalk_driver", None)
        if driver is None:
            driver = cast(Any, reactor)._ropewalk_driver = cls(reactor)
        return driver

    def start(
        self,
        coroutine: Coroutine[Any, Any, T],
        done: Callable[[Run[T]], object] | None = None,
    ) -> Run[T]:
        """Start driving now. `done` is called with the Run when it ends, maybe before this returns.

        Without `done` a failure goes to the log.
        """
        context = contextvars.copy_context()
        run = Run(coroutine, self.loop, context, done)
        context.run(run._step, None, None)
        return run

    def run(self, awaitable: Awaitable[T]) -> Deferred[T]:
        """Start driving now; fires with the result or fails with what was raised. Cancelling it interrupts the run."""
        if isinstance(awaitable, Deferred):
            return awaitable
        deferred: Deferred[T] = Deferred(lambda _: run.interrupt())
        coroutine = awaitable if isinstance(awaitable, Coroutine) else _awaited(awaitable)

        def done(ended: Run[T]) -> None:
            _fire(deferred, ended)
            ended._error = None  # the Deferred has it; kept here as well it would, by its frames, keep itself alive

        run = Run(coroutine, self.loop, contextvars.copy_context(), done)
        run.start()
        return deferred


def current_run(loop: asyncio.AbstractEventLoop | None = None) -> Run[Any] | None:
    """The Run whose step is executing in this thread, None outside of any.

    `loop` is which that will be on: who does not say it pays a system call before Python 3.12.
    """
    try:
        task = asyncio.current_task(loop)
    except RuntimeError:
        return None
    return task if isinstance(task, Run) else None


def from_asyncio(awaitable: Awaitable[T]) -> Deferred[T]:
    """A Deferred of what only runs in a genuine asyncio task (anyio, httpx, asyncpg, ...).

    Fails at once with RuntimeError on a reactor without an asyncio loop of its own; cancelling it cancels the task.
    """
    loop = Driver.of().loop
    if isinstance(loop, ReactorLoop):
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(f"from_asyncio() {ReactorLoop.needs_sockets}")
    task = asyncio.Task(_awaited(awaitable), loop=loop)

    def cancel(_: Deferred[T]) -> None:
        task.cancel()

    deferred: Deferred[T] = Deferred(cancel)
    task.add_done_callback(lambda ended: _fire(deferred, ended))
    return deferred


async def settled(*awaitables: Awaitable[Any]) -> list[Any]:
    """Await all of them at the same time; what each answered, in order, an exception in the place of one that raised.

    Cancelled, it cancels them all and waits for their end.

    >>> async def both(a, b):
    ...     stock, price = await settled(a.stock(3), b.price(3))
    ...     return stock, (None if isinstance(price, Exception) else price)
    """
    return await asyncio.gather(*(_awaited(awaitable) for awaitable in awaitables), return_exceptions=True)


def wait(awaitable: Awaitable[T]) -> T:
    """Block this thread until `awaitable` is done on the reactor: for WSGI applications and work given to a thread.

    Raises what it raises, and RuntimeError in the reactor's own thread, where it would wait for ever.
    """
    from twisted.internet import reactor, threads
    from twisted.python.threadable import isInIOThread

    if isInIOThread():
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("wait() blocks, and this is the reactor's thread: use `await` here.")
    context = contextvars.copy_context()

    def start() -> Deferred[T]:
        return context.run(Driver.of(cast(IReactorTime, reactor)).run, awaitable)

    return cast(T, threads.blockingCallFromThread(cast(Any, reactor), cast(Any, start)))


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _fire(deferred: Deferred[T], ended: Run[T] | asyncio.Future[T]) -> None:
    error = defer.CancelledError() if ended.cancelled() else ended.exception()
    if deferred.called:  # cancelled, and its owner has gone on: only a failure of the cleanup is still news
        if error is not None and not isinstance(error, defer.CancelledError):
            _log.failure("A cancelled run failed while it ended.", _failure(error))
    elif error is None:
        deferred.callback(ended.result())
    else:
        deferred.errback(_failure(error))


def _failure(error: BaseException) -> Failure:
    return Failure(error, type(error), error.__traceback__)


def _loop_of(reactor: IReactorTime) -> ReactorLoop:
    return ReactorLoop(reactor, Spawned)  # type: ignore[abstract]  # what it refuses is filled in beside it


def _of_loop(loop: asyncio.AbstractEventLoop) -> Driver:
    driver = Driver.__new__(Driver)
    driver.loop = loop
    return driver


def _accept_deferreds(loop: asyncio.AbstractEventLoop) -> None:
    """Let what a Run spawns be a Run, so that in `TaskGroup`, `gather` and `wait_for` Deferreds can be awaited too."""
    make_other = loop.get_task_factory() or _task

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if isinstance(tasks.current_task(loop), Run):
            return Spawned(coroutine, loop, options.get("context"), options.get("name"))
        return make_other(loop, coroutine, **options)

    loop.set_task_factory(make)


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)
