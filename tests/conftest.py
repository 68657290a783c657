"""What every test stands on: what must be there is there, and no failure is lost.

* A test says what it needs beside Python: `@pytest.mark.backend("redis")`, `@pytest.mark.browser`, or, in its own
  words, the `require` fixture. What is absent skips the test with a reason; it fails the test instead when
  `ROPEWALK_REQUIRED` names it ("chromium redis"), which is how a CI lane proves that nothing was left out.
* Several processes run the tests at a time, each test in whichever comes to it: what they share on this machine, a test
  has a part of for itself. `free_ports` gives it ports, `tmp_path` files; names on a server hold the process id.
* After each test nothing is left: no failure in the log or in a Deferred, no timer, no connection. Ropewalk's own
  pytest plugin looks, `ropewalk_leftovers` in pyproject.toml; whose subject is a failure takes `flush_logged_errors`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def absence_of_chromium() -> str | None:
    """Why no test can drive a browser here; None when one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (it comes with ropewalk[test])"
    if not any(map(shutil.which, CHROMIUM)):
        return f"none of {', '.join(CHROMIUM)} is on PATH"
    return None


def absence_of_postgresql() -> str | None:
    """Why no test can use a server of PostgreSQL on this machine; None when one can."""
    import psycopg

    try:
        psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres connect_timeout=5").close()
    except psycopg.OperationalError as error:
        return f"no server at 127.0.0.1 takes the user postgres without a password: {error}"
    return None


def absence_of_redis() -> str | None:
    """Why no test can use a server of Redis on this machine; None when one can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not on PATH"
    try:
        with socket.create_connection(("127.0.0.1", 6379), 5) as server:
            server.sendall(b"PING\r\n")
            answer = server.recv(100)
    except OSError as error:
        return f"nothing answers at 127.0.0.1:6379: {error}"
    return None if answer.startswith(b"+PONG") else f"127.0.0.1:6379 answers {answer!r}"


def absence_of_rabbitmq() -> str | None:
    """Why no test can use a server of RabbitMQ on this machine; None when one can."""
    if importlib.util.find_spec("pika") is None:
        return "pika is not installed; it comes with ropewalk[rabbitmq]"
    try:
        with socket.create_connection(("127.0.0.1", 5672), 5) as server:
            server.sendall(b"AMQP\x00\x00\x09\x01")
            answer = server.recv(8)
    except OSError as error:
        return f"nothing answers at 127.0.0.1:5672: {error}"
    return None if answer.startswith(b"\x01") else f"127.0.0.1:5672 answers {answer!r}"


def absence_of_strace() -> str | None:
    """Why no test can make system calls of another process fail here; None when one can."""
    if shutil.which("strace") is None:
        return "strace is not on PATH"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace may not trace: {tried.stderr.strip()}"


# What a marker may name -> a function that says why it is absent, or None. A backend gets its line with its adapter.
PROBES: dict[str, Callable[[], str | None]] = {
    "chromium": absence_of_chromium,
    "postgresql": cache(absence_of_postgresql),
    "rabbitmq": cache(absence_of_rabbitmq),
    "redis": cache(absence_of_redis),
    "strace": cache(absence_of_strace),
}


# -- on which reactor


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """pytest-twisted's `--reactor=asyncio` is ours, on uvloop; by default it is the platform's, epoll on Linux."""
    if config.getoption("reactor") == "asyncio":
        from ropewalk.engine import install

        install()


# -- in how many processes, and what each has for itself


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None beside this one for a single file, which somebody is at work on, and for crash tests, which restart servers."""
    files = {each.partition("::")[0] for each in config.args}
    one = len(files) == 1 and min(files).endswith(".py")
    return 0 if one or config.option.markexpr == "crash" else None


WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(20_000 + 100 * WORKER, 20_100 + 100 * WORKER)  # below those the kernel gives away


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], int]:
    """`free_ports(count)`: the first of as many ports in a row, on loopback, that nobody listens on."""

    def free_ports(count: int) -> int:
        runs = list(PORTS[: len(PORTS) - count : count])
        begin = os.getpid() % len(runs)  # two runs of the tests at a time seldom meet
        for first in runs[begin:] + runs[:begin]:
            with suppress(OSError):
                for port in range(first, first + count):
                    with socket.socket() as probe:
                        # What is left of closed connections is no hindrance; whoever listens is.
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", port))
                        probe.listen()
                return first
        raise AssertionError(f"no {count} free ports in a row in {PORTS}")

    return free_ports


# -- what servers show over TLS


@pytest.fixture(scope="session")
def certified(tmp_path_factory) -> Callable[..., str]:
    """`certified(*names)`: the path of a key and of a certificate that it signed itself, for names and addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def certified(*names: str) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        begin = datetime(2020, 1, 1, tzinfo=UTC)
        alternatives = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
        built = (
            x509.CertificateBuilder(issuer, issuer, key.public_key(), 1, begin, begin + timedelta(36500))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path_factory.mktemp("tls") / f"{names[0]}.pem"
        unsealed = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unsealed)
        path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
        return str(path)

    return certified


@pytest.fixture(scope="session")
def certificate(certified) -> str:
    """One for localhost and 127.0.0.1."""
    return certified("localhost", "127.0.0.1")


# -- what must be there


def required() -> frozenset[str]:
    """The names in `ROPEWALK_REQUIRED`, separated by spaces or commas."""
    return frozenset(os.environ.get("ROPEWALK_REQUIRED", "").replace(",", " ").split())


def require(name: str, present: object, reason: str) -> None:
    """Go on when `present` is true; else skip the test, or fail it when `name` is required here."""
    if present:
        return
    if name in required():
        pytest.fail(f"{name} is required here (ROPEWALK_REQUIRED) and absent: {reason}", pytrace=False)
    pytest.skip(f"{name} is absent: {reason}")


@pytest.fixture(name="require")
def _require() -> Callable[[str, object, str], None]:
    """`require(name, present, reason)`, for a test that finds out for itself what it has."""
    return require


def pytest_report_header() -> str:
    return f"required backends: {', '.join(sorted(required())) or 'none'}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for marker in item.iter_markers("backend") for name in marker.args]
    if item.get_closest_marker("browser"):
        names.append("chromium")
    for name in names:
        if name not in PROBES:
            pytest.fail(
                f"No probe for backend {name!r}; PROBES in tests/conftest.py knows {', '.join(sorted(PROBES))}."
            )
        reason = PROBES[name]()
        require(name, reason is None, reason or "")
