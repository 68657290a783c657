"""Facts about compressed bodies: what is read, what is refused, and that a little cannot become much."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.codec.coding import RATIO, SMALL, plain
from ropewalk.errors import BadRequest, ContentTooLarge, UnsupportedMediaType

COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZIP": gzip.compress, " deflate ": zlib.compress}
ROOMS = b'{"rooms": 7}'


@pytest.mark.parametrize("coding", COMPRESS)
def test_what_was_compressed_is_what_it_was(coding):
    @given(st.binary(max_size=2000))
    def of(body):
        assert body == plain(COMPRESS[coding](body), coding, 2000)

    of()


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_what_was_not_compressed_stays_as_it_is(coding):
    assert plain(ROOMS, coding, 1) is ROOMS


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd", "compress"])
def test_another_coding_is_refused_and_told_which_are_read(coding):
    with pytest.raises(UnsupportedMediaType) as caught:
        plain(ROOMS, coding, 100)

    assert (415, [("accept-encoding", "gzip, deflate")]) == (caught.value.status, list(caught.value.headers))


@pytest.mark.parametrize(
    "body",
    [b"", ROOMS, gzip.compress(ROOMS)[:-1], gzip.compress(ROOMS) + b"x", gzip.compress(ROOMS) * 2],
    ids=["nothing", "plain", "without its end", "with more", "two"],
)
def test_what_is_not_of_its_coding_is_refused(body):
    with pytest.raises(BadRequest, match="The body is not gzip"):
        plain(body, "gzip", 1000)


def test_it_may_become_as_much_as_is_taken_and_not_a_byte_more():
    body = gzip.compress(b"a" * 1000)

    assert 1000 == len(plain(body, "gzip", 1000))
    with pytest.raises(ContentTooLarge):
        plain(body, "gzip", 999)


def test_a_little_does_not_become_much_whatever_is_taken():
    bomb = zlib.compress(bytes(50 << 20), 9)

    with pytest.raises(ContentTooLarge, match=f"become more than {RATIO * len(bomb)}"):
        plain(bomb, "deflate", 1 << 30)


def test_what_is_small_in_the_end_may_come_of_however_little():
    assert SMALL == len(plain(zlib.compress(bytes(SMALL), 9), "deflate", 1 << 20))
