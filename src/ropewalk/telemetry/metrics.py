"""Numbers about calls and the reactor, counted in the reactor's thread without locks; the page of all numbers.

`prometheus_client` renders and parses OpenMetrics; its own counters lock per increment, which a request's path has no
need of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Seconds; half a millisecond to ten seconds in about equal ratios, the upper end the default deadline.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


# What all processes of a service read in one database: their numbers are one, and the largest the latest.
SHARED = frozenset(
    f"ropewalk_{what}" for what in ("outbox_events", "outbox_oldest_seconds", "dead_letters", "parked_keys", "sagas")
)

Labelled = Mapping[tuple[str, ...], float]  # values of labels -> number


class Collector(Protocol):
    """Whatever has numbers to show."""

    def collect(self) -> Iterable[Metric]:
        """Its metric families, now."""


class _Cell:
    """The numbers of one operation."""

    __slots__ = ("buckets", "in_flight", "outcomes", "sum")

    def __init__(self) -> None:
        self.in_flight = 0
        self.outcomes: dict[tuple[str, int], int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0


class Calls:
    """Counts calls on one side; a Meter for `filters.observe` and a collector for prometheus_client.

    Bounded: operations are those declared, statuses those an operation can answer.
    """

    def __init__(self, prefix: str, what: str, labels: tuple[tuple[str, str], ...] = ()) -> None:
        """`prefix` of the metric names; `what` is counted, for the help text; `labels` (name, value) of all of them."""
        self._prefix = prefix
        self._what = what
        self._labels = labels
        self._cells: dict[str, _Cell] = {}

    def began(self, operation: str) -> None:
        """A call of `operation` began."""
        cell = self._cells.get(operation)
        if cell is None:
            cell = self._cells[operation] = _Cell()
        cell.in_flight += 1

    def ended(self, operation: str, outcome: str, status: int, seconds: float) -> None:
        """It ended, after `seconds`."""
        cell = self._cells[operation]
        cell.in_flight -= 1
        key = (outcome, status)
        cell.outcomes[key] = cell.outcomes.get(key, 0) + 1
        cell.buckets[bisect_left(BOUNDS, seconds)] += 1
        cell.sum += seconds

    @property
    def in_flight(self) -> int:
        """Calls that began and have not ended."""
        return sum(cell.in_flight for cell in self._cells.values())

    def collect(self) -> Iterator[Metric]:
        """The metric families, operations sorted."""
        names = [name for name, _ in self._labels]
        values = [value for _, value in self._labels]
        total = CounterMetricFamily(
            f"{self._prefix}_requests", f"{self._what} ended", labels=[*names, "operation", "outcome", "status"]
        )
        current = GaugeMetricFamily(
            f"{self._prefix}_requests_in_flight", f"{self._what} at work", labels=[*names, "operation"]
        )
        duration = HistogramMetricFamily(
            f"{self._prefix}_request_duration_seconds",
            f"How long {self._what.lower()} took",
            labels=[*names, "operation"],
            unit="seconds",
        )
        for operation, cell in sorted(self._cells.items()):
            current.add_metric([*values, operation], cell.in_flight)
            for (outcome, status), count in sorted(cell.outcomes.items()):
                total.add_metric([*values, operation, outcome, str(status)], count)
            buckets, seen = [], 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), cell.buckets, strict=True):
                seen += count
                buckets.append((bound, seen))
            duration.add_metric([*values, operation], buckets, cell.sum)
        yield total
        yield current
        yield duration


class Lag:
    """How late the reactor calls back: the sign of an operation that keeps its thread."""

    def __init__(self) -> None:
        self._last = 0.0
        self._worst = 0.0

    def observe(self, seconds: float) -> None:
        """A callback came `seconds` late."""
        self._last = max(0.0, seconds)
        self._worst = max(self._worst, self._last)

    def collect(self) -> Iterator[Metric]:
        """The last lag and the worst since the last look."""
        last = GaugeMetricFamily("ropewalk_reactor_lag_seconds", "How late the reactor was at the last probe")
        last.add_metric([], self._last)
        worst = GaugeMetricFamily("ropewalk_reactor_lag_worst_seconds", "The worst lag since the last scrape")
        worst.add_metric([], self._worst)
        self._worst = 0.0
        yield last
        yield worst


def counter(name: str, what: str, labels: Sequence[str], numbers: Labelled) -> Metric:
    """A family of numbers that only grow; "_total" is added to its name."""
    return _filled(CounterMetricFamily(name, what, labels=labels), numbers)


def gauge(name: str, what: str, labels: Sequence[str], numbers: Labelled) -> Metric:
    """A family of numbers that are true of a moment."""
    return _filled(GaugeMetricFamily(name, what, labels=labels), numbers)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, numbers: Labelled) -> Metric:
    for values, number in sorted(numbers.items()):
        family.add_metric(values, number)
    return family


def exposition(collectors: Iterable[Collector]) -> bytes:
    """The page of these collectors in OpenMetrics form; what several of them count under one name stands together."""
    families: dict[str, Metric] = {}
    for collector in collectors:
        for family in collector.collect():
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples.extend(family.samples)
    return bytes(generate_latest(cast(Any, Families(families.values()))))


def merged(pages: Iterable[str]) -> bytes:
    """Several processes' pages as one: samples of the same name and labels are added, lags take the worst.

    So does what they read in one database.

    Raises ValueError for a page that is not OpenMetrics.
    """
    families: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            families.setdefault(family.name, family)
            found = samples.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                value, before = float(sample.value), found.get(key, 0.0)
                worst = "_lag_" in family.name or family.name in SHARED
                found[key] = max(before, value) if worst else before + value
    whole = []
    for name, family in families.items():
        metric = Metric(family.name, family.documentation, family.type, family.unit)
        for (sample_name, labels), value in samples[name].items():
            metric.add_sample(sample_name, dict(labels), value)
        whole.append(metric)
    return exposition([Families(whole)])


class Families:
    """Families that are known."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Those."""
        return self._families
