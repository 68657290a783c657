"""What a service is given to publish outside of any transaction of its own: each event is one."""

from __future__ import annotations

from ..event import Event
from ..store import Database, Transaction


class Publisher:
    """Publishes the events of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, event: Event, *, key: str | None = None) -> None:
        """Returns when `event` is durable; it reaches whoever has subscribed. Raises as `Database.run` does.

        Where something is true because of it, publish in that transaction: `tx.publish(event, key=...)`.
        """
        await self._database.run(_publish, event, key)


def _publish(tx: Transaction, event: Event, key: str | None) -> None:
    tx.publish(event, key=key)
