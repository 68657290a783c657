"""Shared commits: runs that wait while all threads are busy are made in one transaction, with one COMMIT.

A COMMIT waits for the disk, and on a server also for the way there, however little it writes. So what waits goes with
it, in the order in which it came, and all are answered after the COMMIT. What one run raises is its own affair: it is
undone by itself where the database can (`Sharing.undo`); where it cannot, nothing is committed, and each run waits
again, to be made alone, as does each one when the COMMIT fails. One that met what may pass (`MAY_PASS`) is made again
alone, after what came before it has committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from .database import MAY_PASS, Run, closed, unavailable
from .transaction import Transaction, write_last

# Runs of one COMMIT. One takes about 0.1 ms of its thread, and a COMMIT 0.1 to 10 ms of the disk: with 64 of them a
# run's share of the slowest is less than its own work, and no more than 64 are made a second time when it fails.
MOST = 64
LONGEST = 0.01  # seconds after which no more join: nobody waits longer for others than for a slow disk
SLOW = 0.1  # seconds of a function that is then made alone: nobody waits for it who could do without
APART = 100  # how often it is, before it may share again
REGAINED = 0.1  # by which each commit raises how many may share one, after nothing of theirs could be committed


class Sharing(Protocol):
    """How runs share a transaction of one kind of database."""

    def begin(self, engine: sqlalchemy.Engine) -> AbstractContextManager[sqlalchemy.Connection]:
        """A transaction: committed at the end, or rolled back when something is raised."""

    apart: bool  # whether what a run writes last is written with the run, so that it is undone with it

    def enter(self, connection: sqlalchemy.Connection) -> None:
        """Before each run."""

    def leave(self, connection: sqlalchemy.Connection) -> bool:
        """After each that returned; whether the transaction goes on. Raises when nothing of it can be committed."""

    def undo(self, connection: sqlalchemy.Connection, executed: Sequence[sqlalchemy.Executable]) -> bool:
        """Undo a run that raised and had `executed` this; False when it cannot be told from what others did."""

    def goes_on(self, connection: sqlalchemy.Connection) -> bool:
        """Whether the transaction is still under way."""

    def lost(self, error: BaseException) -> bool:
        """Whether a COMMIT that raised this may have happened all the same."""


class SharedCommits:
    """The threads of one database, and the runs that wait for them."""

    def __init__(
        self,
        name: str,
        engine: sqlalchemy.Engine,
        reactor: Any,
        sharing: Sharing,
        *,
        threads: int = 1,
        patience: float | None = None,
    ) -> None:
        """`engine`: with as many connections as `threads`; `reactor`: where runs are answered, with its clock.

        `patience`: seconds after which a run that no thread has taken is Unavailable.
        """
        self.engine = engine
        self.threads = ThreadPool(0, threads + 1, f"database-{name}")  # one for what is done beside the runs
        self._name = name
        self._reactor = reactor
        self.sharing = sharing
        self._most_threads = threads
        self._patience = patience
        self._impatient: IDelayedCall | None = None
        self._closed = False
        self._lock = Lock()  # of the next two
        self._waiting: deque[_Waiting] = deque()
        self._working = 0  # threads that look, or are about to
        self._may_share = float(MOST)
        self._slow: dict[str, int] = {}  # slow functions, and how often each is still made alone
        self.threads.start()

    def run(self, run: Run[Any]) -> Awaitable[Any]:
        """What `run` returns, committed; cancelled before its turn, it is never made."""
        if self._closed:
            raise closed()  # threads that have stopped would take it, and never call
        waiting = _Waiting(run, run.shares and not self._is_slow(run.name), self._reactor.seconds())
        with self._lock:
            self._waiting.append(waiting)
            begins = self._working < self._most_threads
            self._working += begins
        if begins:
            self.threads.callInThread(self._work)
        if self._patience is not None and self._impatient is None:
            self._impatient = self._reactor.callLater(self._patience, self._give_up)
        return waiting.answer

    def _is_slow(self, function: str) -> bool:
        if left := self._slow.get(function, 0):
            self._slow[function] = left - 1
        return bool(left)

    def close(self) -> None:
        """End the threads when what waits is done, and then the connections. Later runs are refused."""
        self._closed = True
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None
        self.threads.stop()
        self.engine.dispose()

    def _give_up(self) -> None:
        """Who waits for too long hears of it. All may wait equally long, so the first of them has waited longest."""
        self._impatient, patience = None, self._patience or 0.0
        with self._lock:
            waiting = list(self._waiting)
        for each in waiting:
            left = each.since + patience - self._reactor.seconds()
            if left > 0:
                self._impatient = self._reactor.callLater(left, self._give_up)
                break
            if each.taken():
                reason = f"none of its {self._most_threads} connections came free within {patience:g} seconds"
                each.answer.errback(Failure(unavailable(f"The database of {self._name} is busy: {reason}.", "no")))

    # -- in a thread

    def _work(self) -> None:
        """Make all that wait."""
        while (run := self._take()) is not None:
            if run.shares and self._may_share >= 2 and self._are_many():
                made = self._together(run)
            else:
                made = [run]
                run.alone()
                self._regain()
            self._reactor.callFromThread(_answer, made)

    def _take(self) -> _Waiting | None:
        """The next one for which somebody still waits; None, and this thread counts as idle, when there is none."""
        with self._lock:
            while self._waiting:
                run = self._waiting.popleft()
                if run.taken():
                    return run
            self._working -= 1
            return None

    def _take_another(self) -> _Waiting | None:
        """One that joins: when it can, and while enough wait for other threads."""
        with self._lock:
            while self._are_many() and self._waiting[0].shares:
                run = self._waiting.popleft()
                if run.taken():
                    return run
            return None

    def _are_many(self) -> bool:
        """Whether more wait than there are threads to spare."""
        return len(self._waiting) > self._most_threads - self._working

    def _together(self, first: _Waiting) -> list[_Waiting]:
        """Make `first` and those behind it, which have their outcomes then."""
        made = [first]
        ends = self._reactor.seconds() + LONGEST
        committing = False
        try:
            with self.sharing.begin(self.engine) as connection:
                while self._within(made[-1], connection) and len(made) < min(MOST, self._may_share):
                    following = self._take_another() if self._reactor.seconds() < ends else None
                    if following is None:
                        break
                    made.append(following)
                if not self.sharing.apart:
                    write_last([each.tx for each in made if each.did])
                committing = True
        except _Ended as error:
            for each in made:
                each.ended(error)
        except Exception as error:
            if committing and self.sharing.lost(error):
                for each in made:
                    each.lost(f"The database of {self._name} cannot be used: {getattr(error, 'orig', error)}")
                return made
            self._may_share = max(1.0, len(made) / 2)
            self._put_back(made)
            return []
        else:
            for each in made:
                each.committed()
            self._regain()
        return made

    def _put_back(self, made: Sequence[_Waiting]) -> None:
        """They come first again, each to be made alone by whichever thread is free: none waits for another's lock."""
        with self._lock:
            for each in reversed(made):
                each.put_back()
                self._waiting.appendleft(each)
            begun = min(len(made) - 1, self._most_threads - self._working)
            self._working += begun
        for _ in range(begun):
            self.threads.callInThread(self._work)

    def _within(self, waiting: _Waiting, connection: sqlalchemy.Connection) -> bool:
        began = self._reactor.seconds()
        try:
            return waiting.within(connection, self.sharing)
        finally:
            if self._reactor.seconds() - began > SLOW:
                self._slow[waiting.name] = APART

    def _regain(self) -> None:
        self._may_share = min(float(MOST), self._may_share + REGAINED)


class _Waiting:
    """A run, from when it waits until it is answered."""

    def __init__(self, run: Run[Any], shares: bool, since: float) -> None:
        """`shares`: whether others may be made in the same transaction; `since`: when it came."""
        self.answer: Deferred[Any] = Deferred(lambda _: self._turn.clear())
        self.outcome: Any = None  # what it returned, or a Failure
        self.did = False  # whether it has returned in a transaction that others share
        self.since = since
        self.shares = shares
        self.name = run.name
        self._run = run
        self._turn = [run]  # whoever takes it has it: the thread, or who waits no more
        self._again = False  # whether it is to be made alone

    @property
    def tx(self) -> Transaction:
        """Its part in a transaction that others share."""
        return self._run.tx

    def taken(self) -> bool:
        """Whether it may be made."""
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    def put_back(self) -> None:
        """It waits again, to be made alone."""
        self.shares = self.did = self._again = False
        self.outcome = None
        self._turn.append(self._run)

    def alone(self) -> None:
        """Make it, in a transaction of its own."""
        self._end(self._run)

    def within(self, connection: sqlalchemy.Connection, sharing: Sharing) -> bool:
        """Make it in the transaction of `connection`; False when it has to be alone.

        Raises when the transaction cannot go on.
        """
        sharing.enter(connection)
        try:
            self._run.within(connection)
            if sharing.apart:
                write_last([self._run.tx])
            self.did = True
        except BaseException as error:
            if not sharing.goes_on(connection):
                if isinstance(error, DBAPIError):
                    raise  # the database itself has rolled everything back, as SQLite does when the disk is full
                raise _Ended(self) from error
            if not sharing.undo(connection, self.tx.executed):
                raise _Broken from error
            self._again = isinstance(error, MAY_PASS)
            self.outcome = Failure()
            return not self._again
        if not sharing.leave(connection):
            raise _Ended(self)
        return True

    def committed(self) -> None:
        """The transaction has: its value counts."""
        if self._again:
            self.alone()
        elif not isinstance(self.outcome, Failure):
            self._end(self._run.committed)

    def lost(self, reason: str) -> None:
        """Nobody knows whether the transaction has committed."""
        if not isinstance(self.outcome, Failure) or self._again:
            self.outcome = Failure(unavailable(reason, "no" if self._again else "maybe"))

    def ended(self, error: _Ended) -> None:
        """The transaction was ended by a function: what became of the others nobody knows."""
        if error.culprit is self:
            self.outcome = Failure(
                RuntimeError(
                    "A function of Database.run has ended its transaction itself. It executes no COMMIT and no "
                    "ROLLBACK: what it returns is committed, what it raises is rolled back."
                )
            )
        else:
            self.lost("The transaction was ended by a function that shared it, and nobody knows how.")

    def _end(self, make: Callable[[], Any]) -> None:
        try:
            self.outcome = make()
        except BaseException:
            self.outcome = Failure()


class _Ended(Exception):
    """Raised when a function has ended the transaction that others share with it."""

    def __init__(self, culprit: _Waiting) -> None:
        super().__init__()
        self.culprit = culprit


class _Broken(Exception):
    """Raised when what one run has done cannot be undone without the others."""


def _answer(made: list[_Waiting]) -> None:
    """In the reactor."""
    for each in made:
        if not each.answer.called:
            each.answer.callback(each.outcome)  # a Failure is raised
