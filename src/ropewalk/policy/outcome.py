"""The one judge of what an answer was. Everything that counts, retries, ejects or reports asks here.

>>> from ropewalk.errors import Conflict, Unavailable
>>> judge_error(Conflict("taken")), judge_error(Unavailable("down")), judge_status(204)
('caller', 'failure', 'success')
"""

from __future__ import annotations

import asyncio
from typing import Literal

from ..errors import RopewalkError

Outcome = Literal["success", "caller", "failure", "rejected", "cancelled"]
# success: answered. caller: answered that the request is at fault. failure: could not answer. rejected: refused before
# the operation's own code began (load, rate, draining), so that it may be asked again. cancelled: nobody waits for it.


def judge_status(status: int) -> Outcome:
    """What a reply's status says."""
    if status < 400:
        return "success"
    if status == 429:
        return "rejected"
    return "caller" if status < 500 else "failure"


def judge_error(error: BaseException) -> Outcome:
    """What a raised error says."""
    if isinstance(error, RopewalkError):
        if error.ran == "no" and error.status in (429, 503):
            return "rejected"
        return judge_status(error.status)
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "failure"


def status_of(error: BaseException) -> int:
    """The status a caller will see; 499 (nginx's) for a request nobody waits for any more."""
    if isinstance(error, RopewalkError):
        return error.status
    return 499 if isinstance(error, asyncio.CancelledError) else 500
