"""Calls from host to host without bytes: latency, partitions and crashes, and no HTTP. For speed, `wire="direct"`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..context import Context
from ..errors import Unavailable
from ..memory.connection import LocalConnection
from ..message import Request, Response
from ..service import describe
from .hosts import Reactor

if TYPE_CHECKING:
    from .instance import Instance


class Direct:
    """A Handler that asks another host without bytes: latency, partitions and crashes, and no HTTP."""

    def __init__(self, world: Any, reactor: Reactor, caller: str, address: str, callee: str) -> None:
        self._world = world
        self._reactor = reactor
        self._caller = caller
        self._host = world.host_at(address)
        self._callee = callee
        self._asked: Instance | None = None  # the process that answered last
        self._connected: LocalConnection

    def __call__(self, request: Request) -> Awaitable[Response]:
        client, server = self._reactor.host, self._host
        network = client.network
        answer: Deferred[Response] = Deferred(lambda _: self._lost(request, theirs))
        theirs: list[Deferred[Response]] = []

        def arrived() -> None:
            server.reactor.soon(asked)

        def asked() -> None:
            process = self._world.processes.get(server.name)
            if not server.up or process is None or not process.ready:
                network.send(server, client, lambda: self._reactor.answer(answer, Failure(self._unreachable("no"))))
                return
            reactor = server.reactor
            connection = self._connection_to(process)
            moved = request.replace(context=_moved(request.context, client.seconds(), server.seconds()))
            # Noted before it begins: it may die in its first step.
            self._world.direct[answer] = (
                reactor,
                client,
                lambda: self._reactor.answer(answer, Failure(self._unreachable("maybe"))),
            )
            running = reactor.call(process.driver.run, connection(moved))
            theirs.append(running)

            def done(outcome: Any) -> None:
                self._world.direct.pop(answer, None)
                if reactor.alive:
                    network.send(server, client, lambda: self._reactor.answer(answer, outcome))

            running.addBoth(done)

        network.send(client, server, arrived)
        return answer

    def _connection_to(self, process: Instance) -> LocalConnection:
        if self._asked is not process:
            service = process.services[self._callee]
            self._asked = process
            self._connected = LocalConnection(self._caller, describe(service), process.handler_of(self._callee))
        return self._connected

    def _lost(self, request: Request, theirs: list[Deferred[Response]]) -> None:
        if request.operation.cancellable and theirs and self._host.reactor.alive:
            theirs[0].cancel()

    def _unreachable(self, ran: Literal["no", "maybe"]) -> Unavailable:
        error = Unavailable(f"{self._callee} at {self._host.name} cannot be reached.")
        error.fault, error.ran = "network", ran
        return error


def _moved(context: Context, here: float, there: float) -> Context:
    """The context with its deadline on the other host's clock."""
    if context.deadline is None:
        return context
    return msgspec.structs.replace(context, deadline=there + (context.deadline - here))
