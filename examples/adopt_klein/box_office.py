"""What the ticket shop is made to do in a simulated world, and what must hold of its books and the bank's.

ropewalk sim examples/adopt_klein/system.toml --workload box_office --seeds 50 --minutes 2
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

import sqlalchemy as sa
from after import Order, Shop, Wanted, orders, shows, tickets
from bank import LIMIT, entries
from msgspec import Struct

from ropewalk import Conflict, Context, RopewalkError, Unavailable, settled
from ropewalk.context import enter_context
from ropewalk.testing import workload

SHOWS = 3  # so that several want the same one
SEATS = 60  # of each: they are sold out in the end
PATIENCE = 3.0  # seconds for an answer
PAUSE = 1.0  # seconds between two questions


class Books(Struct, frozen=True):
    """All that both services have written down."""

    left: dict[str, int]  # seats, by show
    orders: list[Order]
    tickets: Counter[str]  # how many, by guest
    taken: dict[int, list[int]]  # amounts, by order


def read(world: Any) -> Books:
    """The books as they are."""

    def rows(service: str, statement: Any) -> list[Any]:
        return [tuple(row) for row in world.database(service).peek(lambda tx: tx.execute(statement).all())]

    taken = defaultdict(list)
    for order, amount in rows("bank", sa.select(entries.c.order, entries.c.amount).order_by(entries.c.number)):
        taken[order].append(amount)
    return Books(
        dict(rows("shop", sa.select(shows.c.name, shows.c.left))),
        [Order(*row) for row in rows("shop", orders.select())],
        Counter(guest for (guest,) in rows("shop", sa.select(tickets.c.guest))),
        taken,
    )


def books_agree(world: Any) -> None:
    """Nobody has two orders for one wish, or pays twice; what is sold is paid; no ticket is for nothing."""
    books = read(world)
    twice = [guest for guest, count in Counter(order.guest for order in books.orders).items() if count > 1]
    assert not twice, f"{', '.join(twice)} asked for one order, and has more"
    for order, amounts in books.taken.items():
        assert amounts in ([amounts[0]], [amounts[0], -amounts[0]]), f"of order {order} was taken {amounts}"
    for order in books.orders:
        printed = books.tickets[order.guest]
        assert printed in (0, order.seats * order.sold), f"{printed} tickets are printed for {order}"
        assert not order.sold or books.taken[order.number] == [order.amount], f"{order} is sold, and not paid"
    assert all(0 <= left <= SEATS for left in books.left.values()), f"seats left: {books.left}"


def all_is_over(world: Any) -> None:
    """Every saga has ended: with seats that are paid and tickets that are printed, or with nothing left of it."""
    sagas = world.database("shop").peek(
        lambda tx: tx.execute(sa.text("SELECT state FROM ropewalk_sagas")).scalars().all()
    )
    assert set(sagas) <= {"completed", "compensated"}, f"sagas are {Counter(sagas)}"
    books = read(world)
    for order in books.orders:
        left = sum(books.taken[order.number]), books.tickets[order.guest]
        assert left == (order.amount * order.sold, order.seats * order.sold), f"(paid, tickets) {left} of {order}"
    for show, left in books.left.items():
        sold = sum(order.seats for order in books.orders if order.show == show and order.sold)
        assert left + sold == SEATS, f"of {show} {sold} are sold and {left} left, of {SEATS}"


def nothing_dead(world: Any) -> None:
    """No event was buried."""
    dead = world.database("shop").peek(lambda tx: tx.execute(sa.text("SELECT error FROM ropewalk_dead_letters")).all())
    assert not dead, f"dead letters: {dead}"


async def ask(world: Any, method: str, path: str, **options: Any) -> Any:
    """What a route that is still Klein's answers, as JSON. Raises Unavailable when it does not."""
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await world.http.request(method, f"http://shop:8080{path}", **options)
            answer = await reply.json() if reply.code == 200 else None
    except RopewalkError:
        raise
    except Exception as error:  # whatever can go wrong on the way: Twisted has no common base for it
        raise Unavailable(f"{path} cannot be reached: {error!r}") from error
    if reply.code >= 500:
        raise Unavailable(f"{path} answered {reply.code}.")
    assert reply.code == 200, f"{method} {path} answered {reply.code}"
    return answer


async def order(world: Any, wanted: Wanted) -> Order | None:
    """Ask for seats under one key, as often as it takes; None when they cannot be had."""
    for _ in range(10):
        try:
            return await world.client(Shop).order(wanted)
        except Conflict:
            return None
        except RopewalkError as error:
            if error.status < 500:
                raise
        await asyncio.sleep(PAUSE)
    return await world.client(Shop).order(wanted)


@workload(every=1.5, always=[books_agree], eventually=[all_is_over, nothing_dead])
async def go_out(world: Any, random: Random) -> None:
    """Somebody orders seats, clicks twice, and is told the same each time; some want what they cannot pay."""
    price, show = random.randrange(10, LIMIT // 3), f"show-{random.randrange(SHOWS)}"
    wanted = Wanted(show, f"guest-{random.getrandbits(32):08x}", random.randrange(1, 5))
    await ask(world, "PUT", f"/shows/{show}", json={"price": price, "seats": SEATS})
    enter_context(Context(key=f"the key of {wanted.guest}"))

    first, second = await settled(order(world, wanted), order(world, wanted))

    for told in (first, second):
        if isinstance(told, BaseException):
            raise told
    assert first == second, f"clicked twice, and was told {first} and {second}"
    if first is not None:
        assert first.sold, f"sold, and it is {first}"
        assert await ask(world, "GET", f"/orders/{first.number}") == {
            **{field: getattr(wanted, field) for field in ("show", "guest", "seats")},
            "number": first.number,
            "amount": first.amount,
            "sold": True,
        }
