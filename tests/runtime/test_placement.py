"""Which service lives where, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import ConfigurationError
from ropewalk.runtime.config import Config, SystemFile
from ropewalk.runtime.placement import Place, place, port_of, url_of

LOOPBACK = "interface=127.0.0.1"


def config(*services: str, **sections: Any) -> Config:
    file = SystemFile(services=dict.fromkeys(services, "hotel:X"), **sections)
    return Config(file=file, target="", folder=Path(), origins={}, environment={})


def placed(*args: Any, **options: Any) -> list[tuple[str, str, str, tuple[str, ...], str | None]]:
    places = place(*args, **options).places.values()
    return [(p.service, p.process, p.listen, p.urls, p.public) for p in places]


def test_without_processes_everything_is_in_one_and_ports_follow_the_file():
    assert [
        ("ui", "all", f"tcp:8000:{LOOPBACK}", ("http://127.0.0.1:8000",), "tcp:8080"),
        ("payments", "all", f"tcp:8001:{LOOPBACK}", ("http://127.0.0.1:8001",), None),
    ] == placed(config("ui", "payments", public={"ui": "tcp:8080"}))


def test_processes_do_not_change_the_ports():
    split = config("ui", "rooms", "payments", processes={"core": ["payments", "rooms"], "web": ["ui"]})

    assert [
        ("ui", "web", f"tcp:9000:{LOOPBACK}", ("http://127.0.0.1:9000",), None),
        ("rooms", "core", f"tcp:9001:{LOOPBACK}", ("http://127.0.0.1:9001",), None),
        ("payments", "core", f"tcp:9002:{LOOPBACK}", ("http://127.0.0.1:9002",), None),
    ] == placed(split, 9000)
    assert ("core", "web") == place(split).processes
    assert ["all"] * 3 == [process for _, process, *_ in placed(split, together=True)]


def test_a_process_that_says_where_it_listens_counts_from_there_in_its_own_order():
    pdf = {"services": ["receipts", "photos"], "workers": 2, "listen": "tcp:9100:interface=0.0.0.0"}
    split = config("photos", "receipts", "ui", processes={"pdf": pdf, "web": ["ui"]})

    assert [
        ("photos", "pdf", "tcp:9101:interface=0.0.0.0", ("http://127.0.0.1:9101",), None),
        ("receipts", "pdf", "tcp:9100:interface=0.0.0.0", ("http://127.0.0.1:9100",), None),
        ("ui", "web", f"tcp:8002:{LOOPBACK}", ("http://127.0.0.1:8002",), None),
    ] == placed(split)
    assert {"pdf": 2, "web": 1} == place(split).workers


def test_a_service_that_lives_elsewhere_is_reached_where_the_file_says():
    elsewhere = config("ui", "bank", processes={"web": ["ui"]}, instances={"bank": ["http://b1:80", "http://b2:80"]})

    assert ("bank", "all", f"tcp:8001:{LOOPBACK}", ("http://b1:80", "http://b2:80"), None) == placed(elsewhere)[1]
    assert ["ui"] == [p.service for p in place(elsewhere).hosted_by("web")]


def test_what_listens_where_no_url_leads_has_no_instance_until_one_is_written():
    behind = config("ui", "rooms", processes={"web": {"services": ["ui", "rooms"], "listen": "unix:/run/ui"}})

    assert [("unix:/run/ui", ()), ("unix:/run/ui.1", ())] == [(p.listen, p.urls) for p in place(behind).places.values()]


def test_an_unknown_process_is_refused():
    with pytest.raises(ConfigurationError, match=r"^There is no process 'web'; there are: all\.$"):
        place(config("ui")).hosted_by("web")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("tcp:8000", "http://127.0.0.1:8000"),
        ("tcp:8000:interface=10.0.0.1:backlog=5", "http://10.0.0.1:8000"),
        ("tcp:8000:interface=0.0.0.0", "http://127.0.0.1:8000"),
        (r"tcp6:8000:interface=\:\:1", "http://[::1]:8000"),
        (r"tcp6:8000:interface=\:\:", "http://[::1]:8000"),
        ("ssl:8443:privateKey=key.pem", "https://127.0.0.1:8443"),
        ("unix:/run/x", ""),
        ("systemd:domain=INET:index=0", ""),
    ],
)
def test_a_listener_is_reached_by_its_url(listen, url):
    assert url == url_of(listen)


@pytest.mark.parametrize(("url", "port"), [("http://127.0.0.1:8002", 8002), ("http://[::1]:81", 81), ("http://db", 80)])
def test_a_url_has_a_port(url, port):
    assert port == port_of(url)


def test_a_place_is_a_value():
    assert Place("ui", "all", "tcp:1", ("http://x",)) == Place("ui", "all", "tcp:1", ("http://x",), None)
