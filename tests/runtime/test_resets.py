"""A client that goes without a word leaves nothing behind in the process it asked."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

ABORT = struct.pack("ii", 1, 0)  # of SO_LINGER: close with a reset


def test_a_request_with_a_reset_behind_it_leaves_no_connection_and_does_not_hold_up_the_end(twistd, machine):
    port = machine.free_ports(3)
    process = twistd("system.toml", "--process=old", f"--port={port}", "--drain-delay=0")
    machine.wait_until(lambda: machine.answer(port + 2, "/pid"))
    before = descriptors(process.pid)

    process.signal(signal.SIGSTOP)  # so that it finds both at once
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port + 2)) as client:
            client.sendall(b"GET /slow?seconds=0.1 HTTP/1.1\r\nHost: test\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    process.signal(signal.SIGCONT)
    assert machine.answer(port + 2, "/pid")
    machine.wait_until(lambda: descriptors(process.pid) <= before)
    process.signal(signal.SIGTERM)

    assert -signal.SIGTERM == process.ended(timeout=5)
    assert "Unhandled" not in process.printed


def descriptors(pid: int) -> int:
    """How many files, sockets among them, a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
