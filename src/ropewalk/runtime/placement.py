"""Which service lives in which process, and where each one is reached. Pure: from a Config to values.

Every service has an internal listener on loopback: the first of the file on the base port, each next one on the next
port. All processes of a system compute the same placement, so that nobody has to be told an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from ..errors import ConfigurationError
from .config import Config

BASE_PORT = 8000
EVERYTHING = "all"  # the process of a system that names none


class Place(Struct, frozen=True):
    """Where one service lives."""

    service: str
    process: str
    listen: str  # endpoint description of its internal listener
    urls: tuple[str, ...]  # its instances, as siblings reach them: "http://127.0.0.1:8002"
    public: str | None = None  # endpoint description of its public listener


class Placement(Struct, frozen=True):
    """Where all of them live."""

    places: Mapping[str, Place]  # by service, in the file's order
    workers: Mapping[str, int]  # by process

    @property
    def processes(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.workers)

    def hosted_by(self, process: str) -> tuple[Place, ...]:
        """The places of a process; raises ConfigurationError when there is no such process."""
        if process not in self.workers:
            raise ConfigurationError(f"There is no process {process!r}; there are: {', '.join(self.workers)}.")
        return tuple(place for place in self.places.values() if place.process == process)


def place(config: Config, base_port: int = BASE_PORT, *, together: bool = False) -> Placement:
    """The placement of a system whose first internal listener is on `base_port`; `together`: all in one process."""
    sections = {} if together else config.file.processes
    process_of = {name: process for process, section in sections.items() for name in section.services}
    places = {}
    for index, name in enumerate(config.services):
        process = process_of.get(name, EVERYTHING)
        listen = f"tcp:{base_port + index}:interface=127.0.0.1"
        section = sections.get(process)
        if section is not None and section.listen is not None:
            listen = _following(section.listen, section.services.index(name))
        urls = config.file.instances.get(name) or tuple(filter(None, [url_of(listen)]))
        places[name] = Place(name, process, listen, urls, config.file.public.get(name))
    workers = {process: section.workers for process, section in sections.items()} or {EVERYTHING: 1}
    return Placement(places, workers)


def _following(listen: str, offset: int) -> str:
    """The endpoint of the service at `offset` in a process that listens at `listen`: by port, or by a suffix."""
    kind, _, rest = listen.partition(":")
    where, separator, options = rest.partition(":")
    if where.isdecimal():
        return f"{kind}:{int(where) + offset}{separator}{options}"
    return listen if offset == 0 else f"{kind}:{where}.{offset}{separator}{options}"


def url_of(listen: str) -> str:
    """The URL that reaches an endpoint description from this machine."""
    kind, where, *options = [*(part.replace("\\:", ":") for part in re.split(r"(?<!\\):", listen)), ""]
    host = next((option.partition("=")[2] for option in options if option.startswith("interface=")), "")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # of all, the one that is here
    if kind in ("tcp", "tcp4", "tcp6", "ssl", "tls") and where.isdecimal():
        scheme = "https" if kind in ("ssl", "tls") else "http"
        return f"{scheme}://[{host}]:{where}" if ":" in host else f"{scheme}://{host}:{where}"
    return ""  # reached through a proxy or by instances written in the file


def port_of(url: str) -> int:
    """The port of an instance's URL."""
    return urlsplit(url).port or 80
