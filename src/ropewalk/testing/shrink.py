"""Making a failing schedule small: drop what the failure does not need, then make what is left plain.

Delta debugging over the acts and faults of a schedule. It knows nothing of Worlds: `fails` runs one, or is a lambda.

>>> from ropewalk.testing.values import Act, Fault, Schedule
>>> acts = tuple(Act(float(number), "book", number) for number in range(1, 9))
>>> large = Schedule(7, 600.0, acts, (Fault(3.5, "crash", "payments/1"), Fault(4.5, "restart", "payments/1")))
>>> small = shrink(large, lambda schedule: any(act.number == 5 for act in schedule.acts))
>>> small.seconds, small.acts, small.faults
(1.0, (Act(at=0.0, name='book', number=5),), ())
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from math import ceil, floor
from typing import TypeVar

from msgspec.structs import replace

from .faults import ENDS
from .values import Act, Fault, Late, Schedule

Entry = Act | Fault
Progress = Callable[[int, Schedule], object]

AHEAD = 16  # schedules that may be begun before it is known that they are needed
BUDGET = 200  # simulations: at a few hundred virtual minutes a second, a minute or so of waiting

T = TypeVar("T")


def shrink(
    schedule: Schedule,
    fails: Callable[[Schedule], bool],
    *,
    ended: float | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
    ahead: Callable[[Sequence[Schedule]], object] | None = None,
) -> Schedule:
    """The smallest schedule found for which `fails` is still true; `schedule` itself is taken to fail.

    `fails(schedule)` simulates it; it is called `budget` times at most, and never twice with equal schedules.
    `ended`: when it failed, in virtual seconds. `progress(calls, smallest)` is called after each. `ahead(schedules)` is
    told what is asked next unless something fails: whoever has processors to spare begins with it. Acts and faults keep
    their order, and times only become earlier.
    """
    search = _Search(schedule, fails, budget, progress, ahead)
    if ended is not None:
        search.accepts(_until(schedule, ended))
    _drop(search)
    _shorten(search)
    _simplify_times(search)
    _shorten(search)
    return search.smallest


class _Search:
    """The smallest failing schedule so far, and what may still be tried."""

    def __init__(
        self,
        schedule: Schedule,
        fails: Callable[[Schedule], bool],
        budget: int,
        progress: Progress | None,
        ahead: Callable[[Sequence[Schedule]], object] | None,
    ) -> None:
        self.smallest = schedule
        self._fails = fails
        self._budget = budget
        self._progress = progress
        self._ahead = ahead
        self._calls = 0
        self._seen = {schedule}

    def expects(self, candidates: Iterable[Schedule]) -> None:
        """These are tried next, in this order, as long as none is accepted."""
        if self._ahead is not None:
            left = self._budget - self._calls
            self._ahead(list(islice((each for each in candidates if each not in self._seen), min(left, AHEAD))))

    def accepts(self, candidate: Schedule) -> bool:
        """Whether `candidate` fails as well; it is the smallest then. What cannot be tried any more does not."""
        if self._calls >= self._budget or candidate in self._seen:
            return candidate == self.smallest
        self._seen.add(candidate)
        self._calls += 1
        if found := self._fails(candidate):
            self.smallest = candidate
        if self._progress is not None:
            self._progress(self._calls, self.smallest)
        return found

    @property
    def entries(self) -> list[Entry]:
        return _entries(self.smallest)


# -- what is there


def _drop(search: _Search) -> None:
    """Leave out as much as possible: all of a kind, what comes after the faults, then pairs, then one by one."""
    for nothing in (replace(search.smallest, acts=(), faults=()), replace(search.smallest, faults=())):
        if search.accepts(nothing):
            break
    late = _late_of(search.smallest)
    if late and not search.accepts(_with_late(search.smallest, [])):
        _minimise(search, late, lambda kept: _with_late(search.smallest, kept))
    _minimise(search, _pairs(search.entries), lambda pairs: _with(search.smallest, chain(*pairs)))
    _minimise(search, search.entries, lambda entries: _with(search.smallest, entries))


def _minimise(search: _Search, items: Sequence[T], made: Callable[[list[T]], Schedule]) -> None:
    """Remove chunks of `items`, half of them first and single ones last, until none can go.

    Only complements are tried: that a chunk alone fails is found by removing the others, at half the calls.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    while kept:
        removed = False
        start = 0
        while start < len(kept):
            search.expects(made(kept[:at] + kept[at + size :]) for at in range(start, len(kept), size))
            without = kept[:start] + kept[start + size :]
            if search.accepts(made(without)):
                kept, removed = without, True
            else:
                start += size
        if size == 1 and not removed:
            return
        size = max(1, min(size // 2, len(kept) // 2))


def _pairs(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries in order, each beginning together with its end."""
    found: list[list[Entry]] = []
    waiting: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        begun = waiting.pop((entry.kind, entry.target), None) if isinstance(entry, Fault) else None
        if begun is not None:
            begun.append(entry)
            continue
        found.append([entry])
        if isinstance(entry, Fault) and entry.kind in ENDS:
            waiting[ENDS[entry.kind], entry.target] = found[-1]
    return found


# -- how long


def _shorten(search: _Search) -> None:
    """Bisect for the fewest whole seconds; every entry still has its turn."""
    last = max((entry.at for entry in search.entries), default=0.0)
    low, high = floor(last) + 1, ceil(search.smallest.seconds)
    while low < high:
        middle = (low + high) // 2
        if search.accepts(replace(search.smallest, seconds=float(middle))):
            high = middle
        else:
            low = middle + 1


# -- when


def _simplify_times(search: _Search) -> None:
    """Earlier and rounder: all at once if possible, then each alone."""
    entries = search.entries
    for times in (
        [float(index) for index in range(len(entries))],
        [_floor(entry.at, 1.0) for entry in entries],
        [_floor(entry.at, 0.1) for entry in entries],
    ):
        if _accepts_times(search, times):
            break
    for index in range(len(entries)):
        for at in _plainer(search.entries, index):
            times = [entry.at for entry in search.entries]
            if _accepts_times(search, [*times[:index], at, *times[index + 1 :]]):
                break


def _plainer(entries: Sequence[Entry], index: int) -> Iterator[float]:
    """Times for one entry that are worth a try, the plainest first; none is before the entry in front of it."""
    at = entries[index].at
    before = entries[index - 1].at if index else 0.0
    tried = [before if index == 0 else float(floor(before) + 1), _floor(at, 10.0), _floor(at, 1.0), _floor(at, 0.1)]
    for candidate in dict.fromkeys(tried):
        if before <= candidate < at:
            yield candidate


def _accepts_times(search: _Search, times: Sequence[float]) -> bool:
    """Whether it still fails with these; times that are later, or no longer tell two entries apart, are not tried."""
    entries = search.entries
    was = [entry.at for entry in entries]
    apart = all(
        earlier < later or (earlier == later and old == next_old)
        for (earlier, later), (old, next_old) in zip(pairwise(times), pairwise(was), strict=True)
    )
    if not apart or any(at > old for at, old in zip(times, was, strict=True)):
        return False
    moved = (_moved(entry, at) for entry, at in zip(entries, times, strict=True))
    return search.accepts(_with(search.smallest, moved))


def _moved(entry: Entry, at: float) -> Entry:
    return replace(entry, at=at)


def _floor(at: float, unit: float) -> float:
    """`at` rounded down to a multiple of `unit`, with no more decimals than that has."""
    return round(floor(at / unit + 1e-9) * unit, 6)


# -- both kinds as one sequence


def _until(schedule: Schedule, end: float) -> Schedule:
    """Without what comes later; a schedule that looks for what never ends, or comes true, keeps its length."""
    seconds = min(schedule.seconds, float(ceil(end))) if schedule.mode == "safety" else schedule.seconds
    kept = _with(schedule, [entry for entry in _entries(schedule) if entry.at <= end])
    if _late_of(kept) and end <= schedule.seconds:
        kept = _with_late(kept, [])
    return replace(kept, seconds=seconds)


def _late_of(schedule: Schedule) -> list[Late | str]:
    """What comes after its faults: acts, and names of services that start anew."""
    return [*(schedule.late or ()), *(schedule.blind or ())]


def _with_late(schedule: Schedule, kept: Sequence[Late | str]) -> Schedule:
    """The schedule with these alone after its faults."""
    return replace(
        schedule,
        late=tuple(each for each in kept if isinstance(each, Late)),
        blind=tuple(each for each in kept if isinstance(each, str)),
    )


def _entries(schedule: Schedule) -> list[Entry]:
    """Acts and faults by time; of one moment, the acts first, each kind as it stands in the schedule."""
    return sorted([*schedule.acts, *schedule.faults], key=lambda entry: entry.at)


def _with(schedule: Schedule, entries: Iterable[Entry]) -> Schedule:
    """The schedule with these alone, in their order of time."""
    kept = sorted(entries, key=lambda entry: entry.at)
    return replace(
        schedule,
        acts=tuple(entry for entry in kept if isinstance(entry, Act)),
        faults=tuple(entry for entry in kept if isinstance(entry, Fault)),
    )
