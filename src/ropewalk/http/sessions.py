"""What a browser is remembered by: a small dict in a signed cookie. Nothing is kept here.

An operation asks for it with `session: Session = given`; what it changes goes out with the reply, whatever that is:

    @post("/sign-in", access="public")
    async def sign_in(self, form: Annotated[SignIn, Form], session: Session = given) -> Response:
        user = await self.users.check(form.name, form.password)
        session.sign_in(user.id, user.scopes)
        session.flash(f"Welcome, {user.name}.")
        return redirect("/")

Signed, not encrypted: its owner can read it and nobody can change it. As nothing is kept, nothing can be taken back
before it expires, and of two replies to one browser the later one's session wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from random import Random
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from msgspec import Struct
from twisted.logger import Logger
from werkzeug.http import dump_cookie

from ..errors import RopewalkError
from .heads import read_cookies
from .keys import keys_of

MAX_AGE = 14 * 86400.0  # seconds since it was last written: two weeks, as Django has it
LARGEST = 4096  # bytes of "name=value": what every browser keeps (RFC 6265, section 6.1)
SKEW = 60.0  # seconds another process's clock may be ahead of ours
NOTES = 10  # flash messages that wait to be read; of more, the oldest go

_ALGORITHM = "HS256"
_log = Logger("ropewalk.http")


class _Kept(Struct, omit_defaults=True):
    """The cookie's content."""

    id: str
    at: int = 0  # wall-clock seconds when it was written
    subject: str | None = None
    scopes: tuple[str, ...] = ()
    notes: list[str] = []
    data: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Kept).decode


class Session(MutableMapping[str, Any]):
    """A mutable mapping of names to JSON values, and who signed in. In a test: `Session({"cart": [3]}, subject="ada")`.

    A value becomes what JSON makes of it when it is put in (a tuple a list, a date its text); one that JSON has no form
    for raises TypeError, and what no longer fits into a cookie ValueError.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        subject: str | None = None,
        scopes: Iterable[str] = (),
        sessions: Sessions | None = None,
    ) -> None:
        """`sessions` is what keeps it; one that is made by hand has none, and is in no cookie."""
        self._sessions = sessions
        self._kept = _Kept("", 0, subject, tuple(sorted(scopes)))
        self._forgotten = False
        self._touched = False
        for name, value in (data or {}).items():
            self[name] = value

    @classmethod
    def of_request(cls, request: Any) -> Session:
        """The session of a `twisted.web` request that came over a listener with sessions; RuntimeError over another."""
        visit: Visit | None = getattr(request, "ropewalk_visit", None)
        if visit is None:
            raise RuntimeError("This listener keeps no sessions: it was given no secret to sign them with.")
        return visit.session

    @property
    def id(self) -> str:
        """32 hex digits, "" when made by hand; another one after `sign_in`, `rotate` and `clear`."""
        if not self._kept.id and self._sessions is not None:
            self._kept.id = self._sessions.new_id()  # not before somebody needs it: most visitors leave nothing behind
        return self._kept.id

    @property
    def subject(self) -> str | None:
        """Who signed in."""
        return self._kept.subject

    @property
    def scopes(self) -> frozenset[str]:
        """What was granted then."""
        return frozenset(self._kept.scopes)

    def sign_in(self, subject: str, scopes: Iterable[str] = ()) -> None:
        """Remember who this is. The session gets a new id, so that one planted beforehand is worth nothing."""
        self._change(id="", subject=subject, scopes=tuple(sorted(scopes)))

    def rotate(self) -> None:
        """Give it a new id: forms rendered before no longer count."""
        self._kept.id = ""
        self._touched = True

    def clear(self) -> None:
        """Forget everything, who signed in included; the reply deletes the cookie, unless something is put in again."""
        self._kept = _Kept("")
        self._forgotten = True
        self._touched = False

    def flash(self, message: str) -> None:
        """Leave a message for the next page; of more than 10 that nobody read the oldest go."""
        self._change(notes=[*self._kept.notes, message][-NOTES:])

    def flashes(self) -> list[str]:
        """The messages, oldest first, and forget them."""
        notes, self._kept.notes = self._kept.notes, []
        return notes

    def touch(self) -> None:
        """Send the cookie even if nothing is in it: its id is in use, in a form for one."""
        self._touched = True

    # -- a mapping

    def __getitem__(self, name: str) -> Any:
        return self._kept.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._change(data={**self._kept.data, name: msgspec.json.decode(msgspec.json.encode(value))})

    def __delitem__(self, name: str) -> None:
        del self._kept.data[name]

    def setdefault(self, name: str, default: Any = None) -> Any:
        """What is there under `name`, once `default` has been put there if nothing was: as JSON made it, not itself."""
        if name not in self:
            self[name] = default
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept.data)

    def __len__(self) -> int:
        return len(self._kept.data)

    def __repr__(self) -> str:
        # Names alone: values are the user's affair, and this lands in logs.
        return f"<Session of {self.subject or 'nobody'}: {', '.join(sorted(self)) or 'empty'}>"

    # -- for whoever keeps it

    @classmethod
    def _of(cls, kept: _Kept, sessions: Sessions) -> Session:
        session = cls(sessions=sessions)
        session._kept = kept
        return session

    @property
    def _holds_something(self) -> bool:
        kept = self._kept
        return bool(kept.data or kept.notes or kept.subject is not None)

    def _content(self, at: int = 0) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self._kept, id=self.id, at=at))

    def _change(self, **changes: Any) -> None:
        before = self._kept
        self._kept = msgspec.structs.replace(before, **changes)
        try:
            if self._sessions is not None:
                self._sessions.content_of(self)
        except ValueError:
            self._kept = before
            raise


class Sessions:
    """Reads and writes the session cookies of one service."""

    def __init__(
        self,
        secrets: str | Sequence[str],
        now: Callable[[], float],
        random: Random,
        *,
        name: str = "session",
        max_age: float = MAX_AGE,
        secure: bool | None = None,
        origins: Iterable[str] = (),
    ) -> None:
        """`secrets`: the first signs, all verify; `now`: wall-clock seconds; `random`: of ids, so SystemRandom.

        `name`: the cookie's, which services on one host must not share. `max_age`: seconds since it was last written;
        one that is in use is written anew when half of them are over. `secure`: send it over TLS only; None means as
        the request came, so say True behind a proxy that ends TLS. `origins`: like "https://bank.example", whose pages
        may send forms here. Raises ConfigurationError for secrets that are too short.
        """
        self.name = name
        self.origins = frozenset(origins)
        self.form_keys = keys_of(secrets, "form")
        self.random = random
        self._keys = [OctKey.import_key(key) for key in keys_of(secrets, "session")]
        self._now = now
        self._max_age = max_age
        self._secure = secure
        self._room = _plain_size(LARGEST - len(name) - 1)

    def __repr__(self) -> str:
        return f"<Sessions in {self.name!r}, {len(self._keys)} secrets>"

    def new_id(self) -> str:
        """An id nobody can guess."""
        return f"{self.random.getrandbits(128):032x}"

    def read(self, header: str | None) -> Session | None:
        """The session that a Cookie header proves; None when there is none, or it was altered, or has expired."""
        found = self._verified(read_cookies(header).get(self.name, "")) if header else None
        return found[0] if found is not None else None

    def visit(self, header: str | None) -> Visit:
        """The session of a request with this Cookie header, for as long as the request lasts."""
        return Visit(self, header)

    def content_of(self, session: Session) -> bytes:
        """What the cookie of `session` would say now; raises ValueError when that is too much for one."""
        content = session._content(int(self._now()))
        if len(content) > self._room:
            raise ValueError(
                f"A session holds {self._room} bytes of JSON, this one would have {len(content)}; "
                "keep what is large in the database, and its key in the session."
            )
        return content

    def _verified(self, value: str) -> tuple[Session, bool] | None:
        """The session, and whether it is time to write it anew."""
        if not value or len(value) > LARGEST:
            return None
        for position, key in enumerate(self._keys):
            try:
                kept = _decode(jws.deserialize_compact(value, key, [_ALGORITHM]).payload or b"")
            except (JoseError, msgspec.DecodeError, ValueError):
                continue
            age = self._now() - kept.at
            if not -SKEW <= age < self._max_age:
                return None
            return Session._of(kept, self), position > 0 or age > self._max_age / 2
        return None

    def _cookie(self, session: Session, tls: bool) -> str:
        value = jws.serialize_compact({"alg": _ALGORITHM}, self.content_of(session), self._keys[0])
        return self._set_cookie(value, tls, int(self._max_age))

    def _no_cookie(self, tls: bool) -> str:
        return self._set_cookie("", tls, 0)

    def _set_cookie(self, value: str, tls: bool, max_age: int) -> str:
        return dump_cookie(
            self.name,
            value,
            max_age=max_age,
            secure=tls if self._secure is None else self._secure,
            httponly=True,
            samesite="Lax",
            sync_expires=False,  # it would look at the clock
            max_size=0,  # checked above, with an error that tells the author what to do
        )


class Visit:
    """The session of one request: read when somebody asks for it, written into the reply if it has changed."""

    def __init__(self, sessions: Sessions, header: str | None) -> None:
        """`header`: the request's Cookie."""
        self.sessions = sessions
        self._cookie = read_cookies(header).get(sessions.name) if header else None
        self._session: Session | None = None
        self._before: bytes | None = None
        self._stale = False

    @property
    def has_cookie(self) -> bool:
        """Whether the request brought a session's cookie, valid or not."""
        return self._cookie is not None

    @property
    def session(self) -> Session:
        """What the cookie proves, else a new session."""
        if self._session is None:
            found = self.sessions._verified(self._cookie or "")
            if found is None:
                self._session = Session(sessions=self.sessions)
            else:
                self._session, self._stale = found
                self._before = self._session._content()
        return self._session

    def write(self, request: Any) -> None:
        """Add the cookie to the reply's head, if it has to go out; at most once.

        A session that no longer fits into a cookie is logged and raises RopewalkError: nobody may be told that a thing
        was done which the next page will not know.
        """
        session, self._session = self._session, None
        if session is None:
            return
        request.responseHeaders.addRawHeader(b"vary", b"cookie")
        try:
            cookie = self._set_cookie(session, bool(request.isSecure()))
        except (TypeError, ValueError) as error:  # what was put into a value that was already in
            _log.failure("a session cannot be kept")
            raise RopewalkError("The session could not be kept.") from error
        if cookie is not None:
            request.responseHeaders.addRawHeader(b"set-cookie", cookie.encode("latin-1"))

    def _set_cookie(self, session: Session, tls: bool) -> str | None:
        in_use = session._touched or session._holds_something
        if not in_use and (session._forgotten or self._before is None):
            return self.sessions._no_cookie(tls) if session._forgotten and self.has_cookie else None
        if self._stale or session._content() != self._before:
            return self.sessions._cookie(session, tls)
        return None


def write_session(request: Any) -> None:
    """`Visit.write`, where there is one."""
    visit: Visit | None = getattr(request, "ropewalk_visit", None)
    if visit is not None:
        visit.write(request)


def _plain_size(value: int) -> int:
    """How many bytes of JSON fit into a signed value of so many: header, two dots and signature are 20 + 2 + 43."""
    return (value - 65) * 3 // 4
