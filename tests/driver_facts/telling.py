"""What the facts are told with: the book they are written in, and everything an operation may await.

A fact is an `async def`, which is run as an operation is, or a plain function, which is called from the reactor as any
callback is and may return a Deferred. A failure that it leaves in the log makes it untrue, too.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from ropewalk import current_context, settled
from ropewalk.context import Context, enter_context
from ropewalk.driver import Driver

REACTORS = ("epoll", "asyncio", "uvloop")
FACTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {}  # sentence -> (function, the reactors it speaks of)


def fact(function: Callable[..., Any]) -> Callable[..., Any]:
    FACTS[function.__name__.replace("_", " ")] = (function, REACTORS)
    return function


def fact_on(*reactors: str) -> Callable[..., Any]:
    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        FACTS[function.__name__.replace("_", " ")] = (function, reactors)
        return function

    return note


def fact_of_each(table: dict[str, Any]) -> Callable[..., Any]:
    """One fact for each line of `table`, whose value the function gets."""

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, value in table.items():
            FACTS[f"{function.__name__.replace('_', ' ')}: {name}"] = (lambda v=value: function(v), REACTORS)
        return function

    return note


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def driver() -> Driver:
    return Driver.of(the_reactor())


def later(value: Any = None, seconds: float = 0.001) -> Deferred[Any]:
    """Fires with `value`, or fails with it when it is an exception, in a little while."""
    deferred: Deferred[Any] = Deferred()
    fire = deferred.errback if isinstance(value, BaseException) else deferred.callback
    timer = the_reactor().callLater(seconds, lambda: deferred.called or fire(value))
    return deferred.addBoth(lambda result: (timer.active() and timer.cancel(), result)[1])


async def raised_by(awaitable: Awaitable[Any]) -> BaseException:
    try:
        answer = await awaitable
    except BaseException as error:
        return error
    raise AssertionError(f"nothing was raised; it answered {answer!r}")


def functions_in(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


class Never:
    """A Deferred nobody fires; it notes that it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True


async def answered(value: Any) -> Any:
    return value


async def called(function: Callable[[], Any]) -> Any:
    return function()


@inlineCallbacks
def by_inline_callbacks(value: Any) -> Any:
    return (yield later(value))


async def in_twisted(value: Any) -> Any:
    return await later(value)


async def in_task_group(value: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(in_twisted(value))
    return task.result()


async def timed(seconds: float, awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def by_queue(value: Any) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    the_reactor().callLater(0, queue.put_nowait, value)
    return await queue.get()


async def by_event(value: Any) -> Any:
    event = asyncio.Event()
    the_reactor().callLater(0, event.set)
    await event.wait()
    return value


async def by_lock(value: Any) -> Any:
    lock = asyncio.Lock()
    await lock.acquire()
    the_reactor().callLater(0, lock.release)
    async with lock:
        return value


async def by_as_completed(value: Any) -> Any:
    (first,) = asyncio.as_completed([in_twisted(value)])
    return await first


async def by_wait(value: Any) -> Any:
    task = asyncio.ensure_future(in_twisted(value))
    done, _ = await asyncio.wait([task])
    return done.pop().result()


async def by_generator(value: Any) -> Any:
    async def generate() -> Any:
        yield await later(None)
        yield await asyncio.sleep(0.001, value)

    return [each async for each in generate()][-1]


async def by_settled(value: Any) -> Any:
    return (await settled(later(value), answered(1)))[0]


async def by_gather(value: Any) -> Any:
    return (await asyncio.gather(answered(1), later(value), asyncio.sleep(0.001)))[1]


async def by_future(value: Any) -> Any:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(0.001, future.set_result, value)
    return await future


# Everything an operation may await, each suspending at least once: what -> value -> an awaitable of that value.
AWAITS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "a Deferred": later,
    "a Deferred that waits for another": lambda value: later(None).addCallback(lambda _: later(value)),
    "a coroutine": in_twisted,
    "an inlineCallbacks function": by_inline_callbacks,
    "a coroutine that Twisted drives": lambda value: Deferred.fromCoroutine(in_twisted(value)),
    "another run": lambda value: driver().run(in_twisted(value)),
    "asyncio.sleep": lambda value: asyncio.sleep(0.001, value),
    "asyncio.sleep(0)": lambda value: asyncio.sleep(0, value),
    "a Future": by_future,
    "a task": lambda value: asyncio.ensure_future(in_twisted(value)),
    "a TaskGroup": in_task_group,
    "gather": by_gather,
    "wait_for a Deferred": lambda value: asyncio.wait_for(later(value), 5),
    "wait_for a coroutine": lambda value: asyncio.wait_for(in_twisted(value), 5),
    "shield": lambda value: asyncio.shield(in_twisted(value)),
    "timeout": lambda value: timed(5, later(value)),
    "wait": by_wait,
    "as_completed": by_as_completed,
    "a Queue": by_queue,
    "an Event": by_event,
    "a Lock": by_lock,
    "to_thread": lambda value: asyncio.to_thread(lambda: value),
    "an async generator": by_generator,
    "settled": by_settled,
}

# The same for what does not end by itself: what -> a Deferred that nobody fires -> an awaitable that waits for it, or
# for something else that never comes.
ENDLESS: dict[str, Callable[[Deferred[Any]], Awaitable[Any]]] = {
    "a Deferred": lambda never: never,
    "a Deferred that waits for another": lambda never: later(None, 0).addCallback(lambda _: never),
    "another run": lambda never: driver().run(wrapped(never)),
    "an inlineCallbacks function": lambda never: inlineCallbacks(lambda: (yield never))(),
    "a coroutine that Twisted drives": lambda never: Deferred.fromCoroutine(wrapped(never)),
    "asyncio.sleep": lambda _: asyncio.sleep(1000),
    "an Event": lambda _: asyncio.Event().wait(),
    "a Queue": lambda _: asyncio.Queue().get(),
    "a Future": lambda _: asyncio.get_running_loop().create_future(),
    "a task": lambda never: asyncio.ensure_future(wrapped(never)),
    "gather": lambda never: asyncio.gather(never, asyncio.sleep(1000)),
    "wait_for": lambda never: asyncio.wait_for(never, 1000),
    "timeout": lambda never: timed(1000, never),
    "a TaskGroup": lambda never: grouped(never),
    "settled": lambda never: settled(never, asyncio.sleep(1000)),
    "an async generator": lambda never: generated(never),
}
WITHOUT_THE_DEFERRED = ("asyncio.sleep", "an Event", "a Queue", "a Future")


async def wrapped(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def grouped(awaitable: Awaitable[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(wrapped(awaitable))


async def generated(awaitable: Awaitable[Any]) -> None:
    async def generate() -> Any:
        yield 1
        await awaitable

    async for _ in generate():
        pass


# -- who it is done for

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def here() -> tuple[str, str]:
    """What a log line would say, and what a plain contextvar says."""
    return current_context().request_id, name.get()


def as_request(request_id: str) -> tuple[str, str]:
    """Become that request, in this run."""
    enter_context(Context(request_id=request_id))
    name.set(f"host of {request_id}")
    return here()


# -- what was left in the log


class Failures:
    """Keeps the failures that were logged until someone takes them."""

    def __init__(self) -> None:
        self.kept: list[Failure] = []

    def __call__(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            self.kept.append(failure)


failures = Failures()


def take_failures() -> list[Failure]:
    gc.collect()
    taken, failures.kept = failures.kept, []
    return taken


def ensure(condition: object, got: object) -> None:
    if not condition:
        raise AssertionError(f"got {got!r}")
