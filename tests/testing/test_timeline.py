"""The heap of timers: what comes first, what a timer can still be asked, and that the void ones are swept out."""

from __future__ import annotations

from weakref import ref

import pytest
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ropewalk.testing.timeline import Timeline


class Owner:
    """A clock that shows the timeline's seconds times `rate`."""

    def __init__(self, timeline: Timeline, rate: float = 1.0) -> None:
        self._timeline = timeline
        self._rate = rate

    def seconds(self) -> float:
        return self._timeline.now * self._rate

    def instant(self, delay: float) -> float:
        return self._timeline.now + delay / self._rate

    def shown_at(self, at: float) -> float:
        return at * self._rate


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def owner(timeline: Timeline) -> Owner:
    return Owner(timeline)


def fired(timeline: Timeline, until: float | None = None) -> list[object]:
    """Call what is to happen, in order; what the calls returned."""
    results: list[object] = []
    while timer := timeline.next(until):
        results.append(timer.function(*timer.args, **timer.kwargs))
    return results


def echo(thing: object) -> object:
    return thing


# -- order


def test_timers_fire_in_the_order_of_their_moments(timeline, owner):
    for at in (3.0, 1.0, 2.0):
        timeline.call_at(at, owner, echo, (at,))

    assert [1.0, 2.0, 3.0] == fired(timeline)
    assert 3.0 == timeline.now


def test_of_two_at_one_moment_the_one_asked_for_first_comes_first(timeline, owner):
    for number in range(100):
        timeline.call_at(1.0, owner, echo, (number,))

    assert list(range(100)) == fired(timeline)


def test_what_is_put_off_to_a_moment_comes_after_what_was_there_already(timeline, owner):
    first = timeline.call_at(0.5, owner, echo, ("moved",))
    timeline.call_at(1.0, owner, echo, ("there",))
    first.delay(0.5)

    assert ["there", "moved"] == fired(timeline)


def test_a_moment_that_is_past_is_now_and_time_never_goes_back(timeline, owner):
    timeline.call_at(5.0, owner, echo, ("first",))
    timeline.next()
    timeline.call_at(1.0, owner, echo, ("late",))

    assert ["late"] == fired(timeline)
    assert 5.0 == timeline.now


def test_a_timer_called_for_now_by_one_that_fires_comes_after_all_that_waited_for_that_moment(timeline, owner):
    timeline.call_at(1.0, owner, lambda: timeline.call_at(1.0, owner, echo, ("made",)) and "maker")
    timeline.call_at(1.0, owner, echo, ("waiting",))

    assert ["maker", "waiting", "made"] == fired(timeline)


def test_nothing_is_taken_that_lies_after_until_and_the_time_stays(timeline, owner):
    timeline.call_at(2.0, owner, echo, ("later",))

    assert timeline.next(until=1.999) is None
    assert 0.0 == timeline.now
    assert ["later"] == fired(timeline, until=2.0)


def test_keywords_are_passed_on(timeline, owner):
    timeline.call_at(0.0, owner, dict, (), {"a": 1})

    assert [{"a": 1}] == fired(timeline)


def test_fired_counts_what_was_called_and_nothing_else(timeline, owner):
    timeline.call_at(1.0, owner, echo, (1,))
    timeline.call_at(1.0, owner, echo, (2,)).cancel()
    moved = timeline.call_at(1.0, owner, echo, (3,))
    moved.reset(2.0)

    assert [1, 3] == fired(timeline)
    assert 2 == timeline.fired


# -- one timer


def test_a_timer_is_a_delayed_call(timeline, owner):
    assert verifyObject(IDelayedCall, timeline.call_at(1.0, owner, echo))


def test_a_cancelled_timer_does_not_fire_and_is_not_active(timeline, owner):
    timer = timeline.call_at(1.0, owner, echo, ("never",))
    assert timer.active()

    timer.cancel()

    assert not timer.active()
    assert [] == fired(timeline)


def test_a_timer_is_not_active_while_it_is_called(timeline, owner):
    timers = [timeline.call_at(1.0, owner, lambda: timers[0].active())]

    assert [False] == fired(timeline)


@pytest.mark.parametrize(("verb", "given"), [("cancel", ()), ("reset", (1.0,)), ("delay", (1.0,))])
@pytest.mark.parametrize(("end", "error"), [("called", AlreadyCalled), ("cancelled", AlreadyCancelled)])
def test_one_that_is_over_can_be_asked_nothing_with_twisteds_own_errors(timeline, owner, end, error, verb, given):
    timer = timeline.call_at(1.0, owner, echo, (1,))
    if end == "called":
        timeline.next()
    else:
        timer.cancel()

    with pytest.raises(error):
        getattr(timer, verb)(*given)


def test_reset_counts_from_now(timeline, owner):
    timer = timeline.call_at(1.0, owner, echo, ("timer",))
    timeline.call_at(0.5, owner, timer.reset, (10.0,))

    fired(timeline)

    assert 10.5 == timeline.now


def test_reset_may_bring_it_forward(timeline, owner):
    timer = timeline.call_at(10.0, owner, echo, ("timer",))
    timer.reset(1.0)

    assert ["timer"] == fired(timeline, until=1.0)
    assert [] == fired(timeline)


@pytest.mark.parametrize("seconds", [2.0, -0.25])
def test_delay_counts_from_the_moment_there_was(timeline, owner, seconds):
    timer = timeline.call_at(1.0, owner, echo, ("timer",))
    timer.delay(seconds)

    fired(timeline)

    assert 1.0 + seconds == timeline.now


def test_it_says_when_by_its_owners_clock(timeline, owner):
    timer = timeline.call_at(3.0, owner, echo)
    timeline.call_at(1.0, owner, echo)
    timeline.next()

    assert 3.0 == timer.getTime()


@pytest.mark.parametrize("delays", [(), (1.0,), (5.0, -2.0)])
def test_of_a_clock_that_goes_wrong_it_says_and_does_as_a_real_reactors_timer_on_that_clock(timeline, delays):
    owner, real = Owner(timeline, rate=2.0), Clock()
    timer = timeline.call_at(owner.instant(10.0), owner, echo)
    theirs = real.callLater(10.0, echo, None)
    for seconds in delays:
        timer.delay(seconds)
        theirs.delay(seconds)

    told = timer.getTime()
    timeline.next()

    assert (theirs.getTime(), theirs.getTime()) == (told, owner.seconds())


def test_reset_counts_by_the_owners_clock(timeline):
    owner = Owner(timeline, rate=0.5)
    timer = timeline.call_at(1.0, owner, echo)

    timer.reset(3.0)
    timeline.next()

    assert 6.0 == timeline.now


# -- what is pending, and what lies about


def test_pending_are_the_active_ones_in_order_and_of_one_owner_when_named(timeline, owner):
    other = Owner(timeline)
    second = timeline.call_at(2.0, owner, echo)
    first = timeline.call_at(1.0, other, echo)
    timeline.call_at(1.0, owner, echo).cancel()
    third = timeline.call_at(0.5, owner, echo)
    third.reset(3.0)

    assert [first, second, third] == timeline.pending()
    assert [second, third] == timeline.pending(owner)


def test_void_entries_are_swept_so_that_a_timer_reset_for_ever_takes_no_memory(timeline, owner):
    timer = timeline.call_at(1.0, owner, echo, ("once",))
    for _ in range(10_000):
        timer.reset(1.0)

    assert len(timeline._heap) < 200
    assert ["once"] == fired(timeline)


def test_the_sweep_neither_loses_nor_doubles_nor_reorders(timeline, owner):
    timers = [timeline.call_at(float(number % 7), owner, echo, (number,)) for number in range(1000)]
    for number, timer in enumerate(timers):
        if number % 5:
            timer.cancel()
    kept = sorted(range(0, 1000, 5), key=lambda number: (number % 7, number))

    assert kept == fired(timeline)
    assert [] == timeline.pending()


def test_cancelling_and_moving_in_the_middle_of_firing_keeps_the_order(timeline, owner):
    timers = [timeline.call_at(1.0, owner, echo, (number,)) for number in range(300)]

    def upset() -> str:
        for number, timer in enumerate(timers):
            if number % 3 == 0:
                timer.cancel()
            elif number % 3 == 1:
                timer.reset(5.0)
        return "upset"

    timeline.call_at(0.5, owner, upset)

    moved, stayed = [n for n in range(300) if n % 3 == 1], [n for n in range(300) if n % 3 == 2]
    assert ["upset", *stayed, *moved] == fired(timeline)


@pytest.mark.parametrize("end", [lambda timer: timer.cancel(), lambda timer: timer.take()], ids=["cancelled", "called"])
def test_a_timer_that_is_over_holds_nothing_any_more(timeline, owner, end):
    held = Owner(timeline)
    timer, gone = timeline.call_at(1.0, owner, held.instant, (held,)), ref(held)

    end(timer)
    del held

    assert gone() is None
