"""Facts about a process with several workers: real processes, which are killed and replaced under load."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

# What systemd does for a service with a socket: opened before it, and passed as the descriptor 3.
AS_SYSTEMD = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", {port}))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-P", "-c", *{command}])
"""
MIX = ("/pid", "/echo", "/slow?seconds=0.05", "/echo")  # what the load asks for, in turn


@pytest.fixture
def web(twistd, machine):
    """The front of the test system, in two workers: (the supervisor, its TCP port)."""
    port = machine.free_ports(3)
    supervisor = twistd("system.toml", "--process=web", f"--port={port}")
    supervisor.until_printed("web has 2 workers")
    return supervisor, port


@pytest.fixture
def later():
    """`later(function, *args)`: a Future of its result, computed in a thread."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


def pids(supervisor) -> list[int]:
    return sorted(supervisor.children())


def all_gone(supervisor, machine) -> bool:
    return not any(machine.is_alive(pid) for pid in supervisor.family)


def complaints(supervisor) -> list[str]:
    """What was logged beyond the usual."""
    return [event["event"] for event in supervisor.events if event["level"] not in ("info", "debug")]


def metric(page: str, name: str) -> float:
    """The sum of the samples of that name."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


# -- sharing


def test_all_workers_answer_at_the_one_listener_and_the_supervisor_answers_nothing(web, machine):
    supervisor, port = web
    seen = set()

    def both_answered():
        seen.add(int(machine.answer(port, "/pid")))
        return len(seen) == 2

    machine.wait_until(both_answered)

    assert set(pids(supervisor)) == seen


def test_the_metrics_are_those_of_all_workers_and_a_worker_that_hangs_is_left_out(web, machine):
    supervisor, port = web
    asked = 12
    for _ in range(asked):
        machine.answer(port, "/pid")

    of_both = machine.answer(port, "/metrics")
    os.kill(pids(supervisor)[0], signal.SIGSTOP)
    of_one = machine.wait_until(lambda: machine.answer(port, "/metrics"))

    assert (asked, 2) == (
        metric(of_both, "ropewalk_server_requests_total"),
        len(re.findall("ropewalk_workers{.*(?:alive|ready).* 2.0", of_both)),
    )
    assert metric(of_one, "ropewalk_server_requests_total") <= asked


# -- ending


def test_a_signal_drains_the_workers_what_runs_is_answered_and_nothing_is_left(web, machine, later):
    supervisor, port = web
    slow = [later(machine.answer, port, "/slow?seconds=1.5") for _ in range(4)]
    machine.wait_until(lambda: metric(machine.answer(port, "/metrics"), "ropewalk_server_requests_in_flight") >= 4)

    supervisor.signal(signal.SIGTERM)
    supervisor.ended()

    assert [True] * 4 == [answered.result() is not None for answered in slow]
    assert all_gone(supervisor, machine)


def test_workers_whose_supervisor_was_killed_answer_what_they_have_and_end_with_all_they_started(web, machine, later):
    supervisor, port = web
    in_a_pool = int(machine.answer(port, "/elsewhere", timeout=20))
    slow = [later(machine.answer, port, "/slow?seconds=1.0") for _ in range(4)]
    machine.wait_until(lambda: metric(machine.answer(port, "/metrics"), "ropewalk_server_requests_in_flight") >= 4)

    supervisor.signal(signal.SIGKILL)

    assert [True] * 4 == [answered.result() is not None for answered in slow]
    machine.wait_until(lambda: all_gone(supervisor, machine))
    assert in_a_pool in supervisor.family


def test_a_worker_whose_reactor_hangs_ends_with_its_supervisor_all_the_same(system, twistd, machine, later):
    front = system / "pair_front.py"
    front.write_text(front.read_text().replace("await asyncio.sleep(seconds)", "__import__('time').sleep(60)"))
    port = machine.free_ports(3)
    supervisor = twistd("system.toml", "--process=web", f"--port={port}", folder=system, ROPEWALK_DRAIN__LIMIT="0")
    supervisor.until_printed("web has 2 workers")
    later(machine.answer, port, "/slow?seconds=0", timeout=1)

    supervisor.signal(signal.SIGKILL)

    machine.wait_until(lambda: all_gone(supervisor, machine))


# -- crashes and what is no crash


def test_of_a_worker_that_is_killed_under_load_only_the_requests_it_had_are_lost(web, machine, load):
    supervisor, port = web
    asking = load(port, *MIX, threads=4)
    victim = pids(supervisor)[0]
    machine.wait_until(lambda: asking.count > 50)

    os.kill(victim, signal.SIGKILL)
    supervisor.until_printed("killed by SIGKILL")
    supervisor.until_printed("listens at", times=3)
    served = asking.count
    machine.wait_until(lambda: asking.count > served + 50)
    asking.end()

    assert len(asking.lost) <= 4, asking.lost
    assert all("heard=False" in each or "IncompleteRead" in each for each in asking.lost)
    assert (2, False) == (len(pids(supervisor)), victim in pids(supervisor))


def test_a_worker_that_is_told_to_end_is_replaced_at_once(web, machine):
    supervisor, _ = web
    victim, other = pids(supervisor)

    os.kill(victim, signal.SIGTERM)
    supervisor.until_printed("another one takes its place")
    machine.wait_until(lambda: not machine.is_alive(victim) and len(pids(supervisor)) == 2)

    assert other in pids(supervisor)
    assert "starts in" not in supervisor.printed


def test_a_worker_that_cannot_start_is_tried_again_later_each_time(system, twistd, machine):
    front = system / "pair_front.py"
    front.write_text(front.read_text() + "\n    async def start(self) -> None:\n        raise OSError('no luck')\n")

    supervisor = twistd(
        "system.toml",
        "--process=web",
        f"--port={machine.free_ports(3)}",
        folder=system,
        ROPEWALK_PROCESSES__WEB__WORKERS="2",
    )
    supervisor.until_printed("worker 1 ended", times=2)

    delays = [event["delay"] for event in supervisor.events if event["event"].startswith("worker 1 ended")][:2]
    assert delays == sorted(delays)
    assert ["OSError: no luck"] * 2 == [
        event["why"] for event in supervisor.events if event["event"].startswith("worker 1 ended")
    ][:2]


def test_workers_on_an_sqlite_file_are_refused_with_one_line_that_names_the_service(twistd, machine):
    port = machine.free_ports(1)

    supervisor = twistd("system.toml", "--process=core", f"--port={port}", folder=machine.systems / "kept")

    assert 78 == supervisor.ended()
    line = (
        "[processes] core: workers = 2, but keeper keeps a Database in an SQLite file, which has one owning process. "
        "Say workers = 1, move what needs no database to a process of its own, or choose a server: [adapters] store = "
        '"postgresql://...".'
    )
    assert [line] == complaints(supervisor)
    assert all_gone(supervisor, machine)


def test_the_check_of_a_system_finds_them_too(start, machine):
    check = start(["-c", "from ropewalk.cli import main; main()", "check", "system.toml"], machine.systems / "kept")

    assert 1 == check.ended()
    assert check.printed.startswith("[processes] core: workers = 2, but keeper keeps a Database in an SQLite file")


# -- replacing them


def test_a_hangup_replaces_the_workers_and_their_totals_stay(web, machine):
    supervisor, port = web
    old = pids(supervisor)
    for _ in range(10):
        machine.answer(port, "/pid")

    supervisor.signal(signal.SIGHUP)
    supervisor.until_printed("were replaced")

    new = machine.wait_until(lambda: (now := pids(supervisor)) and len(now) == 2 and now)
    page = machine.answer(port, "/metrics")
    assert set() == set(old) & set(new)
    assert (10, 10, 2) == (
        metric(page, "ropewalk_server_requests_total"),
        metric(page, "ropewalk_server_request_duration_seconds_count"),
        metric(page, "ropewalk_worker_ends_total"),
    )


def test_workers_stay_when_their_successors_cannot_start(system, twistd, machine):
    port = machine.free_ports(3)
    supervisor = twistd("system.toml", "--process=web", f"--port={port}", folder=system)
    supervisor.until_printed("web has 2 workers")
    old = pids(supervisor)
    (system / "pair_front.py").write_text("this is no Python\n")

    supervisor.signal(signal.SIGHUP)
    supervisor.until_printed("worker 1 was not replaced, nor those after it: SyntaxError")

    assert old == pids(supervisor)
    assert machine.answer(port, "/pid") is not None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["a hangup of the supervisor", "a signal to the worker"])
def test_no_request_is_lost_in_fifty_restarts_of_a_worker_under_load(web, machine, load, how):
    supervisor, port = web
    asking = load(port, *MIX, threads=3)

    replaced = 0
    while replaced < 50:
        old = pids(supervisor)
        if how == "a hangup of the supervisor":
            supervisor.signal(signal.SIGHUP)
            replaced += 2
            supervisor.until_printed("were replaced", times=replaced // 2)
        else:
            os.kill(old[replaced % 2], signal.SIGTERM)
            replaced += 1
            supervisor.until_printed("listens at", times=2 + replaced)
            machine.wait_until(lambda: len(pids(supervisor)) == 2)
    asking.end()

    assert [] == asking.lost
    assert asking.count > 50 * 3


# -- listeners


def test_workers_share_a_unix_socket_and_a_tls_listener_and_the_path_stays_until_the_end(
    system, twistd, machine, tmp_path, certificate
):
    path, port = tmp_path / "web.sock", machine.free_ports(1)
    supervisor = twistd(
        "system.toml",
        "--process=web",
        folder=system,
        ROPEWALK_PROCESSES__WEB__LISTEN=f"unix:{path}:mode=600",
        ROPEWALK_PUBLIC__FRONT=f"ssl:{port}:interface=127.0.0.1:privateKey={certificate}",
    )
    supervisor.until_printed("web has 2 workers")

    before = (said_at(path), said_by_tls(port, certificate))
    supervisor.signal(signal.SIGHUP)
    supervisor.until_printed("were replaced")
    after = (said_at(path), said_by_tls(port, certificate), path.stat().st_mode & 0o777)
    supervisor.signal(signal.SIGTERM)
    supervisor.ended()

    assert (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found") == before
    assert (*before, 0o600) == after
    assert not path.exists()


def test_workers_share_a_socket_that_systemd_opened(start, machine, tmp_path):
    port = machine.free_ports(1)
    command = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
    options = ["-n", "--pidfile=", "ropewalk", "system.toml", "--process=web", f"--data={tmp_path / 'data'}"]
    supervisor = start(
        ["-c", AS_SYSTEMD.format(port=port, command=[command, *options])],
        machine.systems / "pair",
        ROPEWALK_PROCESSES__WEB__LISTEN="systemd:domain=INET:index=0",
    )
    supervisor.until_printed("web has 2 workers")

    supervisor.signal(signal.SIGHUP)
    supervisor.until_printed("were replaced")

    assert int(machine.answer(port, "/pid")) in pids(supervisor)


def test_a_port_in_use_ends_the_supervisor_with_one_line_that_names_it_and_the_service(twistd, machine):
    port = machine.free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        supervisor = twistd("system.toml", "--process=web", f"--port={port}")

        assert 78 == supervisor.ended()
    line = (
        f"front cannot listen at tcp:{port}:interface=127.0.0.1: port {port} is in use. End who uses it, or say --port "
        "N (public listeners: [public] in the system file)."
    )
    assert [line] == complaints(supervisor)


# -- a Klein application as it is


def test_a_klein_application_runs_unchanged_and_a_signal_drains_it(twistd, machine, later):
    port = machine.free_ports(1)
    process = twistd("pair_raw:app", f"--port={port}", "--drain-delay=0")
    machine.wait_until(lambda: machine.answer(port, "/pid"))
    slow = later(machine.answer, port, "/slow?seconds=1")
    machine.wait_until(lambda: metric(machine.answer(port, "/metrics"), "ropewalk_server_requests_in_flight") >= 1)

    process.signal(signal.SIGTERM)
    process.ended()

    assert str(process.pid) == slow.result()
    assert machine.answer(port, "/pid") is None


def said_at(path: Path) -> bytes:
    """The status line of an answer at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return connection.makefile("rb").read().partition(b"\r\n")[0]


def said_by_tls(port: int, certificate: str) -> bytes:
    """The status line of an answer over TLS."""
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return connection.makefile("rb").read().partition(b"\r\n")[0]
