"""What the payment provider writes down: its values, its errors, its tables, and the functions of one transaction each.

A reference is charged once: whatever became of it the first time, charged or declined, is what every repetition gets.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import sqlalchemy as sa
from msgspec import Meta, Struct

from ropewalk import Conflict, NotFound, RopewalkError, Transaction

from .words import Currency, Line, Money

Mode = Literal["working", "slow", "declining", "down", "losing-replies"]
Amount = Annotated[int, Meta(ge=1, le=1_000_000_000)]  # minor units

# Card numbers that are always declined, and why; the numbers are those Stripe documents for its tests.
DECLINED = {
    "4000000000000002": "card declined",
    "4000000000009995": "insufficient funds",
    "4000000000000069": "expired card",
    "4000000000000127": "incorrect security code",
}


class PaymentDeclined(RopewalkError):
    """Raised when the provider refuses the card; `reason` says why. Nothing was charged."""

    status = 402
    fault = "caller"


class ChargeRefused(Conflict):
    """Raised when a reference was voided, or was charged with something else."""


class WrongCurrency(Conflict):
    """Raised when a charge is not in the one currency the provider charges in."""


class RefundRefused(Conflict):
    """Raised when more would be given back than was charged."""


class Card(Struct, frozen=True):
    """A payment card. 4000000000000002 is declined; so are some others, see `ledger.DECLINED`."""

    number: Annotated[str, Meta(pattern=r"^[0-9]{12,19}$(?!\n)")]
    expiry: Annotated[str, Meta(pattern=r"^(0[1-9]|1[0-2])/[0-9]{2}$(?!\n)")]  # MM/YY
    cvc: Annotated[str, Meta(pattern=r"^[0-9]{3,4}$(?!\n)")]

    def __repr__(self) -> str:
        return f"<Card ending in {self.number[-4:]}>"  # the rest must not get into a log

    @property
    def refusal(self) -> str | None:
        """Why no provider would accept it, or None."""
        return DECLINED.get(self.number) or (None if _passes_luhn(self.number) else "incorrect number")


class ChargeOrder(Struct, frozen=True):
    """What is to be charged. The same reference is charged once, however often it is asked for."""

    reference: UUID  # the caller's: what this pays for
    amount: Amount
    currency: Currency
    card: Card
    description: Line


class Charge(Struct, frozen=True):
    """What was charged."""

    id: UUID
    reference: UUID
    amount: Money
    currency: Currency
    last4: str  # of the card's number
    description: str
    refunded: Money  # of the amount, so far


class RefundOrder(Struct, frozen=True):
    """What is to be given back. The same reference is refunded once, however often it is asked for."""

    reference: UUID  # the caller's: what this gives back for
    amount: Amount


class Refund(Struct, frozen=True):
    """What was given back."""

    id: UUID
    charge_id: UUID
    reference: UUID
    amount: Money
    currency: Currency


class Voided(Struct, frozen=True):
    """A reference for which nothing is charged, and nothing will be."""

    reference: UUID
    refunded: Money  # what had been charged under it and was given back


class Provider(Struct, frozen=True):
    """How the provider behaves."""

    mode: Mode


class Verdict(Struct, frozen=True):
    """What became of a charge: the charge, or why it was declined."""

    charge: Charge | None = None
    reason: str = ""


metadata = sa.MetaData()

charges = sa.Table(
    "charges",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("reference", sa.Uuid, nullable=False, unique=True),
    sa.Column("amount", sa.BigInteger, nullable=False),  # 0: a reference that was voided before it was charged
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("last4", sa.String(4), nullable=False),
    sa.Column("description", sa.String(200), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),  # captured, declined, voided
    sa.Column("reason", sa.String(40), nullable=False),
    sa.Column("refunded", sa.BigInteger, nullable=False),
    sa.CheckConstraint("refunded <= amount"),
)
refunds = sa.Table(
    "refunds",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("charge_id", sa.Uuid, sa.ForeignKey("charges.id"), nullable=False),
    sa.Column("reference", sa.Uuid, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("charge_id", "reference"),
)
provider = sa.Table(
    "provider", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("mode", sa.String(20))
)

# Built once: building one costs more than executing it.
_CHARGE = sa.select(charges).where(
    charges.c.id == sa.bindparam("id"), charges.c.state != "declined", charges.c.amount > 0
)
_UNDER = sa.select(charges).where(charges.c.reference == sa.bindparam("reference"))
_MODE = sa.select(provider.c.mode)


def charge(tx: Transaction, charge_id: UUID, order: ChargeOrder, refusal: str | None) -> Verdict:
    """Write down a charge, or that it was refused; what was written under its reference before, if anything was."""
    row = tx.execute(_UNDER, {"reference": order.reference}).one_or_none()
    if row is None:
        charged = Charge(
            charge_id, order.reference, order.amount, order.currency, order.card.number[-4:], order.description, 0
        )
        _insert(tx, charged, "captured" if refusal is None else "declined", refusal or "")
        return Verdict(charged) if refusal is None else Verdict(reason=refusal)
    if row.state == "voided":
        raise ChargeRefused(f"The reference {order.reference} was voided; it is never charged again.")
    if (row.amount, row.currency) != (order.amount, order.currency):
        raise ChargeRefused(
            f"The reference {order.reference} stands for {row.amount} {row.currency} already; "
            f"got {order.amount} {order.currency}."
        )
    return Verdict(_charge(row)) if row.state == "captured" else Verdict(reason=row.reason)


def read(tx: Transaction, charge_id: UUID) -> Charge:
    """The charge of that id; raises NotFound, also for one that was declined."""
    return _charge(_row(tx, charge_id))


def refund(tx: Transaction, refund_id: UUID, charge_id: UUID, order: RefundOrder) -> Refund:
    """Write down a refund, once for its reference; raises NotFound, RefundRefused."""
    row = _row(tx, charge_id)
    made = tx.execute(
        sa.select(refunds).where(refunds.c.charge_id == charge_id, refunds.c.reference == order.reference)
    ).one_or_none()
    if made is not None:
        if made.amount != order.amount:
            raise RefundRefused(f"{made.amount} was given back for {order.reference} already; got {order.amount}.")
        return Refund(made.id, charge_id, order.reference, made.amount, row.currency)
    if row.refunded + order.amount > row.amount:
        raise RefundRefused(f"{row.amount - row.refunded} of the charge is left to give back; got {order.amount}.")
    tx.execute(
        refunds.insert().values(id=refund_id, charge_id=charge_id, reference=order.reference, amount=order.amount)
    )
    tx.execute(charges.update().where(charges.c.id == charge_id).values(refunded=row.refunded + order.amount))
    return Refund(refund_id, charge_id, order.reference, order.amount, row.currency)


def void(tx: Transaction, charge_id: UUID, reference: UUID) -> Voided:
    """Give back what a reference was charged, or write down that it must not be; `charge_id` is for the latter."""
    row = tx.execute(_UNDER, {"reference": reference}).one_or_none()
    if row is None:
        _insert(tx, Charge(charge_id, reference, 0, "", "", "", 0), "voided", "")
        return Voided(reference, 0)
    if row.state == "declined":
        return Voided(reference, 0)
    tx.execute(charges.update().where(charges.c.id == row.id).values(state="voided", refunded=row.amount))
    return Voided(reference, row.amount)


def mode(tx: Transaction) -> Provider:
    """How the provider was told to behave; "working" unless it was."""
    row = tx.execute(_MODE).one_or_none()
    return Provider(row.mode if row is not None else "working")


def switch(tx: Transaction, told: Provider) -> Provider:
    """Write down how the provider is to behave."""
    if tx.execute(provider.update().values(mode=told.mode)).rowcount == 0:
        tx.execute(provider.insert().values(id=1, mode=told.mode))
    return told


def _row(tx: Transaction, charge_id: UUID) -> sa.Row[tuple[object, ...]]:
    found = tx.execute(_CHARGE, {"id": charge_id}).one_or_none()
    if found is None:
        raise NotFound(f"There is no charge {charge_id}.")
    return found


def _charge(row: sa.Row[tuple[object, ...]]) -> Charge:
    return Charge(row.id, row.reference, row.amount, row.currency, row.last4, row.description, row.refunded)


def _insert(tx: Transaction, charged: Charge, state: str, reason: str) -> None:
    tx.execute(
        charges.insert().values(
            id=charged.id,
            reference=charged.reference,
            amount=charged.amount,
            currency=charged.currency,
            last4=charged.last4,
            description=charged.description,
            state=state,
            reason=reason,
            refunded=charged.refunded,
        )
    )


def _passes_luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten."""
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(number))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
