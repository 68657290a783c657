"""The tables Ropewalk keeps in a service's own database, beside the service's: all of them, and what each row means.

Times are seconds since 1970, UTC, by the clock of whoever wrote them; nothing but display and forgetting goes by them,
and the sleep of a saga.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
_position = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts only what is called INTEGER

# What came of the runs of a request under a key: see records.py.
records = sa.Table(
    "ropewalk_records",
    metadata,
    sa.Column("scope", sa.String(32), primary_key=True),  # tenant, principal, operation and key: see Keyed
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),  # the first is 1; 0: the key was taken back
    sa.Column("function", sa.String(200), primary_key=True),
    sa.Column("arguments", sa.String(32), nullable=False),  # what stands for those of the request
    sa.Column("operation", sa.String(200), nullable=False),  # for people, as is the next one
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),  # 0: it returned; else that of the error it raised
    sa.Column("ran", sa.String(5), nullable=False),  # of an error
    sa.Column("result", sa.LargeBinary, nullable=False),  # JSON: what it returned, or a problem document
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Events that were committed and not yet handed to the broker: see outbox.py.
outbox = sa.Table(
    "ropewalk_outbox",
    metadata,
    sa.Column("position", _position, primary_key=True),  # of one key: in the order of their commits
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("writer", sa.String(32), nullable=False),  # the process that wrote it, which hands it on first
    sa.Column("message", sa.LargeBinary, nullable=False),  # a CloudEvent
    sa.Column("at", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice
)

# Events that could not be handled, and those that wait behind one: see events/dead_letters.py.
dead_letters = sa.Table(
    "ropewalk_dead_letters",
    metadata,
    sa.Column("position", _position, primary_key=True),
    sa.Column("subscription", sa.String(200), nullable=False),  # "": nobody had subscribed
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("event", sa.String(255), nullable=False),  # its id
    sa.Column("topic", sa.String(200), nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),  # 0: it only waits behind another one
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("replay", sa.Boolean, nullable=False),  # somebody asked for another try
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("subscription", "event", name="ropewalk_dead_letters_event"),
    sa.Index("ropewalk_dead_letters_key", "subscription", "key"),
    sqlite_autoincrement=True,
)

# Which processes share this database, and that they live: see members.py.
members = sa.Table(
    "ropewalk_members",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),  # goes up as long as it lives
    sqlite_with_rowid=False,
)

# Sagas that were started: see sagas/journal.py.
sagas = sa.Table(
    "ropewalk_sagas",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("saga", sa.String(200), nullable=False),  # "reservations.book"
    sa.Column("arguments", sa.LargeBinary, nullable=False),  # JSON
    sa.Column("state", sa.String(12), nullable=False),  # running, completed, compensated, parked
    sa.Column("owner", sa.String(32), nullable=False),  # the member that runs it; "": none
    sa.Column("epoch", sa.Integer, nullable=False),  # goes up with each owner: what an earlier one writes is refused
    sa.Column("due", sa.BigInteger),  # it is put away until then, milliseconds; NULL: it is to go on now
    sa.Column("waits", sa.String(200), nullable=False),  # for what, for people
    sa.Column("cancel", sa.Boolean, nullable=False),  # somebody wants it to end
    sa.Column("result", sa.LargeBinary, nullable=False),  # JSON: what it returned, or a problem document
    sa.Column("context", sa.LargeBinary, nullable=False),  # JSON: trace, request id, tenant, on whose behalf
    sa.Column("error", sa.Text, nullable=False),  # why it is parked, for people
    sa.Column("at", sa.BigInteger, nullable=False),  # when it was started
    sa.Column("ended", sa.BigInteger),
    sa.Index("ropewalk_sagas_open", "state", "owner"),
    sa.Index("ropewalk_sagas_ended", "ended"),
    sqlite_with_rowid=False,
)

# What the steps of sagas came to: see sagas/journal.py.
journal = sa.Table(
    "ropewalk_journal",
    metadata,
    sa.Column("saga", sa.String(255), primary_key=True),
    sa.Column("branch", sa.String(200), primary_key=True),  # "": the saga's own; "gather:1/0": the first of a gather
    sa.Column("step", sa.String(200), primary_key=True),
    sa.Column("use", sa.Integer, primary_key=True, autoincrement=False),  # the how manieth of that name in its branch
    sa.Column("number", sa.Integer, nullable=False),  # its place in the whole journal
    sa.Column("kind", sa.String(12), nullable=False),  # step, transaction, sleep, wait, race, changed
    sa.Column("arguments", sa.String(32), nullable=False),  # what stands for them
    sa.Column(
        "status", sa.Integer, nullable=False
    ),  # 0: a result; -1: begun, `result` says until when; else an error's
    sa.Column("result", sa.LargeBinary, nullable=False),  # JSON
    sa.Column("type", sa.String(200), nullable=False),  # of the result
    sa.Column("version", sa.String(40), nullable=False),  # of the service that wrote it
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What sagas were told from outside.
signals = sa.Table(
    "ropewalk_signals",
    metadata,
    sa.Column("position", _position, primary_key=True),
    sa.Column("saga", sa.String(255), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),  # JSON
    sqlite_autoincrement=True,
)


def left(connection: sa.Connection) -> frozenset[str]:
    """What an earlier process has left to do: "events", "sagas"."""
    open_ = sa.select(sagas.c.id).where(sagas.c.state == "running")
    work = {"events": sa.select(outbox.c.position), "sagas": open_}
    return frozenset(what for what, rows in work.items() if connection.execute(rows.limit(1)).first() is not None)
