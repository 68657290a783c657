"""What only the inside may ask: `/health/live`, `/health/ready`, `/metrics`. Klein handlers by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

Answer = Callable[[Any], Any]


def inside(ready: Callable[[], bool], metrics: Callable[[], Any], content_type: str) -> dict[str, Answer]:
    """The handlers. `ready()`: may this process be given work; `metrics()`: the page's bytes, or a Deferred of them.

    Live means that the reactor turns, which answering proves. Ready means this process, never its siblings.
    """

    def live(request: Any) -> bytes:
        return _json(request, 200, {"status": "live"})

    def readiness(request: Any) -> bytes:
        return _json(request, 200, {"status": "ready"}) if ready() else _json(request, 503, {"status": "not ready"})

    def page(request: Any) -> Any:
        request.setHeader(b"content-type", content_type.encode())
        return metrics()

    return {"/health/live": live, "/health/ready": readiness, "/metrics": page}


def _json(request: Any, status: int, body: dict[str, str]) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    return msgspec.json.encode(body)
