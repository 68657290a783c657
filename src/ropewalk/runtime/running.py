"""The processes of a system that run, as a command asks them: through their internal listeners, never their databases.

Where these are follows from the system file and the port of the first one, as it does for siblings; `ropewalk up` has
written that port down. Each says which system's process it is, and what it hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..driver import Driver
from ..engine.pool import Pool
from ..errors import ConfigurationError, NotFound, RopewalkError, Unavailable
from ..http.client import HTTPConnection
from ..sibling import client_of
from .clock import Clock
from .config import DATA, Config
from .data import port_of_up
from .operating import OPERATING, Operator, ProcessLine
from .placement import BASE_PORT, place

T = TypeVar("T")
PATIENCE = 5.0  # seconds for a process to say which one it is
LONG = 30.0  # seconds for all that one command asks


class Running(Struct, frozen=True):
    """What was found of a system."""

    clients: Mapping[str, Any]  # of `Operator`, by service: those that keep data
    silent: Mapping[str, str]  # services of which nobody answered, and what was met

    async def holder(self, what: str, read: Callable[[Any, str], Awaitable[T]]) -> tuple[str, T]:
        """The one service in which `read(client, service)` finds something, and that; `what` it is.

        Raises NotFound when there is none, ConfigurationError when there are several.
        """
        found: dict[str, T] = {}
        for service, client in self.clients.items():
            try:
                found[service] = await read(client, service)
            except NotFound:
                continue
        if len(found) > 1:
            raise ConfigurationError(f"Which {what}? Say --service with one of: {', '.join(found)}.")
        if not found:
            silent = f" ({', '.join(self.silent)} did not answer)" if self.silent else ""
            raise NotFound(f"There is no {what} in {', '.join(self.clients)}{silent}.")
        return found.popitem()


def ask(
    config: Config, service: str | None, port: int | None, data: Path | None, work: Callable[[Running], Awaitable[T]]
) -> T:
    """What `work` comes to with a system as it runs now; `service`: with that one alone.

    `port`: where its first service listens, `data`: the folder in which its `ropewalk up` says that, if nobody else.
    Raises ConfigurationError when nothing of it runs, and what `work` raises.
    """
    if service is not None and service not in config.services:
        raise ConfigurationError(f"There is no service {service!r}; there are: {', '.join(config.services)}.")
    up = port_of_up(data or config.folder / DATA)
    placement = place(config, port or up or BASE_PORT)
    urls = {name: placement.places[name].urls for name in config.services if service in (None, name)}

    async def asked(reactor: Any) -> T:
        pool = Pool(reactor)
        try:
            async with asyncio.timeout(LONG):
                return await work(await found(config, urls, pool, Clock(reactor)))
        except TimeoutError:
            raise Unavailable(
                f"The processes of {config.file.system.name} did not answer within {LONG:g} seconds."
            ) from None
        finally:
            await pool.close()

    return drive(asked)


async def found(config: Config, urls: Mapping[str, Sequence[str]], over: Pool, clock: Clock) -> Running:
    """Who answers at the `urls` of the services; raises ConfigurationError when nobody of the system does."""
    clients: dict[str, Any] = {}
    silent: dict[str, str] = {}
    for service, candidates in urls.items():
        met: ProcessLine | str = "it listens where no command asks; write its URL into [instances] of the system file."
        for url in candidates:
            client = client_at(url, service, over, clock)
            met = await _met(client, url, config.file.system.name)
            if isinstance(met, ProcessLine):
                if service in met.services:  # the others keep nothing
                    clients[service] = client
                break
        if isinstance(met, str):
            silent[service] = met
    if len(silent) == len(urls):
        raise ConfigurationError(_nobody(config, silent, [url for each in urls.values() for url in each]))
    if not clients:
        raise ConfigurationError(f"No service of {config.target} that runs keeps data: {', '.join(urls)}.")
    return Running(clients, silent)


def client_at(url: str, service: str, over: Pool, clock: Clock) -> Any:
    """A client of `Operator` in the process that is reached at `url`."""
    return client_of(Operator, HTTPConnection(over, url + OPERATING, service, 1, clock.seconds), "ropewalk")


def drive(work: Callable[[Any], Awaitable[T]]) -> T:
    """What `work(reactor)` comes to, while the reactor runs for it; raises what it raises."""
    from twisted.internet import reactor

    any_reactor: Any = reactor
    outcome: list[Any] = []

    def begin() -> None:
        done: Deferred[Any] = Driver.of(any_reactor).run(cast(Any, work(any_reactor)))
        done.addBoth(outcome.append).addBoth(lambda _: any_reactor.stop())

    any_reactor.callWhenRunning(begin)
    any_reactor.run()
    if not outcome:  # a signal has ended it
        raise KeyboardInterrupt
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return cast(T, outcome[0])


async def _met(client: Any, url: str, system: str) -> ProcessLine | str:
    """The process of the system that answers at `url`, or why there is none."""
    try:
        async with asyncio.timeout(PATIENCE):
            process: ProcessLine = await client.read_process()
    except TimeoutError:
        return f"nothing came from {url} within {PATIENCE:g} seconds."
    except RopewalkError as error:
        if isinstance(error, Unavailable) and error.fault == "network":
            return str(error)
        return f"what answers at {url} is no process of Ropewalk's ({(error.detail or error.title).rstrip('.')})."
    if process.system != system:
        return f"at {url} is a process of the system {process.system}, not of {system}."
    return process


def _nobody(config: Config, silent: Mapping[str, str], asked: Sequence[str]) -> str:
    where = " ... ".join(dict.fromkeys([*asked[:1], *asked[-1:]])) or "any address that is known"
    others = sorted({why for why in silent.values() if "cannot be reached" not in why})
    return (
        f"Nothing of the system {config.file.system.name} answers at {where}. Start it with `ropewalk up "
        f"{config.target}`; if it runs, say --port N, where its first service listens."
        f"{''.join(f' Besides: {why}' for why in others)}"
    )
