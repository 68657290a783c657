"""The folder in which `ropewalk up` keeps a system's data: made, marked as its own, and used by one at a time.

The lock says at which port the one begins that holds it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError

MARKER = "made-by-ropewalk-up"
LOCK = "up.lock"


def prepare(folder: Path, *, fresh: bool = False, port: int = 0) -> int:
    """Make `folder` if it is not there, and lock it; the lock's descriptor, which holds until it is closed.

    `port`: of the first listener, for `port_of_up`. `fresh`: delete it first. Raises ConfigurationError when it is in
    use, or to be deleted and not our own.
    """
    if fresh and folder.exists():
        if not (folder / MARKER).is_file():
            raise ConfigurationError(
                f"--fresh: {folder} was not made by `ropewalk up` ({MARKER} is not in it); delete it yourself, or say "
                "--data DIR."
            )
        lock = _locked(folder)
        shutil.rmtree(folder)
        os.close(lock)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            (folder / MARKER).write_text("`ropewalk up --fresh` deletes this folder.\n", "utf-8")
            (folder / ".gitignore").write_text("*\n", "utf-8")
        lock = _locked(folder)
        os.truncate(lock, 0)
        os.write(lock, b"%d\n" % port)
        return lock
    except OSError as error:
        raise ConfigurationError(f"--data {folder}: {error.strerror or error}.") from error


def port_of_up(folder: Path) -> int | None:
    """Where the `ropewalk up` that keeps its data in `folder` begins to listen; None when there is none now."""
    with suppress(OSError, ValueError), (folder / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read())
    return None


def _locked(folder: Path) -> int:
    # The kernel lets go of it when the process ends, however it does.
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigurationError(
            f"Another `ropewalk up` keeps its data in {folder}; end it, or say --data DIR."
        ) from None
    return lock
