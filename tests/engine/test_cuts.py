"""Whatever comes, and however it is cut: no error, no connection for ever, and the same outcome as in one piece."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Small, so that what is generated comes to them.
LIMITS = {"target": 60, "head": 300, "fields": 8, "body": 40}

whatever = settings(
    derandomize=True,
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# -- what comes

LINES = st.sampled_from(
    [b"GET / HTTP/1.1", b"POST /p HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"POST / HTTP/1.0"] * 3
    + [b"OPTIONS * HTTP/1.1", b"GET http://a/ HTTP/1.1", b"GET /%b HTTP/1.1" % (b"x" * 70), b"CONNECT a:1 HTTP/1.1"]
    + [b"GET /", b"GET / HTTP/2.0", b"BREW / HTTP/1.1", b"GET  / HTTP/1.1", b"GET * HTTP/1.1", b"\r\nGET / HTTP/1.1"]
)
FIELDS = st.lists(
    st.sampled_from(
        [b"A: b", b"Accept: */*", b"Cookie: a=b; c=d", b"Connection: keep-alive"] * 2
        + [b"Connection: close", b"Expect: 100-continue", b"Expect: tea", b"Connection: Upgrade", b"Upgrade: websocket"]
        + [b"Connection: Upgrade\r\nUpgrade: websocket", b"Connection: Upgrade\r\nUpgrade: h2c"] * 2
        + [b"Host: b", b"A : b", b" folded", b"A: \0", b"B: " + b"b" * 290, b"Content-Length: 3", b"A: b\nC: d", b": "]
    ),
    max_size=5,
)
BODIES = st.one_of(
    st.just((b"", b"")),
    st.binary(max_size=45).map(lambda body: (b"Content-Length: %d\r\n" % len(body), body)),
    st.sampled_from([b"+3", b"03", b"3, 3", b"", b"99999999999999999999"]).map(
        lambda length: (b"Content-Length: %b\r\n" % length, b"abc")
    ),
    st.tuples(
        st.lists(
            st.sampled_from(
                [b"3\r\nabc\r\n", b"01;a=b\r\na\r\n", b'2;a="b"\r\nab\r\n', b"14\r\n" + b"." * 20 + b"\r\n"] * 4
                + [
                    b"3\nabc\r\n",
                    b"3\r\nabcd\r\n",
                    b"0x3\r\nabc\r\n",
                    b"-1\r\n",
                    b"3 \r\nabc\r\n",
                    b"fffffffffffffffff\r\n",
                ]
            ),
            max_size=4,
        ),
        st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\nA : b\r\n\r\n", b"0\n\n", b""]),
    ).map(lambda parts: (b"Transfer-Encoding: chunked\r\n", b"".join(parts[0]) + parts[1])),
)


@st.composite
def requests(draw):
    """One, valid or broken."""
    fields = b"".join(field + b"\r\n" for field in draw(FIELDS))
    frame, body = draw(BODIES)
    return draw(LINES) + b"\r\nHost: a\r\n" + fields + frame + b"\r\n" + body


@st.composite
def mutated(draw, of):
    """With some bytes taken out, put in or put in their place."""
    data = bytearray(draw(of))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        put = draw(
            st.one_of(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"0", b"\t"]), st.binary(max_size=3))
        )
        data[at : at + draw(st.integers(0, 3))] = put
    return bytes(data)


STREAMS = st.one_of(
    st.lists(requests(), min_size=1, max_size=4).map(b"".join),
    mutated(st.lists(requests(), min_size=1, max_size=3).map(b"".join)),
    st.tuples(requests(), st.binary(max_size=40)).map(b"".join),
    st.binary(max_size=80),
)
CUTS = st.one_of(st.lists(st.integers(0, 600), max_size=8), st.just(range(2000)))


def cut(stream, places):
    edges = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    return [stream[start:end] for start, end in pairwise(edges)]


# -- who answers


class Other(asyncio.Protocol):
    """What a connection becomes: says what it hears, in capitals."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data.upper())


def answers_or_upgrades(asked):
    if asked.exchange.upgrades:
        asked.exchange.start(101, [(b"upgrade", b"websocket")])
        asked.exchange.upgrade(Other())
    else:
        asked.reply(b"%b %b" % (asked.line.encode(), asked.body))


def answers_at_once(application):
    application.on_head = lambda asked: asked.reply(asked.line.encode())
    application.waits()


def answers_when_complete(application):
    application.on_complete = lambda asked: asked.reply(b"%b %b" % (asked.line.encode(), asked.body))


def upgrades(application):
    application.on_complete = answers_or_upgrades


def answers_later(application):
    application.waits()


def answers_at_length(application):
    application.on_complete = lambda asked: asked.reply(b"." * 50_000)


MANNERS = [answers_at_once, answers_when_complete, upgrades, answers_later, answers_at_length]


def outcome(listener, manner, parts, *, reads):
    """What the application was asked, what was answered, and whether the connection goes on; then its time passes."""
    manner(listener.application)
    peer = listener.connected(reads=reads)
    peer.send(*parts)
    answered = 0
    while answered < len(listener.asked) and manner is answers_later:
        if listener.asked[answered].heard == ["complete"]:
            answers_or_upgrades(listener.asked[answered])
            peer.settle()
        answered += 1
    peer.reads = True
    peer.settle()
    goes_on = peer.state == "open"
    listener.advance(200)
    if any(asked.exchange.upgrades for asked in listener.asked):
        peer.leave()  # another protocol's connection has no end of ours
    assert peer.state != "open", "it goes on for ever"
    assert ([], {}) == (listener.clock.getDelayedCalls(), listener.server.channels)
    # What is broken in two ways may be refused for either; whether a sender is told to go on is known when it is seen
    # to wait.
    sent = peer.sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    for status in (b" 413 ", b" 414 ", b" 431 "):
        before, refusal, _ = sent.partition(b"HTTP/1.1" + status)
        sent = before + b"HTTP/1.1 400 " if refusal else sent
    before, refusal, _ = sent.partition(b"HTTP/1.1 400 ")
    asked = [(each.line, each.exchange.fields, each.body) for each in listener.asked if "complete" in each.heard]
    return asked, before + refusal, goes_on


# Not parametrized, all drawn: pytest-twisted wraps a test that hypothesis runs anew for each parameter.
WAYS = st.tuples(st.sampled_from(["twisted", "asyncio"]), st.sampled_from(MANNERS), st.booleans())


@pytest.mark.slow
@whatever
@given(stream=STREAMS, places=CUTS, way=WAYS)
def test_the_outcome_is_that_of_one_piece(listen_on, stream, places, way):
    driver, manner, reads = way
    whole, cut_up = (
        outcome(listen_on(driver, **LIMITS), manner, parts, reads=reads) for parts in ([stream], cut(stream, places))
    )
    assert whole == cut_up


def is_left(listener, parts, then, manner, *, reads):
    manner(listener.application)
    peer = listener.connected(reads=reads)
    peer.send(parts[0])
    then(listener)
    peer.send(*parts[1:])
    for asked in listener.asked:
        if "complete" in asked.heard and not asked.exchange.started:
            asked.reply()
    listener.advance(200)
    if any(asked.exchange.upgrades for asked in listener.asked):
        peer.leave()
    assert all(asked.heard.count("lost") <= 1 for asked in listener.asked)
    return listener.clock.getDelayedCalls(), listener.server.channels


@pytest.mark.slow
@settings(whatever, max_examples=200)
@given(stream=STREAMS, way=WAYS, at=st.integers(0, 600))
def test_whenever_a_client_leaves_nothing_is_left(listen_on, stream, way, at):
    driver, manner, reads = way
    parts = [stream[:at]]
    assert ([], {}) == is_left(listen_on(driver, **LIMITS), parts, lambda each: each.leave(), manner, reads=reads)


@pytest.mark.slow
@settings(whatever, max_examples=200)
@given(stream=STREAMS, way=WAYS, at=st.integers(0, 600))
def test_whenever_a_listener_drains_nothing_is_left(listen_on, stream, way, at):
    driver, manner, reads = way
    parts = [stream[:at], stream[at:]]

    assert ([], {}) == is_left(
        listen_on(driver, **LIMITS), parts, lambda each: each.server.drain(), manner, reads=reads
    )
