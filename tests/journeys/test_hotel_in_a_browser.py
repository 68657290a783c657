"""A guest at the hotel, in a real browser that runs no JavaScript; the system in one process, and in four.

`ropewalk up` runs it as anybody would run it. Only the ports, the data and what a password's hash costs are the test's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from msgspec import Struct

ROOT = Path(__file__).parents[2]
SERVICES = 8
CHARGED, DECLINED = "4242 4242 4242 4242", "4000 0000 0000 0002"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


class Hotel(Struct, frozen=True):
    """Where it answers."""

    pages: str  # the public listener
    payments: str  # the internal listener of payments


@pytest.fixture(scope="module", params=["system.toml", "system.split.toml"])
def hotel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], int]
) -> Iterator[Hotel]:
    folder = tmp_path_factory.mktemp("hotel")
    port = free_ports(SERVICES + 1)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "ROPEWALK_PUBLIC__BOOKING_UI": f"tcp:{port + SERVICES}:interface=127.0.0.1",
        "ROPEWALK_PAYMENTS__LATENCY": "0",
        "ROPEWALK_USERS__TIME_COST": "1",
        "ROPEWALK_USERS__MEMORY_COST": "1024",
        "ROPEWALK_DRAIN__DELAY": "0",
    }
    target = str(ROOT / "examples" / "hotel" / request.param)
    command = "import sys; from ropewalk.cli import main; sys.exit(main())"
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", command, "up", target, "--port", str(port), "--data", str(folder / "data")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until_up(process, log)
            yield Hotel(f"http://127.0.0.1:{port + SERVICES}", f"http://127.0.0.1:{port + 3}")
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if b"hotel is up" in log.read_bytes():
            return
        time.sleep(0.05)
    pytest.fail(f"the hotel did not come up:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        yield launched
        launched.close()


@pytest.fixture
def page(hotel: Hotel, browser: Any) -> Iterator[Any]:
    context = browser.new_context(base_url=hotel.pages, java_script_enabled=False)
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


_guests = count(1)


@pytest.fixture
def sign_up(page: Any) -> Callable[[], str]:
    """Fills in the sign-up page that is open; the address."""

    def fill() -> str:
        email = f"guest{next(_guests)}@example.com"
        page.get_by_label("Name").fill("Ada Guest")
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill("a good password")
        page.get_by_role("button", name="Sign up").click()
        return email

    return fill


@pytest.fixture
def at_the_till(page: Any, sign_up: Callable[[], str]) -> Any:
    """A page on which a guest who just signed up is asked for a card."""
    page.goto("/hotels/7")
    page.get_by_role("link", name="Book").first.click()
    page.get_by_role("main").get_by_role("link", name="Sign up").click()
    sign_up()
    shows(page, "Book your stay")
    return page


def pay(page: Any, number: str) -> Any:
    """Fill in a card and send the form; the reply."""
    page.get_by_label("Card number").fill(number)
    page.get_by_label("Valid until").fill("9/30")
    page.get_by_label("Security code").fill("123")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Pay").click()
    return navigation.value


def switch(hotel: Hotel, mode: str) -> None:
    """Make payments behave."""
    body = json.dumps({"mode": mode}).encode()
    headers = {"content-type": "application/json"}
    with urlopen(Request(f"{hotel.payments}/provider", body, headers, method="PUT"), timeout=5):
        pass


def shows(page: Any, heading: str) -> None:
    """Wait for the page of that heading."""
    from playwright.sync_api import expect

    expect(page.get_by_role("heading", level=1)).to_have_text(heading)


def test_a_guest_finds_a_room_books_it_and_cancels_it(page, sign_up):
    page.goto("/")
    page.get_by_label("City").select_option("Kraków")
    page.get_by_label("Nights").select_option("3")
    page.get_by_role("button", name="Find a room").click()
    shows(page, "Kraków")

    page.get_by_role("link", name="Lowest price").click()
    page.wait_for_url("**sort=price")
    prices = [float(text[1:].replace(",", "")) for text in page.locator(".offer .price b").all_inner_texts()]
    assert len(prices) == 10
    assert prices == sorted(prices)

    name = page.locator(".offer h2").first.inner_text()
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("link", name="Book").first.click()
    page.get_by_role("main").get_by_role("link", name="Sign up").click()
    email = sign_up()
    shows(page, "Book your stay")  # back where signing in was asked for
    assert page.get_by_label("E-mail").input_value() == email

    pay(page, CHARGED)
    shows(page, "Your room is booked")
    booking = re.search(r"HB-\w{4}-\w{4}", page.get_by_role("main").inner_text())[0]

    receipt = page.request.get(page.get_by_role("link", name="Receipt").get_attribute("href"))
    assert (receipt.status, receipt.headers["content-type"]) == (200, "application/pdf")
    assert receipt.body().startswith(b"%PDF-")

    page.get_by_role("link", name="Mailbox").click()
    page.get_by_role("link", name=f"Booked: {booking}").click()
    shows(page, f"Booked: {booking}, {name}")
    assert name in page.locator("pre").inner_text()

    page.get_by_role("link", name="My bookings").click()
    page.get_by_role("link", name=f"Cancel {booking}").click()
    shows(page, "Cancel this booking?")
    assert "You get back everything" in page.get_by_role("main").inner_text()
    page.get_by_role("button", name="Cancel the booking").click()
    shows(page, "This booking is cancelled")

    page.get_by_role("link", name="Mailbox").click()
    shows(page, "Mailbox")
    while page.locator(".mails b").count() < 2:  # they come a moment later
        page.reload()
    assert page.locator(".mails b").all_inner_texts() == [
        f"{what}: {booking}, {name}" for what in ("Cancelled", "Booked")
    ]

    page.get_by_role("button", name="Sign out").click()
    shows(page, "Good rooms, plainly priced.")
    page.goto("/bookings")
    assert page.url.endswith("/sign-in?next=%2Fbookings")


def test_what_is_wrong_is_said_beside_its_field_and_what_was_typed_stays(at_the_till):
    reply = pay(at_the_till, "4242")

    field = at_the_till.get_by_label("Card number")
    said = at_the_till.locator(f"#{field.get_attribute('aria-describedby').split()[-1]}").inner_text()
    assert (reply.status, field.input_value()) == (422, "4242")
    assert (field.get_attribute("aria-invalid"), said) == ("true", "Give the 12 to 19 digits on the front of the card.")
    assert at_the_till.get_by_label("Security code").input_value() == ""


def test_a_declined_card_is_told_and_another_one_is_taken(at_the_till):
    reply = pay(at_the_till, DECLINED)

    alert = at_the_till.get_by_role("alert").inner_text()
    assert (reply.status, alert) == (402, "Your card was declined. Nothing was charged. Please try another card.")
    assert at_the_till.get_by_label("Card number").input_value() == DECLINED

    pay(at_the_till, CHARGED)
    shows(at_the_till, "Your room is booked")


def test_while_payments_are_down_the_guest_is_told_and_can_try_again(hotel, at_the_till):
    switch(hotel, "down")
    try:
        reply = pay(at_the_till, CHARGED)
    finally:
        switch(hotel, "working")

    alert = at_the_till.get_by_role("alert").inner_text()
    said = "Payments are not available at the moment. Your card was not charged. Please try again in a moment."
    assert (reply.status, alert[: len(said)]) == (503, said)
    assert at_the_till.get_by_label("Card number").input_value() == CHARGED

    pay(at_the_till, CHARGED)
    at_the_till.get_by_role("link", name="My bookings").first.click()
    shows(at_the_till, "My bookings")
    assert at_the_till.locator(".tickets .badge").all_inner_texts() == ["Booked"]


def test_a_form_that_is_sent_twice_books_once(at_the_till):
    form = {each.get_attribute("name"): each.input_value() for each in at_the_till.locator("main input").all()}
    card = {"number": CHARGED, "expiry": "09/30", "cvc": "123"}

    for _ in range(2):
        reply = at_the_till.request.post(at_the_till.url, form={**form, **card})
        assert reply.status == 200

    at_the_till.goto("/bookings")
    assert len(at_the_till.locator(".ticket").all()) == 1


@pytest.mark.parametrize("elsewhere", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example"])
def test_nobody_is_sent_elsewhere_after_signing_in(page, sign_up, hotel, elsewhere):
    page.goto(f"/sign-up?next={elsewhere}")
    sign_up()
    shows(page, "Good rooms, plainly priced.")

    assert page.url == f"{hotel.pages}/"
    assert page.get_by_role("status").inner_text() == "Welcome, Ada Guest."


def test_a_browser_is_shown_a_page_where_a_program_is_told_a_problem(page):
    shown = page.goto("/nowhere")
    told = page.request.get("/nowhere", headers={"accept": "*/*"})

    assert (shown.status, shown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert (told.status, told.headers["content-type"]) == (404, "application/problem+json")


def test_the_first_thing_a_keyboard_reaches_is_the_way_past_the_menu(page):
    page.goto("/")
    page.keyboard.press("Tab")

    assert page.locator(":focus").inner_text() == "Skip to the content"


@pytest.mark.parametrize("path", ["/", "/search?city=Lisbon", "/hotels/7", "/sign-in", "/nowhere"])
def test_a_page_is_no_wider_than_a_phone(page, path):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(path)

    assert page.evaluate("document.documentElement.scrollWidth") == 360
