"""Facts about which source files are watched and which changed."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

from ropewalk.runtime.watch import changed, loaded, look, sources


@pytest.fixture
def folder(tmp_path):
    """A system's folder, with what lies in such folders."""
    for path in ("hotel/rooms.py", "hotel/notes.txt", ".hidden/a.py", "env/lib/x.py", "site-packages/b.py", "words.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    return tmp_path


def module(file) -> ModuleType:
    made = ModuleType("made")
    made.__file__ = str(file) if file is not None else None
    return made


def test_of_the_loaded_modules_those_of_the_system_count(folder):
    modules = [
        module(folder / "words.py"),
        module(folder / "hotel" / "rooms.py"),
        module(folder / "site-packages" / "b.py"),
        module(folder / ".hidden" / "a.py"),
        module("/usr/lib/python/os.py"),
        module(None),
        None,
    ]

    assert (str(folder / "hotel" / "rooms.py"), str(folder / "words.py")) == loaded(folder, modules)


def test_the_sources_are_all_python_files_but_those_of_environments_and_hidden_folders(folder):
    assert (str(folder / "hotel" / "rooms.py"), str(folder / "words.py")) == sources(folder)


def test_a_file_changed_when_its_time_differs_or_it_came_or_went(folder):
    files = [str(folder / name) for name in ("words.py", "hotel/rooms.py", "new.py", "hotel/notes.txt")]
    before = look(files)
    os.utime(files[0], ns=(1, 1))
    os.remove(files[1])
    (folder / "new.py").write_text("")

    assert tuple(sorted(files[:3])) == changed(before, look(files))


def test_a_file_that_was_not_looked_at_before_has_not_changed(folder):
    assert () == changed({}, look([str(folder / "words.py")]))
