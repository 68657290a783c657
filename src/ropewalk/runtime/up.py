"""The whole system on this machine: `ropewalk up`. One real `twistd ropewalk` for each process, one log of them all.

* It opens the listeners of all of them and keeps them, so that a restart refuses no connection.
* A process whose loaded source changed is restarted; one that cannot start stays down until the next change.
* One that crashes is started again, later each time it happens in a row; so is one whose database or broker is away.
* Ctrl-C or SIGTERM ends them in order; once more kills them. When this process is killed, they end by themselves.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, TextIO

from twisted.internet.defer import DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..driver import Driver
from ..errors import ConfigurationError
from ..policy.backoff import Backoff, Streak, began
from ..policy.backoff import failed as failed_again
from ..telemetry.logs import humanise, start_logging
from .children import MARGIN, Child, End, twistd
from .clock import Clock
from .config import DATA, Config, load
from .data import prepare
from .link import EX_CONFIG, EX_TEMPFAIL, Failed, FromChild, Given, Kill, Loaded, Ready, literal
from .listeners import Listeners, wanted_by
from .placement import Placement, place, url_of
from .watch import Seen, changed, look, sources

POLL = 0.5  # seconds between looks at the sources
WORTH_WAITING = 1.0  # seconds: about what a restart takes, during which connections wait
LAST_RESORT = 2.0  # seconds a supervisor has to kill its workers, before it is killed itself


def run(
    target: str,
    *,
    port: int,
    data: Path | None,
    fresh: bool,
    as_json: bool,
    stream: TextIO,
    environment: Mapping[str, str],
) -> int:
    """Run until a signal ends it; the exit status. `stream` is where the log goes.

    Raises ConfigurationError when the configuration cannot be used.
    """
    from twisted.internet import reactor

    config = load(target, environment)
    folder = (data or config.folder / DATA).absolute()
    prepare(folder, fresh=fresh, port=port)
    stop_logging = start_logging(
        stream, json=as_json, now=time.time, level=config.file.log.level, extra={"process": "up"}
    )
    up = Up(
        config,
        reactor,
        port=port,
        data=folder,
        show=partial(_show, stream, as_json=as_json, colours=stream.isatty() and not environment.get("NO_COLOR")),
        announce=partial(_announce, stream, as_json=as_json),
        environment=environment,
    )
    any_reactor: Any = reactor
    any_reactor.callWhenRunning(up.begin)
    any_reactor.run()
    stop_logging()
    if up.refused is not None and up.status == EX_CONFIG:
        raise ConfigurationError(up.refused)
    return up.status


class Up:
    """The processes of one system, from none to none."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        port: int,
        data: Path,
        show: Callable[[str, bytes], None],
        announce: Callable[[Config, Placement, Path], None],
        environment: Mapping[str, str],
        backoff: Backoff | None = None,
        random: Random | None = None,
    ) -> None:
        """`show(process, line)` what a process printed; `announce(...)` is called once, when all of them serve."""
        self.status = 0
        self.refused: str | None = None  # why it ended before it was up
        self.stopping = False
        self.reactor = reactor
        self.clock = Clock(reactor)
        self.driver = Driver.of(reactor)
        self.data = data
        self.port = port
        self.show = show
        # Lines for machines, which this process turns into what is asked for; and what a service prints, at once.
        self.environment = {**environment, "ROPEWALK_LOG__JSON_LINES": "true", "PYTHONUNBUFFERED": "1"}
        self.backoff = backoff or Backoff()
        self.random = random or SystemRandom()
        self._config = config
        self._placement = place(config, port)
        self.patience = config.file.drain.limit + MARGIN
        self._announce = announce
        self._announced = False
        self._members = [_Member(self, name, config, self._placement) for name in self._placement.processes]
        self._seen: Seen = {}
        self._before: Seen = {}
        self._poll: Any = None

    # -- beginning and end

    def begin(self) -> None:
        """Open the listeners and start the processes. The reactor runs."""
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda number, frame: self.reactor.callFromThread(self.interrupt))
        self.driver.run(self._begin()).addErrback(self._failed)

    async def _begin(self) -> None:
        # Before any process reads them: what changes while one starts has changed, whichever of the two it loaded.
        self._seen = look([*sources(self._config.folder), self._system])
        for member in self._members:
            await member.listeners.open()  # all of them before any process: a port in use ends it here
        for member in self._members:
            await member.begin()
        self._look()

    def interrupt(self) -> None:
        """A signal: end in order; the second one: end now."""
        if self.stopping:
            for member in self._members:
                member.kill()
            return
        _log.info("ending; once more kills")
        self.stop(0)

    def stop(self, status: int) -> None:
        """End all processes in order, and then this one with `status`."""
        if not self.stopping:
            self.stopping = True
            self.status = status
            self.driver.run(self._stop()).addErrback(_log_failure).addBoth(lambda _: self.reactor.stop())

    async def _stop(self) -> None:
        if self._poll is not None and self._poll.active():
            self._poll.cancel()
        for member in self._members:
            await member.listeners.close()
        await DeferredList([gone for member in self._members for gone in member.end()])

    def refuse(self, status: int, line: str) -> None:
        """It cannot be brought up."""
        if self.refused is None and not self.stopping:
            self.refused = line
            if status != EX_CONFIG:  # else the command says it, at the very end
                _log.error(literal(line))
            self.stop(status)

    def _failed(self, failure: Failure) -> None:
        if failure.check(ConfigurationError):
            self.refuse(EX_CONFIG, failure.getErrorMessage())
        else:
            _log_failure(failure)
            self.stop(1)

    # -- what its processes tell

    @property
    def announced(self) -> bool:
        """Whether all of them served once."""
        return self._announced

    def serves(self) -> None:
        """One more process does."""
        if not self._announced and all(member.serves for member in self._members):
            self._announced = True
            self._announce(self._config, self._placement, self.data)

    # -- what changes

    def _look(self) -> None:
        self._poll = self.reactor.callLater(POLL, self._look)
        files = {file for member in self._members for file in member.files}
        if any(member.down for member in self._members):
            files.update(sources(self._config.folder))
        system = self._system
        now = look([*sorted(files), system])
        self._seen = {**now, **self._seen}  # a file that is new since then is as it was loaded
        before, self._before = self._before, now
        found = changed(self._seen, now)
        if not found or changed(before, now):  # several files may be on their way: act when it has calmed down
            return
        self._seen = {**self._seen, **now}
        if system in found and not self._read_again():
            return
        for member in self._members:
            concerned = [file for file in found if file == system or member.down or file in member.files]
            if concerned:
                names = ", ".join(Path(file).name for file in concerned[:3])
                more = f" and {len(concerned) - 3} more" if len(concerned) > 3 else ""
                _log.info(literal(f"{names}{more} changed: {member.name} restarts"))
                member.restart()

    @property
    def _system(self) -> str:
        return str(self._config.folder / Path(self._config.target).name)

    def _read_again(self) -> bool:
        """Whether the processes may be restarted with the system file as it is now."""
        try:
            config = load(self._config.target, self.environment)
            same = place(config, self.port) == self._placement
        except ConfigurationError as error:
            _log.error(literal(f"{str(error).rstrip('.')}; the system stays as it is"))
            return False
        if not same:
            _log.warn("the system file now says otherwise what runs where; end this and start it again for that")
        return same


class _Member:
    """One process of the system: its listeners, and the child that runs it, if one does."""

    def __init__(self, up: Up, name: str, config: Config, placement: Placement) -> None:
        self.name = name
        self.files: tuple[str, ...] = ()  # it loaded, in this life or the one before
        self.down = False  # it cannot start as its source is
        self.listeners = Listeners(up.reactor, wanted_by(placement.hosted_by(name)), all_of_them=False)
        self._up = up
        self._command = twistd(
            config.target,
            process=name if config.file.processes else None,
            port=up.port,
            data=up.data,
            drain_delay=0.0,
        )
        self._supervises = placement.workers[name] > 1
        self._child: Child | None = None
        self._served = False  # some child of it has
        self._streak = Streak()
        self._timer: Any = None

    @property
    def serves(self) -> bool:
        """Whether it does, now."""
        return self._child is not None and self._child.ready

    # -- what is done with it

    async def begin(self) -> None:
        """Start it; the listeners are opened unless they are."""
        self.down = False
        if not self.listeners.descriptors:
            await self.listeners.open()
        if self._child is not None or self._up.stopping:  # while they were opened
            return
        child = Child(self.name, self._up.reactor, said=self._said, ended=self._ended, printed=self._printed)
        given = Given(listeners=self.listeners.descriptions, watched=True)
        child.start(self._command, self._up.environment, given, self.listeners.descriptors)
        self._streak = began(self._streak, self._up.clock.seconds())
        self._child = child

    def restart(self) -> None:
        """Start it as its source is now; what runs is ended first, in order."""
        if self._child is not None:
            self._child.drain(self._up.patience)
        else:
            self._begin_again()

    def end(self) -> list[Any]:
        """End it in order; what fires when it has."""
        self._cancel()
        if self._child is None:
            return []
        self._child.drain(self._up.patience)
        return [self._child.gone]

    def kill(self) -> None:
        """End it now, and what it has started."""
        child = self._child
        if child is None:
            return
        if self._supervises:
            child.tell(Kill())
            self._timer = self._up.reactor.callLater(LAST_RESORT, child.kill)
        else:
            child.kill()

    # -- what it tells

    def _printed(self, child: Child, line: bytes) -> None:
        try:
            self._up.show(self.name, line)
        except OSError:  # nobody reads it any more, as behind `| head`
            self._up.stop(1)

    def _said(self, child: Child, message: FromChild) -> None:
        match message:
            case Ready():
                self._served = True
                self._up.serves()
            case Loaded(files):
                self.files = files

    def _ended(self, child: Child, end: End) -> None:
        self._child = None
        self._cancel()
        up = self._up
        if up.stopping:
            return
        if child.told_to_drain:
            self._begin_again()
        elif child.served and child.draining:  # somebody else told it
            _log.info(literal(f"{self.name} has drained; it starts again"))
            self._begin_again()
        elif child.served or end.status is None:
            self._begin_later(str(end))
        elif child.failed is not None and child.failed.status == EX_TEMPFAIL and self._served:
            self._begin_later(child.failed.line)  # a server that is away now: it was there before
        else:  # its source is wrong, and will be as wrong the next time
            failed = child.failed or Failed(1, f"it ended with {end} before it served")
            self._stay_down(failed)

    def _stay_down(self, failed: Failed) -> None:
        up = self._up
        if not up.announced:
            up.refuse(failed.status, f"{self.name} could not start: {failed.line}")
            return
        self.down = True
        _log.error(literal(f"{self.name} could not start and is down until a file changes: {failed.line}"))
        self._refuse_callers()

    def _begin_later(self, why: str) -> None:
        up = self._up
        self._streak, delay = failed_again(up.backoff, self._streak, up.clock.seconds(), up.random.random())
        _log.warn(literal(f"{self.name} ended ({why}); it starts again in {delay:.2f} s"))
        self._timer = up.reactor.callLater(delay, self._begin_again)
        if delay >= WORTH_WAITING:
            self._refuse_callers()

    def _refuse_callers(self) -> None:
        """Who calls it is told at once that it is down, instead of waiting for nobody."""
        self._up.driver.run(self.listeners.close()).addErrback(_log_failure)

    def _begin_again(self) -> None:
        self._cancel()
        self._up.driver.run(self.begin()).addErrback(self._could_not_begin)

    def _could_not_begin(self, failure: Failure) -> None:
        if failure.check(ConfigurationError, OSError):  # somebody took the port meanwhile; no more processes
            self._begin_later(failure.getErrorMessage())
        else:
            _log_failure(failure)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


# -- what people see


def _show(stream: TextIO, process: str, line: bytes, *, as_json: bool, colours: bool) -> None:
    """One line of a process's output."""
    if not as_json:
        _write(stream, humanise(line, process=process, colours=colours))
    elif line.startswith(b"{"):
        _write(stream, line.decode("utf-8", "backslashreplace"))
    else:
        _log.info(literal(line.decode("utf-8", "backslashreplace")), of=process)


def _announce(stream: TextIO, config: Config, placement: Placement, data: Path, *, as_json: bool) -> None:
    """What is where, now that it is up."""
    rows = [
        (
            each.service,
            each.urls[0] or each.listen,
            each.urls[0] and f"{each.urls[0]}/docs",
            (url_of(each.public) or each.public) if each.public is not None else "",
        )
        for each in placement.places.values()
    ]
    if as_json:
        services = [dict(zip(("service", "internal", "docs", "public"), row, strict=True)) for row in rows]
        _log.info("up", services=services, data=str(data))
        return
    _write(stream, table((("service", "internal", "docs", "public"), *rows)))
    _write(stream, f"{config.file.system.name} is up. Its data lies in {data}. Ctrl-C ends it.\n")


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as columns, between empty lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n" + "\n".join(lines) + "\n"


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _log_failure(failure: Failure) -> None:
    _log.failure("`ropewalk up` failed", failure)


_log = Logger("ropewalk.up")
