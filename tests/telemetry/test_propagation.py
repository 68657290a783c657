"""What travels between siblings, whom it is taken from, and the rules of the W3C trace context.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.context import Context, Trace
from ropewalk.telemetry.propagation import LONGEST, extract, inject, parse_traceparent

NOW = 1000.0
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"

WHOLE = Context(
    deadline=NOW + 2.5,
    trace=Trace(TRACE_ID, SPAN_ID, 1, "vendor=1"),
    request_id="r-77",
    priority=3,
    tenant="acme",
    attempt=2,
    key="k-1",
    baggage="colour=red",
    service="payments",
    operation="payments.charge",
)
SENT = [
    ("ropewalk-request-id", "r-77"),
    ("traceparent", TRACEPARENT),
    ("tracestate", "vendor=1"),
    ("ropewalk-deadline", "2500"),
    ("ropewalk-priority", "3"),
    ("ropewalk-tenant", "acme"),
    ("ropewalk-attempt", "2"),
    ("idempotency-key", "k-1"),
    ("baggage", "colour=red"),
]


def received(headers: dict[str, str], *, trusted: bool = True, now: float = NOW) -> Context:
    return extract(headers, now, "payments", "payments.charge", trusted=trusted)


# -- what travels


def test_a_whole_context_is_these_headers():
    assert inject(WHOLE, NOW) == SENT


def test_an_empty_context_sends_nothing():
    assert inject(Context(service="payments", operation="payments.charge"), NOW) == []


def test_a_sibling_is_believed_in_all_of_it():
    assert received(dict(SENT)) == WHOLE


def test_a_stranger_is_believed_in_its_trace_and_its_key_alone():
    assert received(dict(SENT), trusted=False) == Context(
        trace=WHOLE.trace, key="k-1", service="payments", operation="payments.charge"
    )


def test_who_sends_nothing_begins_with_nothing():
    assert received({}) == received({}, trusted=False) == Context(service="payments", operation="payments.charge")


def test_no_hop_gains_time():
    assert dict(inject(Context(deadline=NOW + 0.0019), NOW)) == {"ropewalk-deadline": "1"}
    assert dict(inject(Context(deadline=NOW - 5), NOW)) == {"ropewalk-deadline": "0"}


def test_a_deadline_counts_from_here_whatever_the_clock_of_the_caller_shows():
    assert received({"ropewalk-deadline": "2500"}, now=7.0).deadline == 9.5


@pytest.mark.parametrize(
    ("header", "value", "field", "expected"),
    [
        ("ropewalk-deadline", "0", "deadline", NOW),
        ("ropewalk-deadline", "-1", "deadline", None),
        ("ropewalk-deadline", "1.5", "deadline", None),
        ("ropewalk-deadline", "soon", "deadline", None),
        ("ropewalk-deadline", "", "deadline", None),
        ("ropewalk-deadline", "999999999999", "deadline", NOW + LONGEST),
        ("ropewalk-deadline", "9" * 5000, "deadline", None),
        ("ropewalk-deadline", "\u0663", "deadline", None),
        ("ropewalk-priority", "-2", "priority", -2),
        ("ropewalk-priority", "high", "priority", 0),
        ("ropewalk-priority", "1000000", "priority", 0),
        ("ropewalk-attempt", "0", "attempt", 1),
        ("ropewalk-attempt", "-3", "attempt", 1),
        ("ropewalk-attempt", "many", "attempt", 1),
        ("ropewalk-request-id", "two words", "request_id", ""),
        ("ropewalk-request-id", "x" * 129, "request_id", ""),
        ("ropewalk-request-id", "x" * 128, "request_id", "x" * 128),
        ("ropewalk-tenant", "ac\x00me", "tenant", ""),
        ("ropewalk-tenant", "", "tenant", ""),
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_sent(header, value, field, expected):
    assert getattr(received({header: value}), field) == expected


# -- traceparent and tracestate


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TRACEPARENT, Trace(TRACE_ID, SPAN_ID, 1)),
        (f"00-{TRACE_ID}-{SPAN_ID}-00", Trace(TRACE_ID, SPAN_ID, 0)),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", Trace(TRACE_ID, SPAN_ID, 1)),  # unknown flags are set to zero
        (f"00-{TRACE_ID}-{SPAN_ID}-02", Trace(TRACE_ID, SPAN_ID, 0)),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01", Trace(TRACE_ID, SPAN_ID, 1)),  # a later version, read as far as it is known
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-later", Trace(TRACE_ID, SPAN_ID, 1)),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01.what-comes-later", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-01-more", None),  # this version has nothing more
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", None),  # forbidden
        (f"00-{'0' * 32}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-1", None),
        (f"0-{TRACE_ID}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}", None),
        (f" {TRACEPARENT}", None),
        (f"{TRACEPARENT}\n", None),
        (f"{TRACEPARENT}, {TRACEPARENT}", None),  # sent twice
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_by_the_letter_or_not_at_all(value, expected):
    assert parse_traceparent(value) == expected


def test_a_tracestate_is_passed_on_as_it_came():
    trace = received({"traceparent": TRACEPARENT, "tracestate": "a=1,b=2 , c=3"}).trace

    assert trace == Trace(TRACE_ID, SPAN_ID, 1, "a=1,b=2 , c=3")
    assert dict(inject(Context(trace=trace), NOW))["tracestate"] == "a=1,b=2 , c=3"


def test_a_tracestate_without_a_traceparent_is_dropped():
    assert received({"tracestate": "a=1"}).trace is None
    assert received({"traceparent": "broken", "tracestate": "a=1"}).trace is None


# -- there and back

IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
HEX = "0123456789abcdef"


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=digits, max_size=digits).filter(lambda text: text.strip("0"))


TRACES = st.builds(
    Trace, trace_id=hexadecimal(32), span_id=hexadecimal(16), flags=st.integers(0, 1), state=st.just("") | IDS
)
CONTEXTS = st.builds(
    Context,
    deadline=st.none() | st.integers(0, 86_400_000).map(lambda ms: ms / 1000),
    trace=st.none() | TRACES,
    request_id=st.just("") | IDS,
    priority=st.integers(-99_999, 99_999),
    tenant=st.just("") | IDS,
    attempt=st.integers(1, 99_999),
    key=st.none() | IDS,
    baggage=st.just("") | IDS,
    service=st.just("payments"),
    operation=st.just("payments.charge"),
)


@given(CONTEXTS)
def test_what_is_sent_to_a_sibling_is_what_it_gets(context):
    got = extract(dict(inject(context, 0.0)), 0.0, "payments", "payments.charge", trusted=True)

    # A deadline is rounded down to whole milliseconds.
    assert (got.deadline is None) == (context.deadline is None)
    if got.deadline is not None and context.deadline is not None:
        assert 0 <= context.deadline - got.deadline <= 0.001
        context = Context(**{name: getattr(context, name) for name in Context.__struct_fields__} | {"deadline": None})
        got = Context(**{name: getattr(got, name) for name in Context.__struct_fields__} | {"deadline": None})
    assert got == context


@given(TRACES)
def test_a_trace_goes_into_one_header_and_comes_back(trace):
    assert parse_traceparent(trace.traceparent, trace.state) == trace


@given(st.dictionaries(st.sampled_from([name for name, _ in SENT]), st.text(max_size=200)), st.booleans())
def test_whatever_was_sent_a_request_begins(headers, trusted):
    context = received(headers, trusted=trusted)

    assert (context.service, context.operation) == ("payments", "payments.charge")
    assert context.attempt >= 1
    assert all(value.isprintable() for name, value in inject(context, NOW) if name.startswith("ropewalk-"))
