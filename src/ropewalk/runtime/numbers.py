"""Numbers about events and sagas: what this process did, and how much lies in the databases of its services.

The first is counted where it happens, and shown at once. The second is looked up when somebody asks; a database that
does not answer soon is left out, and the log says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from msgspec import Struct
from prometheus_client.core import Metric
from twisted.logger import Logger

from ..driver import settled
from ..events import dead_letters
from ..events.dead_letters import Standing
from ..sagas import journal
from ..store import Database, Transaction, outbox
from ..telemetry.metrics import Collector, Families, Labelled, counter, gauge
from .backstage import Backstage

PATIENCE = 0.5  # seconds for a database: a worker has one to show its numbers
UNSUBSCRIBED = "unsubscribed"  # stands for the subscription of events that nobody had subscribed to


class Stored(Struct, frozen=True):
    """What lies in the database of one service."""

    backlog: int  # events not yet handed to the broker
    oldest: float  # seconds for which the oldest has waited
    letters: Mapping[str, Standing]  # by subscription
    sagas: Mapping[str, int]  # that have not ended, by what they do


class Counted:
    """What the relays, subscriptions and sagas of a process did."""

    def __init__(self, backstage: Backstage) -> None:
        self._backstage = backstage

    def collect(self) -> Iterator[Metric]:
        """Its metric families."""
        said = self._backstage
        yield counter(
            "ropewalk_events_handed_on",
            "Events handed to the broker, or given up because nobody had subscribed",
            ("service",),
            {(name,): relay.handed_on for name, relay in said.relays.items()},
        )
        consumers = {(name, each.said.group): each for name, mine in said.consumers.items() for each in mine}
        labels = ("service", "subscription")
        yield counter(
            "ropewalk_event_tries",
            "Events given to a subscription, by what came of it: handled, again, dead",
            (*labels, "outcome"),
            {(*who, outcome): count for who, each in consumers.items() for outcome, count in each.tries.items()},
        )
        in_hand: Labelled = {who: each.in_hand for who, each in consumers.items()}
        yield gauge("ropewalk_events_in_hand", "Events that came and are neither handled nor dead", labels, in_hand)
        yield gauge(
            "ropewalk_subscription_lag_seconds",
            "How long ago the oldest event in hand was published",
            labels,
            {who: each.lag for who, each in consumers.items()},
        )
        runners, labels = said.runners.items(), ("service", "saga")
        yield counter(
            "ropewalk_sagas_started",
            "Sagas and jobs taken up for the first time",
            labels,
            {(name, saga): count for name, runner in runners for saga, count in runner.started.items()},
        )
        yield counter(
            "ropewalk_sagas_ended",
            "Sagas and jobs that ended or were parked, by state",
            (*labels, "state"),
            {(name, *how): count for name, runner in runners for how, count in runner.ended.items()},
        )
        yield counter(
            "ropewalk_saga_steps",
            "Steps of sagas, by kind, and by outcome: done, failed",
            (*labels, "kind", "outcome"),
            {(name, *how): count for name, runner in runners for how, count in runner.steps.items()},
        )


async def stored(backstage: Backstage) -> Collector:
    """What lies in the databases, as far as they answer."""
    databases = backstage.databases
    answers = await settled(*(_look(database) for database in databases.values()))
    found: dict[str, Stored] = {}
    for name, each in zip(databases, answers, strict=True):
        if isinstance(each, Stored):
            found[name] = each
        else:
            _log.warn("metrics of the database of {service} are left out: {error!r}", service=name, error=each)
    return Families(_families(found, backstage))


async def _look(database: Database) -> Stored:
    async with asyncio.timeout(PATIENCE):
        return await database.apart(_stored)


def _stored(tx: Transaction) -> Stored:
    backlog, oldest = outbox.backlog(tx)
    age = 0.0 if oldest is None else max(0.0, tx.database.now() - oldest)
    return Stored(backlog, age, dead_letters.standing(tx), journal.census(tx))


def _families(found: Mapping[str, Stored], backstage: Backstage) -> list[Metric]:
    letters: dict[tuple[str, ...], Standing] = {}
    for name, each in found.items():
        known = dict.fromkeys((consumer.said.group for consumer in backstage.consumers[name]), Standing())
        for subscription, standing in (known | dict(each.letters)).items():
            letters[name, subscription or UNSUBSCRIBED] = standing
    backlog: Labelled = {(name,): each.backlog for name, each in found.items()}
    oldest: Labelled = {(name,): each.oldest for name, each in found.items()}
    runners = [name for name in found if name in backstage.runners]
    sagas: Labelled = {(name, state): count for name in runners for state, count in found[name].sagas.items()}
    of_subscription = ("service", "subscription")
    return [
        gauge("ropewalk_outbox_events", "Events not yet handed to the broker", ("service",), backlog),
        gauge("ropewalk_outbox_oldest_seconds", "How long the oldest of them waits", ("service",), oldest),
        gauge(
            "ropewalk_dead_letters",
            "Events that could not be handled, and those that wait behind them",
            of_subscription,
            {who: standing.letters for who, standing in letters.items()},
        ),
        gauge(
            "ropewalk_parked_keys",
            "Keys whose events wait until a dead letter is replayed or dropped",
            of_subscription,
            {who: standing.keys for who, standing in letters.items()},
        ),
        gauge("ropewalk_sagas", "Sagas and jobs that have not ended, by state", ("service", "state"), sagas),
    ]


_log = Logger("ropewalk.runtime")
