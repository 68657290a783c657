"""Facts about the data folder: whose it is, and that one at a time uses it."""

from __future__ import annotations

import os

import pytest

from ropewalk.errors import ConfigurationError
from ropewalk.runtime.data import port_of_up, prepare


@pytest.fixture
def prepared():
    """`prepared(folder, ...)`: prepare, and let go of it after the test."""
    locks = []

    def prepared(folder, **options):
        locks.append(prepare(folder, **options))
        return locks[-1]

    yield prepared
    for lock in locks:
        os.close(lock)


def test_a_folder_it_made_is_deleted_when_it_is_to_be_fresh(tmp_path):
    folder = tmp_path / "deep" / "data"
    os.close(prepare(folder))
    (folder / "rooms.sqlite3").write_text("old")

    os.close(prepare(folder, fresh=True))

    assert [".gitignore", "made-by-ropewalk-up", "up.lock"] == sorted(path.name for path in folder.iterdir())


def test_a_folder_it_did_not_make_is_used_and_never_deleted(tmp_path, prepared):
    (tmp_path / "mine").write_text("")
    prepared(tmp_path)

    with pytest.raises(ConfigurationError, match="was not made by `ropewalk up`"):
        prepare(tmp_path, fresh=True)

    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_in_use_is_refused(tmp_path, prepared, fresh):
    folder = tmp_path / "data"
    prepared(folder)

    with pytest.raises(ConfigurationError, match="Another `ropewalk up` keeps its data in"):
        prepare(folder, fresh=fresh)


def test_what_cannot_be_a_folder_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"--data .*/file: File exists\."):
        prepare(tmp_path / "file")


def test_the_port_of_who_uses_it_can_be_read(tmp_path, prepared):
    prepared(tmp_path, port=8123)

    assert 8123 == port_of_up(tmp_path)


def test_nobody_uses_a_folder_whose_lock_is_free(tmp_path):
    assert port_of_up(tmp_path) is None

    os.close(prepare(tmp_path, port=8123))

    assert port_of_up(tmp_path) is None
