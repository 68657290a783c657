"""`ropewalk sagas` and `ropewalk events` against a process that runs: what is found, shown, done and refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner, Result
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ropewalk.cli import main
from ropewalk.driver import wait
from ropewalk.events.dead_letters import DeadLetters
from ropewalk.runtime import running
from ropewalk.runtime.config import load
from ropewalk.runtime.placement import place
from ropewalk.runtime.process import Process

CODE = '''
import sqlalchemy as sa
from ropewalk import Conflict, Database, Event, Flow, Sagas, Service, Transaction, operation, saga, subscribe

tables = sa.MetaData()
sa.Table("dishes", tables, sa.Column("n", sa.Integer, primary_key=True))

class Cooked(Event, topic="kitchen.cooked"):
    dish: str

class Kitchen(Service, name="kitchen", version="1.2.0"):
    """Cooks."""

    tables = tables
    spoilt = False

    def __init__(self, database: Database, sagas: Sagas) -> None:
        self.database, self.sagas = database, sagas

    @saga
    async def cook(self, flow: Flow, dish: str) -> str:
        await flow.transaction(self._note, dish, undo=self._away)
        if type(self).spoilt:
            raise KeyError("recipe")
        return f"{dish}, {await flow.wait('how')}"

    @subscribe(Cooked)
    async def taste(self, event: Cooked) -> None:
        if type(self).spoilt:
            raise Conflict("It is spoilt.")

    def _note(self, tx: Transaction, dish: str) -> int:
        return len(dish)

    def _away(self, tx: Transaction, noted: int) -> None: ...

    def cooked(self, tx: Transaction, dish: str) -> None:
        tx.publish(Cooked(dish=dish), key="table-1")
'''
SYSTEM = """
[system]
name = "inn"
secret = "a secret that only tests know"
[services]
kitchen = "{module}:Kitchen"
cellar = "{module}:Kitchen"
[processes]
upstairs = ["kitchen"]
downstairs = ["cellar"]
"""


class Inn:
    """A system of two processes, of which one runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.file = folder / "system.toml"
        module = f"inn_{folder.name.replace('-', '_')}"
        (folder / f"{module}.py").write_text(CODE)
        self.file.write_text(SYSTEM.format(module=module))
        self.port = port
        config = load(str(self.file), {})
        self.ready: Deferred[None] = Deferred()
        self.process = Process(
            config,
            place(config, self.port),
            "upstairs",
            reactor,
            data=folder,
            random=Random(7),
            drain_delay=0,
            on_ready=lambda: self.ready.callback(None),
            on_failure=self.ready.errback,
        )
        self.process.startService()

    @property
    def kitchen(self) -> Any:
        return self.process.services["kitchen"]

    async def run(self, *words: str, service: str | None = "kitchen") -> Result:
        """A command, `run("sagas", "show", "soup")`: in a thread, since it waits for this one."""
        group, verb, *rest = words
        of = ["--service", service] if service else []
        command = [group, verb, str(self.file), *rest, *of, "--port", str(self.port)]
        return await deferToThread(CliRunner().invoke, main, command, catch_exceptions=False)

    async def lines(self, *words: str) -> list[str]:
        """Its output, with what differs each time left out."""
        result = await self.run(*words)
        assert 0 == result.exit_code, result.output
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "WHEN", result.output)
        text = re.sub(r"request [0-9a-f]{32}", "request ID", text)
        return [re.sub(r" {2,}", "  ", line).rstrip() for line in text.splitlines()]

    async def json(self, *words: str) -> Any:
        result = await self.run(*words, "--json")
        assert 0 == result.exit_code, result.output
        return json.loads(result.output)

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """The first true value of it; the test's own timeout ends what never comes."""
        while not (value := await condition()):
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        return value

    async def order(self, dish: str, state: str) -> None:
        """Have it cooked, and wait until that is in a state."""
        await self.kitchen.sagas.start(self.kitchen.cook, dish, id=dish)
        await self.until_it_is(state, dish)

    async def until_it_is(self, state: str, dish: str = "soup") -> None:
        async def is_() -> bool:
            told = await self.kitchen.sagas.read(dish)
            return state == ("waiting" if told.waits else told.state)

        await self.until(is_)

    async def serve(self, *dishes: str) -> None:
        for dish in dishes:
            await self.kitchen.database.run(self.kitchen.cooked, dish)

    async def until_there_are(self, count: int) -> None:
        """So many dead letters."""

        async def are() -> bool:
            return len(await DeadLetters(self.kitchen.database).list()) == count

        await self.until(are)

    async def spoil(self) -> None:
        """Have a dead letter, and one that waits behind it."""
        type(self.kitchen).spoilt = True
        await self.serve("fish", "cake")
        await self.until_there_are(2)
        type(self.kitchen).spoilt = False


@pytest_twisted.async_yield_fixture
async def inn(
    tmp_path: Path, free_ports: Callable[[int], int], monkeypatch: pytest.MonkeyPatch, flush_logged_errors: Any
) -> AsyncIterator[Inn]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(running, "drive", lambda work: wait(work(reactor)))
    inn = Inn(tmp_path, free_ports(2))
    await inn.ready
    yield inn
    await inn.process.stopService()
    flush_logged_errors(KeyError)  # the kitchen's own mistake


# -- sagas


@ensureDeferred
async def test_sagas_are_listed(inn: Inn):
    assert [f"{inn.file}: there are no sagas."] == await inn.lines("sagas", "list")

    await inn.order("soup", "waiting")

    assert ["service  id  saga  state  started  about", "kitchen  soup  kitchen.cook  waiting  WHEN  for how"] == (
        await inn.lines("sagas", "list")
    )
    assert ["soup"] == [each["id"] for each in await inn.json("sagas", "list", "--state", "running")]
    assert [f"{inn.file}: there are no sagas that are parked."] == await inn.lines("sagas", "list", "--state", "parked")


@ensureDeferred
async def test_a_saga_is_shown_as_it_went(inn: Inn):
    await inn.order("soup", "waiting")

    assert [
        "saga  soup, kitchen.cook of kitchen",
        "state  waiting",
        "started  WHEN",
        'given  dish="soup"',
        "waits for  how",
        "",
        "when  branch  step  outcome",
        "WHEN  ✓ _note (transaction)  4",
        "",
        f"To tell it what it waits for: `ropewalk sagas signal {inn.file} soup how [JSON]`.",
    ] == await inn.lines("sagas", "show", "soup")


@ensureDeferred
async def test_a_saga_that_is_told_something_goes_on(inn: Inn):
    await inn.order("soup", "waiting")

    told = await inn.lines("sagas", "signal", "soup", "how", '"mild"')
    await inn.until_it_is("completed")

    assert ["kitchen: kitchen.cook soup was told 'how': \"mild\""] == told
    assert "soup, mild" == (await inn.json("sagas", "show", "soup"))["result"]
    assert 'result     "soup, mild"' in (await inn.run("sagas", "show", "soup")).output


@ensureDeferred
async def test_a_parked_saga_says_why_and_is_retried(inn: Inn):
    type(inn.kitchen).spoilt = True
    await inn.order("soup", "parked")
    shown = await inn.lines("sagas", "show", "soup")
    type(inn.kitchen).spoilt = False

    retried = await inn.lines("sagas", "retry", "soup")
    await inn.until_it_is("waiting")

    assert ["state  parked", "because  KeyError: 'recipe'"] == shown[1:3]
    assert (
        f"Once that is mended: `ropewalk sagas retry {inn.file} soup`. "
        f"To undo what it did: `ropewalk sagas cancel {inn.file} soup`."
    ) == shown[-1]
    assert ["kitchen: kitchen.cook soup goes on; it was parked: KeyError: 'recipe'"] == retried


@ensureDeferred
async def test_a_cancelled_saga_is_undone(inn: Inn):
    await inn.order("soup", "waiting")

    said = await inn.lines("sagas", "cancel", "soup")
    await inn.until_it_is("compensated")

    assert ["kitchen: kitchen.cook soup was asked to end and to undo what it did; it was running"] == said
    shown = await inn.lines("sagas", "show", "soup")
    assert [
        "state  compensated",
        "because  KeyCancelled: how was given up.",
        "cancelled  somebody asked it to end",
    ] == (shown[1:4])
    assert "WHEN  ✓ undo:_note (transaction)" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "cake"], "There is no saga 'cake' in kitchen."),
        (["retry", "soup"], "soup is running, not parked: there is nothing to retry."),
        (["retry", "cake"], "There is no saga 'cake' in kitchen."),
    ],
)
@ensureDeferred
async def test_what_cannot_be_is_refused(inn: Inn, words: list[str], expected: str):
    await inn.order("soup", "waiting")

    result = await inn.run("sagas", *words)

    assert (1, f"Error: {expected}\n") == (result.exit_code, result.output)


@ensureDeferred
async def test_what_is_told_is_json(inn: Inn):
    result = await inn.run("sagas", "signal", "soup", "how", "mild")

    assert 2 == result.exit_code
    assert "Invalid value for VALUE: expected JSON; as a text it is '\"mild\"'." in result.output


# -- events


@ensureDeferred
async def test_subscriptions_are_listed(inn: Inn):
    await inn.serve("soup")

    async def handled() -> bool:
        return bool((await inn.json("events", "subscriptions"))[0]["handled"])

    await inn.until(handled)

    assert [
        "service  subscription  topic  lag  in hand  handled  again  dead letters  parked keys",
        "kitchen  kitchen.taste  kitchen.cooked  0.0 s  0  1  0  0  0",
    ] == await inn.lines("events", "subscriptions")


@ensureDeferred
async def test_dead_letters_are_listed(inn: Inn):
    assert [f"{inn.file}: there are no dead letters."] == await inn.lines("events", "list")

    await inn.spoil()

    assert [
        "service  number  subscription  topic  key  since  state  error",
        "kitchen  1  kitchen.taste  kitchen.cooked  table-1  WHEN  failed 1 time  Conflict: It is spoilt.",
        "kitchen  2  kitchen.taste  kitchen.cooked  table-1  WHEN  waits behind another",
    ] == await inn.lines("events", "list")


@ensureDeferred
async def test_a_dead_letter_is_shown_with_its_event(inn: Inn):
    await inn.spoil()

    lines = await inn.lines("events", "show", "1")

    assert [
        "letter  1 of kitchen",
        "for  kitchen.taste",
        "state  failed 1 time",
        "because  Conflict: It is spoilt.",
        "since  WHEN",
        "key  table-1",
    ] == lines[:6]
    assert '  "data": {' in lines
    assert f"`ropewalk events replay {inn.file} 1 --service kitchen`" in lines[-1]


@ensureDeferred
async def test_a_replayed_one_is_handled_and_so_is_what_waited(inn: Inn):
    await inn.spoil()

    said = await inn.lines("events", "replay", "1")
    await inn.until_there_are(0)

    assert [
        f"kitchen: dead letter 1 will be tried again. `ropewalk events list {inn.file}` shows what failed again."
    ] == said
    assert [f"{inn.file}: there are no such dead letters."] == await inn.lines("events", "replay", "--all")


@ensureDeferred
async def test_a_dropped_one_is_shown_once_more(inn: Inn):
    await inn.spoil()

    said = await inn.lines("events", "drop", "1")
    await inn.until_there_are(0)

    assert (
        "kitchen: dead letter 1 was dropped, as if it had been handled. "
        "What waits behind it under the key 'table-1' goes on. It was:"
    ) == said[0]
    assert {"dish": "fish"} == json.loads(said[1])["data"]


@ensureDeferred
async def test_what_to_replay_must_be_said(inn: Inn):
    result = await inn.run("events", "replay")

    assert 2 == result.exit_code
    assert "Say which: NUMBER, --subscription NAME, or --all." in result.output


# -- finding them


@ensureDeferred
async def test_who_does_not_answer_is_named_beside_what_is_found(inn: Inn):
    await inn.order("soup", "waiting")

    result = await inn.run("sagas", "list", service=None)

    assert 1 == result.exit_code
    assert "soup" in result.stdout
    assert result.stderr.startswith("cellar did not answer: cellar at http://127.0.0.1:")


@ensureDeferred
async def test_nothing_that_runs_is_said_with_what_to_do(inn: Inn):
    await inn.process.stopService()

    result = await inn.run("events", "list", service=None)

    assert (1, True) == (
        result.exit_code,
        result.output.startswith(
            f"Error: Nothing of the system inn answers at http://127.0.0.1:{inn.port} ... http://127.0.0.1:{inn.port + 1}. "
            f"Start it with `ropewalk up {inn.file}`; if it runs, say --port N, where its first service listens."
        ),
    )


@ensureDeferred
async def test_another_system_is_not_taken_for_this_one(inn: Inn):
    inn.file.write_text(inn.file.read_text().replace('name = "inn"', 'name = "pub"'))

    result = await inn.run("sagas", "list", service=None)

    assert 1 == result.exit_code
    assert f"at http://127.0.0.1:{inn.port} is a process of the system inn, not of pub." in result.output


@ensureDeferred
async def test_a_service_that_there_is_not_is_refused(inn: Inn):
    result = CliRunner().invoke(main, ["sagas", "list", str(inn.file), "--service", "attic"])

    assert (1, "Error: There is no service 'attic'; there are: kitchen, cellar.\n") == (result.exit_code, result.output)
