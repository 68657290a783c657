"""Mail that goes nowhere: it lands in a mailbox of this service, where the pages show it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from msgspec import Meta, Struct

from ropewalk import Database, NotFound, Service, Transaction, get, post, subscribe

from . import letters
from .letters import Body, Letter
from .stays import StayBooked, StayCancelled
from .words import Email, Line, Page

MailId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
KEPT = 100  # mails to one address; with each further one the oldest goes
PAGE = 20  # mails on a page

metadata = sa.MetaData()
mails = sa.Table(
    "mails",
    metadata,
    # SQLite counts only what is called INTEGER.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("mailbox", sa.String(254), nullable=False, index=True),  # the address in lower case
    sa.Column("to", sa.String(254), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("written_at", sa.BigInteger, nullable=False),  # seconds since 1970, UTC
    sa.Column("reservation_id", sa.Uuid),
    sqlite_autoincrement=True,  # a number is never given twice
)

# Built once: building one costs more than executing it.
_theirs = mails.c.mailbox == sa.bindparam("whose")
_NEWEST = sa.select(mails).where(_theirs).order_by(mails.c.id.desc()).limit(PAGE).offset(sa.bindparam("offset"))
_ONE = sa.select(mails).where(_theirs, mails.c.id == sa.bindparam("id"))
_oldest = sa.select(mails.c.id).where(_theirs).order_by(mails.c.id.desc()).offset(KEPT).limit(1)
_FORGET = mails.delete().where(_theirs, mails.c.id <= _oldest.scalar_subquery())


class Mail(Struct, frozen=True):
    """A mail that was sent."""

    id: MailId
    to: Email
    subject: Line
    body: Body
    written_at: datetime  # UTC, to the second
    reservation_id: UUID | None


class Notifications(Service, name="notifications", version="1.0.0"):
    """Sends mail to a local mailbox."""

    tables = metadata

    def __init__(self, database: Database) -> None:
        self._database = database

    @post("/mails", status=201)
    async def send(self, letter: Letter) -> Mail:
        """Send a mail; an address keeps its latest hundred."""
        return await self._database.run(_send, letter)

    @subscribe(StayBooked)
    async def confirm(self, event: StayBooked) -> None:
        """Tell a guest that the stay is booked."""
        await self._database.run(_send, letters.booked(event.reservation))

    @subscribe(StayCancelled)
    async def regret(self, event: StayCancelled) -> None:
        """Tell a guest that the stay is cancelled."""
        await self._database.run(_send, letters.cancelled(event.reservation, event.at))

    @get("/mails")
    async def mailbox(self, email: Email, page: Page = 1) -> list[Mail]:
        """List the mails to an address, the newest first, twenty a page."""
        return await self._database.run(_mailbox, email.lower(), page)

    @get("/mails/<int:mail_id>", raises=(NotFound,))
    async def read(self, mail_id: MailId, email: Email) -> Mail:
        """Read a mail to that address."""
        return await self._database.run(_read, mail_id, email.lower())


def _send(tx: Transaction, letter: Letter) -> Mail:
    mailbox = letter.to.lower()
    made = tx.execute(
        mails.insert(),
        {
            "mailbox": mailbox,
            "to": letter.to,
            "subject": letter.subject,
            "body": letter.body,
            "written_at": int(letter.written_at.timestamp()),
            "reservation_id": letter.reservation_id,
        },
    )
    tx.execute(_FORGET, {"whose": mailbox})
    assert made.inserted_primary_key is not None
    return _read(tx, made.inserted_primary_key[0], mailbox)


def _mailbox(tx: Transaction, mailbox: str, page: int) -> list[Mail]:
    return [_mail(row) for row in tx.execute(_NEWEST, {"whose": mailbox, "offset": (page - 1) * PAGE})]


def _read(tx: Transaction, mail_id: int, mailbox: str) -> Mail:
    row = tx.execute(_ONE, {"id": mail_id, "whose": mailbox}).one_or_none()
    if row is None:
        raise NotFound(f"There is no mail {mail_id} to {mailbox}.")
    return _mail(row)


def _mail(row: sa.Row[Any]) -> Mail:
    written_at = datetime.fromtimestamp(row.written_at, UTC)
    return Mail(row.id, row.to, row.subject, row.body, written_at, row.reservation_id)


__all__ = ["Body", "Letter", "Mail", "MailId", "Notifications", "PAGE", "mails", "metadata"]
