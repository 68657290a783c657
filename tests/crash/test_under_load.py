"""Many bookings at a time, while processes are killed and what they stand on breaks, at random: all end as they should."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Any

import pytest
from machines import System, wait_until
from money import LIMIT

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

ALONE = {name: [name] for name in ("trips", "rooms", "money", "diary")}  # a SQLite file has one owner
SHARED = {"front": ["trips"], "back": ["rooms", "money", "diary"]}
CLIENTS = 20  # each waits for what its booking comes to
TRAVELLERS = 7  # so that bookings of one are under way at a time, ordered by several clients
LUCK = (1, 8)  # bookings that end between two misfortunes
SETTLES = 180.0  # seconds for all to be over, after the last of them


@pytest.mark.parametrize(
    ("backend", "processes", "workers"),
    [
        pytest.param("sqlite", ALONE, 1, id="sqlite"),
        pytest.param("rabbitmq", SHARED, 2, id="rabbitmq", marks=[pytest.mark.backend("postgresql"), pytest.mark.backend("rabbitmq")]),
        pytest.param("redis", SHARED, 2, id="redis", marks=[pytest.mark.backend("postgresql"), pytest.mark.backend("redis")]),
    ],
)  # fmt: skip
def test_whoever_dies_every_booking_ends_as_it_should(systems, say, full, seed, backend, processes, workers):
    system = systems(backend, processes, workers)
    system.up()
    bookings = {f"trip-{number}": LIMIT + 1 if number % 8 == 7 else 50 for number in range(1000 if full else 200)}
    travellers = {trip: f"traveller-{number % TRAVELLERS}" for number, trip in enumerate(bookings)}
    random, happened = Random(seed), Counter[str]()

    with clients(system) as book:
        began = time.monotonic()
        booking = [book(trip, travellers[trip], amount) for trip, amount in bookings.items()]
        ended = 0
        while ended < len(bookings) and not any(map(failed, booking)):
            happened[misfortune(system, random)] += 1
            enough = min(ended + random.randint(*LUCK), len(bookings))
            wait_until(
                lambda enough=enough: count_ended(booking) >= enough,
                lambda: f"{backend} goes on:\n{system.log}",
                SETTLES,
            )
            ended = count_ended(booking)
            if happened.total() % 10 == 0:
                say(f"{backend}: {ended} of {len(bookings)} bookings after {time.monotonic() - began:.0f} s")
        answers = dict(each.result() for each in booking)

    last = time.monotonic()
    wait_until(lambda: system.over(), lambda: f"all is over; the log:\n{system.log}", SETTLES)
    settled = time.monotonic() - last
    expected = {trip: "completed" if amount <= LIMIT else "compensated" for trip, amount in bookings.items()}
    assert expected == answers
    system.audit(expected, travellers)
    what = ", ".join(f"{count} x {each}" for each, count in sorted(happened.items()))
    say(f"{backend}: {len(bookings)} bookings in {last - began:.0f} s, over {settled:.1f} s later; {what}")


@contextmanager
def clients(system: System) -> Iterator[Callable[[str, str, int], Future[tuple[str, str]]]]:
    """`book(trip, traveller, amount)`: what that came to, in the end, for somebody who wants to know.

    They ask until the order is taken, and then until they hear; all of them give up when this ends before.
    """
    given_up = threading.Event()

    def insist(ask: Callable[[], Any]) -> Any:
        return wait_until(lambda: given_up.is_set() or ask(), lambda: f"an answer; the log:\n{system.log}", SETTLES)

    def book(trip: str, traveller: str, amount: int) -> tuple[str, str]:
        insist(lambda: system.order(trip, traveller, amount))
        return trip, insist(lambda: system.outcome(trip))

    with ThreadPoolExecutor(CLIENTS) as pool:
        try:
            yield partial(pool.submit, book)
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)


def misfortune(system: System, random: Random) -> str:
    """Something breaks, at any moment; what it was."""
    time.sleep(random.uniform(0, 0.5))
    kind, others = random.random(), system.backend.misfortunes()
    if others and kind < 0.25:
        what = random.choice(sorted(others))
        others[what]()
        return what
    if kind > 0.95:
        system.end_family()
        system.up()
        return "all killed"
    victim = random.choice(wait_until(system.children, lambda: f"anything runs; the log:\n{system.log}"))
    with suppress(ProcessLookupError):  # it has ended by itself, as workers do without their parent
        os.kill(victim, signal.SIGKILL)
    return "one killed"


def count_ended(bookings: list[Future[Any]]) -> int:
    """How many have been heard of, or will not be."""
    return sum(booking.done() for booking in bookings)


def failed(booking: Future[Any]) -> bool:
    """Whether nobody has heard of it in time."""
    return booking.done() and booking.exception() is not None
