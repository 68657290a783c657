"""Facts about listeners over TLS: whoever opened their sockets, sessions are resumed and HTTP/1.1 is agreed on."""

from __future__ import annotations

import socket
import ssl

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from ropewalk.engine import Site
from ropewalk.runtime.listeners import adopt, listen_at


class Says(Resource):
    isLeaf = True

    def render(self, request):
        return b"secure" if request.isSecure() else b"open"


def open_there(reactor, description, site):
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return adopt(reactor, description, listening.detach(), site)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL .* objects is deprecated")  # which Twisted does
@pytest.mark.parametrize("listen", [listen_at, open_there], ids=["this process opened", "another process opened"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
@ensureDeferred
async def test_sessions_are_resumed_at_a_socket_that(listen, version, certificate):
    from twisted.internet import reactor

    site = Site(Says(), reactor=reactor)
    site.log = lambda request: None
    port = await listen(reactor, f"ssl:0:interface=127.0.0.1:privateKey={certificate}", site)
    context = ssl.create_default_context(cafile=certificate)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])

    first, session = await deferToThread(said, context, port.getHost().port)
    second, _ = await deferToThread(said, context, port.getHost().port, session)
    await port.stopListening()
    await site.server.wait_until_closed()

    assert [(b"secure", "http/1.1", False), (b"secure", "http/1.1", True)] == [first, second]


def said(context, port, session=None):
    """The answer, the protocol, whether the session was an earlier one; and the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = connection.recv(10_000).rpartition(b"\r\n")[2]
        return (answer, connection.selected_alpn_protocol(), connection.session_reused), connection.session
