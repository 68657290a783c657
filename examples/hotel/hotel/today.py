"""How a service learns the time: it asks the clock service over HTTP, as it would ask anything on the web."""

from __future__ import annotations

import asyncio
from datetime import datetime

from treq.client import HTTPClient

from ropewalk import RopewalkError, Unavailable

PATIENCE = 2.0  # seconds: a machine that lost its power never answers, and a sweep has no deadline that would end it


async def read_clock(http: HTTPClient) -> datetime:
    """The time in UTC, to the second; raises Unavailable when the clock service does not tell it."""
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await http.get("sibling://clock/now")
            text = await reply.text()
    except RopewalkError:
        raise
    except Exception as error:  # whatever can go wrong on the way: Twisted has no common base for it
        raise Unavailable(f"The clock cannot be reached: {str(error) or type(error).__name__}") from error
    if reply.code != 200:
        raise Unavailable(f"The clock answered {reply.code} instead of the time.")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Unavailable(f"The clock answered what is not a time: {error}") from error
