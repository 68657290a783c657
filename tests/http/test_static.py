"""Files of a folder over HTTP."""

from __future__ import annotations

import os

import msgspec
import pytest
from pytest_twisted import ensureDeferred

from ropewalk.errors import ConfigurationError
from ropewalk.http.static import Static

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
AT = 1_790_000_000  # seconds: Mon, 21 Sep 2026 14:13:20 GMT
ETAG = f'"{AT * 10**9:x}-1a"'
MODIFIED = "Mon, 21 Sep 2026 14:13:20 GMT"
EARLIER, LATER = "Mon, 21 Sep 2026 14:13:19 GMT", "Mon, 21 Sep 2026 14:13:21 GMT"

HEAD = {
    "etag": [ETAG],
    "last-modified": [MODIFIED],
    "cache-control": ["no-cache"],
    "accept-ranges": ["bytes"],
}
WHOLE = {**HEAD, "content-type": ["text/plain; charset=utf-8"], "x-content-type-options": ["nosniff"]}


@pytest.fixture
def folder(tmp_path):
    """A folder of files, beside which lies what nobody may have."""
    site = tmp_path / "site"
    (site / "docs").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / ".git").mkdir()
    (site / ".well-known").mkdir()
    files = {
        "letters.txt": LETTERS,
        "empty.txt": b"",
        "large.bin": bytes(range(256)) * 1024,
        "app.js": b"1",
        "style.css": b"a{}",
        "page.html": b"<p>",
        "flag.svg": b"<svg/>",
        "archive.tar.gz": b"\x1f\x8b",
        "what.is-this": b"?",
        "straße & co.txt": b"ok",
        "docs/index.html": b"<h1>",
        ".git/config": b"secret",
        ".env": b"secret",
        ".well-known/security.txt": b"call us",
        "../beside.txt": b"secret",
    }
    for name, content in files.items():
        (site / name).write_bytes(content)
        os.utime(site / name, (AT, AT))
    return site


@pytest.fixture
def browser(folder, listen):
    return listen(Static(folder))


@ensureDeferred
async def test_a_file_comes_whole_with_what_is_needed_to_ask_again(browser):
    reply = await browser.ask("GET", "/letters.txt")

    assert (200, LETTERS) == (reply.status, reply.body)
    assert {**WHOLE} == {name: value for name, value in reply.headers.items() if name != "content-length"}


@ensureDeferred
async def test_head_says_what_get_would_and_no_more(browser):
    reply = await browser.ask("HEAD", "/letters.txt", {"Range": "bytes=0-3"})

    assert (200, b"", {**WHOLE, "content-length": ["26"]}) == (reply.status, reply.body, reply.headers)


@ensureDeferred
async def test_an_empty_file_and_a_large_one_come_whole(browser):
    replies = [await browser.ask("GET", name) for name in ("/empty.txt", "/large.bin")]

    assert [(200, b""), (200, bytes(range(256)) * 1024)] == [(reply.status, reply.body) for reply in replies]


TYPES = {
    "/app.js": "text/javascript; charset=utf-8",
    "/style.css": "text/css; charset=utf-8",
    "/page.html": "text/html; charset=utf-8",
    "/flag.svg": "image/svg+xml",
    "/archive.tar.gz": "application/octet-stream",  # and no Content-Encoding: it is to be kept as it is
    "/what.is-this": "application/octet-stream",
    "/stra%C3%9Fe%20%26%20co.txt": "text/plain; charset=utf-8",
}


@pytest.mark.parametrize(("path", "content_type"), TYPES.items())
@ensureDeferred
async def test_the_type_is_told_by_the_name(browser, path, content_type):
    reply = await browser.ask("GET", path)

    assert (200, [content_type], None) == (
        reply.status,
        reply.headers["content-type"],
        reply.headers.get("content-encoding"),
    )


@ensureDeferred
async def test_the_author_says_how_long_a_file_may_be_kept(folder, listen):
    browser = listen(Static(folder, cache="public, max-age=31536000, immutable"))

    reply = await browser.ask("GET", "/letters.txt")

    assert ["public, max-age=31536000, immutable"] == reply.headers["cache-control"]


# -- conditions

CONDITIONS = {
    "the same tag": ({"If-None-Match": ETAG}, 304),
    "the same tag, weakened on its way": ({"If-None-Match": f"W/{ETAG}"}, 304),
    "one of several tags": ({"If-None-Match": f'"x", {ETAG},"y"'}, 304),
    "any tag": ({"If-None-Match": "*"}, 304),
    "another tag": ({"If-None-Match": '"x"'}, 200),
    "another tag, and a date that fits": ({"If-None-Match": '"x"', "If-Modified-Since": LATER}, 200),
    "the same tag, and a date that does not fit": ({"If-None-Match": ETAG, "If-Modified-Since": EARLIER}, 304),
    "the same date": ({"If-Modified-Since": MODIFIED}, 304),
    "a later date": ({"If-Modified-Since": LATER}, 304),
    "an earlier date": ({"If-Modified-Since": EARLIER}, 200),
    "no date": ({"If-Modified-Since": "yesterday"}, 200),
}


@pytest.mark.parametrize(("headers", "status"), CONDITIONS.values(), ids=CONDITIONS)
@ensureDeferred
async def test_who_has_it_is_told_so(browser, headers, status):
    for method in ("GET", "HEAD"):
        reply = await browser.ask(method, "/letters.txt", headers)

        assert status == reply.status
        if status == 304:
            assert (HEAD, b"") == (reply.headers, reply.body)


@ensureDeferred
async def test_another_content_has_another_tag(folder, browser):
    before = await browser.ask("GET", "/letters.txt")

    (folder / "letters.txt").write_bytes(LETTERS.upper())
    os.utime(folder / "letters.txt", ns=(AT * 10**9 + 1,) * 2)
    after = await browser.ask("GET", "/letters.txt", {"If-None-Match": before.headers["etag"][0]})

    assert (200, LETTERS.upper()) == (after.status, after.body)


# -- parts

PARTS = {
    "bytes=0-3": ("0-3", b"abcd"),
    "bytes=24-": ("24-25", b"yz"),
    "bytes=-2": ("24-25", b"yz"),
    "bytes=-100": ("0-25", LETTERS),
    "bytes=20-100": ("20-25", b"uvwxyz"),
    "bytes=25-25": ("25-25", b"z"),
    "bytes=0-25": ("0-25", LETTERS),
}


@pytest.mark.parametrize(("asked", "sent", "body"), [(asked, *part) for asked, part in PARTS.items()])
@ensureDeferred
async def test_a_part_comes_alone(browser, asked, sent, body):
    reply = await browser.ask("GET", "/letters.txt", {"Range": asked})

    assert (206, body, [f"bytes {sent}/26"]) == (reply.status, reply.body, reply.headers["content-range"])


@pytest.mark.parametrize("asked", ["bytes=26-", "bytes=100-200"])
@ensureDeferred
async def test_a_part_beyond_the_end_cannot_be_had(browser, asked):
    reply = await browser.ask("GET", "/letters.txt", {"Range": asked})

    assert (416, ["bytes */26"], "This file has 26 bytes.") == (
        reply.status,
        reply.headers["content-range"],
        msgspec.json.decode(reply.body)["detail"],
    )


@pytest.mark.parametrize("asked", ["bytes=3-1", "bytes=a-b", "bytes=", "lines=0-3", "bytes 0-3", "bytes=0-1,4-5", "x"])
@ensureDeferred
async def test_a_range_that_makes_no_sense_and_several_at_once_bring_the_whole(browser, asked):
    reply = await browser.ask("GET", "/letters.txt", {"Range": asked})

    assert (200, LETTERS) == (reply.status, reply.body)


IF_RANGE = {
    "the same tag": (ETAG, 206),
    "a weak tag": (f"W/{ETAG}", 200),
    "another tag": ('"x"', 200),
    "the same date": (MODIFIED, 206),
    "a later date": (LATER, 200),
    "an earlier date": (EARLIER, 200),
    "nonsense": ("nonsense", 200),
}


@pytest.mark.parametrize(("if_range", "status"), IF_RANGE.values(), ids=IF_RANGE)
@ensureDeferred
async def test_the_rest_of_an_older_content_is_not_sent(browser, if_range, status):
    reply = await browser.ask("GET", "/letters.txt", {"Range": "bytes=0-3", "If-Range": if_range})

    assert status == reply.status


@ensureDeferred
async def test_who_has_the_whole_is_told_so_even_when_asking_for_a_part(browser):
    for asked in ("bytes=0-3", "bytes=100-"):
        reply = await browser.ask("GET", "/letters.txt", {"Range": asked, "If-None-Match": ETAG})

        assert 304 == reply.status


# -- what is not there

NOT_THERE = [
    "/nothing.txt",
    "/letters.txt/",
    "/letters.txt/more",
    "/empty",
    "/empty/",
    "/",
    "/..%2fbeside.txt",
    "/%2e%2e/beside.txt",
    "/docs/..%2f..%2fbeside.txt",
    "/%2fetc/passwd",
    "//etc/passwd",
    "/letters.txt%00.html",
    "/%ff",
    "/.git/config",
    "/.env",
    "/docs/./.env",
]


@pytest.mark.parametrize("path", NOT_THERE)
@ensureDeferred
async def test_nothing_is_found_outside_and_no_folder_is_listed(browser, path):
    reply = await browser.ask("GET", path)

    assert (404, ["application/problem+json"], "Nothing is here.") == (
        reply.status,
        reply.headers["content-type"],
        msgspec.json.decode(reply.body)["detail"],
    )


@ensureDeferred
async def test_what_is_well_known_may_begin_with_a_dot(browser):
    reply = await browser.ask("GET", "/.well-known/security.txt")

    assert (200, b"call us") == (reply.status, reply.body)


@ensureDeferred
async def test_the_index_of_a_folder_lies_beneath_a_slash(browser):
    without = await browser.ask("GET", "/docs")
    there = await browser.ask("GET", "/docs/")

    assert (308, ["./docs/"]) == (without.status, without.headers["location"])
    assert (200, b"<h1>") == (there.status, there.body)


@ensureDeferred
async def test_files_are_read_and_nothing_else(browser):
    reply = await browser.ask("POST", "/letters.txt", data=b"x")

    assert (405, ["GET, HEAD"]) == (reply.status, reply.headers["allow"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@ensureDeferred
async def test_a_file_that_may_not_be_read_is_forbidden(folder, browser):
    (folder / "letters.txt").chmod(0)

    reply = await browser.ask("GET", "/letters.txt")

    assert 403 == reply.status


def test_a_folder_that_is_not_there_is_refused_at_once(folder):
    with pytest.raises(ConfigurationError, match=r"Expected a folder of files to serve; there is none at .*/nowhere\."):
        Static(folder / "nowhere")
