"""Facts about `ropewalk up`: a whole system of real processes, its log, its restarts and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def pair(up, machine, system):
    """The test system, up from a copy of its source: (what was started, its first TCP port)."""
    port = machine.free_ports(3)
    running = up("system.toml", f"--port={port}", folder=system)
    running.until_printed("pair is up")
    return running, port


def pid_of(machine, port: int) -> int | None:
    """Which process answers there."""
    said = machine.answer(port, "/pid")
    return int(said) if said is not None else None


def all_gone(running, machine) -> bool:
    return not any(machine.is_alive(pid) for pid in running.family)


def appended(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


# -- beginning


def test_it_says_what_is_where_once_all_of_it_serves(pair, machine, tmp_path):
    running, port = pair

    table = [line.split() for line in running.printed.partition("\nservice")[2].splitlines()[1:4]]
    said = [machine.answer(port, "/asked"), machine.answer(port + 1, "/word"), machine.answer(port + 2, "/pid")]

    assert [
        [name, f"http://127.0.0.1:{port + index}", f"http://127.0.0.1:{port + index}/docs"]
        for index, name in enumerate(("front", "back", "raw"))
    ] == table
    assert f"pair is up. Its data lies in {tmp_path / 'data'}. Ctrl-C ends it." in running.printed
    assert ['"hello"', '"hello"'] == said[:2]
    assert said[2] is not None


def test_what_an_operator_asks_finds_it_wherever_it_listens(up, machine, tmp_path):
    port, trips = machine.free_ports(4), CHECKOUT / "examples" / "trips"
    running = up("system.toml", f"--port={port}", folder=trips)
    running.until_printed("trips is up")

    command = [sys.executable, "-c", "from ropewalk.cli import main; main()", "events", "subscriptions", "--json"]
    asked = subprocess.run([*command, f"--data={tmp_path / 'data'}"], cwd=trips, capture_output=True, check=True)

    assert [("diary", "diary.note", "trips.booked")] == [
        (each["service"], each["subscription"], each["topic"]) for each in json.loads(asked.stdout)
    ]


def test_with_json_every_line_is_one_and_those_of_the_processes_are_as_they_wrote_them(up, machine, system):
    port = machine.free_ports(3)
    appended(system / "pair_back.py", "\n\nprint('no JSON at all')\n")
    running = up("system.toml", f"--port={port}", "--json", folder=system)
    running.until_printed('"event":"up"')
    running.signal(signal.SIGTERM)
    running.ended()

    events = [json.loads(line) for line in running.printed.splitlines()]

    assert {"up", "web", "core", "old"} == {event["process"] for event in events}
    assert any(event["event"] == "no JSON at all" for event in events)
    assert ["front", "back", "raw"] == [
        service["service"] for event in events if event["event"] == "up" for service in event["services"]
    ]


def test_a_port_in_use_ends_it_with_one_line_that_names_it_and_the_service(up, machine):
    port = machine.free_ports(3)
    with socket.create_server(("127.0.0.1", port + 1)):
        running = up("system.toml", f"--port={port}")

        assert 1 == running.ended()
    assert (
        f"Error: back cannot listen at tcp:{port + 1}:interface=127.0.0.1: port {port + 1} is in use. End who uses it, "
        "or say --port N (public listeners: [public] in the system file).\n"
    ) == running.printed


def test_a_wrong_configuration_ends_it_with_one_line(up, system):
    appended(system / "system.toml", "\n[settings.nobody]\na = 1\n")

    running = up("system.toml", folder=system)

    assert 1 == running.ended()
    assert (
        "Error: system.toml: [settings] nobody: no such service; [services] has: front, back, raw.\n" == running.printed
    )


def test_a_process_that_cannot_start_ends_it_with_the_reason_and_leaves_no_other(up, machine, system):
    appended(system / "pair_front.py", "\n\nthis is no Python\n")

    running = up("system.toml", f"--port={machine.free_ports(3)}", folder=system)
    machine.wait_until(lambda: running.children() or running.popen.poll() is not None)

    assert 1 == running.ended()
    assert "web could not start: SyntaxError: invalid syntax (pair_front.py, line 45)" in running.printed
    assert all_gone(running, machine)


def test_two_of_them_do_not_share_a_data_folder(pair, up, machine, tmp_path):
    second = up("system.toml", f"--port={machine.free_ports(3)}")

    assert 1 == second.ended()
    assert f"Error: Another `ropewalk up` keeps its data in {tmp_path / 'data'}; end it, or say --data DIR.\n" == (
        second.printed
    )


# -- the end


def test_ctrl_c_at_a_terminal_drains_all_of_it_and_the_status_is_0(pair, machine):
    running, port = pair
    running.signal(signal.SIGCONT)  # notes who is in the family
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(machine.answer, port, "/slow?seconds=1")
        machine.wait_until(
            lambda: 'in_flight{operation="front.slow",service="front"} 1.0' in machine.answer(port, "/metrics")
        )

        os.killpg(running.pid, signal.SIGINT)

        assert 0 == running.ended()
        assert slow.result() is not None
    assert all_gone(running, machine)
    assert "Traceback" not in running.printed


def test_a_second_ctrl_c_kills(pair, machine):
    running, port = pair
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(machine.answer, port, "/slow?seconds=8", timeout=30)
        also = threads.submit(machine.answer, port + 2, "/slow?seconds=8", timeout=30)
        machine.wait_until(
            lambda: 'in_flight{operation="front.slow",service="front"} 1.0' in machine.answer(port, "/metrics")
        )

        running.signal(signal.SIGINT)
        running.until_printed("once more kills")
        running.signal(signal.SIGINT)

        assert 0 == running.ended()
        assert (None, None) == (slow.result(), also.result())
    machine.wait_until(lambda: all_gone(running, machine))


def test_when_it_is_killed_its_processes_end_by_themselves(pair, machine):
    running, _ = pair

    running.signal(signal.SIGKILL)

    machine.wait_until(lambda: all_gone(running, machine))
    assert len(running.family) == 1 + 3 + 2


# -- restarts


def test_only_the_processes_that_loaded_a_changed_file_are_restarted(pair, machine, system):
    running, port = pair
    before = [pid_of(machine, port + 2), machine.answer(port, "/asked")]

    words = system / "pair_words.py"
    words.write_text(words.read_text().replace("hello", "goodbye"))
    running.until_printed("pair_words.py changed: web restarts")
    running.until_printed("pair_words.py changed: core restarts")
    machine.wait_until(lambda: machine.answer(port, "/asked") == '"goodbye"')

    assert before == [pid_of(machine, port + 2), '"hello"']
    assert "changed: old restarts" not in running.printed


def test_a_file_that_changes_right_after_it_was_loaded_has_changed(up, machine, system):
    port = machine.free_ports(3)
    rewrite = "\n\nfile = __import__('pathlib').Path(__file__)\nfile.write_text('WORD = \"goodbye\"\\n')\n"
    appended(system / "pair_words.py", rewrite)
    running = up("system.toml", f"--port={port}", folder=system)
    running.until_printed("pair is up")

    machine.wait_until(lambda: machine.answer(port, "/asked") == '"goodbye"')

    assert "pair_words.py changed" in running.printed


def test_a_process_with_an_error_in_its_source_stays_down_until_the_next_change(pair, machine, system):
    running, port = pair
    raw = system / "pair_raw.py"
    right = raw.read_text()
    first = pid_of(machine, port + 2)

    raw.write_text(right + "\nthis is no Python\n")
    running.until_printed(
        "old could not start and is down until a file changes: SyntaxError: invalid syntax (pair_raw.py"
    )
    while_down = (refused(port + 2), machine.answer(port, "/asked"))
    raw.write_text(right)
    last = machine.wait_until(lambda: pid_of(machine, port + 2))

    assert (True, '"hello"') == while_down
    assert first != last


def test_a_process_that_is_killed_is_started_again_and_a_line_says_so(pair, machine):
    running, port = pair
    victim = pid_of(machine, port + 2)

    os.kill(victim, signal.SIGKILL)
    running.until_printed("old ended (killed by SIGKILL); it starts again in")

    assert victim != machine.wait_until(lambda: pid_of(machine, port + 2))


def test_a_process_whose_database_is_away_when_it_starts_again_is_tried_until_that_is_back(up, machine, system):
    port, away = machine.free_ports(3), system / "away"
    appended(
        system / "pair_back.py",
        f"""

from pathlib import Path

from ropewalk import Unavailable

async def start(self):
    if Path({str(away)!r}).exists():
        raise Unavailable("The database is away.")

Back.start = start
""",
    )
    running = up("system.toml", f"--port={port}", folder=system)
    running.until_printed(" is up. ")
    victim = next(pid for pid in running.children() if b"--process=core" in Path(f"/proc/{pid}/cmdline").read_bytes())

    away.touch()
    os.kill(victim, signal.SIGKILL)
    running.until_printed("core ended (Unavailable: The database is away.); it starts again in")
    away.unlink()

    machine.wait_until(lambda: machine.answer(port, "/asked"))


def test_no_request_is_lost_while_a_process_is_restarted_under_load(pair, machine, system, load):
    running, port = pair
    raw = system / "pair_raw.py"
    asking = load(port + 2, "/pid", "/slow?seconds=0.05", threads=3)

    for round in range(1, 6):
        machine.wait_until(lambda: asking.count > 20)
        appended(raw, f"# {round}\n")
        running.until_printed("pair_raw.py changed: old restarts", times=round)
        running.until_printed("raw listens at", times=1 + round)
        count = asking.count
        machine.wait_until(lambda: asking.count > count)  # noqa: B023  # waited for right here
    asking.end()

    assert [] == asking.lost
    assert 6 == len(asking.served)


def test_no_call_of_a_sibling_is_lost_while_that_is_told_to_end_and_started_again(pair, machine, load):
    running, port = pair
    asking = load(port, "/asked", threads=3)

    for round in range(1, 4):
        victim = next(
            pid for pid in running.children() if b"--process=core" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(victim, signal.SIGTERM)
        running.until_printed("core has drained; it starts again", times=round)
        running.until_printed("back listens at", times=1 + round)
        count = asking.count
        machine.wait_until(lambda: asking.count > count + 20)  # noqa: B023  # waited for right here
    asking.end()

    assert [] == asking.lost


def test_a_system_file_that_says_something_wrong_changes_nothing_until_it_is_right(pair, machine, system):
    running, port = pair
    file = system / "system.toml"
    right = file.read_text()
    before = pid_of(machine, port + 2)

    file.write_text(right + "\nwrong = [\n")
    running.until_printed("the system stays as it is")
    stayed = pid_of(machine, port + 2)
    file.write_text(right)
    running.until_printed("system.toml changed: old restarts")
    machine.wait_until(lambda: pid_of(machine, port + 2) not in (None, before))

    assert before == stayed


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
