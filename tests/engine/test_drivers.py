"""Facts about transports beneath a channel: what one turn writes goes together to asyncio's, and nothing waits for more."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from ropewalk.engine.channel import Channel
from ropewalk.engine.drivers import TOGETHER, AsyncioDriver, OfAsyncio, TwistedDriver


class Transport:
    """What asyncio gives; notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.pause_reading = lambda: self.told.append("pause")
        self.resume_reading = lambda: self.told.append("resume")
        self.closing = False

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def within(act: Any) -> tuple[list[Any], list[Any]]:
    """What a transport was told in the turn of `act(together)`, and by the end of it."""
    transport = Transport()

    async def main() -> list[Any]:
        act(OfAsyncio(transport))
        in_it = list(transport.told)
        await asyncio.sleep(0)
        return in_it

    return run(main), transport.told


def run(main: Any, loop_factory: Any = None) -> Any:
    """What becomes of `main()` on a loop of its own, in a thread of its own: that of the tests may run on another."""

    def runs() -> Any:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(runs).result()


def test_what_one_turn_writes_is_written_together_at_its_end():
    def act(together: OfAsyncio) -> None:
        together.write(b"one ")
        together.write(b"two")

    assert ([], [b"one two"]) == within(act)


@pytest.mark.parametrize("end", ["write_eof", "close", "abort"])
def test_whatever_ends_it_comes_behind_what_was_written(end):
    def act(together: OfAsyncio) -> None:
        together.write(b"one")
        getattr(together, end)()

    in_it, by_its_end = within(act)

    assert [b"one", end.removeprefix("write_")] == in_it == by_its_end


def test_one_whose_write_fails_keeps_no_other_waiting():
    class Broken(Transport):
        def write(self, data: bytes) -> None:
            raise OSError("broken")

    transports = [Transport(), Broken(), Broken(), Transport()]
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, said: told.append(str(said["exception"])))
        for transport in transports:
            OfAsyncio(transport).write(b"one")
        for _ in transports:
            await asyncio.sleep(0)

    run(main)

    assert [[b"one"], [], [], [b"one"]] == [each.told for each in transports]
    assert ["broken", "broken"] == told


def test_a_loop_that_has_ended_is_not_kept():
    async def main() -> Any:
        OfAsyncio(Transport()).write(b"one")
        return weakref.ref(asyncio.get_running_loop())

    ended = run(main)
    gc.collect()

    assert ended() is None


def test_what_is_much_does_not_wait():
    whole = b"." * TOGETHER

    assert ([b"one" + whole], [b"one" + whole, b"two"]) == within(
        lambda together: [together.write(each) for each in (b"one", whole, b"two")]
    )


def test_nothing_is_written_to_a_transport_that_closes():
    def act(together: OfAsyncio) -> None:
        together.write(b"one")
        together._asyncio.closing = True

    assert ([], []) == within(act)


def test_whatever_else_a_transport_can_it_still_can():
    found = []

    within(lambda together: found.append(together.get_extra_info("peername")))

    assert ["the peername"] == found


class Echo:
    """A channel that says what it hears."""

    def connection_made(self, transport: Any, peer: str = "") -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())

    def connection_lost(self, error: Exception | None = None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_asks_and_ends_its_side_in_one_turn_is_still_answered(loop):
    uvloop = pytest.importorskip("uvloop") if loop == "uvloop" else None

    async def main() -> bytes:
        running = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        theirs.sendall(b"hello")
        theirs.shutdown(socket.SHUT_WR)  # both are there before anything is read
        await running.connect_accepted_socket(lambda: AsyncioDriver(Echo()), ours)
        heard = b""
        while part := await running.sock_recv(theirs, 100):
            heard += part
        theirs.close()
        return heard

    assert b"HELLO" == run(main, uvloop.new_event_loop if uvloop else None)


def test_a_short_write_to_twisteds_does_not_wait_for_the_peer_to_acknowledge_another(listener):
    class TCP(StringTransport):
        def setTcpNoDelay(self, enabled: bool) -> None:
            noticed.append(enabled)

    noticed: list[bool] = []

    TwistedDriver(Channel(listener.server)).makeConnection(TCP())

    assert [True] == noticed
