"""What is asked again under its key has its effect once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from ropewalk import (
    BadRequest,
    Conflict,
    Context,
    Database,
    RopewalkError,
    Service,
    Transaction,
    Unavailable,
    get,
    post,
    put,
    settled,
)
from ropewalk.context import enter_context
from ropewalk.errors import InFlight, KeyReused
from ropewalk.runtime.process import PURGE
from ropewalk.store.records import BATCH, records
from ropewalk.testing import World
from ropewalk.testing.points import crash_points

books, notes = sa.MetaData(), sa.MetaData()
entries = sa.Table("entries", books, sa.Column("text", sa.String))
noted = sa.Table("noted", notes, sa.Column("text", sa.String))


class TooMuch(Conflict):
    """Raised for more than there is."""


class Receipt(msgspec.Struct, frozen=True):
    """What was done."""

    number: int  # drawn anew each time
    amount: int


class Notes(Service, name="notes", version="1.0.0"):
    """Notes what others do."""

    tables = notes

    def __init__(self, database: Database, random: Random) -> None:
        self.database, self.random = database, random

    @post("/notes", idempotent=True)
    async def note(self, text: str) -> int:
        """Note it; answers a number."""
        return await self.database.run(self._note, text, self.random.getrandbits(32))

    def _note(self, tx: Transaction, text: str, number: int) -> int:
        tx.execute(noted.insert().values(text=text))
        return number


class Bank(Service, name="bank", version="1.0.0"):
    """Moves money, in two steps and a note between them."""

    tables = books

    def __init__(self, database: Database, notes: Notes, random: Random) -> None:
        self.database, self.notes, self.random = database, notes, random
        self.most = 100

    @post("/transfers", idempotent=True, access="public", raises=(TooMuch, Unavailable))
    async def transfer(self, amount: int) -> Receipt:
        """Debit, note, credit."""
        receipt = await self.database.run(self._debit, amount, self.random.getrandbits(32))
        await self.notes.note(f"one of {amount}")
        await self.notes.note(f"two of {amount}")
        await self.database.run(self._add, f"credit {amount}")
        return receipt

    @post("/limits", idempotent=True)
    async def limit(self, most: int) -> None:
        """From now on so much at most."""
        self.most = most

    @post("/strange/<how>", idempotent=True)
    async def strange(self, how: str) -> None:
        """What one should not do under a key."""
        if how == "two at once":
            both = await settled(self.database.run(self._add, "one"), self.database.run(self._add, "two"))
            raise next(each for each in both if isinstance(each, Exception))
        await self.database.run(getattr(self, f"_{how}"))

    @get("/notices", raises=(Unavailable,))
    async def notice(self) -> list[int]:
        """Safe, as it says, and notes twice all the same."""
        return [await self.notes.note("seen"), await self.notes.note("seen")]

    @put("/entries/<text>")
    async def add(self, text: str) -> None:
        """Add an entry."""
        await self.database.run(self._add, text)

    @get("/entries")
    async def entries(self) -> list[str]:
        """All entries."""
        return await self.database.run(self._entries)

    def _debit(self, tx: Transaction, amount: int, number: int) -> Receipt:
        self._add(tx, f"debit {amount}")
        if amount > self.most:
            raise TooMuch(f"{amount} is more than {self.most}.", most=self.most)
        return Receipt(number, amount)

    def _add(self, tx: Transaction, text: str) -> None:
        tx.execute(entries.insert().values(text=text))

    def _entries(self, tx: Transaction) -> list[str]:
        return [row.text for row in tx.execute(entries.select())]

    def _unspeakable(self, tx: Transaction) -> object:
        self._add(tx, "unspeakable")
        return object()

    def _mistaken(self, tx: Transaction) -> int:
        self._add(tx, "mistaken")
        return "seven"  # type: ignore[return-value]

    def _unread(self, tx: Transaction) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        self._add(tx, "unread")

    def _cursor(self, tx: Transaction) -> Any:
        return tx.execute(entries.insert().values(text="cursor"))

    def _broken(self, tx: Transaction) -> None:
        self._add(tx, "broken")
        raise Unavailable("Not now.")


@pytest.fixture(params=["http", "direct"])
def world(request) -> Iterator[World]:
    with World([Bank, Notes], seed=4, wire=request.param) as world:
        yield world


@pytest.fixture
def asked(world):
    """`asked(lambda: call, key)`: what it returns, or the error it raises."""

    def asked(call: Any, key: str | None, *, subject: str | None = None, tenant: str = "") -> Any:
        return world.run(_asked(call, world.client(Bank, subject=subject), key, tenant))

    return asked


async def _asked(call: Any, bank: Any, key: str | None, tenant: str = "") -> Any:
    enter_context(Context(key=key, tenant=tenant))
    try:
        return await call(bank)
    except RopewalkError as error:
        return error


def test_a_key_that_is_ignored_is_not_passed_on(world):
    async def notice() -> list[int]:
        reply = await world.http.get("sibling://bank/notices", headers={"Idempotency-Key": "k1"})
        return await reply.json()

    numbers = world.run(notice())

    assert 2 == len(set(numbers))
    assert ["seen", "seen"] == in_notes(world)


def in_books(world) -> list[str]:
    return [row.text for row in world.database("bank").peek(lambda tx: tx.execute(entries.select()).all())]


def in_notes(world) -> list[str]:
    return [row.text for row in world.database("notes").peek(lambda tx: tx.execute(noted.select()).all())]


def kept(world, service="bank") -> int:
    return world.database(service).peek(
        lambda tx: tx.execute(sa.select(sa.func.count()).select_from(records)).scalar_one()
    )


def transfer(amount):
    return lambda bank: bank.transfer(amount)


# -- once


def test_the_same_key_gets_the_same_and_has_its_effect_once(world, asked):
    first, again = asked(transfer(7), "k"), asked(transfer(7), "k")

    assert isinstance(first, Receipt)
    assert first == again
    assert ["debit 7", "credit 7"] == in_books(world)
    assert ["one of 7", "two of 7"] == in_notes(world)


def test_another_key_is_another_request_and_so_is_one_without(world, asked):
    receipts = [asked(transfer(7), key) for key in ("k", "l", None, None)]

    assert 4 == len({each.number for each in receipts})
    assert 8 == len(in_books(world))


@pytest.mark.parametrize("other", [{"subject": "bob"}, {"tenant": "theirs"}], ids=["subject", "tenant"])
def test_the_same_key_of_somebody_else_is_another(world, asked, other):
    mine, theirs = asked(transfer(7), "k"), asked(transfer(7), "k", **other)

    assert mine.number != theirs.number
    assert 4 == len(in_books(world))


def test_the_same_key_for_another_operation_is_another(world, asked):
    assert None is asked(lambda bank: bank.add("a"), "k")
    assert isinstance(asked(transfer(7), "k"), Receipt)
    assert ["a", "debit 7", "credit 7"] == in_books(world)


def test_a_safe_operation_ignores_its_key(world, asked):
    assert [] == asked(lambda bank: bank.entries(), "k")
    asked(lambda bank: bank.add("a"), "l")

    assert ["a"] == asked(lambda bank: bank.entries(), "k")


def test_whoever_says_no_key_is_given_one_where_the_operation_may_be_repeated(world, asked):
    asked(transfer(7), None)
    asked(lambda bank: bank.add("a"), None)

    assert (2, 2) == (kept(world), kept(world, "notes"))


# -- errors


def test_a_declared_error_leaves_no_effect_and_comes_again_though_things_have_changed(world, asked):
    first = asked(transfer(101), "k")
    for _ in range(2):  # each instance
        asked(lambda bank: bank.limit(1000), None)
    again = asked(transfer(101), "k")

    assert (TooMuch, 409, "101 is more than 100.", {"most": 100}) == (
        type(again), again.status, again.detail, again.members,
    )  # fmt: skip
    assert (first.detail, first.members, first.ran) == (again.detail, again.members, again.ran)
    assert [] == in_books(world)
    assert isinstance(asked(transfer(101), "l"), Receipt)


def test_a_failure_is_no_answer_and_is_tried_again(world, asked):
    for _ in range(2):
        assert isinstance(asked(lambda bank: bank.strange("broken"), "k"), Unavailable)

    assert ([], 0) == (in_books(world), kept(world))


def test_a_key_that_comes_with_other_arguments_is_refused(world, asked):
    asked(transfer(7), "k")

    refused = asked(transfer(8), "k")

    assert (KeyReused, 422) == (type(refused), refused.status)
    assert "'k'" in refused.detail
    assert ["debit 7", "credit 7"] == in_books(world)


def test_a_key_that_is_too_long_is_refused(asked):
    refused = asked(transfer(7), "x" * 256)

    assert (BadRequest, 400) == (type(refused), refused.status)
    assert "255 characters at most, got 256" in refused.detail


def test_while_it_is_answered_whoever_asks_is_told_when_to_ask_again():
    async def posted(world: World) -> tuple[int, str]:
        reply = await world.http.post("sibling://bank/transfers?amount=7", headers={"idempotency-key": "k"})
        await reply.content()
        return reply.code, (reply.headers.getRawHeaders("retry-after") or [""])[0]

    with World([Bank, Notes], instances=1) as world:
        answers = world.run(settled(*(posted(world) for _ in range(3))))

        assert [(200, ""), (409, "1"), (409, "1")] == sorted(answers)
        assert ["debit 7", "credit 7"] == in_books(world)


def test_a_client_asks_again_until_it_is_answered(world):
    bank = world.client(Bank)

    outcomes = world.run(settled(*(_asked(transfer(7), bank, "k") for _ in range(5))))

    assert "bank.transfer: InFlight" in [event.text for event in world.log.events if event.kind == "error"]
    assert [outcomes[0]] * 5 == outcomes
    assert ["debit 7", "credit 7"] == in_books(world)


def test_two_instances_asked_at_once_have_one_effect(world):
    bank = world.client(Bank)

    outcomes = world.run(settled(*(_asked(transfer(7), bank, "k") for _ in range(2))))

    assert isinstance(outcomes[0], Receipt)
    assert outcomes[0] == outcomes[1]
    assert ["debit 7", "credit 7"] == sorted(in_books(world), reverse=True)
    assert ["one of 7", "two of 7"] == sorted(in_notes(world))


# -- what one should not do


@pytest.mark.parametrize("how", ["unspeakable", "mistaken", "unread"])
def test_a_result_that_cannot_be_kept_names_its_function_and_rolls_back(world, asked, flush_logged_errors, how):
    failed = asked(lambda bank: bank.strange(how), "k")

    assert 500 == failed.status
    assert f"_{how}: " in world.flush_failures(TypeError)[0]
    assert ([], 0) == (in_books(world), kept(world))
    flush_logged_errors(TypeError)


def test_a_cursor_counts_as_nothing(world, asked):
    assert [None, None] == [asked(lambda bank: bank.strange("cursor"), "k") for _ in range(2)]
    assert ["cursor"] == in_books(world)


def test_a_second_run_while_one_is_under_way_is_refused(world, asked, flush_logged_errors):
    failed = asked(lambda bank: bank.strange("two at once"), "k")

    assert 500 == failed.status
    assert "a second Database.run" in world.flush_failures(RuntimeError)[0]
    flush_logged_errors(RuntimeError)


# -- whatever happens


@pytest.mark.long
def test_whichever_moment_a_process_dies_at_the_effect_comes_once():
    async def until_answered(world: World) -> None:
        while True:
            outcome = await _asked(transfer(7), world.client(Bank), "k")
            if isinstance(outcome, Receipt):
                return
            assert isinstance(outcome, (Unavailable, InFlight)), repr(outcome)

    def once(world: World) -> None:
        assert ["credit 7", "debit 7"] == sorted(in_books(world))
        assert ["one of 7", "two of 7"] == sorted(in_notes(world))

    with World([Bank, Notes], seed=3) as world:
        survived = list(crash_points(world, until_answered, eventually=[once], settle=30.0))

    assert [] == [each for each in survived if each.broken]
    assert len(survived) > 100


# -- how long


def test_records_are_deleted_when_they_are_old_and_not_before(world, asked):
    asked(transfer(7), "k")
    world.advance(3600.0)
    asked(transfer(7), "l")
    database = world.processes["bank/1"].services["bank"].database

    assert 2 == world.run(database.purge(1800.0))
    assert 0 == world.run(database.purge(1800.0))
    assert asked(transfer(7), "l") == asked(transfer(7), "l")
    assert 4 == len(in_books(world))


def test_many_are_deleted_in_batches(world):
    database = world.processes["bank/1"].services["bank"].database
    row = {
        "run": 1,
        "function": "f",
        "arguments": "",
        "operation": "",
        "key": "",
        "status": 0,
        "ran": "",
        "result": b"",
    }
    many = [{**row, "scope": str(number), "at": 0} for number in range(2 * BATCH + 1)]
    world.run(database.run(lambda tx: tx.execute(records.insert(), many) and None))

    assert 2 * BATCH + 1 == world.run(database.purge(60.0))
    assert 0 == kept(world)


def test_a_process_deletes_what_has_grown_old_by_itself():
    with World([Bank, Notes], instances=1) as world:
        world.run(_asked(transfer(7), world.client(Bank), "k"))
        world.jump("bank", 8 * 86400.0)

        world.until(lambda: not kept(world), timeout=2 * PURGE)

        assert 2 == kept(world, "notes")
