"""What a caller accepts (RFC 9110, section 12.5.1), as far as a service with one media type per operation needs it."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=256)  # callers send few distinct values; bounded against those who do not
def accepts(accept: str | None, content_type: str) -> bool:
    """Whether `accept` admits `content_type`.

    >>> accepts("text/html, */*;q=0.1", "application/json"), accepts("text/html", "application/json")
    (True, False)
    >>> accepts("application/json;q=0, */*", "application/json")
    False
    """
    return quality(accept, content_type) > 0


@lru_cache(maxsize=256)
def quality(accept: str | None, content_type: str) -> float:
    """How much `accept` prefers `content_type`, 0 to 1; the most specific range decides, no header admits all."""
    if not accept:
        return 1.0
    kind = content_type.partition("/")[0]
    wanted = {content_type: 3, f"{kind}/*": 2, "*/*": 1}
    best, found = 0, 0.0
    for entry in accept.split(","):
        media, *options = (part.strip().lower() for part in entry.split(";"))
        rank = wanted.get(media, 0)
        if rank > best:
            best, found = rank, _q(options)
    return found


def _q(options: list[str]) -> float:
    for option in options:
        if option.startswith("q="):
            try:
                return min(1.0, max(0.0, float(option[2:])))
            except ValueError:
                return 0.0
    return 1.0
