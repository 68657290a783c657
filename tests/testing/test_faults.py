"""Schedules of faults: drawn from a seed, each with its end, and each doing to a World what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData

from ropewalk import RopewalkError, Service, get
from ropewalk.runtime.config import load
from ropewalk.testing import Fault, World
from ropewalk.testing.configured import parts_of
from ropewalk.testing.faults import DOING, ENDS, KINDS, STRUCK, do, draw, hurt
from ropewalk.testing.moments import SELDOM, Armed
from ropewalk.testing.values import Parts

SERVICES = ("here", "there")
PARTS = Parts(
    services=SERVICES,
    hosts=("here/1", "here/2", "there/1", "there/2", "there/database"),
    links=(("outside", "here"), ("outside", "there"), ("here", "there"), ("there", "there/database")),
)
SMALLEST = Parts(services=("here",), hosts=("here/1", "here/2"), links=(("outside", "here"),))


class Here(Service, name="here", version="1.0.0"):
    """One."""

    tables = MetaData()

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""

    @get("/something")
    async def something(self) -> None:
        """Something."""


class There(Service, name="there", version="1.0.0"):
    """Another."""

    @get("/nothing")
    async def nothing(self) -> None:
        """Nothing."""


@pytest.fixture
def world() -> Iterator[World]:
    with World([Here, There], seed=8) as world:
        yield world


def drawn(seed: int, begin: float = 0.0, end: float = 300.0) -> tuple[Fault, ...]:
    return draw(Random(seed), PARTS, begin, end)


# -- drawing


def test_the_same_seed_draws_the_same_and_another_another():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_they_come_in_order_of_time_and_within_it():
    for seed in range(50):
        faults = drawn(seed, 10.0, 100.0)

        assert sorted(fault.at for fault in faults) == [fault.at for fault in faults]
        assert all(10.0 <= fault.at <= 100.2 + STRUCK for fault in faults)


def test_every_kind_is_drawn_by_some_seed_and_no_seed_draws_them_all():
    kinds = [{fault.kind for fault in drawn(seed, end=3000.0)} for seed in range(60)]

    assert set(DOING) == set().union(*kinds)
    assert all(len(each) < len(set(DOING)) for each in kinds)
    assert all(kinds)


def test_half_of_the_seeds_leave_all_but_a_few_services_alone():
    services = [f"service-{number}" for number in range(10)]
    hosts = [f"{name}/{host}" for name in services for host in ("1", "2", "database")]
    links = [("outside", name) for name in services]

    befallen = [
        set().union(*hurt(draw(Random(seed), Parts(services, hosts, links), 0.0, 3000.0))) for seed in range(100)
    ]

    assert 30 < sum(len(each) <= 3 for each in befallen) < 70


def test_whom_faults_befall_is_told_by_service_and_by_link():
    faults = (
        Fault(1.0, "reset", "here/1 outside"),
        Fault(2.0, "crash", "there/database"),
        Fault(3.0, "stop", "here"),
        Fault(4.0, "slow", "here there/1"),
    )

    assert {frozenset({"here"}), frozenset({"there"}), frozenset({"here", "there"})} == hurt(faults)


@pytest.mark.parametrize("name", KINDS)
def test_every_fault_has_an_end_of_its_own(name):
    drawn = [KINDS[name](Random(seed), PARTS, 5.0, 9.0) for seed in range(20)]

    for faults in drawn:
        begun = [(fault.kind, fault.target) for fault in faults if fault.at == 5.0 and fault.kind != "reset"]
        ended = [(fault.kind, fault.target) for fault in faults if 5.0 < fault.at <= 9.0 + STRUCK]

        assert sorted((ENDS[kind], target) for kind, target in begun) == sorted(ended)
        assert len(faults) == len(begun) + len(ended) or name == "reset"
    assert all(drawn)


def test_a_blackout_befalls_several_hosts_at_once():
    dark = [KINDS["blackout"](Random(seed), PARTS, 5.0, 9.0) for seed in range(40)]
    together = [{fault.target for fault in faults if fault.kind == "power"} for faults in dark]

    assert {2, 3, 4} == {len(hosts) for hosts in together}


def test_what_parts_two_parts_who_asks_and_what_is_asked():
    parted = [KINDS["partition"](Random(seed), PARTS, 5.0, 9.0)[0].target for seed in range(200)]

    assert {
        *("here outside", "here/1 outside", "here/2 outside", "there outside", "there/1 outside", "there/2 outside"),
        *("there here", "there/1 here", "there/2 here", "there here/1", "there/1 here/1", "there/2 here/1"),
        *("there here/2", "there/1 here/2", "there/2 here/2"),
        *("there/database there", "there/database there/1", "there/database there/2"),
    } == set(parted)


def test_a_bad_start_is_one_while_what_is_asked_is_away_or_some_clock_is_wrong():
    drawn = [KINDS["bad start"](Random(seed), PARTS, 5.0, 9.0) for seed in range(200)]
    stories = {
        tuple((fault.kind, fault.target) for fault in sorted(faults, key=lambda each: each.at)) for faults in drawn
    }
    again = ("restart", "here/1")

    assert {
        (("crash", "here/1"), ("partition", "there here/1"), again, ("heal", "there here/1")),
        (("crash", "here/1"), ("jump", "there"), again, ("jump", "there")),
        (("crash", "here/1"), ("jump", "here/1"), again, ("jump", "here/1")),
        (
            ("crash", "there"),
            ("partition", "there/database there"),
            ("restart", "there"),
            ("heal", "there/database there"),
        ),
    } <= stories
    assert all(story[-1][0] in ("heal", "jump") for story in stories)


def test_who_asks_whom_is_read_from_the_classes_of_a_system():
    hotel = parts_of(load("examples/hotel/system.toml", {}))
    outside = {("outside", name) for name in hotel.services}

    assert {
        ("booking-ui", "reservations"),
        ("receipts", "payments"),
        ("reservations", "clock"),
        ("reservations", "reservations/database"),
        ("reservations", "broker"),
        *outside,
    } <= set(hotel.links)
    assert not {("payments", "reservations"), ("hotels", "users"), ("clock", "clock/database")} & set(hotel.links)
    assert (hotel.hosts[:2], hotel.hosts[-1]) == (["booking-ui/1", "booking-ui/2"], "broker")


@pytest.mark.parametrize("name", KINDS)
def test_the_smallest_system_can_be_hurt_too(name):
    for seed in range(20):
        faults = KINDS[name](Random(seed), SMALLEST, 5.0, 9.0)

        for fault in faults:
            assert set(fault.target.split()) <= {"here", "here/1", "here/2", "outside"}
            assert len(set(fault.target.split())) == len(fault.target.split())


def test_most_clocks_jump_by_what_tokens_allow_for_and_some_by_far_more():
    jumps = [abs(KINDS["jump"](Random(seed), PARTS, 5.0, 9.0)[0].value) for seed in range(200)]
    within = sum(seconds <= 14.0 for seconds in jumps)

    assert (True, True) == (100 < within < 200, 1800.0 < max(jumps) <= 3600.0)


def test_a_schedule_survives_json():
    faults = drawn(5)

    assert faults == msgspec.json.decode(msgspec.json.encode(faults), type=tuple[Fault, ...])


# -- doing


@pytest.mark.parametrize("kind", DOING)
def test_each_kind_can_be_done_and_is_counted(world, kind):
    pair = kind.startswith("partition") or kind in ("heal", "reset", "slow", "lossy")
    target = "here/1 there/2" if pair else "here" if kind == "slow-disk" else "here/1"

    do(world, Fault(0.0, kind, target, 1.0))
    world.advance(1.0)

    assert Counter({kind: 1}) == +world.points


CHANGES: dict[str, tuple[str, float, str, Any]] = {
    "crash": ("here/1", 0.0, "host", ("up", False)),
    "power": ("here/1", 0.0, "host", ("powered", False)),
    "pause": ("here/1", 0.0, "host", ("paused", True)),
    "hesitate": ("here/1", 0.5, "host", ("hesitates", 0.5)),
    "coincide": ("here/1", 1.0, "host", ("coincides", True)),
    "jump": ("here/1", -20.5, "host", ("offset", -20.5)),
    "partition": ("here/1 there/1", 0.0, "link", ("blocked", True)),
    "partition-one-way": ("here/1 there/1", 0.0, "link", ("blocked", True)),
    "slow": ("here/1 there/1", 0.5, "link", ("latency", (0.5, 1.0))),
    "lossy": ("here/1 there/1", 0.25, "link", ("loss", 0.25)),
    "isolate": ("here/1", 0.0, "link", ("blocked", True)),
    "sluggish": ("here/1", 0.5, "link", ("latency", (0.5, 1.0))),
    "narrow": ("here/1", 200.0, "link", ("bandwidth", 200.0)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_it_does_is_what_it_says_and_its_end_undoes_it(world, kind):
    target, value, of, (name, expected) = CHANGES[kind]
    here, there = world.hosts["here/1"], world.hosts["there/1"]

    def seen() -> Any:
        return getattr(here if of == "host" else world.network.link(here, there), name)

    before = seen()
    do(world, Fault(0.0, kind, target, value))
    during = seen()
    do(world, Fault(1.0, ENDS.get(kind, kind), target, -value if kind == "jump" else 0.0))

    assert (expected, before) == (during, seen())


def test_a_stop_takes_its_time_and_a_restart_that_comes_before_its_end_is_for_afterwards(world):
    host = world.hosts["here/1"]
    before = world.processes["here/1"]

    do(world, Fault(0.0, "stop", "here/1"))
    do(world, Fault(0.0, "restart", "here/1"))
    during = host.up, world.processes["here/1"] is before
    world.advance(5.0)

    assert ((True, True), (True, False)) == (during, (host.up, world.processes["here/1"] is before))


def test_one_way_leaves_the_other_way_open(world):
    do(world, Fault(0.0, "partition-one-way", "here/1 there/1"))

    here, there = world.hosts["here/1"], world.hosts["there/1"]
    assert (True, False) == (world.network.link(here, there).blocked, world.network.link(there, here).blocked)


def test_a_clock_drifts_and_comes_right_again(world):
    host = world.hosts["here/1"]

    do(world, Fault(0.0, "drift", "here/1", 1.1))
    first = host.seconds()
    world.advance(10.0)
    second = host.seconds()
    do(world, Fault(10.0, "drift", "here/1", 1.0))
    world.advance(10.0)

    assert (pytest.approx(11.0), pytest.approx(10.0)) == (second - first, host.seconds() - second)


def test_a_crash_at_some_moment_comes_with_that_moment(world):
    do(world, Fault(0.0, "crash-at-moment", "here/1", 3.0))
    world.advance(5.0)
    before = world.hosts["here/1"].up

    for _ in range(6):
        try:
            world.run(world.client(Here).nothing())
        except Exception as error:
            assert "Unavailable" == type(error).__name__

    assert (True, False) == (before, world.hosts["here/1"].up)


def test_a_crash_at_a_seldom_moment_comes_with_one_whose_like_was_met_least_often(world):
    def ask(name: str) -> None:
        with suppress(RopewalkError):
            world.run(getattr(world.client(Here), name)())

    for name in ("nothing", "something", "something", "something"):
        ask(name)
    world.crash("here", at=SELDOM, nth=1)
    for _ in range(4):
        ask("something")
    after_what_is_frequent = world.hosts["here/1"].up, world.hosts["here/2"].up
    ask("nothing")

    assert (True, True) == after_what_is_frequent
    assert [False, True] == sorted(world.hosts[name].up for name in ("here/1", "here/2"))


@pytest.mark.parametrize(
    ("name", "nth", "comes"),
    [
        ("after:tick/commit", 1, True),
        ("after:book/commit", 1, False),
        ("after:book/commit", 2, True),
        ("after:hold", 2, False),
        ("after:hold", 3, True),
        ("after:never yet", 1, True),
        ("before:tick/commit", 9, False),
        ("after:frame", 9, False),
        ("after:book/2", 9, False),
    ],
)
def test_a_seldom_moment_is_after_an_effect_and_of_a_name_that_few_are_seldomer_than(world, name, nth, comes):
    met = {"after:tick/commit": 2, "after:book/commit": 30, "after:hold": 31}
    armed = Armed([world.hosts["here/1"]], SELDOM, nth, lambda host, name: True)

    assert (comes, False) == (
        armed.comes(world.hosts["here/1"], name, met),
        armed.comes(world.hosts["here/2"], name, met),
    )


def test_what_is_parted_at_a_seldom_moment_is_so_from_then_until_it_is_healed(world):
    def refused() -> bool:
        try:
            world.run(world.client(There).nothing())
        except RopewalkError:
            return True
        return False

    do(world, Fault(0.0, "partition-one-way-at-seldom-moment", "there outside", 1.0))
    cut_off = refused()
    do(world, Fault(world.now, "heal", "there outside"))
    healed = refused()
    do(world, Fault(world.now, "partition-one-way-at-seldom-moment", "there outside", 1.0))
    do(world, Fault(world.now, "heal", "there outside"))

    assert [True, False, False] == [cut_off, healed, refused()]


@pytest.mark.parametrize(
    "fault", [Fault(0.0, "flood", "here/1"), Fault(0.0, "crash", "nowhere/1")], ids=["kind", "target"]
)
def test_one_that_cannot_be_done_is_named(world, fault):
    with pytest.raises((ValueError, KeyError), match=r"flood|nowhere/1"):
        do(world, fault)


def test_a_world_survives_a_hundred_schedules_worth_of_faults_and_calms_down():
    parts = Parts(SERVICES, PARTS.hosts[:4], PARTS.links[:3])
    with World([Here, There], seed=8) as world:
        for number in range(3):
            for fault in draw(Random(number), parts, world.now, world.now + 300.0):
                world.at(fault.at, do, world, fault)
            world.advance(330.0)
        world.calm()
        world.advance(5.0)

        for service in (Here, There):
            for _ in range(2):
                world.run(world.client(service).nothing())
