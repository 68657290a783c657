"""`ropewalk events`: how the subscriptions of a running system stand, and what becomes of its dead letters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import msgspec

from .common import Asked, clock, needed_target, of_running, row, target

if TYPE_CHECKING:
    from ..runtime.operating import LetterLine, LetterWhole, SubscriptionLine
    from ..runtime.running import Running

of_number = click.argument("number", type=click.IntRange(1))
of_subscription = click.option("--subscription", help='Of this one alone, "diary.note".')


@click.group()
def events() -> None:
    """Look at the dead letters of a running system, have them tried again, or drop them.

    A dead letter is an event that could not be handled. Later ones of its key wait behind it until it is replayed or
    dropped; those of other keys go on.
    """


@events.command(name="list")
@target
@of_subscription
@of_running
def list_(asked: Asked, subscription: str | None) -> None:
    """List the dead letters of TARGET, of each service the oldest hundred."""

    async def letters(running: Running) -> list[LetterLine]:
        return [
            line
            for service, client in running.clients.items()
            for line in await client.list_dead_letters(service, subscription)
        ]

    asked.list(letters, _listed, "there are no dead letters.")


@events.command()
@target
@of_running
def subscriptions(asked: Asked) -> None:
    """List the subscriptions of TARGET, how far each lags behind, and what it could not handle.

    What is handled is counted since the process that was asked began.
    """

    async def lines(running: Running) -> list[SubscriptionLine]:
        return [
            line for service, client in running.clients.items() for line in await client.list_subscriptions(service)
        ]

    asked.list(lines, _subscribed, "nobody subscribes to anything.")


@events.command()
@needed_target
@of_number
@of_running
def show(asked: Asked, number: int) -> None:
    """Show a dead letter of TARGET with its event."""

    async def work(running: Running) -> LetterWhole:
        return (await _held(running, number))[1]

    whole = asked.ask(work)
    if asked.as_json:
        click.echo(msgspec.json.encode(whole))
        return
    facts = {
        "letter": f"{whole.number} of {whole.service}",
        "for": whole.subscription or "nobody",
        "state": _state(whole),
        "because": whole.error,
        "since": clock(whole.at),
        "key": whole.key,
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{click.style(f'{name:<11}', bold=True)}{value}")
    click.echo(f"\n{json.dumps(whole.cloud_event, indent=2, ensure_ascii=False)}")
    command = f"ropewalk events {{}} {asked.target} {whole.number} --service {whole.service}"
    click.echo(f"\nTo have it tried again: `{command.format('replay')}`. To forget it: `{command.format('drop')}`.")


@events.command()
@needed_target
@click.argument("number", type=click.IntRange(1), required=False)
@of_subscription
@click.option("--all", "all_", is_flag=True, help="All there are.")
@of_running
def replay(asked: Asked, number: int | None, subscription: str | None, all_: bool) -> None:
    """Have a dead letter of TARGET tried again: NUMBER, those of a --subscription, or --all.

    In order, each with what waits behind it. What fails again is a dead letter again.
    """
    from ..runtime.operating import Replay

    if sum((number is not None, subscription is not None, all_)) != 1:
        raise click.UsageError("Say which: NUMBER, --subscription NAME, or --all.")

    async def work(running: Running) -> dict[str, int]:
        chosen = list(running.clients)
        if number is not None:
            chosen = [(await _held(running, number))[0]]
        said = Replay(number, subscription)
        return {name: (await running.clients[name].replay_dead_letters(name, said)).count for name in chosen}

    counts = {name: count for name, count in asked.ask(work).items() if count}
    if asked.as_json:
        click.echo(json.dumps(counts))
        return
    if not counts:
        click.echo(f"{asked.target}: there are no such dead letters.")
    for name, count in counts.items():
        which = f"dead letter {number}" if number is not None else f"{count} dead letter{'s' if count > 1 else ''}"
        click.echo(
            f"{name}: {which} will be tried again. `ropewalk events list {asked.target}` shows what failed again."
        )


@events.command()
@needed_target
@of_number
@of_running
def drop(asked: Asked, number: int) -> None:
    """Forget a dead letter of TARGET, as if it had been handled; what waits behind it goes on."""

    async def work(running: Running) -> LetterWhole:
        service, _ = await _held(running, number)
        dropped: LetterWhole = await running.clients[service].drop_dead_letter(service, number)
        return dropped

    dropped = asked.ask(work)
    if asked.as_json:
        click.echo(msgspec.json.encode(dropped))
        return
    behind = f" What waits behind it under the key {dropped.key!r} goes on." if dropped.key else ""
    click.echo(f"{dropped.service}: dead letter {number} was dropped, as if it had been handled.{behind} It was:")
    click.echo(json.dumps(dropped.cloud_event, ensure_ascii=False))


async def _held(running: Running, number: int) -> tuple[str, LetterWhole]:
    """Which service has it, and the letter."""
    return await running.holder(
        f"dead letter {number}", lambda client, service: client.read_dead_letter(service, number)
    )


# -- for people


def _listed(line: LetterLine) -> dict[str, str]:
    return row(
        service=line.service,
        number=str(line.number),
        subscription=line.subscription or "-",
        topic=line.topic,
        key=line.key or "-",
        since=clock(line.at),
        state=_state(line),
        error=line.error,
    )


def _state(line: LetterLine) -> str:
    if line.replay:
        return "is about to be tried again"
    if not line.attempts:
        return "waits behind another"
    return f"failed {line.attempts} time{'s' if line.attempts > 1 else ''}"


def _subscribed(line: SubscriptionLine) -> dict[str, str]:
    numbers = {
        "lag": f"{line.lag:.1f} s",
        "in hand": line.in_hand,
        "handled": line.handled,
        "again": line.again,
        "dead letters": line.dead_letters,
        "parked keys": line.parked_keys,
    }
    said = {"service": line.service, "subscription": line.subscription, "topic": line.topic}
    return said | {name: str(value) for name, value in numbers.items()}
