"""A failure is told in a few lines, as a diagram, and as a test that plays it again."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ropewalk.testing import story
from ropewalk.testing.story import events_of, mermaid, text
from ropewalk.testing.values import Act, Event, Fault, Late, Outcome, Schedule

BOOKED_TWICE = "No double booking: reservations hold room 12 twice; the second payment was charged, at 14.2 s"

CALL = Event(12.01, "outside", "call", "reservations.book", "reservations/1")
CHARGE = Event(12.02, "reservations/1", "call", "payments.charge", "payments/1")
CHARGED = Event(12.04, "reservations/1", "answer", "payments.charge", "payments/1")
ANSWER = Event(12.06, "outside", "answer", "reservations.book", "reservations/1")
ACT = Event(12.0, "outside", "act", "book #3")
CRASH = Event(12.03, "payments/1", "fault", "crash payments/1")
LOST = Event(12.5, "reservations/1", "error", "payments.charge: Unavailable", "payments/1")


def outcome(*events: Event, broken: str = BOOKED_TWICE, acts=(), faults=(), seed: int = 7) -> Outcome:
    return Outcome(Schedule(seed, 15.0, acts, faults), broken, "d1", events, 15.0, {}, {}, {})


# -- what is worth telling


def test_a_call_and_its_prompt_answer_are_one_event():
    assert (CALL, replace(CHARGE, kind="answered"), replace(ANSWER, at=14.0)) == events_of(
        outcome(CALL, CHARGE, CHARGED, replace(ANSWER, at=14.0))
    )


def test_an_answer_on_the_other_side_of_a_fault_keeps_its_line():
    assert (CHARGE, CRASH, CHARGED) == events_of(outcome(CHARGE, CRASH, CHARGED))


def test_an_error_keeps_its_line():
    assert (CHARGE, LOST) == events_of(outcome(CHARGE, LOST))


def test_answered_calls_that_repeat_are_told_once_between_acts():
    again = [replace(event, at=event.at + 0.1) for event in (CHARGE, CHARGED)]
    act = replace(ACT, at=13.0)
    later = [replace(event, at=event.at + 1.0) for event in (CHARGE, CHARGED)]

    told = events_of(outcome(CHARGE, CHARGED, *again, act, *later))

    assert [12.02, 13.0, 13.02] == [event.at for event in told]


def test_what_a_host_commits_again_and_again_is_told_twice():
    commits = [Event(12.0 + each / 10, f"payments/{1 + each % 2}", "commit", "look") for each in range(8)]

    told = events_of(outcome(*commits, Event(12.9, "payments/1", "commit", "charge"), broken="payments"))

    assert [12.0, 12.1, 12.2, 12.3, 12.9] == [event.at for event in told]


def test_the_schedule_is_told_whole_and_nothing_of_it_twice():
    acts, faults = (Act(1.0, "book", 1), Act(12.0, "book", 3)), (Fault(12.03, "crash", "payments/1"),)

    told = events_of(outcome(ACT, acts=acts, faults=faults))

    assert (Event(1.0, "outside", "act", "book #1"), ACT, CRASH) == told


def test_what_the_log_says_of_a_fault_in_the_schedule_is_not_told_again():
    logged = [
        Event(12.03, "payments/1", "crashed", "crash payments/1"),
        Event(13.0, "", "fault", "partition payments/1 ↔ reservations/2"),
        Event(14.0, "", "fault", "heal payments/1"),
    ]
    faults = (Fault(12.03, "crash", "payments"), Fault(13.0, "partition", "payments/1 reservations/2"))

    told = events_of(outcome(*logged, faults=faults))

    assert ["crash payments", "partition payments/1 reservations/2", "heal payments/1"] == [
        event.text for event in told
    ]


def test_a_crash_at_a_moment_is_told_when_it_comes():
    armed = Fault(1.0, "crash-at-moment", "payments/1", 3.0)
    come = Event(2.0, "payments/1", "fault", "crash payments/1 after:charge/commit")

    told = events_of(outcome(come, Event(2.0, "payments/1", "crashed", "crash payments/1"), faults=(armed,)))

    assert [(1.0, "crash-at-moment payments/1 3"), (2.0, come.text)] == [(event.at, event.text) for event in told]


def test_a_link_that_is_slow_no_longer_says_so():
    told = events_of(
        outcome(faults=(Fault(1.0, "slow", "payments/1 mail/1", 0.5), Fault(2.0, "slow", "payments/1 mail/1")))
    )

    assert ["slow payments/1 mail/1 0.5", "slow payments/1 mail/1 ends"] == [event.text for event in told]


def test_the_invariant_that_broke_is_told_by_its_name():
    told = text(outcome(CALL, Event(14.2, "", "broken", "no_room_twice: room 12")))

    assert re.search(r"  14\.200 +│ +│ +no_room_twice is broken\n", told)


def test_calls_of_services_that_the_report_does_not_name_are_left_out():
    other = Event(12.0, "outside", "call", "mail.send", "mail/1")
    failed = Event(12.1, "outside", "error", "mail.send: Unavailable", "mail/1")

    assert (CALL, failed) == events_of(outcome(other, CALL, failed))


def test_when_the_report_names_no_service_all_is_told():
    other = Event(12.0, "outside", "call", "mail.send", "mail/1")

    assert (other, CALL) == events_of(outcome(other, CALL, broken="It is wrong."))


def test_what_is_too_much_is_left_out_and_counted():
    calls = [replace(CALL, at=float(number)) for number in range(100)]

    told = events_of(outcome(CRASH, *calls))

    assert 40 == len(told)
    assert ("omitted", "62 more events are left out") == (told[0].kind, told[0].text)
    assert CRASH in told
    assert calls[-1] == told[-1]


# -- diagrams


def test_the_mermaid_diagram_has_arrows_for_calls_and_notes_for_the_rest():
    told = mermaid(outcome(ACT, CALL, CHARGE, CRASH, LOST))

    assert told.splitlines() == [
        "sequenceDiagram",
        "    participant p0 as outside",
        "    participant p1 as reservations/1",
        "    participant p2 as payments/1",
        "    Note over p0: 12.000 s book #35;3",
        "    p0-xp1: 12.010 s reservations.book (no answer)",
        "    p1->>p2: 12.020 s payments.charge",
        "    Note over p2: 12.030 s ⚡ crash payments/1",
        "    p2--xp1: 12.500 s payments.charge: Unavailable",
        "    Note over p0,p2: No double booking: reservations hold room 12 twice#59; the second payment<br/>"
        "was charged, at 14.2 s",
    ]


def test_the_terminal_has_a_column_for_each_participant():
    told = text(outcome(ACT, CALL, CHARGE, CRASH, LOST))

    assert told.splitlines() == [
        "            outside     reservations/1    payments/1",
        "  12.000       ●              │               │       book #3",
        "  12.010       ├─────────────✖│               │       reservations.book (no answer)",
        "  12.020       │              ├──────────────▶│       payments.charge",
        "  12.030       │              │               ✖       crash payments/1",
        "  12.500       │              │✖ ─ ─ ─ ─ ─ ─ ─┤       payments.charge: Unavailable",
        "               │              │               │",
        "          No double booking: reservations hold room 12 twice; the second payment was charged, at",
        "          14.2 s",
    ]


def test_where_the_columns_do_not_fit_an_event_is_a_line():
    told = text(outcome(ACT, CALL, CHARGE, CRASH, LOST), width=50)

    assert told.splitlines() == [
        "  12.000  outside: book #3",
        "  12.010  outside ─✖ reservations/1:",
        "          reservations.book (no answer)",
        "  12.020  reservations/1 ─▶ payments/1:",
        "          payments.charge",
        "  12.030  crash payments/1",
        "  12.500  reservations/1 ✖─ payments/1:",
        "          payments.charge: Unavailable",
        "          No double booking: reservations hold",
        "          room 12 twice; the second payment was",
        "          charged, at 14.2 s",
    ]


def test_instances_share_a_column_where_calls_go_to_their_service():
    told = mermaid(outcome(replace(CALL, peer="reservations"), CHARGE))

    assert ["outside", "reservations", "payments"] == re.findall(r"participant p\d as (.*)", told)


def test_a_fault_between_two_hosts_stands_over_both():
    cut = Event(12.0, "", "fault", "partition reservations/1 ↔ payments/1")

    told = mermaid(outcome(CALL, CHARGE, cut))

    assert "    Note over p1,p2: 12.000 s ⚡ partition reservations/1 ↔ payments/1\n" in told


def test_colour_adds_no_character_that_is_seen():
    failed = outcome(ACT, CALL, CHARGE, CRASH, LOST)

    coloured = text(failed, colour=True)

    assert "\x1b[33m" in coloured
    assert text(failed) == re.sub(r"\x1b\[[0-9;]*m", "", coloured)


names = st.sampled_from(["payments/1", "payments/2", "reservations/1", "payments", "payments/database", "outside"])
kinds = st.sampled_from("call answer error commit rollback fault act done failed broken started crashed".split())
said = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
events = st.lists(st.builds(Event, st.floats(0, 999), names, kinds, said, names | st.just("")), max_size=50)


@pytest.mark.slow
@given(events, said, st.integers(20, 140))
def test_whatever_happened_can_be_told(events, broken, width):
    failed = outcome(*events, broken=broken)

    assert len(events_of(failed)) <= 40
    assert all(line.isprintable() or not line.isascii() for line in text(failed, width=width).splitlines())
    assert re.fullmatch(
        r"sequenceDiagram\n(    participant p\d+ as [^;#\n]+\n)+(    (Note over p\d+(,p\d+)?|p\d+(->>|-x|-->>|--x)p\d+): .*\n)+",
        re.sub(r"#\w+;", "", mermaid(failed)).replace("\x85", "").replace("\u2028", "").replace("\u2029", ""),
    )


# -- the test file

ACTS = (Act(1.0, "book", 1), Act(12.0, "book", 3))
FAULTS = (Fault(12.03, "crash", "payments/1"),)


LATE = (Late("once more", 2.5, "book", 10_000), Late("once again", 9.125, "look for what there is left", 10_004))


def written(
    *, acts=ACTS, faults=FAULTS, broken=BOOKED_TWICE, target="hotel.system:Hotel", folder=None, **ending: Any
) -> str:
    told = outcome(ACT, CHARGE, LOST, acts=acts, faults=faults, broken=broken)
    told = replace(told, schedule=replace(told.schedule, **ending))
    return story.test_file(told, target, ["w:book"], folder)


def test_the_test_holds_the_schedule_and_replays_it():
    calls = []
    namespace = {"Act": Act, "Fault": Fault, "Schedule": Schedule, "replay": lambda *given: calls.append(given)}

    exec(written().replace("from ropewalk.testing import Act, Fault, Schedule, replay", ""), namespace)
    namespace["test_no_double_booking_7"]()

    assert [("hotel.system:Hotel", ["w:book"], Schedule(7, 15.0, ACTS, FAULTS))] == calls


def test_the_test_holds_what_comes_after_the_faults():
    calls = []
    namespace = {"Late": Late, "Schedule": Schedule, "replay": lambda *given: calls.append(given)}
    code = written(acts=(), faults=(), late=LATE, blind=("users", "hotels"))

    exec(code.replace("from ropewalk.testing import Late, Schedule, replay", ""), namespace)
    namespace["test_no_double_booking_7"]()

    assert Schedule(7, 15.0, (), (), late=LATE, blind=("users", "hotels")) == calls[0][2]


def test_the_test_begins_with_the_story():
    lines = ast.get_docstring(ast.parse(written())).splitlines()

    assert f"Seed 7: {BOOKED_TWICE}" == lines[0]
    assert "payments.charge: Unavailable" in "\n".join(lines)


def test_a_system_file_is_found_from_where_the_test_lies(tmp_path):
    code = written(target=str(tmp_path / "hotel" / "system.toml"), folder=tmp_path / "hotel" / "graveyard")

    assert 'TARGET = str(Path(__file__).parents[1] / "system.toml")\n' in code
    assert "from pathlib import Path\n\nfrom ropewalk.testing import" in code


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"acts": (), "faults": ()},
        {"acts": ACTS[:1], "faults": FAULTS * 3},
        {"late": LATE, "blind": ("users",)},
        {"late": (), "blind": ("users", "hotels")},
        {"faults": (Fault(1.25, "partition", "reservations/1 a-service-with-a-very-long-name/database", 0.125),) * 2},
        {"broken": 'It said """no""", and \\n, and\tthat.\nThen\n   "more"'},
        {
            "target": "a/very/long/path/to/the/folder/where/the/system/file/of/this/project/lies/system.toml",
            "folder": "a",
        },
    ],
)
def test_the_formatter_leaves_a_test_as_it_is(changed, tmp_path, require):
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    require("ruff", ruff, "it comes with ropewalk[dev]")
    code = written(**changed)

    for width in ("88", "120"):
        command = [ruff, "format", "--isolated", "--line-length", width, "-"]
        formatted = subprocess.run(command, input=code, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert code == formatted.stdout
    checked = subprocess.run(
        [ruff, "check", "--isolated", "--select", "E,F,W,I", "--ignore", "E501", "-"],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert 0 == checked.returncode, checked.stdout
