"""What `benchmarks.wire` measures goes the way that the hotel's requests go: the same filters, with the same settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ropewalk.filters.background import Background
from ropewalk.filters.deadline import Deadline
from ropewalk.runtime import process
from ropewalk.testing import World

CHECKOUT = Path(__file__).resolve().parents[2]
HOTEL = CHECKOUT / "examples" / "hotel"


@pytest.fixture
def stacks(monkeypatch):
    """`stacks(system)`: a row for each filter of each server stack and each client stack that its processes compose."""

    def of(system: Any, **options: Any) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
        made: dict[str, set[tuple[Any, ...]]] = {"server_stack": set(), "client_stack": set()}
        with monkeypatch.context() as patch:
            for name, found in made.items():
                patch.setattr(process, name, partial(_seen, getattr(process, name), found))
            with World(system, **options):
                pass
        return made["server_stack"], made["client_stack"]

    return of


def _seen(make: Any, found: set[tuple[Any, ...]], **said: Any) -> Any:
    stack = make(**said)
    # What is done in the background is accepted after all the rest, where an operation is declared so.
    found.add(tuple(map(_row, (each for each in stack if not isinstance(each, Background)))))
    return stack


def _row(filter: Any) -> tuple[Any, ...]:
    if isinstance(filter, Deadline):
        return type(filter), filter._timeout, filter._unless_given
    return (type(filter),)


def test_an_operation_that_is_measured_has_the_filters_of_the_hotels(stacks, monkeypatch):
    monkeypatch.syspath_prepend(str(HOTEL))
    monkeypatch.syspath_prepend(str(CHECKOUT))
    from benchmarks.wire.services import Gateway, Rooms

    measured, edge = stacks([Gateway, Rooms])
    hotel, edges = stacks(HOTEL / "system.toml")

    assert measured == hotel
    assert _kinds(edge) == _kinds(edges)  # the hotel's edges have timeouts of their own


def _kinds(rows: set[tuple[Any, ...]]) -> set[tuple[type, ...]]:
    return {tuple(each[0] for each in row) for row in rows}
