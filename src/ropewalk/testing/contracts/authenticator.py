"""What every IAuthenticator keeps: it believes what is proven, and is never confused by what is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

import pytest
from zope.interface.verify import verifyObject

from ...errors import Unauthorized
from ...interfaces import IAuthenticator
from ...message import Principal
from .suite import Contract

Metadata = Mapping[str, str]  # headers by lower-case name

NONSENSE = (
    "", " ", "x", "=", ";", ",", ".", "..", "a.b.c", "null", "{}", "0", "é", "日本語", "\x00", "\udcff", "%00",
    "Bearer", "Bearer ", "bearer \x00", "Basic !", "Bearer a.b.c", "a=b; a=c", "=a", "a" * 100_000,
    "eyJhbGciOiJub25lIn0.e30.",
)  # fmt: skip


class AuthenticatorContract(Contract):
    """`make()`: an authenticator. A subclass also says what to show it."""

    # False where what must not be believed counts as nothing: whoever has an old cookie may still read public pages.
    refuses: ClassVar[bool] = True

    def valid(self) -> tuple[Metadata, Principal]:
        """What it believes, and whom that proves."""
        raise NotImplementedError(f"{type(self).__name__}.valid(): expected (headers, Principal) that it believes.")

    def forged(self) -> Mapping[str, Metadata]:
        """What it must not believe, by a name for each: signed by another, meant for another, ..."""
        raise NotImplementedError(f"{type(self).__name__}.forged(): expected headers by name that it must not believe.")

    def expired(self) -> Metadata | None:
        """What was valid once; None where nothing expires."""
        raise NotImplementedError(f"{type(self).__name__}.expired(): expected headers that were valid once, or None.")

    @pytest.fixture
    def authenticator(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """What is tested."""
        made: list[Any] = []

        async def remember() -> None:
            made.append(await make())

        self.drive(remember())
        return made[0]

    async def test_it_is_an_authenticator(self, authenticator: Any) -> None:
        assert verifyObject(IAuthenticator, authenticator)

    async def test_the_headers_it_reads_are_named_in_lower_case(self, authenticator: Any) -> None:
        assert sorted(authenticator.headers)
        assert [name.lower() for name in authenticator.headers] == list(authenticator.headers)

    async def test_it_believes_what_is_valid_and_reads_no_header_it_does_not_name(self, authenticator: Any) -> None:
        metadata, principal = self.valid()

        assert set(metadata) <= set(authenticator.headers)
        assert principal == await authenticator.authenticate(metadata)

    async def test_it_answers_the_same_each_time(self, authenticator: Any) -> None:
        metadata, principal = self.valid()

        assert [principal] * 3 == [await authenticator.authenticate(dict(metadata)) for _ in range(3)]

    async def test_other_headers_beside_it_change_nothing(self, authenticator: Any) -> None:
        metadata, principal = self.valid()
        others = {"accept": "*/*", "x-forwarded-for": "192.0.2.1", "ropewalk-subject": "eve"}

        assert principal == await authenticator.authenticate({**others, **metadata})

    async def test_of_headers_it_does_not_read_it_says_nothing(self, authenticator: Any) -> None:
        metadata, _ = self.valid()
        elsewhere = {f"x-{name}": value for name, value in metadata.items()}

        assert [None, None] == [await authenticator.authenticate(each) for each in ({}, elsewhere)]

    async def test_what_is_forged_is_not_believed(self, authenticator: Any) -> None:
        metadata, _ = self.valid()
        cut_off = {name: value[:-4] for name, value in metadata.items()}

        answers = {
            name: await self._answer(authenticator, each)
            for name, each in {**self.forged(), "cut off": cut_off}.items()
        }

        assert dict.fromkeys(answers, self._disbelief) == answers

    async def test_what_has_expired_is_not_believed(self, authenticator: Any) -> None:
        metadata = self.expired()
        if metadata is None:
            pytest.skip("nothing it reads expires")

        assert self._disbelief == await self._answer(authenticator, metadata)

    async def test_what_was_refused_is_refused_again_and_what_is_valid_still_believed(self, authenticator: Any) -> None:
        metadata, principal = self.valid()
        forged = next(iter(self.forged().values()))

        answers = [await self._answer(authenticator, each) for each in (forged, metadata, forged)]

        assert [self._disbelief, principal, self._disbelief] == answers

    async def test_whatever_a_stranger_sends_proves_nobody_and_breaks_nothing(self, authenticator: Any) -> None:
        answers = {
            (name, value[:20]): await self._answer(authenticator, {name: value})
            for name in authenticator.headers
            for value in NONSENSE
        }

        assert {} == {sent: answer for sent, answer in answers.items() if answer not in (None, Unauthorized)}

    @property
    def _disbelief(self) -> type[Unauthorized] | None:
        return Unauthorized if self.refuses else None

    async def _answer(self, authenticator: Any, metadata: Metadata) -> Any:
        """The principal, None, or the class Unauthorized; whatever else is raised fails the test."""
        try:
            return await authenticator.authenticate(metadata)
        except Unauthorized:
            return Unauthorized
