"""Authenticators of people: a bearer token, or the session somebody signed in to. Siblings' is in `identity`.

Each provides `IAuthenticator`: what it cannot read is None, so that the next one is asked; what it reads and must not
believe is Unauthorized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, Key, KeySet, KeySetSerialization, OctKey, OKPKey, RSAKey
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry
from zope.interface import implementer

from ..errors import ConfigurationError, Unauthorized
from ..interfaces import IAuthenticator
from ..message import Principal
from .keys import SHORTEST
from .sessions import Sessions

LEEWAY = 30.0  # seconds another machine's clock may be off

# What an algorithm's name begins with -> the type of its keys. "none" is not among them, and never will be.
_FAMILIES: Mapping[str, type[Key]] = {"HS": OctKey, "RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


@implementer(IAuthenticator)
class BearerJWT:
    """`Authorization: Bearer <JWT>`: `sub` is the subject, `scope` ("a b") or `scopes` (a list) the scopes."""

    headers = ("authorization",)

    def __init__(
        self,
        key: str | Mapping[str, Any],
        now: Callable[[], float],
        *,
        algorithms: Sequence[str] = ("HS256",),
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = LEEWAY,
    ) -> None:
        """`key`: a secret for HS…, a PEM public key for RS…, PS…, ES… and Ed…, or a JWKS as a dict.

        `now`: wall-clock seconds; `leeway`: seconds. What `issuer` and `audience` name a token must say; without an
        audience, tokens meant for anybody are taken. Raises ConfigurationError for a key that does not fit.
        """
        self._key = _key(key, algorithms)
        self._algorithms = list(algorithms)
        options: dict[str, ClaimsOption] = {"exp": {"essential": True}, "sub": {"essential": True}}
        if issuer is not None:
            options["iss"] = {"essential": True, "value": issuer}
        if audience is not None:
            options["aud"] = {"essential": True, "value": audience}
        self._claims = JWTClaimsRegistry(lambda: int(now()), int(leeway), **options)

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal | None:
        """The token's principal; None when there is no bearer token."""
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(token.strip(), self._key, self._algorithms).claims
            self._claims.validate(claims)
            return Principal(subject=claims["sub"], scopes=_scopes(claims))
        except ExpiredTokenError as error:
            raise _refused("has expired") from error
        except (JoseError, ValueError, TypeError) as error:
            raise _refused("is not valid here") from error


@implementer(IAuthenticator)
class SessionCookie:
    """The signed session of a browser: who signed in there, with the scopes granted then."""

    headers = ("cookie",)

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal | None:
        """The session's principal; None when nobody signed in, and when it expired: the page to sign in is public."""
        session = self._sessions.read(metadata.get("cookie"))
        if session is None or session.subject is None:
            return None
        return Principal(subject=session.subject, scopes=session.scopes)


def _key(key: str | Mapping[str, Any], algorithms: Sequence[str]) -> Key | KeySet:
    families = {_FAMILIES.get(algorithm[:2]) for algorithm in algorithms}
    if not families or None in families:
        raise ConfigurationError(
            f"Expected algorithms like HS256, RS256, PS256, ES256 or Ed25519; got {', '.join(algorithms) or 'none'}."
        )
    try:
        if not isinstance(key, str):
            return KeySet.import_key_set(cast(KeySetSerialization, dict(key)))
        family, *others = families
        if others:
            # With one key for a secret's algorithm and a public key's, whoever has the public key could sign.
            raise ConfigurationError(f"One key has algorithms of one kind; got {', '.join(algorithms)}.")
        if family is OctKey and len(key.encode()) < SHORTEST:
            raise ConfigurationError(f"A secret for {algorithms[0]} has at least {SHORTEST} bytes; got {len(key)}.")
        return cast(type[Key], family).import_key(key)
    except (JoseError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"The key of bearer tokens does not fit {', '.join(algorithms)} ({error}): expected a secret for HS…, "
            'a PEM public key for the others, or a JWKS, {"keys": [...]}.'
        ) from error


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    said = claims.get("scope", claims.get("scopes", ()))
    scopes = said.split() if isinstance(said, str) else said
    if not isinstance(scopes, (list, tuple)) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("scopes are texts")
    return frozenset(scopes)


def _refused(why: str) -> Unauthorized:
    challenge = f'Bearer error="invalid_token", error_description="The token {why}"'  # RFC 6750, section 3
    return Unauthorized(f"The bearer token {why}.", headers=[("www-authenticate", challenge)])
