"""A name -> its instances in turn -> a connection kept for each."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from ropewalk.discovery.resolve import Resolve
from ropewalk.driver import Driver
from ropewalk.errors import Unavailable
from ropewalk.message import Request, Response


class Instances:
    """Addresses that change, and what was done with them."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: tuple[str, ...] = addresses
        self.connected: list[str] = []
        self.resolve = Resolve("payments", lambda: self.addresses, self._connect)

    def _connect(self, address: str) -> Any:
        self.connected.append(address)

        async def connection(request: Request) -> Response:
            return Response(address)

        return connection

    def ask(self, times: int) -> list[Any]:
        answers: list[Any] = []

        async def ask() -> None:
            for _ in range(times):
                answers.append((await self.resolve(None)).body)  # type: ignore[arg-type]

        Driver.of(Clock()).run(ask())
        return answers


def test_instances_take_turns_and_each_has_one_connection():
    instances = Instances("a", "b")

    assert (["a", "b", "a", "b", "a"], ["a", "b"]) == (instances.ask(5), instances.connected)


def test_who_is_gone_is_asked_no_more_and_who_comes_back_is_connected_anew():
    instances = Instances("a", "b")
    instances.ask(2)

    instances.addresses = ("c",)
    assert ["c", "c"] == instances.ask(2)
    instances.addresses = ("a",)
    assert ["a"] == instances.ask(1)

    assert ["a", "b", "c", "a"] == instances.connected


def test_without_an_instance_it_did_not_run():
    with pytest.raises(Unavailable) as refused:
        Instances().resolve(None)  # type: ignore[arg-type]

    assert ("No instance of payments is known.", "no", 503) == (
        refused.value.detail,
        refused.value.ran,
        refused.value.status,
    )
