"""What was configured, and where each value came from: defaults < system file < environment < command line.

`load(target)` reads a system file, or makes a system of one service of `package.module:Service`. The result is a frozen
`Config`; anything wrong is a ConfigurationError of one line that says where.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from klein import Klein
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, field_validator

from ..engine.limits import DEFAULT as LIMITS
from ..engine.limits import IDLE
from ..errors import ConfigurationError
from ..service import Contract, Service, describe
from .settings import Environment, Settings, merged

DATA = ".ropewalk"  # the folder of databases, beside the system file, unless another is said

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
Target = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SystemSection(_Section):
    """The system as a whole."""

    name: Name = "system"
    secret: SecretStr | None = None  # signs sessions and identities; made and kept in the data folder when not given


class ProcessSection(_Section):
    """A process: the services it hosts."""

    services: tuple[Name, ...]
    workers: int = Field(default=1, ge=1, le=256)
    listen: str | None = None  # the endpoint of its first service's internal listener; the next ones follow by port


class AdaptersSection(_Section):
    """Which adapter provides a port: a name, or a URL."""

    # A URL may hold a password.
    registry: str = Field(default="memory", repr=False)
    broker: str = Field(default="memory", repr=False)
    store: str = Field(default="sqlite", repr=False)


class EdgeSection(_Section):
    """The policy of one edge; wins over what the caller's annotation says."""

    timeout: float | None = Field(default=None, gt=0)


class AuthSection(_Section):
    """How users prove who they are, beside the signed session: bearer tokens."""

    jwt_key: SecretStr | None = None  # a secret (HS256) or a PEM public key
    jwt_algorithms: tuple[str, ...] = ("HS256",)
    issuer: str | None = None
    audience: str | None = None


class DrainSection(_Section):
    """How a process ends: not ready, `delay` seconds so that balancers notice, then at most `limit` for what runs."""

    delay: float = Field(default=1.0, ge=0, le=300)  # seconds; `ropewalk up` asks for none
    limit: float = Field(default=30.0, ge=0, le=3600)  # seconds; Kubernetes kills after 30 by default


class LimitsSection(_Section):
    """What each listener bears of its peers, see `engine.Limits`; what a body may have, its operations say."""

    target: int = Field(default=LIMITS.target, ge=256)  # bytes
    head: int = Field(default=LIMITS.head, ge=1024)  # bytes
    fields: int = Field(default=LIMITS.fields, ge=16)
    connections: int = Field(default=LIMITS.connections, ge=1)
    per_peer: int = Field(default=LIMITS.per_peer, ge=1)  # of a trusted proxy its clients are counted
    count_loopback: bool = LIMITS.count_loopback
    head_time: float = Field(default=LIMITS.head_time, gt=0)  # seconds
    body_grace: float = Field(default=LIMITS.body_grace, gt=0)  # seconds
    body_rate: float = Field(default=LIMITS.body_rate, gt=0)  # bytes a second
    idle: float = Field(default=LIMITS.idle, gt=IDLE)  # seconds; our own clients must be the first to give up
    write: float = Field(default=LIMITS.write, gt=0)  # seconds
    linger: float = Field(default=LIMITS.linger, gt=0)  # seconds


class ProxiesSection(_Section):
    """What stands in front of the public listeners: balancers, ingresses, whatever ends TLS for them."""

    trusted: tuple[str, ...] = ()  # addresses and networks whose word about clients is taken; "": a UNIX socket
    protocol: bool = False  # whether they begin each connection with the PROXY protocol, instead of X-Forwarded-*

    @field_validator("trusted")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each:
                ip_network(each)  # a ValueError says what is wrong with it
        return value


class RecordsSection(_Section):
    """How long a service remembers what came of a request under an idempotency key; later it is another request."""

    age: float = Field(default=7 * 86400.0, ge=3600, le=366 * 86400)  # seconds; longer than anybody asks again


class LogSection(_Section):
    """What the log says."""

    level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    json_lines: bool | None = None  # by default: unless on a terminal


class CorsSection(_Section):
    """Which foreign origins a browser may call the public listeners from."""

    origins: tuple[str, ...] = ()
    credentials: bool = False


class SystemFile(Settings):
    """The system file's sections, filled by `load` alone: it has to know where each value came from."""

    system: SystemSection = SystemSection()
    services: dict[Name, Target]
    public: dict[Name, str] = Field(default_factory=dict)
    processes: dict[Name, ProcessSection] = Field(default_factory=dict)
    instances: dict[Name, tuple[str, ...]] = Field(
        default_factory=dict
    )  # where siblings outside this placement live: "http://host:port"
    adapters: AdaptersSection = AdaptersSection()
    edges: dict[str, EdgeSection] = Field(default_factory=dict)
    settings: dict[Name, dict[str, Any]] = Field(default={}, repr=False)  # only their class knows what is a secret
    provide: dict[Target, Target] = Field(default_factory=dict)
    auth: AuthSection = AuthSection()
    drain: DrainSection = DrainSection()
    limits: LimitsSection = LimitsSection()
    proxies: ProxiesSection = ProxiesSection()
    records: RecordsSection = RecordsSection()
    log: LogSection = LogSection()
    cors: CorsSection = CorsSection()

    @field_validator("processes", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`web = ["booking-ui"]` is short for `web = { services = ["booking-ui"] }`."""
        if not isinstance(value, Mapping):
            return value
        return {name: {"services": each} if isinstance(each, (list, tuple)) else each for name, each in value.items()}


class Config(BaseModel):
    """One system, as configured."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    file: SystemFile
    target: str
    folder: Path  # relative paths start here; first on sys.path
    origins: dict[tuple[str, ...], str]  # of every value that is not a default
    environment: dict[str, str] = Field(repr=False)  # ROPEWALK_* alone

    @property
    def services(self) -> tuple[str, ...]:
        """The names, in the file's order."""
        return tuple(self.file.services)

    def service_class(self, name: str) -> type[Service]:
        """The class of a service, imported now; raises ConfigurationError when it cannot be."""
        return _service_class(name, self.file.services[name], f"[services] {name}")

    def keeper(self, contract: type[Contract]) -> str:
        """The name in this system of the service that callers of `contract` mean; ConfigurationError without one."""
        name = describe(contract).name
        if name in self.file.services:
            return name
        for each in self.services:
            if issubclass(self.service_class(each), contract):
                return each
        raise ConfigurationError(
            f"No service of this system keeps the contract {contract.__name__} ({name}); [services] has: "
            f"{', '.join(self.services)}."
        )

    def revisions_of(self, service: str) -> Path:
        """The folder of the revisions of its tables that were written by hand; it need not be there."""
        return self.folder / "migrations" / service

    def migrate_command(self, service: str, data: Path) -> str:
        """What gives the database of a service the tables of the code; `data`: where databases lie."""
        where = "" if data.absolute() == self.folder / DATA else f" --data {data}"
        return f"ropewalk migrate {self.target} --service {service}{where}"

    def settings_of(self, service: str) -> dict[str, Any]:
        """What was written for a service's own Settings."""
        return dict(self.file.settings.get(service, {}))

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, where it came from) of every value, in the file's order; secrets hidden.

        Without `[settings]`, of which only the services' own classes know what is a secret: `check.settings_rows`.
        """
        for path, value in leaves(self.file):
            if path[0] != "settings":
                yield ".".join(path), shown(value), self.origin(path)

    def origin(self, path: tuple[str, ...], otherwise: str = "default") -> str:
        """Where the value at `path` came from, or the table that holds it."""
        above = (self.origins.get(path[:length]) for length in range(len(path), 0, -1))
        return next((origin for origin in above if origin is not None), otherwise)


def load(target: str, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `target` (a system file, or `package.module:Service`).

    `environment`: ROPEWALK_<SECTION>__<NAME> wins over the file; `overrides`: nested like the file, wins over both.
    """
    ours = {name: value for name, value in environment.items() if name.startswith("ROPEWALK_")}
    folder, written, origin = _written(target)
    layers: list[tuple[Mapping[str, Any], str]] = [(written, origin)]
    layers += [(layer, name) for name, layer in _from_environment(ours, written)]
    if overrides:
        layers.append((overrides, "command line"))
    values: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    for layer, name in layers:
        values = merged(values, layer)
        origins.update((path, name) for path, _ in leaves(layer))
    try:
        file = SystemFile(**values)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, origins, origin)) from None
    _check(file, origin)
    _first_on_path(folder)
    return Config(file=file, target=target, folder=folder, origins=origins, environment=ours)


def _written(target: str) -> tuple[Path, dict[str, Any], str]:
    path = Path(target)
    if path.suffix == ".toml" or path.exists():
        try:
            return path.resolve().parent, tomllib.loads(path.read_text("utf-8")), str(path)
        except FileNotFoundError:
            raise ConfigurationError(
                f"{target}: no such file. Give a system file, or a service as `package.module:Service`."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigurationError(f"{target}: {error}") from None
    if ":" not in target:
        raise ConfigurationError(f"{target!r} is neither a file nor a service like `package.module:Service`.")
    folder = Path.cwd()
    _first_on_path(folder)
    cls = _service_class("", target, target)
    name = describe(cls).name
    return folder, {"system": {"name": name}, "services": {name: target}}, target


def _first_on_path(folder: Path) -> None:
    sys.path[:] = [str(folder), *(each for each in sys.path if each != str(folder))]


def _service_class(name: str, target: str, where: str) -> type[Service]:
    module, _, attribute = target.partition(":")
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that the service itself needs: its own traceback says more
        raise ConfigurationError(
            f"{where}: there is no module {error.name!r} on {sys.path[0]!r} and sys.path."
        ) from None
    found = getattr(imported, attribute, None)
    if found is None:
        raise ConfigurationError(f"{where}: the module {module} has no {attribute!r}.")
    if isinstance(found, Klein):
        return _foreign(name or attribute.strip("_").replace("_", "-").lower(), found)
    if not (isinstance(found, type) and issubclass(found, Service)):
        what = "a Contract, not a Service" if isinstance(found, type) and issubclass(found, Contract) else repr(found)
        raise ConfigurationError(f"{where}: expected a Service class or a Klein application, got {what}.")
    return found


_foreign_classes: dict[tuple[str, int], type[Service]] = {}


def _foreign(name: str, app: Klein) -> type[Service]:
    """A Klein application as it is, as a service without operations."""
    key = (name, id(app))
    if key not in _foreign_classes:
        # A property: as a plain attribute Klein would bind it, and call its functions with a self they do not have.
        namespace = {
            "__doc__": "A Klein application, unchanged.",
            "__module__": "ropewalk.runtime.foreign",
            "app": property(lambda self: app),
            "app_access": "public",
        }
        _foreign_classes[key] = type("Foreign", (Service,), namespace, name=name)
    return _foreign_classes[key]


def _from_environment(ours: Mapping[str, str], written: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(variable, the nested value it sets), section by section; a service's own settings too."""
    services = _by_variable(written.get("services"))
    names = services | _by_variable(written.get("processes"))
    sections = {name.upper(): name for name in SystemFile.model_fields}
    for variable, value in sorted(ours.items()):
        first, separator, rest = variable.removeprefix("ROPEWALK_").partition("__")
        if not separator:
            continue
        if first in services and first not in sections:
            yield variable, {"settings": {services[first]: Environment.nested(rest, value)}}
        elif first in sections:
            # [public], [processes] and others are tables by name, and a name's dashes do not fit a variable.
            second, _, _ = rest.partition("__")
            nested = Environment.nested(rest, value)
            if second in names:
                nested = {names[second]: nested.pop(second.lower())}
            yield variable, {sections[first]: nested}
        else:
            known = ", ".join(sorted([*sections, *services]))
            raise ConfigurationError(f"{variable}: there is no section or service {first!r}; there are: {known}.")


def _by_variable(table: Any) -> dict[str, str]:
    """The names in a table, by what a variable calls them."""
    return {name.upper().replace("-", "_"): name for name in table} if isinstance(table, Mapping) else {}


def _check(file: SystemFile, origin: str) -> None:
    """What one section says of another."""
    for section in ("public", "settings", "instances"):
        for name in getattr(file, section):
            if name not in file.services:
                raise ConfigurationError(
                    f"{origin}: [{section}] {name}: no such service; [services] has: {', '.join(file.services)}."
                )
    hosted: dict[str, str] = {}
    for process, hosting in file.processes.items():
        for name in hosting.services:
            if name not in file.services:
                raise ConfigurationError(
                    f"{origin}: [processes] {process}: no such service {name!r}; "
                    f"[services] has: {', '.join(file.services)}."
                )
            if name in hosted:
                raise ConfigurationError(
                    f"{origin}: [processes]: {name} is in {hosted[name]} and in {process}; a service has one place."
                )
            hosted[name] = process
    homeless = [name for name in file.services if file.processes and name not in hosted and name not in file.instances]
    if homeless:
        raise ConfigurationError(f"{origin}: [processes]: {', '.join(homeless)} has no process; name it in one.")
    for edge in file.edges:
        caller, arrow, callee = edge.partition(" -> ")
        if not arrow or caller not in file.services or callee not in file.services:
            raise ConfigurationError(
                f'{origin}: [edges."{edge}"]: expected "caller -> callee" of [services]: {", ".join(file.services)}.'
            )


def _one_line(error: ValidationError, origins: Mapping[tuple[str, ...], str], origin: str) -> str:
    first = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in first["loc"] if part != "[key]")
    where = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), origin)
    section = f"[{path[0]}] {'.'.join(path[1:])}".strip() if path else ""
    # A name that does not exist may be a secret's that was misspelt.
    hidden = path[:1] == ("settings",) or any("secret" in part or "key" in part for part in path)
    plain = isinstance(first["input"], (str, int, float)) and first["type"] != "extra_forbidden"
    value = first["input"]
    got = f" (got {(shown(value) if isinstance(value, str) else value)!r})" if plain and not hidden else ""
    return f"{where}: {section}: {first['msg']}{got}."


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything in a section or table that is no table itself."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping) and (value or not path):
        for name, each in value.items():
            yield from leaves(each, (*path, str(name)))
    else:
        yield path, value


def shown(value: Any) -> str:
    """A value for people, without secrets."""
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, (tuple, list, set, frozenset)):
        return ", ".join(map(shown, value)) or "-"
    return "-" if value is None or value == {} else re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", str(value))
