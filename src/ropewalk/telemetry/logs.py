"""All that is logged, through one pipeline: twisted.logger, twisted.python.log, logging, warnings and structlog.

* `start_logging` begins it; each event becomes one line, with the service, operation, trace and request it belongs to.
* `request_line` is the line with which a served request ends.
* `humanise` shows a JSON line to people: for whoever merges the output of several processes.

Nobody who logs meets an error of this module: a line that cannot be written is counted, and the next one that can be
says how many there were.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TextIO, cast

import structlog
from twisted.logger import ILogObserver, Logger, LogLevel, formatEvent, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from ..context import Context, current_context
from ..errors import RopewalkError
from ..message import Request
from .lines import Entry, entry_of, entry_of_request, human_renderer, humanise, json_line, milliseconds

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_TWISTED = {LogLevel.debug: 10, LogLevel.info: 20, LogLevel.warn: 30, LogLevel.error: 40, LogLevel.critical: 50}
_LOG_LEVELS = {number: level for level, number in _TWISTED.items()}
_NAMES = {number: name for name, number in LEVELS.items()}
HELD = 256  # lines that wait for the end of a turn, at most

_requests = Logger("ropewalk.request")
_pipelines: list[_Pipeline] = []  # that run

# What Twisted says of itself, and at which level it is heard; None: never. By the event's format, or by the text of a
# legacy one.
_FORMATS: Mapping[str, int | None] = {
    "Starting factory {factory!r}": 10,  # for each connection of a client, too
    "Stopping factory {factory!r}": 10,
    "Timing out client: {peer}": 10,
    "Main loop terminated.": 10,
    "reactor class: {reactor}.": 10,
    "Unhandled error in Deferred:": None,  # the failure itself is the next event
    # twistd begins logging when we have begun already.
    "Warning: primary log target selected twice at <{fileNow}:{lineNow}> - previously selected at "
    "<{fileThen}:{lineThen}>.  Remove one of the calls to beginLoggingTo.": None,
}
_UNNAMED = {"twisted.internet.defer": "Unhandled error in Deferred"}  # what a failure without a message is called
_TEXTS: tuple[tuple[re.Pattern[str], int | None], ...] = (
    (re.compile(r'"[^"]*" - \S+ \[[^]]*\] "[^"]* HTTP/[^"]*" \d+ '), None),  # a Site's access log: see request_line
    (re.compile(r".* starting on \S+$"), 10),
    (re.compile(r"\(.*Port .* Closed\)$"), 10),
)
_LEGACY = frozenset(
    "message time system isError failure why format logLevel printed eventSource eventTransport".split()
)
_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))


def start_logging(
    stream: TextIO,
    *,
    json: bool,
    now: Callable[[], float],
    level: str = "info",
    extra: Mapping[str, str] = {},
    soon: Callable[[Callable[[], None]], object] | None = None,
) -> Callable[[], None]:
    """Begin: from now on each event at `level` or above is a line on `stream`; call what this returns to end it.

    `json`: for machines, else for people, with colours when the stream is a terminal and `NO_COLOR` is not set. `now`:
    seconds since 1970. `extra`: said in every line ({"process": "core"}). `soon`: what calls back at the end of the
    reactor's turn; the lines of the requests that ended in one turn are then written together. Raises ValueError for an
    unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"A log's level is one of {', '.join(LEVELS)}; got {level!r}.")
    colours = not os.environ.get("NO_COLOR") and stream.isatty()
    render = json_line if json else human_renderer(colours=colours)
    pipeline = _Pipeline(stream, render, now, LEVELS[level], extra, soon)
    undo = (_join_twisted(pipeline), _join_logging(pipeline), _join_warnings(pipeline), _join_structlog(pipeline))
    _pipelines.append(pipeline)

    def stop() -> None:
        if pipeline.ended:
            return
        pipeline.ended = True
        _pipelines.remove(pipeline)
        for step in reversed(undo):
            step()
        pipeline.close()

    return stop


def request_line(request: Request, status: int, outcome: str, seconds: float, error: BaseException | None) -> None:
    """Log how `request` ended: what `filters.observe` calls `done`.

    An exception that is no RopewalkError comes with its traceback, at "error"; other statuses of 500 and above at
    "warning", the rest at "info".
    """
    foreseen = error is None or isinstance(error, (RopewalkError, asyncio.CancelledError, GeneratorExit))
    level = 40 if not foreseen else 30 if status >= 500 else 20
    if _pipelines and foreseen:  # straight: what Twisted makes of an event costs more than the line
        for pipeline in _pipelines:
            if level >= pipeline.level:
                pipeline.request(level, request, status, outcome, seconds, error)
        return
    fields: dict[str, Any] = {"outcome": outcome, "status": status, "milliseconds": milliseconds(seconds)}
    if request.principal.service is not None:
        fields["caller"] = request.principal.service
    if request.attempt != 1:
        fields["attempt"] = request.attempt
    if error is not None:
        fields |= (
            {"log_error": error} if foreseen else {"log_failure": Failure(error, type(error), error.__traceback__)}
        )
    _requests.emit(_LOG_LEVELS[level], "request", log_context=request.context, **fields)


@implementer(ILogObserver)
class _Pipeline(logging.Handler):
    """Makes the lines and writes them. A `logging.Handler`, whose lock keeps the lines of two threads apart."""

    def __init__(
        self,
        stream: TextIO,
        render: Callable[[Entry], str],
        now: Callable[[], float],
        level: int,
        extra: Mapping[str, str],
        soon: Callable[[Callable[[], None]], object] | None,
    ) -> None:
        super().__init__(level)
        self._lock: Any = self.lock  # which keeps what the standard library logs apart, too
        self.ended = False
        self._soon = soon
        self._held: list[str] = []  # lines that are written at the end of the turn, or before the next other one
        self._stream = stream
        self._render = render
        self._now = now
        self._extra = dict(extra)
        self._lost = 0

    def statistics(self) -> dict[str, int]:
        """Lines that could not be written since the last that could."""
        return {"lost": self._lost}

    # -- where events come from

    def __call__(self, event: dict[str, Any]) -> None:
        """Events of twisted.logger, and through it those of twisted.python.log."""
        level = _TWISTED.get(event.get("log_level", LogLevel.info), 20)
        namespace = event.get("log_namespace", "")
        format = event.get("log_format") or ""
        heard = _heard(format, event, level)
        if heard is None or heard < self.level:
            return
        legacy = "isError" in event
        failure = event.get("log_failure") or (legacy and event.get("failure"))
        if legacy and failure:
            message = str(event.get("why") or "unnamed")  # its text would be all of the traceback
        else:
            message = formatEvent(event) if "{" in format else format or _UNNAMED.get(namespace, "unnamed")
        self._log(
            heard,
            message,
            logger="" if namespace == "log_legacy" else namespace,
            fields=(
                (name, value)
                for name, value in event.items()
                if not name.startswith("log_") and not (legacy and name in _LEGACY)
            ),
            error=_with_traceback(failure) if isinstance(failure, Failure) else event.get("log_error"),
            context=event.get("log_context"),
            with_traceback=bool(failure),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Events of the standard library's logging."""
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit; the handlers of the library print to stderr and go on, too
            message = f"{record.msg!r} with the arguments {record.args!r}"
        self._log(
            record.levelno,
            message,
            logger=record.name,
            fields=((name, value) for name, value in vars(record).items() if name not in _STANDARD),
            error=record.exc_info[1] if record.exc_info else None,
        )

    def warn(self, message: Warning | str, category: type[Warning], filename: str, lineno: int) -> None:
        """Warnings of the interpreter and of libraries."""
        fields = [("category", category.__name__), ("where", f"{filename}:{lineno}")]
        self._log(30, message, logger="warnings", fields=fields)

    def process(self, logger: Any, method: str, event: structlog.typing.EventDict) -> NoReturn:
        """The last of structlog's processors: nothing is left for a logger to do."""
        level = LEVELS.get(method, 40 if method == "exception" else 20)
        if level >= self.level:
            arguments = event.pop("positional_args", ())
            message = event.pop("event", None)
            try:
                message = message % arguments if arguments else message
            except Exception:
                message = f"{message!r} with the arguments {arguments!r}"
            error = event.pop("exc_info", None)
            if error is True:
                error = sys.exc_info()[1]
            elif isinstance(error, tuple):
                error = error[1]
            name = getattr(logger, "name", "")
            self._log(level, message, logger=name, fields=event.items(), error=error or None)
        raise structlog.DropEvent

    def request(
        self, level: int, request: Request, status: int, outcome: str, seconds: float, error: BaseException | None
    ) -> None:
        """How a request ended; in the reactor's thread."""
        try:
            line = self._render(
                entry_of_request(
                    self._now(),
                    _NAMES[level],
                    logger="ropewalk.request",
                    constant=self._extra,
                    request=request,
                    status=status,
                    outcome=outcome,
                    seconds=seconds,
                    error=error,
                )
            )
        except Exception as failed:
            line = _hole(failed)
        self._write(line, waits=self._soon is not None)

    # -- where they go

    def _log(
        self,
        level: int,
        event: object,
        *,
        logger: str,
        fields: Any,
        error: BaseException | None = None,
        context: Context | None = None,
        with_traceback: bool = True,
    ) -> None:
        try:
            name = _NAMES.get(level) or _NAMES[max(10, min(50, level // 10 * 10))]
            if context is None:
                context = current_context()
            moment = self._now()
            line = self._render(
                entry_of(
                    moment,
                    name,
                    event,
                    logger=logger,
                    constant=self._extra,
                    context=context,
                    fields=fields,
                    error=error,
                    with_traceback=with_traceback,
                )
            )
        except Exception as failed:
            line = _hole(failed)
        self._write(line)

    def _write(self, line: str, *, waits: bool = False) -> None:
        with self._lock:
            held = self._held
            held.append(line)
            if not waits or len(held) >= HELD:
                self.flush()
            elif len(held) == 1 and self._soon is not None:
                self._soon(self.flush)

    def flush(self) -> None:
        """Write what is held; the standard library calls it, too, when the interpreter ends."""
        with self._lock:
            lines, self._held = self._held, []
            if not lines:
                return
            lost, self._lost = self._lost, 0
            if lost:
                lines.insert(0, self._render(self._entry_of_loss(lost)))
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except Exception:  # closed, full, gone: there is nobody to tell now
                self._lost = lost + len(lines) - (lost > 0)

    def close(self) -> None:
        """Write what is held, and no more."""
        self.flush()
        super().close()

    def _entry_of_loss(self, lost: int) -> Entry:
        return entry_of(
            self._now(),
            "error",
            "log.lost",
            logger="ropewalk.logs",
            constant=self._extra,
            context=Context(),
            fields=[("lines", lost)],
            error=None,
        )


def _hole(failed: Exception) -> str:
    """A hole in what makes lines: the event is named all the same."""
    return f'{{"level":"error","event":"log.failed","error":{{"type":"{type(failed).__name__}"}}}}'


def _heard(format: str, event: Mapping[str, Any], level: int) -> int | None:
    """The level at which one of Twisted's own events is heard, None for never."""
    if format in ("{log_text}", "{log_io}"):
        text = str(event.get("log_text") or event.get("log_io") or "")
        for pattern, heard in _TEXTS:
            if pattern.match(text):
                return heard
        return level
    return _FORMATS.get(format, level)


def _with_traceback(failure: Failure) -> BaseException:
    error = cast(BaseException, failure.value)
    return error if failure.tb is None or error.__traceback__ is not None else error.with_traceback(failure.tb)


# -- joining the sources; each function returns how to part them again


def _join_twisted(pipeline: _Pipeline) -> Callable[[], None]:
    # Until it has begun, Twisted keeps events for whoever comes, and prints the critical ones. There is no other way to
    # know than to look; to begin twice would be warned about.
    if globalLogBeginner._temporaryObserver is not None:
        showwarning = warnings.showwarning
        globalLogBeginner.beginLoggingTo([pipeline], redirectStandardIO=False)
        warnings.showwarning = showwarning
    else:
        globalLogPublisher.addObserver(pipeline)
    return lambda: globalLogPublisher.removeObserver(pipeline)


def _join_logging(pipeline: _Pipeline) -> Callable[[], None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # The only handler: another one would print the same line a second time.
    root.handlers[:] = [pipeline]
    root.setLevel(pipeline.level)

    def part() -> None:
        root.handlers[:] = handlers + [other for other in root.handlers if other is not pipeline]
        root.setLevel(level)

    return part


def _join_warnings(pipeline: _Pipeline) -> Callable[[], None]:
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            before(message, category, filename, lineno, file, line)
        else:
            pipeline.warn(message, category, filename, lineno)

    warnings.showwarning = show

    def part() -> None:
        warnings.showwarning = before

    return part


def _join_structlog(pipeline: _Pipeline) -> Callable[[], None]:
    was_configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            pipeline.process,
        ],
        # Leaves positional arguments to be formatted here, where it cannot fail.
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )

    def part() -> None:
        if was_configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()

    return part


__all__ = ["humanise", "request_line", "start_logging"]
