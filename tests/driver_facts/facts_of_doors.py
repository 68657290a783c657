"""The doors: `settled`, `wait` and `from_asyncio`."""

from __future__ import annotations

import asyncio
from typing import Any

from telling import (
    Never,
    answered,
    as_request,
    called,
    driver,
    fact,
    fact_on,
    here,
    in_task_group,
    later,
    raised_by,
    timed,
)
from twisted.internet.defer import Deferred

from ropewalk import from_asyncio, settled, wait


@fact
async def settled_gives_each_answer_or_exception_in_order():
    async def fails():
        await later()
        raise KeyError("room")

    answers = await settled(later(1), fails(), asyncio.sleep(0.001, 3), answered(4))

    assert [repr(each) for each in answers] == ["1", "KeyError('room')", "3", "4"]
    assert await settled() == []


@fact
async def settled_asks_all_at_the_same_time():
    began = []

    async def asks(n):
        began.append(n)
        await Never().deferred

    run = driver().run(settled(asks(1), asks(2), asks(3)))
    await asyncio.sleep(0.002)
    run.cancel()
    await raised_by(run)

    assert began == [1, 2, 3]


@fact
async def settled_cancelled_cancels_them_all_and_waits_for_their_end():
    never, begun, ended = [Never(), Never()], [], []

    async def asks(deferred):
        begun.append(deferred)
        try:
            await deferred
        finally:
            await later()
            ended.append("cleaned up")

    task = asyncio.ensure_future(settled(*(asks(each.deferred) for each in never)))
    while len(begun) < 2:
        await asyncio.sleep(0)
    task.cancel()

    assert type(await raised_by(task)) is asyncio.CancelledError
    assert ([each.cancelled for each in never], ended) == ([True, True], ["cleaned up"] * 2)


@fact
async def a_thread_can_wait_for_a_coroutine_and_for_a_deferred():
    async def fails():
        await later()
        raise KeyError("room")

    assert await asyncio.to_thread(lambda: wait(in_task_group(5))) == 5
    assert repr(await raised_by(asyncio.to_thread(lambda: wait(fails())))) == "KeyError('room')"


@fact
async def the_reactors_own_thread_is_not_let_wait():
    error = await raised_by(called(lambda: wait(answered(1))))

    assert isinstance(error, RuntimeError)
    assert str(error) == "wait() blocks, and this is the reactor's thread: use `await` here."


@fact_on("asyncio", "uvloop")
async def from_asyncio_runs_what_needs_a_genuine_task():
    import anyio

    mine = as_request("asker")

    async def foreign():
        assert isinstance(asyncio.current_task(), asyncio.Task)
        seen = []
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
            with anyio.move_on_after(0.005) as scope:
                await anyio.sleep_forever()
            seen.append(scope.cancelled_caught)
        return seen, here()

    assert await from_asyncio(foreign()) == ([True], mine)
    assert here() == mine


@fact_on("asyncio", "uvloop")
async def from_asyncio_hands_errors_and_cancellation_over():
    seen = []

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("room")

    async def endless():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    assert repr(await raised_by(from_asyncio(fails()))) == "KeyError('room')"
    assert type(await raised_by(timed(0.002, from_asyncio(endless())))) is TimeoutError
    await asyncio.sleep(0.002)
    assert seen == ["cancelled"]


@fact_on("asyncio", "uvloop")
async def streams_of_asyncio_work_inside_an_operation():
    async def greet(reader, writer):
        writer.write(b"hello " + await reader.readline())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"host\n")

    assert await reader.read() == b"hello host\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@fact_on("asyncio", "uvloop")
def what_asyncio_itself_starts_stays_a_task_of_its_own():
    loop = driver().loop

    async def foreign():
        return type(asyncio.current_task()), await asyncio.create_task(child())

    async def child():
        return type(asyncio.current_task())

    def check(types: Any) -> None:
        assert types == (asyncio.Task, asyncio.Task), types

    return Deferred.fromFuture(loop.create_task(foreign(), name="theirs")).addCallback(check)


@fact_on("epoll")
async def from_asyncio_is_refused_and_the_refusal_says_what_to_do():
    error = await raised_by(called(lambda: from_asyncio(answered(1))))

    assert isinstance(error, RuntimeError)
    assert str(error) == (
        "from_asyncio() needs an asyncio loop with sockets, which this reactor has not: start the process under "
        "`twistd -n ropewalk`, `twistd --reactor=asyncio` or after ropewalk.engine.install()."
    )


@fact_on("epoll")
async def sockets_of_asyncio_are_refused_and_the_refusal_says_what_to_do():
    error = await raised_by(asyncio.open_connection("127.0.0.1", 1))

    assert isinstance(error, RuntimeError)
    assert str(error).startswith("loop.create_connection() needs an asyncio loop with sockets"), error
