"""What is left of a failing schedule is what the failure needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ropewalk.testing.shrink import shrink
from ropewalk.testing.values import Act, Fault, Late, Schedule

CRASH, RESTART = Fault(10.5, "crash", "payments/1"), Fault(20.25, "restart", "payments/1")


def acts(*numbers: int) -> tuple[Act, ...]:
    return tuple(Act(number + 0.125, "book", number) for number in numbers)


def schedule(acts: tuple[Act, ...] = (), faults: tuple[Fault, ...] = (), seconds: float = 600.0) -> Schedule:
    return Schedule(7, seconds, acts, faults)


def has(needed):
    """Fails whenever all of `needed` are there, exactly as they are."""
    return lambda schedule: set(needed) <= {*schedule.acts, *schedule.faults}


@st.composite
def schedules_and_what_they_need(draw):
    kinds = draw(st.lists(st.sampled_from(["act", "crash", "restart", "partition", "heal"]), max_size=30))
    targets = [draw(st.sampled_from(["payments/1", "payments/2"])) for _ in kinds]
    entries = [
        Act(at + 0.5, "book", at) if kind == "act" else Fault(at + 0.5, kind, target)
        for at, (kind, target) in enumerate(zip(kinds, targets, strict=True))
    ]
    large = schedule(
        tuple(entry for entry in entries if isinstance(entry, Act)),
        tuple(entry for entry in entries if isinstance(entry, Fault)),
    )
    return large, draw(st.sets(st.sampled_from(entries), max_size=5)) if entries else set()


@pytest.mark.slow
@given(schedules_and_what_they_need())
def test_what_exactly_a_failure_needs_is_what_is_left(drawn):
    large, needed = drawn

    small = shrink(large, has(needed))

    assert needed == {*small.acts, *small.faults}
    assert len(needed) == len(small.acts) + len(small.faults)


@pytest.mark.slow
@given(schedules_and_what_they_need(), st.integers(0, 25))
def test_whatever_the_budget_the_result_fails_and_the_budget_is_kept(drawn, budget):
    large, needed = drawn
    tried = []

    small = shrink(large, lambda candidate: tried.append(candidate) or has(needed)(candidate), budget=budget)

    assert has(needed)(small)
    assert len(tried) <= budget
    assert len(tried) == len(set(tried))


@pytest.mark.slow
@given(schedules_and_what_they_need())
def test_the_order_stays_and_times_only_become_earlier(drawn):
    large, needed = drawn
    names = {act.number for act in needed if isinstance(act, Act)}

    small = shrink(large, lambda candidate: names <= {act.number for act in candidate.acts})

    assert sorted(names) == [act.number for act in small.acts]
    assert all(act.at <= act.number + 0.5 for act in small.acts)
    assert sorted(small.acts, key=lambda act: act.at) == list(small.acts)
    assert all(entry.at < small.seconds for entry in small.acts)


def test_the_same_search_ends_the_same():
    large = schedule(acts(*range(30)), (CRASH, RESTART))
    needed = {*acts(3, 17), RESTART}

    assert shrink(large, has(needed)) == shrink(large, has(needed))


def test_a_crash_and_its_restart_go_together_before_either_goes_alone():
    large = schedule(acts(1), (CRASH, RESTART))
    tried = []

    # A crash that is not followed by its restart is another failure: this one is not seen then.
    def fails(candidate):
        tried.append(candidate.faults)
        return len(candidate.faults) != 1 and candidate.acts != ()

    small = shrink(large, fails)

    assert () == small.faults
    assert (CRASH,) not in tried


@pytest.mark.parametrize("kind", ["stop", "hesitate", "coincide"])
def test_what_begins_and_what_ends_it_go_together(kind):
    begins = Fault(12.5, kind, "payments/2", 1.0)
    ends = Fault(22.25, "restart" if kind == "stop" else kind, "payments/2")

    # What begins and does not end, or ends and never began, is another failure: this one is not seen then.
    def fails(candidate):
        needed = has({CRASH, RESTART, *acts(15)})(candidate)
        return needed and (begins in candidate.faults) == (ends in candidate.faults)

    assert (CRASH, RESTART) == shrink(schedule(acts(1, 15), (CRASH, begins, RESTART, ends)), fails).faults


@pytest.mark.parametrize(("mode", "seconds"), [("safety", 18.0), ("liveness", 600.0), ("fair", 600.0)])
def test_what_comes_after_the_failure_goes_first_and_at_once(mode, seconds):
    large = replace(schedule(acts(*range(30)), (CRASH, RESTART)), mode=mode)
    tried = []

    shrink(large, lambda candidate: tried.append(candidate) or True, ended=17.125, budget=1)

    assert [replace(large, seconds=seconds, acts=acts(*range(18)), faults=(CRASH,))] == tried


def test_what_was_needed_after_all_though_it_comes_after_the_failure_is_kept():
    needed = acts(3, 17)

    small = shrink(schedule(acts(*range(30))), has(needed), ended=10.0)

    assert needed == small.acts


def test_what_is_told_ahead_is_what_is_asked_next_unless_something_fails():
    large, needed = schedule(acts(*range(30)), (CRASH, RESTART)), {*acts(3, 17), RESTART}
    expected, asked = [], []

    def fails(candidate):
        if expected:
            asked.append((candidate, expected.pop(0)))
        failed = has(needed)(candidate)
        if failed:
            expected.clear()
        return failed

    def ahead(candidates):
        expected[:] = expected or candidates

    small = shrink(large, fails, ahead=ahead)

    assert [next_one for next_one, _ in asked] == [told for _, told in asked]
    assert len(asked) > 25
    assert shrink(large, has(needed)) == small


def test_no_more_is_told_ahead_than_may_still_be_asked():
    told, calls = [], []

    shrink(
        schedule(acts(*range(30))),
        lambda candidate: calls.append(candidate) or candidate.acts == acts(*range(30)),
        budget=20,
        ahead=lambda candidates: told.append(len(candidates) + len(calls)),
    )

    assert (20, 20) == (len(calls), max(told))


def test_the_time_after_what_matters_is_cut_off():
    small = shrink(schedule(acts(5)), lambda candidate: candidate.acts != () and candidate.seconds >= 42)

    assert 42.0 == small.seconds


def test_times_become_round_and_early():
    large = schedule((Act(31.2345, "book", 1),), (Fault(47.9876, "crash", "payments/1"),))

    small = shrink(large, lambda candidate: candidate.acts != () and any(fault.at >= 40 for fault in candidate.faults))

    assert schedule((Act(0.0, "book", 1),), (Fault(40.0, "crash", "payments/1"),), 41.0) == small


def test_progress_is_told_of_every_call_with_the_smallest_so_far():
    told = []

    shrink(
        schedule(acts(1, 2)), has(acts(2)), budget=3, progress=lambda calls, smallest: told.append((calls, smallest))
    )

    assert [1, 2, 3] == [calls for calls, _ in told]
    assert all(has(acts(2))(smallest) for _, smallest in told)


LATE = tuple(Late("once more", float(number), "book", 10_000 + number) for number in range(6))


def test_what_comes_after_the_faults_goes_too_but_for_what_it_takes():
    large = replace(schedule((Act(1.0, "book", 1),)), late=LATE, blind=("payments", "hotels"))

    small = shrink(large, lambda candidate: LATE[4] in candidate.late and "hotels" in candidate.blind)

    assert ((LATE[4],), ("hotels",), (), 2) == (small.late, small.blind, small.acts, small.size)


def test_of_what_failed_before_nothing_comes_after():
    large = replace(schedule((Act(1.0, "book", 1),)), late=LATE, blind=("payments",))

    small = shrink(large, lambda candidate: bool(candidate.acts), ended=2.0)

    assert ((), ()) == (small.late, small.blind)
