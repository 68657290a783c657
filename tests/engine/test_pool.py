"""Facts about a pool's limit: who waits for a connection gets one, or leaves the queue without a trace."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure

from ropewalk.engine.limits import IDLE
from ropewalk.engine.pool import Origin, Pool

SERVER = Origin("http", "127.0.0.1", 8000)


class Far:
    """A pool of one connection at a time, and the server's end of what it begins."""

    def __init__(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.pool = Pool(self.reactor, limit=1)

    def ask(self) -> tuple[Deferred[Any], list[Any]]:
        """What is waited for, and what became of it."""
        heard: list[Any] = []
        asked = self.pool.connect(SERVER)
        asked.addBoth(lambda result: heard.append(result.type if isinstance(result, Failure) else result))
        return asked, heard

    @property
    def begun(self) -> int:
        """Connections, so far."""
        return len(self.reactor.tcpClients)

    def accept(self) -> Any:
        """Let the connection come that was begun last."""
        wire = StringTransportWithDisconnection()
        wire.protocol = self.reactor.tcpClients[-1][2].buildProtocol(None)
        wire.protocol.makeConnection(wire)
        return wire

    def refuse(self) -> None:
        """It does not."""
        self.reactor.tcpClients[-1][2].clientConnectionFailed(
            self.reactor.connectors[-1], Failure(ConnectionRefusedError())
        )

    def closed(self) -> bool:
        """Whether a pool that is closed now has an end."""
        ends: list[None] = []
        self.pool.close().addCallback(ends.append)
        return ends == [None]


@pytest.fixture
def far():
    return Far()


def test_beyond_the_limit_a_call_waits_for_a_connection_that_is_free(far):
    _, first = far.ask()
    far.accept()
    _, second = far.ask()
    waits = list(second)

    far.pool.give_back(first[0])

    assert (1, [], first) == (far.begun, waits, second)


def test_who_waits_gets_a_new_connection_when_one_has_ended(far):
    far.ask()
    wire = far.accept()
    _, second = far.ask()

    wire.loseConnection()
    far.accept()

    assert (2, 1) == (far.begun, len(second))


def test_who_gives_up_waiting_leaves_its_turn_to_the_next(far):
    _, first = far.ask()
    far.accept()
    second, given_up = far.ask()
    _, third = far.ask()

    second.cancel()
    far.pool.give_back(first[0])

    assert ([CancelledError], first) == (given_up, third)


def test_who_gives_up_while_its_own_connection_is_on_its_way_ends_it(far):
    far.ask()
    wire = far.accept()
    second, given_up = far.ask()
    wire.loseConnection()
    begun = far.begun

    second.cancel()

    assert (2, [ConnectingCancelledError]) == (begun, given_up)
    assert [True] == [connector.stoppedConnecting for connector in far.reactor.connectors[1:]]


def test_after_that_the_next_one_has_its_turn_and_the_pool_ends(far):
    far.ask()
    wire = far.accept()
    second, _ = far.ask()
    _, third = far.ask()
    wire.loseConnection()

    second.cancel()
    last = far.accept()
    served = len(third)
    last.loseConnection()

    assert (3, 1, True) == (far.begun, served, far.closed())


def test_a_connection_that_fails_fails_one_call_and_the_next_has_its_turn(far):
    far.ask()
    wire = far.accept()
    _, second = far.ask()
    _, third = far.ask()
    wire.loseConnection()

    far.refuse()
    far.accept()

    assert ([ConnectionRefusedError], 1) == (second, len(third))


def test_of_a_server_it_is_done_with_it_keeps_nothing(far):
    _, first = far.ask()
    wire = far.accept()
    far.ask()
    third, _ = far.ask()
    third.cancel()
    wire.loseConnection()
    far.accept()
    far.pool.give_back(next(iter(far.pool._channels)))
    far.reactor.advance(IDLE + 1)

    kept = {name: value for name, value in vars(far.pool).items() if isinstance(value, dict) and value}
    assert ({}, 1) == (kept, len(first))


# -- a crowd at once


@pytest.fixture
def crowd(monkeypatch):
    monkeypatch.setattr("ropewalk.engine.pool.ON_THEIR_WAY", 2)
    far = Far()
    far.pool = Pool(far.reactor)
    return far


def test_only_so_many_connections_are_on_their_way_at_one_time(crowd):
    heard = [crowd.ask()[1] for _ in range(5)]

    assert (2, [[]] * 5) == (crowd.begun, heard)


def test_when_one_has_come_the_next_begins(crowd):
    heard = [crowd.ask()[1] for _ in range(5)]

    for _ in range(4):
        crowd.accept()

    assert (5, [0, 1, 1, 1, 1]) == (crowd.begun, sorted(map(len, heard)))


def test_when_one_has_failed_the_next_begins(crowd):
    _, first = crowd.ask()
    _, second = crowd.ask()
    _, third = crowd.ask()

    crowd.refuse()

    assert (3, [], [ConnectionRefusedError], []) == (crowd.begun, first, second, third)


def test_one_that_became_free_meanwhile_is_taken_by_who_waits(crowd):
    _, first = crowd.ask()
    crowd.ask()
    crowd.accept()
    crowd.ask()
    _, waits = crowd.ask()
    channel = next(iter(crowd.pool._channels))

    crowd.pool.give_back(channel)

    assert ([channel], 3) == (waits, crowd.begun)
