"""Points in product code at which a simulation may make something improbable happen.

    if buggify("search: the page is half as long"):
        limit //= 2

Outside of a simulation the answer is always no. In one, each seed chooses some of the points, and those fire now and
then; a report tells which of them ever did. The idea is FoundationDB's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_decide: Callable[[str], bool] | None = None


def buggify(point: str) -> bool:
    """Whether the improbable is to happen at `point`, a sentence that says what that is."""
    return _decide is not None and _decide(point)


@contextmanager
def deciding(decide: Callable[[str], bool]) -> Iterator[None]:
    """For as long as this lasts, `decide(point)` answers."""
    global _decide
    before, _decide = _decide, decide
    try:
        yield
    finally:
        _decide = before
