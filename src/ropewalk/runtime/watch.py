"""Which source files a process runs, and which of them changed. Bounded: a system has thousands of them, not more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

FILES = 5000  # watched at most; beyond it, those that come last in the alphabet are not

Seen = Mapping[str, int | None]  # file -> when it was modified, in nanoseconds; None when it is not there


def loaded(folder: Path, modules: Iterable[ModuleType | None]) -> tuple[str, ...]:
    """The files below `folder` that these modules were made from, sorted; installed packages are left out."""
    files = (getattr(module, "__file__", None) for module in list(modules))
    return tuple(sorted({file for file in files if file is not None and _is_own(folder, file)})[:FILES])


def sources(folder: Path) -> tuple[str, ...]:
    """All Python files below `folder` that could be loaded, sorted."""
    return tuple(sorted(_python_files(folder))[:FILES])


def look(files: Iterable[str]) -> Seen:
    """When each of `files` was modified."""
    return {file: _modified(file) for file in files}


def changed(before: Seen, now: Seen) -> tuple[str, ...]:
    """The files that both looked at and found different, sorted."""
    return tuple(sorted(file for file, modified in now.items() if file in before and before[file] != modified))


def _modified(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None


def _is_own(folder: Path, file: str) -> bool:
    try:
        parts = Path(file).relative_to(folder).parts
    except ValueError:
        return False
    return not any(_is_foreign(part) for part in parts)


def _is_foreign(part: str) -> bool:
    return part.startswith(".") or part in ("site-packages", "node_modules", "__pycache__")


def _python_files(folder: Path) -> Iterator[str]:
    seen = 0
    for where, folders, files in os.walk(folder):
        # A virtual environment says so itself, whatever its name is.
        folders[:] = sorted(
            each for each in folders if not _is_foreign(each) and not Path(where, each, "pyvenv.cfg").exists()
        )
        yield from (os.path.join(where, file) for file in files if file.endswith(".py"))
        seen += len(files)
        if seen > FILES * 10:  # not a system's folder, then; somebody's home, perhaps
            return
