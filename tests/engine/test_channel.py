"""Facts about a connection: replies in order, in their frame; bodies; refusals; other protocols; backpressure."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from ropewalk.engine.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
HANDSHAKE = (
    b"GET /live HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"


def get(path):
    return b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()


def post(body, fields=b""):
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), fields, body)


class OfTheApplication(Exception):
    """An error that nothing else raises: what other tests left for the collector is not counted."""


def fails(asked):
    raise OfTheApplication


# -- keeping a connection


def test_a_connection_is_kept_for_the_next_request(listener):
    peer = listener.connected()

    peer.send(get("/a"))
    peer.send(get("/b"))

    assert (["GET /a", "GET /b"], [200, 200]) == (listener.application.lines, peer.statuses)
    assert (False, "open") == (b"connection" in peer.sent, peer.state)


def test_the_reply_to_a_request_that_is_the_last_says_so_and_ends_the_connection(listener):
    peer = listener.connected()

    peer.send(LAST)

    (reply,) = peer.replies()
    assert ("close", "closed") == (reply.fields["connection"], peer.state)


@pytest.mark.parametrize(
    ("fields", "said", "state"),
    [(b"", "close", "closed"), (b"Connection: keep-alive\r\n", "keep-alive", "open")],
)
def test_http_1_0_keeps_a_connection_where_both_say_so(listener, fields, said, state):
    peer = listener.connected()

    peer.send(b"GET / HTTP/1.0\r\n" + fields + b"\r\n")

    (reply,) = peer.replies()
    assert (said, state) == (reply.fields["connection"], peer.state)


def test_an_application_may_end_the_connection_by_its_own_field(listener):
    listener.application.on_complete = lambda asked: asked.reply(fields=[(b"Connection", b"close")])
    peer = listener.connected()

    peer.send(GET + GET)

    assert ([200], 1, "closed") == (peer.statuses, peer.sent.lower().count(b"connection: close"), peer.state)


def test_an_application_cannot_promise_a_connection_that_ends(listener):
    listener.application.on_complete = lambda asked: asked.reply(fields=[(b"Connection", b"keep-alive")])
    peer = listener.connected()

    peer.send(LAST)

    assert b"connection: close" in peer.sent
    assert "closed" == peer.state


# -- many requests


def test_requests_that_come_at_once_are_answered_in_order_and_one_after_the_other(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(get("/a") + get("/b") + get("/c"))
    at_first = listener.application.lines
    for path in (b"/a", b"/b", b"/c"):
        listener.asked[-1].reply(path)

    assert ["GET /a"] == at_first
    assert [b"/a", b"/b", b"/c"] == [reply.body for reply in peer.replies()]


def test_reading_is_held_while_a_request_waits_and_goes_on_with_its_answer(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(get("/a"), get("/b"), get("/c"))
    held = peer.waiting
    listener.asked[0].reply()
    peer.settle()
    listener.asked[1].reply()
    peer.settle()

    assert (True, False) == (held, peer.waiting)
    assert ["GET /a", "GET /b", "GET /c"] == listener.application.lines


def test_a_request_whose_body_is_still_to_come_when_its_turn_is_is_read_on(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + post(b"whole") + post(b"half")[:-2], b"lf")
    for each in range(3):
        listener.asked[each].reply()
        peer.settle()

    assert ([b"", b"whole", b"half"], 3) == ([asked.body for asked in listener.asked], len(peer.statuses))


def test_a_body_that_comes_before_its_turn_is_handed_over_then(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + post(b"early"))
    before = len(listener.asked)
    listener.asked[0].reply()

    assert (1, b"early", ["complete"]) == (before, listener.asked[1].body, listener.asked[1].heard)


def test_a_thousand_requests_at_once_are_answered_without_a_thousand_frames(listener):
    listener.application.on_complete = lambda asked: asked.reply() if len(listener.asked) > 1 else None
    peer = listener.connected()

    peer.send(GET * 1000)
    listener.asked[0].reply()

    assert 1000 == len(peer.statuses)


def test_a_thousand_upgrades_at_once_are_ignored_without_a_thousand_frames(listener):
    peer = listener.connected()

    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" * 1000)

    assert 1000 == len(peer.statuses)


def test_what_comes_behind_the_last_request_is_ignored(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(LAST + GET, GET)
    listener.asked[0].reply()
    peer.settle()
    before = peer.state
    peer.send(GET)

    assert (["GET /last"], [200], "half") == (listener.application.lines, peer.statuses, before)


def test_an_application_that_raises_at_a_later_request_does_not_raise_into_an_earlier_one(
    listener, flush_logged_errors
):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET + GET + GET)

    listener.application.on_complete = fails
    listener.asked[0].reply()

    assert ([200, 500], "half") == (peer.statuses, peer.state)
    assert 1 == len(flush_logged_errors(OfTheApplication))


def test_a_request_that_is_broken_is_answered_behind_those_before_it(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + GET + b"BREW / HTTP/1.1\r\n")
    listener.asked[0].reply()
    listener.asked[1].reply()
    peer.settle()

    assert ([200, 200, 400], "half") == (peer.statuses, peer.state)


def test_a_body_that_breaks_before_its_turn_is_answered_in_its_turn(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + CHUNKED + b"x\r\n")
    listener.asked[0].reply()
    peer.settle()

    assert (["GET /"], [200, 400], "half") == (listener.application.lines, peer.statuses, peer.state)


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"])
def test_a_body_that_came_before_its_turn_and_is_too_large_for_its_application_is_refused_then(listener, fields):
    def takes_three_bytes(asked):
        asked.exchange.max_body = 3

    listener.application.waits()
    peer = listener.connected()
    peer.send(GET + post(b"four", fields))

    listener.application.on_head = takes_three_bytes
    listener.asked[0].reply()
    peer.settle()

    assert ([200, 413], ["lost"], "half") == (peer.statuses, listener.asked[1].heard, peer.state)


def test_a_body_may_be_as_large_as_its_application_says_even_if_it_waits_for_its_turn(listen):
    def takes_more(asked):
        asked.exchange.max_body = 100

    listener = listen(body=10)
    listener.application.waits()
    listener.application.on_head = takes_more
    peer = listener.connected()

    peer.send(GET + post(b"." * 50))
    listener.asked[0].reply()

    assert b"." * 50 == listener.asked[1].body


# -- replies


@pytest.mark.parametrize("status", [204, 304])
def test_a_reply_that_has_no_body_has_none(listener, status):
    listener.application.on_complete = lambda asked: asked.reply(b"none", status)
    peer = listener.connected()

    peer.send(GET + GET)

    assert ([status, status], False) == (peer.statuses, b"none" in peer.sent)
    assert "content-length" not in peer.replies()[0].fields


def test_a_reply_to_head_has_the_fields_of_one_to_get_and_no_body(listener):
    peer = listener.connected()

    peer.send(GET.replace(b"GET", b"HEAD") + GET)

    of_head, of_get = peer.replies("HEAD", "GET")
    assert (of_get.fields, b"", b"done") == (of_head.fields, of_head.body, of_get.body)


def streams(*parts, fields=(), status=200):
    def answer(asked):
        asked.exchange.start(status, fields)
        for part in parts:
            asked.exchange.write(part)
        asked.exchange.end()

    return answer


def test_a_body_of_unknown_length_is_sent_in_chunks(listener):
    listener.application.on_complete = streams(b"one", b"", b"twelve bytes")
    peer = listener.connected()

    peer.send(GET)

    assert (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\nc\r\ntwelve bytes\r\n0\r\n\r\n" == peer.sent
    )
    assert "open" == peer.state


def test_a_body_of_unknown_length_is_sent_to_http_1_0_until_the_connection_ends(listener):
    listener.application.on_complete = streams(b"one", b"two")
    peer = listener.connected()

    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo", "closed") == (peer.sent, peer.state)


def test_a_body_of_known_length_is_sent_as_it_is(listener):
    listener.application.on_complete = streams(b"one", b"two", fields=[(b"content-length", b"6")])
    peer = listener.connected()

    peer.send(GET)

    assert b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nonetwo" == peer.sent


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_streamed_body_is_not_sent_where_there_is_none(listener, method, status):
    listener.application.on_complete = streams(b"one", status=status)
    peer = listener.connected()

    peer.send(GET.replace(b"GET", method.encode()))

    assert (b"", "open") == (peer.sent.partition(b"\r\n\r\n")[2], peer.state)
    assert b"chunked" not in peer.sent


def test_a_reply_that_is_shorter_than_it_said_cuts_the_connection_off(listener):
    listener.application.on_complete = streams(b"one", fields=[(b"content-length", b"6")])
    peer = listener.connected()

    peer.send(GET)

    assert ("aborted", ["complete"]) == (peer.state, listener.asked[0].heard)


def test_more_than_was_promised_is_not_written(listener, flush_logged_errors):
    listener.application.on_complete = streams(b"one", b"four", fields=[(b"content-length", b"6")])
    peer = listener.connected()

    peer.send(GET)

    assert (True, "aborted") == (peer.sent.endswith(b"\r\n\r\none"), peer.state)
    assert 1 == len(flush_logged_errors(ValueError))


@pytest.mark.parametrize(
    "lengths", [[b"-1"], [b""], [b"1", b"2"], [b"\xb2"]], ids=["negative", "empty", "two", "superscript"]
)
def test_a_length_that_is_none_is_not_written(listener, lengths, flush_logged_errors):
    listener.application.on_complete = streams(b"1", fields=[(b"content-length", each) for each in lengths])
    peer = listener.connected()

    peer.send(GET)

    assert [500] == peer.statuses
    assert 1 == len(flush_logged_errors(ValueError))


def test_a_second_reply_is_an_error_of_the_application(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    (asked,) = listener.asked
    asked.reply()

    with pytest.raises(RuntimeError, match="has been answered"):
        asked.reply()

    assert [200] == peer.statuses


def test_a_body_without_a_head_is_an_error_of_the_application(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    (asked,) = listener.asked

    with pytest.raises(RuntimeError, match="head is written before"):
        asked.exchange.write(b"body")
    with pytest.raises(RuntimeError, match="has a head"):
        asked.exchange.end()

    assert b"" == peer.sent


def test_what_an_exchange_does_once_it_has_ended_touches_no_later_one(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET + GET)
    first = listener.asked[0]
    first.reply(b"first")

    first.exchange.write(b"more")
    first.exchange.end()
    first.exchange.close()
    first.exchange.abort()
    first.exchange.hold()
    listener.asked[1].reply(b"second")

    assert ([b"first", b"second"], "open") == ([reply.body for reply in peer.replies()], peer.state)


def test_an_answered_request_leaves_nothing_to_the_garbage_collector(listener):
    gone = []
    listener.application.on_complete = lambda asked: (weakref.finalize(asked, gone.append, asked.line), asked.reply())
    peer = listener.connected()
    gc.disable()

    try:
        peer.send(get("/a"))
        listener.asked.clear()
        peer.send(post(b"b"))
        listener.asked.clear()
        assert ["GET /a", "POST /"] == gone
    finally:
        gc.enable()


def test_a_reply_may_be_ended_before_its_time_by_the_end_of_the_connection(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    exchange = listener.asked[0].exchange

    exchange.start(200, [])
    exchange.write(b"half")
    exchange.close()

    assert (True, "closed") == (peer.sent.endswith(b"4\r\nhalf\r\n"), peer.state)


# -- bodies


def test_a_body_in_chunks_is_handed_over_without_them(listener):
    peer = listener.connected()

    peer.send(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")

    (asked,) = listener.asked
    assert (b"abcdef", ["complete"], None) == (asked.body, asked.heard, asked.exchange.length)


def test_a_fields_value_has_no_blanks_around_it(listener):
    peer = listener.connected()

    peer.send(b"GET / HTTP/1.1\r\nHost: \t a \t\r\nA:b c \r\nD: \t \r\n\r\n")

    assert [(b"Host", b"a"), (b"A", b"b c"), (b"D", b"")] == listener.asked[0].exchange.fields


def test_trailers_are_dropped(listener):
    peer = listener.connected()

    peer.send(CHUNKED + b"0\r\nX-Admin: yes\r\n\r\n" + GET)

    assert [[b"Host", b"Transfer-Encoding"], [b"Host"]] == [
        [name for name, _ in asked.exchange.fields] for asked in listener.asked
    ]


@pytest.mark.parametrize("trailers", [b"A: b\r\n" * 11, b"A: %b\r\n\r\n" % (b"b" * 400)], ids=["too many", "too large"])
def test_trailers_are_bounded(listen, trailers):
    listener = listen(fields=10, head=300)
    peer = listener.connected()

    peer.send(CHUNKED + b"0\r\n" + trailers + b"\r\n")

    assert ([431], ["lost"]) == (peer.statuses, listener.asked[0].heard)


def test_a_client_that_waits_is_told_to_go_on(listener):
    peer = listener.connected()

    peer.send(EXPECTING)
    before = peer.sent
    peer.send(b"abc")

    assert (b"HTTP/1.1 100 Continue\r\n\r\n", [100, 200]) == (before, peer.statuses)


def test_a_client_that_did_not_wait_is_not_told_to_go_on(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + EXPECTING + b"abc")
    listener.asked[0].reply()
    listener.asked[1].reply()

    assert [200, 200] == peer.statuses


def test_a_client_that_waits_is_told_so_when_it_is_its_turn(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + EXPECTING)
    listener.asked[0].reply()

    assert [200, 100] == peer.statuses


def test_a_client_that_waits_with_too_large_a_body_is_refused_and_not_told_to_go_on(listen):
    peer = listen(body=2).connected()

    peer.send(EXPECTING)

    assert [413] == peer.statuses


def test_a_client_that_waits_is_not_told_to_go_on_by_an_application_that_has_answered(listener):
    listener.application.on_head = lambda asked: asked.reply(b"no", 403)
    peer = listener.connected()

    peer.send(EXPECTING)

    assert [403] == peer.statuses


def test_http_1_0_is_never_told_to_go_on(listener):
    peer = listener.connected()

    peer.send(EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")

    assert [200] == peer.statuses


def test_a_body_may_be_held_by_the_application(listener):
    listener.application.on_chunk = lambda asked: asked.exchange.hold()
    peer = listener.connected()

    peer.send(post(b"abcdef")[:-3], b"def")
    before = listener.asked[0].body
    listener.asked[0].exchange.release()
    peer.settle()

    assert (b"abc", b"abcdef") == (before, listener.asked[0].body)


def test_a_hold_ends_with_its_exchange(listener):
    listener.application.on_chunk = lambda asked: asked.exchange.hold()
    peer = listener.connected()

    peer.send(post(b"abc"), GET)

    assert [200, 200] == peer.statuses


# -- answers before their time


def test_an_answer_before_the_body_ends_the_connection_and_lingers(listener):
    listener.application.on_head = lambda asked: asked.reply(b"no", 403)
    peer = listener.connected()

    peer.send(post(b"abcdef")[:-3])
    at_once = peer.state
    peer.send(b"def", GET)

    (reply,) = peer.replies()
    assert (403, "close", "half", False) == (reply.status, reply.fields["connection"], at_once, peer.waiting)
    assert (1, []) == (len(listener.asked), listener.asked[0].heard)


def test_an_answer_before_the_end_of_a_request_without_a_body_keeps_the_connection(listener):
    listener.application.on_head = lambda asked: asked.reply(b"at once")
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + GET)

    assert ([200, 200], "open", []) == (peer.statuses, peer.state, listener.asked[0].heard)


def test_a_body_may_be_answered_while_it_comes(listener):
    def begin(asked):
        asked.exchange.start(200, [])

    listener.application.on_head = begin
    listener.application.on_chunk = lambda asked: asked.exchange.write(asked.body[-3:])
    listener.application.on_complete = lambda asked: asked.exchange.end()
    peer = listener.connected()

    peer.send(post(b"abcdef")[:-3], b"def")

    assert ([b"abcdef"], "closed") == ([reply.body for reply in peer.replies()], peer.state)


# -- refusals


def test_a_body_that_says_it_is_too_large_is_refused_at_its_head(listen):
    listener = listen(body=10)
    peer = listener.connected()

    peer.send(post(b"." * 11)[:-11])

    assert ([413], "half", ["lost"]) == (peer.statuses, peer.state, listener.asked[0].heard)


def test_a_body_in_chunks_is_refused_where_it_becomes_too_large(listen):
    listener = listen(body=10)
    peer = listener.connected()

    peer.send(CHUNKED + b"a\r\n" + b"." * 10 + b"\r\n")
    before = peer.sent
    peer.send(b"1\r\n.")

    assert (b"", [413], "half", ["lost"]) == (before, peer.statuses, peer.state, listener.asked[0].heard)


def test_a_body_of_exactly_what_is_taken_is_taken(listen):
    peer = listen(body=10).connected()

    peer.send(post(b"." * 10), CHUNKED + b"a\r\n" + b"." * 10 + b"\r\n0\r\n\r\n")

    assert [200, 200] == peer.statuses


def test_a_refused_body_whose_answer_has_begun_cuts_the_connection_off(listen):
    listener = listen(body=10)
    listener.application.on_head = lambda asked: asked.exchange.start(200, [])
    peer = listener.connected()

    peer.send(CHUNKED + b"b\r\n" + b"." * 11 + b"\r\n0\r\n\r\n" + GET)

    assert ("aborted", ["lost"]) == (peer.state, listener.asked[0].heard)


def test_an_application_whose_request_was_refused_may_answer_in_vain(listen):
    listener = listen(body=10)
    listener.application.waits()
    peer = listener.connected()
    peer.send(post(b"." * 11))
    (asked,) = listener.asked

    asked.reply()
    asked.exchange.start(200, [])
    asked.exchange.write(b"late")
    asked.exchange.end()
    asked.exchange.close()

    assert ([413], "half") == (peer.statuses, peer.state)


def test_over_tls_a_refusal_closes_the_connection_which_has_no_half_end(listener):
    peer = listener.connected(secure=True)

    peer.send(b"BREW / HTTP/1.1\r\n\r\n")

    assert ([400], "closed") == (peer.statuses, peer.state)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_head_has_so_many_fields_and_no_more(listen, cut):
    listener = listen(fields=10)

    def statuses(fields):
        peer = listener.connected()
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * (fields - 1) + b"\r\n"
        peer.send(*([bytes([byte]) for byte in request] if cut else [request]))
        return peer.statuses

    assert ([200], [431]) == (statuses(10), statuses(11))


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_head_has_so_many_bytes_and_no_more(listen, cut):
    listener = listen(head=300)

    def statuses(size):
        peer = listener.connected()
        padding = b"b" * (size - len(b"Host: a\r\nA: \r\n"))
        request = b"GET / HTTP/1.1\r\nHost: a\r\nA: " + padding + b"\r\n\r\n"
        peer.send(*([bytes([byte]) for byte in request] if cut else [request]))
        return peer.statuses

    assert ([200], [431]) == (statuses(300), statuses(301))


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_target_has_so_many_bytes_and_no_more(listen, cut):
    listener = listen(target=100)

    def statuses(size):
        peer = listener.connected()
        request = get("/" * size)
        peer.send(*([bytes([byte]) for byte in request] if cut else [request]))
        return peer.statuses

    assert ([200], [414]) == (statuses(100), statuses(101))


@pytest.mark.parametrize(
    "endless",
    [b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"GET / HTTP/1.1\r\nA", b"", CHUNKED + b"3;a=", CHUNKED + b"0"],
    ids=["a value", "a name", "blank lines", "an extension", "a size"],
)
def test_what_never_ends_is_refused(listen, endless):
    listener = listen(head=300)
    peer = listener.connected()
    filling = {b"": b"\r\n", CHUNKED + b"0": b"0"}.get(endless, b"a")

    peer.send(endless, *[filling] * 700)

    assert ([431], "half") == (peer.statuses, peer.state)


# -- other protocols


class Other(asyncio.Protocol):
    """What a connection may become."""

    def __init__(self):
        self.heard = []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.heard.append(data)

    def connection_lost(self, error):
        self.heard.append("lost")


@pytest.fixture
def other():
    return Other()


@pytest.fixture
def upgrade(other):
    """`upgrade(asked)` makes `other` of its connection."""

    def upgrade(asked):
        asked.exchange.start(101, [(b"upgrade", b"websocket")])
        asked.exchange.upgrade(other)

    return upgrade


@pytest.mark.parametrize("moment", ["on_head", "on_complete"])
def test_a_connection_becomes_another_protocols_with_all_that_came_behind(listener, other, upgrade, moment):
    setattr(listener.application, moment, upgrade)
    peer = listener.connected()

    peer.send(HANDSHAKE + b"one", b"two")
    other.transport.write(b"three")
    peer.leave()

    assert ([b"one", b"two", "lost"], SWITCHED + b"three") == (other.heard, peer.sent)


def test_a_connection_becomes_another_protocols_later_with_all_that_came_meanwhile(listener, other, upgrade):
    listener.application.waits()
    peer = listener.connected()

    peer.send(HANDSHAKE + b"one", b"two", b"three")
    upgrade(listener.asked[0])
    peer.settle()

    assert (b"onetwothree", SWITCHED) == (b"".join(other.heard), peer.sent)


def test_a_connection_becomes_another_protocols_when_it_is_its_turn(listener, other, upgrade):
    listener.application.waits()
    peer = listener.connected()

    peer.send(GET + HANDSHAKE + b"one", b"two")
    listener.application.on_complete = upgrade
    listener.asked[0].reply()
    peer.settle()

    assert ([200, 101], b"onetwo") == (peer.statuses, b"".join(other.heard))


def test_a_connection_that_is_another_protocols_has_no_deadline(listener, other, upgrade):
    listener.application.on_complete = upgrade
    peer = listener.connected()
    peer.send(HANDSHAKE)

    listener.server.drain()
    listener.advance(1000)

    assert "open" == peer.state
    peer.leave()


def test_a_handshake_that_the_application_answers_is_a_request_like_another(listener):
    listener.application.waits()
    peer = listener.connected()

    peer.send(HANDSHAKE + post(b"abcdef")[:-4], b"cd", b"ef")
    listener.asked[0].reply(b"no", 403)
    peer.settle()
    listener.asked[1].reply()

    assert ([403, 200], b"abcdef") == (peer.statuses, listener.asked[1].body)


@pytest.mark.parametrize("later", [False, True])
def test_an_upgrade_that_is_not_wanted_is_ignored_and_its_body_read(listener, later):
    if later:
        listener.application.waits()
    fields = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    peer = listener.connected()

    peer.send(post(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", fields) + get("/next"))
    for asked in listener.asked if later else ():
        asked.reply()

    assert (["POST /", "GET /next"], [200, 200]) == (listener.application.lines, peer.statuses)
    assert False is listener.asked[0].exchange.upgrades


@pytest.mark.parametrize("frame", ["length", "chunks"])
def test_the_body_of_a_handshake_is_not_taken_for_a_request(listener, frame):
    smuggled = get("/smuggled")
    fields, body = {
        "length": (b"Content-Length: %d\r\n" % len(smuggled), smuggled),
        "chunks": (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)),
    }[frame]
    peer = listener.connected()

    peer.send(HANDSHAKE[:-2] + fields + b"\r\n" + body + get("/next"))

    assert ["GET /live", "GET /next"] == listener.application.lines
    assert (smuggled, False) == (listener.asked[0].body, listener.asked[0].exchange.upgrades)


def test_http_1_0_upgrades_nothing(listener):
    peer = listener.connected()

    peer.send(HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert (False, "closed") == (listener.asked[0].exchange.upgrades, peer.state)


def test_what_asks_for_no_other_protocol_becomes_none(listener, other):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)

    with pytest.raises(RuntimeError, match="asks for no other protocol"):
        listener.asked[0].exchange.upgrade(other)


# -- backpressure


def test_a_large_reply_is_given_to_the_transport_piece_by_piece(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 1_000_000)
    peer = listener.connected(reads=False)

    peer.send(GET)
    kept = []
    while len(peer.sent) < 1_000_000:
        kept.append(len(peer._kept))
        peer.take(30_000)

    assert max(kept) <= 3 * (64 << 10)
    assert [b"." * 1_000_000] == [reply.body for reply in peer.replies()]


def test_an_application_is_told_once_when_to_pause_and_once_when_to_go_on(listener):
    listener.application.waits()
    peer = listener.connected(reads=False)
    peer.send(GET)
    exchange = listener.asked[0].exchange

    exchange.start(200, [])
    exchange.write(b"." * 500_000)
    before = (exchange.paused, listener.asked[0].heard[1:])
    while len(peer.sent) < 500_000:
        peer.take(30_000)
    peer.take()

    assert ((True, ["paused"]), (False, ["paused", "resumed"])) == (
        before,
        (exchange.paused, listener.asked[0].heard[1:]),
    )


def test_no_further_request_is_answered_while_the_peer_does_not_read(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 50_000)
    peer = listener.connected(reads=False)

    peer.send(GET * 100, GET)
    at_first = len(listener.asked)
    peer.reads = True
    peer.settle()

    assert at_first < 5
    assert 101 == len(peer.statuses)


def test_what_is_asked_while_the_peer_does_not_read_waits_and_what_comes_behind_it_is_not_read(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 100_000)
    peer = listener.connected(reads=False)

    peer.send(GET, GET, GET)
    held = peer.waiting, len(listener.application.asked)
    peer.reads = True
    peer.settle()

    assert ((True, 1), 3) == (held, len(peer.replies()))


def test_a_connection_ends_only_when_all_is_sent(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 200_000)
    peer = listener.connected(reads=False)

    peer.send(LAST)
    before = peer.state
    peer.reads = True
    peer.settle()

    assert ("open", "closed", 200_000) == (before, peer.state, len(peer.replies()[0].body))


def test_go_on_is_said_behind_what_waits_to_be_sent(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 200_000)
    peer = listener.connected(reads=False)

    peer.send(GET + EXPECTING)
    peer.reads = True
    peer.settle()

    assert [200, 100] == peer.statuses


# -- losses, and applications that raise


def test_a_lost_connection_is_told_to_the_current_request_once(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET + GET)

    peer.leave()
    listener.asked[0].reply()

    assert (1, ["complete", "lost"], b"") == (len(listener.asked), listener.asked[0].heard, peer.sent)
    assert [] == listener.clock.getDelayedCalls()


def test_a_lost_connection_is_told_to_a_request_whose_body_comes(listener):
    peer = listener.connected()
    peer.send(post(b"abcdef")[:-3])

    peer.leave()

    assert ["lost"] == listener.asked[0].heard


def test_a_lost_connection_is_told_to_nobody_who_has_answered(listener):
    peer = listener.connected()
    peer.send(GET)

    peer.leave()

    assert ["complete"] == listener.asked[0].heard


def test_an_application_may_cut_the_connection_off(listener):
    listener.application.on_complete = lambda asked: asked.exchange.abort()
    peer = listener.connected()

    peer.send(GET + GET)

    assert ("aborted", b"", ["complete", "lost"]) == (peer.state, peer.sent, listener.asked[0].heard)


@pytest.mark.parametrize("moment", ["on_head", "on_chunk", "on_complete"])
def test_an_application_that_raises_has_its_request_answered_500(listener, moment, flush_logged_errors):
    setattr(listener.application, moment, fails)
    peer = listener.connected()

    peer.send(post(b"abc") + GET)

    assert ([500], "half", 1) == (peer.statuses, peer.state, len(listener.asked))
    assert 1 == len(flush_logged_errors(OfTheApplication))


def test_an_application_that_raises_in_the_midst_of_its_answer_has_it_cut_off(listener, flush_logged_errors):
    def begins_and_fails(asked):
        asked.exchange.start(200, [])
        fails(asked)

    listener.application.on_complete = begins_and_fails
    peer = listener.connected()

    peer.send(GET + GET)

    assert ("aborted", ["complete", "lost"]) == (peer.state, listener.asked[0].heard)
    assert 1 == len(flush_logged_errors(OfTheApplication))


def test_an_application_that_raises_behind_its_answer_harms_nobody(listener, flush_logged_errors):
    def answers_and_fails(asked):
        asked.reply()
        fails(asked)

    listener.application.on_complete = answers_and_fails
    peer = listener.connected()

    peer.send(GET + GET)

    assert ([200, 200], "open") == (peer.statuses, peer.state)
    assert 2 == len(flush_logged_errors(OfTheApplication))


# -- room


def test_a_connection_beyond_those_that_there_is_room_for_is_closed_unread(listen):
    listener = listen(connections=2)
    first, second, third = (listener.connected() for _ in range(3))
    third.settle()

    second.leave()
    fourth = listener.connected()

    assert ("open", "aborted", "open") == (first.state, third.state, fourth.state)
    assert {"no room": 1} == listener.server.counts


def test_a_peer_has_so_many_connections_unless_it_is_this_machine(listen):
    listener = listen(per_peer=1)

    states = [
        listener.connected(address).state
        for address in ["192.0.2.7"] * 2 + ["127.0.0.1", "::1", "::ffff:127.0.0.1"] * 2
    ]

    assert ["open", "aborted", *["open"] * 6] == states


def test_this_machine_may_be_counted_like_any_peer(listen):
    listener = listen(per_peer=1, count_loopback=True)

    states = [listener.connected(address).state for address in ["127.0.0.1", "::1", "127.0.0.2"] * 2]

    assert [*["open"] * 3, *["aborted"] * 3] == states
    assert {"no room": 3} == listener.server.counts


def test_a_peer_may_have_a_name(listen):
    listener = listen(per_peer=1)

    assert ["open", "aborted"] == [listener.connected("client").state for _ in range(2)]


def test_the_limits_are_those_of_the_listener(listener):
    assert Limits() == listener.server.limits
