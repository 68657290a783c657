"""All that is logged is one line in one form, with the context it belongs to, whichever library was used."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock as VirtualReactor
from twisted.logger import Logger, LogLevel, globalLogBeginner, globalLogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.web.http import combinedLogFormatter
from twisted.web.resource import Resource
from twisted.web.server import Site

from ropewalk import Service, Unavailable, bound, get
from ropewalk.context import Context, Trace, enter_context
from ropewalk.dispatch import dispatch
from ropewalk.driver import Driver
from ropewalk.errors import Conflict, NotFound
from ropewalk.filters.observe import Observe
from ropewalk.handler import compose
from ropewalk.message import Principal, Request
from ropewalk.runtime.clock import Clock
from ropewalk.service import describe
from ropewalk.telemetry.logs import HELD, humanise, request_line, start_logging
from ropewalk.telemetry.metrics import Calls

MOMENT = 1767225600.0  # 2026-01-01T00:00:00Z
HEAD = {"time": "2026-01-01T00:00:00.000Z"}
CHARGE = Context(trace=Trace("a1" * 16, "b2" * 8), request_id="r-77", service="payments", operation="payments.charge")
IN_CHARGE = {
    "service": "payments",
    "operation": "payments.charge",
    "trace_id": "a1" * 16,
    "span_id": "b2" * 8,
    "request_id": "r-77",
}

Start = Callable[..., Callable[[], None]]


class Written(io.StringIO):
    """A stream, and what a reader of JSON lines has found in it."""

    tty = False

    def isatty(self) -> bool:
        return self.tty

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return {name: value for name, value in line.items() if (name, value) not in HEAD.items()}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start_logging` at a fixed time, undone after the test."""
    if globalLogBeginner._temporaryObserver is not None:
        # What earlier tests logged is not for this one; and the interpreter's way to warn stays as it was.
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    undo: list[Callable[[], None]] = []

    def start(stream: Any, *, json: bool = True, **options: Any) -> Callable[[], None]:
        stop = start_logging(stream, json=json, now=lambda: MOMENT, **options)
        undo.append(stop)
        return stop

    yield start
    for stop in reversed(undo):
        stop()


@pytest.fixture
def written(start: Start) -> Written:
    """A stream to which everything of `info` and above is logged as JSON."""
    stream = Written()
    start(stream)
    return stream


class Operation:
    id = "payments.charge"
    idempotent = False
    cancellable = False
    access = "siblings"
    scopes: frozenset[str] = frozenset()


def request(**changes: Any) -> Request:
    return Request(Operation(), {}, CHARGE).replace(**changes)


# -- the sources


def test_an_event_of_twisteds_logger_has_its_message_and_its_fields(written):
    Logger("hotel.desk").warn("{guest} held room {room}", guest="Ann", room=12)

    assert written.line() == {
        "level": "warning",
        "event": "Ann held room 12",
        "logger": "hotel.desk",
        "guest": "Ann",
        "room": 12,
    }


def test_a_constant_name_is_the_event(written):
    Logger("hotel.desk").info("room.held", room=12)

    assert written.line() == {"level": "info", "event": "room.held", "logger": "hotel.desk", "room": 12}


def test_a_failure_of_twisteds_logger_comes_with_its_traceback(written, flush_logged_errors):
    try:
        {}["room"]
    except KeyError:
        Logger("hotel.desk").failure("no such room")

    line = written.line()
    error = line.pop("error")
    assert line == {"level": "critical", "event": "no such room", "logger": "hotel.desk"}
    assert (error["type"], error["message"]) == ("KeyError", "'room'")
    assert error["traceback"].endswith("\nKeyError: 'room'")
    assert len(flush_logged_errors(KeyError)) == 1


def test_a_deferred_that_took_its_failure_to_the_grave_is_a_line(written, flush_logged_errors):
    deferred: Deferred[None] = Deferred()
    deferred.errback(KeyError("room"))
    del deferred

    assert len(flush_logged_errors(KeyError)) == 1
    line = written.line()
    assert (line["level"], line["event"]) == ("critical", "Unhandled error in Deferred")
    assert line["error"]["type"] == "KeyError"


def test_a_legacy_event_of_twisted_is_a_line(written):
    legacy.msg("a guest", "came", room=12)

    assert written.line() == {"level": "info", "event": "a guest came", "room": 12}


def test_a_legacy_error_of_twisted_says_why_once_and_its_traceback_once(written, flush_logged_errors):
    try:
        {}["room"]
    except KeyError:
        legacy.err(None, "no such room")

    line = written.line()
    error = line.pop("error")
    assert line == {"level": "critical", "event": "no such room"}
    assert (error["type"], error["traceback"].count("Traceback")) == ("KeyError", 1)
    flush_logged_errors(KeyError)


def test_a_record_of_the_standard_library_is_a_line(written):
    logging.getLogger("lib.pool").warning("%d of %d used", 9, 10, extra={"pool": "db"})

    assert written.line() == {"level": "warning", "event": "9 of 10 used", "logger": "lib.pool", "pool": "db"}


def test_an_exception_of_the_standard_library_comes_with_its_traceback(written):
    try:
        {}["room"]
    except KeyError:
        logging.getLogger("lib").exception("failed")

    line = written.line()
    assert (line["level"], line["event"], line["error"]["type"]) == ("error", "failed", "KeyError")


def test_a_warning_is_a_line(written):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("old", DeprecationWarning, "hotel.py", 7)

    assert written.line() == {
        "level": "warning",
        "event": "old",
        "logger": "warnings",
        "category": "DeprecationWarning",
        "where": "hotel.py:7",
    }


def test_a_warning_that_is_meant_for_a_file_goes_to_that_file(start, monkeypatch):
    shown: list[Any] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *given: shown.append(given))
    stream, file = Written(), io.StringIO()
    stop = start(stream)

    warnings.showwarning("old", DeprecationWarning, "hotel.py", 7, file)
    stop()

    assert shown == [("old", DeprecationWarning, "hotel.py", 7, file, None)]
    assert stream.getvalue() == ""


def test_a_logger_of_structlog_writes_the_same_lines(written):
    structlog.get_logger("hotel.desk").bind(guest="Ann").info("held %s", "12", room=12)

    assert written.line() == {
        "level": "info",
        "event": "held 12",
        "logger": "hotel.desk",
        "guest": "Ann",
        "room": 12,
    }


def test_what_is_bound_to_structlogs_context_is_in_its_lines(written):
    with structlog.contextvars.bound_contextvars(guest="Ann"):
        structlog.get_logger("hotel").warning("held")

    assert written.line() == {"level": "warning", "event": "held", "logger": "hotel", "guest": "Ann"}


def test_an_exception_of_structlog_comes_with_its_traceback(written):
    try:
        {}["room"]
    except KeyError as error:
        structlog.get_logger("hotel").exception("failed")
        structlog.get_logger("hotel").error("failed", exc_info=error)
        structlog.get_logger("hotel").error("failed", exc_info=sys.exc_info())

    assert [(line["level"], line["event"], line["error"]["type"]) for line in written.lines()] == [
        ("error", "failed", "KeyError")
    ] * 3


def test_a_logger_of_structlog_can_be_awaited(written):
    Driver.of(VirtualReactor()).run(as_operation(lambda: None))
    reactor = VirtualReactor()

    async def operation() -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor = lambda _, function: done(function())  # type: ignore[method-assign]
        await structlog.get_logger("hotel").ainfo("held", room=12)

    async def done(value: Any) -> Any:
        return value

    Driver.of(reactor).run(operation())

    assert written.line() == {"level": "info", "event": "held", "logger": "hotel", "room": 12}


# -- the context


async def as_operation(function: Callable[[], Any], context: Context = CHARGE) -> Any:
    enter_context(context)
    return function()


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(lambda: Logger("x").info("held"), id="twisted.logger"),
        pytest.param(lambda: legacy.msg("held"), id="twisted.python.log"),
        pytest.param(lambda: logging.getLogger("x").info("held"), id="logging"),
        pytest.param(lambda: warnings.showwarning("held", UserWarning, "x", 1), id="warnings"),
        pytest.param(lambda: structlog.get_logger("x").info("held"), id="structlog"),
    ],
)
def test_inside_an_operation_each_line_names_it_and_its_request(written, log):
    Driver.of(VirtualReactor()).run(as_operation(log))
    log()

    inside, outside = written.lines()
    assert {name: inside[name] for name in IN_CHARGE} == IN_CHARGE
    assert outside.keys().isdisjoint(IN_CHARGE)


def test_a_line_logged_in_a_method_names_the_operation_of_the_request(written):
    class Desk(Service, name="desk"):
        @get("/")
        async def look(self) -> None:
            Logger("hotel.desk").info("looked")

    reactor = VirtualReactor()
    operation = describe(Desk).operations["look"]
    handler = compose([Observe(Random(7), reactor.seconds, Calls("desk", "Requests"), request_line)], dispatch(Desk()))

    Driver.of(reactor).run(handler(Request(operation, {}, Context(service="desk", operation="desk.look"))))

    looked, served = written.lines()
    assert [(line["event"], line["operation"]) for line in (looked, served)] == [
        ("looked", "desk.look"),
        ("request", "desk.look"),
    ]
    assert looked["trace_id"] == served["trace_id"]
    assert looked["request_id"] == served["request_id"] == looked["trace_id"]


def test_clocks_and_callbacks_that_the_framework_hands_out_log_in_the_context_of_who_asked(written):
    reactor = VirtualReactor()
    clock, fired = Clock(reactor, reactor.seconds), Deferred[None]()

    def ask() -> None:
        clock.callLater(1, Logger("x").info, "clock")
        fired.addCallback(bound(lambda _: Logger("x").info("callback")))

    Driver.of(reactor).run(as_operation(ask))
    reactor.advance(1)
    fired.callback(None)
    Logger("x").info("elsewhere")

    assert [(line["event"], line.get("operation")) for line in written.lines()] == [
        ("clock", "payments.charge"),
        ("callback", "payments.charge"),
        ("elsewhere", None),
    ]


# -- what Twisted says of itself


def test_the_access_log_of_a_site_is_left_to_the_line_of_the_request(written):
    line = '"127.0.0.1" - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl"'
    site = Site(Resource(), logFormatter=lambda *_: line)
    site.startFactory()
    try:
        site.log(None)  # type: ignore[arg-type]
    finally:
        site.stopFactory()

    assert written.getvalue() == ""


def test_the_form_of_the_access_log_is_still_the_one_that_is_left_out():
    class Asked:
        method, uri, clientproto, code, sentLength = b"GET", b"/rooms", b"HTTP/1.1", 200, 12

        def getClientAddress(self) -> Any:
            return None

        def getHeader(self, name: bytes) -> None:
            return None

    from ropewalk.telemetry.logs import _TEXTS

    ((pattern, level), *_) = _TEXTS
    assert pattern.match(combinedLogFormatter("[01/Jan/2026:00:00:00 +0000]", Asked()))  # type: ignore[arg-type]
    assert level is None


@pytest.mark.parametrize(
    ("say", "event"),
    [
        (lambda: Site(Resource(), reactor=VirtualReactor()).doStart(), "Starting factory "),
        (lambda: legacy.msg("Site starting on 8080"), "Site starting on 8080"),
        (lambda: legacy.msg("(TCP Port 8080 Closed)"), "(TCP Port 8080 Closed)"),
        (lambda: Logger("twisted.internet.base").info("Main loop terminated."), "Main loop terminated."),
    ],
    ids=["factory", "starting", "closed", "terminated"],
)
def test_what_twisted_says_of_its_own_affairs_is_for_debugging(start, say, event):
    usual, debugging = Written(), Written()
    start(usual)
    start(debugging, level="debug")

    say()

    assert usual.getvalue() == ""
    (line,) = (line for line in debugging.lines() if line["event"].startswith(event))
    assert line["level"] == "debug"


# -- levels


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("critical", ["critical"]),
    ],
)
def test_what_is_below_the_level_is_not_heard_from_any_source(start, level, heard):
    stream = Written()
    start(stream, level=level)

    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logging.getLogger("x"), name)("said")
        getattr(structlog.get_logger("x"), name)("said")
        Logger("x").emit(LogLevel.lookupByName("warn" if name == "warning" else name), "said")

    assert [line["level"] for line in stream.lines()] == [each for each in heard for _ in range(3)]


def test_an_unknown_level_is_refused_with_those_there_are(start):
    with pytest.raises(ValueError, match=r"A log's level is one of debug, info, warning, error, critical; got 'loud'."):
        start(Written(), level="loud")


def test_levels_between_ours_are_the_one_below(written):
    logging.getLogger("x").log(25, "said")
    logging.getLogger("x").log(99, "said")

    assert [line["level"] for line in written.lines()] == ["info", "critical"]


# -- nobody who logs meets an error


def test_arguments_that_do_not_fit_are_shown_instead_of_raised(written, monkeypatch):
    root = logging.getLogger()  # where pytest has put a handler of its own, which raises
    monkeypatch.setattr(root, "handlers", [each for each in root.handlers if "ropewalk" in type(each).__module__])

    logging.getLogger("x").info("%d rooms", "no")
    structlog.get_logger("x").info("%d rooms", "no")
    Logger("x").info("{rooms.number} rooms", rooms=None)

    assert [line["event"] for line in written.lines()][:2] == ["'%d rooms' with the arguments ('no',)"] * 2
    assert "Unable to format event" in written.lines()[2]["event"]


def test_a_value_whose_repr_logs_and_fails_does_no_harm(written):
    class Rude:
        def __repr__(self) -> str:
            logging.getLogger("x").info("nested")
            raise RuntimeError

    Logger("x").info("outer", value=Rude())

    assert [line["event"] for line in written.lines()] == ["nested", "outer"]
    assert written.lines()[1]["value"] == "<Rude, whose repr failed with RuntimeError>"


def test_lines_that_could_not_be_written_are_counted_by_the_next_that_can(start):
    class Full(Written):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError("No space left on device")
            return super().write(text)

    stream = Full()
    start(stream)

    Logger("x").info("one")
    Logger("x").info("two")
    stream.full = False
    Logger("x").info("three")
    Logger("x").info("four")

    assert [(line["event"], line.get("lines")) for line in stream.lines()] == [
        ("log.lost", 2),
        ("three", None),
        ("four", None),
    ]


def test_a_clock_that_fails_does_not_fail_who_logs(start, monkeypatch):
    stream = Written()
    stop = start_logging(stream, json=True, now=lambda: 1 / 0)
    try:
        Logger("x").info("said")
    finally:
        stop()

    assert stream.lines() == [{"level": "error", "event": "log.failed", "error": {"type": "ZeroDivisionError"}}]


# -- the end of a request


@pytest.mark.parametrize(
    ("status", "outcome", "error", "level", "described"),
    [
        (200, "success", None, "info", None),
        (404, "caller", None, "info", None),
        (409, "caller", Conflict("taken"), "info", {"type": "ropewalk.errors.Conflict", "message": "taken"}),
        (503, "failure", Unavailable("down"), "warning", {"type": "ropewalk.errors.Unavailable", "message": "down"}),
        (502, "failure", None, "warning", None),
        (
            499,
            "cancelled",
            asyncio.CancelledError(),
            "info",
            {"type": "asyncio.exceptions.CancelledError", "message": ""},
        ),
    ],
    ids=["success", "not found", "conflict", "unavailable", "bad gateway", "cancelled"],
)
def test_a_request_ends_with_one_line_at_the_level_of_its_outcome(written, status, outcome, error, level, described):
    request_line(request(), status, outcome, 0.0123456, error)

    expected = {
        "level": level,
        "event": "request",
        "logger": "ropewalk.request",
        **IN_CHARGE,
        "outcome": outcome,
        "status": status,
        "milliseconds": 12.346,
    }
    if described is not None:
        expected["error"] = described
    assert written.line() == expected


def test_an_exception_nobody_foresaw_is_an_error_with_its_traceback(written, flush_logged_errors):
    try:
        {}["room"]
    except KeyError as error:
        request_line(request(), 500, "failure", 0.001, error)

    line = written.line()
    assert (line["level"], line["event"], line["status"]) == ("error", "request", 500)
    assert (line["error"]["type"], line["operation"]) == ("KeyError", "payments.charge")
    assert line["error"]["traceback"].endswith("\nKeyError: 'room'")
    assert len(flush_logged_errors(KeyError)) == 1


def test_the_line_says_which_service_asked_and_which_try_it_was(written):
    asked = request(
        principal=Principal("booking-ui", "ann"),
        context=Context(service="payments", operation="payments.charge", attempt=2),
    )

    request_line(asked, 200, "success", 0.001, None)

    assert (written.line()["caller"], written.line()["attempt"]) == ("booking-ui", 2)
    assert "ann" not in written.getvalue()


def test_the_context_of_the_line_is_the_requests_own_wherever_it_is_logged(written):
    elsewhere = Context(service="desk", operation="desk.look")

    Driver.of(VirtualReactor()).run(
        as_operation(lambda: request_line(request(), 200, "success", 0.001, None), elsewhere)
    )

    assert written.line()["operation"] == "payments.charge"


def test_below_the_level_the_line_is_not_even_made(start):
    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    start(Written(), level="warning")

    request_line(Untouchable(), 200, "success", 0.001, None)  # type: ignore[arg-type]


def test_without_any_pipeline_the_line_goes_to_whoever_observes_twisted():
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    try:
        request_line(request(), 200, "success", 0.001, None)
    finally:
        globalLogPublisher.removeObserver(events.append)

    (event,) = events
    assert (event["log_format"], event["log_namespace"], event["status"]) == ("request", "ropewalk.request", 200)


# -- lines that wait for the end of a turn


def events(stream: Written) -> list[Any]:
    return [line.get("status", line["event"]) for line in stream.lines()]


def test_the_lines_of_requests_that_end_in_one_turn_are_written_at_its_end(start):
    stream, ends = Written(), []
    start(stream, soon=ends.append)

    request_line(request(), 200, "success", 0.001, None)
    request_line(request(), 404, "caller", 0.001, NotFound("none"))
    within = events(stream)
    for end in ends:
        end()

    assert ([], 1, [200, 404]) == (within, len(ends), events(stream))


def test_another_line_comes_behind_those_that_wait(start):
    stream, ends = Written(), []
    start(stream, soon=ends.append)

    request_line(request(), 200, "success", 0.001, None)
    Logger("x").info("said")
    request_line(request(), 201, "success", 0.001, None)
    within = events(stream)
    for end in ends:
        end()

    assert ([200, "said"], [200, "said", 201]) == (within, events(stream))


def test_what_waits_at_the_end_is_written(start):
    stream = Written()
    stop = start(stream, soon=lambda flush: None)
    request_line(request(), 200, "success", 0.001, None)

    stop()

    assert [200] == events(stream)


def test_only_so_many_lines_wait(start):
    stream = Written()
    start(stream, soon=lambda flush: None)

    for _ in range(HELD + 1):
        request_line(request(), 200, "success", 0.001, None)

    assert [200] * HELD == events(stream)


def test_lines_that_cannot_be_written_together_are_all_counted(start):
    stream, ends = Written(), []
    start(stream, soon=ends.append)
    write, stream.write = stream.write, None  # type: ignore[method-assign, assignment]
    for _ in range(3):
        request_line(request(), 200, "success", 0.001, None)
    ends.pop()()
    stream.write = write  # type: ignore[method-assign]

    Logger("x").info("said")

    assert [("log.lost", 3), ("said", None)] == [(line["event"], line.get("lines")) for line in stream.lines()]


# -- beginning and ending


def test_what_is_constant_in_the_process_is_in_every_line_and_gives_way_to_the_operation(start):
    stream = Written()
    start(stream, extra={"process": "core", "service": "desk"})

    Logger("x").info("outside")
    Driver.of(VirtualReactor()).run(as_operation(lambda: Logger("x").info("inside")))

    assert [(line["process"], line["service"]) for line in stream.lines()] == [("core", "desk"), ("core", "payments")]


def test_after_the_end_everything_is_as_it_was_before(start):
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning, structlog.get_config(), structlog.is_configured())
    stream = Written()

    stop = start(stream)
    assert root.handlers != before[0]
    stop()
    stop()
    Logger("x").info("said")

    after = (root.handlers[:], root.level, warnings.showwarning, structlog.get_config(), structlog.is_configured())
    assert after == before
    assert stream.getvalue() == ""


def test_a_structlog_that_was_configured_is_so_again(start):
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    before = structlog.get_config()
    try:
        start(Written())()
        assert structlog.get_config() == before
    finally:
        structlog.reset_defaults()


def test_what_was_logged_before_the_beginning_is_the_first_to_be_written():
    code = """
import sys
from twisted.logger import Logger
Logger("early").info("first")
from ropewalk.telemetry.logs import start_logging
start_logging(sys.stdout, json=True, now=lambda: 0.0, extra={"process": "core"})
import logging, warnings
logging.getLogger("x").info("second")
warnings.warn("third")
from twisted.logger import globalLogBeginner
globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)  # as twistd does later
print("plain")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    *lines, plain = done.stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["first", "second", "third"]
    assert (plain, done.stderr) == ("plain", "")


# -- for people


def test_for_people_a_line_has_columns_and_on_a_terminal_colours(start, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    file, terminal = Written(), Written()
    terminal.tty = True
    start(file, json=False)
    start(terminal, json=False)

    Driver.of(VirtualReactor()).run(as_operation(lambda: Logger("hotel").info("held", room=12)))

    assert file.getvalue() == (
        "00:00:00.000 [info     ] payments       held logger=hotel operation=charge room=12 request=r-77\n"
    )
    assert "\x1b[1mheld\x1b[0m" in terminal.getvalue()


def test_who_wants_no_colour_gets_none(start, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Written()
    terminal.tty = True
    start(terminal, json=False)

    Logger("hotel").info("held")

    assert "\x1b" not in terminal.getvalue()


def test_a_json_line_is_shown_as_people_would_have_seen_it(start):
    lines, shown = Written(), Written()
    start(lines, extra={"process": "core"})
    start(shown, json=False, extra={"process": "core"})

    request_line(request(), 200, "success", 0.0123, None)

    assert humanise(lines.getvalue().encode()) + "\n" == shown.getvalue()


def test_a_cancelled_run_of_twisted_is_no_exception_nobody_foresaw(written, flush_logged_errors):
    request_line(request(), 500, "failure", 0.001, CancelledError())

    # Twisted's own CancelledError inside an operation was not our cancellation: somebody else's Deferred was cancelled.
    assert written.line()["level"] == "error"
    assert [type(failure) for failure in flush_logged_errors()] == [Failure]
