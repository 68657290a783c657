"""`python tests/driver_facts epoll|asyncio|uvloop` prints one JSON object: for each fact "", or why it is untrue there.

`test_driver.py` runs this once on each reactor.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import facts_of_awaiting  # noqa: F401  # imported, they are written into FACTS
import facts_of_cancelling  # noqa: F401
import facts_of_context  # noqa: F401
import facts_of_doors  # noqa: F401
import facts_of_errors  # noqa: F401
from telling import FACTS, driver, failures, take_failures, the_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogPublisher

LIMIT = 10  # seconds for one fact; none takes a tenth of one


async def told_of(facts: Iterable[tuple[str, Callable[..., Any]]]) -> dict[str, str]:
    """Twisted's own engine drives this, so that each plain fact is called as a callback is."""
    verdicts = {}
    for sentence, function in facts:
        verdicts[sentence] = ""
        try:
            made = contextvars.copy_context().run(function)
            running = driver().run(made) if asyncio.iscoroutine(made) else maybeDeferred(lambda made=made: made)
            await running.addTimeout(LIMIT, the_reactor())
        except BaseException:
            verdicts[sentence] = traceback.format_exc()
        for failure in take_failures():
            verdicts[sentence] += f"left in the log: {failure.getTraceback()}"
    return verdicts


def main(reactor_name: str) -> None:
    if reactor_name != "epoll":
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop() if reactor_name == "uvloop" else asyncio.new_event_loop())
    reactor = the_reactor()
    globalLogPublisher.addObserver(failures)
    gc.freeze()  # a collection after each fact then costs little
    facts = [(sentence, function) for sentence, (function, on) in FACTS.items() if reactor_name in on]

    def begin() -> None:
        told = Deferred.fromCoroutine(told_of(facts))
        told.addCallback(lambda verdicts: sys.stdout.write(json.dumps(verdicts)))
        told.addErrback(lambda failure: sys.stderr.write(failure.getTraceback()))
        told.addBoth(lambda _: reactor.stop())

    reactor.callLater(0, begin)
    reactor.run()
    if reactor_name != "epoll":
        driver().loop.close()


if __name__ == "__main__":
    main(sys.argv[1])
