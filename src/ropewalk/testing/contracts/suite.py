"""What all contract suites are: how their coroutines are driven. Nothing about any port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from ..waiting import wait_for

LIMIT = 30.0  # seconds for one test


class Contract:
    """The base of the suites. A test of one is `async def`, and is given to `drive`."""

    __ropewalk_contract__: ClassVar[bool] = True

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        """`await make()`: a new adapter. The fixture that a subclass has to bring."""
        raise NotImplementedError(
            f"{type(self).__name__} has no fixture `make`: expected one whose value is an `async def make()` that "
            "returns a new adapter."
        )

    def drive(self, awaitable: Awaitable[Any]) -> None:
        """Run a test to its end on the real reactor. What lives on another clock overrides this."""
        wait_for(awaitable, LIMIT)
