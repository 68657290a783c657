"""The planted bugs: patches that break one promise each, and a copy of the sources with one of them applied.

What a simulator is worth is told by what it finds. Each `NN-name.patch` beside this file is a mistake somebody could
have made: it applies to the checkout, starts, books a room, and breaks a promise when the world is unkind. Here is how
they are read and applied; who runs what against the copies is no affair of this module. Standard library and msgspec
alone: a runner loads it in the interpreter that has the unbroken framework.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = ("src", "examples")  # folders of the checkout that a patch may touch
HOTEL = "examples/hotel/system.toml"  # the system that a patch is hunted in, unless it names another one
_FILE = re.compile(r"(?P<number>[0-9]{2})-(?P<name>[a-z][a-z-]*)\.patch")
_FIELD = re.compile(r"^(Kind|Noticed|Guarantee|System|Minutes): (.+(?:\n  .+)*)$", re.MULTILINE)


class PatchFailed(Exception):
    """Raised when a patch does not apply to the sources as they are; the text is what `patch` said."""


class Planted(Struct, frozen=True):
    """One planted bug."""

    number: int
    name: str  # "late-charge-still-counts"
    kind: str  # "booking without charge, double booking"
    noticed: str  # what a user would notice
    guarantee: str  # what the patch breaks
    patch: Path
    text: str  # of the whole file: the fields, an empty line, a unified diff from the checkout's root
    system: str = HOTEL  # in which it can be noticed: its file, from the checkout's root
    minutes: str = "1"  # virtual minutes that a seed has to have: what it needs takes as long

    @property
    def files(self) -> tuple[str, ...]:
        """The files it changes, from the checkout's root."""
        return tuple(re.findall(r"^\+\+\+ b/(\S+)", self.text, re.MULTILINE))


def corpus() -> list[Planted]:
    """Every planted bug, by number; raises ValueError for a file whose name or head cannot be read."""
    return [_read(path) for path in sorted(HERE.glob("*.patch"))]


def planted(copy_to: Path, patch: Path) -> None:
    """Copy `src` and `examples` of the checkout into the folder `copy_to`, and apply `patch` there.

    `copy_to` is made; it must not hold these folders yet. A process with `python_path(copy_to, system)` as its PYTHONPATH
    then runs the broken sources. Raises PatchFailed with what the `patch` program said, also when it had to guess.
    """
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy_to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    # No fuzz: in other surroundings it may be no bug any more, or another one.
    command = ["patch", "-p1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch", "-i", str(patch)]
    said = subprocess.run(command, cwd=copy_to, capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise PatchFailed(f"{patch.name} does not apply to {copy_to}:\n{said.stdout}{said.stderr}")


def python_path(copy: Path, system: str = HOTEL) -> str:
    """The PYTHONPATH under which `ropewalk` and the services of `system` are those of the copy."""
    return f"{copy / 'src'}:{(copy / system).parent}"


def _read(path: Path) -> Planted:
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise ValueError(f"A planted bug is called like 07-short-name.patch; got {path.name}.")
    text = path.read_text("utf-8")
    head = text.partition("\n--- ")[0]
    fields = {label.lower(): " ".join(value.split()) for label, value in _FIELD.findall(head)}
    missing = {"kind", "noticed", "guarantee"} - fields.keys()
    if missing:
        raise ValueError(f"{path.name} does not say, above its diff: {', '.join(sorted(missing))}.")
    return Planted(int(match["number"]), match["name"], **fields, patch=path, text=text)
