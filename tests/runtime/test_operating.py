"""What whoever runs a system asks its processes over HTTP, beneath `/-/ropewalk` of an internal listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ropewalk import (
    Conflict,
    Database,
    Event,
    Flow,
    Sagas,
    Service,
    Transaction,
    Unavailable,
    every,
    operation,
    post,
    saga,
    subscribe,
)
from ropewalk.testing import World

tables = sa.MetaData()
done = sa.Table("done", tables, sa.Column("n", sa.Integer, primary_key=True), sa.Column("text", sa.String(60)))


class Cooked(Event, topic="kitchen.cooked"):
    dish: str


class Kitchen(Service):
    """Cooks."""

    tables = tables
    cold = False
    spoilt = False  # what is cooked, and what is written down

    def __init__(self, database: Database, sagas: Sagas) -> None:
        self._database, self._sagas = database, sagas

    @operation
    async def order(self, dish: str) -> str:
        return await self._sagas.start(self.cook, dish, id=f"order/{dish}")

    @operation
    async def serve(self, dish: str) -> None:
        await self._database.run(self._publish, dish)

    @post("/washings", background=True, raises=(Conflict,))
    async def wash(self, what: str, count: int) -> None:
        raise Conflict(f"{count} {what}s broke.")

    @every(300)
    async def clean(self) -> None: ...

    @saga
    async def cook(self, flow: Flow, dish: str) -> str:
        await flow.transaction(self._note, dish, undo=self._away)
        if type(self).spoilt:
            raise ZeroDivisionError("nobody knows the recipe")
        how = await flow.wait("how")
        await flow.step(self._plate, dish)
        return f"{dish} {how}"

    @subscribe(Cooked)
    async def taste(self, event: Cooked) -> None:
        if type(self).cold:
            raise Unavailable("It is cold.")
        if type(self).spoilt:
            raise Conflict("It is spoilt.")

    async def _plate(self, dish: str) -> str:
        if dish == "hot":
            raise OSError("the plate broke")
        return dish

    def _note(self, tx: Transaction, dish: str) -> int:
        tx.execute(done.insert().values(text=dish))
        return 1

    def _away(self, tx: Transaction, result: int) -> None:
        tx.execute(done.insert().values(text="away"))

    def _publish(self, tx: Transaction, dish: str) -> None:
        tx.publish(Cooked(dish=dish), key="table-1")


class Told:
    """A world, and what its kitchen answers an operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kitchen = world.client(Kitchen)

    def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        """Status and JSON of what is answered beneath `/-/ropewalk`."""

        async def asked() -> tuple[int, Any]:
            reply = await self.world.http.request(method, f"sibling://kitchen/-/ropewalk{path}", **options)
            return reply.code, await reply.json()

        return self.world.run(asked())

    def get(self, path: str) -> Any:
        status, body = self.ask(path)
        assert 200 == status, body
        return body

    def state(self, id: str) -> str:
        return self.get(f"/sagas/kitchen/{id}")["state"]

    def order(self, dish: str) -> None:
        self.world.run(self.kitchen.order(dish))
        self.world.advance(3)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, flush_logged_errors: Any) -> Iterator[Told]:
    monkeypatch.setattr(Kitchen, "cold", False)
    monkeypatch.setattr(Kitchen, "spoilt", False)
    with World([Kitchen], seed=3, instances=1) as world:
        yield Told(world)
        world.flush_failures(OSError, ZeroDivisionError)  # the kitchen's own mistakes
    flush_logged_errors()


# -- sagas


def test_sagas_are_listed_the_latest_first(told: Told):
    told.order("soup")
    told.order("fish")
    told.ask("/sagas/kitchen/order/soup/signal", "POST", json={"name": "how", "value": "mild"})
    told.world.advance(3)

    assert [("order/fish", "running", "how"), ("order/soup", "completed", "")] == [
        (each["id"], each["state"], each["waits"]) for each in told.get("/sagas")
    ]
    assert ["order/soup"] == [each["id"] for each in told.get("/sagas?service=kitchen&state=completed")]
    assert ["order/fish"] == [each["id"] for each in told.get("/sagas?limit=1")]


def test_what_is_done_at_times_is_listed_once_asked_for(told: Told):
    told.world.advance(310)

    assert [] == told.get("/sagas")
    jobs = told.get("/sagas?jobs=true")
    assert {"kitchen.clean"} == {each["saga"] for each in jobs}
    assert {} == told.get(f"/sagas/kitchen/{jobs[0]['id']}")["arguments"]


def test_what_is_done_in_the_background_says_what_it_was_asked(told: Told):
    told.world.run(told.kitchen.wash("plate", 7))
    told.world.advance(1)

    (job,) = told.get("/sagas?state=failed")

    assert ("kitchen.wash", "Conflict: 7 plates broke.") == (job["saga"], job["error"])
    assert {"what": "plate", "count": 7} == told.get(f"/sagas/kitchen/{job['id']}")["arguments"]


def test_a_saga_is_shown_with_what_it_did_and_what_it_waits_for(told: Told):
    told.order("soup")

    whole = told.get("/sagas/kitchen/order/soup")

    assert ("kitchen.cook", {"dish": "soup"}, "how", None) == (
        whole["saga"],
        whole["arguments"],
        whole["waits"],
        whole["result"],
    )
    assert [(1, "", "_note", 1, "transaction", "done", 1)] == [
        tuple(step[name] for name in ("number", "branch", "step", "use", "kind", "state", "result"))
        for step in whole["steps"]
    ]


def test_a_step_that_is_tried_again_says_what_it_met(told: Told):
    told.order("hot")
    told.ask("/sagas/kitchen/order/hot/signal", "POST", json={"name": "how", "value": "very"})
    told.world.advance(3)

    (now,) = told.get("/sagas/kitchen/order/hot")["now"]

    assert ("_plate", "OSError: the plate broke") == (now["step"], now["error"])
    assert now["attempt"] > 1


def test_a_parked_saga_says_why_and_goes_on_once_that_is_mended(told: Told):
    Kitchen.spoilt = True
    told.order("soup")
    parked = told.get("/sagas/kitchen/order/soup")
    Kitchen.spoilt = False

    status, before = told.ask("/sagas/kitchen/order/soup/retry", "POST")
    told.world.advance(3)

    assert ("parked", "ZeroDivisionError: nobody knows the recipe") == (parked["state"], parked["error"])
    assert (200, "parked") == (status, before["state"])
    assert "running" == told.state("order/soup")


def test_a_cancelled_saga_undoes_what_it_did(told: Told):
    told.order("soup")

    assert 200 == told.ask("/sagas/kitchen/order/soup/cancel", "POST")[0]
    told.world.advance(3)

    whole = told.get("/sagas/kitchen/order/soup")
    assert ("compensated", True) == (whole["state"], whole["cancelled"])
    assert ["_note", "undo:_note"] == [step["step"] for step in whole["steps"]]


def test_a_parked_saga_that_is_cancelled_undoes_what_it_did(told: Told):
    Kitchen.spoilt = True
    told.order("soup")
    Kitchen.spoilt = False

    assert "parked" == told.ask("/sagas/kitchen/order/soup/cancel", "POST")[1]["state"]
    told.world.advance(3)

    assert "compensated" == told.state("order/soup")


@pytest.mark.parametrize(
    ("what", "body", "expected"),
    [
        ("retry", None, "order/soup is completed, not parked: there is nothing to retry."),
        ("cancel", None, "order/soup is completed: there is nothing to cancel."),
        ("signal", {"name": "how"}, "order/soup is completed: nobody there will hear of 'how'."),
    ],
)
def test_what_has_ended_stays_as_it_is(told: Told, what: str, body: Any, expected: str):
    told.order("soup")
    told.ask("/sagas/kitchen/order/soup/signal", "POST", json={"name": "how"})
    told.world.advance(3)

    status, problem = told.ask(f"/sagas/kitchen/order/soup/{what}", "POST", json=body)

    assert (409, expected) == (status, problem["detail"])


def test_a_job_has_nothing_to_cancel(told: Told):
    told.world.advance(310)
    job = told.get("/sagas?jobs=true")[0]["id"]

    status, problem = told.ask(f"/sagas/kitchen/{job}/cancel", "POST")

    assert (404, f"There is no saga '{job}'; that is a kitchen.clean, which has nothing to undo.") == (
        status,
        problem["detail"],
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/sagas/kitchen/order/cake", "There is no saga 'order/cake'."),
        ("/sagas?service=cellar", "No service 'cellar' with a database is in this process; there are: kitchen."),
        ("/events/dead-letters/kitchen/7", "There is no dead letter 7."),
    ],
)
def test_what_is_not_there_is_a_problem(told: Told, path: str, expected: str):
    assert (404, expected) == (lambda status, body: (status, body["detail"]))(*told.ask(path))


def test_a_state_that_there_is_not_is_refused(told: Told):
    assert 422 == told.ask("/sagas?state=asleep")[0]


# -- events


def test_subscriptions_tell_how_they_stand(told: Told):
    told.world.run(told.kitchen.serve("soup"))
    told.world.advance(1)
    Kitchen.spoilt = True
    for dish in ("fish", "cake"):
        told.world.run(told.kitchen.serve(dish))
    told.world.advance(1)

    (line,) = told.get("/events/subscriptions")

    assert {
        "service": "kitchen",
        "subscription": "kitchen.taste",
        "topic": "kitchen.cooked",
        "lag": 0.0,
        "in_hand": 0,
        "handled": 1,
        "again": 0,
        "dead": 1,
        "dead_letters": 2,
        "parked_keys": 1,
    } == line


def spoil(told: Told) -> list[dict[str, Any]]:
    """A dead letter, and one that waits behind it."""
    Kitchen.spoilt = True
    for dish in ("fish", "cake"):
        told.world.run(told.kitchen.serve(dish))
    told.world.advance(1)
    Kitchen.spoilt = False
    return told.get("/events/dead-letters")


def test_dead_letters_are_listed_and_read(told: Told):
    first, second = spoil(told)

    whole = told.get(f"/events/dead-letters/kitchen/{first['number']}")

    assert [("kitchen.taste", "table-1", 1, "Conflict: It is spoilt."), ("kitchen.taste", "table-1", 0, "")] == [
        (each["subscription"], each["key"], each["attempts"], each["error"]) for each in (first, second)
    ]
    assert ({"dish": "fish"}, "kitchen.cooked.v1") == (whole["cloud_event"]["data"], whole["cloud_event"]["type"])


def test_replayed_dead_letters_are_handled_in_order(told: Told):
    first, _ = spoil(told)

    answer = told.ask("/events/dead-letters/kitchen/replay", "POST", json={"number": first["number"]})
    told.world.advance(1)

    assert (200, {"count": 1}) == answer
    assert [] == told.get("/events/dead-letters")
    assert 2 == told.get("/events/subscriptions")[0]["handled"]


def test_a_dropped_one_is_told_and_what_waited_goes_on(told: Told):
    first, _ = spoil(told)

    status, dropped = told.ask(f"/events/dead-letters/kitchen/{first['number']}", "DELETE")
    told.world.advance(1)

    assert (200, {"dish": "fish"}) == (status, dropped["cloud_event"]["data"])
    assert [] == told.get("/events/dead-letters")
    assert 1 == told.get("/events/subscriptions")[0]["handled"]


# -- numbers


def numbers(told: Told) -> dict[str, dict[tuple[str, ...], float]]:
    """What `/metrics` says of events and sagas: name -> values of labels, without the service -> number."""

    async def asked() -> str:
        reply = await told.world.http.get("sibling://kitchen/metrics")
        return await reply.text()

    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(told.world.run(asked())):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "service")
            found.setdefault(sample.name.removeprefix("ropewalk_"), {})[labels] = sample.value
    return found


def test_metrics_tell_what_became_of_events(told: Told):
    told.world.run(told.kitchen.serve("soup"))
    told.world.advance(1)
    spoil(told)

    said = numbers(told)

    assert {("handled", "kitchen.taste"): 1, ("again", "kitchen.taste"): 0, ("dead", "kitchen.taste"): 1} == (
        said["event_tries_total"]
    )
    assert {(): 3} == said["events_handed_on_total"]
    assert [{("kitchen.taste",): 2}, {("kitchen.taste",): 1}] == [said["dead_letters"], said["parked_keys"]]
    assert [{(): 0}, {(): 0}] == [said["outbox_events"], said["outbox_oldest_seconds"]]
    assert [{("kitchen.taste",): 0}, {("kitchen.taste",): 0}] == [
        said["events_in_hand"],
        said["subscription_lag_seconds"],
    ]


def test_metrics_tell_what_became_of_sagas(told: Told):
    told.order("soup")
    told.order("fish")
    told.ask("/sagas/kitchen/order/soup/signal", "POST", json={"name": "how"})
    told.world.advance(3)
    Kitchen.spoilt = True
    told.order("cake")

    said = numbers(told)

    assert {("kitchen.cook",): 3} == said["sagas_started_total"]
    assert {("kitchen.cook", "completed"): 1, ("kitchen.cook", "parked"): 1} == said["sagas_ended_total"]
    assert {("running",): 0, ("waiting",): 1, ("parked",): 1} == said["sagas"]
    assert {
        ("transaction", "done", "kitchen.cook"): 3,
        ("wait", "done", "kitchen.cook"): 1,
        ("step", "done", "kitchen.cook"): 1,
    } == said["saga_steps_total"]


def test_an_event_that_is_tried_again_lags(told: Told):
    Kitchen.cold = True
    told.world.run(told.kitchen.serve("soup"))
    told.world.advance(10)

    said = numbers(told)

    assert {("kitchen.taste",): 1} == said["events_in_hand"]
    assert 9 < said["subscription_lag_seconds"]["kitchen.taste",] < 12
    assert said["event_tries_total"]["again", "kitchen.taste"] > 1


def test_a_backlog_is_seen_while_the_broker_is_away(told: Told):
    told.world.crash("broker")
    for dish in ("soup", "fish"):
        told.world.run(told.kitchen.serve(dish))
    told.world.advance(20)

    said = numbers(told)

    assert {(): 2} == said["outbox_events"]
    assert 19 <= said["outbox_oldest_seconds"][()] <= 22


def test_a_database_that_is_away_is_left_out(told: Told):
    told.order("soup")
    told.world.crash("kitchen/database")

    said = numbers(told)

    assert {("kitchen.cook",): 1} == said["sagas_started_total"]
    assert {} == said.get("sagas", {})


# -- where it is


def test_a_page_of_another_site_changes_nothing(told: Told):
    told.order("soup")

    status, problem = told.ask(
        "/sagas/kitchen/order/soup/cancel", "POST", headers={"Origin": "https://elsewhere.example"}
    )

    assert (403, "This request comes from another site: https://elsewhere.example.") == (status, problem["detail"])
    assert "running" == told.state("order/soup")


def test_it_has_a_document_and_a_page_of_its_own(told: Told):
    assert "ropewalk" == told.get("/openapi.json")["info"]["title"]
