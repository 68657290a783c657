"""Every planted bug applies to the sources as they are, is valid Python, and is the only difference."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _module() -> Any:
    """`planted.py` beside this file: the folder is no package, and on nobody's path."""
    name = "planted"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("planted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


planted = _module()
CORPUS = planted.corpus()
HOTEL, TRIPS = planted.HOTEL, "examples/trips/system.toml"
NUMBERS = {HOTEL: [*range(1, 40), *range(70, 80)], TRIPS: [*range(41, 70)]}
_HOTEL = "booking_ui", "clock", "hotels", "notifications", "payments", "receipts", "reservations", "users"
SERVICES = {HOTEL: [f"hotel.{name}" for name in _HOTEL], TRIPS: ["diary", "money", "rooms", "trips"]}
each = pytest.mark.parametrize("bug", CORPUS, ids=lambda bug: f"{bug.number:02}-{bug.name}")


@pytest.fixture(autouse=True)
def _patch(require):
    require("patch", shutil.which("patch"), "there is no program `patch` on PATH")


@each
def test_it_applies_and_compiles_and_changes_nothing_else(bug, tmp_path):
    planted.planted(tmp_path, bug.patch)

    changed = [file for file in bug.files if (tmp_path / file).read_bytes() != (planted.ROOT / file).read_bytes()]
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".rej", ".orig")]
    for file in changed:
        compile((tmp_path / file).read_text("utf-8"), file, "exec")
    assert (list(bug.files), []) == (changed, left)


@pytest.mark.long
@each
def test_its_system_can_be_imported_from_the_copy(bug, tmp_path):
    planted.planted(tmp_path, bug.patch)
    program = f"import ropewalk.runtime.process, {', '.join(SERVICES[bug.system])}\nprint(ropewalk.__file__)"

    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": planted.python_path(tmp_path, bug.system)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (f"{tmp_path / 'src/ropewalk/__init__.py'}\n", "", 0) == (said.stdout, said.stderr, said.returncode)


@pytest.mark.parametrize("system", NUMBERS)
def test_those_of_a_system_have_its_numbers(system):
    numbers = [bug.number for bug in CORPUS if bug.system == system]

    assert NUMBERS[system] == numbers


def test_each_is_of_a_system_that_is_known_and_no_two_are_called_the_same():
    assert set(NUMBERS) == {bug.system for bug in CORPUS}
    assert len(CORPUS) == len({bug.name for bug in CORPUS})


def test_a_patch_that_does_not_apply_is_named_with_what_was_said_of_it(tmp_path):
    patch = tmp_path / "99-of-other-sources.patch"
    patch.write_text("--- a/examples/hotel/hotel/today.py\n+++ b/examples/hotel/hotel/today.py\n@@ -1 +1 @@\n-a\n+b\n")

    with pytest.raises(planted.PatchFailed, match=r"99-of-other-sources\.patch does not apply[\s\S]*FAILED"):
        planted.planted(tmp_path / "copy", patch)


def test_the_table_names_every_patch():
    table = Path(__file__).with_name("README.rst").read_text("utf-8")

    assert [] == [bug.patch.name for bug in CORPUS if f"``{bug.patch.name}``" not in table]
