"""Which message of a queue may be handled next: the oldest whose key nobody is at work on. No I/O, no clock.

>>> lanes = Lanes()
>>> for position, key in (1, "a"), (2, "a"), (3, "b"), (4, ""):
...     lanes.add(position, key)
>>> [lanes.take() for _ in range(4)]
[1, 3, 4, None]
>>> lanes.done(1); lanes.take()
2
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Any)  # what stands for a message; the smaller, the earlier


class Lanes(Generic[T]):
    """The messages of one queue that are in memory. What has no key ("") is in a lane of its own."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[T]] = {}  # by key, what waits behind the one that is ready or taken
        self._ready: list[Any] = []  # a heap
        self._keys: dict[T, str] = {}  # of everything that is here
        self._taken: set[T] = set()

    def add(self, position: T, key: str) -> None:
        """One more; of its key it must be the latest. One that is here already is not taken twice."""
        if position in self._keys:
            return
        self._keys[position] = key
        lane = self._lanes.get(key) if key else None
        if lane is not None:
            lane.append(position)
            return
        if key:
            self._lanes[key] = deque()
        heappush(self._ready, position)

    def take(self) -> T | None:
        """The next one, or None while there is none that may be handled."""
        if not self._ready:
            return None
        position: T = heappop(self._ready)
        self._taken.add(position)
        return position

    def done(self, position: T) -> None:
        """It was handled: the next one of its key may be."""
        self._taken.discard(position)
        key = self._keys.pop(position)
        if not key:
            return
        lane = self._lanes[key]
        if lane:
            heappush(self._ready, lane.popleft())
        else:
            del self._lanes[key]

    def give_back(self, position: T) -> None:
        """It was not: it is the next one of its key again."""
        self._taken.discard(position)
        heappush(self._ready, position)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def taken(self) -> int:
        """How many are being handled."""
        return len(self._taken)
