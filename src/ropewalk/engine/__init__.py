"""Bytes at speed: HTTP/1.1 on httptools, without I/O of its own, and what drives it.

Site(resource)     serves any IResource; `listenTCP`, endpoints, or uvloop's own transports
install()          the runtime's reactor
server  channel  exchange  heads  limits  deadlines     a listener, a connection, a request and its reply
proxies                                                 who may say whose connection or request it is
drivers                                                 between a transport and a channel
tls                                                     sessions that are resumed, and what ALPN agrees on
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .reactor import install

if TYPE_CHECKING:
    from .agent import Agent
    from .limits import Limits
    from .proxies import Proxies
    from .site import Site

__all__ = ["Agent", "Limits", "Proxies", "Site", "install"]


# Opened late: twisted.web comes with two of them.
_ROOMS = {"Agent": ".agent", "Limits": ".limits", "Proxies": ".proxies", "Site": ".site"}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name], __name__), name)
