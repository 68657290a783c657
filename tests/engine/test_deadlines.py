"""Facts about a connection's deadlines, in exact times of a virtual clock; and about a listener that drains."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from ropewalk.engine.channel import FRESH_GRACE, USED_GRACE
from ropewalk.engine.deadlines import EVERY, NEVER, TOGETHER, Deadlines

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
JUST = 1 / 1024  # seconds: the least that these tests tell apart


def ends_at(listener, peer, seconds):
    """Assert that it ends then and not before."""
    listener.advance(seconds - listener.clock.seconds() - JUST)
    before = peer.state
    listener.advance(JUST)
    assert "open" == before, f"it was {before} before its time"
    assert "open" != peer.state, "it goes on beyond its time"


# -- between requests


def test_a_connection_on_which_nothing_comes_is_closed(listener):
    peer = listener.connected()

    ends_at(listener, peer, 10)

    assert ("closed", b"") == (peer.state, peer.sent)


def test_an_idle_connection_is_closed(listener):
    peer = listener.connected()
    listener.advance(5)
    peer.send(GET)

    ends_at(listener, peer, 65)

    assert ("closed", [200]) == (peer.state, peer.statuses)


def test_a_connection_is_idle_from_the_answer_on(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    listener.advance(1000)
    listener.asked[0].reply()

    ends_at(listener, peer, 1060)


def test_each_request_makes_it_idle_anew(listener):
    peer = listener.connected()
    for _ in range(10):
        peer.send(GET)
        listener.advance(50)

    ends_at(listener, peer, 510)


# -- heads


def test_a_head_that_comes_byte_by_byte_has_a_time_from_its_first_byte_on(listener):
    peer = listener.connected()
    for byte in GET[:8]:
        listener.advance(1)
        peer.send(bytes([byte]))

    ends_at(listener, peer, 11)

    assert ([408], "half") == (peer.statuses, peer.state)


def test_so_has_one_on_a_used_connection(listener):
    peer = listener.connected()
    peer.send(GET)
    listener.advance(59)
    peer.send(b"G")

    ends_at(listener, peer, 69)

    assert [200, 408] == peer.statuses


def test_so_has_one_that_begins_in_the_same_read_as_the_one_before_it_ends(listener):
    peer = listener.connected()
    peer.send(GET[:5])
    listener.advance(2)
    peer.send(GET[5:] + GET[:5])

    ends_at(listener, peer, 12)

    assert [200, 408] == peer.statuses


def test_so_have_blank_lines_before_it(listener):
    peer = listener.connected()
    listener.advance(2)
    peer.send(b"\r\n")

    ends_at(listener, peer, 12)


def test_one_that_came_while_another_was_answered_has_its_time_from_the_answer_on(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET + GET[:5])
    listener.advance(1000)
    listener.asked[0].reply()

    ends_at(listener, peer, 1010)


# -- bodies


def test_a_body_that_does_not_come_has_its_grace(listener):
    peer = listener.connected()
    listener.advance(5)
    peer.send(POST)

    ends_at(listener, peer, 25)

    assert ([408], "half", ["lost"]) == (peer.statuses, peer.state, listener.asked[0].heard)


def test_a_body_that_comes_has_more_time_by_what_came(listener):
    peer = listener.connected()
    peer.send(POST + b"." * 5000)

    ends_at(listener, peer, 20 + 10)


def test_a_body_that_stops_is_late_however_much_of_it_came(listener):
    peer = listener.connected()
    listener.advance(5)
    peer.send(POST + b"." * 50_000)
    listener.advance(5)
    peer.send(b"." * 49_999)

    ends_at(listener, peer, 10 + 60)

    assert [408] == peer.statuses


def test_a_body_that_comes_in_drops_is_late_all_the_same(listener):
    peer = listener.connected()
    peer.send(POST)
    for _ in range(20):
        listener.advance(1)
        peer.send(b"." * 50)

    ends_at(listener, peer, 22)


def test_a_body_that_comes_at_the_rate_is_in_time_however_long_it_takes(listener):
    peer = listener.connected()
    peer.send(POST)
    for _ in range(200):
        listener.advance(1)
        peer.send(b"." * 500)

    assert [200] == peer.statuses


def test_a_body_in_chunks_is_timed_like_another(listener):
    peer = listener.connected()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n" + b"." * 500)

    ends_at(listener, peer, 21)


def test_the_time_that_the_application_holds_a_body_is_not_its_senders(listener):
    listener.application.on_chunk = lambda asked: asked.exchange.hold()
    peer = listener.connected()
    peer.send(POST)
    listener.advance(5)
    peer.send(b"." * 500)
    listener.advance(1000)
    listener.asked[0].exchange.release()

    ends_at(listener, peer, 1000 + 20 + 1)


def test_neither_is_the_time_that_a_request_waits_for_its_turn(listener):
    listener.application.waits()
    peer = listener.connected()
    listener.advance(5)
    peer.send(GET + POST)
    listener.advance(1000)
    listener.asked[0].reply()

    ends_at(listener, peer, 1005 + 20)


def test_a_body_is_timed_from_its_own_head_on(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    listener.advance(1000)
    listener.asked[0].reply()
    peer.send(POST)

    ends_at(listener, peer, 1020)


# -- answers


def test_an_answer_has_all_the_time_that_the_application_takes(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)

    listener.advance(100_000)
    listener.asked[0].reply()

    assert ([200], "open") == (peer.statuses, peer.state)


def test_a_peer_that_takes_nothing_is_cut_off(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 1_000_000)
    peer = listener.connected(reads=False)
    listener.advance(5)
    peer.send(GET)

    ends_at(listener, peer, 35)

    assert ("aborted", {"did not read": 1}) == (peer.state, listener.server.counts)


def test_a_peer_that_takes_something_has_its_time_anew(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 2_000_000)
    peer = listener.connected(reads=False)
    peer.send(GET)
    for _ in range(8):
        listener.advance(29)
        peer.take()

    ends_at(listener, peer, 8 * 29 + 30)


def test_a_peer_that_takes_nothing_of_the_last_reply_is_cut_off_too(listener):
    listener.application.on_complete = lambda asked: asked.reply(b"." * 100_000)
    peer = listener.connected(reads=False)
    peer.send(LAST)

    ends_at(listener, peer, 30)


def test_so_is_one_whose_transport_has_room_for_all_of_it(listener):
    peer = listener.connected(reads=False)
    peer.send(LAST)

    ends_at(listener, peer, 30)

    assert "aborted" == peer.state


def test_what_comes_while_the_peer_takes_nothing_gives_it_no_time(listener):
    def begins(asked):
        asked.exchange.start(200, [])
        asked.exchange.write(b"." * 100_000)

    listener.application.on_complete = begins
    peer = listener.connected(reads=False)
    peer.send(GET)
    listener.advance(5)
    peer.driver.channel.data_received(GET)  # as TLS may, which had it already

    ends_at(listener, peer, 30)


# -- lingering


def lingers_until(listener, peer, seconds):
    listener.advance(seconds - listener.clock.seconds() - JUST)
    before = peer.state
    listener.advance(JUST)
    assert ("half", "aborted") == (before, peer.state)


def test_a_refused_request_is_read_on_for_a_while(listener):
    peer = listener.connected()
    listener.advance(2)
    peer.send(b"BREW / HTTP/1.1\r\n\r\n")
    for _ in range(4):
        listener.advance(1)
        peer.send(b"more")

    lingers_until(listener, peer, 7)


def test_a_peer_that_leaves_ends_the_lingering(listener):
    peer = listener.connected()
    peer.send(b"BREW / HTTP/1.1\r\n\r\n")
    peer.leave()

    assert [] == listener.clock.getDelayedCalls()


def test_lingering_begins_when_the_reply_is_sent(listener):
    def answers_early(asked):
        asked.reply(b"." * 200_000)

    listener.application.on_head = answers_early
    peer = listener.connected(reads=False)
    peer.send(POST)
    listener.advance(20)
    peer.reads = True
    peer.settle()

    lingers_until(listener, peer, 25)


# -- drain


def test_a_fresh_connection_has_its_grace(listener):
    peer = listener.connected()
    listener.server.drain()

    ends_at(listener, peer, FRESH_GRACE)

    assert ("closed", b"") == (peer.state, peer.sent)


def test_a_used_connection_has_less_of_it(listener):
    peer = listener.connected()
    peer.send(GET)
    listener.advance(50)
    listener.server.drain()

    ends_at(listener, peer, 50 + USED_GRACE)


def test_one_that_comes_while_it_drains_is_served(listener):
    listener.server.drain()
    listener.advance(5)
    peer = listener.connected()
    listener.advance(FRESH_GRACE - JUST)
    peer.send(GET)

    assert ([200], "closed") == (peer.statuses, peer.state)
    assert "close" == peer.replies()[0].fields["connection"]


def test_half_a_head_is_waited_for(listener):
    peer = listener.connected()
    peer.send(GET[:5])
    listener.server.drain()
    listener.advance(9)
    peer.send(GET[5:])

    assert ([200], "closed") == (peer.statuses, peer.state)


def test_a_head_that_began_in_the_grace_is_waited_for(listener):
    peer = listener.connected()
    listener.server.drain()
    listener.advance(FRESH_GRACE - JUST)
    peer.send(GET[:1])

    ends_at(listener, peer, FRESH_GRACE - JUST + 10)


def test_half_a_body_is_waited_for(listener):
    peer = listener.connected()
    peer.send(POST + b"." * 50_000)
    listener.server.drain()
    listener.advance(19)
    peer.send(b"." * 50_000)

    assert ([200], "closed") == (peer.statuses, peer.state)


def test_an_answer_under_way_is_waited_for(listener):
    listener.application.waits()
    peer = listener.connected()
    peer.send(GET)
    listener.server.drain()
    listener.advance(1000)
    before = peer.state
    listener.asked[0].reply()

    assert ("open", [200], "closed") == (before, peer.statuses, peer.state)


def test_an_answer_whose_head_was_sent_is_waited_for_and_then_the_connection_has_its_grace(listener):
    listener.application.on_complete = lambda asked: asked.exchange.start(200, [])
    peer = listener.connected()
    peer.send(GET)
    listener.server.drain()
    listener.advance(1000)
    listener.asked[0].exchange.end()

    ends_at(listener, peer, 1000 + USED_GRACE)

    assert b"connection" not in peer.sent


def test_it_is_told_when_the_last_connection_is_gone(listener):
    first, second = listener.connected(), listener.connected()
    closed = listener.server.wait_until_closed()

    first.leave()
    before = closed.called
    second.leave()

    assert (False, True, True) == (before, closed.called, listener.server.wait_until_closed().called)


def test_who_waits_for_that_may_give_up(listener):
    peer = listener.connected()
    closed = listener.server.wait_until_closed()
    given_up = []
    closed.addErrback(given_up.append)

    closed.cancel()
    peer.leave()

    assert 1 == len(given_up)


def test_what_is_left_is_cut_off(listener):
    listener.application.waits()
    peers = [listener.connected() for _ in range(3)]
    peers[0].send(GET)
    closed = listener.server.wait_until_closed()

    listener.server.abort()
    for peer in peers:
        peer.settle()

    assert (["aborted"] * 3, ["complete", "lost"], True) == (
        [peer.state for peer in peers],
        listener.asked[0].heard,
        closed.called,
    )


# -- the one timer


def test_many_connections_have_one_timer_and_none_when_the_last_is_gone(listener):
    peers = [listener.connected() for _ in range(100)]
    for peer in peers[:50]:
        peer.send(GET)
    many = len(listener.clock.getDelayedCalls())
    for peer in peers:
        peer.leave()

    assert (1, []) == (many, listener.clock.getDelayedCalls())


@pytest.mark.parametrize("sent", [b"", b"G", GET, LAST, POST, b"BREW"], ids=repr)
def test_no_timer_is_left_when_the_time_of_all_is_over(listener, sent):
    listener.connected().send(sent)

    for _ in range(200):
        listener.advance(1)

    assert ([], {}) == (listener.clock.getDelayedCalls(), listener.server.channels)


class Timed:
    """Hears when it is late, and sets a deadline or is discarded as a test has it."""

    def __init__(self, clock, then=lambda now: NEVER):
        self.deadline = NEVER
        self.heard = []
        self._clock = clock
        self._then = then

    def late(self, now):
        self.heard.append(now)
        self.deadline = self._then(now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def deadlines(clock):
    return Deadlines(clock)


def test_a_deadline_that_moves_on_is_heard_of_when_it_passes(clock, deadlines):
    timed = Timed(clock)
    deadlines.add(timed)
    for each in (1, 2, 4):
        deadlines.set(timed, each)

    clock.pump([0.25] * 20)

    assert [4] == timed.heard


def test_a_deadline_that_moves_back_is_heard_of_when_it_passes(clock, deadlines):
    timed = Timed(clock)
    deadlines.add(timed)
    for each in (4, 2, 1):
        deadlines.set(timed, each)

    clock.pump([0.25] * 20)

    assert [1] == timed.heard


def test_deadlines_close_together_are_heard_of_together(clock, deadlines):
    several = [Timed(clock) for _ in range(4)]
    for each, deadline in zip(several, (1, 1.125, 1.25, 3), strict=True):
        deadlines.add(each)
        deadlines.set(each, deadline)

    clock.pump([0.125] * 40)

    assert [[1], [1 + EVERY], [1 + EVERY], [3]] == [each.heard for each in several]


def test_what_stays_late_is_told_so_again(clock, deadlines):
    timed = Timed(clock, then=lambda now: now)
    deadlines.add(timed)
    deadlines.set(timed, 1)

    clock.pump([0.125] * 17)

    assert [1, 1.5, 2] == timed.heard


def test_one_that_is_discarded_hears_nothing_more(clock, deadlines):
    first, second = Timed(clock), Timed(clock)
    for each in (first, second):
        deadlines.add(each)
        deadlines.set(each, 1)

    deadlines.discard(first)
    clock.advance(2)

    assert ([], [2]) == (first.heard, second.heard)


@pytest.fixture
def crowd(clock, deadlines):
    """More than hear of their deadline in one turn, all with the same one."""
    crowd = [Timed(clock) for _ in range(2 * TOGETHER + 1)]
    for each in crowd:
        deadlines.add(each)
        deadlines.set(each, 1)
    return crowd


def test_a_crowd_that_is_late_hears_of_it_some_at_a_time(clock, crowd):
    heard = []

    def turn():
        heard.append(sum(len(each.heard) for each in crowd))
        if len(heard) < 4:
            clock.callLater(0, turn)

    clock.callLater(1, turn)
    clock.advance(1)

    assert [TOGETHER, 2 * TOGETHER, 2 * TOGETHER + 1, 2 * TOGETHER + 1] == heard
    assert {(1,)} == {tuple(each.heard) for each in crowd}


def test_who_has_more_time_or_is_gone_before_it_is_told_hears_nothing(clock, deadlines, crowd):
    clock.callLater(1, deadlines.set, crowd[-3], 9)
    clock.callLater(1, deadlines.discard, crowd[-2])

    clock.advance(1)

    assert [[], [], [1]] == [each.heard for each in crowd[-3:]]


def test_a_crowd_that_leaves_as_the_first_of_it_is_told_hears_nothing_more(clock, deadlines, crowd):
    def leave(now):
        for each in crowd:
            deadlines.discard(each)
        return NEVER

    for each in crowd:
        each._then = leave
    clock.advance(1)

    assert [1, *[0] * 2 * TOGETHER] == [len(each.heard) for each in crowd]
    assert [] == clock.getDelayedCalls()
