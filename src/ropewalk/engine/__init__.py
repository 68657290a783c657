"""Bytes at speed: HTTP/1.1 on httptools, without I/O of its own, and what drives it.

Site(resource)     serves any IResource; `listenTCP`, endpoints, or uvloop's own transports
install()          the runtime's reactor
server  channel  exchange  heads  limits  deadlines     a listener, a connection, a request and its reply
drivers                                                 between a transport and a channel
"""

from typing import TYPE_CHECKING, Any

from .reactor import install

if TYPE_CHECKING:
    from .agent import Agent
    from .limits import Limits
    from .site import Site

__all__ = ["Agent", "Limits", "Site", "install"]


def __getattr__(name: str) -> Any:
    if name == "Site":  # late: twisted.web comes with it
        from .site import Site

        return Site
    if name == "Agent":
        from .agent import Agent

        return Agent
    if name == "Limits":
        from .limits import Limits

        return Limits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
