"""`ropewalk sim`: what it runs, what it keeps, what it says, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from ropewalk.cli.sim import sim
from ropewalk.cli.sim_display import Display, LiveDisplay, ratio
from ropewalk.errors import ConfigurationError
from ropewalk.testing.graveyard import bury, exhume
from ropewalk.testing.hunt import Tools
from ropewalk.testing.values import Act, Event, Fault, Outcome, Schedule


class FakeWorld:
    """Every schedule holds five acts and two faults; one that has act 3 after a crash breaks, for the seeds given."""

    def __init__(self, *breaking: int, broken: str = "At 20.5 s: room 12 is held twice") -> None:
        self.breaking = breaking
        self.broken = broken
        self.planned: list[tuple[int, float, str]] = []
        self.simulated: list[Schedule] = []
        self.difference = ""

    def plan(self, target, workloads, seed, seconds, mode):
        self.planned.append((seed, seconds, mode))
        acts = tuple(Act(number * 10 + 0.125, "book", number) for number in range(5))
        faults = (Fault(12.0, "crash", "payments/1"), Fault(15.0, "restart", "payments/1"))
        return Schedule(seed, seconds, acts, faults, mode)

    def simulate(self, target, workloads, schedule):
        self.simulated.append(schedule)
        breaks = (
            schedule.seed in self.breaking
            and any(act.number == 3 for act in schedule.acts)
            and any(fault.kind == "crash" for fault in schedule.faults)
        )
        events = (Event(20.5, "", "broken", "no_room_twice: room 12 is held twice"),) if breaks else ()
        fired = {"crash": 1, "restart": 1, "relay-stalls": 0, "slow-commit": 2}
        return Outcome(
            schedule,
            self.broken if breaks else "",
            "d1",
            events,
            schedule.seconds,
            {"done": 4, "refused": 1},
            fired,
            {"bytes": 1000},
        )

    def verify(self, target, workloads, schedule, digest):
        return self.difference


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(world, *arguments, status=0):
        tools = Tools(world.plan, world.simulate, world.verify)
        command = ["hotel/system.toml", "--workload", "bookings:book", "--jobs", "0", *arguments]
        result = CliRunner().invoke(sim, command, obj=tools, catch_exceptions=False)
        assert status == result.exit_code, result.output
        return result

    return run


GRAVEYARD = Path("hotel/graveyard")


# -- what is run


def test_each_seed_is_planned_and_simulated_once(run):
    world = FakeWorld()

    run(world, "--seeds", "4", "--first-seed", "10", "--minutes", "2")

    assert [
        (10, 120.0, "safety"),
        (11, 120.0, "liveness"),
        (12, 120.0, "liveness"),
        (13, 120.0, "liveness"),
    ] == world.planned
    assert [10, 11, 12, 13] == [schedule.seed for schedule in world.simulated]


def test_of_eight_seeds_one_is_fair_two_are_for_safety_and_the_others_for_liveness(run):
    by_default, all_of_them = FakeWorld(), FakeWorld()

    run(by_default, "--seeds", "10", "--first-seed", "6")
    run(all_of_them, "--seeds", "10", "--first-seed", "6", "--mode", "all")

    modes = {seed: mode for seed, _, mode in by_default.planned}
    assert {7: "fair", 15: "fair"} == {seed: mode for seed, mode in modes.items() if mode == "fair"}
    assert {8, 10} == {seed for seed, mode in modes.items() if mode == "safety"}
    assert {6, 9, 11, 12, 13, 14} == {seed for seed, mode in modes.items() if mode == "liveness"}
    assert by_default.planned == all_of_them.planned


@pytest.mark.parametrize("mode", ["safety", "liveness", "fair"])
def test_one_mode_is_for_all_seeds(run, mode):
    world = FakeWorld()

    run(world, "--seeds", "2", "--first-seed", "6", "--mode", mode)

    assert [mode, mode] == [each for _, _, each in world.planned]


def test_a_mode_that_is_none_is_refused_with_those_there_are(run):
    refused = run(FakeWorld(), "--mode", "foul", status=2).output

    assert "'foul' is not one of 'safety', 'liveness', 'fair', 'all'" in refused


def test_the_search_stops_at_the_first_failure_unless_told_otherwise(run):
    stopped, went_on = FakeWorld(1, 3), FakeWorld(1, 3)

    run(stopped, "--seeds", "6", "--no-shrink", status=1)
    run(went_on, "--seeds", "6", "--no-shrink", "--stop-at", "0", "--graveyard", "elsewhere", status=1)

    assert [0, 1] == [seed for seed, _, _ in stopped.planned]
    assert [0, 1, 2, 3, 4, 5] == [seed for seed, _, _ in went_on.planned]
    assert [1, 3] == [schedule.seed for _, schedule in exhume("elsewhere")]


def test_the_graveyard_is_replayed_first_and_what_still_breaks_ends_the_search(run):
    world = FakeWorld(7)
    schedule = world.plan("", [], 7, 60.0, "safety")
    path = bury(GRAVEYARD, world.simulate("", [], schedule))
    world.planned.clear()

    result = run(world, status=1)

    assert [] == world.planned
    assert f"Seed 7, safety ({path}): broken" in result.output
    assert [path] == list(GRAVEYARD.iterdir())


def test_a_grave_that_no_longer_breaks_is_no_failure(run):
    buried = FakeWorld(7)
    bury(GRAVEYARD, buried.simulate("", [], buried.plan("", [], 7, 60.0, "safety")))
    world = FakeWorld()

    result = run(world, "--seeds", "1")

    assert [7, 0] == [schedule.seed for schedule in world.simulated]
    assert "1 seed, 1 grave" in result.output


def test_a_grave_of_another_workload_waits_for_it(run):
    bury(GRAVEYARD, Outcome(Schedule(7, 60.0, (Act(1.0, "cancel", 1),), ()), "no", "", (), 60.0, {}, {}, {}))
    world = FakeWorld()

    run(world, "--seeds", "0")

    assert [] == world.simulated


# -- what is kept and said


def test_a_failure_is_shrunk_kept_and_told(run):
    result = run(FakeWorld(2), "--seeds", "6", "--minutes", "1", status=1)

    ((path, schedule),) = exhume(GRAVEYARD)
    assert Schedule(2, 2.0, (Act(1.0, "book", 3),), (Fault(0.0, "crash", "payments/1"),)) == schedule
    assert ["no_room_twice_2.json", "no_room_twice_2.mmd", "test_no_room_twice_2.py"] == sorted(
        path.name for path in GRAVEYARD.iterdir()
    )
    assert "sequenceDiagram\n" in path.with_suffix(".mmd").read_text()
    assert 'Path(__file__).parents[1] / "system.toml"' in (GRAVEYARD / "test_no_room_twice_2.py").read_text()
    for words in (
        "Seed 2, safety: broken\nAt 20.5 s: room 12 is held twice\n",
        "Shrunk from 5 acts and 2 faults in 60 s to 1 act and 1 fault in 2 s by ",
        "     0.000 s  crash payments/1\n       1.000 s  book #3\n       2.000 s  the end\n",
        "no_room_twice is broken",
        "Written: hotel/graveyard/no_room_twice_2.json\n",
        "Once more: ropewalk sim hotel/system.toml --workload bookings:book --seeds 0\n",
    ):
        assert words in result.output


def test_a_failure_that_is_not_shrunk_is_kept_as_found(run):
    run(FakeWorld(0), "--seeds", "1", "--minutes", "1", "--no-shrink", status=1)

    ((_, schedule),) = exhume(GRAVEYARD)
    assert FakeWorld().plan("", [], 0, 60.0, "safety") == schedule


def test_shrinking_stays_with_the_failure_that_was_found(run):
    world = FakeWorld(0)
    simulate = world.simulate

    def other_when_small(target, workloads, schedule):
        outcome = simulate(target, workloads, schedule)
        if len(schedule.acts) < 3 and outcome.broken:
            return Outcome(schedule, "At 3 s: something else", "", (), 60.0, {}, {}, {})
        return outcome

    world.simulate = other_when_small
    run(world, "--seeds", "1", status=1)

    ((_, schedule),) = exhume(GRAVEYARD)
    assert 3 == len(schedule.acts)


def test_shrinking_begins_with_leaving_out_what_came_after_the_failure(run):
    world = FakeWorld(0)
    simulate = world.simulate
    world.simulate = lambda *given: msgspec.structs.replace(simulate(*given), seconds=30.5)

    run(world, "--seeds", "1", "--minutes", "1", status=1)

    found, first, *_ = world.simulated
    assert (60.0, [0, 1, 2, 3, 4]) == (found.seconds, [act.number for act in found.acts])
    assert (31.0, [0, 1, 2, 3]) == (first.seconds, [act.number for act in first.acts])


def test_a_seed_that_is_not_reproducible_is_said_with_its_first_difference_and_not_kept(run):
    world = FakeWorld()
    world.difference = "line 3 of the log: 4 != 5"

    result = run(world, "--seeds", "1", "--verify", status=1)

    assert "Not reproducible: line 3 of the log: 4 != 5" in result.output
    assert "--first-seed 0 --seeds 1 --mode safety --minutes 10 --verify" in result.output
    assert not GRAVEYARD.exists()


def test_the_statistics_say_what_was_done_and_which_points_never_fired(run):
    lines = {
        line.partition("  ")[0].strip(): line.partition("  ")[2].strip()
        for line in run(FakeWorld(), "--seeds", "3").output.splitlines()
    }

    assert "3 seeds, 0 graves" == lines["simulated"]
    assert lines["virtual time"].startswith("0.5 hours in ")
    assert "done 12, refused 3" == lines["acts"]
    assert "crash 3, restart 3" == lines["faults"]
    assert "slow-commit 6" == lines["points that fired"]
    assert "relay-stalls" == lines["that never did"]
    assert "bytes 3,000" == lines["counts"]


def test_for_a_script_there_is_one_document(run):
    found = json.loads(run(FakeWorld(1), "--seeds", "3", "--json", "--minutes", "1", status=1).stdout)

    assert (2, 0, 120.0) == (found["seeds"], found["graves"], found["virtual_seconds"])
    assert {"relay-stalls": 0, "slow-commit": 4} == found["points"]
    (failure,) = found["failures"]
    assert (1, "liveness", "d1") == (failure["seed"], failure["mode"], failure["digest"])
    assert [{"at": 1.0, "name": "book", "number": 3}] == failure["schedule"]["acts"]
    assert "hotel/graveyard/no_room_twice_1.json" == failure["files"][0]


def test_lines_of_progress_are_few(run):
    output = run(FakeWorld(), "--seeds", "50").output

    assert 10 == output.count("seeds: ")
    assert "seeds: 50/50, " in output


# -- how it ends


def test_ctrl_c_ends_the_search_and_not_the_report(run):
    world = FakeWorld(1)
    plan = world.plan

    def interrupted(target, workloads, seed, seconds, mode):
        if seed == 3:
            raise KeyboardInterrupt
        return plan(target, workloads, seed, seconds, mode)

    world.plan = interrupted
    result = run(world, "--stop-at", "0", status=1)

    assert "Seed 1, liveness: broken" in result.output
    assert "Interrupted" in result.output


def test_what_is_declared_wrongly_is_one_line(run):
    def plan(*_):
        raise ConfigurationError("There is no workload 'bok'.")

    world = FakeWorld()
    world.plan = plan

    assert "Error: There is no workload 'bok'.\n" == run(world, status=1).output


def test_a_workload_is_needed():
    assert "Missing option '--workload'" in CliRunner().invoke(sim, ["system.toml"]).output


# -- the display


def test_a_terminal_has_a_bar_that_is_gone_at_the_end():
    console = Console(force_terminal=True, width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    display = LiveDisplay(console)

    with display:
        display.begin("seeds", 2)
        display.done(60.0, 0)
        display.begin("shrinking seed 7", 2)
        display.shrunk(1, Schedule(7, 60.0, (), ()))
    console.file.close()


def test_the_ratio_is_of_virtual_seconds_to_those_of_the_stage():
    seconds = iter([0.0, 100.0, 102.0])
    console = Console(get_time=lambda: next(seconds), width=80, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115

    display = Display(console)
    display.begin("graveyard", 0)
    display.begin("seeds", 1)
    display.done(600.0, 1)

    assert "seeds: 1/1, 300 : 1, 1 failure\n" == console.export_text()
    console.file.close()


def test_a_ratio_without_time_is_unknown():
    assert "- : 1" == ratio(60.0, 0.0)


def test_the_command_itself_plays_a_seed_and_says_so(tmp_path):
    system = Path(__file__).parents[1] / "testing" / "systems" / "tiny" / "system.toml"
    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "sim", str(system), "--json"]
    command += ["--workload", "tiny_play:sell", "--seeds", "1", "--minutes", "0.1", "--graveyard", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    said = json.loads(done.stdout)
    assert (["tiny_play:sell"], 1, []) == (said["workloads"], said["seeds"], said["failures"])
    assert said["virtual_seconds"] >= 6
