"""One transaction, as the function given to `Database.run` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy


class Transaction:
    """What a function given to `Database.run` may do. Valid until that function returns."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def execute(
        self,
        statement: sqlalchemy.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sqlalchemy.CursorResult[Any]:
        """Execute a SQLAlchemy Core statement now; blocks this thread, never the reactor's."""
        return self._connection.execute(statement, parameters)
