"""An SQLite file has one owner, and whoever comes second is told who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from ropewalk.errors import ConfigurationError
from ropewalk.memory.store import SQLiteStore

OTHER = """
import signal, sys
from pathlib import Path
from ropewalk.memory.store import SQLiteStore

SQLiteStore("sqlite", Path(sys.argv[1]), None, float).open("orders", None)
print("open", flush=True)
signal.pause()
"""


def store(folder: Path) -> SQLiteStore:
    return SQLiteStore("sqlite", folder, reactor, lambda: 0.0)


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        store(folder).open("orders", None)
    return str(raised.value)


def test_a_file_that_another_process_has_is_refused_until_that_ends_however_it_does(tmp_path: Path) -> None:
    other: Any = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE)
    with other:
        assert b"open\n" == other.stdout.readline()

        refused = refusal(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()

    assert refused == (
        f"The database of orders in {tmp_path} is owned by process {other.pid}: an SQLite file has one owner. End that "
        'first, or choose a server that many share: [adapters] store = "postgresql://...".'
    )
    mine = store(tmp_path)
    mine.open("orders", None)
    mine.close()


def test_the_files_of_two_services_may_have_two_owners(tmp_path: Path) -> None:
    mine, yours = store(tmp_path), store(tmp_path)

    mine.open("orders", None)
    yours.open("stock", None)

    assert f"owned by process {os.getpid()}" in refusal(tmp_path)
    yours.close()
    mine.close()


def test_a_store_that_was_closed_owns_nothing(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.open("orders", None)
    first.close()

    second = store(tmp_path)
    second.open("orders", None)
    second.close()


def test_tables_are_not_changed_under_the_owner(tmp_path: Path) -> None:
    owner = store(tmp_path)
    owner.open("orders", None)

    with pytest.raises(ConfigurationError, match="The database of orders"), store(tmp_path).changing("orders"):
        raise AssertionError("unreachable")
    owner.close()
