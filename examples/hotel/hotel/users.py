"""Who may sign in. Passwords are kept as Argon2 hashes, made and checked in a worker thread."""

from __future__ import annotations

from random import Random
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from msgspec import Meta, Struct
from pydantic import Field

from ropewalk import Conflict, Database, NotFound, Service, Settings, Transaction, Unauthorized, Workers, get, post

from .words import Email, Line, new_id

Password = Annotated[str, Meta(min_length=8, max_length=128)]

metadata = sa.MetaData()
users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("password", sa.String(200), nullable=False),  # its Argon2 hash
)

# Built once: building one costs more than executing it.
_BY_ID = sa.select(users).where(users.c.id == sa.bindparam("id"))
_BY_EMAIL = sa.select(users).where(users.c.email == sa.bindparam("email"))


class EmailTaken(Conflict):
    """Raised when somebody has signed up with that e-mail address before."""


class WrongCredentials(Unauthorized):
    """Raised when the e-mail address or the password is wrong; which of them is not said."""


class SignUp(Struct, frozen=True):
    """A new user."""

    email: Email
    name: Line
    password: Password

    def __repr__(self) -> str:
        return f"<SignUp of {self.email}>"  # a password must not get into a log


class Credentials(Struct, frozen=True):
    """What a user signs in with."""

    email: Email
    password: Annotated[str, Meta(max_length=128)]

    def __repr__(self) -> str:
        return f"<Credentials of {self.email}>"


class User(Struct, frozen=True):
    """A user; `str(id)` is the principal's subject."""

    id: UUID
    email: Email  # in lower case
    name: Line


class UsersSettings(Settings):
    """`[settings.users]`: what a hash costs. The defaults are RFC 9106's for memory-constrained servers."""

    time_cost: int = Field(3, ge=1, le=100)  # passes
    memory_cost: int = Field(65536, ge=8, le=4_194_304)  # KiB
    parallelism: int = Field(4, ge=1, le=64)  # lanes


class Users(Service, name="users", version="1.0.0"):
    """Signs people up and in."""

    tables = metadata

    def __init__(self, settings: UsersSettings, database: Database, workers: Workers, random: Random) -> None:
        self._hasher = PasswordHasher(settings.time_cost, settings.memory_cost, settings.parallelism)
        # A hash that costs as much to check as any other and that no password has.
        self._nobody = (
            f"$argon2id$v=19$m={settings.memory_cost},t={settings.time_cost},p={settings.parallelism}"
            f"${'A' * 22}${'A' * 43}"
        )
        self._database = database
        self._workers = workers
        self._random = random

    @post("/users", status=201, raises=(EmailTaken,))
    async def sign_up(self, person: SignUp) -> User:
        """Add a user; an e-mail address has one, however it is capitalised."""
        salt = self._random.randbytes(16)
        hashed = await self._workers.thread(self._hasher.hash, person.password, salt=salt)
        user = User(new_id(self._random), person.email.lower(), person.name)
        return await self._database.run(_insert, user, hashed)

    @post("/sign-in", raises=(WrongCredentials,))
    async def sign_in(self, credentials: Credentials) -> User:
        """Tell who somebody is who knows an e-mail address and its password."""
        known = await self._database.run(_by_email, credentials.email.lower())
        # Without a user a hash is checked all the same: the time it takes does not tell whether there is one.
        hashed = known.password if known is not None else self._nobody
        matches = await self._workers.thread(self._matches, hashed, credentials.password)
        if known is None or not matches:
            raise WrongCredentials(
                "The e-mail address or the password is wrong.", headers=[("www-authenticate", 'Password realm="hotel"')]
            )
        return known.user

    @get("/users/<uuid:user_id>", raises=(NotFound,))
    async def read(self, user_id: UUID) -> User:
        """Read a user."""
        return await self._database.run(_read, user_id)

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except VerifyMismatchError:
            return False


class _Known(Struct, frozen=True):
    user: User
    password: str  # its hash


def _insert(tx: Transaction, user: User, hashed: str) -> User:
    if tx.execute(_BY_EMAIL, {"email": user.email}).first() is not None:
        raise EmailTaken(f"Somebody has signed up as {user.email} already; sign in instead.")
    tx.execute(users.insert(), {"id": user.id, "email": user.email, "name": user.name, "password": hashed})
    return user


def _by_email(tx: Transaction, email: str) -> _Known | None:
    row = tx.execute(_BY_EMAIL, {"email": email}).one_or_none()
    return None if row is None else _Known(User(row.id, row.email, row.name), row.password)


def _read(tx: Transaction, user_id: UUID) -> User:
    row = tx.execute(_BY_ID, {"id": user_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no user {user_id}.")
    return User(row.id, row.email, row.name)
