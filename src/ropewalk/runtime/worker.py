"""A process that another one started: it accepts at sockets that are its parent's and tells it how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from .check import refuse_shared_files
from .config import Config
from .link import Draining, Loaded, Page, Ready
from .listeners import listen_at
from .parent import Parent
from .placement import Placement
from .process import Process
from .watch import loaded

LOOK = 1.0  # seconds between looks at what else was imported


class Worker(Process):
    """One of the workers of a process, or the one that `ropewalk up` started."""

    def __init__(
        self,
        config: Config,
        placement: Placement,
        process: str,
        reactor: Any,
        parent: Parent,
        *,
        data: Path,
        drain_delay: float | None = None,
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> None:
        """`parent` is attached; the rest as for Process."""
        super().__init__(
            config,
            placement,
            process,
            reactor,
            data=data,
            listen=self._listen_there,
            drain_delay=drain_delay,
            on_ready=self._serves,
            on_failure=on_failure,
            metrics=parent.pages if parent.given.worker is not None else None,
        )
        self._parent = parent
        self._known = 0
        self._look: Any = None
        parent.page = self.page

    async def _start(self) -> None:
        refuse_shared_files(self.config, str(self.name))
        await super()._start()

    def stopService(self) -> Deferred[None]:
        """Drain and close, with the parent's knowledge."""
        self._parent.tell(Draining())
        if self._look is not None and self._look.active():
            self._look.cancel()
        return super().stopService().addCallback(self._say_goodbye)

    def _say_goodbye(self, _: None) -> Deferred[None]:
        if self._parent.given.worker is not None:
            self._parent.tell(Page(self.counted().decode(), last=True))
        return self._parent.close()

    def _listen_there(self, site: Any, description: str) -> Deferred[Any]:
        if self._parent.has(description) or self._parent.given.worker is not None:
            return self._parent.listen(site, description)
        # An endpoint whose socket cannot be passed on.
        return listen_at(self.reactor, description, site)

    def _serves(self) -> None:
        self._parent.tell(Ready())
        if self._parent.given.watched:
            self._report_files()

    def _report_files(self) -> None:
        if len(sys.modules) != self._known:
            self._known = len(sys.modules)
            self._parent.tell(Loaded(loaded(self.config.folder, sys.modules.values())))
        self._look = self.reactor.callLater(LOOK, self._report_files)
