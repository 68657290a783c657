"""The failing schedules a project keeps: a JSON file each, named by what broke and the seed, replayed before all else.

A grave is written for people and for version control: indented, sorted, and the same bytes for the same failure.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from ..errors import ConfigurationError
from .values import Outcome, Schedule

LONGEST = 60  # characters of what broke in a file's name: with seed and ending far below any file system's 255


class Grave(Struct, frozen=True):
    """What a file holds."""

    schedule: Schedule
    broken: str = ""  # for the reader; the replay says it anew


def bury(folder: str | Path, outcome: Outcome) -> Path:
    """Write the schedule of a failing outcome into `folder` (made when missing); returns the path.

    The same failure of the same seed has the same name: the newer, and usually smaller, schedule replaces the older.
    """
    path = Path(folder) / f"{slug(outcome)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a failure its first line: a traceback names files of the machine it was found on.
    grave = Grave(outcome.schedule, outcome.broken.partition("\n")[0])
    path.write_bytes(msgspec.json.format(msgspec.json.encode(grave, order="sorted"), indent=2) + b"\n")
    return path


def exhume(folder: str | Path) -> list[tuple[Path, Schedule]]:
    """The schedules kept in `folder`, by file name; none when there is no such folder.

    ConfigurationError when a file is not a grave.
    """
    return [(path, _read(path)) for path in sorted(Path(folder).glob("*.json"))]


def slug(outcome: Outcome) -> str:
    """What broke and the seed as a Python identifier: `no_room_twice_7`. It names the files of a failure."""
    words = re.findall(r"[a-z0-9]+", cause(outcome).lower())
    named = "_".join(words)[:LONGEST].strip("_") or "broken"
    return f"{named}_{str(abs(outcome.schedule.seed))[-20:]}"


def cause(outcome: Outcome) -> str:
    """What broke, without the particulars; two failures with one cause are taken for the same bug.

    The name of the invariant where one broke; else the report up to its first colon and the class of an error in it,
    without times and numbers.
    """
    broken = [event.text.partition(":")[0] for event in outcome.events if event.kind == "broken"]
    return broken[-1] if broken and outcome.broken else _without_particulars(outcome.broken)


def _without_particulars(report: str) -> str:
    """Only what stands for the bug.

    >>> _without_particulars("At 31.412 s: book #3 failed: KeyError: 'room'")
    'book failed KeyError'
    """
    said = re.sub(r"^(At [\d.]+ s:|[\d.]+ s after the last fault:?|\s)+", "", report)
    head, *rest = re.split(r":\s|:$|\n", said, maxsplit=1)
    error = re.search(r"(?<![\w.])([A-Z][A-Za-z]+): ", "".join(rest))
    words = re.sub(r"\S*\d\S*( s\b)?", " ", head).split()
    return " ".join([*words, *([error[1]] if error and error[1] not in words else [])])


def _read(path: Path) -> Schedule:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Grave).schedule
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"{path} is not a schedule of this version: {error}. Delete it, or let `ropewalk sim` find its seed again."
        ) from error
