"""An event as one line: JSON for machines, columns for people. Values and pure functions; nothing is written here.

An *entry* is a dict of plain values, in this order: time, level, event, logger, what is constant in the process,
service, operation, trace_id, span_id, request_id, the event's own fields, error. Whatever was logged, an entry can be
made of it: a value that is no JSON becomes its repr, a long one loses its end and says how much, and none can begin a
new line.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from math import floor, isfinite
from typing import Any
from zlib import crc32

import msgspec

from ..context import Context
from ..message import Request

Entry = dict[str, Any]

LIMIT = 2_000  # characters of one value; a page of text: what is longer was not meant for a log
FIELDS = 64  # of one event
TRACEBACK = 16_000  # characters, of which the end is kept: there it says what happened
_OF_CONTEXT = (
    "service",
    "operation",
    "trace_id",
    "span_id",
    "request_id",
)  # an event may say them where no context does
OWN = frozenset(("time", "level", "event", "logger", "error", *_OF_CONTEXT))

# What a reader of lines may take for the end of one, or a terminal for an order: JSON itself escapes only what is below
# a space. C1 controls, DEL, Unicode's separators of lines and of paragraphs.
_ESCAPED_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def entry_of(
    now: float,
    level: str,
    event: object,
    *,
    logger: str,
    constant: Mapping[str, str],
    context: Context,
    fields: Iterable[tuple[str, Any]],
    error: BaseException | None,
    with_traceback: bool = True,
) -> Entry:
    """The entry of one event. `now`: seconds since 1970. A field with one of our names gets a "_" behind it."""
    entry = _begun(now, level, _text(event), logger, constant, context)
    left_out = -FIELDS
    for name, value in fields:
        left_out += 1
        if left_out <= 0:
            own = name in OWN and (name in entry or name not in _OF_CONTEXT)
            entry[name + "_" if own else _bounded(name)] = plain(value)
    if left_out > 0:
        entry["fields_left_out"] = left_out
    if error is not None:
        entry["error"] = describe(error, with_traceback=with_traceback)
    return entry


def entry_of_request(
    now: float,
    level: str,
    *,
    logger: str,
    constant: Mapping[str, str],
    request: Request,
    status: int,
    outcome: str,
    seconds: float,
    error: BaseException | None,
) -> Entry:
    """`entry_of` how `request` ended, of which all is plain and bounded: one for each that is served."""
    entry = _begun(now, level, "request", logger, constant, request.context)
    entry["outcome"] = outcome
    entry["status"] = status
    entry["milliseconds"] = milliseconds(seconds)
    if request.principal.service is not None:
        entry["caller"] = request.principal.service
    if request.context.attempt != 1:
        entry["attempt"] = request.context.attempt
    if error is not None:
        entry["error"] = describe(error, with_traceback=False)
    return entry


def milliseconds(seconds: float) -> float:
    """How long it took, to the microsecond."""
    return floor(seconds * 1e6 + 0.5) / 1000  # round() takes three times as long


def _begun(
    now: float, level: str, event: str, logger: str, constant: Mapping[str, str], context: Context
) -> dict[str, Any]:
    entry: Entry = {"time": _moment(floor(now * 1000)), "level": level, "event": event}
    if logger:
        entry["logger"] = logger
    if constant:
        entry.update(constant)
    if context.service:
        entry["service"] = context.service
    if context.operation:
        entry["operation"] = context.operation
    trace = context.trace
    if trace is not None:
        entry["trace_id"] = trace.trace_id
        entry["span_id"] = trace.span_id
    if context.request_id:
        entry["request_id"] = context.request_id
    return entry


@lru_cache(maxsize=2)  # a busy millisecond has dozens of lines
def _moment(millisecond: int) -> str:
    return f"{_second(millisecond // 1000)}.{millisecond % 1000:03}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def plain(value: Any) -> Any:
    """`value` as JSON can say it, bounded: itself, JSON made of it, or its repr."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return _bounded(value)
    if (kind is int and -(1 << 63) <= value < 1 << 64) or (kind is float and isfinite(value)):
        return value
    if not isinstance(value, (float, bytes, bytearray, memoryview)):
        try:
            json = msgspec.json.encode(value, enc_hook=_repr)
        except Exception:  # it holds itself, or a key that is no text, or its own code failed
            return _repr(value)
        return msgspec.Raw(json) if len(json) <= LIMIT else _bounded(json.decode())
    return _repr(value)


def describe(error: BaseException, *, with_traceback: bool = True) -> dict[str, str]:
    """Type, message and traceback of `error`, causes included, as text."""
    cls = type(error)
    module = "" if cls.__module__ in ("builtins", "__main__") else cls.__module__ + "."
    described = {"type": module + cls.__qualname__, "message": _text(error)}
    if with_traceback:
        try:
            lines = "".join(traceback.format_exception(error)).rstrip("\n")
        except Exception as another:
            lines = f"(no traceback: formatting it failed with {type(another).__name__})"
        if len(lines) > TRACEBACK:
            lines = f"({len(lines) - TRACEBACK} characters before this) …{lines[-TRACEBACK:]}"
        described["traceback"] = lines
    return described


def json_line(entry: Entry) -> str:
    """The entry as one line of JSON, without its end."""
    try:
        line = msgspec.json.encode(entry).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: no text, though Python lets a str hold it
        line = msgspec.json.encode(_encodable(entry)).decode()
    return line if line.isascii() and "\x7f" not in line else line.translate(_ESCAPED_IN_JSON)


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _text(value: object) -> str:
    if type(value) is str:
        return _bounded(value)
    try:
        return _bounded(str(value))
    except Exception:
        return _repr(value)


def _repr(value: object) -> str:
    try:
        return _bounded(repr(value))
    except Exception as error:
        return f"<{type(value).__name__}, whose repr failed with {type(error).__name__}>"


def _bounded(text: str) -> str:
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}… ({len(text) - LIMIT} more characters)"


# -- for people


def human_renderer(*, colours: bool) -> Callable[[Entry], str]:
    """A function entry -> columns: time of day (UTC), level, service, event, fields; a traceback below, indented."""
    # Late: structlog.dev imports what only a terminal needs.
    from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter

    dim, bold, reset = ("\x1b[2m", "\x1b[1m", "\x1b[0m") if colours else ("", "", "")

    def service(key: str, value: object) -> str:
        colour = f"\x1b[{_PALETTE[crc32(str(value).encode()) % len(_PALETTE)]}m" if colours else ""
        return f"{colour}{_visible(value):<14}{reset}"

    def field(key: str, value: object) -> str:
        return f"{dim}{_visible(key)}={reset}{_value(value)}"

    styles = ConsoleRenderer.get_default_level_styles(colours)
    render = ConsoleRenderer(
        columns=[
            Column("time", KeyValueColumnFormatter(None, dim, reset, lambda value: _visible(value)[11:23])),
            Column("level", LogLevelColumnFormatter(styles, reset)),
            Column("service", service),
            Column("event", KeyValueColumnFormatter(None, bold, reset, _visible)),
            Column("", field),
        ],
        sort_keys=False,
    )

    def human(entry: Entry) -> str:
        # ConsoleRenderer has a meaning of its own for these names; only what is indented here may have it.
        shown = {
            name + "_" if name in _RENDERED else name: each for name, each in entry.items() if name not in _NOT_SHOWN
        }
        shown["level"] = _visible(entry["level"])
        if str(entry.get("logger", "")).startswith("ropewalk."):
            del shown["logger"]
        shown["service"] = service = str(entry.get("service") or entry.get("process") or "-")
        if "operation" in entry:
            shown["operation"] = str(entry["operation"]).removeprefix(f"{service}.")
        if "request_id" in entry:
            shown["request"] = str(entry["request_id"])[:8]
        if isinstance(entry.get("stack"), str):
            shown["stack"] = _indented(entry["stack"])
        error = entry.get("error")
        if isinstance(error, dict):
            shown["error"] = f"{error.get('type')}: {error.get('message')}"
            if "traceback" in error:
                shown["exception"] = _indented(str(error["traceback"]))
        return render(None, "", shown)

    return human


def humanise(line: bytes, *, process: str = "", colours: bool = False) -> str:
    """A line of a process's output in the human form, without its end; `process` names who wrote it.

    What is no entry passes through, with that name before it.
    """
    try:
        entry = msgspec.json.decode(line)
    except msgspec.DecodeError:
        entry = None
    if not isinstance(entry, dict) or not {"time", "level", "event"} <= entry.keys():
        text = _visible(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        return f"{_visible(process)}: {text}" if process else text
    if process:
        entry.setdefault("process", process)
    return _HUMAN[colours](entry)


class _Renderers(dict[bool, Callable[[Entry], str]]):
    def __missing__(self, colours: bool) -> Callable[[Entry], str]:
        return self.setdefault(colours, human_renderer(colours=colours))


_HUMAN = _Renderers()
# Foregrounds a dark and a light terminal show alike; red is the levels'. Chosen by checksum: one service, one colour.
_PALETTE = ("36", "32", "34", "35", "33", "96", "92", "94", "95", "93")
# Who merges lines looks for the request, by its beginning; the rest is in the JSON.
_NOT_SHOWN = ("trace_id", "span_id", "request_id", "process", "error", "stack")
_RENDERED = ("exception", "exc_info", "")


def _value(value: object) -> str:
    if isinstance(value, str):
        return _visible(repr(value)) if not value or set(value) & set(" ='\"") else _visible(value)
    return _visible(msgspec.json.encode(value).decode())


def _visible(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _indented(text: str) -> str:
    return "\n".join("    " + _visible(line.expandtabs()) for line in text.split("\n"))
