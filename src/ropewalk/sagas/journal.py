"""The journal: one transaction each. What a saga's steps came to, who runs it, what it was told.

Every write of a runner names the owner and the epoch it runs the saga under. One that finds another there raises
Fenced, and nothing of its transaction commits: whoever was believed dead writes no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from ..errors import NotFound
from ..store import Transaction
from ..store.started import Carried, add, named
from ..store.tables import journal, members, sagas, signals

RUNNING, COMPLETED, COMPENSATED, PARKED = "running", "completed", "compensated", "parked"
FAILED = "failed"  # of a job, which has nothing to compensate
BEGUN = -1  # the status of what was begun and is not over; `result` says until when
ENDED = "ended:"  # and the id: what is told of a saga that has ended, or is parked
FAR = 2**62  # when one is due that only a signal can wake
TAKEN_AT_ONCE = 100
BATCH = 100  # sagas that are deleted in one transaction, so that nobody waits for long
SOON = 120  # seconds that clocks may differ when they tell what was due
KEPT = 86400  # seconds for which it is kept what a job that is done at times came to


class Fenced(Exception):
    """Raised out of a transaction of who does not own the saga any more."""


class Place(Struct, frozen=True):
    """Which step of a saga something is."""

    branch: str
    step: str
    use: int

    def __str__(self) -> str:
        nth = f" ({self.use})" if self.use > 1 else ""
        return f"{self.step}{nth}{self.branch and ' of ' + self.branch}"


class Entry(Struct, frozen=True):
    """What a step came to."""

    place: Place
    number: int
    kind: str
    arguments: str
    status: int
    result: bytes
    type: str = ""
    at: int = 0  # when it was written, seconds since 1970; 0: not yet
    version: str = ""  # of the service that wrote it


class Claim(Struct, frozen=True):
    """A saga that a runner owns."""

    id: str
    saga: str  # "reservations.book"
    arguments: bytes
    owner: str
    epoch: int
    cancel: bool
    context: bytes
    entries: Sequence[Entry] = ()  # what its journal held then
    signals: Sequence[tuple[str, bytes]] = ()  # what it had been told


class Look(Struct, frozen=True):
    """What is to be done."""

    claims: Sequence[Claim]  # to be run from now on
    cancelled: frozenset[str]  # of all
    signals: Mapping[str, Sequence[tuple[str, bytes]]]  # of those that wait for one
    due: int | None  # when the first of those that were put away is to go on, in milliseconds


class Told(Struct, frozen=True):
    """A saga as others see it."""

    id: str
    saga: str
    state: str
    waits: str
    error: str
    result: bytes
    cancel: bool
    at: int
    ended: int | None
    arguments: bytes
    context: bytes
    due: int | None = None  # it is put away until then, in milliseconds; FAR: until it is told something
    owned: bool = False  # a process runs it


# -- who runs what


class Wanted(Struct, frozen=True):
    """What a runner asks for: up to `limit` sagas that are to go on and that nobody runs, the oldest first.

    `idle`: of those that it runs, the ones that wait for a signal. `lost`: what it owns though it does not run it, it
    took in a look whose answer was lost, or that came to be after a later one, and is to have again; `running`: what it
    does run.
    """

    owner: str
    running: Collection[str]
    idle: Collection[str]
    now_ms: int
    limit: int
    lost: bool = False


def look(tx: Transaction, wants: Sequence[Wanted]) -> list[Look]:
    """Take for each runner what it may run; see what others were told."""
    return [_look(tx, wanted) for wanted in wants]


def _look(tx: Transaction, wanted: Wanted) -> Look:
    claims = _claim(tx, wanted, min(wanted.limit, TAKEN_AT_ONCE)) if wanted.limit > 0 else []
    cancelled = tx.execute(_CANCELLED).scalars()
    due = tx.execute(_DUE).scalar_one()
    return Look(claims, frozenset(cancelled), heard(tx, wanted.idle), due)


def _claim(tx: Transaction, wanted: Wanted, limit: int) -> list[Claim]:
    owner, running = wanted.owner, set(wanted.running) if wanted.lost else set()
    given = {"now": wanted.now_ms, "lost": owner if wanted.lost else "", "limit": limit + len(running)}
    found = [row for row in tx.execute(_OPEN, given) if row.id not in running][:limit]
    if not found:
        return []
    ids = [row.id for row in found]
    tx.execute(_TAKE, {"ids": ids, "owner_": owner})
    written = entries(tx, [row.id for row in found if row.epoch])  # the others were never taken up
    signals = heard(tx, ids)
    return [
        Claim(
            row.id,
            row.saga,
            bytes(row.arguments),
            owner,
            row.epoch + 1,
            bool(row.cancel),
            bytes(row.context),
            written.get(row.id, []),
            signals.get(row.id, []),
        )
        for row in found
    ]


def put_away(tx: Transaction, claim: Claim, due_ms: int | None, waits: str, signals: int) -> bool:
    """Let go of a saga that only waits, until it is due; whether it was: not when it was told something meanwhile.

    `signals`: how many it has seen.
    """
    told = tx.execute(_ASKED, _held(claim)).one_or_none()
    if told is None:
        raise Fenced(claim.id)
    if len(heard(tx, [claim.id]).get(claim.id, ())) != signals or bool(told.cancel) != claim.cancel:
        return False
    due = FAR if due_ms is None else due_ms
    _change(tx, claim, _PUT_AWAY, due_=due, waits_=waits[:200])
    return True


def give_up(tx: Transaction, claim: Claim) -> None:
    """Let go of it as it is: somebody else is to go on."""
    _change(tx, claim, _GIVE_UP)
    tx.wrote.add("sagas")


def _held(claim: Claim) -> dict[str, Any]:
    """What `_holds` asks of the claim."""
    return {"id_": claim.id, "owner_": claim.owner, "epoch_": claim.epoch}


def _change(tx: Transaction, claim: Claim, change: sa.Update, **values: Any) -> None:
    if not tx.execute(change, {**_held(claim), **values}).rowcount:
        raise Fenced(claim.id)


# -- what steps came to


def entries(tx: Transaction, ids: Collection[str]) -> dict[str, list[Entry]]:
    """All that was written for these sagas, in order."""
    found: dict[str, list[Entry]] = {}
    if not ids:
        return found
    for row in tx.execute(_ENTRIES, {"ids": list(ids)}):
        place = Place(row.branch, row.step, row.use)
        said = (row.number, row.kind, row.arguments, row.status, bytes(row.result), row.type, row.at, row.version)
        entry = Entry(place, *said)
        found.setdefault(row.saga, []).append(entry)
    return found


class Ending(Struct, frozen=True):
    """How a saga ended, or that it is parked."""

    state: str
    result: bytes = b""
    error: str = ""


class Ended(Struct, frozen=True):
    """What the saga that started another one is told of its end, by a signal."""

    state: str
    result: msgspec.Raw


class Written(Struct, frozen=True):
    """What is to be written of a saga: what its steps came to, and how it ended if it has."""

    claim: Claim
    entries: Sequence[Entry]
    version: str
    ending: Ending | None = None


def write(tx: Transaction, writes: Sequence[Written]) -> list[Fenced | None]:
    """Write it all down; over what was begun, the end of it. For a claim that does not hold any more: Fenced."""
    held = _lock(tx, [each.claim for each in writes])
    good = [each for each, holds in zip(writes, held, strict=True) if holds]
    _write(tx, good)
    _end(tx, [(each.claim, each.ending) for each in good if each.ending is not None])
    return [None if holds else Fenced(each.claim.id) for each, holds in zip(writes, held, strict=True)]


def _lock(tx: Transaction, claims: Sequence[Claim]) -> list[bool]:
    """Which claims hold, and do until this transaction has ended."""
    rows = tx.execute(_LOCK, {"ids": [claim.id for claim in claims]})
    owned = {row.id: (row.owner, row.epoch) for row in rows}
    return [owned.get(claim.id) == (claim.owner, claim.epoch) for claim in claims]


def _write(tx: Transaction, writes: Sequence[Written]) -> None:
    """A place that is there already was begun, or the answer to its commit was lost: then it stays as it is."""
    now = int(tx.database.now())
    rows = [_row(each, entry, now) for each in writes for entry in each.entries]
    if rows:
        tx.execute(_WRITE, rows)


def _row(written: Written, entry: Entry, now: int) -> dict[str, Any]:
    claim, place = written.claim, entry.place
    return {
        "saga": claim.id,
        "branch": place.branch,
        "step": place.step,
        "use": place.use,
        "number": entry.number,
        "kind": entry.kind,
        "arguments": entry.arguments,
        "status": entry.status,
        "result": entry.result,
        "type": entry.type[:200],
        "version": written.version[:40],
        "epoch": claim.epoch,
        "at": now,
    }


def _end(tx: Transaction, ended: Sequence[tuple[Claim, Ending]]) -> None:
    """Those that are over, or parked."""
    now = int(tx.database.now())
    values = [
        {
            "id_": claim.id,
            "state_": ending.state,
            "result_": ending.result,
            "error_": ending.error[:2000],
            "ended_": now if ending.state != PARKED else None,
        }
        for claim, ending in ended
    ]
    if values:
        tx.execute(_END, values)
        tx.wrote.update(f"{ENDED}{claim.id}" for claim, _ in ended)
        _tell_parents(tx, ended)


def _tell_parents(tx: Transaction, ended: Sequence[tuple[Claim, Ending]]) -> None:
    """Those that have a saga as a step hear of its end, by a signal."""
    told = []
    for claim, ending in ended:
        parent = msgspec.json.decode(claim.context, type=Carried).parent
        if parent and ending.state != PARKED:
            value = msgspec.json.encode(Ended(ending.state, msgspec.Raw(ending.result)))
            told.append({"saga": parent, "name": f"{ENDED}{claim.id}", "value": value})
    if told:
        tx.execute(_TELL, told)
        # Whether it waits or is just being put away: that is a change of this row, and the later of the two sees the
        # other.
        tx.execute(_GO_ON, {"ids": sorted({each["saga"] for each in told})})
        tx.wrote.add("sagas")


# Built once: building one costs more than executing it.
_ids: sa.BindParameter[str] = sa.bindparam("ids", expanding=True)
_mine = (sagas.c.id.in_(_ids),)
_open = sagas.c.state == RUNNING
_holds = (
    sagas.c.id == sa.bindparam("id_"),
    sagas.c.owner == sa.bindparam("owner_"),
    sagas.c.epoch == sa.bindparam("epoch_"),
    _open,
)
_ASKED = sa.select(sagas.c.cancel).where(*_holds)
_PUT_AWAY = sagas.update().where(*_holds).values(owner="", due=sa.bindparam("due_"), waits=sa.bindparam("waits_"))
_GIVE_UP = sagas.update().where(*_holds).values(owner="")
_ENTRIES = sa.select(journal).where(journal.c.saga.in_(_ids)).order_by(journal.c.saga, journal.c.number)
_HEARD = sa.select(signals).where(signals.c.saga.in_(_ids)).order_by(signals.c.position)
_LOCK = sa.select(sagas.c.id, sagas.c.owner, sagas.c.epoch).where(*_mine, _open).order_by(sagas.c.id).with_for_update()
_place, _over = "saga, branch, step, use", ("number", "status", "result", "type", "version", "at")
_columns = [column.name for column in journal.columns]
_WRITE = sa.text(  # SQLite and PostgreSQL say it alike, and SQLAlchemy to each in another way
    f"INSERT INTO {journal.name} ({', '.join(_columns)}) VALUES ({', '.join(f':{name}' for name in _columns)}) "
    f"ON CONFLICT ({_place}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _over)} "
    f"WHERE {journal.name}.status = {BEGUN}"
)
_END = (
    sagas.update()
    .where(sagas.c.id == sa.bindparam("id_"))
    .values(owner="", waits="", **{name: sa.bindparam(f"{name}_") for name in ("state", "result", "error", "ended")})
)
_nobodys = sa.or_(sagas.c.owner == "", sagas.c.owner.not_in(sa.select(members.c.id)))
_due = sa.or_(sagas.c.due.is_(None), sagas.c.due <= sa.bindparam("now"), sagas.c.cancel)
_OPEN = (
    sa.select(sagas)
    .where(_open, sa.or_(_nobodys, sagas.c.owner == sa.bindparam("lost")), _due)
    .order_by(sagas.c.at, sagas.c.id)
    .limit(sa.bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_TAKE = sagas.update().where(*_mine).values(owner=sa.bindparam("owner_"), epoch=sagas.c.epoch + 1, due=None, waits="")
_TELL = signals.insert()
_GO_ON = sagas.update().where(*_mine, _open).values(due=None)
_CANCELLED = sa.select(sagas.c.id).where(_open, sagas.c.cancel)
_READ = sa.select(sagas).where(*_mine)
_DUE = sa.select(sa.func.min(sagas.c.due)).where(sagas.c.state == RUNNING, sagas.c.owner == "")


def transact(
    tx: Transaction,
    claim: Claim,
    place: Place,
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    encode: Any,
    before: Sequence[Entry],
    version: str,
) -> Entry:
    """`function(tx, *args, **kwargs)` and the entry that `encode` makes of what it returns, together, once.

    `before`: what is to be written before that.
    """
    known = next((each for each in entries(tx, [claim.id]).get(claim.id, ()) if each.place == place), None)
    entry: Entry = encode(function(tx, *args, **kwargs)) if known is None else known
    written = [*before] if known is not None else [*before, entry]
    for outcome in write(tx, [Written(claim, written, version)]):
        if outcome is not None:
            raise outcome
    return entry


# -- what sagas are told


def tell(tx: Transaction, id: str, name: str, value: bytes) -> None:
    """A signal; it wakes one that was put away. Raises NotFound."""
    read(tx, id)
    tx.execute(signals.insert().values(saga=id, name=name, value=value))
    _wake(tx, id)


def heard(tx: Transaction, ids: Collection[str]) -> dict[str, list[tuple[str, bytes]]]:
    """The signals of these sagas so far, in order: (name, value)."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    if not ids:
        return found
    for row in tx.execute(_HEARD, {"ids": list(ids)}):
        found.setdefault(row.saga, []).append((row.name, bytes(row.value)))
    return found


def cancel(tx: Transaction, id: str) -> bool:
    """Ask it to end: it meets Cancelled at its next step, and compensates; whether it had not ended. Raises NotFound.

    A parked one goes on for that.
    """
    read(tx, id)
    asked = tx.execute(
        sagas.update().where(sagas.c.id == id, sagas.c.state.in_((RUNNING, PARKED))).values(cancel=True)
    ).rowcount
    retry(tx, id)
    _wake(tx, id)
    return bool(asked)


def retry(tx: Transaction, id: str) -> bool:
    """Let a parked one go on where it was; whether it was parked. Raises NotFound."""
    read(tx, id)
    tx.wrote.add("sagas")
    freed = sagas.update().where(sagas.c.id == id, sagas.c.state == PARKED)
    return bool(tx.execute(freed.values(state=RUNNING, owner="", due=None, error="", waits="")).rowcount)


def _wake(tx: Transaction, id: str) -> None:
    tx.execute(sagas.update().where(sagas.c.id == id, sagas.c.owner == "").values(due=None))
    tx.wrote.add("sagas")


def read(tx: Transaction, id: str) -> Told:
    """How it stands; raises NotFound."""
    [found] = read_all(tx, [id])
    if isinstance(found, NotFound):
        raise found
    return found


def read_all(tx: Transaction, ids: Sequence[str]) -> list[Told | NotFound]:
    """How each of them stands."""
    rows = {row.id: row for row in tx.execute(_READ, {"ids": ids})}
    return [_told(rows[id]) if id in rows else NotFound(f"There is no saga {id!r}.") for id in ids]


def listed(tx: Transaction, state: str | None, limit: int, without: Collection[str] = ()) -> list[Told]:
    """The latest ones; of those that are called as in `without`, none that completed."""
    statement = sa.select(sagas).order_by(sagas.c.at.desc(), sagas.c.id).limit(limit)
    if state is not None:
        statement = statement.where(sagas.c.state == state)
    if without:
        statement = statement.where(sa.or_(sagas.c.state != COMPLETED, sagas.c.saga.not_in(sorted(without))))
    return [_told(row) for row in tx.execute(statement)]


def census(tx: Transaction) -> dict[str, int]:
    """How many have not ended: "running", "waiting" (put away until something happens), "parked"."""
    running, away = sagas.c.state == RUNNING, sa.and_(sagas.c.owner == "", sagas.c.due.is_not(None))
    kinds = {RUNNING: sa.and_(running, ~away), "waiting": sa.and_(running, away), PARKED: sagas.c.state == PARKED}
    counts = [sa.func.count().filter(kind).label(name) for name, kind in kinds.items()]
    row = tx.execute(sa.select(*counts).where(sagas.c.state.in_((RUNNING, PARKED)))).one()
    return {name: int(getattr(row, name)) for name in kinds}


def _told(row: Any) -> Told:
    return Told(
        row.id,
        row.saga,
        row.state,
        row.waits,
        row.error,
        bytes(row.result),
        bool(row.cancel),
        row.at,
        row.ended,
        bytes(row.arguments),
        bytes(row.context),
        row.due,
        bool(row.owner),
    )


# -- what is done at times


def tick(tx: Transaction, job: str, at: int, arguments: bytes, now: int) -> bool:
    """Have the job done that is due at `at`, seconds since 1970; whether that is new.

    It is not while an earlier one is under way, nor for a moment that has been. The first moment of all is only noted.
    """
    mine = sagas.c.saga == job
    if tx.execute(sa.select(sagas.c.id).where(mine, sagas.c.state == RUNNING).limit(1)).first() is not None:
        return False
    known = tx.execute(sa.select(sagas.c.id, sagas.c.ended).where(mine)).all()
    last = max((int(row.id.rpartition("@")[2]) for row in known), default=None)
    if last is not None and at <= last <= now + SOON:  # one far ahead was set by a clock that was wrong
        return False
    tx.execute(sagas.delete().where(mine, sagas.c.ended < now - KEPT))
    add(tx, named(job, arguments, f"{job}@{at}"))
    if last is None:
        tx.execute(sagas.update().where(sagas.c.id == f"{job}@{at}").values(state=COMPLETED, ended=now))
        return False
    tx.wrote.add("sagas")
    return True


# -- forgetting


def purge(tx: Transaction, before: int) -> int:
    """Delete a batch of the sagas that ended before `before`, seconds since 1970, with all of theirs; how many."""
    old = sa.select(sagas.c.id).where(sagas.c.ended < before).order_by(sagas.c.ended, sagas.c.id).limit(BATCH)
    ids = list(tx.execute(old).scalars())
    if ids:
        tx.execute(journal.delete().where(journal.c.saga.in_(ids)))
        tx.execute(signals.delete().where(signals.c.saga.in_(ids)))
        tx.execute(sagas.delete().where(sagas.c.id.in_(ids)))
    return len(ids)
