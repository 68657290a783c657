"""Facts about slowhttptest's four attacks on a process of ours: it is soon rid of them, and nobody else notices.

How much others notice is printed, not asserted: it is `benchmarks/slow.py` that measures it, and whose parts these are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

LIMITS = {"connections": 15_000, "head_time": 4, "body_grace": 4, "write": 4, "linger": 1}
CONNECTIONS = int(os.environ.get("ROPEWALK_SLOW", "2000"))  # 10000 are for a machine with nothing else to do
RATE = 10_000  # a second; slower, as fast as the attackers are
LATE = 1.0 if CONNECTIONS >= 10_000 else 5.0  # seconds beyond its deadline, of which half a one is the deadlines' own


def part(path):
    """A module of the benchmarks, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slow = part(Path(__file__).parents[2] / "benchmarks" / "slow.py")


@pytest.mark.parametrize("attack", slow.ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_over_in_time_and_others_are_answered_meanwhile(attack, require, free_ports, tmp_path):
    require("slowhttptest", shutil.which("slowhttptest"), "it is not on PATH")
    port, count = free_ports(1), slow.bearable(CONNECTIONS)
    lasts = attack.lasts(LIMITS)

    with slow.server(tmp_path, port, LIMITS) as pid:
        seen = slow.attacked(attack, port, pid, count, rate=RATE, lasts=lasts, seconds=2)

    print(f"\n{slow.HEAD}\n{slow.row(attack.name, seen)}")  # noqa: T201  # see above
    assert [] == seen.failed
    assert all(seen.during.values()), "nobody else asked"
    assert seen.lasted <= lasts + LATE
    assert 0 == seen.left
    if attack.holds:  # how many are open at once is the attackers' speed, but slow ones there were
        assert count / 4 < seen.most


# -- many from one peer


class Peer:
    """A connection from one address of this machine."""

    def __init__(self, port, address):
        self._socket = socket.create_connection(("127.0.0.1", port), 20, source_address=(address, 0))

    def ask(self):
        """The status that is answered; None when the connection is closed instead."""
        try:
            self._socket.sendall(b"GET /rooms/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            came = self._socket.recv(4096)
        except ConnectionError:
            return None
        return int(came.split(b" ", 2)[1]) if came else None

    def is_closed(self):
        """Wait until it is; TimeoutError when it is not."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self._socket.close()


def test_one_peer_has_512_connections_and_others_have_theirs(free_ports, tmp_path):
    port = free_ports(1)
    with slow.server(tmp_path, port, {"count_loopback": True}), ExitStack() as stack:

        def connect(address):
            peer = Peer(port, address)
            stack.callback(peer.close)
            return peer

        many = [connect("127.0.0.2") for _ in range(512)]
        kept = [each.ask() for each in many]
        beyond = connect("127.0.0.2")

        assert [200] * 512 == kept
        assert beyond.is_closed()
        assert 200 == connect("127.0.0.3").ask()
        assert [200] * 512 == [each.ask() for each in many]
