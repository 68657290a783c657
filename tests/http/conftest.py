"""Browsers for the HTTP wire's tests: one that asks in memory and is answered at once, and one over a real socket."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from http.cookies import SimpleCookie
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import directlyProvides

from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.filters.authenticate import Authenticate
from ropewalk.handler import compose
from ropewalk.http.raw import serve
from ropewalk.http.sessions import Sessions
from ropewalk.service import Service

SECRET = "a secret that only tests know"
FORM = "application/x-www-form-urlencoded"


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, list[str]]  # by lower-case name, those of the server itself left out
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def token(self) -> str:
        """The token in the page's form."""
        found = re.search(r'name="csrf_token" value="([^"]*)"', self.text)
        assert found is not None, f"no token in {self.text!r}"
        return found[1]


class Browser:
    """Keeps the cookies it is given, and says no more than it is told to."""

    def __init__(self, host: str = "pages.example") -> None:
        self.host = host
        self.cookies: dict[str, str] = {}

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a request, the cookies and a length included."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def keep(self, reply: Reply) -> Reply:
        """Keep the reply's cookies, and forget those that it takes back."""
        for line in reply.headers.get("set-cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return reply


class MemoryBrowser(Browser):
    """Asks a resource that answers at once."""

    def __init__(self, resource: IResource, *, tls: bool = False) -> None:
        super().__init__()
        self._site = Site(resource, reactor=Clock(), parsePOSTFormSubmission=False)
        self._site.log = lambda request: None  # type: ignore[method-assign]
        self._tls = tls

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        form: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    ) -> Reply:
        """The reply to one request on a connection of its own."""
        headers = dict(headers or {})
        if form is not None:
            body = urlencode(form, doseq=True).encode()
            headers.setdefault("Content-Type", FORM)
        address = IPv4Address("TCP", "192.0.2.7", 40000)
        channel: Any = self._site.buildProtocol(address)
        transport = StringTransportWithDisconnection(peerAddress=address)
        if self._tls:
            directlyProvides(transport, ISSLTransport)
            transport.setTcpNoDelay = lambda on: None  # type: ignore[attr-defined]
        transport.protocol = channel
        channel.makeConnection(transport)
        channel.dataReceived(self.request(method, path, headers, body))
        return self.keep(parsed(transport.value(), head=method == "HEAD"))


def parsed(data: bytes, *, head: bool = False) -> Reply:
    """One whole reply."""
    assert data, "no answer yet"
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    if headers.pop("transfer-encoding", None) and not head:
        whole = b""
        while True:
            size, _, rest = body.partition(b"\r\n")
            if not int(size, 16):
                break
            whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    for name in ("server", "date"):
        headers.pop(name, None)
    return Reply(int(status.split()[1]), headers, body)


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Wall:
    """`now()` is the wall clock's time in seconds, `now.time` sets it."""
    return Wall()


@pytest.fixture
def sessions(now: Wall) -> Sessions:
    """Sessions of one secret, with ids that are the same in each run."""
    return Sessions(SECRET, now, Random(1))


@pytest.fixture
def browse(sessions: Sessions) -> Callable[..., MemoryBrowser]:
    """`browse(service, authenticators=(), tls=False, **options of surface)`: a browser that looks at `service`."""

    from ropewalk.http.surface import surface  # late: klein, which it needs, brings the reactor

    def browse(
        service: Service, authenticators: Sequence[Any] = (), tls: bool = False, **options: Any
    ) -> MemoryBrowser:
        clock = Clock()
        handler = compose([Authenticate(authenticators)], dispatch(service))
        options.setdefault("sessions", sessions)
        resource = surface(service, handler, Driver.of(clock), clock.seconds, **options)
        return MemoryBrowser(resource, tls=tls)

    return browse


# -- over a real socket


class SocketBrowser(Browser):
    """Asks a Site on loopback."""

    def __init__(self, reactor: Any, port: int) -> None:
        super().__init__(f"127.0.0.1:{port}")
        from treq.client import HTTPClient
        from twisted.web.client import Agent, HTTPConnectionPool

        self._pool = HTTPConnectionPool(reactor, persistent=False)
        self._http = HTTPClient(Agent(reactor, pool=self._pool))

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Reply:
        """The reply to one request; `options` are treq's: data, files, json."""
        said = dict(headers or {})
        if self.cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        url = f"http://{self.host}{path}"
        reply = await self._http.request(method, url, headers=said, allow_redirects=False, **options)
        headers_back = {
            name.decode().lower(): [value.decode("latin-1") for value in values]
            for name, values in reply.headers.getAllRawHeaders()
            if name.lower() not in (b"server", b"date", b"content-encoding")
        }
        return self.keep(Reply(reply.code, headers_back, await reply.content()))


@pytest.fixture
def running() -> Any:
    """The reactor that runs beneath the tests which await."""
    from twisted.internet import reactor

    return reactor


@pytest_twisted.async_yield_fixture
async def listen(running: Any) -> AsyncIterator[Callable[[IResource], SocketBrowser]]:
    """`listen(resource)`: a browser for `resource`, served on loopback until the test ends."""
    ports = []

    def listen(resource: IResource) -> SocketBrowser:
        site = Site(resource, reactor=running, parsePOSTFormSubmission=False)
        site.log = lambda request: None  # type: ignore[method-assign]
        site.displayTracebacks = False
        ports.append(running.listenTCP(0, site, interface="127.0.0.1"))
        return SocketBrowser(running, ports[-1].getHost().port)

    yield listen
    for port in ports:
        await port.stopListening()


@pytest.fixture
def threads(running: Any) -> Iterator[Any]:
    """Two threads for WSGI applications."""
    from twisted.python.threadpool import ThreadPool

    pool = ThreadPool(0, 2, "tests")
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def served(
    running: Any, listen: Callable[[IResource], SocketBrowser], sessions: Sessions
) -> Callable[..., SocketBrowser]:
    """`served(service, authenticators=(), **options of surface)`: a browser for `service`, on loopback."""

    from ropewalk.http.surface import surface

    def served(service: Service, authenticators: Sequence[Any] = (), **options: Any) -> SocketBrowser:
        stack = [Authenticate(authenticators)]
        options.setdefault("sessions", sessions)
        return listen(
            surface(
                service,
                compose(stack, dispatch(service)),
                Driver.of(running),
                running.seconds,
                raw=compose(stack, serve),
                **options,
            )
        )

    return served
