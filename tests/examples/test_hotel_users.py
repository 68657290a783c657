"""Signing up and in."""

from __future__ import annotations

from uuid import UUID

import pytest
from hotel.users import Credentials, EmailTaken, SignUp, User, Users, UsersSettings, WrongCredentials

from ropewalk import NotFound

ANN = SignUp("Ann@example.org", "Ann", "correct horse")


@pytest.fixture
def users(house):
    return house.client(Users)


def test_whoever_signed_up_can_sign_in_and_be_read(house, users):
    ann = house.play(users.sign_up(ANN))

    assert ann == User(ann.id, "ann@example.org", "Ann")
    assert house.play(users.sign_in(Credentials("aNN@EXAMPLE.org", "correct horse"))) == ann
    assert house.play(users.read(ann.id)) == ann


def test_an_address_has_one_user_however_it_is_capitalised(house, users):
    house.play(users.sign_up(ANN))

    with pytest.raises(EmailTaken, match=r"ann@example\.org"):
        house.play(users.sign_up(SignUp("ANN@example.ORG", "Another", "12345678")))


def test_of_two_who_sign_up_at_once_one_is_told(house, users):
    outcomes = house.play(users.sign_up(ANN), users.sign_up(ANN))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["EmailTaken", "User"]


def test_a_wrong_password_and_an_unknown_address_are_told_the_same(house, users):
    house.play(users.sign_up(ANN))

    told = []
    for credentials in (Credentials("ann@example.org", "wrong"), Credentials("bob@example.org", "wrong")):
        with pytest.raises(WrongCredentials) as refused:
            house.play(users.sign_in(credentials))
        told.append((refused.value.status, str(refused.value), refused.value.members))

    assert told[0] == told[1] == (401, "The e-mail address or the password is wrong.", {})


def test_an_unknown_address_costs_a_check_as_dear_as_a_wrong_password(house, monkeypatch):
    service = house.services["users"]
    checked = []
    check = service._matches
    monkeypatch.setattr(service, "_matches", lambda hashed, password: checked.append(hashed) or check(hashed, password))
    house.play(house.client(Users).sign_up(ANN))

    for email in ("ann@example.org", "bob@example.org"):
        with pytest.raises(WrongCredentials):
            house.play(house.client(Users).sign_in(Credentials(email, "wrong")))

    known, nobody = (hashed.split("$") for hashed in checked)
    assert known[:4] == nobody[:4] == ["", "argon2id", "v=19", "m=8,t=1,p=1"]
    assert [len(part) for part in known] == [len(part) for part in nobody]


def test_every_password_is_salted_anew(house, users):
    house.play(users.sign_up(ANN))
    house.play(users.sign_up(SignUp("bob@example.org", "Bob", ANN.password)))
    hashes = []

    async def look() -> None:
        from hotel.users import users as table

        database = house.services["users"]._database
        hashes.extend(await database.run(lambda tx: [row.password for row in tx.execute(table.select())]))

    house.play(look())

    assert len(set(hashes)) == 2
    assert ANN.password not in "".join(hashes)


def test_a_user_that_is_not_there_is_not_found(house, users):
    with pytest.raises(NotFound):
        house.play(users.read(UUID(int=7)))


def test_no_password_gets_into_a_log():
    assert "correct horse" not in repr(ANN)
    assert "secret" not in repr(Credentials("a@b.c", "secret"))


def test_a_hash_costs_what_the_standard_advises_unless_told_otherwise():
    settings = UsersSettings()

    # RFC 9106, section 4, second recommended option.
    assert (settings.time_cost, settings.memory_cost, settings.parallelism) == (3, 65536, 4)
