"""Facts about other people's clients and proxies, over real sockets: what they ask is answered, and connections kept."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, TextMessage
from wsproto.events import Request as WebSocketRequest

pytestmark = pytest.mark.long

SERVER = """
import hashlib, ssl, sys
from ropewalk.engine import Limits, Site, install
install()
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.websocket import WebSocketResource

class Live:
    def negotiationStarted(self, transport):
        self.transport = transport

    def negotiationFinished(self):
        self.transport.sendTextMessage("welcome")

    def textMessageReceived(self, message):
        self.transport.sendTextMessage("you said " + message)

    def bytesMessageReceived(self, data): ...

    def pongReceived(self, payload): ...

    def connectionLost(self, reason): ...

    @classmethod
    def buildProtocol(cls, request):
        return cls()

class Echo(Resource):
    isLeaf = True
    live = WebSocketResource(Live)
    peers = set()

    def render(self, request):
        if request.path == b"/live":
            return self.live.render(request)
        self.peers.add(request.getClientAddress().port)
        body = request.content.read()
        if request.path == b"/large":
            return b"." * 3_000_000
        if request.path == b"/peers":
            return str(len(self.peers)).encode()
        if request.path == b"/pieces":  # without a length
            for piece in (b"a", b"b", b"c"):
                request.write(piece * 100_000)
            request.finish()
            return NOT_DONE_YET
        request.setHeader(b"content-type", b"text/plain")
        if request.path == b"/secure":
            return str(request.isSecure()).encode()
        return f"{request.method.decode()} {len(body)} {hashlib.sha256(body).hexdigest()}".encode()

site = Site(Echo(), reactor=reactor, limits=Limits(body=10_000_000))
site.log = lambda request: None
twisted = reactor.listenTCP(0, site, interface="127.0.0.1").getHost().port
pem = sys.argv[1]
contexts = DefaultOpenSSLContextFactory(pem, pem), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
contexts[1].load_cert_chain(pem)
twisted_tls = reactor.listenSSL(0, site, contexts[0], interface="127.0.0.1").getHost().port
loop = reactor._asyncioEventloop

async def listen():
    ports = [
        (await loop.create_server(site.asyncio_protocol, "127.0.0.1", 0, ssl=ssl)).sockets[0].getsockname()[1]
        for ssl in (None, contexts[1])
    ]
    print(twisted, ports[0], twisted_tls, ports[1], flush=True)

listening = loop.create_task(listen())
reactor.run()
"""


@pytest.fixture(scope="module")
def ports(certificate):
    """Where a server process listens, by driver, and over TLS."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, certificate], stdout=subprocess.PIPE, text=True)
    named = ["twisted", "asyncio", "twisted by TLS", "asyncio by TLS"]
    yield dict(zip(named, map(int, process.stdout.readline().split()), strict=True))
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(params=["twisted", "asyncio"])
def port(request, ports):
    return ports[request.param]


@pytest.fixture
def run(require):
    """`run(program, *arguments)`: what it says, when it ends well."""

    def run(program, *arguments):
        require(program, shutil.which(program), "it is not on PATH")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=50)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def upload(tmp_path):
    """A file, and what is answered when it is uploaded."""
    content = bytes(range(256)) * 8000
    path = tmp_path / "upload"
    path.write_bytes(content)
    return path, f"{len(content)} {hashlib.sha256(content).hexdigest()}"


NOTHING = f"0 {hashlib.sha256().hexdigest()}"


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_curl_is_answered(port, run, version):
    assert f"GET {NOTHING}" == run("curl", "-sS", version, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "how",
    [
        ["--http1.0"],
        ["-H", "Expect: 100-continue"],
        ["-H", "Expect:"],
        ["-H", "Transfer-Encoding: chunked"],
        ["--http2"],
    ],
    ids=" ".join,
)
def test_curl_uploads(port, run, upload, how):
    path, answer = upload

    assert f"PUT {answer}" == run("curl", "-sS", *how, "-T", str(path), f"http://127.0.0.1:{port}/")


def test_curl_is_refused_before_it_sends_and_hears_why(port, run, tmp_path):
    path = tmp_path / "too large"
    path.write_bytes(bytes(10_000_001))
    how = ["-o", str(tmp_path / "answer"), "-w", "%{http_code} %{size_upload}", "--expect100-timeout", "30"]

    said = run("curl", "-sS", *how, "-H", "Expect: 100-continue", "-T", str(path), f"http://127.0.0.1:{port}/")

    assert "413 0" == said


def test_a_client_that_sends_all_the_same_hears_why_too(port, run, tmp_path):
    path = tmp_path / "too large"
    path.write_bytes(bytes(12_000_000))
    how = ["-o", str(tmp_path / "answer"), "-w", "%{http_code}"]

    assert "413" == run("curl", "-sS", *how, "-H", "Expect:", "-T", str(path), f"http://127.0.0.1:{port}/")


def test_curl_keeps_its_connection(port, run):
    urls = [f"http://127.0.0.1:{port}/{number}" for number in range(3)]

    assert ["1", "0", "0"] == re.findall(r"\[(\d)\]", run("curl", "-sS", "-w", "[%{num_connects}]", *urls))


def test_curl_takes_what_is_large(port, run):
    assert "." * 3_000_000 == run("curl", "-sS", "--limit-rate", "5M", f"http://127.0.0.1:{port}/large")


def test_http_client_keeps_its_connection(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sockets = set()

    def ask(method, body=None, **options):
        connection.request(method, "/", body, **options)
        sockets.add(connection.sock)
        return connection.getresponse().read().decode()

    answers = [ask("GET"), ask("POST", b"abc"), ask("POST", iter([b"a", b"bc"]), encode_chunked=True), ask("HEAD")]
    connection.close()

    digest = hashlib.sha256(b"abc").hexdigest()
    assert [f"GET {NOTHING}", f"POST 3 {digest}", f"POST 3 {digest}", ""] == answers
    assert 1 == len(sockets)


def test_ab_keeps_its_connections(port, run):
    said = run("ab", "-q", "-k", "-n", "2000", "-c", "10", f"http://127.0.0.1:{port}/")

    assert ["2000", "0", "2000"] == re.findall(r"(?:Complete|Failed|Keep-Alive) requests: +(\d+)", said)


def test_wrk_meets_no_error(port, run):
    said = run("wrk", "-t", "1", "-c", "10", "-d", "1s", f"http://127.0.0.1:{port}/")

    assert re.search(r"[1-9]\d* requests in", said)
    assert "Socket errors" not in said and "Non-2xx" not in said


def test_h2load_is_answered_in_order(port, run):
    said = run("h2load", "--h1", "-n", "2000", "-c", "10", "-m", "5", f"http://127.0.0.1:{port}/")

    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in said


def test_hey_keeps_its_connections(port, run):
    said = run("hey", "-n", "2000", "-c", "10", "-m", "POST", "-d", "abc", f"http://127.0.0.1:{port}/")

    assert [("200", "2000")] == re.findall(r"\[(\d+)\]\s+(\d+) responses", said)
    assert "Error" not in said


@pytest.mark.parametrize("driver", ["twisted", "asyncio"])
def test_all_this_over_tls(ports, certificate, run, upload, driver, tmp_path):
    path, answer = upload
    base = f"https://localhost:{ports[f'{driver} by TLS']}"
    curl = ["-sS", "--cacert", certificate]
    refused = tmp_path / "too large"
    refused.write_bytes(bytes(12_000_000))

    assert ["1", "0"] == re.findall(r"\[(\d)\]", run("curl", *curl, "-w", "[%{num_connects}]", base, base))
    assert "True" == run("curl", *curl, f"{base}/secure")
    assert f"PUT {answer}" == run("curl", *curl, "-T", str(path), base)
    assert "." * 3_000_000 == run("curl", *curl, "-H", "Connection: close", f"{base}/large")
    assert "413" in run("curl", *curl, "-w", "%{http_code}", "-T", str(refused), base)


# -- behind a proxy


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def nginx(folder, front, back):
    (folder / "proxy.conf").write_text(f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
        events {{}}
        http {{
            access_log off; client_max_body_size 100m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            upstream back {{ server 127.0.0.1:{back}; keepalive 4; }}
            server {{
                listen 127.0.0.1:{front};
                location / {{
                    proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header Host $http_host; proxy_request_buffering off;
                }}
                location /live {{
                    proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection upgrade;
                    proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
                }}
            }}
        }}
    """)
    return ["-e", str(folder / "errors"), "-p", str(folder), "-c", str(folder / "proxy.conf")]


def haproxy(folder, front, back):
    (folder / "proxy.conf").write_text(f"""
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    http-reuse always
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    server back 127.0.0.1:{back}
""")
    return ["-db", "-f", str(folder / "proxy.conf")]


def envoy(folder, front, back):
    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def typed(name, **config):
        return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **config}

    router = {"name": "router", "typed_config": typed("filters.http.router.v3.Router")}
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="front",
        http_protocol_options={"accept_http_10": True},  # as ab speaks
        proxy_100_continue=True,  # by default it answers that itself
        upgrade_configs=[{"upgrade_type": "websocket"}],
        route_config={
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]}
            ]
        },
        http_filters=[router],
    )
    chain = {"filters": [{"name": "manager", "typed_config": manager}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}]
    cluster = {"name": "back", "load_assignment": {"cluster_name": "back", "endpoints": endpoints}}
    listeners = [{"name": "front", "address": address(front), "filter_chains": [chain]}]
    proxy = {"static_resources": {"listeners": listeners, "clusters": [cluster]}}
    (folder / "proxy.json").write_text(json.dumps(proxy))
    return ["-c", str(folder / "proxy.json"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def caddy(folder, front, back):
    (folder / "Caddyfile").write_text(f"""
{{
    admin off
    persist_config off
    auto_https off
    storage file_system {folder}/data
}}
http://:{front} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{back}
}}
""")
    return ["run", "--config", str(folder / "Caddyfile")]


def path_of(program):
    # Some come with Python packages, beside this Python, and some are an administrator's.
    beside = str(Path(sys.executable).parent)
    return shutil.which(program) or shutil.which(program, path=f"{beside}:/usr/sbin:/usr/local/sbin")


@pytest.fixture(params=[nginx, haproxy, envoy, caddy], ids=lambda proxy: proxy.__name__)
def proxied(request, require, port, tmp_path):
    """The port of a proxy before the server."""
    program = path_of(request.param.__name__)
    require(request.param.__name__, program, "it is not installed")
    front = free_port()
    environment = {**os.environ, "HOME": str(tmp_path)}
    process = subprocess.Popen(
        [program, *request.param(tmp_path, front, port)], stderr=subprocess.DEVNULL, env=environment
    )
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", front), 5).close()
            break
        except ConnectionRefusedError:
            assert process.poll() is None and time.monotonic() < until, f"{program} does not listen"
    yield front
    process.terminate()
    process.wait()


def test_it_is_asked_by_a_proxy(proxied, run, upload):
    path, answer = upload
    base = f"http://127.0.0.1:{proxied}"

    assert f"GET {NOTHING}" == run("curl", "-sS", base)
    assert f"PUT {answer}" == run("curl", "-sS", "-T", str(path), base)
    assert f"PUT {answer}" == run("curl", "-sS", "-H", "Transfer-Encoding: chunked", "-T", str(path), base)
    assert "." * 3_000_000 == run("curl", "-sS", f"{base}/large")
    assert "".join(each * 100_000 for each in "abc") == run("curl", "-sS", f"{base}/pieces")


def test_a_proxy_asks_for_heads_alone(proxied, run):
    for path in ("large", "pieces", "large"):
        said = run("curl", "-sS", "--head", f"http://127.0.0.1:{proxied}/{path}")

        assert said.startswith("HTTP/1.1 200")
        assert ("3000000" if path == "large" else None) == field(said, "content-length")


def field(head, name):
    found = re.search(rf"(?im)^{name}: *(\S+)", head)
    return found and found[1]


def test_a_proxy_asks_whether_to_go_on(proxied, run, upload):
    path, answer = upload
    how = ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]

    said = run("curl", "-sSi", *how, "-T", str(path), f"http://127.0.0.1:{proxied}/")

    assert said.startswith("HTTP/1.1 100 Continue")
    assert said.endswith(f"PUT {answer}")


def test_a_proxy_hands_a_websocket_on(proxied):
    client = WSConnection(ConnectionType.CLIENT)
    heard = []
    with socket.create_connection(("127.0.0.1", proxied), 20) as peer:
        peer.sendall(client.send(WebSocketRequest("localhost", "/live")))
        while len(heard) < 2:
            client.receive_data(peer.recv(65536))
            for event in client.events():
                if isinstance(event, AcceptConnection):
                    peer.sendall(client.send(TextMessage("hello")))
                else:
                    heard.append(event)

    assert ["welcome", "you said hello"] == [event.data for event in heard]


def test_a_proxy_keeps_its_connections(proxied, run):
    base = f"http://127.0.0.1:{proxied}"
    before = int(run("curl", "-sS", f"{base}/peers"))

    said = run("ab", "-q", "-k", "-n", "2000", "-c", "4", f"{base}/")

    assert ["2000", "0"] == re.findall(r"(?:Complete|Failed) requests: +(\d+)", said)
    assert "Non-2xx" not in said
    assert int(run("curl", "-sS", f"{base}/peers")) - before < 50


def test_a_proxy_hears_why_a_body_is_refused(proxied, run, tmp_path):
    path = tmp_path / "too large"
    path.write_bytes(bytes(12_000_000))
    how = ["-o", str(tmp_path / "answer"), "-w", "%{http_code}"]

    assert "413" == run("curl", "-sS", *how, "-H", "Expect:", "-T", str(path), f"http://127.0.0.1:{proxied}/")
