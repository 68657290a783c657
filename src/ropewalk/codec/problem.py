"""Errors <-> RFC 9457 problem documents. The class is found by the problem's `type`, never imported by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast, get_args

import msgspec

from ..errors import DeadlineExceeded, Ran, RopewalkError, Unavailable

CONTENT_TYPE = "application/problem+json"
_MEMBERS = {"type", "title", "status", "detail", "instance"}
_OBEYED = ("retry-after",)


def to_problem(error: RopewalkError, *, redact: bool = False) -> dict[str, Any]:
    """The document; `redact` leaves out the detail and members of failures, for callers outside the system."""
    problem: dict[str, Any] = {"type": error.type, "title": error.title, "status": error.status}
    if redact and error.status >= 500:
        return problem
    if error.detail:
        problem["detail"] = error.detail
    problem.update((name, value) for name, value in error.members.items() if name not in problem)
    return problem


def from_problem(
    status: int,
    body: bytes,
    raises: Iterable[type[RopewalkError]] = (),
    *,
    ran: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> RopewalkError:
    """The error a reply with `status` (>= 400) stands for: declared classes first, then every known one.

    A body that is no problem document becomes the error its status means: 504 DeadlineExceeded, other 5xx Unavailable,
    else the built-in class of that status. `ran`: what the callee said of it; of one that says nothing, only its blame
    of the caller is believed. Of `headers` those are kept that a caller obeys.
    """
    try:
        problem = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    type = str(problem.get("type", ""))
    cls = {each.type: each for each in raises}.get(type) or RopewalkError.registry.get(type)
    if cls is None:
        cls = BY_STATUS.get(status) or (Unavailable if status >= 500 else RopewalkError)
    # Not cls(...): a subclass may take arguments of its own, and what it was made of is in the document.
    error = cls.__new__(cls)
    RopewalkError.__init__(
        error,
        str(problem.get("detail", "")),
        status=status,
        headers=[(name, value) for name, value in headers if name.lower() in _OBEYED],
    )
    error.members = {name: value for name, value in problem.items() if name not in _MEMBERS}
    error.ran = cast(Ran, ran) if ran in get_args(Ran) else "no" if error.fault == "caller" else "maybe"
    error.retryable = error.retryable and error.ran == "no"
    return error


# The built-in errors; of several of one status the most general, which its own subclasses follow.
BY_STATUS: dict[int, type[RopewalkError]] = {}
for _cls in RopewalkError.registry.values():
    if _cls.__module__ == RopewalkError.__module__ and not _cls.__name__.startswith("_") and _cls is not RopewalkError:
        BY_STATUS.setdefault(_cls.status, _cls)
assert BY_STATUS[504] is DeadlineExceeded
