"""A payment provider that is none: it charges nobody, and can be made slow, declining or absent."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import UUID

import msgspec
from klein import Klein
from pydantic import Field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ropewalk import Database, NotFound, Service, Settings, Unavailable, get, post, put
from ropewalk.buggify import buggify

from . import ledger
from .ledger import (
    Card,
    Charge,
    ChargeOrder,
    ChargeRefused,
    Mode,
    PaymentDeclined,
    Provider,
    Refund,
    RefundOrder,
    RefundRefused,
    Voided,
    WrongCurrency,
)
from .words import new_id


class PaymentsSettings(Settings):
    """`[settings.payments]`."""

    currency: str = Field("EUR", pattern="^[A-Z]{3}$")  # ISO 4217: the only one the provider charges in
    latency: float = Field(0.05, ge=0, le=60)  # seconds the provider takes
    slow: float = Field(8.0, ge=0, le=600)  # seconds it takes while it is "slow"
    failure_rate: float = Field(0.0, ge=0, le=1)  # of all calls, that fail though it works


class Payments(Service, name="payments", version="1.0.0"):
    """Charges cards and gives money back."""

    app = Klein()
    tables = ledger.metadata

    def __init__(self, settings: PaymentsSettings, database: Database, clock: IReactorTime, random: Random) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._random = random

    @post(
        "/charges",
        status=201,
        idempotent=True,
        raises=(PaymentDeclined, ChargeRefused, WrongCurrency, Unavailable),
    )
    async def charge(self, order: ChargeOrder) -> Charge:
        """Charge a card, once for each reference.

        A reference gets the same answer each time: its charge, or the reason it was declined for. 503: whether it was
        charged is not known; ask again, or void the reference.
        """
        currency = self._settings.currency
        if order.currency != currency:
            raise WrongCurrency(f"This provider charges in {currency}; got {order.currency}.")
        mode = await self._reach()
        refusal = "card declined" if mode == "declining" else order.card.refusal
        verdict = await self._database.run(ledger.charge, new_id(self._random), order, refusal)
        if mode == "losing-replies" or buggify("payments: the provider charges, and its reply is lost"):
            raise Unavailable("The connection to the provider broke off; whether it charged is not known.")
        if verdict.charge is None:
            raise PaymentDeclined(f"The card was declined: {verdict.reason}.", reason=verdict.reason)
        return verdict.charge

    @get("/charges/<uuid:charge_id>", raises=(NotFound,))
    async def read(self, charge_id: UUID) -> Charge:
        """Read a charge."""
        return await self._database.run(ledger.read, charge_id)

    @post(
        "/charges/<uuid:charge_id>/refunds",
        status=201,
        idempotent=True,
        raises=(NotFound, RefundRefused, Unavailable),
    )
    async def refund(self, charge_id: UUID, order: RefundOrder) -> Refund:
        """Give back a charge or a part of it, once for each reference."""
        await self._reach()
        return await self._database.run(ledger.refund, new_id(self._random), charge_id, order)

    @put("/references/<uuid:reference>/void", raises=(Unavailable,))
    async def void(self, reference: UUID) -> Voided:
        """Make sure that nothing is charged under a reference, now or later.

        What was charged is given back; a charge that arrives later is refused. For a caller that does not know what
        became of its charge.
        """
        await self._reach()
        return await self._database.run(ledger.void, new_id(self._random), reference)

    @get("/mode")
    async def mode(self) -> Provider:
        """Read how the provider behaves."""
        return await self._database.run(ledger.mode)

    # What a person does to the world outside is no operation of the service: it has a raw route, and no place in the
    # API's document.
    @app.route("/provider", methods=["PUT"])
    async def told(self, request: Any) -> bytes:
        """Tell the provider how to behave: it works, is slow, declining, down, or charges and loses its replies."""
        try:
            provider = msgspec.json.decode(request.content.read(), type=Provider)
        except msgspec.DecodeError as error:
            request.setResponseCode(400)
            return f"{error}\n".encode()
        try:
            return msgspec.json.encode(await self.switch(provider))
        except Unavailable as error:  # a raw route answers for itself
            request.setResponseCode(error.status)
            return f"{error}\n".encode()

    async def switch(self, provider: Provider) -> Provider:
        """What `told` does."""
        return await self._database.run(ledger.switch, provider)

    async def _reach(self) -> Mode:
        """Wait as long as the provider takes; its mode. Raises Unavailable when it is down or fails by chance."""
        # As it is now: under a key `run` would tell each repetition how it was the first time.
        mode = (await self._database.apart(ledger.mode)).mode
        await deferLater(self._clock, self._settings.slow if mode == "slow" else self._settings.latency)
        failed = self._random.random() < self._settings.failure_rate or buggify("payments: the provider is down")
        if mode == "down" or failed:
            raise Unavailable("The payment provider cannot be reached.")
        return mode


__all__ = [
    "Card",
    "Charge",
    "ChargeOrder",
    "ChargeRefused",
    "Mode",
    "PaymentDeclined",
    "Payments",
    "PaymentsSettings",
    "Provider",
    "Refund",
    "RefundOrder",
    "RefundRefused",
    "Voided",
    "WrongCurrency",
]
