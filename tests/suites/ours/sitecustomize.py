"""Read by every Python whose PYTHONPATH names this folder, before anything else: Twisted's Site and Agent are ours.

ROPEWALK_SUITES_REPLACED says which of the two. Each connection of ours is noted in the file ROPEWALK_SUITES_TALLY, a line
for each and at once: the child process with httpbin is killed, and has no moment to say at its end how many it were.
"""

from __future__ import annotations

import os
from typing import Any

import treq.api  # noqa: F401  # takes Twisted's Agent before it is replaced: it asks it for Twisted's HTTPConnectionPool
from twisted.web import client, server

from ropewalk.engine import Agent, Site
from ropewalk.engine.channel import Channel
from ropewalk.engine.client import ClientChannel


def noted(kind: Any) -> None:
    """Let connections of this kind be noted."""
    made = kind.connection_made

    def connection_made(self: Any, transport: Any, peer: str = "") -> None:
        os.write(tally, f"{kind.__name__} {os.getpid()}\n".encode())  # one write: whole among those of other processes
        made(self, transport, peer)

    kind.connection_made = connection_made


tally = os.open(os.environ["ROPEWALK_SUITES_TALLY"], os.O_WRONLY | os.O_APPEND)
noted(Channel)
noted(ClientChannel)
replaced = os.environ["ROPEWALK_SUITES_REPLACED"].split()
if "Agent" in replaced:
    client.Agent = Agent
if "Site" in replaced:
    server.Site = Site
