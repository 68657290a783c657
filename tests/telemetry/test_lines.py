"""An event as one line: what an entry holds, that any value can be logged, and that none can pretend to be a line."""

from __future__ import annotations

import json
import unicodedata
from datetime import date
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from ropewalk.context import NOWHERE, Context, Trace
from ropewalk.telemetry.lines import (
    FIELDS,
    LIMIT,
    TRACEBACK,
    Entry,
    describe,
    entry_of,
    human_renderer,
    humanise,
    json_line,
    plain,
)

MOMENT = 1767225600.1239  # 2026-01-01T00:00:00.1239Z
CHARGE = Context(
    trace=Trace("a1" * 16, "b2" * 8), request_id="r-77", service="payments", operation="payments.charge", tenant="acme"
)


def entry(event: object = "paid", level: str = "info", context: Context = NOWHERE, **fields: Any) -> Entry:
    error = fields.pop("raised", None)
    return entry_of(
        MOMENT, level, event, logger="hotel", constant={}, context=context, fields=fields.items(), error=error
    )


def read(entry: Entry) -> Any:
    return json.loads(json_line(entry))


# -- what an entry holds


def test_an_entry_says_when_how_grave_what_who_and_for_which_request():
    made = entry_of(
        MOMENT,
        "info",
        "paid",
        logger="hotel.payments",
        constant={"process": "core"},
        context=CHARGE,
        fields=[("amount", 12), ("currency", "EUR")],
        error=None,
    )

    assert list(read(made).items()) == [
        ("time", "2026-01-01T00:00:00.123Z"),
        ("level", "info"),
        ("event", "paid"),
        ("logger", "hotel.payments"),
        ("process", "core"),
        ("service", "payments"),
        ("operation", "payments.charge"),
        ("trace_id", "a1" * 16),
        ("span_id", "b2" * 8),
        ("request_id", "r-77"),
        ("amount", 12),
        ("currency", "EUR"),
    ]


def test_outside_of_any_request_nothing_is_said_of_one():
    assert read(entry()) == {"time": "2026-01-01T00:00:00.123Z", "level": "info", "event": "paid", "logger": "hotel"}


def test_a_field_with_one_of_our_names_cannot_take_its_place():
    made = read(entry(context=CHARGE, service="forged", trace_id="forged", time="forged", error="text"))

    assert (made["service"], made["trace_id"], made["time"]) == ("payments", "a1" * 16, "2026-01-01T00:00:00.123Z")
    assert (made["service_"], made["trace_id_"], made["time_"]) == ("forged", "forged", "forged")
    assert made["error_"] == "text"


def test_outside_of_any_request_an_event_may_say_which_service_it_is_about():
    assert read(entry("listening", service="desk"))["service"] == "desk"


def test_more_fields_than_anybody_reads_are_counted_instead():
    made = read(entry(**{f"f{n}": n for n in range(FIELDS + 3)}))

    assert (f"f{FIELDS - 1}" in made, f"f{FIELDS}" in made, made["fields_left_out"]) == (True, False, 3)


def test_an_error_is_its_type_its_message_and_one_text_with_its_causes():
    class SoldOut(Exception):
        pass

    try:
        try:
            {}["room"]
        except KeyError as error:
            raise SoldOut("No room is left.") from error
    except SoldOut as error:
        described = describe(error)

    assert described["type"].endswith(
        "test_an_error_is_its_type_its_message_and_one_text_with_its_causes.<locals>.SoldOut"
    )
    assert described["message"] == "No room is left."
    assert "KeyError: 'room'" in described["traceback"]
    assert "direct cause" in described["traceback"]
    assert described["traceback"].endswith("SoldOut: No room is left.")


def test_of_a_long_traceback_the_end_is_kept():
    described = describe(ValueError("x" * TRACEBACK))

    assert described["traceback"].startswith("(12 characters before this) …")
    assert described["traceback"].endswith("xxx")
    assert described["message"] == "x" * LIMIT + f"… ({TRACEBACK - LIMIT} more characters)"


def test_an_error_that_cannot_say_itself_is_described_all_the_same():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    assert describe(Mute())["message"] == "<Mute, whose repr failed with RuntimeError>"


# -- any value


class Colour(Enum):
    RED = "red"


class Stay(msgspec.Struct):
    hotel: int
    arrival: date


class Card(msgspec.Struct):
    number: SecretStr


class Model(BaseModel):
    password: SecretStr


class Broken:
    def __repr__(self) -> str:
        raise ValueError("broken")


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


ITSELF: list[Any] = []
ITSELF.append(ITSELF)


LOGGED: dict[str, tuple[Any, Any]] = {  # what is logged -> (the value, what a reader of the line finds)
    "nothing": (None, None),
    "a truth": (True, True),
    "a number": (12, 12),
    "a fraction": (1.5, 1.5),
    "not a number": (float("nan"), "nan"),
    "infinity": (float("inf"), "inf"),
    "a big number": (2**70, 2**70),
    "a text": ("text", "text"),
    "an empty text": ("", ""),
    "bytes": (b"\x00\xff", "b'\\x00\\xff'"),
    "a list": (["a", 1, None], ["a", 1, None]),
    "a mapping": ({"a": {"b": 1}}, {"a": {"b": 1}}),
    "numbers as keys": ({1: 2}, {"1": 2}),
    "a set": ({"sorted"}, ["sorted"]),
    "an enum": (Colour.RED, "red"),
    "a struct": (Stay(1, date(2026, 5, 1)), {"hotel": 1, "arrival": "2026-05-01"}),
    "a uuid": (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "a secret": (SecretStr("hunter2"), "SecretStr('**********')"),
    "a secret in a list": ([SecretStr("hunter2")], ["SecretStr('**********')"]),
    "a secret in a struct": (Card(SecretStr("4711")), {"number": "SecretStr('**********')"}),
    "a secret in a model": (Model(password=SecretStr("hunter2")), "Model(password=SecretStr('**********'))"),
    "an object": (Opaque(), "<opaque>"),
    "an object in a list": ([Opaque()], ["<opaque>"]),
    "an object without a repr": (Broken(), "<Broken, whose repr failed with ValueError>"),
    "an error": (ValueError("wrong"), "ValueError('wrong')"),
    "an object as a key": ({Opaque(): 1}, {"<opaque>": 1}),
    "a long text": ("x" * (LIMIT + 5), "x" * LIMIT + "… (5 more characters)"),
    "a long list": (["x" * LIMIT], '["' + "x" * (LIMIT - 2) + "… (4 more characters)"),
    "a list that holds itself": (ITSELF, "[[...]]"),
    "half a surrogate pair": ("\ud800 half a pair", "\\ud800 half a pair"),
}


@pytest.mark.parametrize(("value", "expected"), LOGGED.values(), ids=LOGGED)
def test_any_value_can_be_logged(value, expected):
    assert read(entry(value=value))["value"] == expected


def test_a_number_too_long_to_be_printed_is_named():
    assert plain(10**5000) == "<int, whose repr failed with ValueError>"


# -- one line


TEXTS = st.text() | st.text("\n\r\x85\u2028\u2029\x0b\x0c\x1b\x9b\x1c\x00", min_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=8,
)


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4), TEXTS)
def test_whatever_is_logged_is_one_line_of_json(event, name, fields, message):
    line = json_line(
        entry_of(
            MOMENT,
            "info",
            event,
            logger=name,
            constant={},
            context=Context(request_id=name),
            fields=fields.items(),
            error=ValueError(message),
        )
    )

    assert line.splitlines() == [line]
    assert {unicodedata.category(character) for character in line}.isdisjoint({"Cc", "Zl", "Zp"})
    assert json.loads(line)["level"] == "info"


@given(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4), TEXTS)
def test_whatever_is_logged_begins_one_line_for_people_and_what_follows_is_indented(event, fields, message):
    made = entry(event, context=Context(service="payments"), raised=ValueError(message), **fields)

    first, *rest = human_renderer(colours=False)(made).splitlines()

    assert first.isprintable()
    assert first.startswith("00:00:00.123 [info     ] payments")
    assert [line for line in rest if not line.startswith("    ")] == []
    assert [line for line in rest if not line.isprintable()] == []


@given(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4))
def test_a_line_of_json_becomes_what_people_would_have_seen(event, fields):
    made = entry(event, context=CHARGE, **fields)

    # Through JSON a float may come back as another way to write the same number; names and order stay.
    assert humanise(json_line(made).encode()).split("=")[0] == human_renderer(colours=False)(made).split("=")[0]


# -- for people


def test_people_see_the_time_of_day_the_level_the_service_the_event_and_the_fields():
    human = human_renderer(colours=False)

    assert human(entry(context=CHARGE, room=12, guest="Ann Lee", tags=["a", "b"])) == (
        "00:00:00.123 [info     ] payments       paid logger=hotel operation=charge "
        'room=12 guest=\'Ann Lee\' tags=["a","b"] request=r-77'
    )


def test_a_traceback_stands_below_its_line():
    try:
        {}["room"]
    except KeyError as error:
        lines = human_renderer(colours=False)(entry("failed", "error", raised=error)).splitlines()

    assert lines[0] == "00:00:00.123 [error    ] -              failed logger=hotel error=\"KeyError: 'room'\""
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    KeyError: 'room'"


def test_a_field_cannot_pose_as_a_traceback():
    (line,) = human_renderer(colours=False)(entry(exception="a\nb", exc_info=True)).splitlines()

    assert line.endswith("exception_=a\\nb exc_info_=true")


def test_a_service_has_one_colour_for_ever_and_others_have_others():
    human = human_renderer(colours=True)

    def colour(service: str) -> str:
        return human(entry(context=Context(service=service))).partition("] ")[2].partition("m")[0]

    assert [colour(name) for name in ("payments", "booking-ui", "payments")] == ["\x1b[92", "\x1b[33", "\x1b[92"]


def test_without_colours_there_is_no_escape():
    assert "\x1b" not in human_renderer(colours=False)(entry("failed", "critical", context=CHARGE))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Starting up ...\n", "core: Starting up ..."),
        (b"\x1b[31mred\x1b[0m\r\n", "core: \\x1b[31mred\\x1b[0m"),
        (b"\xff\xfe", "core: \\xff\\xfe"),
        (b"42\n", "core: 42"),
        (b'{"a": 1}\n', 'core: {"a": 1}'),
        (b"", "core: "),
    ],
)
def test_what_is_no_entry_passes_through_with_the_name_of_its_process(line, expected):
    assert humanise(line, process="core") == expected


def test_without_a_process_it_passes_through_as_it_is():
    assert humanise(b"Starting up ...\n") == "Starting up ..."


def test_an_entry_that_names_no_service_is_shown_with_its_process():
    assert humanise(json_line(entry()).encode(), process="core") == (
        "00:00:00.123 [info     ] core           paid logger=hotel"
    )


ENCODABLE = TEXTS.map(lambda text: text.encode("utf-8", "replace").decode())


@given(
    st.dictionaries(
        ENCODABLE | st.sampled_from(["service", "operation", "error", "stack", "request_id", "logger"]),
        ENCODABLE | st.integers(0, 9) | st.none() | st.lists(ENCODABLE) | st.dictionaries(ENCODABLE, ENCODABLE),
    )
)
def test_json_that_others_wrote_is_shown_without_a_fault(fields):
    line = msgspec.json.encode({**fields, "time": 1, "level": 30, "event": None})

    first, *rest = humanise(line, process="core").splitlines()

    assert first.isprintable()
    assert [line for line in rest if not line.startswith("    ")] == []
