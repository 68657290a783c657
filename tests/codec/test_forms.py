"""Forms <-> fields, in memory and in bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk import Upload
from ropewalk.codec.forms import MAX_FIELDS, read_form, read_query, write_form
from ropewalk.errors import BadRequest, UnsupportedMediaType

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; boundary="cut"'


def part(head: str, content: bytes = b"x") -> bytes:
    return b"--cut\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--cut--\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        ("a=&b", [("a", ""), ("b", "")]),
        ("a=x+y%20z", [("a", "x y z")]),
        ("a=%C3%A9&é=1", [("a", "é"), ("é", "1")]),
        ("a=%00", [("a", "\0")]),
        ("a=50%&b=%zz&c=%4", [("a", "50%"), ("b", "%zz"), ("c", "%4")]),  # what is no escape is text, as in browsers
        ("a=1;b=2", [("a", "1;b=2")]),
        ("a=1=2&&=3", [("a", "1=2"), ("", "3")]),
    ],
)
def test_a_query_is_names_and_values_in_order(text, expected):
    assert expected == read_query(text)


@pytest.mark.parametrize("text", ["a=%ff", "a=%ED%A0%80", "&".join(["a=1"] * (MAX_FIELDS + 1))])
def test_a_query_that_is_no_text_or_too_many_fields_is_a_bad_request(text):
    with pytest.raises(BadRequest, match="^The query cannot be read: "):
        read_query(text)


@pytest.mark.parametrize(
    "content_type", [URLENCODED, URLENCODED + "; charset=utf-8", "Application/X-WWW-Form-Urlencoded;charset=UTF-8"]
)
def test_an_encoded_form_is_read_whatever_else_its_content_type_says(content_type):
    assert [("a", "é")] == read_form(content_type, b"a=%C3%A9")


def test_a_multipart_form_is_fields_and_files_in_order():
    body = (
        part('name="a"', "é".encode())
        + part('name="photo"; filename="me.png"\r\nContent-Type: image/png', b"\x89PNG\r\n\0")
        + part('name="a"', b"")
        + part('name="notes"; filename="naïve \\"x\\".txt"', b"")
        + END
    )

    assert [
        ("a", "é"),
        ("photo", Upload("me.png", "image/png", b"\x89PNG\r\n\0")),
        ("a", ""),
        ("notes", Upload('naïve "x".txt', "application/octet-stream", b"")),
    ] == read_form(MULTIPART, body)


def test_a_file_input_without_a_file_is_nothing():
    assert [] == read_form(
        MULTIPART, part('name="photo"; filename=""\r\nContent-Type: application/octet-stream', b"") + END
    )


def test_a_large_file_is_whole():
    content = bytes(range(256)) * (24 << 10)  # six mebibytes: what came is limited before, by the operation's max_body

    assert [("f", Upload("f", "text/plain", content))] == read_form(
        MULTIPART, part('name="f"; filename="f"\r\nContent-Type: text/plain', content) + END
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", END),
        ("multipart/form-data; boundary=", END),
        (MULTIPART, b""),
        (MULTIPART, part('name="a"')),
        (MULTIPART, b"--cut\r\nContent-Disposition: attachment\r\n\r\nx\r\n" + END),
        (MULTIPART, part('filename="a"') + END),
        (MULTIPART, part('name="a"', b"\xff") + END),
        (MULTIPART, part('name="a"') * (MAX_FIELDS + 1) + END),
        (MULTIPART.replace("cut", "other"), part('name="a"') + END),
        (URLENCODED, b"a=\xff"),
    ],
)
def test_a_form_that_cannot_be_read_is_a_bad_request(content_type, body):
    with pytest.raises(BadRequest):
        read_form(content_type, body)


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/mixed; boundary=cut", "text/plain"])
def test_what_is_no_form_is_an_unsupported_media_type(content_type):
    with pytest.raises(UnsupportedMediaType) as refused:
        read_form(content_type, b"")

    assert f"This operation reads {URLENCODED} or multipart/form-data; got {content_type or 'nothing'}." == str(
        refused.value
    )


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
    )
)
def test_fields_come_back_as_they_went(fields):
    assert fields == read_form(URLENCODED, write_form(fields))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body):
    for content_type in (URLENCODED, MULTIPART):
        try:
            read_form(content_type, body)
        except BadRequest:
            continue
