"""`ropewalk sagas`: what the sagas of a running system are about, and what whoever runs it tells them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .common import Asked, clock, needed_target, of_running, row, table, target

if TYPE_CHECKING:
    from ..runtime.operating import Attempt, SagaLine, SagaWhole, Step
    from ..runtime.running import Running

STATES = ("running", "completed", "compensated", "failed", "parked")
of_id = click.argument("id")


@click.group()
def sagas() -> None:
    """Look at the sagas of a running system, and tell them something.

    A saga that is parked says why (`show`); once that is mended, `retry` lets it go on from where it was. What is done
    in the background or at times is kept likewise, and can be listed, shown and retried, too.
    """


@sagas.command(name="list")
@target
@click.option("--state", type=click.Choice(STATES), help="In this state alone.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="The latest so many.")
@click.option("--jobs", is_flag=True, help="With what was done in the background or at times and completed.")
@of_running
def list_(asked: Asked, state: str | None, limit: int, jobs: bool) -> None:
    """List the sagas of TARGET, the latest first."""

    async def lines(running: Running) -> list[SagaLine]:
        found = [
            line
            for service, client in running.clients.items()
            for line in await client.list_sagas(service, state, limit, jobs)
        ]
        return sorted(found, key=lambda line: line.started, reverse=True)[:limit]

    asked.list(lines, _listed, f"there are no sagas{f' that are {state}' if state else ''}.")


@sagas.command()
@needed_target
@of_id
@of_running
def show(asked: Asked, id: str) -> None:
    """Show a saga of TARGET: what it was given, each step and what came of it, what it waits for."""

    async def work(running: Running) -> SagaWhole:
        return (await _held(running, id))[1]

    whole = asked.ask(work)
    if asked.as_json:
        click.echo(msgspec.json.encode(whole))
        return
    for name, value in heading(whole):
        click.echo(f"{click.style(f'{name:<11}', bold=True)}{value}")
    rows = list(timeline(whole))
    if rows:
        click.echo()
        table(rows)
    hint = advice(whole, asked.target)
    if hint:
        click.echo(f"\n{hint}")


@sagas.command()
@needed_target
@of_id
@click.argument("name")
@click.argument("value", default="null")
@of_running
def signal(asked: Asked, id: str, name: str, value: str) -> None:
    """Tell a saga of TARGET something: `flow.wait(NAME)` returns VALUE, which is JSON (default: null)."""
    from ..runtime.operating import Signal

    try:
        said = Signal(name, json.loads(value))
    except ValueError:
        hint = f"expected JSON; as a text it is '\"{value}\"'."
        raise click.BadParameter(hint, param_hint="VALUE") from None
    line = _told(asked, id, lambda client, service: client.signal_saga(service, id, said))
    _say(asked, line, f"was told {name!r}: {json.dumps(said.value)}")


@sagas.command()
@needed_target
@of_id
@of_running
def retry(asked: Asked, id: str) -> None:
    """Let a parked saga or job of TARGET go on from where it was."""
    line = _told(asked, id, lambda client, service: client.retry_saga(service, id))
    _say(asked, line, f"goes on; it was parked: {line.error}")


@sagas.command()
@needed_target
@of_id
@of_running
def cancel(asked: Asked, id: str) -> None:
    """Ask a saga of TARGET to end and to undo what it did; a parked one goes on for that."""
    line = _told(asked, id, lambda client, service: client.cancel_saga(service, id))
    _say(asked, line, f"was asked to end and to undo what it did; it was {line.state}")


async def _held(running: Running, id: str) -> tuple[str, SagaWhole]:
    """Which service has it, and the saga."""
    return await running.holder(f"saga {id!r}", lambda client, service: client.read_saga(service, id))


def _told(asked: Asked, id: str, tell: Callable[[Any, str], Awaitable[SagaLine]]) -> SagaLine:
    """What `tell(client, service)` returns of the saga: how it was."""

    async def work(running: Running) -> SagaLine:
        service, _ = await _held(running, id)
        return await tell(running.clients[service], service)

    return asked.ask(work)


def _say(asked: Asked, line: SagaLine, what: str) -> None:
    """What was done; as JSON, what it was done to."""
    click.echo(msgspec.json.encode(line) if asked.as_json else f"{line.service}: {line.saga} {line.id} {what}")


# -- for people


def _listed(line: SagaLine) -> dict[str, str]:
    about = line.error or (f"for {line.waits}" if line.waits else "")
    return row(
        service=line.service, id=line.id, saga=line.saga, state=state(line), started=clock(line.started), about=about
    )


def state(line: SagaLine) -> str:
    """In a word: one that only waits for something says so, and one that is to end."""
    if line.state == "running" and line.cancelled:
        return "is undone"
    return "waiting" if line.state == "running" and line.waits else line.state


def heading(whole: SagaWhole) -> Iterator[tuple[str, str]]:
    """What is said of a saga before its steps."""
    yield "saga", f"{whole.id}, {whole.saga} of {whole.service}"
    yield "state", state(whole)
    if whole.error:
        yield "because", whole.error
    if whole.cancelled:
        yield "cancelled", "somebody asked it to end"
    by = f" by {whole.subject}" if whole.subject else ""
    request = f", request {whole.request_id}" if whole.request_id else ""
    yield "started", f"{clock(whole.started)}{by}{request}"
    if whole.ended is not None:
        seconds = (whole.ended - whole.started).total_seconds()
        yield "ended", f"{clock(whole.ended)}, after {seconds:g} s"
    yield "given", ", ".join(f"{name}={_brief(value)}" for name, value in (whole.arguments or {}).items()) or "nothing"
    if whole.state == "completed" and whole.result is not None:
        yield "result", _brief(whole.result)
    if whole.waits:
        until = f", until {clock(whole.until)} at the latest" if whole.until is not None else ""
        yield "waits for", whole.waits + until


def timeline(whole: SagaWhole) -> Iterator[dict[str, str]]:
    """Its journal, a row for each entry, and what is being done now."""
    for step in whole.steps:
        when = clock(step.at) if step.at is not None else ""
        mark = {"done": "✓", "failed": "✗", "begun": "…"}[step.state]
        yield row(when=when, branch=step.branch, step=f"{mark} {_step(step)}", outcome=_outcome(step))
    if whole.state == "running":
        waited = {(each.branch, each.step, each.use) for each in whole.steps if each.state == "begun"}
        for each in whole.now:
            if each.until is None or (each.branch, each.step, each.use) not in waited:
                yield row(when="now", branch=each.branch, step=f"… {_named(each)}", outcome=_attempted(each))


def advice(whole: SagaWhole, target: str) -> str:
    """What may be done next, if somebody has to do something."""
    command = f"ropewalk sagas {{}} {target} {whole.id}"
    if whole.state == "parked":
        return f"Once that is mended: `{command.format('retry')}`. To undo what it did: `{command.format('cancel')}`."
    names = sorted(_signals(whole.waits))
    if whole.state == "running" and names and not whole.cancelled:
        name = names[0] if len(names) == 1 else "NAME"
        return f"To tell it what it waits for: `{command.format('signal')} {name} [JSON]`."
    return ""


def _signals(waits: str) -> set[str]:
    """What of that which a saga waits for can be told it: of "approved of race:1/0, sleep of race:1/1" the first."""
    names = (each.partition(" of ")[0].partition(" (")[0] for each in waits.split(", "))
    return {name for name in names if name not in ("", "sleep") and not name.startswith("saga ")}


def _step(step: Step) -> str:
    kind = "" if step.kind in ("step", "sleep", "race", "changed") else f" ({step.kind})"
    return f"{_named(step)}{kind}"


def _named(each: Step | Attempt) -> str:
    return f"{each.step} ({each.use})" if each.use > 1 else each.step


def _outcome(step: Step) -> str:
    if step.state == "begun":
        return f"until {clock(step.until)}" if step.until is not None else "was begun"
    if step.state == "failed":
        problem: dict[str, Any] = step.result if isinstance(step.result, dict) else {}
        return ": ".join(filter(None, (problem.get("title"), problem.get("detail"))))
    if step.kind == "race":
        return f"branch {step.branch and step.branch + '/'}{step.step}:{step.use}/{step.result} was first"
    return "" if step.kind in ("sleep", "changed") or step.result is None else _brief(step.result)


def _attempted(each: Attempt) -> str:
    if each.until is not None:
        return f"waits until {clock(each.until)}"
    if each.since is None:
        return "waits"
    times = f"asked {each.attempt} times" if each.attempt > 1 else "asked"
    met = f"; the last time: {each.error}" if each.error else ", no answer yet"
    return f"{times} since {clock(each.since)}{met}"


def _brief(value: Any, most: int = 300) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters; --json has all)"
