"""Runs Twisted's own tests of reactors on one: `python reactors.py REACTOR FILE` writes to FILE how each test ended.

REACTOR: "twisted" is its asyncio reactor on asyncio's loop, "ours" is the engine's. The tests are those of the classes
that ReactorBuilder makes for each reactor it knows, here for that one; and, of a port, those for what the engine's
listens on for a Site.
"""

from __future__ import annotations

import asyncio
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import twisted.internet.test
from outcomes import write
from twisted.internet import asyncioreactor
from twisted.internet.test import reactormixins
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.trial.runner import TestLoader, TestSuite
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from ropewalk.engine import Site
from ropewalk.engine.loop import Loop
from ropewalk.engine.reactor import made_ours


def made(case: Any, loop: Any) -> Any:
    """A reactor for a test, which ends with it."""
    before = asyncio.get_event_loop()
    asyncio.set_event_loop(loop)
    case.addCleanup(asyncio.set_event_loop, before)
    case.addCleanup(loop.close)
    return asyncioreactor.AsyncioSelectorReactor(loop)


REACTORS = {
    "twisted": lambda case: made(case, asyncio.new_event_loop()),
    "ours": lambda case: made_ours(made(case, Loop())),
}


# Those of a port that do not speak of its protocols.
OF_SITES = (
    "test_connectionLostLogMsg",
    "test_portGetHostOnIPv4",
    "test_portGetHostOnIPv6",
    "test_portGetHostOnIPv6ScopeID",
    "test_startedListeningLogMessage",
)


def suite() -> Any:
    """All of them."""
    found = TestSuite()
    for module in sorted(pkgutil.iter_modules(twisted.internet.test.__path__), key=lambda module: module.name):
        if module.name.startswith("test_"):
            names = vars(import_module(f"twisted.internet.test.{module.name}"))
            for _, case in sorted(names.items()):
                if (
                    isinstance(case, type)
                    and issubclass(case, ReactorBuilder)
                    and issubclass(case, SynchronousTestCase)
                ):
                    found.addTest(TestLoader().loadClass(case))
    for case in site_port().makeTestCaseClasses().values():
        found.addTests(case(name) for name in OF_SITES)
    return found


def site_port() -> type[ReactorBuilder]:
    """The tests of a port, which a Site listens on."""
    from twisted.internet.test.test_tcp import TCPPortTestsBuilder  # it makes its tests when it is imported

    class SitePort(TCPPortTestsBuilder):
        def getListeningPort(self, reactor: Any, factory: Any, port: int = 0, interface: str = "") -> Any:
            site = Site(Resource(), reactor=reactor)
            if hasattr(factory, "logPrefix"):
                site.logPrefix = factory.logPrefix
            return reactor.listenTCP(port, site, interface=interface)

    return SitePort


def main(reactor: str, path: str) -> None:
    """Exits with 0 however the tests ended."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    # Named as it is found by, before the modules with its tests are read.
    reactormixins.TheReactor = REACTORS[reactor]  # type: ignore[attr-defined]
    ReactorBuilder._reactors = ["twisted.internet.test.reactormixins.TheReactor"]
    write(suite(), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
