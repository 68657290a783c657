"""What the garbage collector looks at, where it is called at set moments: at every one of them at all that lives."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_what_is_new() -> Iterator[None]:
    """While this lasts the collector does not look at what lived before it, such as all that is imported."""
    gc.collect()
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:  # else somebody else's freeze would be undone, too
            gc.unfreeze()
