"""Faults at the n-th system call of a running process, by strace: it dies there, before the call, or the call fails."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

DIES = "signal=SIGKILL"
FAILS = "error=EIO"


class Place(Struct, frozen=True):
    """Where faults are injected: a system call, on one file, or by the thread of the reactor."""

    call: str
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.call} of {self.file.name}" if self.file else self.call


@contextmanager
def injected(pid: int, place: Place, fault: str, number: int, log: Path) -> Iterator[None]:
    """While this lasts, `fault` comes to the call number `number` from now at `place`; what happens is written to `log`.

    strace counts for each thread. A file is written by one thread, and without a file only the reactor's is looked at.
    """
    which = ["-f", "-P", str(place.file.resolve())] if place.file else []
    inject = f"inject={place.call}:{fault}:when={number}"
    log.unlink(missing_ok=True)
    command = ["strace", *which, "-e", f"trace={place.call}", "-e", inject, "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        assert " attached" in said, f"strace: {said}{strace.stderr.read()}"
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.stderr.read()


def happened(log: Path) -> bool:
    """Whether a fault was injected; once strace has ended."""
    said = log.read_text()
    return "(INJECTED)" in said or "killed by SIGKILL" in said
