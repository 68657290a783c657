"""Facts about TLS over loopback: which sessions are resumed, by whom and for how long, and what ALPN agrees on."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Barrier, Thread

import pytest
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.web.client import (
    BrowserLikePolicyForHTTPS,
    HostnameCachingHTTPSPolicy,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ropewalk.engine import Agent
from ropewalk.engine.tls import PROVEN, SERVERS, Resuming

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
version = pytest.mark.parametrize("version", VERSIONS)

# -- a Site, and clients that are not ours

SERVER = """
import sys
from OpenSSL import SSL
from ropewalk.engine import Site, install
install()
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.ssl import Certificate, CertificateOptions, DefaultOpenSSLContextFactory, PrivateCertificate
from twisted.internet.ssl import trustRootFromCertificates
from twisted.web.resource import Resource

class Says(Resource):
    isLeaf = True

    def render(self, request):
        peer = request.transport.getPeerCertificate()
        return b"nobody" if peer is None else peer.get_subject().CN.encode()

site = Site(Says(), reactor=reactor)
site.log = lambda request: None
pem = sys.argv[1]
own = PrivateCertificate.loadPEM(open(pem, "rb").read())
asks = CertificateOptions(own.privateKey.original, own.original, trustRoot=trustRootFromCertificates([own]))
old, old_asks = DefaultOpenSSLContextFactory(pem, pem), DefaultOpenSSLContextFactory(pem, pem)
old_asks.getContext().load_verify_locations(pem)
old_asks.getContext().set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)

def listening(first):
    ports = [first, *(reactor.listenSSL(0, site, each, interface="127.0.0.1") for each in (asks, old, old_asks))]
    print(*(port.getHost().port for port in ports), flush=True)

serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={pem}").listen(site).addCallback(listening)
reactor.run()
"""
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def sites(certificate):
    """The ports of a Site: an endpoint's, an old context factory's; and those that ask clients for certificates."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, certificate], stdout=subprocess.PIPE, text=True)
    yield dict(
        zip(["endpoint", "asks", "old", "old that asks"], map(int, process.stdout.readline().split()), strict=True)
    )
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def context(certificate):
    return ssl.create_default_context(cafile=certificate)


def connected(context, port, session=None):
    """What a client saw: the answer, whether its session was an earlier one, the protocol; and the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
    ):
        connection.sendall(GET)
        answer = connection.recv(10_000).rpartition(b"\r\n")[2].decode()
        seen = answer, connection.session_reused, connection.selected_alpn_protocol()
        return seen, connection.session


@version
@pytest.mark.parametrize("site", ["endpoint", "asks", "old", "old that asks"])
def test_a_client_that_ends_its_connection_without_a_word_resumes_its_session(
    site, version, sites, context, certificate
):
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.load_cert_chain(certificate)
    answer = "localhost" if "asks" in site else "nobody"

    seen, session = connected(context, sites[site])
    assert (answer, False, None) == seen
    for _ in range(3):
        seen, session = connected(context, sites[site], session)
        assert (answer, True, None) == seen


def test_who_shows_no_certificate_where_one_is_asked_for_is_not_served(sites, context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError, match="handshake failure"):
        connected(context, sites["asks"])


@pytest.mark.parametrize("options", [[], ["-no_ticket"]], ids=["by tickets", "by their ids"])
def test_openssl_resumes_each_session(options, sites, require):
    require("openssl", shutil.which("openssl"), "it is not on PATH")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{sites['endpoint']}", "-tls1_2", "-reconnect", *options]

    said = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20).stdout

    assert ["New"] + ["Reused"] * 5 == re.findall(r"^(New|Reused),", said, re.MULTILINE)


@version
@pytest.mark.parametrize("site", ["endpoint", "old"])
@pytest.mark.parametrize("offered", [["http/1.1"], ["h2", "http/1.1"], ["http/1.1", "h2"]], ids=" ".join)
def test_of_all_protocols_http_1_1_is_agreed_on(offered, site, version, sites, context):
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.set_alpn_protocols(offered)

    seen, _ = connected(context, sites[site])

    assert ("nobody", False, "http/1.1") == seen


@version
def test_who_speaks_http_2_alone_is_told_that_nobody_does_here(version, sites, context):
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.set_alpn_protocols(["h2"])

    with pytest.raises(ssl.SSLError, match="alert no application protocol"):
        connected(context, sites["endpoint"])


def test_curl_asks_for_http_2_and_is_answered_by_http_1_1(sites, certificate, require):
    require("curl", shutil.which("curl"), "it is not on PATH")
    url = f"https://localhost:{sites['endpoint']}/"

    said = subprocess.run(
        ["curl", "-sS", "--http2", "--cacert", certificate, "-w", " %{http_version}", url],
        capture_output=True, text=True, timeout=20,
    ).stdout  # fmt: skip

    assert "nobody 1.1" == said


# -- an Agent, and servers that are not ours


class Server(ThreadingTCPServer):
    """Says to each request what it sees of its connection, and ends it."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Says)
        self.context = context
        self.together = Barrier(1)  # of connections that all have said hello before one is answered
        self.port = self.server_address[1]

    def handle_error(self, request, client_address) -> None:
        """Who does not trust it leaves."""


class Says(BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1, socket.MSG_PEEK)
        self.server.together.wait(10)
        with self.server.context.wrap_socket(self.request, server_side=True) as connection:
            connection.recv(10_000)
            said = json.dumps([connection.session_reused, connection.selected_alpn_protocol()]).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
            )


@pytest.fixture
def serve(certificate):
    """`serve(version="1.3", path=..., context=None)`: a Server with that certificate, or that context."""
    threads = []

    def serve(version="1.3", path=certificate, context=None):
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = context.maximum_version = VERSIONS[version]
            context.load_cert_chain(path)
            context.set_alpn_protocols(["h2", "http/1.1"])
        server = Server(context)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        threads.append((server, thread))
        return server

    yield serve
    for server, thread in threads:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def trust(certificate):
    """The policy that trusts that certificate."""
    return BrowserLikePolicyForHTTPS(authority(certificate))


@pytest.fixture
def running():
    from twisted.internet import reactor

    return reactor


def authority(path):
    with open(path, "rb") as file:
        return trustRootFromCertificates([Certificate.loadPEM(file.read())])


async def ask(agent, server, host=b"localhost"):
    """Whether the connection's session was an earlier one, and what ALPN agreed on, as the server saw it."""
    response = await agent.request(b"GET", b"https://%b:%d/" % (host, server.port))
    return json.loads(await readBody(response))


NEW, RESUMED = [False, "http/1.1"], [True, "http/1.1"]


@version
@ensureDeferred
async def test_later_connections_to_a_server_resume_its_sessions(version, serve, trust, running):
    agent, server = Agent(running, trust), serve(version)

    assert [NEW, RESUMED, RESUMED] == [await ask(agent, server) for _ in range(3)]


@version
@ensureDeferred
async def test_a_session_goes_with_one_connection_at_a_time(version, serve, trust, running):
    agent, server = Agent(running, trust), serve(version)

    assert NEW == await ask(agent, server)
    server.together = Barrier(2)
    assert [NEW, RESUMED] == sorted(await gatherResults([Deferred.fromCoroutine(ask(agent, server)) for _ in "ab"]))
    assert [RESUMED, RESUMED] == await gatherResults([Deferred.fromCoroutine(ask(agent, server)) for _ in "ab"])


@version
@ensureDeferred
async def test_a_session_is_not_carried_to_another_port_name_or_agent(version, serve, trust, running):
    agent, server = Agent(running, trust), serve(version)
    beside = serve(context=server.context)  # it would resume the sessions of the other

    assert [NEW, NEW, NEW, NEW, RESUMED] == [
        await ask(agent, server),
        await ask(agent, beside),
        await ask(agent, server, b"127.0.0.1"),
        await ask(Agent(running, trust), server),
        await ask(agent, server),
    ]


@version
@ensureDeferred
async def test_who_is_known_by_one_name_has_no_other(version, serve, certified, running):
    path = certified("localhost")
    agent, server = Agent(running, BrowserLikePolicyForHTTPS(authority(path))), serve(version, path)

    assert NEW == await ask(agent, server)
    with pytest.raises(ResponseNeverReceived, match="VerificationError"):
        await ask(agent, server, b"127.0.0.1")
    assert RESUMED == await ask(agent, server)


@version
@pytest.mark.parametrize(
    ("name", "trusted", "error"),
    [("elsewhere.example", True, "VerificationError"), ("localhost", False, "certificate verify failed")],
    ids=["it has another name", "nobody is trusted to have signed it"],
)
@ensureDeferred
async def test_no_session_is_kept_of_a_server_whose_certificate_is_not_good(
    name, trusted, error, version, serve, certified, running, monkeypatch
):
    path = certified(name)
    agent = Agent(running, BrowserLikePolicyForHTTPS(authority(path)) if trusted else None)
    server = serve(version, path)
    # A server that means harm has one ready from the beginning, and would not have to show a certificate to resume it.
    offered = []
    monkeypatch.setattr(SSL.Connection, "set_session", lambda connection, session: offered.append(session))

    for _ in range(2):
        with pytest.raises(ResponseNeverReceived, match=error):
            await ask(agent, server)

    assert [] == offered


@version
@ensureDeferred
async def test_a_server_shows_its_certificate_again_after_a_time_however_often_it_was_asked(
    version, serve, trust, running
):
    later = Later(running)
    agent, server = Agent(later, trust), serve(version)
    seen = []

    for passes in (0, 0.4 * PROVEN, 0.4 * PROVEN, 0.4 * PROVEN, 0):
        later.passed += passes
        seen.append(await ask(agent, server, b"127.0.0.1"))

    assert [NEW, RESUMED, RESUMED, NEW, RESUMED] == seen


@version
@ensureDeferred
async def test_a_policy_is_asked_for_each_connection_and_one_that_trusts_anew_resumes_nothing(
    version, serve, certificate, running
):
    server, anew = serve(version), Anew(certificate)
    agent, caching = Agent(running, anew), Agent(running, HostnameCachingHTTPSPolicy(anew))

    assert [NEW, NEW] == [await ask(agent, server) for _ in range(2)]
    assert 2 == anew.asked
    assert [NEW, RESUMED] == [await ask(caching, server) for _ in range(2)]


def test_the_servers_that_were_asked_last_are_known():
    anybody = Anybody()
    resuming = Resuming(lambda: 0.0, anybody)
    names = [b"%d.example" % number for number in range(SERVERS)]
    known = {name: resuming.creatorForNetloc(name, 443) for name in names}

    first = resuming.creatorForNetloc(names[0], 443)
    resuming.creatorForNetloc(b"another.example", 443)

    assert known[names[0]] is first is resuming.creatorForNetloc(names[0], 443)
    assert known[names[1]] is not resuming.creatorForNetloc(names[1], 443)


class Later:
    """A reactor whose clock goes ahead."""

    def __init__(self, reactor):
        self.passed = 0.0
        self._reactor = reactor

    def __getattr__(self, name):
        return getattr(self._reactor, name)

    def seconds(self):
        return self._reactor.seconds() + self.passed


@implementer(IPolicyForHTTPS)
class Anew:
    """Makes another creator, and so another context, each time."""

    def __init__(self, path):
        self.asked = 0
        self._trust = authority(path)

    def creatorForNetloc(self, hostname, port):
        self.asked += 1
        options = {"enableSessionTickets": True}
        return optionsForClientTLS(hostname.decode(), self._trust, extraCertificateOptions=options)


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class Anybody:
    """Trusts everybody."""

    def creatorForNetloc(self, hostname, port):
        return self

    def clientConnectionForTLS(self, protocol):
        return SSL.Connection(SSL.Context(SSL.TLS_METHOD))
