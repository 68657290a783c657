"""Keys made of a secret, one for each purpose: what was signed for one use proves nothing in another.

A purpose's key is HMAC-SHA256(secret, "ropewalk " + purpose), so that who has only a key cannot make the others.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from ..errors import ConfigurationError

SHORTEST = 16  # bytes: 128 bits, when every one of them was drawn
MOST = 8  # secrets at a time: each one more is one more signature to try on what a stranger sent


def keys_of(secrets: str | Sequence[str], purpose: str) -> tuple[bytes, ...]:
    """The keys of `purpose`, newest first: the first one signs, all of them verify. A text is one secret.

    Raises ConfigurationError when there is no secret, when there are more than 8, or when one is shorter than 16 bytes.
    """
    if isinstance(secrets, str):
        secrets = [secrets]
    if not 1 <= len(secrets) <= MOST:
        raise ConfigurationError(f"Expected 1 to {MOST} secrets, the newest first; got {len(secrets)}.")
    for position, secret in enumerate(secrets):
        if len(secret.encode()) < SHORTEST:
            raise ConfigurationError(
                f"Secret {position + 1} of {len(secrets)} has {len(secret.encode())} bytes, and {SHORTEST} are needed; "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
            )
    return tuple(hmac.digest(secret.encode(), b"ropewalk " + purpose.encode(), "sha256") for secret in secrets)
