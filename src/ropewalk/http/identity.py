"""How services say to each other who they are, and for whom they ask: a signed token in the header `ropewalk-identity`.

An HS256 JWT that lives a minute: `iss` is the calling service, `aud` the called one, `sub` and `scopes` the subject on
whose behalf. Both ends have one secret, from which the key is made (see `keys`; the purpose is "identity"). A public
listener never sees the header: it is stripped with the others of ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jwt import JWTClaimsRegistry
from zope.interface import implementer

from ..errors import Unauthorized
from ..interfaces import IAuthenticator
from ..message import Principal
from ..telemetry.propagation import IDENTITY
from .keys import keys_of

LIFE = 60  # seconds: as long as a call may reasonably wait to be sent, and a stolen token is worth little
LEEWAY = 30  # seconds another machine's clock may be off: as for bearer tokens
CACHED = 1024  # tokens kept; of more, the one that was longest not asked for is made anew

_ALGORITHM = "HS256"


class Identity:
    """Says who `service` is, to each sibling in its own words."""

    def __init__(
        self, secrets: str | Sequence[str], service: str, now: Callable[[], float], *, cached: int = CACHED
    ) -> None:
        """`secrets`: the first one signs; `now`: wall-clock seconds; `cached`: how many tokens are kept."""
        self._key = OctKey.import_key(keys_of(secrets, "identity")[0])
        self._service = service
        self._now = now
        self._cached = cached
        self._tokens: OrderedDict[tuple[str, str | None, frozenset[str]], tuple[float, str]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Identity of {self._service}, {len(self._tokens)} tokens>"

    def token(self, callee: str, principal: Principal) -> str:
        """The header's value for a call of `callee` on behalf of `principal`; the same one for half of its life."""
        now = self._now()
        place = (callee, principal.subject, principal.scopes)
        until, token = self._tokens.get(place, (0.0, ""))
        if not now < until <= now + LIFE / 2:  # the clock may also have been set back
            until, token = now + LIFE / 2, self._signed(callee, principal, int(now))
            self._tokens[place] = (until, token)
            if len(self._tokens) > self._cached:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(place)
        return token

    def _signed(self, callee: str, principal: Principal, now: int) -> str:
        claims = {
            "iss": self._service,
            "aud": callee,
            "iat": now,
            "exp": now + LIFE,
            "scopes": sorted(principal.scopes),
        }
        if principal.subject is not None:
            claims["sub"] = principal.subject
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key)


@implementer(IAuthenticator)
class SiblingIdentity:
    """Reads what siblings say of themselves to `service`."""

    headers = (IDENTITY,)

    def __init__(
        self, secrets: str | Sequence[str], service: str, now: Callable[[], float], *, cached: int = CACHED
    ) -> None:
        """`secrets`: any may have signed; `now`: wall-clock seconds; `cached`: how many tokens are remembered."""
        self._now = now
        self._cached = cached
        # A token comes with every call for half a minute, and to verify it takes longer than most calls.
        self._verified: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._keys = [OctKey.import_key(key) for key in keys_of(secrets, "identity")]
        self._claims = JWTClaimsRegistry(
            lambda: int(now()),
            LEEWAY,
            iss={"essential": True},
            aud={"essential": True, "value": service},
            exp={"essential": True},
        )

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal | None:
        """The calling service and its subject; None when the caller says nothing."""
        token = metadata.get(IDENTITY)
        if token is None:
            return None
        until, principal = self._verified.get(token, (0.0, None))
        if principal is None or not self._now() < until:
            until, principal = self._verify(token)
            self._verified[token] = (until, principal)
            if len(self._verified) > self._cached:
                self._verified.popitem(last=False)
        return principal

    def _verify(self, token: str) -> tuple[float, Principal]:
        """Until when it holds, in wall-clock seconds, and whose it is; raises Unauthorized."""
        failed: Exception | None = None
        for key in self._keys:
            try:
                claims = jwt.decode(token, key, [_ALGORITHM]).claims
                self._claims.validate(claims)
                principal = Principal(claims["iss"], claims.get("sub"), frozenset(claims.get("scopes", ())))
                return claims["exp"] + LEEWAY, principal
            except (JoseError, ValueError, TypeError) as error:
                failed = error
        raise Unauthorized("The calling service's token is not valid here.") from failed
