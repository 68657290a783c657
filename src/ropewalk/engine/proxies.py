"""What stands in front of a listener, and whose word about its clients is taken: X-Forwarded-*, the PROXY protocol.

Only a peer that is trusted is believed; of others these fields are an application's own affair. A client is the last
address of X-Forwarded-For that is no trusted proxy: what stands left of it was said by the client itself.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt (versions 1 and 2)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from struct import unpack_from
from typing import Any, NamedTuple

from .channel import Channel
from .deadlines import NEVER
from .heads import Fields, names_host

_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST = {1: 107, 2: 16 + 4096}  # bytes of a preamble; those of version 2 may carry extensions, which are not read
_LINE = re.compile(rb"PROXY (?:UNKNOWN[^\r\n]*|TCP([46]) ([0-9A-Fa-f:.]+) [0-9A-Fa-f:.]+ [0-9]{1,5} [0-9]{1,5})\r\n")


class Client(NamedTuple):
    """What a trusted proxy says of a request."""

    address: str  # of its client
    secure: bool | None  # whether that came by TLS; None: nothing was said
    host: bytes  # which it asked for; b"": nothing was said


class Proxies:
    """Those in front of a listener."""

    def __init__(self, trusted: Iterable[str], *, protocol: bool = False) -> None:
        """`trusted`: addresses and networks ("10.0.0.0/8"); "" is a UNIX socket. `protocol`: they begin each connection
        with the PROXY protocol. Raises ValueError for what is no network.
        """
        networks = [ip_network(each) for each in trusted if each]
        self.protocol = protocol
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(networks)
        self._local = "" in trusted
        self.trusts = lru_cache(1024)(self._trusts)

    def _trusts(self, peer: str) -> bool:
        """Whether the word of a peer with this address is taken."""
        if not peer:
            return self._local
        address = address_in(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, fields: Fields) -> Client:
        """Of a request that `peer`, which is trusted, has handed on."""
        said: dict[bytes, bytes] = {}
        for name, value in fields:
            lower = name.lower()
            if lower in _FORWARDED:
                said[lower] = said[lower] + b"," + value if lower in said else value
        found = peer
        for each in reversed(said.get(b"x-forwarded-for", b"").split(b",")):
            address = _host_of(each.strip(b" \t"))
            if address is None:
                break
            found = address
            if not self.trusts(address):
                break
        scheme = said.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip(b" \t").lower()
        host = said.get(b"x-forwarded-host", b"").rpartition(b",")[2].strip(b" \t")
        secure = scheme == b"https" if scheme in (b"https", b"http") else None
        return Client(found, secure, host if host and names_host(host) else b"")


def _host_of(text: bytes) -> str | None:
    """The address in "192.0.2.7", "192.0.2.7:4711", "2001:db8::7" or "[2001:db8::7]:4711"."""
    name = text.decode("latin-1")
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    return None if address_in(name) is None else name


def address_in(text: str) -> Any:
    """The IP address that a text is, of version 4 when it is mapped; None for a name."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class Preamble:
    """Before a channel: a connection from a trusted proxy first says whose it is. Others are served as they are."""

    def __init__(self, channel: Channel, proxies: Proxies) -> None:
        self.deadline = NEVER
        self._channel = channel
        self._proxies = proxies
        self._transport: Any = None
        self._peer = ""
        self._said = b""
        self._through = False  # the channel has the connection

    # -- from the driver

    def connection_made(self, transport: Any, peer: str = "") -> None:
        """As Channel."""
        self._transport, self._peer = transport, peer
        if not self._proxies.trusts(peer):
            self._hand_over(peer)
            return
        server = self._channel.server
        if server.is_full():
            server.counts["no room"] += 1
            transport.abort()
            return
        server.nameless[self] = None
        server.deadlines.add(self)
        server.deadlines.set(self, server.seconds() + server.limits.head_time)

    def data_received(self, data: bytes) -> None:
        """As Channel."""
        if self._through:
            self._channel.data_received(data)
            return
        self._said += data
        try:
            found = read(self._said)
        except ValueError:
            self.abort()
            return
        if found is None:
            return
        address, length = found
        rest, self._said = self._said[length:], b""
        self._forget()
        self._hand_over(address or self._peer)
        if rest:
            self._channel.data_received(rest)

    def connection_lost(self, error: Exception | None = None) -> None:
        """As Channel."""
        if self._through:
            self._channel.connection_lost(error)
        else:
            self._forget()

    def pause_writing(self) -> None:
        """As Channel."""
        if self._through:
            self._channel.pause_writing()

    def resume_writing(self) -> None:
        """As Channel."""
        if self._through:
            self._channel.resume_writing()

    # -- within

    def late(self, now: float) -> None:
        """The preamble has not come."""
        self.abort()

    def abort(self) -> None:
        """Cut it off."""
        self._channel.server.counts["no preamble"] += 1
        self._forget()
        self._transport.abort()

    def _forget(self) -> None:
        server = self._channel.server
        server.deadlines.discard(self)
        server.nameless.pop(self, None)

    def _hand_over(self, peer: str) -> None:
        self._through = True
        self._channel.connection_made(self._transport, peer)


def read(data: bytes) -> tuple[str, int] | None:
    """Whose connection a preamble says it is ("": the proxy's own) and how long it is; None while it is not complete.

    Raises ValueError for what is none.
    """
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    end = data.find(b"\r\n") + 2
    if end > _LONGEST[1] or (end < 2 and len(data) >= _LONGEST[1]) or data[:6] != b"PROXY "[: len(data)]:
        raise ValueError("This is no PROXY protocol.")
    if end < 2:
        return None
    match = _LINE.fullmatch(data[:end])
    if match is None:
        raise ValueError(f"This is no PROXY protocol: {data[:end]!r}.")
    family, source = match.groups()
    if family is None:
        return "", end
    address = ip_address(source.decode())
    if address.version != int(family):
        raise ValueError(f"{address} is no address of TCP{family.decode()}.")
    return str(address), end


def _read_binary(data: bytes) -> tuple[str, int] | None:
    if len(data) < 16:
        return None
    command, family, size = unpack_from("!BBH", data, 12)
    if command not in (0x20, 0x21) or 16 + size > _LONGEST[2]:
        raise ValueError("This is no PROXY protocol of version 2.")
    if len(data) < 16 + size:
        return None
    length = {0x11: 4, 0x21: 16}.get(family, 0)
    if command == 0x20 or not length:  # the proxy's own, a health check; or what has no address that is counted
        return "", 16 + size
    if size < 2 * length + 4:
        raise ValueError("This PROXY preamble is too short for its addresses.")
    return str(ip_address(data[16 : 16 + length])), 16 + size
