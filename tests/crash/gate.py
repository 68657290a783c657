"""Gates between a process and its servers. At the n-th piece of bytes, either way, the process dies before it passes.

What the process sent before that has been sent; what it had not heard it never hears. So between "killed at n" and
"killed at n + 1" lies one message: a COMMIT that never came to the server, then one whose answer never came back.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

PIECE = 1 << 16  # bytes


class Toll:
    """Counts what passes the gates of one process."""

    def __init__(self) -> None:
        self.count = 0
        self.fired = False
        self._lock = threading.Lock()
        self._at = 0
        self._kill: Callable[[], object] = lambda: None
        self._last = 0.0

    def arm(self, at: int, kill: Callable[[], object]) -> None:
        """From now on count, and call `kill` before the piece number `at` passes; 0: never."""
        with self._lock:
            self.count, self.fired, self._at, self._kill = 0, False, at, kill

    def passes(self) -> bool:
        """Whether one more piece may."""
        with self._lock:  # while somebody dies nothing passes
            self.count += 1
            self._last = time.monotonic()
            if self.fired or self.count != self._at:
                return True
            self._kill()
            self.fired = True
            return False

    def quiet(self, seconds: float) -> bool:
        """Whether nothing has passed for so long."""
        return time.monotonic() - self._last >= seconds


class Gate:
    """A port on loopback that leads to another one."""

    def __init__(self, server: int, toll: Toll) -> None:
        self._server = server
        self._toll = toll
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._carrying: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """End every connection."""
        for each in list(self._open):
            _end(each)

    def close(self) -> None:
        """Let nobody through any more; returns when nothing is left."""
        _end(self._listening)
        self._accepting.join()
        self._listening.close()
        self.cut()
        for thread in self._carrying:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:  # closed
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._server))
            except OSError:  # nobody is there, as whoever asks is told
                near.close()
                continue
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {near, far}
            carrying = threading.Thread(target=self._carry, args=[near, far], daemon=True)
            carrying.start()
            self._carrying = [carrying, *(thread for thread in self._carrying if thread.is_alive())]

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Both ways, until one of them ends."""
        back = threading.Thread(target=self._pass, args=[far, near], daemon=True)
        back.start()
        self._pass(near, far)
        back.join()
        self._open -= {near, far}
        near.close()
        far.close()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # an end that is gone ends the other, below
            while (piece := source.recv(PIECE)) and self._toll.passes():
                sink.sendall(piece)
        _end(source)
        _end(sink)


def _end(each: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        each.shutdown(socket.SHUT_RDWR)
