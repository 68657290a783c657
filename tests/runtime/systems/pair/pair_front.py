"""The service in front: it tells which process answers, and asks its sibling."""

import asyncio
import os

from pair_back import Back

from ropewalk import Service, Workers, get, post


class Front(Service, name="front", version="1.0.0"):
    """Answers, after a while if it is told to."""

    def __init__(self, back: Back, workers: Workers) -> None:
        self.back = back
        self.workers = workers

    @get("/pid")
    async def pid(self) -> int:
        """Which process answers."""
        return os.getpid()

    @get("/slow")
    async def slow(self, seconds: float) -> int:
        """The same, later."""
        await asyncio.sleep(seconds)
        return os.getpid()

    @get("/elsewhere")
    async def elsewhere(self) -> int:
        """Which process of the pool answers."""
        return await self.workers.process(os.getpid)

    @post("/echo")
    async def echo(self, words: list[str]) -> list[str]:
        """What was sent."""
        return words

    @get("/asked")
    async def asked(self) -> str:
        """What the sibling says."""
        return await self.back.word()
