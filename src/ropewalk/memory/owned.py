"""A lock beside a file, so that one process at a time has it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import ConfigurationError


def own(lock: Path, refusal: str) -> int:
    """The descriptor that holds the file `lock` until it is closed; the kernel lets go when the process ends.

    Raises ConfigurationError with `refusal`, in which "{owner}" is the process that has it: "process 4711".
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(held, 20, 0).decode() or "that has just begun"
        os.close(held)
        raise ConfigurationError(refusal.replace("{owner}", f"process {owner}")) from None
    os.ftruncate(held, 0)
    os.pwrite(held, str(os.getpid()).encode(), 0)
    return held
