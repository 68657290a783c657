"""A service at the other end of a simulated connection: raw bytes in, raw bytes out, and an end that loses nothing.

What tests/http and tests/runtime tell of one channel or one process on loopback, over a World's reactor: bytes that come
in any pieces, clients that are slow or gone, a process that stops while it is asked. Time is virtual, so it is told to
the millisecond; where bytes are cut, the seed says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from ropewalk import RopewalkError, Service, get, given, post
from ropewalk.engine.channel import FRESH_GRACE, USED_GRACE
from ropewalk.engine.deadlines import EVERY
from ropewalk.engine.limits import DEFAULT as LIMITS
from ropewalk.http.sessions import Session
from ropewalk.testing import World

DRAIN_LIMIT = 30.0  # seconds, by default


class Rooms(Service, name="rooms"):
    """The callee."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @get("/rooms/<int:number>")
    async def read(self, number: int) -> str:
        self.seen.append(f"read {number}")
        return f"room {number}"

    @post("/notes", max_body=100)
    async def note(self, text: dict[str, str]) -> dict[str, str]:
        self.seen.append("noted")
        return text

    @get("/slow/<int:number>")
    async def slow(self, number: int) -> int:
        return await self._wait(number)

    @post("/slow/<int:number>")
    async def slow_write(self, number: int) -> int:
        return await self._wait(number)

    @get("/stream/<int:pieces>")
    async def stream(self, pieces: int) -> AsyncIterator[str]:
        try:
            for _ in range(pieces):
                self.seen.append("piece")
                yield "x" * 1000
        finally:
            self.seen.append("closed")

    async def _wait(self, number: int) -> int:
        self.seen.append(f"began {number}")
        try:
            await asyncio.sleep(number)
        except asyncio.CancelledError:
            self.seen.append(f"stopped {number}")
            raise
        self.seen.append(f"ended {number}")
        return number


class Desk(Service, name="desk"):
    """The caller."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    @get("/slow/<int:number>")
    async def slow(self, number: int) -> int:
        return await self.rooms.slow(number)


class Lodge(Service, name="lodge"):
    """Opens at leisure."""

    async def start(self) -> None:
        await asyncio.sleep(1)


class Notebook(Service, name="notebook"):
    """Remembers its visitors."""

    @post("/notes/<text>", access="public")
    async def note(self, text: str, session: Session = given) -> list[str]:
        session["texts"] = [*session.get("texts", []), text]
        return session["texts"]

    @get("/inside")
    async def inside(self) -> str:
        return "inside"


class Raw(Protocol):
    """A client that says what it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.got = b""
        self.closed_by: type[BaseException] | None = None
        self.closed_at = 0.0  # virtual seconds

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed_by, self.closed_at = reason.type, self.world.now

    def send(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    @property
    def replies(self) -> list[tuple[int, bytes]]:
        """(status, body) of each that is here whole."""
        return list(_replies(self.got))


def _replies(data: bytes) -> Iterator[tuple[int, bytes]]:
    while b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
        if len(data) < length:
            return
        yield int(lines[0].split()[1]), data[:length]
        data = data[length:]


class Inn:
    """A World with one of each, and connections to them."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def rooms(self) -> Any:
        return self.world.processes["rooms/1"].services["rooms"]

    def connect(self, service: str = "rooms") -> Raw:
        """A connection from outside, which is there."""
        return self.world.run(self.connecting(service))

    def connecting(self, service: str = "rooms", port: int = 0) -> Deferred[Raw]:
        """The same, on its way; by default to the port siblings use."""
        process = self.world.processes[f"{service}/1"]
        there = urlsplit(process.placement.places[service].urls[0])
        outside: Any = self.world.hosts["outside"].reactor
        endpoint = TCP4ClientEndpoint(outside, there.hostname or "", port or there.port or 0)
        return connectProtocol(endpoint, Raw(self.world))

    def stop(self, service: str = "rooms") -> Deferred[None]:
        """Its process begins to stop."""
        return self.world.driver.run(self._stop(service))

    async def _stop(self, service: str) -> None:
        await self.world.processes[f"{service}/1"].stopService()

    def left(self, service: str = "rooms") -> list[Any]:
        """What there still is of its process: timers, listeners and connections."""
        host = self.world.hosts[f"{service}/1"]
        network = self.world.network
        return [
            *host.reactor.getDelayedCalls(),
            *(key for key, port in network.ports.items() if port.reactor is host.reactor),
            *(end for end in network.connections if end.reactor is host.reactor),
        ]


@pytest.fixture
def inn() -> Iterator[Inn]:
    with World([Rooms, Desk], instances=1) as world:
        yield Inn(world)


@pytest.fixture(params=[0.0, 1.0], ids=["in whole segments", "in pieces"])
def cut(inn: Inn, request: pytest.FixtureRequest) -> Inn:
    """The same, where segments arrive whole, or each in pieces."""
    inn.world.link("outside", "rooms", split=request.param)
    return inn


def asked(path: str, method: str = "GET", *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


NOTE = b'{"text":"late arrival"}'

# What goes out in one write -> the replies, as (status, body), and whether the connection then stays.
CONVERSATIONS: Mapping[str, tuple[bytes, list[tuple[int, bytes | None]], bool]] = {
    "one": (asked("/rooms/1"), [(200, b'"room 1"')], True),
    "three in a row": (
        asked("/rooms/1") + asked("/rooms/x") + asked("/rooms/3"),
        [(200, b'"room 1"'), (404, None), (200, b'"room 3"')],
        True,
    ),
    "a slow one and a fast one": (asked("/slow/2") + asked("/rooms/1"), [(200, b"2"), (200, b'"room 1"')], True),
    "a body": (asked("/notes", "POST", body=NOTE) * 2, [(200, NOTE), (200, NOTE)], True),
    "a body in chunks": (
        asked("/notes", "POST", "Content-Type: application/json", "Transfer-Encoding: chunked")
        + b"8\r\n"
        + NOTE[:8]
        + b"\r\n%x;ext=1\r\n" % len(NOTE[8:])
        + NOTE[8:]
        + b"\r\n0\r\n\r\n"
        + asked("/rooms/1"),
        [(200, NOTE), (200, b'"room 1"')],
        True,
    ),
    "a body that is expected": (
        asked("/notes", "POST", "Expect: 100-continue", body=NOTE),
        [(100, b""), (200, NOTE)],
        True,
    ),
    "a body that is too large": (
        asked("/notes", "POST", body=b'{"text":"%s"}' % (b"x" * 100)) + asked("/rooms/1"),
        [(413, None), (200, b'"room 1"')],
        True,
    ),
    "no JSON": (asked("/notes", "POST", body=b"{") + asked("/rooms/1"), [(400, None), (200, b'"room 1"')], True),
    "an end that is asked for": (asked("/rooms/1", "GET", "Connection: close"), [(200, b'"room 1"')], False),
    "an older client": (asked("/rooms/1", version="1.0"), [(200, b'"room 1"')], False),
    "no HTTP": (b"what is this?\r\n\r\n", [(400, None)], False),
    "two lengths": (
        b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        [(400, None)],
        False,
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_is_said_is_answered_in_order_however_its_bytes_come(cut, name):
    said, expected, stays = CONVERSATIONS[name]
    client = cut.connect()

    client.send(said)
    cut.world.advance(3)

    assert [status for status, _ in expected] == [status for status, _ in client.replies]
    assert all(body in (None, got) for (_, body), (_, got) in zip(expected, client.replies, strict=True))
    assert (None if stays else ConnectionDone) == client.closed_by


def test_a_head_is_get_without_the_body_and_the_connection_goes_on(cut):
    client = cut.connect()

    client.send(asked("/rooms/1", "HEAD") + asked("/rooms/2", "HEAD"))
    cut.world.advance(1)

    heads = client.got.split(b"\r\n\r\n")
    assert [True, True, False] == [head.startswith(b"HTTP/1.1 200") for head in heads]
    assert (2, b"") == (client.got.lower().count(b"content-length: 8\r\n"), heads[-1])


def test_a_connection_is_used_again_and_again(inn):
    client = inn.connect()

    for number in range(1, 21):
        client.send(asked(f"/rooms/{number}"))
        inn.world.until(lambda number=number: len(client.replies) == number)

    assert [(200, b'"room %d"' % number) for number in range(1, 21)] == client.replies
    assert {("outside", "rooms/1"): 1} == inn.world.open_connections()


def test_a_body_that_never_ends_is_refused_and_cut_off(inn):
    client = inn.connect()
    site = inn.world.processes["rooms/1"]._sites[0]

    client.send(asked("/notes", "POST", "Content-Type: application/json", "Transfer-Encoding: chunked"))
    while not client.replies:
        client.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        inn.world.advance(0.1)
    for _ in range(10):
        client.send(b"x")  # it does not even hear that
        inn.world.advance(1)

    assert [413] == [status for status, _ in client.replies]
    assert ([], {}) == (inn.rooms.seen, site.server.channels)


@pytest.mark.parametrize("heard", range(1, len(asked("/notes", "POST", body=NOTE)), 17))
def test_a_client_that_is_gone_before_the_end_of_its_request_has_asked_nothing(inn, heard):
    client = inn.connect()

    client.send(asked("/notes", "POST", body=NOTE)[:heard])
    client.transport.loseConnection()
    inn.world.advance(1)

    assert ([], {}) == (inn.rooms.seen, inn.world.processes["rooms/1"]._sites[0].server.channels)


def test_a_slow_sender_is_waited_for_until_the_deadlines_of_head_and_body(inn):
    client = inn.connect()
    head, body = asked("/notes", "POST", body=NOTE)[: -len(NOTE)], NOTE

    for part, seconds in ((head, LIMITS.head_time), (body, LIMITS.body_grace)):
        for byte in part:
            inn.world.advance((seconds - 0.5) / len(part))
            client.send(bytes([byte]))
    inn.world.advance(1)

    assert [(200, NOTE)] == client.replies


@pytest.mark.parametrize(
    ("said", "answered", "after"),
    [
        (b"", [], LIMITS.head_time),
        (b"GET", [408], LIMITS.head_time),
        (asked("/rooms/1"), [200], LIMITS.idle),
        (asked("/rooms/1") + b"GET", [200, 408], LIMITS.head_time),
        (asked("/notes", "POST", body=NOTE)[:-1], [408], LIMITS.body_grace),
    ],
)
def test_a_connection_on_which_nothing_comes_is_closed_in_the_end(inn, said, answered, after):
    client = inn.connect()
    client.send(said)
    begin = inn.world.now

    inn.world.until(lambda: client.closed_by is not None, timeout=2 * after)

    assert ConnectionDone is client.closed_by
    assert answered == [status for status, _ in client.replies]
    assert 0 <= client.closed_at - begin - after < EVERY + 0.1


def test_what_does_not_answer_before_its_deadline_is_refused_at_that_moment(inn):
    client = inn.connect()
    client.send(asked("/slow/5", "GET", "Ropewalk-Deadline: 250"))
    inn.world.until(lambda: inn.rooms.seen)
    begin = inn.world.now

    inn.world.advance(0.249)
    before = client.replies
    inn.world.until(lambda: client.replies)

    assert ([], [504], ["began 5", "stopped 5"]) == (before, [status for status, _ in client.replies], inn.rooms.seen)
    assert inn.world.now - begin < 0.252


def test_a_public_listener_keeps_sessions_and_shows_nothing_of_the_inside(tmp_path):
    file = tmp_path / "system.toml"
    file.write_text(f'[services]\nnotebook = "{__name__}:Notebook"\n[public]\nnotebook = "tcp:443"\n')
    with World(file, instances=1) as world:
        client = world.run(Inn(world).connecting("notebook", port=443))

        client.send(asked("/notes/a", "POST"))
        world.until(lambda: client.replies)
        cookie = client.got.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        client.send(asked("/notes/b", "POST", f"Cookie: {cookie}"))
        client.send(asked("/inside") + asked("/health/ready"))
        world.advance(1)

        assert [(200, b'["a"]'), (200, b'["a","b"]')] == client.replies[:2]
        assert [404, 404] == [status for status, _ in client.replies[2:]]


# -- clients that are gone


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection", "loseWriteConnection"])
@pytest.mark.parametrize(("method", "end"), [("GET", "stopped 5"), ("POST", "ended 5")])
def test_a_lost_client_cancels_what_is_cancellable_and_nobody_else_s(inn, how, method, end):
    leaving, staying = inn.connect(), inn.connect()
    leaving.send(asked("/slow/5", method))
    staying.send(asked("/slow/6"))
    inn.world.until(lambda: {"began 5", "began 6"} == set(inn.rooms.seen))

    getattr(leaving.transport, how)()
    inn.world.advance(1)
    soon = inn.rooms.seen[2:]
    inn.world.advance(6)

    assert (["stopped 5"] if end == "stopped 5" else []) == soon
    assert [end, "ended 6"] == inn.rooms.seen[2:]
    assert ([], [(200, b"6")]) == (leaving.replies, staying.replies)


def test_a_lost_client_cancels_what_is_cancellable_two_hosts_away(inn):
    client = inn.connect("desk")
    client.send(asked("/slow/5"))
    inn.world.until(lambda: inn.rooms.seen == ["began 5"])

    client.transport.loseConnection()
    inn.world.advance(1)

    assert ["began 5", "stopped 5"] == inn.rooms.seen


@pytest.mark.parametrize("how", ["reset", "crash", "power"])
def test_a_caller_that_dies_cancels_what_is_cancellable_when_its_connection_breaks(inn, how):
    client = inn.connect("desk")
    client.send(asked("/slow/5"))
    inn.world.until(lambda: inn.rooms.seen == ["began 5"])

    inn.world.reset("desk", "rooms") if how == "reset" else inn.world.crash("desk/1", power=how == "power")
    inn.world.advance(6)

    # Where the machine is gone, nobody says so.
    assert ["began 5", "ended 5" if how == "power" else "stopped 5"] == inn.rooms.seen


def test_a_reader_that_takes_nothing_holds_the_stream_up_and_one_that_leaves_ends_it(inn):
    client = inn.connect()
    client.transport.pauseProducing()
    client.send(asked("/stream/100000"))

    inn.world.advance(1)
    held = len(inn.rooms.seen)
    inn.world.advance(10)

    assert 0 < held < 200
    assert held == len(inn.rooms.seen)
    client.transport.resumeProducing()
    inn.world.until(lambda: len(inn.rooms.seen) > 10 * held)
    client.transport.loseConnection()
    inn.world.until(lambda: inn.rooms.seen[-1] == "closed", timeout=1)


# -- a process that stops


def test_a_process_that_stops_answers_what_runs_and_what_is_on_its_way_and_leaves_nothing(cut):
    running, arriving, sent, idle = (cut.connect() for _ in range(4))
    running.send(asked("/slow/7"))
    arriving.send(asked("/notes", "POST", body=NOTE)[:-5])
    idle.send(asked("/rooms/1"))
    cut.world.until(lambda: idle.replies)
    begin = cut.world.now

    sent.send(asked("/rooms/2"))
    stopping = cut.stop()
    cut.world.advance(5)
    arriving.send(NOTE[-5:])
    cut.world.run(stopping)
    cut.world.advance(0.01)  # and the last bytes are there

    assert [(200, b"7"), (200, NOTE), (200, b'"room 2"'), (200, b'"room 1"')] == [
        client.replies[0] for client in (running, arriving, sent, idle)
    ]
    assert {ConnectionDone} == {client.closed_by for client in (running, arriving, sent, idle)}
    assert [True, True, True, False] == [
        b"connection: close" in client.got.lower() for client in (running, arriving, sent, idle)
    ]
    assert 7 <= cut.world.now - begin < 7.5
    assert [] == cut.left()


@pytest.mark.parametrize(("requests", "grace"), [(0, FRESH_GRACE), (1, USED_GRACE)])
def test_an_idle_connection_is_closed_after_its_grace_and_a_new_one_is_refused(inn, requests, grace):
    client = inn.connect()
    client.send(asked("/rooms/1") * requests)
    inn.world.advance(1)
    begin = inn.world.now

    stopping = inn.stop()
    late = inn.connecting()

    with pytest.raises(ConnectionRefusedError):
        inn.world.run(late)
    inn.world.run(stopping)
    inn.world.advance(0.01)
    assert ConnectionDone is client.closed_by
    assert 0 <= client.closed_at - begin - grace < 0.01


def test_a_request_that_comes_within_the_grace_is_answered_and_ends_the_connection(inn):
    client = inn.connect()
    client.send(asked("/rooms/1"))
    inn.world.advance(1)

    stopping = inn.stop()
    inn.world.advance(USED_GRACE - 0.01)
    client.send(asked("/slow/3"))
    inn.world.run(stopping)
    inn.world.advance(0.01)

    assert ([(200, b'"room 1"'), (200, b"3")], ConnectionDone) == (client.replies, client.closed_by)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_does_not_end_is_cut_off_at_the_limit_and_not_before(inn, method):
    client = inn.connect()
    client.send(asked("/slow/100", method, "Ropewalk-Deadline: 200000"))  # ms: by default it would have 10 s
    inn.world.until(lambda: inn.rooms.seen)
    begin = inn.world.now

    stopping = inn.stop()
    inn.world.advance(DRAIN_LIMIT - 0.01)
    before = (stopping.called, client.closed_by)
    inn.world.run(stopping)
    inn.world.advance(0.01)

    assert (False, None) == before
    assert (ConnectionLost, []) == (client.closed_by, client.replies)
    assert 0 <= client.closed_at - begin - DRAIN_LIMIT < 0.02


def test_what_runs_on_without_its_client_is_waited_for_too(inn):
    client = inn.connect()
    client.send(asked("/slow/5", "POST"))
    inn.world.until(lambda: inn.rooms.seen)

    client.transport.abortConnection()
    inn.world.run(inn.stop())

    assert ["began 5", "ended 5"] == inn.rooms.seen


@pytest.mark.parametrize("service", ["rooms", "desk"])
def test_a_call_between_siblings_is_answered_though_one_of_them_stops(inn, service):
    client = inn.connect("desk")
    client.send(asked("/slow/5"))
    inn.world.until(lambda: inn.rooms.seen)

    stopping = inn.stop(service)
    inn.world.run(stopping)
    inn.world.advance(0.1)

    assert [(200, b"5")] == client.replies
    assert [] == inn.left(service)


def test_a_sibling_that_has_stopped_is_unavailable_and_has_not_run(inn):
    rooms = inn.world.client(Rooms)
    assert "room 1" == inn.world.run(rooms.read(1))
    inn.world.run(inn.stop())
    inn.world.advance(0.1)  # and its kept connection is known to be closed

    with pytest.raises(RopewalkError) as gone:
        inn.world.run(rooms.read(2))

    assert ("network", "no", ["read 1"]) == (gone.value.fault, gone.value.ran, inn.rooms.seen)


@pytest.mark.parametrize("seed", range(5))
def test_under_traffic_an_end_loses_no_request(seed):
    """What was sent before it began is answered; what came later is answered or has not run."""
    with World([Rooms], instances=1, seed=seed) as world:
        world.link("outside", "rooms", latency=(0.001, 0.1), split=0.3)
        inn = Inn(world)
        clients = [inn.connect() for _ in range(20)]
        sent = dict.fromkeys(clients, 0)

        def send(client: Raw) -> None:
            if client.closed_by is None and sent[client] == len(client.replies):
                sent[client] += 1
                client.send(asked("/rooms/1"))

        for client in clients:
            for _ in range(20):
                world.at(world.now + world.random.uniform(0, 2), send, client)

        world.advance(1)
        sent_before = dict(sent)
        world.run(inn.stop())
        world.advance(2)

        answered = {client: len(client.replies) for client in clients}
        assert all(sent_before[client] <= answered[client] for client in clients)
        assert len(inn.rooms.seen) == sum(answered.values())
        assert 50 < sum(answered.values())
        assert {ConnectionDone} == {client.closed_by for client in clients}
        assert [] == inn.left()


def test_a_stream_that_runs_at_the_end_is_sent_to_its_own_end(inn):
    client = inn.connect()
    client.send(asked("/stream/500"))
    inn.world.until(lambda: client.got)

    inn.world.run(inn.stop())
    inn.world.advance(0.01)

    assert (500, "closed") == (inn.rooms.seen.count("piece"), inn.rooms.seen[-1])
    assert (True, ConnectionDone) == (client.got.endswith(b"\r\n0\r\n\r\n"), client.closed_by)
    assert [] == inn.left()


@pytest.mark.parametrize("said", [asked("/stream/500"), asked("/notes", "POST", body=NOTE)[:-1], asked("/rooms/1") * 2])
def test_a_client_out_of_reach_holds_an_end_up_until_the_limit_at_most(inn, said):
    client = inn.connect()
    client.send(said)
    inn.world.until(lambda: client.got) if said.endswith(b"\r\n") else inn.world.advance(0.1)
    begin = inn.world.now

    inn.world.partition("outside", "rooms")
    inn.world.run(inn.stop())
    inn.world.advance(1)

    assert inn.world.now - begin - 1 < DRAIN_LIMIT + 0.1
    assert [] == inn.left()


@pytest.mark.parametrize("seed", range(5))
def test_under_traffic_of_siblings_what_is_said_to_have_run_or_not_is_true(seed):
    with World([Rooms], instances=2, seed=seed) as world:
        world.link("outside", "rooms", latency=(0.001, 0.1), split=0.3)
        inn, rooms = Inn(world), world.client(Rooms)
        others = world.processes["rooms/2"].services["rooms"]
        ran: dict[int, str] = {}

        async def ask(number: int) -> None:
            await asyncio.sleep(world.random.uniform(0, 2))
            try:
                await rooms.read(number)
            except RopewalkError as error:
                ran[number] = error.ran
            else:
                ran[number] = "yes"

        calls = [world.driver.run(ask(number)) for number in range(80)]
        world.advance(1)
        world.run(inn.stop())
        for call in calls:
            world.run(call)

        seen = [*inn.rooms.seen, *others.seen]
        assert {f"read {number}" for number, it in ran.items() if it == "yes"} <= set(seen)
        assert not {f"read {number}" for number, it in ran.items() if it == "no"} & set(seen)
        assert len(seen) == len(set(seen))
        assert {"yes", "no"} <= set(ran.values())


def test_a_process_that_stops_is_not_ready_for_a_while_and_serves_until_then(inn):
    process = inn.world.processes["rooms/1"]
    process.drain_delay = 2.0

    stopping = inn.stop()
    inn.world.advance(1.9)
    client = inn.connect()
    client.send(asked("/health/ready") + asked("/rooms/1"))
    inn.world.run(stopping)

    assert [b"503", b"200"] == [reply[:3] for reply in client.got.split(b"HTTP/1.1 ")[1:]]
    assert b"connection: close" not in client.got.lower()


@pytest.mark.parametrize("after", [0.0, 0.5, 0.999, 1.0])
def test_a_process_that_is_to_stop_before_it_is_ready_stops(after):
    with World([Lodge], instances=1) as world:
        world.crash("lodge")
        world.restart("lodge")
        world.advance(after)

        world.run(Inn(world).stop("lodge"))
        world.advance(2)

        assert [] == Inn(world).left("lodge")
