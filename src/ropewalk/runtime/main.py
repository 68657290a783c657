"""From a command line to a lifecycle service: which of the system's processes this one is, and how it is run."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, Logger

from ..driver import Driver
from ..telemetry.logs import start_logging
from .children import MARGIN, twistd
from .config import DATA, load
from .link import EX_CONFIG, Failed, literal
from .listeners import Listeners, wanted_by
from .parent import Parent, failure_of
from .placement import EVERYTHING, place


def process_service(
    target: str,
    *,
    port: int,
    process: str | None,
    data: Path | None,
    environment: Mapping[str, str],
    stream: TextIO,
    drain_delay: float | None = None,
    parent: Parent | None = None,
) -> IService:
    """What runs in this process: one named process of the system, or all of them in one; its supervisor, or a worker.

    Raises ConfigurationError when the configuration cannot be used.
    """
    config = load(target, environment)
    placement = place(config, port, together=process is None)
    name = process or EVERYTHING
    hosted = placement.hosted_by(name)  # refuses an unknown one
    worker = parent.given.worker if parent is not None else None
    json_lines = config.file.log.json_lines
    start_logging(
        stream,
        json=not stream.isatty() if json_lines is None else json_lines,
        now=time.time,
        level=config.file.log.level,
        extra={"process": name, "worker": str(worker)} if worker else {"process": name} if process else {},
        soon=Driver.of().loop.call_soon,
    )
    from twisted.internet import reactor

    data = data or config.folder / DATA
    drain_delay = config.file.drain.delay if drain_delay is None else drain_delay
    patience = drain_delay + config.file.drain.limit + MARGIN
    root = _Root()

    def could_not_start(error: BaseException) -> None:
        _give_up(reactor, parent, failure_of(error))

    # What a process does not need it does not load: a supervisor neither serves nor keeps anything.
    service: Any
    if placement.workers[name] > 1 and worker is None:
        from .supervisor import Supervisor

        service = Supervisor(
            name,
            placement.workers[name],
            twistd(target, process=process, port=port, data=data, drain_delay=drain_delay),
            Listeners(reactor, wanted_by(hosted), parent.sockets if parent is not None else ()),
            reactor,
            patience=patience,
            environment=environment,
            parent=parent,
            on_failure=lambda failed: _give_up(reactor, parent, failed),
        )
    elif parent is not None:
        from .worker import Worker

        service = Worker(
            config, placement, name, reactor, parent, data=data, drain_delay=drain_delay, on_failure=could_not_start
        )
    else:
        from .process import Process

        service = Process(
            config, placement, name, reactor, data=data, drain_delay=drain_delay, on_failure=could_not_start
        )
    service.setServiceParent(cast(Any, root))
    cast(Any, reactor).callWhenRunning(_collect_rarely)
    if parent is not None:
        parent.patience = patience
        parent.attach(reactor, lost=lambda: _orphaned(reactor, service))
    return cast(IService, root)


def _collect_rarely() -> None:
    """Let the collector look less often, and never at what was there before the first request.

    Each request that waits keeps some sixty objects. By the interpreter's own thresholds, thousands of them would be
    gone through again and again while more come.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


class _Root(MultiService):
    """What twistd runs. twistd's own log observer gives way: every event is one line, and that line is ours."""

    def setServiceParent(self, parent: Any) -> None:
        parent.setComponent(ILogObserver, lambda event: None)
        super().setServiceParent(parent)


def _give_up(reactor: Any, parent: Parent | None, failed: Failed) -> None:
    """End with a status a supervisor understands: 78 (EX_CONFIG), not worth another try, 75 or 1."""
    if parent is not None:
        parent.tell(failed)
    elif failed.status == EX_CONFIG:
        _log.error(literal(failed.line))
    # twistd itself would exit with 0; this is the last thing that runs.
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, failed.status)
    reactor.callLater(0, reactor.stop)


def _orphaned(reactor: Any, service: Any) -> None:
    """Whoever started this process is gone, and nobody will tell it to end."""
    _log.warn("the parent process is gone: this one drains and ends")
    if hasattr(service, "drain_delay"):
        service.drain_delay = 0.0  # whatever comes after it wants the same listeners
    reactor.callLater(0, reactor.stop)


_log = Logger("ropewalk.runtime")
