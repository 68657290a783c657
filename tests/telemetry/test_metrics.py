"""Numbers about calls: what is counted, and that the page is OpenMetrics by the strict letter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ropewalk.telemetry.metrics import BOUNDS, Calls, Collector, Families, Lag, counter, exposition, gauge, merged

LABELS = ("service", "operation", "outcome", "status", "le")


def calls(service: str = "payments") -> Calls:
    return Calls("ropewalk_server", "Requests", (("service", service),))


def call(meter: Calls, operation: str, outcome: str = "success", status: int = 200, seconds: float = 0.003) -> None:
    meter.began(operation)
    meter.ended(operation, outcome, status, seconds)


def page(*collectors: Collector) -> str:
    return exposition(collectors).decode()


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """What a strict reader finds: sample -> label values -> number. Raises ValueError for what is not OpenMetrics."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in LABELS if name in sample.labels)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


# -- what is counted


def test_ended_calls_are_counted_by_operation_outcome_and_status():
    meter = calls()

    call(meter, "payments.charge")
    call(meter, "payments.charge")
    call(meter, "payments.charge", "caller", 409)
    call(meter, "payments.refund", "failure", 503)

    assert read(page(meter))["ropewalk_server_requests_total"] == {
        ("payments", "payments.charge", "success", "200"): 2.0,
        ("payments", "payments.charge", "caller", "409"): 1.0,
        ("payments", "payments.refund", "failure", "503"): 1.0,
    }


def test_what_has_begun_and_not_ended_is_in_flight():
    meter = calls()

    meter.began("payments.charge")
    meter.began("payments.charge")
    meter.began("payments.refund")
    meter.ended("payments.charge", "success", 200, 0.1)

    assert meter.in_flight == 2
    assert read(page(meter))["ropewalk_server_requests_in_flight"] == {
        ("payments", "payments.charge"): 1.0,
        ("payments", "payments.refund"): 1.0,
    }


@pytest.mark.parametrize(
    ("seconds", "first"),
    [(0.0, "0.0005"), (0.0005, "0.0005"), (0.00051, "0.001"), (0.003, "0.005"), (10.0, "10.0"), (11.0, "+Inf")],
)
def test_a_call_is_in_the_bucket_that_holds_it_and_in_all_above(seconds, first):
    meter = calls()

    call(meter, "payments.charge", seconds=seconds)

    found = read(page(meter))
    bounds = [*map(str, BOUNDS), "+Inf"]
    counted = {le: number for (*_, le), number in found["ropewalk_server_request_duration_seconds_bucket"].items()}
    assert counted == {le: float(bounds.index(le) >= bounds.index(first)) for le in bounds}
    assert found["ropewalk_server_request_duration_seconds_count"] == {("payments", "payments.charge"): 1.0}
    assert found["ropewalk_server_request_duration_seconds_sum"] == {("payments", "payments.charge"): seconds}


def test_nothing_is_shown_of_an_operation_nobody_called():
    assert read(page(calls())) == {}


def test_the_page_says_the_type_the_unit_and_what_is_meant():
    meter = calls()
    call(meter, "payments.charge", seconds=0.25)

    lines = page(meter).splitlines()

    assert [line for line in lines if line.startswith("#")] == [
        "# HELP ropewalk_server_requests Requests ended",
        "# TYPE ropewalk_server_requests counter",
        "# HELP ropewalk_server_requests_in_flight Requests at work",
        "# TYPE ropewalk_server_requests_in_flight gauge",
        "# HELP ropewalk_server_request_duration_seconds How long requests took",
        "# TYPE ropewalk_server_request_duration_seconds histogram",
        "# UNIT ropewalk_server_request_duration_seconds seconds",
        "# EOF",
    ]


def test_the_lag_is_the_last_one_and_the_worst_since_the_last_look():
    lag = Lag()
    for seconds in (0.1, 0.5, -0.2, 0.3):
        lag.observe(seconds)

    assert read(page(lag)) == {
        "ropewalk_reactor_lag_seconds": {(): 0.3},
        "ropewalk_reactor_lag_worst_seconds": {(): 0.5},
    }
    assert read(page(lag))["ropewalk_reactor_lag_worst_seconds"] == {(): 0.0}


# -- one page of several


def test_services_of_one_process_share_their_families():
    payments, rooms = calls("payments"), calls("rooms")
    call(payments, "payments.charge")
    call(rooms, "rooms.hold")

    text = page(payments, rooms, Lag())

    assert text.count("# TYPE ropewalk_server_requests counter") == 1
    assert read(text)["ropewalk_server_requests_total"] == {
        ("payments", "payments.charge", "success", "200"): 1.0,
        ("rooms", "rooms.hold", "success", "200"): 1.0,
    }


def test_merged_pages_add_up_and_of_lags_the_worst_is_kept():
    pages = []
    for worker, lag_seconds in ((1, 0.25), (2, 0.5), (3, 0.125)):
        meter, lag = calls(), Lag()
        for _ in range(worker):
            call(meter, "payments.charge", seconds=0.25)
        if worker == 3:
            call(meter, "payments.refund", "failure", 503, seconds=20.0)
        meter.began("payments.charge")
        lag.observe(lag_seconds)
        pages.append(page(meter, lag))

    found = read(merged(pages).decode())

    assert found["ropewalk_server_requests_total"] == {
        ("payments", "payments.charge", "success", "200"): 6.0,
        ("payments", "payments.refund", "failure", "503"): 1.0,
    }
    assert found["ropewalk_server_requests_in_flight"] == {
        ("payments", "payments.charge"): 3.0,
        ("payments", "payments.refund"): 0.0,
    }
    assert found["ropewalk_server_request_duration_seconds_sum"] == {
        ("payments", "payments.charge"): 1.5,
        ("payments", "payments.refund"): 20.0,
    }
    assert found["ropewalk_server_request_duration_seconds_bucket"][("payments", "payments.charge", "0.25")] == 6.0
    assert found["ropewalk_reactor_lag_seconds"] == {(): 0.5}
    assert found["ropewalk_reactor_lag_worst_seconds"] == {(): 0.5}


def test_what_workers_read_in_one_database_is_not_added():
    pages = [
        page(
            Families(
                [
                    gauge("ropewalk_dead_letters", "Dead letters", ("service",), {("payments",): dead}),
                    counter("ropewalk_event_tries", "Events", ("service",), {("payments",): 2}),
                ]
            )
        )
        for dead in (3, 4)
    ]

    found = read(merged(pages).decode())

    assert {("payments",): 4} == found["ropewalk_dead_letters"]
    assert {("payments",): 4} == found["ropewalk_event_tries_total"]


def test_merging_one_page_changes_nothing():
    meter = calls()
    call(meter, "payments.charge")

    assert merged([page(meter, Lag())]).decode() == page(meter, Lag())


def test_merging_no_pages_is_an_empty_page():
    assert merged([]) == b"# EOF\n"


def test_what_is_no_page_is_refused():
    with pytest.raises(ValueError, match="EOF"):
        merged(["ropewalk_server_requests_total 1\n"])


# -- whatever happens

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["payments.charge", "payments.refund", 'odd"name\\with\nall']),
        st.sampled_from(["success", "caller", "failure", "rejected", "cancelled"]),
        st.sampled_from([200, 404, 429, 499, 503]),
        st.floats(0, 100),
    ),
    max_size=30,
)


def after(events: Any) -> Calls:
    meter = calls()
    for event in events:
        call(meter, *event)
    return meter


@given(EVENTS)
def test_whatever_was_counted_a_strict_reader_reads_it_and_counts_agree(events):
    found = read(page(after(events)))

    assert sum(found.get("ropewalk_server_requests_total", {}).values()) == len(events)
    assert sum(found.get("ropewalk_server_request_duration_seconds_count", {}).values()) == len(events)
    assert set(found.get("ropewalk_server_requests_in_flight", {}).values()) <= {0.0}


@given(EVENTS, EVENTS)
def test_it_makes_no_difference_whether_one_process_counted_or_two(first, second):
    together = read(page(after(first + second)))
    apart = read(merged([page(after(first)), page(after(second))]).decode())

    together.pop("ropewalk_server_request_duration_seconds_sum", None)  # floats: the order of addition shows
    apart.pop("ropewalk_server_request_duration_seconds_sum", None)
    assert apart == together
