"""What it costs a server to begin a connection over TLS, when it shows its certificate and when a session is resumed.

A Site in one process; clients of Python's own ssl in another connect, one after another, ask once and leave. Measured:
the processor time of the server's process, for a key of RSA (2048 bits) and of ECDSA (P-256), the reply included.

    python benchmarks/tls.py [--connections 2000] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SERVER = """
import sys, time
from ropewalk.engine import Site, install
install()
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource

class Says(Resource):
    isLeaf = True

    def render(self, request):
        return str(time.process_time()).encode()

site = Site(Says(), reactor=reactor)
site.log = lambda request: None
for pem in sys.argv[1:]:
    serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={pem}").listen(site).addCallback(
        lambda port: print(port.getHost().port, flush=True)
    )
reactor.run()
"""
KEYS = {"RSA": lambda: rsa.generate_private_key(65537, 2048), "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1())}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def certified(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    """Writes a key, and a certificate of localhost that it signed."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    unsealed = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unsealed)
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


class Client:
    """Of one listener."""

    def __init__(self, port: int, path: Path, version: ssl.TLSVersion) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(path))
        self._context.minimum_version = self._context.maximum_version = version

    def ask(self, session: ssl.SSLSession | None = None) -> tuple[float, bool, ssl.SSLSession | None]:
        """The server's processor time so far, whether the session was resumed, and the session."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                spent = float(connection.recv(10_000).rpartition(b"\r\n")[2])
                return spent, bool(connection.session_reused), connection.session

    def rate(self, connections: int, *, resume: bool) -> float:
        """Connections for a second of the server's processor time."""
        begin, _, session = self.ask()
        for _ in range(connections):
            spent, resumed, latest = self.ask(session if resume else None)
            assert resume == resumed, f"expected resumed to be {resume}, got {resumed}"
            session = latest
        return connections / (spent - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=2000, help="for each figure of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [certified(Path(folder, name), make()) for name, make in KEYS.items()]
        command = [sys.executable, "-c", SERVER, *map(str, paths)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            ports = [int(server.stdout.readline()) for _ in paths]
            found = {}
            for name, port, path in zip(KEYS, ports, paths, strict=True):
                for version, number in VERSIONS.items():
                    client = Client(port, path, number)
                    pairs = [
                        [client.rate(options.connections, resume=resume) for resume in (False, True)]
                        for _ in range(options.rounds)
                    ]
                    found[f"{name}, TLS {version}"] = [statistics.median(each) for each in zip(*pairs, strict=True)]
        finally:
            server.terminate()
            server.wait()
    if options.json:
        print(json.dumps(found))
        return
    print("connections a second of processor time   in full   resumed   ratio")
    for name, (full, resumed) in found.items():
        print(f"{name:40} {full:7,.0f} {resumed:9,.0f} {resumed / full:7.2f}")


if __name__ == "__main__":
    main()
