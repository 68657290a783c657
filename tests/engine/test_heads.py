"""Facts about heads: which requests are refused, and with what; which are taken; which replies' heads are not written."""

from __future__ import annotations

import pytest

from ropewalk.engine.heads import reply_head

HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def get(target=b"/", fields=HOST, version=b"HTTP/1.1", method=b"GET"):
    return b"%b %b %b\r\n%b\r\n" % (method, target, version, fields)


def post(fields, body=b"abc"):
    return b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n%b" % (fields, body)


REFUSED = {
    # two readers could see two bodies
    "a length, then chunks": (400, post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
    "chunks, then a length": (400, post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n")),
    "chunks twice": (400, post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    "chunks twice in a list": (400, post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n")),
    "chunks, then identity": (400, post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
    "identity": (400, post(b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n")),
    "identity alone": (400, post(b"Transfer-Encoding: identity\r\n")),
    "gzip, then chunks": (400, post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n")),
    "chunks, then gzip": (400, post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n")),
    "chunked with a mark": (400, post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n")),
    "xchunked": (400, post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n")),
    "chunked in quotes": (400, post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n")),
    "chunked behind a vertical tab": (400, post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n")),
    "an empty transfer encoding": (400, post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n")),
    "chunks in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # lengths
    "two lengths": (400, post(b"Content-Length: 3\r\nContent-Length: 4\r\n")),
    "one length twice": (400, post(b"Content-Length: 3\r\nContent-Length: 3\r\n")),
    "a list of lengths": (400, post(b"Content-Length: 3, 3\r\n")),
    "a length with a plus": (400, post(b"Content-Length: +3\r\n")),
    "a length with a minus": (400, post(b"Content-Length: -3\r\n")),
    "a length with a zero before it": (400, post(b"Content-Length: 03\r\n")),
    "two zeros": (400, post(b"Content-Length: 00\r\n", b"")),
    "an empty length": (400, post(b"Content-Length:\r\n")),
    "a length of blanks": (400, post(b"Content-Length: \t \r\n")),
    "a length in hexadecimal": (400, post(b"Content-Length: 0x3\r\n")),
    "a length with an underscore": (400, post(b"Content-Length: 1_0\r\n")),
    "a length with a blank within": (400, post(b"Content-Length: 1 0\r\n")),
    "a length with a point": (400, post(b"Content-Length: 3.0\r\n")),
    "a length in Arabic digits": (400, post("Content-Length: ٣\r\n".encode())),
    "a length beyond 64 bits": (400, post(b"Content-Length: 18446744073709551616\r\n")),
    "a length of a hundred digits": (400, post(b"Content-Length: %b\r\n" % (b"9" * 100))),
    "a length beyond what is taken": (413, post(b"Content-Length: 18446744073709551615\r\n")),
    # lines
    "a folded field": (400, get(fields=HOST + b"A: b\r\n c\r\n")),
    "a field folded by a tab": (400, get(fields=HOST + b"A: b\r\n\tc\r\n")),
    "a fold before the first field": (400, get(fields=b" A: b\r\n" + HOST)),
    "a bare LF behind the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "a bare LF behind a field": (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    "a bare LF at the end of the head": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "bare LFs throughout": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "a bare CR behind the request line": (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    "a bare CR behind a field": (400, b"GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n"),
    "a bare CR at the end of the head": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\rB: c\r\n\r\n"),
    "a bare CR in a name": (400, get(fields=HOST + b"A\r: b\r\n")),
    "a bare LF in a name": (400, get(fields=HOST + b"A\n: b\r\n")),
    "two CRs": (400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    # bytes that are none of text
    "NUL in the target": (400, get(b"/\0")),
    "NUL in a name": (400, get(fields=HOST + b"A\0: b\r\n")),
    "NUL in a value": (400, get(fields=HOST + b"A: \0\r\n")),
    "a control byte in the target": (400, get(b"/\x01")),
    "a control byte in a name": (400, get(fields=HOST + b"A\x01: b\r\n")),
    "a control byte in a value": (400, get(fields=HOST + b"A: \x1b[0m\r\n")),
    "DEL in a value": (400, get(fields=HOST + b"A: \x7f\r\n")),
    "a high byte in the target": (400, get(b"/\xff")),
    "a high byte in a name": (400, get(fields=HOST + b"\xe9: b\r\n")),
    "a tab in the request line": (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    # fields
    "a blank before the colon": (400, get(fields=HOST + b"A : b\r\n")),
    "a tab before the colon": (400, get(fields=HOST + b"A\t: b\r\n")),
    "a blank before the colon of a length": (400, post(b"Content-Length : 3\r\n")),
    "a blank in a name": (400, get(fields=HOST + b"A B: c\r\n")),
    "no name": (400, get(fields=HOST + b": b\r\n")),
    "no colon": (400, get(fields=HOST + b"A\r\n")),
    "brackets in a name": (400, get(fields=HOST + b"A(): b\r\n")),
    "an expectation nobody knows": (417, post(b"Content-Length: 3\r\nExpect: 200-ok\r\n", b"")),
    # hosts
    "no host": (400, get(fields=b"")),
    "two hosts": (400, get(fields=HOST * 2)),
    "two hosts that differ": (400, get(fields=HOST + b"Host: b\r\n")),
    "a host with a user": (400, get(fields=b"Host: user@a\r\n")),
    "a host with a blank": (400, get(fields=b"Host: a b\r\n")),
    "a host with a path": (400, get(fields=b"Host: a/b\r\n")),
    "a host with a comma and a blank": (400, get(fields=b"Host: a, b\r\n")),
    "a host with a high byte": (400, get(fields=b"Host: \xe9\r\n")),
    "a host with half an escape": (400, get(fields=b"Host: a%2\r\n")),
    "a port of letters": (400, get(fields=b"Host: a:http\r\n")),
    "a port with a sign": (400, get(fields=b"Host: a:+80\r\n")),
    "a port that is none": (400, get(fields=b"Host: a:65536\r\n")),
    "a port of six digits": (400, get(fields=b"Host: a:000080\r\n")),
    "two ports": (400, get(fields=b"Host: a:80:80\r\n")),
    "a port alone": (400, get(fields=b"Host: :80\r\n")),
    "an IPv6 address without brackets": (400, get(fields=b"Host: ::1\r\n")),
    "an open bracket": (400, get(fields=b"Host: [::1\r\n")),
    "an IPv6 address of colons": (400, get(fields=b"Host: [:::::]\r\n")),
    "an IPv6 address of nine groups": (400, get(fields=b"Host: [1:2:3:4:5:6:7:8:9]\r\n")),
    "an IPv4 address in brackets": (400, get(fields=b"Host: [127.0.0.1]\r\n")),
    "an IPv6 address with a zone": (400, get(fields=b"Host: [fe80::1%eth0]\r\n")),
    "something behind an IPv6 address": (400, get(fields=b"Host: [::1]a\r\n")),
    "a host's user in HTTP/1.0": (400, get(fields=b"Host: user@a\r\n", version=b"HTTP/1.0")),
    # targets
    "a target of another host": (400, get(b"http://b/")),
    "a target of another port": (400, get(b"http://a:81/")),
    "a target with a user": (400, get(b"http://user@a/")),
    "a target with an empty host": (400, get(b"http:///")),
    "a target of another scheme": (400, get(b"ftp://a/")),
    "a target of an authority": (400, get(b"a:80")),
    "CONNECT to an authority": (400, get(b"a:80", method=b"CONNECT")),
    "CONNECT to a path": (400, get(b"/", method=b"CONNECT")),
    "CONNECT to a URL": (400, get(b"http://a/", method=b"CONNECT")),
    "* with GET": (400, get(b"*")),
    "** with OPTIONS": (400, get(b"**", method=b"OPTIONS")),
    "a relative path": (400, get(b"a/b")),
    "a query alone": (400, get(b"?a")),
    "a fragment": (400, get(b"/a#b")),
    "an empty fragment": (400, get(b"/#")),
    "a fragment of a URL": (400, get(b"http://a/#b")),
    # methods and versions
    "an unknown method": (400, get(method=b"BREW")),
    "a method in small letters": (400, get(method=b"get")),
    "HTTP/0.9 by its name": (505, get(version=b"HTTP/0.9")),
    "HTTP/0.9 as it was": (505, b"GET /\r\n\r\n"),
    "HTTP/1.2": (400, get(version=b"HTTP/1.2")),
    "HTTP/1.10": (400, get(version=b"HTTP/1.10")),
    "HTTP/01.1": (400, get(version=b"HTTP/01.1")),
    "HTTP/2.0": (505, get(version=b"HTTP/2.0")),
    "http/1.1": (400, get(version=b"http/1.1")),
    "HTTP/2's preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP's own method": (400, get(method=b"PLAY", version=b"HTTP/1.1")),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # chunks
    "a size with a plus": (400, CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    "a size with a minus": (400, CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    "a size with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a size with an underscore": (400, CHUNKED + b"1_0\r\nabc\r\n0\r\n\r\n"),
    "a blank before a size": (400, CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    "a blank behind a size": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "a tab behind a size": (400, CHUNKED + b"3\t\r\nabc\r\n0\r\n\r\n"),
    "a blank before an extension": (400, CHUNKED + b"3 ;a\r\nabc\r\n0\r\n\r\n"),
    "an empty size": (400, CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    "an extension alone": (400, CHUNKED + b";a=b\r\nabc\r\n0\r\n\r\n"),
    "an empty extension": (400, CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n"),
    "a size that is none": (400, CHUNKED + b"G\r\nabc\r\n0\r\n\r\n"),
    "a size beyond 64 bits": (400, CHUNKED + b"10000000000000000\r\nabc\r\n0\r\n\r\n"),
    "a bare LF behind a size": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "a bare CR behind a size": (400, CHUNKED + b"3\rabc\r\n0\r\n\r\n"),
    "a bare LF behind an extension": (400, CHUNKED + b"3;a\nabc\r\n0\r\n\r\n"),
    "a bare LF behind an extension's value": (400, CHUNKED + b"3;a=b\nabc\r\n0\r\n\r\n"),
    "a bare LF in an extension's quotes": (400, CHUNKED + b'3;a="\n"\r\nabc\r\n0\r\n\r\n'),
    "NUL in an extension": (400, CHUNKED + b"3;\0\r\nabc\r\n0\r\n\r\n"),
    "a bare LF behind data": (400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    "a bare CR behind data": (400, CHUNKED + b"3\r\nabc\r0\r\n\r\n"),
    "no CRLF behind data": (400, CHUNKED + b"3\r\nabc0\r\n\r\n"),
    "more data than a size": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "a bare LF behind the last size": (400, CHUNKED + b"0\n\r\n"),
    "a bare LF at the end": (400, CHUNKED + b"0\r\n\n"),
    "a bare LF behind a trailer": (400, CHUNKED + b"0\r\nA: b\n\r\n"),
    "a blank before a trailer's colon": (400, CHUNKED + b"0\r\nA : b\r\n\r\n"),
    "a folded trailer": (400, CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n"),
    "a length among the trailers": (400, CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n"),
    "chunks among the trailers": (400, CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
}

TAKEN = {
    "the least": ("GET /", b"", get()),
    "the least of HTTP/1.0": ("GET /", b"", b"GET / HTTP/1.0\r\n\r\n"),
    "an empty host": ("GET /", b"", get(fields=b"Host:\r\n")),
    "a host with a port": ("GET /", b"", get(fields=b"Host: a.example:8080\r\n")),
    "a host with an empty port": ("GET /", b"", get(fields=b"Host: a:\r\n")),
    "an IPv4 address": ("GET /", b"", get(fields=b"Host: 127.0.0.1:80\r\n")),
    "an IPv6 address": ("GET /", b"", get(fields=b"Host: [::1]:8080\r\n")),
    "an IPv6 address with an IPv4 one": ("GET /", b"", get(fields=b"Host: [::ffff:127.0.0.1]\r\n")),
    "an underscore in a host": ("GET /", b"", get(fields=b"Host: my_service\r\n")),
    "blanks around a value": ("GET /", b"", get(fields=b"Host: \t a \t\r\n")),
    "no blank before a value": ("GET /", b"", get(fields=b"Host:a\r\n")),
    "a field with no value": ("GET /", b"", get(fields=HOST + b"A:\r\n")),
    "a high byte in a value": ("GET /", b"", get(fields=HOST + b"A: \xe9\r\n")),
    "a tab in a value": ("GET /", b"", get(fields=HOST + b"A: b\tc\r\n")),
    "blank lines before": ("GET /", b"", b"\r\n\r\n" + get()),
    "a path with all that a path may have": ("GET /a:@!$&'()*+,;=-._~%20?b=c/d?e", b"", get(b"/a:@!$&'()*+,;=-._~%20?b=c/d?e")),
    "a URL": ("GET /b", b"", get(b"http://a/b")),
    "a URL without a path": ("GET /?b", b"", get(b"http://a?b")),
    "a URL in other letters": ("GET /b", b"", get(b"HTTP://A/b")),
    "a URL without a Host, of HTTP/1.0": ("GET /", b"", get(b"http://a/", b"", b"HTTP/1.0")),
    "* with OPTIONS": ("OPTIONS *", b"", get(b"*", method=b"OPTIONS")),
    "PROPFIND": ("PROPFIND /", b"", get(method=b"PROPFIND")),
    "a length": ("POST /", b"abc", post(b"Content-Length: 3\r\n")),
    "a length with blanks": ("POST /", b"abc", post(b"Content-Length: \t3 \t\r\n")),
    "a length of nothing": ("POST /", b"", post(b"Content-Length: 0\r\n", b"")),
    "a length in HTTP/1.0": ("POST /", b"abc", b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"),
    "a body of GET": ("GET /", b"abc", get(fields=HOST + b"Content-Length: 3\r\n") + b"abc"),
    "chunks": ("POST /", b"abcdef", CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
    "chunks in other letters": ("POST /", b"abc", post(b"TRANSFER-ENCODING: Chunked \r\n", b"3\r\nabc\r\n0\r\n\r\n")),
    "a size with zeros and letters": ("POST /", b"abcdefghijk", CHUNKED + b"00b\r\nabcdefghijk\r\n000\r\n\r\n"),
    "extensions": ("POST /", b"abc", CHUNKED + b'3;a=b;c="d e";f\r\nabc\r\n0;g\r\n\r\n'),
    "trailers": ("POST /", b"abc", CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\nDigest: c\r\n\r\n"),
    "an expectation": ("POST /", b"abc", post(b"Content-Length: 3\r\nExpect: 100-Continue\r\n")),
}  # fmt: skip


@pytest.mark.parametrize(("status", "request_"), REFUSED.values(), ids=REFUSED)
def test_is_refused_and_its_connection_ends(listener, status, request_):
    peer = listener.connected()

    peer.send(request_)

    assert ([status], "half") == (peer.statuses, peer.state)
    assert "close" == peer.replies()[0].fields["connection"]
    assert "complete" not in [heard for asked in listener.asked for heard in asked.heard]


@pytest.mark.parametrize(("line", "body", "request_"), TAKEN.values(), ids=TAKEN)
def test_is_taken(listener, line, body, request_):
    peer = listener.connected()

    peer.send(request_)

    (asked,) = listener.asked
    assert (line, body, ["complete"]) == (asked.line, asked.body, asked.heard)
    assert 200 == peer.statuses[-1]


def test_a_refusal_is_a_problem_document(listener):
    peer = listener.connected()

    peer.send(get(version=b"HTTP/2.0"))

    (reply,) = peer.replies()
    assert "application/problem+json" == reply.fields["content-type"]
    assert (
        b'{"type":"about:blank","title":"HTTP Version Not Supported","status":505,'
        b'"detail":"HTTP/2.0 is not spoken here; HTTP/1.1 is."}'
    ) == reply.body


def test_what_is_refused_is_counted(listener):
    for request in (get(b"*"), get(b"*"), get(version=b"HTTP/2.0")):
        listener.connected().send(request)

    assert {"refused 400": 2, "refused 505": 1} == listener.server.counts


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\r\n"])
@pytest.mark.parametrize("place", ["name", "value", "reason"])
def test_a_reply_whose_head_would_be_split_is_not_written(byte, place):
    parts = {"name": b"x-a", "value": b"b", "reason": b"Fine"}
    parts[place] = parts[place] + byte + b"c"

    with pytest.raises(ValueError, match="CR, LF or NUL within"):
        reply_head(200, [(parts["name"], parts["value"])], parts["reason"])


def test_a_reply_has_the_reason_that_its_status_has_unless_it_says_another():
    assert [
        b"HTTP/1.1 413 Content Too Large\r\n\r\n",
        b"HTTP/1.1 599 \r\n\r\n",
        b"HTTP/1.1 200 Fine\r\n\r\n",
    ] == [reply_head(413, []), reply_head(599, []), reply_head(200, [], b"Fine")]


def test_an_application_that_would_split_a_head_has_its_request_answered_500(listener, flush_logged_errors):
    listener.application.on_complete = lambda asked: asked.reply(fields=[(b"location", b"/\r\nset-cookie: a=b")])
    peer = listener.connected()

    peer.send(get())

    assert [500] == peer.statuses
    assert 1 == len(flush_logged_errors(ValueError))
