"""A guest's browser in a simulated world: pages, links, forms with their hidden fields, and cookies of its own.

It holds every page to what is true of them all: words instead of a traceback, in time, and about nobody else. Which
guest a page is about is seen by tags: a guest's name and address have one, `guest-0123456789ab`, and it is nobody
else's.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from html import unescape
from random import Random
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from audit import clocks_agree
from msgspec import Struct

from ropewalk import Unavailable
from ropewalk.testing.network import Link

ASKS = 12  # times that a guest asks for a page
PAUSE = 3.0  # seconds between two of them
IN_TIME = 12.0  # seconds within which a page comes: its own deadline, and two more
HOPS = 5  # redirects, one after the other
TAG = re.compile(r"guest-[0-9a-f]{12}")
_OWN = ("/book", "/mailbox")  # what is shown to nobody who has not signed in
_FACES = ("booking-ui", "booking-ui-1", "booking-ui-2")  # any that is up, and each of them: what a balancer does


class Form(Struct, frozen=True):
    """A form of a page, as it would be sent."""

    action: str
    fields: dict[str, str]


class Page(Struct, frozen=True):
    """What came at last, after all redirects."""

    status: int
    path: str  # with its query
    kind: str  # the content type
    body: bytes

    @property
    def html(self) -> str:
        """Its source."""
        return self.body.decode()

    @property
    def text(self) -> str:
        """What people read of it."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.html)).split())

    def links(self, to: str) -> list[str]:
        """The addresses that begin with `to`."""
        return [unescape(found) for found in re.findall(r'href="([^"]*)"', self.html) if found.startswith(to)]

    def form(self, action: str) -> Form | None:
        """The form that is sent to what begins with `action`."""
        for there, inside in re.findall(r'<form[^>]*method="post" action="([^"]*)"[^>]*>(.*?)</form>', self.html, re.S):
            if unescape(there).startswith(action):
                inputs = [dict(re.findall(r'(\w+)="([^"]*)"', one)) for one in re.findall(r"<input[^>]*>", inside)]
                return Form(unescape(there), {one["name"]: unescape(one.get("value", "")) for one in inputs})
        return None


class Browser:
    """One guest's."""

    def __init__(self, world: Any, random: Random, tag: str) -> None:
        self._world = world
        self._random = random
        self._tag = tag
        self._cookies: dict[str, str] = {}
        self.signed_in = False

    async def open(self, path: str) -> Page:
        """The page at `path`, asked for again while the hotel does not answer; raises Unavailable when it never does.

        Raises AssertionError for a page that no guest may be shown.
        """
        for left in reversed(range(ASKS)):
            try:
                page = await self._follow("GET", path, b"")
            except Unavailable:
                if not left:
                    raise
            else:
                if page.status < 500:
                    asked = page.path.startswith("/sign-in") and not path.startswith("/sign-in")
                    if asked and (self.signed_in or not path.startswith(_OWN)):
                        raise self.lost()
                    return page
                if not left:
                    raise Unavailable(f"{path} answered {page.status}.")
            await asyncio.sleep(PAUSE)
        raise AssertionError("not reached")

    async def send(self, form: Form, **typed: str) -> Page:
        """What comes when the form is sent, once: any status. Raises Unavailable when nothing does."""
        page = await self._follow("POST", form.action, urlencode({**form.fields, **typed}).encode())
        return self._remembered(page)

    async def press(self, form: Form, **typed: str) -> Page:
        """As `send`, again and again while the hotel does not answer: for what may be sent twice."""
        for left in reversed(range(ASKS)):
            try:
                page = await self.send(form, **typed)
            except Unavailable:
                if not left:
                    raise
            else:
                if page.status < 500 or not left:
                    return page
                if page.path != form.action:  # it was done, and where that leads cannot be shown at the moment
                    return self._remembered(await self.open(page.path))
            await asyncio.sleep(PAUSE)
        raise AssertionError("not reached")

    def _remembered(self, page: Page) -> Page:
        """`page`, unless the form that led to it, or its session, was dated by a wrong clock."""
        forgotten = page.status == 403 or (page.status == 200 and page.path.startswith("/sign-in"))
        if forgotten and not clocks_agree(self._world):
            raise self.lost()
        return page

    def lost(self) -> Unavailable:
        """What to raise when the hotel has forgotten who this is; raises AssertionError when no clock explains it."""
        assert not clocks_agree(self._world), f"{self._tag} has signed in, and is asked to do so again"
        return Unavailable("A session, or what one service said to another, was written by a clock that goes wrong.")

    async def _follow(self, method: str, path: str, body: bytes) -> Page:
        for _ in range(HOPS):
            page, location = await self._in_time(method, path, body)
            if location is None:
                return page
            there = urlsplit(urljoin(f"http://booking-ui{path}", location))
            assert there.hostname == "booking-ui", f"{path} leads away, to {location}"
            if method == "POST" and there.path == "/sign-in":
                raise self.lost()
            method, path, body = "GET", there.path + (f"?{there.query}" if there.query else ""), b""
        raise AssertionError(f"{path}: more than {HOPS} redirects")

    async def _in_time(self, method: str, path: str, body: bytes) -> tuple[Page, str | None]:
        began, cut = self._told(), self._is_cut()
        try:
            async with asyncio.timeout(IN_TIME):
                reply, content = await self._ask(method, path, body)
        except TimeoutError as error:
            assert cut or self._is_cut() or self._was_cut(began), f"{method} {path}: no answer within {IN_TIME:g} s"
            raise Unavailable(f"{path} did not come.") from error
        except Exception as error:  # whatever can go wrong on the way: Twisted has no common base for it
            raise Unavailable(f"{path} cannot be reached: {error!r}") from error
        kind = (reply.headers.getRawHeaders("content-type") or [""])[0]
        page = Page(reply.code, path, kind, content)
        if 300 <= page.status < 400:
            (location,) = reply.headers.getRawHeaders("location")
            return page, location
        self._judge(page)
        return page, None

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[Any, bytes]:
        headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = f"http://{self._random.choice(_FACES)}:8080{path}"
        reply = await self._world.http.request(method, url, headers=headers, data=body or None, allow_redirects=False)
        for line in reply.headers.getRawHeaders("set-cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
            if not value or "max-age=0" in line.lower().replace(" ", "").split(";"):
                del self._cookies[name]
        return reply, await reply.content()

    def _judge(self, page: Page) -> None:
        """Raises AssertionError for a page that no guest may be shown."""
        where = f"{page.path} ({page.status}) for {self._tag}"
        assert page.status in (200, 402, 403, 404, 409, 422, 502, 503, 504), f"{where}: {page.body[:500]!r}"
        if page.kind.startswith("application/pdf"):
            shown = " ".join(drawn(page.body))
        else:
            assert page.kind.startswith(("text/html", "image/svg+xml", "text/css")), f"{where} is {page.kind}"
            shown = page.html
            assert not page.kind.startswith("text/html") or "<h1>" in shown, f"{where} has no words: {shown[:500]}"
        assert "Traceback" not in shown, f"{where}: {shown[:500]}"
        others = {tag for tag in TAG.findall(shown) if tag != self._tag}
        assert not others, f"{where} tells of {', '.join(sorted(others))}"

    # -- whether it may be slow

    def _told(self) -> int:
        return sum(self._world.log.counts.values())

    def _is_cut(self) -> bool:
        """Whether something is wrong between here and the pages now."""
        outside, link = self._world.hosts["outside"], self._world.network.link
        return any(
            host.paused or not host.up or not link(host, outside) == link(outside, host) == Link()
            for host in self._world.instances_of("booking-ui")
        )

    def _was_cut(self, began: int) -> bool:
        """Whether anything was done to the pages' hosts, or this one, since so much had been told."""
        events = self._world.log.events
        since = min(len(events), self._told() - began)
        return any(
            event.kind in ("fault", "crashed", "started")
            and re.search("booking-ui|outside", f"{event.text} {event.host}")
            for event in list(events)[len(events) - since :]
        )


def drawn(pdf: bytes) -> list[str]:
    """The texts of a PDF that this system drew, in their order."""
    assert pdf.startswith(b"%PDF-"), f"no PDF: {pdf[:80]!r}"
    texts: list[str] = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            content = zlib.decompressobj().decompress(stream)  # whose last byte may look like the end of a line
        except zlib.error:  # a picture, a profile
            continue
        found = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", content)
        texts += [re.sub(rb"\\(.)", rb"\1", text).decode("cp1252") for text in found]
    return texts
