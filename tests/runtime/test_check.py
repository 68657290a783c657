"""What is wrong with a system can be known without running it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy
from treq.client import HTTPClient
from zope.interface import Interface

from ropewalk import Contract, Database, Secret, Service, Settings, Workers, operation
from ropewalk.runtime.check import problems, settings_rows
from ropewalk.runtime.config import Config, SystemFile


class IMailer(Interface):
    """Sends mail."""


class BankSettings(Settings):
    url: str = "redis://bank:S3CRET@host"
    tries: list[int] = [1, 2]
    key: Secret = Secret("S3CRET")
    note: str | None = None


class Bank(Service):
    def __init__(self, settings: BankSettings, database: Database, random: Random, http: HTTPClient) -> None: ...

    @operation
    async def count(self) -> int: ...


class Desk(Service):
    def __init__(self, bank: Bank, workers: Workers, mailer: IMailer) -> None: ...


class Lonely(Service):
    def __init__(self, nobody: Nobody, ports: list[int], untyped) -> None: ...  # type: ignore[no-untyped-def]


class Nobody(Contract): ...


class Keeper(Service):
    tables = sqlalchemy.MetaData()


sqlalchemy.Table("lost", Keeper.tables)
sqlalchemy.Table("kept", Keeper.tables)


class Branch(Keeper, name="branch"): ...


def system(services: dict[str, str], **sections: Any) -> Config:
    file = SystemFile(services=services, **sections)
    return Config(file=file, target="", folder=Path(), origins={}, environment={})


MAILER = {f"{__name__}:IMailer": "mail:SMTP"}


def test_nothing_is_wrong_with_a_system_that_fits():
    assert [] == problems(system({"bank": f"{__name__}:Bank", "desk": f"{__name__}:Desk"}, provide=MAILER))


@pytest.mark.parametrize(
    ("services", "sections", "expected"),
    [
        ({"bank": "no_such_module:Bank"}, {}, ["bank: [services] bank: there is no module 'no_such_module'"]),
        ({"bank": f"{__name__}:Nothing"}, {}, [f"bank: [services] bank: the module {__name__} has no 'Nothing'."]),
        ({"desk": f"{__name__}:Desk"}, {"provide": MAILER}, ["desk: 'bank': No service of this system keeps"]),
        (
            {"bank": f"{__name__}:Bank", "desk": f"{__name__}:Desk"},
            {},
            ["desk: Desk.__init__: nothing provides 'mailer: IMailer'. A service is given"],
        ),
        (
            {"lonely": f"{__name__}:Lonely"},
            {},
            [
                "lonely: 'nobody': No service of this system keeps the contract Nobody (nobody); [services] has: lonely.",
                "lonely: Lonely.__init__: nothing provides 'ports: list[int]'. A service is given",
                "lonely: Lonely.__init__: 'untyped' has no type; say which",
            ],
        ),
        (
            {"bank": f"{__name__}:Bank"},
            {"settings": {"bank": {"tries": 1}}},
            ["bank: [settings.bank] tries: Input should be a valid list."],
        ),
    ],
)
def test_whatever_is_wrong_is_a_line_that_begins_with_the_service(services, sections, expected):
    found = problems(system(services, **sections))

    assert len(expected) == len(found)
    assert all(line.startswith(beginning) for line, beginning in zip(found, expected, strict=True))


def test_two_services_that_say_the_same_tables_are_both_named():
    desks = {"desk": f"{__name__}:Keeper", "bank": f"{__name__}:Bank", "back": f"{__name__}:Branch"}

    assert [
        "[services] desk and back say the same tables (kept, lost), but each service has its own. Give back a MetaData of "
        "its own, or let it ask desk."
    ] == problems(system(desks))


def test_the_settings_of_a_service_are_shown_with_their_origin_and_without_their_secrets():
    shown = settings_rows(system({"bank": f"{__name__}:Bank"}, settings={"bank": {"note": "x"}}), "bank", Bank)

    default = "default of BankSettings"
    assert [
        ("url", "redis://bank:***@host", default),
        ("tries", "1, 2", default),
        ("key", "**********", default),
        ("note", "x", default),
    ] == shown
