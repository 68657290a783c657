"""Many schedules become outcomes, in their order, whatever becomes of the processes that simulate them."""

from __future__ import annotations

import itertools
import sys

import pytest

from ropewalk.errors import ConfigurationError, DeclarationError
from ropewalk.testing.seeds import Runner, Tally, run_seeds
from ropewalk.testing.values import Fault, Outcome, Schedule

# What the children import: a simulation that does what its seed says.
FAKE = """
import gc, os, pathlib, signal, time, weakref
from twisted.logger import Logger
from ropewalk.errors import ConfigurationError
from ropewalk.testing.values import Outcome

def simulate(target, workloads, schedule):
    print("simulating", schedule.seed)
    if pathlib.Path(target).is_dir():
        with open(pathlib.Path(target, "begun"), "a") as begun:
            begun.write(f"{schedule.seed} ")
    if schedule.seed == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    if schedule.seed == 14:
        os.write(2, b"goodbye")
        os._exit(3)
    if schedule.seed == 15:
        raise ConfigurationError("There is no workload 'bok'.")
    if schedule.seed == 16:
        raise KeyError("room")
    if schedule.seed == 17:
        while True: pass
    if schedule.seed == 18:
        Logger("test").info("{world} begins", world=worlds.add(World()))
    gc.collect()
    return Outcome(schedule, "", f"{target} {workloads}", (), schedule.seconds, {"kept": len(worlds)}, {}, {})

class World: pass

class Worlds(weakref.WeakSet):
    def add(self, world):
        super().add(world)
        return world

worlds = Worlds()
"""


def schedule(seed: int, faults: tuple[Fault, ...] = ()) -> Schedule:
    return Schedule(seed, 60.0, (), faults)


def outcome(schedule: Schedule, broken: str = "", **numbers: dict[str, int]) -> Outcome:
    numbers = {"acts": {}, "fired": {}, "counts": {}} | numbers
    return Outcome(schedule, broken, "", (), schedule.seconds, **numbers)


def simulated(target, workloads, schedule):
    """A simulation for this process."""
    if schedule.seed == 16:
        raise KeyError("room")
    return outcome(schedule)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_simulation.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("fake_simulation").simulate
    del sys.modules["fake_simulation"]


# -- in child processes


@pytest.mark.slow
def test_a_child_keeps_nothing_of_what_a_simulation_logged(fake):
    outcomes = run_seeds("t", [], [schedule(18), schedule(1)], 1, simulate=fake)

    assert [{"kept": 0}, {"kept": 0}] == [outcome.acts for outcome in outcomes]


@pytest.mark.slow
def test_outcomes_come_in_the_order_of_their_schedules(fake):
    schedules = [schedule(seed) for seed in range(10)]

    outcomes = list(run_seeds("t", ["w:book"], schedules, 2, simulate=fake))

    assert schedules == [outcome.schedule for outcome in outcomes]
    assert {"t ('w:book',)"} == {outcome.digest for outcome in outcomes}


@pytest.mark.slow
def test_an_interpreter_that_dies_is_a_failure_of_its_seed_and_the_next_seed_goes_on(fake, capfd):
    outcomes = run_seeds("t", [], [schedule(13), schedule(14), schedule(1)], 1, simulate=fake)

    crashed, left, well = outcomes

    assert crashed.broken.startswith("The interpreter died (SIGSEGV): ")
    assert "Segmentation fault" in crashed.broken
    assert "The interpreter died (exit status 3): simulating 14\ngoodbye" == left.broken
    assert "" == well.broken
    assert ("", "") == capfd.readouterr()


@pytest.mark.slow
def test_a_simulation_without_end_is_given_up(fake):
    (hung,) = run_seeds("t", [], [schedule(17)], 1, simulate=fake, patience=0.1)

    assert hung.broken.startswith("The simulation did not end within 0.1 s of real time: ")
    assert "fake_simulation.py" in hung.broken


@pytest.mark.slow
def test_what_is_declared_wrongly_ends_the_run(fake):
    with pytest.raises(ConfigurationError, match="There is no workload 'bok'"):
        list(run_seeds("t", [], [schedule(15)], 1, simulate=fake))


@pytest.mark.slow
def test_schedules_are_read_as_children_become_free(fake):
    read = []
    endless = (read.append(seed) or schedule(seed) for seed in itertools.count())

    outcomes = run_seeds("t", [], endless, 1, simulate=fake)
    next(outcomes)
    outcomes.close()

    assert len(read) < 10


@pytest.mark.slow
def test_a_runner_survives_what_it_runs(fake):
    with Runner("t", [], simulate=fake) as runner:
        assert "SIGSEGV" in runner.run(schedule(13)).broken
        assert "" == runner.run(schedule(1)).broken


@pytest.mark.slow
def test_what_is_expected_is_begun_with_as_far_as_children_are_free_and_once(fake, tmp_path):
    with Runner(str(tmp_path), [], jobs=2, simulate=fake) as runner:
        runner.expect([schedule(1), schedule(2), schedule(3)])
        runner.expect([schedule(2), schedule(1)])
        second = runner.run(schedule(2))
        first = runner.run(schedule(1))

    assert [schedule(2), schedule(1)] == [second.schedule, first.schedule]
    assert ["1", "2"] == sorted((tmp_path / "begun").read_text().split())


@pytest.mark.slow
def test_one_child_can_be_ahead_of_another(fake, tmp_path):
    with Runner(str(tmp_path), [], jobs=2, patience=60.0, simulate=fake) as runner:
        runner.expect([schedule(17), schedule(1)])  # the first never ends

        assert schedule(1) == runner.run(schedule(1)).schedule
        assert schedule(2) == runner.run(schedule(2)).schedule


@pytest.mark.slow
def test_what_was_expected_and_is_not_asked_for_gives_way(fake, tmp_path):
    with Runner(str(tmp_path), [], simulate=fake) as runner:
        runner.expect([schedule(1)])
        asked = runner.run(schedule(2))
        again = runner.run(schedule(1))

    assert [schedule(2), schedule(1)] == [asked.schedule, again.schedule]
    assert ["1", "2", "1"] == (tmp_path / "begun").read_text().split()


@pytest.mark.slow
def test_a_child_that_dies_ahead_of_its_time_is_told_when_it_is_asked_for(fake):
    with Runner("t", [], jobs=2, simulate=fake) as runner:
        runner.expect([schedule(13), schedule(1)])

        assert "" == runner.run(schedule(1)).broken
        assert "SIGSEGV" in runner.run(schedule(13)).broken


# -- in this process


def test_without_jobs_it_happens_here():
    assert [outcome(schedule(1))] == list(run_seeds("t", [], [schedule(1)], 0, simulate=simulated))


def test_without_jobs_nothing_is_begun_before_it_is_asked_for():
    begun = []

    def simulate(target, workloads, schedule):
        begun.append(schedule.seed)
        return outcome(schedule)

    with Runner("t", [], jobs=0, simulate=simulate) as runner:
        runner.expect([schedule(1), schedule(2)])
        runner.run(schedule(2))

    assert [2] == begun


def test_an_error_that_is_raised_breaks_the_outcome():
    with Runner("t", [], jobs=0, simulate=simulated) as runner:
        (first, *_, last) = runner.run(schedule(16)).broken.splitlines()

    assert "The simulation raised KeyError: 'room'" == first
    assert "KeyError: 'room'" == last


def test_a_wrong_declaration_is_raised():
    def simulate(target, workloads, schedule):
        raise DeclarationError("no")

    with pytest.raises(DeclarationError, match="no"):
        list(run_seeds("t", [], [schedule(1)], 0, simulate=simulate))


def test_a_difference_between_two_runs_breaks_the_outcome():
    (differs,) = run_seeds("t", [], [schedule(1)], 0, simulate=simulated, verify=lambda *_: "line 3: 4 != 5")

    assert "Not reproducible: line 3: 4 != 5" == differs.broken


# -- what they amount to


def test_a_tally_adds_up_and_remembers_what_never_happened():
    tally = Tally()

    crash = Fault(1.0, "crash", "payments/1")
    tally.add(
        outcome(schedule(1, (crash,)), acts={"done": 2}, fired={"crash": 1, "relay-stalls": 0}, counts={"bytes": 5})
    )
    tally.add(
        outcome(
            schedule(2, (Fault(1.0, "jump", "payments/1"),)), acts={"done": 1, "refused": 1}, fired={"slow-commit": 3}
        )
    )

    assert (2, 120.0) == (tally.seeds, tally.seconds)
    assert {"done": 3, "refused": 1} == tally.acts
    assert {"crash": 1, "jump": 0} == tally.faults
    assert {"relay-stalls": 0, "slow-commit": 3} == tally.points
    assert {"bytes": 5} == tally.counts
