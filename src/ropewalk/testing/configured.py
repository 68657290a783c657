"""What system a World is of: a system file, or classes at hand, as the runtime's own configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from treq.client import HTTPClient

from ..errors import ConfigurationError
from ..events import Publisher
from ..runtime.config import Config, SystemFile, load
from ..runtime.inject import dependencies_of
from ..runtime.keeps import keeps_data
from ..runtime.placement import Place, Placement
from ..service import Contract, Service, describe
from .broker import NAME as BROKER
from .hosts import OUTSIDE, Host
from .values import Parts

FIRST_PORT = 8000  # of the first service; each next one on the next port
SECRET = "the secret of a simulated world"


def configured(
    system: str | Path | Sequence[type[Service]],
    settings: Mapping[str, Mapping[str, Any]],
    played: Sequence[type[Service]] = (),
) -> Config:
    """The configuration of a system file or of service classes; `settings` of services win over the file's.

    `played` take the places of the services of their names, or are added.
    """
    given: dict[str, Any] = {
        "system": {"secret": SECRET},
        "settings": {name: dict(values) for name, values in settings.items()},
    }
    instead = {describe(cls).name: cls for cls in played}
    if isinstance(system, (str, Path)):
        written = load(str(system), {}, given | {"services": _targets(instead)})  # which refuses settings of nobody
        return _Given(**dict(written), classes=instead) if instead else written
    classes = {describe(cls).name: cls for cls in system}
    if len(classes) != len(system):
        raise ConfigurationError("Two of these services have one name.")
    classes |= instead
    nobody = sorted(settings.keys() - classes.keys())
    if nobody:
        raise ConfigurationError(f"settings: there is no service {nobody[0]!r}; there are: {', '.join(classes)}.")
    file = SystemFile(services=_targets(classes), **given)
    return _Given(file=file, target="", folder=Path.cwd(), origins={}, environment={}, classes=classes)


def _targets(classes: Mapping[str, type[Service]]) -> dict[str, str]:
    return {name: f"{_module(cls)}:{cls.__name__}" for name, cls in classes.items()}


def packages_of(classes: Iterable[type]) -> frozenset[str]:
    """The top-level packages that count as the product's own code."""
    return frozenset({"ropewalk", *(cls.__module__.partition(".")[0] for cls in classes)})


def parts_of(config: Config) -> Parts:
    """What there is to hurt in a system: who asks whom as its classes say, and outside asks all."""
    hosts: list[str] = []
    links = [(OUTSIDE, name) for name in config.services]
    by_hand: list[str] = []  # those that may ask any, whose clients nobody has declared
    for name in config.services:
        cls = config.service_class(name)
        hints = [hint for hint, _, _ in dependencies_of(cls).values()]
        contracts = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, Contract)]
        links += [(name, config.keeper(contract)) for contract in contracts]
        by_hand += [name] if HTTPClient in hints else []
        hosts += [f"{name}/1", f"{name}/2"]
        if keeps_data(cls):
            hosts.append(f"{name}/database")
            links.append((name, f"{name}/database"))
    declared = {asked for asks, asked in links if asks != OUTSIDE}
    links += [(name, other) for name in by_hand for other in config.services if other not in {name, *declared}]
    if any(uses_events(config.service_class(name)) for name in config.services):
        # What a transaction publishes is handed on from its database: whoever keeps data may.
        links += [(name, BROKER) for name in config.services if _may_use_events(config.service_class(name))]
        hosts.append(BROKER)
    return Parts(config.services, hosts, links)


def uses_events(cls: type[Service]) -> bool:
    """Whether a service is known to publish or to subscribe."""
    return bool(describe(cls).subscriptions) or any(hint is Publisher for hint, _, _ in dependencies_of(cls).values())


def port_of(description: str) -> int:
    """The port number of an endpoint description, 80 for one without."""
    where = description.split(":")[1]
    return int(where) if where.isdecimal() else 80


def placement(config: Config, hosts: Mapping[str, Host], mine: str) -> Placement:
    """Where everything lives, as the host `mine` sees it: its own service there, and all others elsewhere."""
    places = {}
    for index, service in enumerate(config.services):
        port = FIRST_PORT + index
        instances = [host for name, host in hosts.items() if is_instance(name, service)]
        public = config.file.public.get(service)
        places[service] = Place(
            service,
            mine if is_instance(mine, service) else "elsewhere",
            f"tcp:{port}:interface={hosts[mine].address}",
            tuple(f"http://{host.address}:{port}" for host in instances),
            f"tcp:{port_of(public)}:interface={hosts[mine].address}" if public else None,
        )
    return Placement(places, {mine: 1})


def is_instance(host: str, service: str) -> bool:
    """Whether the host of that name is an instance of `service`: "payments/2" of "payments"."""
    name, _, number = host.rpartition("/")
    return name == service and number.isdecimal()


class _Given(Config):
    """A configuration of classes that are at hand."""

    classes: dict[str, Any]

    def service_class(self, name: str) -> type[Service]:
        """The class of a service."""
        return self.classes.get(name) or super().service_class(name)


def _module(cls: type) -> str:
    return ".".join(part if part.isidentifier() else "_" for part in cls.__module__.split("."))


def _may_use_events(cls: type[Service]) -> bool:
    return uses_events(cls) or keeps_data(cls)
