"""TLS as HTTP/1.1 wants it: what a later connection need not prove again, and the one protocol that is agreed on.

A connection that resumes a session (RFC 8446, section 2.2; RFC 5077) shows no certificate. So a client's sessions come
from connections alone whose certificate was found good, and go to the same name, the same port and the same trust.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.web.client import BrowserLikePolicyForHTTPS, HostnameCachingHTTPSPolicy
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from .drivers import ALPN

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

SERVERS = 100  # whose sessions are kept, those that were asked last
SESSIONS = 8  # of each: one goes with one connection, or who sees both would know that they are one's (RFC 8446, C.4)
PROVEN = 3600.0  # seconds until a server has to show its certificate again


# -- the server's side


def serving(context_factory: Any) -> Any:
    """`context_factory`, of which no connection was made yet, as a Site wants it: its sessions are resumed, by tickets
    and by their ids, and ALPN agrees on HTTP/1.1 or on nothing.
    """
    if isinstance(context_factory, CertificateOptions):
        # Many end a connection without a word, and with it goes a session that the server itself keeps: both it is.
        context_factory.enableSessions = context_factory.enableSessionTickets = True
        context_factory._options &= ~SSL.OP_NO_TICKET
    if IOpenSSLContextFactory.providedBy(context_factory):
        context = context_factory.getContext()
        with suppress(ValueError):  # it is in use, by another listener of ours or by one that is not
            context.set_alpn_select_callback(_agreed)
            context.set_session_id(b"ropewalk")  # without one, who asks for clients' certificates cannot resume
    return context_factory


def _agreed(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN in offered:
        return ALPN
    # Raised, it is the alert that RFC 7301, section 3.2, asks for; to agree on b"" would be another, an internal error.
    raise SSL.Error([("SSL routines", "", "no application protocol")])


# -- the client's side


@implementer(IPolicyForHTTPS)
class Resuming:
    """A policy that trusts whom another one does, and lets later connections resume the sessions of earlier ones."""

    def __init__(self, seconds: Callable[[], float], policy: Any = None) -> None:
        """`policy`: the other, an IPolicyForHTTPS; the platform's authorities are trusted when there is none.

        It is asked for each connection. Sessions go to those whose creator is the same object as before, as one of
        Twisted's HostnameCachingHTTPSPolicy is. In place of a BrowserLikePolicyForHTTPS, whose are not, one is asked.
        """
        if policy is None:
            policy = BrowserLikePolicyForHTTPS()
        if type(policy) is BrowserLikePolicyForHTTPS:
            policy = HostnameCachingHTTPSPolicy(_BrowserLike(policy._trustRoot), SERVERS)
        self._policy = policy
        self._seconds = seconds
        self._servers: dict[tuple[bytes, int], _Server] = {}  # the one that was asked last is the last

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """As IPolicyForHTTPS."""
        creator = self._policy.creatorForNetloc(hostname, port)
        if not IOpenSSLClientConnectionCreator.providedBy(creator):
            return creator
        server = self._servers.pop((hostname, port), None)
        if server is None or server.creator is not creator:
            server = _Server(creator, self._seconds)
        self._servers[hostname, port] = server
        if len(self._servers) > SERVERS:
            del self._servers[next(iter(self._servers))]
        return server


@implementer(IPolicyForHTTPS)
class _BrowserLike:
    """Twisted's, but that it takes tickets, which TLS 1.2 does not need to have."""

    def __init__(self, trust: Any) -> None:
        self._trust = trust

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """As IPolicyForHTTPS."""
        options = {"enableSessionTickets": True}
        return optionsForClientTLS(hostname.decode("ascii"), self._trust, extraCertificateOptions=options)


@implementer(IOpenSSLClientConnectionCreator)
class _Server:
    """One server, and its sessions."""

    def __init__(self, creator: Any, seconds: Callable[[], float]) -> None:
        self.creator = creator
        self._seconds = seconds
        self._sessions: deque[tuple[SSL.Session, float]] = deque(maxlen=SESSIONS)  # and when its certificate was shown

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """As IOpenSSLClientConnectionCreator."""
        connection: SSL.Connection = self.creator.clientConnectionForTLS(protocol)
        session, shown = self._taken()
        if session is not None:
            with suppress(ValueError):  # its context is another
                connection.set_session(session)
        driver: Any = protocol.wrappedProtocol
        received = driver.dataReceived

        def received_first(data: bytes) -> None:
            # The handshake is over, the certificate was found good; tickets come behind it, before anything else.
            driver.dataReceived = received
            self._keep(connection.get_session(), shown)
            received(data)

        driver.dataReceived = received_first
        return connection

    def _taken(self) -> tuple[SSL.Session | None, float]:
        """The latest session; when its server has shown its certificate, which is now when there is none."""
        now = self._seconds()
        while self._sessions:
            session, shown = self._sessions.pop()
            if now - shown < PROVEN:
                return session, shown
        return None, now

    def _keep(self, session: SSL.Session | None, shown: float) -> None:
        if session is not None:
            self._sessions.append((session, shown))
