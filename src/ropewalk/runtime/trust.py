"""Who is believed: the system's secret, and what is made of it for each service.

The secret signs sessions, forms and what siblings say of themselves. It is configured (`[system] secret`, better
`ROPEWALK_SYSTEM__SECRET`), or made once and kept in the data folder, where every process of this machine reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from ..errors import ConfigurationError
from ..http.auth import BearerJWT, SessionCookie
from ..http.cors import CORS
from ..http.identity import Identity, SiblingIdentity
from ..http.sessions import Sessions
from ..interfaces import IAuthenticator
from ..message import Request, caller
from .config import Config


class Trust:
    """Makes what signs and what verifies, for the services of one process."""

    def __init__(self, config: Config, data: Path, now: Callable[[], float], random: Random) -> None:
        """`data`: the folder the secret is kept in; `now`: wall-clock seconds; `random`: a SystemRandom.

        Raises ConfigurationError when there is no secret and none can be kept.
        """
        configured = config.file.system.secret
        self._secret = configured.get_secret_value() if configured is not None else _kept(data / "secret", random)
        self._now = now
        self._random = random
        self._auth = config.file.auth
        cors = config.file.cors
        self.cors = CORS(cors.origins, credentials=cors.credentials) if cors.origins else None

    def sessions(self, service: str) -> Sessions:
        """The session cookies of `service`."""
        # Whose scripts may come with cookies, their requests must not be taken for forged ones.
        origins = self.cors.origins if self.cors is not None and self.cors.credentials else ()
        return Sessions(self._secret, self._now, self._random, name=f"{service}-session", origins=origins)

    def authenticators(self, service: str, sessions: Sessions) -> list[IAuthenticator]:
        """Who may prove what to `service`: siblings, then bearers, then browsers."""
        found: list[IAuthenticator] = [SiblingIdentity(self._secret, service, self._now)]
        key = self._auth.jwt_key
        if key is not None:
            found.append(
                BearerJWT(
                    key.get_secret_value(),
                    self._now,
                    algorithms=self._auth.jwt_algorithms,
                    issuer=self._auth.issuer,
                    audience=self._auth.audience,
                )
            )
        found.append(SessionCookie(sessions))
        return found

    def identity(self, service: str) -> Identity:
        """What `service` says of itself to its siblings."""
        return Identity(self._secret, service, self._now)


def says_who(identity: Identity, callee: str) -> Callable[[Request], str]:
    """The identity header of a call of `callee`, on behalf of the request's principal."""
    return lambda request: identity.token(callee, request.principal)


def says_whose(identity: Identity) -> Callable[[str], str]:
    """The same for a raw HTTP call, on behalf of whom the running operation serves."""
    return lambda callee: identity.token(callee, caller())


def _kept(path: Path, random: Random) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written elsewhere first: of several processes that start at once, one wins and the others read a whole file.
        mine = path.with_name(f"secret.{os.getpid()}")
        mine.touch(0o600)
        mine.write_text(f"{random.getrandbits(256):064x}\n", "ascii")
        try:
            os.link(mine, path)
        except FileExistsError:
            pass
        finally:
            mine.unlink()
        return path.read_text("ascii").strip()
    except OSError as error:
        raise ConfigurationError(
            f"No secret is configured ([system] secret or ROPEWALK_SYSTEM__SECRET), and none can be kept: {error}."
        ) from error
