"""Facts about connections on the loop's own transports, in a process whose reactor runs on uvloop."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
import os
import socket
from ropewalk.engine import Agent, Site, install
install()
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionRefusedError
from ropewalk.engine.native import accept_what_waits, accepting
from twisted.web.client import readBody
from twisted.web.resource import Resource

class Says(Resource):
    isLeaf = True

    def render(self, request):
        return f"{type(request.transport).__name__} {request.getClientAddress().host}".encode()

async def main():
    site = Site(Says(), reactor=reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = b"http://127.0.0.1:%d/" % port.getHost().port
    agent = Agent(reactor)
    for _ in range(2):
        print((await readBody(await agent.request(b"GET", url))).decode(), len(agent.pool._channels))
    await port.stopListening()
    await agent.pool.close()
    await site.server.wait_until_closed()
    try:
        await agent.request(b"GET", url)
    except ConnectionRefusedError as error:
        print("refused")
    print([call for call in reactor.getDelayedCalls() if "Deadlines" in str(call)])
    shared = socket.create_server(("127.0.0.1", 0))
    shared.setblocking(False)
    adopted = accepting(reactor.adoptStreamPort(shared.fileno(), socket.AF_INET, site), site, reactor)
    print("blocks" if os.get_blocking(shared.fileno()) else "does not block")
    await adopted.stopListening()
    port = reactor.listenTCP(0, site, 1000, "127.0.0.1")
    crowd = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(200)]
    accept_what_waits(port)
    print(len(site.server.channels))
    await port.stopListening()
    for client in crowd:
        client.close()
    await site.server.wait_until_closed()

ensureDeferred(main()).addErrback(lambda failure: failure.printTraceback()).addBoth(lambda _: reactor.stop())
reactor.run()
"""


@pytest.fixture(scope="module")
def said():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    return done.stdout.splitlines()


def test_requests_come_by_them_on_a_connection_that_is_kept(said):
    assert ["AsTwisted 127.0.0.1 1"] * 2 == said[:2]


def test_nobody_there_is_refused_as_by_twisted_and_nothing_is_left(said):
    assert ["refused", "[]"] == said[2:4]


def test_a_socket_that_is_shared_with_others_blocks_none_of_them_at_any_moment(said):
    assert ["does not block"] == said[4:5]


def test_all_of_a_crowd_that_waits_are_accepted_before_it_ends(said):
    assert ["200"] == said[5:]
