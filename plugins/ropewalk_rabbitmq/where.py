"""Where RabbitMQ is, and what the URL says of our names there. No I/O."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from ropewalk.errors import ConfigurationError

PREFIX = "ropewalk"  # of the exchange and of every queue; two systems on one virtual host have one each
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class Where(Struct, frozen=True):
    """A server, and a place in it."""

    host: str = "127.0.0.1"
    port: int = 5672
    user: str = "guest"
    password: str = "guest"
    virtual_host: str = "/"
    prefix: str = PREFIX

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"rabbitmq://{host}:{self.port}{'' if self.virtual_host == '/' else '/' + self.virtual_host}"

    __repr__ = __str__  # without the password


def parse(where: str) -> Where:
    """What "rabbitmq" or a URL says; raises ConfigurationError, without the password.

    >>> parse("rabbitmq")
    rabbitmq://127.0.0.1:5672
    >>> parse("rabbitmq://hotel:secret@queue/%2Fhotel?prefix=inn").virtual_host
    '/hotel'
    """
    try:
        url = urlsplit("rabbitmq://" if where == "rabbitmq" else where)
        port = url.port
        query = parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    except ValueError as error:
        # What came may hold a password in a place where nothing can tell it from the rest.
        raise _wrong("got what is no URL") from error
    if url.scheme != "rabbitmq":
        raise _wrong(f"got the scheme {url.scheme!r}")
    unknown = sorted(set(query) - {"prefix"})
    if unknown:
        raise _wrong(f"the query has a prefix alone; got {unknown[0]!r}")
    prefix = query.get("prefix", [PREFIX])
    if len(prefix) != 1 or not _PREFIX.fullmatch(prefix[0]):
        raise _wrong(f"prefix is up to 60 letters, digits and '_.-'; got {', '.join(map(repr, prefix))}")
    return Where(
        url.hostname or "127.0.0.1",
        port or 5672,
        unquote(url.username) if url.username else "guest",
        unquote(url.password) if url.password else "guest",
        unquote(url.path[1:]) or "/",
        prefix[0],
    )


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"[adapters] broker: {what}. Expected rabbitmq, or a URL like rabbitmq://user:password@host:5672/%2F?prefix=inn."
    )
