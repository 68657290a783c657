"""Facts about proxies in front: whose word is taken, and what a request looks like that came by one."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource

from ropewalk.engine import Limits, Proxies, Site
from ropewalk.engine.proxies import read

PROXY, CLIENT, STRANGER = "10.0.0.1", "198.51.100.7", "203.0.113.5"
GET = b"GET / HTTP/1.1\r\nHost: inside\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 198.51.100.7 10.0.0.9 4711 80\r\n"


class Says(Resource):
    """Says what it sees of its client."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        seen = (
            request.getClientAddress().host,
            "https" if request.isSecure() else "http",
            request.getHeader(b"host"),
            request.getHost().port,
        )
        return repr(seen).encode()


class Behind:
    """A Site on virtual time that trusts a network, and connections to it from anywhere."""

    def __init__(self, *trusted: str, protocol: bool = False, **limits: Any) -> None:
        self.clock = Clock()
        proxies = Proxies(trusted or ("10.0.0.0/8",), protocol=protocol)
        self.site = Site(Says(), reactor=self.clock, proxies=proxies, limits=Limits(**limits))
        self.site.log = lambda request: None

    def connected(self, peer: str = PROXY) -> Any:
        transport = StringTransportWithDisconnection(
            hostAddress=IPv4Address("TCP", "10.0.0.9", 8080), peerAddress=IPv4Address("TCP", peer, 5000)
        )
        transport.abortConnection = transport.loseConnection
        transport.protocol = self.site.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        return transport

    def ask(self, *fields: bytes, peer: str = PROXY, on: Any = None) -> tuple[int, Any]:
        """Status and what was seen, None when it was not asked."""
        transport = on or self.connected(peer)
        transport.clear()
        transport.protocol.dataReceived(GET + b"".join(each + b"\r\n" for each in fields) + b"\r\n")
        return answer(transport)


def answer(transport: Any) -> tuple[int, Any]:
    head, _, body = transport.value().partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, eval(body.decode()) if status == 200 else None


@pytest.fixture
def behind(request):
    """`behind(*trusted, protocol=..., **limits)`: a Behind, and no timer of it is left."""
    made: list[Behind] = []

    def make(*args: Any, **options: Any) -> Behind:
        made.append(Behind(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.site.server.abort()
        assert [] == each.clock.getDelayedCalls()


# -- X-Forwarded-*


def test_of_a_trusted_proxy_the_client_the_scheme_and_the_host_are_believed(behind):
    assert (200, (CLIENT, "https", b"example.org", 443)) == behind().ask(
        b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: example.org"
    )


def test_of_anybody_else_nothing_is(behind):
    assert (200, (STRANGER, "http", b"inside", 8080)) == behind().ask(
        b"X-Forwarded-For: 198.51.100.7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: example.org",
        peer=STRANGER,
    )


def test_a_proxy_that_says_nothing_is_the_client(behind):
    assert (200, (PROXY, "http", b"inside", 8080)) == behind().ask()


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ([b"203.0.113.5, 198.51.100.7"], CLIENT),
        ([b"203.0.113.5", b"198.51.100.7"], CLIENT),
        ([b"203.0.113.5, 198.51.100.7, 10.0.0.2"], CLIENT),
        ([b"198.51.100.7:4711"], CLIENT),
        ([b"[2001:db8::7]:4711"], "2001:db8::7"),
        ([b"2001:db8::7"], "2001:db8::7"),
        ([b"10.0.0.3"], "10.0.0.3"),
        ([b"unknown"], PROXY),
        ([b"198.51.100.7, unknown"], PROXY),
        ([b"198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ([b"198.51.100.7,"], PROXY),
        ([b""], PROXY),
        ([b"198.51.100.700"], PROXY),
    ],
    ids=lambda value: b"/".join(value).decode() if isinstance(value, list) else "",
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(behind, said, client):
    status, seen = behind().ask(*(b"X-Forwarded-For: " + each for each in said))

    assert (200, client) == (status, seen[0])


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ([b"X-Forwarded-Proto: https"], ("https", b"inside", 443)),
        ([b"X-Forwarded-Proto: HTTPS"], ("https", b"inside", 443)),
        ([b"X-Forwarded-Proto: https, http"], ("http", b"inside", 80)),
        ([b"X-Forwarded-Proto: wss"], ("http", b"inside", 8080)),
        ([b"X-Forwarded-Proto: https", b"X-Forwarded-Host: example.org:8443"], ("https", b"example.org:8443", 8443)),
        ([b"X-Forwarded-Host: a, b"], ("http", b"b", 8080)),
        ([b"X-Forwarded-Host: a/b"], ("http", b"inside", 8080)),
        ([b"X-Forwarded-Host:"], ("http", b"inside", 8080)),
    ],
    ids=lambda value: b" ".join(value).decode() if isinstance(value, list) else "",
)
def test_scheme_and_host_are_the_last_proxys_and_what_is_none_is_not_heard(behind, fields, seen):
    assert (200, (PROXY, *seen)) == behind().ask(*fields)


def test_each_request_on_a_connection_has_a_client_of_its_own(behind):
    site = behind()
    connection = site.connected()

    clients = [
        site.ask(*([b"X-Forwarded-For: " + each] if each else []), on=connection)[1][0]
        for each in (b"198.51.100.7", b"203.0.113.5", b"")
    ]

    assert [CLIENT, STRANGER, PROXY] == clients


def test_a_proxy_is_not_counted_and_its_clients_are(behind):
    site = behind(per_peer=2)
    idle = [site.connected() for _ in range(4)]

    first = [site.ask(b"X-Forwarded-For: 198.51.100.7", on=each)[0] for each in idle[:3]]
    other = site.ask(b"X-Forwarded-For: 203.0.113.5", on=idle[3])[0]

    assert ([200, 200, 429], 200) == (first, other)
    assert 1 == site.site.server.counts["no room"]


def test_a_client_has_its_place_again_when_its_connection_serves_another(behind):
    site = behind(per_peer=1)
    first, second = site.connected(), site.connected()
    site.ask(b"X-Forwarded-For: 198.51.100.7", on=first)
    site.ask(b"X-Forwarded-For: 203.0.113.5", on=first)

    assert 200 == site.ask(b"X-Forwarded-For: 198.51.100.7", on=second)[0]


def test_a_stranger_is_counted_as_ever(behind):
    site = behind(per_peer=1)
    site.connected(STRANGER)

    assert not site.connected(STRANGER).connected


# -- the PROXY protocol


def binary(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + pack("!BBH", command, family, len(addresses)) + addresses


V4 = bytes([198, 51, 100, 7, 10, 0, 0, 9]) + pack("!HH", 4711, 80)
V6 = bytes.fromhex("20010db8000000000000000000000007" * 2) + pack("!HH", 4711, 80)
PREAMBLES = {
    "a line": (LINE, CLIENT),
    "a line of version 6": (b"PROXY TCP6 2001:db8::7 2001:db8::9 4711 80\r\n", "2001:db8::7"),
    "a line that does not know": (b"PROXY UNKNOWN\r\n", PROXY),
    "a line that says so at length": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", PROXY),
    "bytes": (binary(0x21, 0x11, V4), CLIENT),
    "bytes of version 6": (binary(0x21, 0x21, V6), "2001:db8::7"),
    "bytes with an extension": (binary(0x21, 0x11, V4 + b"\x04\0\x05hello"), CLIENT),
    "bytes of a UNIX socket": (binary(0x21, 0x31, bytes(216)), PROXY),
    "bytes of the proxy itself": (binary(0x20, 0, b""), PROXY),
}
NONE = {
    "a request": GET + b"\r\n",
    "another line": b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    "an address that is none": b"PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n",
    "an address of another family": b"PROXY TCP4 2001:db8::7 2001:db8::9 4711 80\r\n",
    "a line without an end": b"PROXY UNKNOWN " + b"x" * 100,
    "a line that is too long": b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    "another command": binary(0x22, 0x11, V4),
    "another version": binary(0x11, 0x11, V4),
    "too few bytes": binary(0x21, 0x11, V4[:11]),
    "too many bytes": binary(0x21, 0x11, bytes(4097)),
}


@pytest.mark.parametrize(("preamble", "client"), PREAMBLES.values(), ids=PREAMBLES)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
def test_a_trusted_proxys_connection_is_whose_it_says(behind, preamble, client, cut):
    connection = behind(protocol=True).connected()
    whole = preamble + GET + b"\r\n"
    for part in [whole[at : at + 1] for at in range(len(whole))] if cut else [whole]:
        connection.protocol.dataReceived(part)

    assert (200, client) == (answer(connection)[0], answer(connection)[1][0])


@pytest.mark.parametrize("said", NONE.values(), ids=NONE)
def test_a_trusted_proxy_that_says_nothing_of_the_kind_is_cut_off(behind, said):
    site = behind(protocol=True)
    connection = site.connected()

    connection.protocol.dataReceived(said)

    assert (False, b"", 1) == (connection.connected, connection.value(), site.site.server.counts["no preamble"])


def test_one_that_says_it_too_late_is_cut_off(behind):
    site = behind(protocol=True)
    connection = site.connected()
    connection.protocol.dataReceived(LINE[:5])

    site.clock.advance(Limits().head_time + 1)

    assert (False, 1) == (connection.connected, site.site.server.counts["no preamble"])


def test_one_that_leaves_before_is_forgotten(behind):
    site = behind(protocol=True)
    connection = site.connected()

    connection.loseConnection()

    assert [] == site.clock.getDelayedCalls()


@pytest.mark.parametrize("end", ["drain", "abort"])
def test_one_that_has_not_said_it_ends_with_the_listener(behind, end):
    site = behind(protocol=True)
    connection = site.connected()

    getattr(site.site.server, end)()

    assert (False, []) == (connection.connected, site.clock.getDelayedCalls())


def test_anybody_else_is_served_without_it_and_may_not_say_it(behind):
    site = behind(protocol=True)

    assert (200, STRANGER) == (site.ask(peer=STRANGER)[0], site.ask(peer=STRANGER)[1][0])
    liar = site.connected(STRANGER)
    liar.protocol.dataReceived(LINE + GET + b"\r\n")
    assert b"HTTP/1.1 400 " == liar.value()[:13]


def test_what_its_requests_say_of_their_clients_is_not_heard(behind):
    connection = behind(protocol=True).connected()
    connection.protocol.dataReceived(LINE)

    connection.protocol.dataReceived(GET + b"X-Forwarded-For: 203.0.113.5\r\n\r\n")

    assert CLIENT == answer(connection)[1][0]


def test_its_clients_are_counted(behind):
    site = behind(protocol=True, per_peer=1)
    first, second = site.connected(), site.connected()

    first.protocol.dataReceived(LINE)
    second.protocol.dataReceived(LINE)

    assert (True, False) == (first.connected, second.connected)


def test_one_that_has_not_said_it_has_a_place(behind):
    site = behind(protocol=True, connections=2)
    one, another = site.connected(), site.connected()
    assert (False, 1) == (site.connected().connected, site.site.server.counts["no room"])
    assert not site.connected(STRANGER).connected

    one.protocol.dataReceived(LINE)
    assert one.connected
    assert not site.connected().connected
    another.loseConnection()
    assert site.connected().connected


def test_no_bytes_are_taken_for_a_preamble_that_need_more_of_themselves():
    @given(
        st.one_of(st.binary(max_size=40), st.sampled_from([*NONE.values(), *(each for each, _ in PREAMBLES.values())]))
    )
    def of(data):
        try:
            found = read(data)
        except ValueError:
            found = ("", 0)
        if found is None:  # then there is something that may follow
            assert len(data) < 4112
        else:
            assert found[1] <= len(data)

    of()


def test_a_network_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        Proxies(["10.0.0.0/99"])
