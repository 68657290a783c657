"""What a service is given, by annotation, and what is said when nothing fits."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import Interface, implementer

from ropewalk import Client, Contract, Database, Service, Settings, operation
from ropewalk.errors import ConfigurationError
from ropewalk.runtime.inject import construct, dependencies_of

if TYPE_CHECKING:
    from decimal import Decimal


class IMailer(Interface):
    """Sends mail."""


@implementer(IMailer)
class Mailer: ...


class PaymentsSettings(Settings):
    currency: str = "EUR"


class PaymentsContract(Contract, name="payments"):
    @operation
    async def charge(self) -> None: ...


class Everything(Service):
    """Its siblings are defined further down, or name it in turn."""

    def __init__(
        self,
        settings: PaymentsSettings,
        payments: PaymentsContract,
        later: Annotated[Later, Client(timeout=2.0)],
        clock: IReactorTime,
        mailer: IMailer,
        random: Random,
        perhaps: Optional[Later] = None,
        other: Annotated[Later, Client(timeout=3.0)] | None = None,
        plain: int = 3,
        *args: Any,
        by_name: Random | None = None,
        **kwargs: Any,
    ) -> None:
        self.given = (settings, payments, later, clock, mailer, random, perhaps, other, plain, args, by_name, kwargs)


class Later(Service):
    def __init__(self, everything: Everything) -> None:
        self.everything = everything


CLOCK, RANDOM, MAILER = Clock(), Random(1), Mailer()
THINGS: dict[Any, Any] = {IReactorTime: lambda: CLOCK, Random: lambda: RANDOM, IMailer: lambda: MAILER}


def constructed(cls: type[Service]) -> Any:
    def client(contract: type[Contract], policy: Client) -> Any:
        return f"client of {contract.__name__}", policy

    return construct(cls, THINGS, client, lambda settings: settings(currency="USD"))


def refusal(cls: type[Service]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        constructed(cls)
    return str(refused.value)


def test_everything_is_given_by_its_annotation():
    later = "client of Later"

    assert (
        PaymentsSettings(currency="USD"),
        ("client of PaymentsContract", Client()),
        (later, Client(timeout=2.0)),
        CLOCK,
        MAILER,
        RANDOM,
        (later, Client()),
        (later, Client(timeout=3.0)),
        3,
        (),
        RANDOM,
        {},
    ) == constructed(Everything).given


def test_siblings_may_name_each_other_wherever_they_are_made():
    class Chicken(Service):
        def __init__(self, egg: Egg) -> None:
            self.egg = egg

    class Egg(Service):
        def __init__(self, chicken: Chicken) -> None:
            self.chicken = chicken

    class FakeEgg(Egg): ...

    assert ("client of Egg", "client of Chicken") == (constructed(Chicken).egg[0], constructed(FakeEgg).chicken[0])


def test_a_service_needs_no_init_and_may_have_one_that_is_made():
    class Bare(Service): ...

    @dataclass
    class Made(Service):
        payments: PaymentsContract
        note: str = "x"

    assert {} == dependencies_of(Bare)
    assert isinstance(constructed(Bare), Bare)
    assert ("client of PaymentsContract", "x") == (constructed(Made).payments[0], constructed(Made).note)


def unknown() -> type[Service]:
    class Hotel(Service, name="hotel"):
        def __init__(self, ports: list[int]) -> None: ...

    return Hotel


def untyped() -> type[Service]:
    class Hotel(Service, name="hotel"):
        def __init__(self, payments) -> None: ...

    return Hotel


def unprovided() -> type[Service]:
    class Hotel(Service, name="hotel"):
        def __init__(self, database: Database) -> None: ...

    return Hotel


def unimported() -> type[Service]:
    class Hotel(Service, name="hotel"):
        def __init__(self, price: Decimal) -> None: ...

    return Hotel


GIVEN = (
    "A service is given siblings (Service or Contract classes), Settings subclasses, IMailer, IReactorTime, Random, and "
    "what [provide] names."
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unknown, f"hotel: Hotel.__init__: nothing provides 'ports: list[int]'. {GIVEN}"),
        (unprovided, f"hotel: Hotel.__init__: nothing provides 'database: Database'. {GIVEN}"),
        (
            untyped,
            "hotel: Hotel.__init__: 'payments' has no type; say which sibling, Settings or other dependency it is.",
        ),
        (
            unimported,
            "hotel: __init__ names a type that cannot be found: name 'Decimal' is not defined. Import it at the top of "
            f"{__name__}, not under TYPE_CHECKING; where modules import each other, `import the.module` and name "
            "the.module.Class, or give both a Contract.",
        ),
    ],
)
def test_what_nothing_provides_is_named(make, message):
    assert message == refusal(make())


def test_what_nothing_provides_may_have_a_default():
    class Hotel(Service):
        def __init__(self, ports: list[int] | None = None) -> None:
            self.ports = ports

    assert constructed(Hotel).ports is None
