"""Facts about resources served by `Site`: whatever works over Twisted's own works over this one, on either driver."""

from __future__ import annotations

from io import BytesIO

import pytest
from twisted.internet import _producer_helpers
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, Cooperator
from twisted.web.http import combinedLogFormatter
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as ServerRequest
from twisted.web.server import Site as TwistedSite
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

from ropewalk.engine import Site

pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")  # Twisted's own

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path="/", *fields):
    return b"".join(
        [b"GET %b HTTP/1.1\r\nHost: a\r\n" % path.encode(), *(b"%b\r\n" % field for field in fields), b"\r\n"]
    )


def post(body, content_type=b"application/x-www-form-urlencoded", path=b"/"):
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        path,
        content_type,
        len(body),
        body,
    )


def multipart(*parts):
    return b"".join(b"--x\r\n%b\r\n" % part for part in parts) + b"--x--\r\n"


class Leaf(Resource):
    """Renders by a function."""

    isLeaf = True

    def __init__(self, render):
        super().__init__()
        self.render = render


class Served:
    """A resource behind a Site on virtual time."""

    def __init__(self, resource, driver, peers, site=Site, **options):
        self.clock = Clock()
        self.site = site(resource, reactor=self.clock, **options)
        self.logged = []
        self.site.log = self.logged.append
        self._driver = driver
        self._peers = peers
        self.left = []

    def connected(self, *, reads=True, secure=False):
        peer = self._peers[self._driver](self.clock)
        peer.reads = reads
        if secure:
            peer.encrypt()
        self.left.append(peer)
        peer.connect(self.site.buildProtocol(None) if self._driver == "twisted" else self.site.asyncio_protocol())
        return peer

    def ask(self, *requests, **options):
        """What is answered on a connection of their own."""
        peer = self.connected(**options)
        peer.send(*requests)
        return peer


@pytest.fixture(params=["twisted", "asyncio"])
def serve(request, peers):
    """`serve(resource or its render, **options of Site)`."""
    all_served = []

    def serve(resource, **options):
        if not isinstance(resource, Resource):
            resource = Leaf(resource)
        all_served.append(Served(resource, request.param, peers, **options))
        return all_served[-1]

    yield serve
    for served in all_served:
        for peer in served.left:
            peer.leave()
        assert [] == served.clock.getDelayedCalls()


@pytest.fixture
def turns(monkeypatch):
    """`turns()` lets pull producers go on, one turn for each call."""
    waiting = []
    cooperator = Cooperator(scheduler=lambda turn: waiting.append(turn) or Turn(waiting, turn))
    monkeypatch.setattr(_producer_helpers, "cooperate", cooperator.cooperate)

    def turns(times=1):
        for _ in range(times):
            due, waiting[:] = waiting[:], []
            for turn in due:
                turn()

    return turns


class Turn:
    def __init__(self, waiting, turn):
        self.cancel = lambda: turn in waiting and waiting.remove(turn)


# -- what a request has


def test_a_form_is_in_args(serve):
    seen = []
    served = serve(lambda request: seen.append(request.args) or b"")

    served.ask(post(b"name=Ann&name=Bob&empty=", path=b"/?name=Zoe"))

    assert [{b"name": [b"Ann", b"Bob"], b"empty": [b""]}] == seen


def test_a_form_with_files_is_in_args(serve):
    seen = []
    served = serve(lambda request: seen.append(request.args) or b"")

    parts = (
        b'Content-Disposition: form-data; name="name"\r\n\r\nAnn',
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\r\n\xff',
    )
    served.ask(post(multipart(*parts), b"multipart/form-data; boundary=x"))

    assert [{b"name": [b"Ann"], b"file": [b"\x00\r\n\xff"]}] == seen


def test_a_form_that_cannot_be_read_is_refused_and_its_connection_ends(serve):
    served = serve(lambda request: b"never")

    peer = served.ask(post(b"nothing", b"multipart/form-data") + GET)

    assert ([400], "closed") == (peer.statuses, peer.state)


def test_a_form_is_left_alone_where_the_site_says_so(serve):
    seen = []
    served = serve(
        lambda request: seen.append((request.args, request.content.read())) or b"", parsePOSTFormSubmission=False
    )

    served.ask(post(b"a=b"))

    assert [({}, b"a=b")] == seen


@pytest.mark.parametrize("size", [0, 10, 500_000])
def test_a_body_is_in_content(serve, size):
    served = serve(lambda request: b"%d" % len(request.content.read()))
    body = b"." * size

    peer = served.ask(*(post(body, b"text/plain")[at : at + 65536] for at in range(0, size + 200, 65536)))

    assert [b"%d" % size] == [reply.body for reply in peer.replies()]


def test_a_body_in_chunks_is_in_content(serve):
    served = serve(lambda request: request.content.read())

    peer = served.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    assert b"abc" == peer.replies()[0].body


def test_a_body_may_be_kept_where_the_site_says_so(serve):
    lengths = []

    class Keeping(Site):
        def getContentFile(self, length):
            lengths.append(length)
            return BytesIO()

    served = serve(lambda request: request.content.read(), site=Keeping)
    peer = served.ask(post(b"abc"))

    assert ([3], b"abc") == (lengths, peer.replies()[0].body)


def test_cookies_come_and_go(serve):
    def render(request):
        request.addCookie(b"seen", request.getCookie(b"b") or b"none", httpOnly=True)
        return b""

    peer = serve(render).ask(get("/", b"Cookie: a=1; b=2; broken"))

    assert "seen=2; HttpOnly" == peer.replies()[0].fields["set-cookie"]


def test_a_session_is_known_again(serve):
    served = serve(lambda request: request.getSession().uid)

    first = served.ask(GET).replies()[0]
    again = served.ask(get("/", b"Cookie: " + first.fields["set-cookie"].split(";")[0].encode())).replies()[0]
    served.clock.advance(3600)  # it expires

    assert first.body == again.body


def test_fields_of_one_name_are_all_there(serve):
    served = serve(lambda request: b",".join(request.requestHeaders.getRawHeaders(b"x-a")))

    assert b"1,2" == served.ask(get("/", b"X-A: 1", b"x-a: 2")).replies()[0].body


def test_a_request_says_where_it_came_from_and_where_to(serve):
    served = serve(
        lambda request: f"{request.getClientAddress().host} {request.getHost().port} {request.isSecure()}".encode()
    )

    assert b"192.0.2.7 80 False" == served.ask(GET).replies()[0].body


def test_a_request_says_that_it_is_secure(serve):
    served = serve(lambda request: f"{request.isSecure()}".encode())

    assert b"True" == served.ask(GET, secure=True).replies()[0].body


def test_each_request_is_logged(serve):
    served = serve(lambda request: b"done")

    served.ask(GET, GET)

    assert ['"192.0.2.7" - - now "GET / HTTP/1.1" 200 4 "-" "-"'] * 2 == [
        combinedLogFormatter("now", request) for request in served.logged
    ]


# -- how it is answered


def test_a_reply_of_unknown_length_is_in_chunks(serve):
    def render(request):
        request.write(b"one")
        request.write(b"two")
        request.finish()
        return NOT_DONE_YET

    peer = serve(render).ask(GET, GET)

    assert [b"onetwo"] * 2 == [reply.body for reply in peer.replies()]
    assert ("chunked", "open") == (peer.replies()[0].fields["transfer-encoding"], peer.state)


def test_a_reply_may_come_later(serve):
    requests = []
    peer = serve(lambda request: requests.append(request) or NOT_DONE_YET).ask(GET + GET)

    for body in (b"first", b"second"):
        requests[-1].write(body)
        requests[-1].finish()

    assert [b"first", b"second"] == [reply.body for reply in peer.replies()]


def test_head_is_answered_as_get_without_its_body(serve):
    peer = serve(lambda request: b"done").ask(GET.replace(b"GET", b"HEAD") + GET)

    of_head, of_get = peer.replies("HEAD", "GET")
    assert (of_get.fields["content-length"], b"") == (of_head.fields["content-length"], of_head.body)


def test_what_was_not_modified_is_not_sent(serve):
    def render(request):
        request.setETag(b'"1"')
        request.setLastModified(1_000_000_000)
        return b"" if request.code == 304 else b"done"

    peer = serve(render).ask(
        get("/", b'If-None-Match: "1"'),
        get("/", b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"),
        get("/", b'If-None-Match: "2"'),
    )

    assert [304, 304, 200] == peer.statuses
    assert "Sun, 09 Sep 2001 01:46:40 GMT" == peer.replies()[0].fields["last-modified"]


def test_a_status_may_have_a_reason_of_its_own(serve):
    def render(request):
        request.setResponseCode(299, b"Fine")
        return b""

    assert serve(render).ask(GET).sent.startswith(b"HTTP/1.1 299 Fine\r\n")


class OfTheResource(Exception):
    """An error that nothing else raises: what other tests left for the collector is not counted."""


def test_a_resource_that_raises_is_answered_500(serve, flush_logged_errors):
    def render(request):
        raise OfTheResource

    peer = serve(render).ask(GET, GET)

    assert ([500, 500], "open") == (peer.statuses, peer.state)
    assert b"OfTheResource" not in peer.sent
    assert 2 == len(flush_logged_errors(OfTheResource))


def test_a_field_that_would_split_the_head_is_answered_500(serve, flush_logged_errors):
    def render(request):
        request.setHeader(b"x-a", b"\0")
        return b"never"

    peer = serve(render).ask(GET)

    assert ([500], False) == (peer.statuses, b"never" in peer.sent)
    assert flush_logged_errors(ValueError, RuntimeError)


def test_a_request_may_end_its_connection(serve):
    def render(request):
        request.setHeader(b"content-length", b"10")
        request.write(b"half")
        request.loseConnection()
        return NOT_DONE_YET

    peer = serve(render).ask(GET + GET)

    assert (1, "closed") == (peer.sent.count(b"half"), peer.state)


def test_so_may_who_reaches_for_its_transport(serve):
    def render(request):
        request.transport.abortConnection()
        return NOT_DONE_YET

    assert "aborted" == serve(render).ask(GET).state


def test_a_reply_may_say_that_it_is_the_last(serve):
    def render(request):
        request.setHeader(b"connection", b"close")
        return b"done"

    peer = serve(render).ask(GET + GET)

    assert ([200], "closed") == (peer.statuses, peer.state)


def test_http_1_0_is_answered(serve):
    peer = serve(lambda request: b"done").ask(
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"
    )

    assert ([b"done", b"done"], "closed") == ([reply.body for reply in peer.replies()], peer.state)


def test_a_request_may_be_one_of_the_sites_own_kind(serve):
    class Own(ServerRequest):
        def process(self):
            self.setResponseCode(202)
            self.write(b"own")
            self.finish()

    peer = serve(lambda request: b"never", requestFactory=Own).ask(GET)

    assert [(202, b"own")] == [(reply.status, reply.body) for reply in peer.replies()]


def test_tls_does_not_agree_on_http_2(serve, monkeypatch):
    monkeypatch.setattr("twisted.web.http.H2_ENABLED", True)

    assert [b"http/1.1"] == serve(lambda request: b"").site.acceptableProtocols()


# -- clients that leave


def test_who_waits_for_the_end_hears_of_a_client_that_leaves(serve):
    ends, requests = [], []

    def render(request):
        requests.append(request)
        request.notifyFinish().addBoth(ends.append)
        return NOT_DONE_YET

    peer = serve(render).ask(GET)
    peer.leave()

    assert ["ConnectionDone"] == [end.type.__name__ for end in ends]
    requests[0].write(b"in vain")
    with pytest.raises(RuntimeError, match="after its connection was lost"):
        requests[0].finish()


def test_who_waits_for_the_end_hears_of_it(serve):
    ends = []

    def render(request):
        request.notifyFinish().addBoth(ends.append)
        return b"done"

    serve(render).ask(GET)

    assert [None] == ends


def test_a_client_that_leaves_in_the_midst_of_a_body_harms_nobody(serve):
    served = serve(lambda request: b"never")

    served.ask(post(b"." * 200_000)[:1000]).leave()

    assert [] == served.logged


# -- producers


class Push:
    """Counts what it is told."""

    def __init__(self):
        self.heard = []
        self.pauseProducing = lambda: self.heard.append("paused")
        self.resumeProducing = lambda: self.heard.append("resumed")
        self.stopProducing = lambda: self.heard.append("stopped")


@pytest.fixture
def push():
    return Push()


def produces(producer, requests, before=b""):
    def render(request):
        requests.append(request)
        request.write(before)
        request.registerProducer(producer, True)
        return NOT_DONE_YET

    return render


def test_a_push_producer_is_paused_and_resumed(serve, push):
    requests = []
    peer = serve(produces(push, requests)).ask(GET, reads=False)

    requests[0].write(b"." * 100_000)
    before = list(push.heard)
    peer.reads = True
    peer.settle()
    requests[0].unregisterProducer()
    requests[0].finish()

    assert (["paused"], ["paused", "resumed"]) == (before, push.heard)
    assert [b"." * 100_000] == [reply.body for reply in peer.replies()]


def test_one_that_comes_when_there_is_no_room_is_paused_at_once(serve, push):
    requests = []
    peer = serve(produces(push, requests, b"." * 100_000)).ask(GET, reads=False)

    before = list(push.heard)
    peer.reads = True
    peer.settle()

    assert (["paused"], ["paused", "resumed"]) == (before, push.heard)


def test_a_producer_whose_client_leaves_is_stopped(serve, push):
    requests = []
    peer = serve(produces(push, requests)).ask(GET)

    peer.leave()

    assert ["stopped"] == push.heard


def test_a_second_producer_is_an_error(serve, push, flush_logged_errors):
    def render(request):
        request.channel.registerProducer(push, True)
        request.channel.registerProducer(push, True)

    peer = serve(render).ask(GET)

    assert [500] == peer.statuses
    assert 1 == len(flush_logged_errors(RuntimeError))


def test_a_file_that_has_grown_since_its_length_was_said_has_its_connection_cut_off(
    serve, folder, tmp_path, turns, flush_logged_errors
):
    peer = serve(folder).connected(reads=False)
    peer.send(get("/large"))
    with (tmp_path / "large").open("ab") as large:
        large.write(b"more")

    for _ in range(30):
        turns()
        peer.take()

    assert "aborted" == peer.state
    assert flush_logged_errors(ValueError)


@pytest.fixture
def folder(tmp_path):
    from twisted.web.static import File  # late: it warns, of itself

    opened = []

    class Folder(File):
        def openForReading(self):
            opened.append(super().openForReading())
            return opened[-1]

    (tmp_path / "large").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / "small.txt").write_text("small")
    yield Folder(str(tmp_path))
    for file in opened:  # Twisted leaves one that was not read to its end to the collector, who warns in another test
        file.close()


def test_a_file_is_sent_as_the_client_takes_it(serve, folder, turns):
    served = serve(folder)
    peer = served.ask(get("/large"), reads=False)

    turns(100)
    kept = len(peer._kept)
    while len(peer.sent) < 1_024_000:
        peer.take()
        turns(3)
    turns(3)

    assert kept < 300_000
    assert [bytes(range(256)) * 4000] == [reply.body for reply in peer.replies()]
    assert 1 == len(served.logged)


def test_a_part_of_a_file_is_sent(serve, folder, turns):
    peer = serve(folder).ask(get("/large", b"Range: bytes=255-258"))
    turns(3)

    (reply,) = peer.replies()
    assert (206, b"\xff\0\1\2", "bytes 255-258/1024000") == (reply.status, reply.body, reply.fields["content-range"])


def test_a_file_whose_client_leaves_is_closed(serve, folder, turns):
    peer = serve(folder).ask(get("/large"), reads=False)
    turns(3)

    peer.leave()
    turns(3)

    assert "closed" == peer.state  # an open file would be a ResourceWarning


# -- WebSocket, by Twisted's own


@pytest.fixture
def echo():
    """A resource that says what it is told, and hears when it is left."""
    from twisted.web.websocket import WebSocketResource

    class Echo:
        lost = None

        def negotiationStarted(self, transport):
            self.transport = transport

        def negotiationFinished(self):
            self.transport.sendTextMessage("welcome")

        def textMessageReceived(self, message):
            self.transport.sendTextMessage(f"you said {message}")

        def bytesMessageReceived(self, data): ...

        def pongReceived(self, payload): ...

        def connectionLost(self, reason):
            WebSocketEcho.lost += 1

    class WebSocketEcho:
        lost = 0

        def buildProtocol(self, request):
            return Echo()

    resource = WebSocketResource(WebSocketEcho())
    resource.isLeaf = True
    resource.told = WebSocketEcho
    return resource


def said(client, sent):
    client.receive_data(sent)
    return [event.data for event in client.events() if isinstance(event, TextMessage)]


@pytest.mark.parametrize("together", [True, False])
def test_a_websocket_is_spoken(serve, echo, together):
    served = serve(echo)
    peer = served.connected()
    client = WSConnection(ConnectionType.CLIENT)
    handshake = client.send(Request("a", "/"))

    if together:  # the frame is on its way before the handshake is answered
        peer.send(handshake + b"\x81\x85\0\0\0\0hello")
    else:
        peer.send(handshake)
        peer.send(b"\x81\x85\0\0\0\0hello")

    assert ["welcome", "you said hello"] == said(client, peer.sent)
    peer.leave()
    assert 1 == echo.told.lost


def test_a_websocket_is_spoken_behind_a_request_that_took_its_time(serve, echo):
    requests = []
    root = Resource()
    root.putChild(b"slow", Leaf(lambda request: requests.append(request) or NOT_DONE_YET))
    root.putChild(b"live", echo)
    peer = serve(root).connected()
    client = WSConnection(ConnectionType.CLIENT)

    peer.send(get("/slow") + client.send(Request("a", "/live")) + b"\x81\x85\0\0\0\0hello")
    requests[0].write(b"x")
    requests[0].finish()
    peer.settle()

    _, _, sent = peer.sent.partition(b"0\r\n\r\n")
    assert ["welcome", "you said hello"] == said(client, sent)


def test_a_broken_handshake_is_answered(serve, echo, flush_logged_errors):
    peer = serve(echo).ask(get("/", b"Upgrade: websocket", b"Connection: Upgrade") + GET)

    assert [400, 400] == peer.statuses
    flush_logged_errors()


# -- as Twisted's own


class Mixed(Resource):
    """Some of what resources do."""

    def __init__(self):
        super().__init__()
        self.putChild(b"", Leaf(lambda request: b"root"))
        self.putChild(b"echo", Leaf(lambda request: repr(sorted(request.args.items())).encode()))
        self.putChild(b"raises", Leaf(lambda request: 1 // 0))


def klein():
    from klein import Klein, Response
    from klein.interfaces import IKleinRequest
    from twisted.web.template import tags
    from werkzeug.exceptions import NotFound

    app = Klein()

    @app.route("/")
    def root(request):
        return "root"

    @app.route("/hello/<name>", methods=["GET"])
    def hello(request, name):
        request.setHeader(b"content-type", b"text/plain")
        return f"hello {name}"

    @app.route("/echo", methods=["POST"])
    def echo(request):
        return repr(sorted(request.args.items()))

    @app.route("/later")
    def later(request):
        later = Deferred()
        later.callback("later")
        return later

    @app.route("/streamed")
    def streamed(request):
        request.write(b"one")
        return b"two"

    @app.route("/moved")
    def moved(request):
        request.redirect(b"/elsewhere")

    @app.route("/none", methods=["GET"])
    def none(request):
        request.setResponseCode(204)

    @app.route("/missing")
    def missing(request):
        raise NotFound

    @app.route("/raises")
    def raises(request):
        return 1 // 0

    @app.route("/cookies")
    def cookies(request):
        request.addCookie("a", "b")
        request.addCookie("c", "d", secure=True)
        return b",".join(request.received_cookies)

    @app.route("/branch/", branch=True)
    def branch(request):
        return Mixed()

    @app.route("/coroutine/<int:number>")
    async def coroutine(request, number):
        return f"{number} \N{SNOWMAN}"

    @app.route("/coroutine/raises")
    async def coroutine_raises(request):
        raise KeyError("a")

    @app.route("/coroutine/breaks")
    async def coroutine_breaks(request):
        return 1 // 0

    @app.route("/given")
    def given(request):
        return Response(418, {"x": "y"}, "given")

    @app.route("/drawn")
    async def drawn(request):
        return tags.p("drawn")

    @app.route("/number")
    def number(request):
        return 7

    @app.route("/written")
    def written(request):
        request.write(b"written")
        request.finish()

    @app.route("/written/raises")
    def written_raises(request):
        request.finish()
        return 1 // 0

    @app.route("/written/says")
    def written_says(request):
        request.finish()
        return b"more"

    @app.route("/here/<path:rest>")
    def here(request, rest):
        known = IKleinRequest(request)
        links = [known.url_for("hello", {"name": "ann"}), known.url_for("later", force_external=True)]
        return repr((rest, request.prepath, request.postpath, links, known.mapper.match()))

    @app.route("/there/")
    async def there(request):
        await succeed(None)
        return Response(200, {}, IKleinRequest(request).url_for("coroutine", {"number": 3}))

    with app.subroute("/beneath") as beneath:

        @beneath.route("/<float:share>/of")
        def share(request, share):
            return repr((share, request.prepath, request.postpath))

    @app.handle_errors(KeyError)
    def excused(request, failure):
        request.setResponseCode(410)
        return f"excused {failure.value}"

    return app.resource()


class Bound:
    """An application whose handlers are methods."""

    def __init__(self):
        self.names = ["a"]

    def made(self):
        from klein import Klein

        app = Klein()

        @app.route("/")
        def root(self, request):
            return self.names[0]

        @app.handle_errors
        def excused(self, request, failure):
            return self.names[0] * 2

        type(self).app = app
        return self.app.resource()


def bound():
    return Bound().made()


SAME = {
    "a page": get("/"),
    "a page with a query": get("/?a=b&a=c"),
    "a parameter": get("/hello/Ann%20B"),
    "a wrong method": get("/echo"),
    "another wrong method": post(b"", path=b"/hello/a"),
    "a form": post(b"a=1&b=2&a=3", path=b"/echo"),
    "a form with files": post(
        multipart(b'Content-Disposition: form-data; name="a"\r\n\r\nb'), b"multipart/form-data; boundary=x", b"/echo"
    ),
    "a Deferred": get("/later"),
    "a stream": get("/streamed"),
    "a redirect": get("/moved"),
    "nothing": get("/none"),
    "what is missing": get("/missing"),
    "no route": get("/nowhere"),
    "what raises": get("/raises"),
    "cookies": get("/cookies", b"Cookie: x=1; y=2"),
    "a resource beneath": get("/branch/echo?a=b"),
    "HEAD": get("/").replace(b"GET", b"HEAD"),
    "HEAD of a stream": get("/streamed").replace(b"GET", b"HEAD"),
    "OPTIONS of *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT": get("/").replace(b"GET", b"PUT"),
    "a dot": get("/hello/../hello/b"),
    "two slashes": get("//hello/a"),
    "what is no UTF-8": get("/hello/%ff"),
    "chunks": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n",
    "a coroutine": get("/coroutine/7"),
    "a coroutine, by a slash too many": get("/coroutine/7/"),
    "a number that is none": get("/coroutine/x"),
    "an error that is handled": get("/coroutine/raises"),
    "an error that is not": get("/coroutine/breaks"),
    "a Response": get("/given"),
    "what is drawn": get("/drawn"),
    "a number": get("/number"),
    "what was written already": get("/written"),
    "what was written, and raises": get("/written/raises"),
    "what was written, and more": get("/written/says"),
    "where it is": get("/here/a/b"),
    "where it is, in the end": get("/there/?a=b"),
    "a slash too few": get("/there"),
    "a part of the application": get("/beneath/0.5/of"),
    "the last": get("/", b"Connection: close"),
    "blanks around a value": get("/cookies", b"Cookie: x=1; y=2 \t "),
}


@pytest.mark.parametrize("application", [klein, bound, Mixed])
@pytest.mark.parametrize("request_", SAME.values(), ids=SAME)
def test_an_application_is_answered_for_as_by_twisted(serve, peers, application, request_, flush_logged_errors):
    def answered(peer):
        method = request_.split(b" ")[0].decode()
        (reply,) = peer.replies(method)
        reply.fields.pop("date", None)
        return reply, peer.state

    ours = serve(application()).ask(request_)
    theirs = Served(application(), "twisted", peers, TwistedSite)
    theirs.site.displayTracebacks = False

    assert answered(theirs.ask(request_)) == answered(ours)
    flush_logged_errors()
    theirs.left[0].leave()


def klein_app():
    from klein import Klein

    return Klein()


def test_a_klein_route_that_comes_later_is_found(serve):
    app = klein_app()
    app.route("/one")(lambda request: b"one")
    served = serve(app.resource())
    before = served.ask(get("/two")).statuses

    app.route("/two")(lambda request: b"two")

    assert ([404], [b"two"]) == (before, [reply.body for reply in served.ask(get("/two")).replies()])


def test_a_klein_handler_that_waits_is_cancelled_when_its_client_leaves(serve):
    app, waiting, heard = klein_app(), [], []

    @app.route("/slow")
    def slow(request):
        waiting.append(Deferred(lambda _: heard.append("cancelled")))
        return waiting[0]

    peer = serve(app.resource()).ask(get("/slow"))
    before = list(heard)
    peer.leave()

    assert ([], ["cancelled"]) == (before, heard)


def test_a_klein_handler_that_answers_later_has_answered(serve):
    app, waiting = klein_app(), []

    @app.route("/slow/<int:number>")
    async def slow(request, number):
        waiting.append(Deferred())
        return f"{number} {await waiting[0]}"

    peer = serve(app.resource()).ask(get("/slow/3"))
    before = peer.sent
    waiting[0].callback("rooms")

    assert (b"", [b"3 rooms"]) == (before, [reply.body for reply in peer.replies()])


def test_a_klein_application_may_have_requests_of_its_own_kind(serve):
    app = klein_app()

    class Own(ServerRequest):
        """One's own."""

    @app.route("/<name>")
    def hello(request, name):
        from klein.interfaces import IKleinRequest

        return f"{type(request).__name__} {IKleinRequest(request).url_for('hello', {'name': name})}"

    peer = serve(app.resource(), requestFactory=Own).ask(get("/ann"))

    assert [b"Own /ann"] == [reply.body for reply in peer.replies()]
