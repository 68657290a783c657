"""Redirects, and where they do not lead."""

from __future__ import annotations

from html import escape

import pytest

from ropewalk import BadRequest, Response
from ropewalk.http.redirect import redirect


def test_after_a_form_a_browser_is_sent_to_a_page_by_303():
    place = "/rooms/3?full=true&beds=2"
    note = f'<!doctype html><title>Moved</title><p>Go on at <a href="{escape(place)}">{escape(place)}</a>.</p>\n'
    headers = [("location", place), ("content-type", "text/html; charset=utf-8")]

    assert redirect(place) == Response(note, 303, headers)


def test_the_status_says_whether_the_request_is_to_be_repeated():
    assert 308 == redirect("/", 308).status


def test_what_is_not_ascii_is_escaped():
    assert ("location", "/stra%C3%9Fe/gr%C3%B6%C3%9Fe?q=%C3%A4%20b") in redirect("/straße/größe?q=ä b").headers


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/ok\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "rooms",
        "",
    ],
)
def test_a_redirect_stays_on_this_site(path):
    with pytest.raises(BadRequest, match="A redirect goes to a path of this site"):
        redirect(path)


def test_the_program_itself_may_lead_anywhere_on_the_web():
    there = "https://bank.example/pay?id=3"

    assert ("location", there) in redirect(there, anywhere=True).headers
    with pytest.raises(BadRequest):
        redirect("javascript:alert(1)", anywhere=True)
