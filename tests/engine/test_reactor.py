"""Facts about our reactor: twistd knows it by its name, it runs on uvloop, and hears of every end."""

from __future__ import annotations

import subprocess
import sys

INSTALLED = """
from twisted.application.reactors import installReactor
installReactor("ropewalk")
from twisted.internet import reactor
print(type(reactor).__name__, isinstance(reactor._asyncioEventloop, __import__("uvloop").Loop))
"""
# Whoever sends more than is read at once, and a reset behind it.
RESET = """
import socket, struct
from ropewalk.engine import install
install()
from twisted.internet import protocol, reactor

class Reads(protocol.Protocol):
    read = 0

    def dataReceived(self, data):
        self.read += len(data)

    def connectionLost(self, reason):
        print(self.read > 65536, reason.type.__name__)
        late.cancel()
        reactor.stop()

def reset():
    client = socket.create_connection(("127.0.0.1", port.getHost().port))
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.send(bytes(1 << 20))
    client.close()

factory = protocol.Factory.forProtocol(Reads)
factory.noisy = False
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
reactor.callWhenRunning(reset)
late = reactor.callLater(20, reactor.stop)
reactor.run()
"""
STOPPED = """
from ropewalk.engine import install
install()
from twisted.internet import reactor
from twisted.internet.error import ReactorNotRunning

def twice():
    reactor.stop()
    reactor.stop()

reactor.callWhenRunning(twice)
reactor.run()
try:
    reactor.stop()
except ReactorNotRunning:
    print("it has ended")
"""


def said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    return done.stdout + done.stderr


def test_twistd_knows_it_by_its_name():
    assert "AsyncioSelectorReactor True\n" == said(INSTALLED)


def test_who_reads_hears_of_a_reset_behind_more_than_is_read_at_once():
    assert "True ConnectionLost\n" == said(RESET)


def test_it_is_stopped_once_and_not_after_its_end():
    assert "it has ended\n" == said(STOPPED)
