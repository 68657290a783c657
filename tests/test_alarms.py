"""An alarm rings at its time and not before, however many share a timer; one that is cancelled leaves nothing."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from ropewalk.alarms import GRAIN, Alarm, Alarms
from ropewalk.driver import Driver


class Bell(Alarm):
    """Notes when it rang."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rang: list[float] = []

    def ring(self) -> None:
        self.rang.append(self.clock.seconds())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alarms(clock: Clock) -> Alarms:
    return Alarms(Driver.of(clock).loop)


@pytest.mark.parametrize("delay", [0.0, 0.2, GRAIN, 0.99, 1.0, 1.2, 1.5, 10.0, 10.1])
def test_an_alarm_rings_at_its_time_and_not_before(clock, alarms, delay):
    clock.advance(0.3)
    bell = Bell(clock)

    alarms.set(bell, delay)
    clock.pump([0.01] * 1100)

    (rang,) = bell.rang
    assert -1e-9 <= rang - (0.3 + delay) < 0.011
    assert clock.getDelayedCalls() == []


def test_those_of_one_half_second_share_a_timer_and_each_rings_in_its_turn(clock, alarms):
    bells = [Bell(clock) for _ in range(100)]
    for number, bell in enumerate(bells):
        alarms.set(bell, 5.0 + number / 1000)
    assert len(clock.getDelayedCalls()) == 1

    while clock.getDelayedCalls():
        clock.advance(0.001)

    assert [5.0 + number / 1000 for number in range(100)] == [pytest.approx(bell.rang[0], abs=0.0011) for bell in bells]


def test_of_cancelled_ones_nothing_is_left(clock, alarms):
    bells = [Bell(clock) for _ in range(3)]
    for bell in bells:
        alarms.set(bell, 5.0)

    for bell in bells:
        bell.cancel()

    assert clock.getDelayedCalls() == []
    clock.advance(10)
    assert [bell.rang for bell in bells] == [[], [], []]


@pytest.mark.parametrize("elapsed", [0.1, 4.6, 4.99])
def test_one_that_is_cancelled_does_not_ring_and_the_others_do(clock, alarms, elapsed):
    cancelled, other = Bell(clock), Bell(clock)
    alarms.set(cancelled, 5.0)
    alarms.set(other, 5.0)
    clock.advance(elapsed)

    cancelled.cancel()
    clock.advance(1)
    clock.advance(10)

    assert (cancelled.rang, len(other.rang)) == ([], 1)


def test_to_cancel_one_that_has_rung_changes_nothing(clock, alarms):
    bell = Bell(clock)
    alarms.set(bell, 0.5)
    clock.advance(1)

    bell.cancel()

    assert (len(bell.rang), clock.getDelayedCalls()) == (1, [])
