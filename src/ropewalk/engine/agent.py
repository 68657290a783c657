"""`Agent(reactor)`: an IAgent over our connections, for treq's `HTTPClient` and whoever else asks by URL."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    RequestGenerationFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IClientRequest,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from .client import Broken, ClientChannel, Head
from .heads import request_head
from .pool import CONNECT, Endpoints, Origin, Pool

AHEAD = 64 << 10  # bytes of a body that wait for somebody to read them


@implementer(IAgent)
class Agent:
    """See above. Redirects, cookies and contents are treq's affair."""

    def __init__(
        self,
        reactor: Any,
        contextFactory: IPolicyForHTTPS | None = None,
        connectTimeout: float | None = None,
        bindAddress: Any = None,
        pool: Pool | None = None,
    ) -> None:
        """The arguments of `twisted.web.client.Agent`, but that connections are kept unless `pool` says otherwise.

        `contextFactory`, `connectTimeout`, `bindAddress` and `pool`: whom https trusts, the platform's authorities
        unless it is given; seconds; where from; other connections than its own, whose affair the first three are then.
        Raises TypeError for Twisted's HTTPConnectionPool: what it keeps are Twisted's connections.
        """
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(
                f"An engine's Agent keeps connections in ropewalk.engine.pool.Pool, and in one of its own unless it is "
                f"given one; got {pool!r}. Leave it out, and close what is kept by `await agent.pool.close()`."
            )
        usual = contextFactory is None and connectTimeout is None and bindAddress is None
        timeout = CONNECT if connectTimeout is None else connectTimeout
        endpoints = None if usual else Endpoints(reactor, contextFactory, timeout, bindAddress)
        self.pool = pool if pool is not None else Pool(reactor, endpoints)

    @classmethod
    def usingEndpointFactory(
        cls, reactor: Any, endpointFactory: IAgentEndpointFactory, pool: Pool | None = None
    ) -> Agent:
        """One whose ways to servers are those of `endpointFactory`. Each connection is used once, as Twisted's is;
        `pool`: other connections than these.
        """

        def endpoint(server: Origin) -> Any:
            scheme, host, port = server.scheme.encode(), server.host.encode(), server.port
            return endpointFactory.endpointForURI(URI(scheme, b"%b:%d" % (host, port), host, port, b"/", b"", b"", b""))

        return cls(reactor, pool=pool if pool is not None else Pool(reactor, endpoint, kept=0))

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """As IAgent: fires with the reply's head. Fails as an endpoint does when there is no connection, with
        ResponseNeverReceived when it ends before the reply begins, RequestGenerationFailed when the producer fails,
        SchemeNotSupported for another URL than http:// and https://.
        """
        server, netloc, target = _parts(uri)
        asked = _Asked(method, uri, headers if headers is not None else Headers())
        exchange = _Exchange(asked, bodyProducer, netloc, target)
        channel = self.pool.peek(server)
        if channel is not None:
            exchange.begin(channel)
            return exchange.answer
        connecting = self.pool.connect(server)
        exchange.connecting = connecting
        connecting.addCallbacks(exchange.begin, exchange.unconnected)
        return exchange.answer


# The usual form, of which nothing has to be found out; `twisted.web` parses the others, which takes it longer.
_USUAL = re.compile(rb"(https?)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?((?:/[!-\"$-:<->@-~]*)(?:\?[!-\"$-~]+)?)?")


def _parts(uri: bytes) -> tuple[Origin, bytes, bytes]:
    """Where an URL leads: the server, what Host says of it, the request's target. Raises ValueError."""
    usual = _USUAL.fullmatch(uri)
    if usual is None:
        url = URI.fromBytes(uri)
        return Origin(url.scheme.decode("ascii"), url.host.decode("ascii"), url.port), url.netloc, url.originForm
    scheme, host, port, target = usual.groups()
    usual_port = 443 if scheme == b"https" else 80
    netloc = host if port is None else b"%b:%b" % (host, port)
    return Origin(scheme.decode(), host.decode(), int(port or usual_port)), netloc, target or b"/"


@implementer(IClientRequest)
class _Asked:
    def __init__(self, method: bytes, uri: bytes, headers: Headers) -> None:
        self.method = method
        self.absoluteURI = uri
        self.headers = headers


class _Exchange:
    """One request, and the Hearer of its reply."""

    connecting: Deferred[ClientChannel] | None = None

    def __init__(self, asked: _Asked, producer: IBodyProducer | None, netloc: bytes, target: bytes) -> None:
        """Raises ValueError for what would break out of the request's head."""
        self.answer: Deferred[IResponse] = Deferred(self._cancel)
        self._asked = asked
        self._producer: Any = producer
        self._head = self._headed(netloc, target)
        self._producing: Deferred[None] | None = None
        self._channel: ClientChannel | None = None
        self._response: Response | None = None

    def begin(self, channel: ClientChannel) -> None:
        """Ask over a connection."""
        self.connecting, self._channel = None, channel
        channel.ask(self._head, self, bodiless=self._asked.method == b"HEAD")
        if self._producer is not None:
            channel.producer = self._producer
            channel.sending = True
            self._producing = self._producer.startProducing(self)
            self._producing.addCallbacks(self._produced, self._not_produced)

    def unconnected(self, failure: Failure) -> None:
        """There is no connection."""
        self.connecting = None
        if not self.answer.called:
            self.answer.errback(failure)

    def _headed(self, netloc: bytes, target: bytes) -> bytes:
        asked, length = self._asked, self._producer.length if self._producer is not None else 0
        fields = [(name, value) for name, values in asked.headers.getAllRawHeaders() for value in values]
        named = {name.lower() for name, _ in fields}
        if b"host" not in named:
            fields.insert(0, (b"Host", netloc))
        self._chunked = length is UNKNOWN_LENGTH
        if self._chunked:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif length or asked.method in (b"POST", b"PUT", b"PATCH"):
            fields.append((b"Content-Length", b"%d" % length))
        return request_head(asked.method, target, fields)

    # -- the producer's consumer

    def write(self, data: bytes) -> None:
        """Some of the body."""
        if self._channel is not None and data:
            self._channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As IConsumer: an IBodyProducer is a push producer, and known already."""

    def unregisterProducer(self) -> None:
        """As IConsumer."""

    def _produced(self, _: Any) -> None:
        self._producing = None
        if self._channel is not None:
            if self._chunked:
                self._channel.write(b"0\r\n\r\n")
            self._channel.producer, self._channel.sending = None, False

    def _not_produced(self, failure: Failure) -> None:
        self._producing = None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abandon()
            if not self.answer.called:
                self.answer.errback(Failure(RequestGenerationFailed([failure])))
            elif self._response is not None:
                self._response.ends(Failure(ResponseFailed([failure], cast(Any, self._response))))

    # -- the reply's hearer

    def head(self, head: Head) -> None:
        """As Hearer."""
        self._response = Response(head, self._asked, cast(ClientChannel, self._channel))
        self.answer.callback(self._response)

    def chunk(self, data: bytes) -> None:
        """As Hearer."""
        cast(Response, self._response).comes(data)

    def complete(self) -> None:
        """As Hearer."""
        self._stop_producing()
        self._channel = None
        response = cast(Response, self._response)
        done = ResponseDone() if response.framed else PotentialDataLoss()
        response.ends(Failure(done))

    def failed(self, error: Broken) -> None:
        """As Hearer."""
        self._stop_producing()
        self._channel = None
        if self._response is None:
            self.answer.errback(Failure(ResponseNeverReceived([Failure(error)])))
        else:
            self._response.ends(Failure(ResponseFailed([Failure(error)], cast(Any, self._response))))

    def _cancel(self, answer: Deferred[IResponse]) -> None:
        if self.connecting is not None:
            self.connecting.cancel()  # which fails as it likes
            return
        channel, self._channel = self._channel, None
        self._stop_producing()
        if channel is not None:
            channel.abandon()
        answer.errback(Failure(ResponseNeverReceived([Failure(CancelledError())])))

    def _stop_producing(self) -> None:
        if self._producing is not None:
            self._producing = None
            self._producer.stopProducing()


@implementer(IResponse)
class Response:
    """A reply whose head has come."""

    previousResponse: IResponse | None = None

    def __init__(self, head: Head, request: Any, channel: ClientChannel) -> None:
        major, _, minor = head.version.partition(".")
        self.version = (b"HTTP", int(major), int(minor))
        self.code = head.status
        self.phrase = head.reason
        self.request = request
        self.headers = Headers()
        for name, value in head.fields:
            self.headers.addRawHeader(name, value)
        self.framed = not channel.until_close  # its end is known by more than that of the connection
        self.length: Any = UNKNOWN_LENGTH if head.length is None else head.length
        self._channel: ClientChannel | None = channel
        self._reader: Any = None
        self._waiting: list[bytes] = []
        self._size = 0  # bytes that wait
        self._held = False
        self._left = False  # the reader wants no more
        self._end: Failure | None = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """As IResponse: the one that sent us here."""
        self.previousResponse = response

    def deliverBody(self, protocol: Any) -> None:
        """As IResponse: `protocol` gets what has come, and the rest as it comes."""
        if self._reader is not None:
            raise RuntimeError("The body of this response is being read already.")
        self._reader = protocol
        protocol.makeConnection(_Body(self))
        waiting, self._waiting, self._size = self._waiting, [], 0
        end = self._end
        for data in waiting:
            if self._left:
                return
            protocol.dataReceived(data)
        if end is not None:
            protocol.connectionLost(end)
        elif not self._left:
            self.release()

    def comes(self, data: bytes) -> None:
        """A part of the body."""
        if self._reader is not None:
            self._reader.dataReceived(data)
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > AHEAD:
            self.hold()

    def ends(self, why: Failure) -> None:
        """There is no more."""
        self._channel, self._end = None, why
        if self._reader is not None:
            self._reader.connectionLost(why)

    def hold(self) -> None:
        """Let no more come for now."""
        if not self._held and self._channel is not None:
            self._held = True
            self._channel.transport.pause_reading()

    def release(self) -> None:
        """Let it come."""
        if self._held:
            self._held = False
            if self._channel is not None:
                self._channel.transport.resume_reading()

    def abandon(self) -> None:
        """Nobody wants the rest; the reader hears that it did not come, when the connection has ended."""
        if self._channel is not None:
            self._left = True
            self._channel.leave()


class _Body:
    """The transport of who reads a body."""

    __slots__ = ("_response",)

    disconnecting = False

    def __init__(self, response: Response) -> None:
        self._response = response

    def pauseProducing(self) -> None:
        self._response.hold()

    def resumeProducing(self) -> None:
        self._response.release()

    def loseConnection(self) -> None:
        self._response.abandon()

    abortConnection = stopProducing = loseConnection
