"""Where Redis is, and what the URL says of our keys there. No I/O."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from ropewalk.errors import ConfigurationError

PREFIX = "ropewalk"  # of every key; two systems that share a database have one each
PARTITIONS_MOST = 64  # each costs a stream for each topic, and a lease for each group
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Where(Struct, frozen=True):
    """A server and a place in it."""

    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    user: str = ""
    password: str = ""
    prefix: str = PREFIX
    partitions: int | None = None  # None: as many as there are, or the default

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{host}:{self.port}/{self.database}"

    __repr__ = __str__  # without the password


def parse(where: str) -> Where:
    """What "redis" or a URL says; raises ConfigurationError, without the password.

    >>> parse("redis")
    redis://127.0.0.1:6379/0
    >>> parse("redis://:secret@cache:6380/2?partitions=16&prefix=hotel").partitions
    16
    """
    try:
        url = urlsplit("redis://" if where == "redis" else where)
        port = url.port
        query = parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    except ValueError as error:
        # What came may hold a password in a place where nothing can tell it from the rest.
        raise _wrong("got what is no URL") from error
    if url.scheme != "redis" or (where != "redis" and not where.startswith("redis://")):
        raise _wrong(f"got the scheme {url.scheme!r}")
    database = url.path.strip("/") or "0"
    if not (database.isascii() and database.isdigit()):
        raise _wrong(f"the path is the number of a database; got {database!r}")
    unknown = sorted(set(query) - {"partitions", "prefix"})
    if unknown:
        raise _wrong(f"the query has partitions and prefix; got {unknown[0]!r}")
    prefix = query.get("prefix", [PREFIX])
    if len(prefix) != 1 or not _PREFIX.fullmatch(prefix[0]):
        raise _wrong(f"prefix is up to 100 letters, digits and '_.-'; got {', '.join(map(repr, prefix))}")
    partitions = query.get("partitions", [])
    if partitions and not (
        len(partitions) == 1
        and partitions[0].isascii()
        and partitions[0].isdigit()
        and 1 <= int(partitions[0]) <= PARTITIONS_MOST
    ):
        got = ", ".join(map(repr, partitions))
        raise _wrong(f"partitions is a number from 1 to {PARTITIONS_MOST}; got {got}")
    return Where(
        host=url.hostname or "127.0.0.1",
        port=port or 6379,
        database=int(database),
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        prefix=prefix[0],
        partitions=int(partitions[0]) if partitions else None,
    )


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"[adapters] broker: {what}. Expected redis, or a URL like redis://:password@127.0.0.1:6379/0?partitions=8."
    )
