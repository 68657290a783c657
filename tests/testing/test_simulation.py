"""One seed: a plan, its play, and the judgement: what is broken is found, and what is right is left in peace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ropewalk.discovery.resolve import Resolve
from ropewalk.engine.deadlines import NEVER
from ropewalk.errors import ConfigurationError
from ropewalk.testing import Act, Fault, Outcome, Schedule, plan, replay, simulate, workload
from ropewalk.testing.faults import STRUCK
from ropewalk.testing.workloads import find

BLIND_SEED = 1  # in which services start anew while they reach nobody
TINY = str(Path(__file__).parent / "systems" / "tiny" / "system.toml")


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path(TINY).parent))
    yield
    sys.path[:] = before


def acts(name: str, count: int = 3, every: float = 1.0) -> tuple[Act, ...]:
    return tuple(Act(every * (number + 1), name, number) for number in range(count))


def played(
    name: str, *faults: Fault, seed: int = 1, seconds: float = 6.0, mode: str = "safety", **more: Any
) -> Outcome:
    schedule = Schedule(seed, seconds, acts(name), tuple(faults), mode)
    return simulate(TINY, [f"tiny_play:{name}"], schedule, **more)


# -- the plan


def test_a_plan_follows_from_its_seed_alone():
    first, again, other = (plan(TINY, ["tiny_play:sell"], seed, 60.0) for seed in (1, 1, 2))

    assert first == again
    assert (first.acts, first.faults) != (other.acts, other.faults)
    assert first == msgspec.json.decode(msgspec.json.encode(first), type=Schedule)


def test_acts_are_numbered_and_in_order_and_about_as_many_as_asked_for():
    schedule = plan(TINY, ["tiny_play:sell", "tiny_play:complain"], 3, 200.0)

    assert sorted(act.at for act in schedule.acts) == [act.at for act in schedule.acts]
    sold = [act.number for act in schedule.acts if act.name == "sell"]
    assert list(range(len(sold))) == sold
    assert 300 < len(sold) < 500  # one each half second
    assert all(0 < act.at < 200.0 for act in schedule.acts)


def test_another_workload_changes_nothing_about_the_first():
    alone = plan(TINY, ["tiny_play:sell"], 3, 60.0)
    both = plan(TINY, ["tiny_play:sell", "tiny_play:complain"], 3, 60.0)

    assert alone.acts == tuple(act for act in both.acts if act.name == "sell")
    assert alone.faults == both.faults


def test_in_liveness_mode_the_faults_end_after_two_thirds():
    for seed in range(10):
        faults = plan(TINY, ["tiny_play:sell"], seed, 90.0, "liveness").faults
        assert all(fault.at <= 60.2 + STRUCK for fault in faults)


def test_what_comes_after_the_faults_is_part_of_the_plan_and_drawn_like_it_where_a_schedule_lacks_it():
    def late(mode: str) -> tuple[list[str], bool]:
        planned = plan(TINY, ["tiny_play:sell", "tiny_play:strike"], BLIND_SEED, 6.0, mode)
        return [f"{each.phase}: {each.name}" for each in planned.late or ()], bool(planned.blind)

    spared = [not plan(TINY, ["tiny_play:sell"], seed, 6.0, "liveness").blind for seed in range(40)]
    drawn = plan(TINY, ["tiny_play:sell"], BLIND_SEED, 6.0, "liveness")
    without = msgspec.structs.replace(drawn, late=None, blind=None)
    sell = [f"{phase}: sell" for phase in ("once more", "once more", "blind", "blind", "once again", "once again")]

    assert ([*sell, "stop: sell", "stop: strike"], True) == late("liveness")
    assert ([*sell[:2], "stop: sell", "stop: strike"], False) == late("fair")
    assert ([], False) == late("safety")
    assert 20 < sum(spared) < 40
    digests = [simulate(TINY, ["tiny_play:sell"], each).digest for each in (drawn, without)]
    assert digests[0] == digests[1]


def test_in_fair_weather_there_are_no_faults_and_nobody_makes_trouble():
    both = ["tiny_play:sell", "tiny_play:strike"]
    plans = [(plan(TINY, both, seed, 60.0, "fair"), plan(TINY, both, seed, 60.0)) for seed in range(10)]

    for fair, foul in plans:
        assert ((), True) == (fair.faults, foul.faults != ())
        assert tuple(act for act in foul.acts if act.name == "sell") == fair.acts
    assert {"sell", "strike"} == {act.name for _, foul in plans for act in foul.acts}


def test_a_mode_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="expected one of safety, liveness, fair; got 'foul'"):
        plan(TINY, ["tiny_play:sell"], 3, 60.0, "foul")


def test_faults_befall_the_hosts_there_are():
    hosts = {"shop", "stock", "shop/1", "shop/2", "stock/1", "stock/2", "stock/database", "outside"}
    faults = [fault for seed in range(20) for fault in plan(TINY, ["tiny_play:sell"], seed, 200.0).faults]

    assert hosts == {name for fault in faults for name in fault.target.split()}


@pytest.mark.parametrize(
    "target", ["tiny_play", "tiny_play:nothing", "no_module_of_that_name:sell", "tiny_play:halves.x"]
)
def test_a_workload_that_is_none_is_refused_by_name(target):
    with pytest.raises(ConfigurationError, match=target):
        find(target)


def test_a_workload_of_no_time_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        workload(every=0.0)


# -- the judgement


def test_what_is_right_holds_and_is_counted(monkeypatch):
    monkeypatch.setattr("ropewalk.events.relay.RARELY", 3600.0)  # its looks are transactions, too
    outcome, safety = played("sell", mode="liveness"), played("sell")

    assert "" == outcome.broken
    assert (3, 7) == (safety.acts["done"], outcome.acts["done"])  # twice two when all is over; those blind refuse
    assert 9 == safety.counts["commit"] - safety.fired.get("the stock is slow to answer", 0)
    assert outcome.counts["bytes"] > 1000
    assert outcome.seconds >= 6.0
    assert outcome == msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome)


def test_an_invariant_that_breaks_is_found_at_its_moment():
    outcome = played("sell_by_halves")

    assert outcome.broken.startswith("At 1.0")
    assert "only half of thing-" in outcome.broken
    assert "broken" == outcome.events[-1].kind


def test_an_act_that_fails_otherwise_than_by_a_sibling_is_found():
    outcome = played("complain")

    assert "complain #0 failed: AssertionError: this is not what I ordered" in outcome.broken
    assert {"broken": 1} == outcome.acts


def test_an_operation_that_raises_what_nobody_expects_is_found(flush_logged_errors):
    outcome = played("sell_and_fail")
    flush_logged_errors()

    assert "nobody expects that" in outcome.broken


def test_what_never_comes_true_is_found_in_liveness_mode_alone():
    safety = played("sell_and_hope")
    liveness = played("sell_and_hope", mode="liveness")

    assert "" == safety.broken
    assert "10 s after the last fault: something was taken" in liveness.broken


def test_an_act_that_is_refused_is_a_bug_in_fair_weather_and_long_after_the_last_fault():
    safety, liveness, fair = (played("sell_out", mode=mode) for mode in ("safety", "liveness", "fair"))

    assert ("", {"refused": 3}) == (safety.broken, safety.acts)
    assert "was refused: Gone: thing-" in liveness.broken
    assert {"refused": 3, "broken": 1} == liveness.acts
    assert "sell_out #0 was refused: Gone: thing-" in fair.broken
    assert {"broken": 1} == fair.acts


def test_an_act_that_is_refused_while_only_what_it_can_do_without_is_hurt_is_a_bug():
    needed, spared = (
        played("sell_out_alone", Fault(0.5, "pause", host), Fault(5.0, "resume", host))
        for host in ("stock/1", "shop/1")
    )

    assert "" == needed.broken
    assert "was refused: Gone: thing-" in spared.broken


def test_who_never_forgets_that_it_reached_nobody_as_it_started_is_found(monkeypatch):
    monkeypatch.setattr("ropewalk.testing.planning.BLINDING", 1.0)
    monkeypatch.setattr("ropewalk.testing.planning.BLIND", 1.0)
    fair, liveness = (played("sell_or_sulk", mode=mode) for mode in ("fair", "liveness"))

    assert "" == fair.broken
    assert "was refused: Gone: I could not sell anything when I began." in liveness.broken


def test_who_keeps_more_connections_than_it_ever_had_calls_for_is_found(monkeypatch):
    monkeypatch.setattr("ropewalk.testing.simulation.OPEN", 1)
    used_again = played("sell")
    monkeypatch.setattr("ropewalk.engine.pool.Pool.peek", lambda self, server: None)
    used_once = played("sell")

    assert "" == used_again.broken
    assert "expected 1 at most beside the 1 that it once had calls for" in used_once.broken


def test_an_instance_that_is_up_and_never_asked_is_found(monkeypatch):
    monkeypatch.setattr("ropewalk.testing.simulation.IDLE", 3)
    outcome = played("sell", mode="fair")
    monkeypatch.setattr(Resolve, "_turn", property(lambda self: 0, lambda self, turn: None), raising=False)
    in_vain = played("sell", mode="fair")

    assert "" == outcome.broken
    assert "is up and was never asked" in in_vain.broken


def test_in_fair_weather_nothing_improbable_happens_and_everything_must_come_true():
    right, never = played("sell", mode="fair"), played("sell_and_hope", mode="fair")

    fired = {point for point in right.fired if point != "transaction run again"}  # as databases do in any weather
    assert ("", 5, set()) == (right.broken, right.acts["done"], fired)
    assert {"the stock is slow to answer"} <= played("sell").fired.keys()
    assert "10 s after the last fault: something was taken" in never.broken


def test_what_is_asked_to_stop_and_does_not_is_found():
    stop = Fault(0.5, "stop", "stock/1")

    in_time = played("sell_for_ever", stop, seconds=60.0)
    stuck = played("sell_for_ever", stop, seconds=62.0)
    crashed = played("sell_for_ever", stop, Fault(50.0, "crash", "stock/1"), seconds=62.0)

    assert ("", "") == (in_time.broken, crashed.broken)
    assert "Within 60 s this has not stopped: stock/1, asked to at 0.500 s." in stuck.broken


def test_in_the_end_all_are_asked_to_stop_and_what_does_not_is_found():
    assert "Within 60 s this has not stopped: stock/1, asked to at " in played("sell_for_ever", mode="fair").broken


def test_instances_that_are_replaced_one_after_the_other_break_nothing():
    rolling = [
        fault
        for number, host in enumerate(["shop/1", "shop/2", "stock/1", "stock/2"])
        for fault in (Fault(0.9 + number / 2, "stop", host), Fault(1.0 + number / 2, "restart", host))
    ]

    outcome = played("sell", *rolling, mode="liveness")

    assert "" == outcome.broken
    assert {"shop/1", "shop/2", "stock/1", "stock/2"} == {
        event.host for event in outcome.events if event.kind == "stopped"
    }
    assert {"stop": 4, "restart": 4}.items() <= outcome.fired.items()


@pytest.mark.parametrize("mode", ["liveness", "fair"])
def test_a_connection_that_neither_side_ever_closes_is_found(monkeypatch, mode):
    monkeypatch.setattr("ropewalk.engine.pool.IDLE", 100_000.0)
    kept_by_one = played("sell", mode=mode)
    monkeypatch.setattr("ropewalk.engine.channel.Channel._due", lambda self: NEVER)
    kept_by_both = played("sell", mode=mode)

    assert "" == kept_by_one.broken
    assert "A connection that nobody uses is open: from shop/" in kept_by_both.broken


def test_faults_that_are_planned_are_done_when_planned_and_refuse_acts_and_break_nothing():
    outcome = played("sell", Fault(0.5, "crash", "stock"), Fault(4.5, "restart", "stock"))

    told = [(event.at, event.kind, event.text) for event in outcome.events if event.kind in ("crashed", "fault")]
    assert [
        (0.5, "crashed", "crash stock/1"),
        (0.5, "crashed", "crash stock/2"),
        (4.5, "fault", "restart stock/1"),
    ] == told[:3]
    assert ("", {"refused": 3}) == (outcome.broken, outcome.acts)
    assert {"crash": 1, "restart": 1}.items() <= outcome.fired.items()


def test_the_chance_of_an_act_is_its_own_so_that_one_less_changes_nothing_for_the_others():
    def sold(chosen: tuple[Act, ...]) -> set[str]:
        outcome = simulate(TINY, ["tiny_play:sell"], Schedule(1, 6.0, chosen, ()))
        return {event.text for event in outcome.events if event.kind in ("act", "done")}

    every, without = acts("sell"), acts("sell")[1:]

    assert sold(without) == {text for text in sold(every) if "#0" not in text}


def test_the_same_schedule_has_the_same_outcome_and_another_seed_another():
    first = played("sell", Fault(1.5, "crash", "shop/1"), Fault(2.5, "restart", "shop/1"), mode="liveness")
    again = played("sell", Fault(1.5, "crash", "shop/1"), Fault(2.5, "restart", "shop/1"), mode="liveness")

    assert first == again
    assert first.digest != played("sell", seed=2).digest


def test_the_sweeps_of_the_collector_and_who_listens_change_nothing():
    lines: list[str] = []

    assert played("sell").digest == played("sell", trace=lines.append, sweep=50).digest
    assert len(lines) > 100


def test_what_one_world_left_unfinished_is_not_heard_in_the_next():
    played("leave_open")

    assert "" == played("sell", sweep=50).broken


def test_replay_raises_with_the_story():
    schedule = Schedule(1, 6.0, acts("sell_by_halves"), ())

    with pytest.raises(AssertionError, match=r"only half of thing-[\s\S]*stock"):
        replay(TINY, ["tiny_play:sell_by_halves"], schedule)

    assert "" == replay(TINY, ["tiny_play:sell"], Schedule(1, 3.0, acts("sell"), ())).broken
