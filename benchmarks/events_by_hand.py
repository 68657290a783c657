"""FastStream and aio-pika as one uses them where nothing may be lost: an outbox, its relay and an inbox, by hand.

A process of `benchmarks/events.py`, which says what is compared.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec

from events import AT_ONCE, CONNECTIONS, LEFT, RABBITMQ, TEXT, die, produce, schema_of


class ByHand:
    """An outbox, its relay and an inbox on asyncpg; `wire` is a broker's client."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._wake = asyncio.Event()
        self._times: list[tuple[float, float]] = []

    async def open(self, dsn: str, schema: str, sends: bool) -> None:
        """Begin to hand on, or to take."""
        import asyncpg

        self._pool = await asyncpg.create_pool(
            dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings={"search_path": schema}
        )
        await self._wire.open(None if sends else self._handle, None if sends else self._handle_bare)
        if sends:
            self._relaying = asyncio.create_task(self._relay())

    async def do(self, what: str, number: int = 0, rate: float = 0.0) -> Any:
        """What somebody asks for."""
        match what:
            case "send":
                return await produce(self._send, number, rate)
            case "send_bare":
                return await produce(self._send_bare, number, 0.0)
            case "die":
                async with self._pool.acquire() as connection, connection.transaction():
                    for _ in range(LEFT):
                        await self._publish(connection)
                self._wake.set()
                die()
            case "taken":
                times, self._times = self._times, []
                return {"events": times}
        return None

    async def _send(self) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO sent (text) VALUES ($1)", TEXT)
            await self._publish(connection)
        self._wake.set()

    async def _publish(self, connection: Any) -> None:
        body = msgspec.json.encode({"at": monotonic(), "text": TEXT})
        await connection.execute("INSERT INTO outbox (id, body) VALUES ($1, $2)", uuid4().hex, body)

    async def _relay(self) -> None:
        take = "SELECT position, id, body FROM outbox ORDER BY position LIMIT 500 FOR UPDATE SKIP LOCKED"
        async with self._pool.acquire() as connection:
            while True:
                self._wake.clear()
                async with connection.transaction():
                    rows = await connection.fetch(take)
                    if rows:
                        await asyncio.gather(*(self._wire.publish(row["id"], row["body"]) for row in rows))
                        gone = [row["position"] for row in rows]
                        await connection.execute("DELETE FROM outbox WHERE position = ANY($1)", gone)
                if not rows:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), 1.0)

    async def _handle(self, id: str, body: bytes) -> None:
        event = msgspec.json.decode(body)
        async with self._pool.acquire() as connection, connection.transaction():
            new = "INSERT INTO inbox (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true"
            if await connection.fetchval(new, id):
                await connection.execute("INSERT INTO taken (text) VALUES ($1)", event["text"])
        self._times.append((event["at"], monotonic()))

    async def _send_bare(self) -> None:
        await self._wire.publish_bare(uuid4().hex, msgspec.json.encode({"at": monotonic(), "text": TEXT}))

    async def _handle_bare(self, id: str, body: bytes) -> None:
        self._times.append((msgspec.json.decode(body)["at"], monotonic()))


class AioPika:
    """As its documentation has it."""

    def __init__(self, name: str) -> None:
        self._names = (name, f"{name}-bare")

    async def open(self, *handles: Any) -> None:
        import aio_pika

        self._message, self._persistent = aio_pika.Message, aio_pika.DeliveryMode.PERSISTENT
        self._connection = await aio_pika.connect_robust(f"amqp://{RABBITMQ}")
        channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = channel.default_exchange
        for name, handle in zip(self._names, handles, strict=True):
            taking = await self._connection.channel()
            await taking.set_qos(prefetch_count=AT_ONCE)
            queue = await taking.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
            if handle is not None:
                await queue.consume(_acknowledging(handle))

    async def publish(self, id: str, body: bytes) -> None:
        message = self._message(body, message_id=id, delivery_mode=self._persistent)
        await self._exchange.publish(message, self._names[0])

    async def publish_bare(self, id: str, body: bytes) -> None:
        message = self._message(body, message_id=id, delivery_mode=self._persistent)
        await self._exchange.publish(message, self._names[1])


def _acknowledging(handle: Any) -> Callable[[Any], Awaitable[None]]:
    async def came(message: Any) -> None:
        await handle(message.message_id, message.body)
        await message.ack()

    return came


class FastStream:
    """As its documentation has it, with nothing to validate and no log."""

    def __init__(self, name: str) -> None:
        self._names = (name, f"{name}-bare")

    async def open(self, *handles: Any) -> None:
        from faststream import AckPolicy
        from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

        channel = Channel(prefetch_count=AT_ONCE, publisher_confirms=True)
        self._broker = RabbitBroker(f"amqp://{RABBITMQ}", logger=None, default_channel=channel)
        for name, handle in zip(self._names, handles, strict=True):
            queue = RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)
            if handle is not None:
                subscribed = self._broker.subscriber(queue, ack_policy=AckPolicy.MANUAL)
                subscribed(_acknowledged(handle))
        await self._broker.start()

    async def publish(self, id: str, body: bytes) -> None:
        await self._broker.publish(body, self._names[0], message_id=id, persist=True)

    async def publish_bare(self, id: str, body: bytes) -> None:
        await self._broker.publish(body, self._names[1], message_id=id, persist=True)


def _acknowledged(handle: Any) -> Callable[..., Awaitable[None]]:
    from faststream.rabbit.annotations import RabbitMessage

    async def came(message: Any) -> None:
        await handle(message.message_id, message.body)
        await message.ack()

    came.__annotations__["message"] = RabbitMessage  # which is known here alone
    return came


WIRES = {"FastStream": FastStream, "aio-pika": AioPika}


async def serve_by_hand(side: str, role: str, dsn: str, name: str) -> None:
    """A process of a peer: does what it is told, a line of JSON each, and answers with one."""
    by_hand = ByHand(WIRES[side](name))
    await by_hand.open(dsn, schema_of(side), role == "sender")
    print("null", flush=True)
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await by_hand.do(**json.loads(line))), flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_by_hand(*sys.argv[1:]))
