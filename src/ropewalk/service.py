"""A Service is a class of operations; a Contract is one without bodies.

Everything that can be wrong in a declaration is found when the class is made. `describe(cls)` is what the rest of the
house reads: name, version, operations.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import FrameType
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from .codec.parameters import spelt
from .codec.routes import shape
from .codec.types import given
from .durable import Saga, Scheduled, Subscription, scheduled, subscription
from .errors import DeclarationError, NotFound
from .message import Principal
from .operation import Access, Declaration, Operation, differences

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_VERSION = re.compile(r"\d+\.\d+\.\d+([-+.].*)?")
_LIFECYCLE = ("start", "stop")
_TAKEN = (*_LIFECYCLE, "resource", "app", "tables", "error_page")


class Mount(Struct, frozen=True):
    """A foreign application beneath a path: `method` returns it."""

    route: str
    method: str
    access: str


class Description(Struct, frozen=True):
    """What a service or contract class says of itself."""

    name: str
    version: str
    operations: Mapping[str, Operation]  # by name, in order of definition, a base's first
    mounts: tuple[Mount, ...] = ()
    summary: str = ""
    names: tuple[str, ...] = ()  # it answers to: its own, and those of the contracts it keeps
    subscriptions: Mapping[str, Subscription] = {}  # these three by the method's name
    sagas: Mapping[str, Saga] = {}
    schedules: Mapping[str, Scheduled] = {}

    @property
    def major(self) -> int:
        """The wire's version."""
        return int(self.version.partition(".")[0])


class JobStatus(Struct, frozen=True, omit_defaults=True):
    """How it stands with what is done in the background."""

    id: str
    operation: str
    state: str  # running, completed, failed, parked
    result: Any = None  # of one that is completed
    problem: Any = None  # of one that failed: RFC 9457
    subject: str | None = None  # on whose behalf it is done


class Client(Struct, frozen=True):
    """The policy of an edge, in the annotation of a sibling: `hotels: Annotated[Hotels, Client(timeout=2)]`.

    The system file's `[edges."a -> b"]` wins over it. `timeout`: seconds, of the whole call.
    """

    timeout: float | None = None


class Contract:
    """What callers depend on: operations with `...` for bodies. A caller's `__init__` names it, a Service keeps it.

    `name` and the major of `version` are those of the service that implements it.
    """

    __ropewalk_description__: ClassVar[Description]
    __ropewalk_scope__: ClassVar[FrameType | None]  # of a class made inside a function: its types may live there only

    def __init_subclass__(cls, name: str | None = None, version: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:  # Service itself
            return
        frame = sys._getframe(1)
        cls.__ropewalk_scope__ = frame if frame.f_locals is not frame.f_globals else None
        cls.__ropewalk_description__ = _described(cls, name, version)


class Service(Contract):
    """A class of operations with a name and a version; the unit of ownership and placement.

    `class Payments(Service, name="payments", version="1.2.0")`: `name` defaults to the class's in lower case with
    dashes. Dependencies come in through `__init__` by annotation. Optional `async def start(self)` and `stop(self)`
    are awaited by the runtime. A class attribute `app = Klein()` is served beside the operations, to whom `app_access`
    says, "siblings", "user" or "public"; `tables` is the `sqlalchemy.MetaData` of its own schema. A method
    `error_page(error, request)` makes the pages that browsers are shown instead of problem documents
    (`http/error_pages.py`).
    """

    app_access: ClassVar[Access] = "siblings"  # raw routes do not say who may reach them: the inside, unless this does

    async def background_status(self, job: str, principal: Principal = given) -> JobStatus:
        """Tell what became of what is done in the background, to whoever has asked for it."""
        status = await self.__ropewalk_jobs__(job)
        if status.subject is not None and status.subject != principal.subject:
            raise NotFound(f"There is no job {job!r}.")
        return msgspec.structs.replace(status, subject=None)

    __ropewalk_jobs__: Callable[[str], Awaitable[JobStatus]]  # the runtime's

    def resource(self) -> Any:
        """This service as a `twisted.web` IResource, with the default filters, for a Site of any reactor."""
        from .runtime.alone import resource

        return resource(self)


def describe(cls: type[Contract] | Contract) -> Description:
    """What a Service or Contract (class or instance) says of itself."""
    return cls.__ropewalk_description__


def names_known_to(cls: type) -> Mapping[str, Any]:
    """What the annotations of a class may name beside its module's names, by now."""
    scope = vars(cls).get("__ropewalk_scope__")
    return scope.f_locals if scope is not None else {}


def _described(cls: type[Contract], name: str | None, version: str | None) -> Description:
    inherited = [
        vars(base)["__ropewalk_description__"] for base in cls.__mro__[1:] if "__ropewalk_description__" in vars(base)
    ]
    name = name or (inherited[0].name if inherited else _kebab(cls.__name__))
    version = version or (inherited[0].version if inherited else "1.0.0")
    if not _NAME.fullmatch(name):
        raise DeclarationError(f'{cls.__name__}: a service\'s name is like "booking-ui"; got {name!r}.')
    if not _VERSION.fullmatch(version):
        raise DeclarationError(f'{cls.__name__}: a version is like "1.0.0"; got {version!r}.')
    operations: dict[str, Operation] = {}
    mounts: dict[str, Mount] = {}
    subscriptions: dict[str, Subscription] = {}
    sagas: dict[str, Saga] = {}
    schedules: dict[str, Scheduled] = {}
    for attribute, declared, function in _declarations(cls):
        if declared.mounted:
            mounts[attribute] = Mount(declared.route or "/", attribute, declared.access)
            continue
        hints, doc = _said(cls, attribute)
        if declared.saga:
            sagas[attribute] = Saga(name, attribute, function, declared, hints)
            continue
        made = Operation(name, attribute, function, declared, hints, doc)
        if declared.delivery is not None:
            subscriptions[attribute] = subscription(made, declared)
        elif declared.schedule is not None:
            schedules[attribute] = scheduled(made, declared)
        else:
            operations[attribute] = made
    if issubclass(cls, Service) and any(operation.background for operation in operations.values()):
        operations["background_status"] = _status_operation(name, operations.values())
    for base in reversed(cls.__mro__[1:]):
        if "__ropewalk_description__" in vars(base):
            _check_implements(cls, base, version, operations)
    _check_names(cls, operations)
    summary = (inspect.getdoc(cls) or "").partition("\n")[0] if cls.__doc__ else ""
    names = dict.fromkeys([name, *(description.name for description in inherited)])
    return Description(
        name,
        version,
        operations,
        tuple(mounts.values()),
        summary,
        tuple(names),
        subscriptions,
        sagas,
        schedules,
    )


def _status_operation(service: str, operations: Iterable[Operation]) -> Operation:
    """Says what became of what is done in the background, to whom may ask for that."""
    access = max((each.access for each in operations if each.background), key=("siblings", "user", "public").index)
    function = Service.background_status
    hints = typing.get_type_hints(function)
    declared = Declaration("GET", "/background/<job>", access=access, raises=(NotFound,))
    return Operation(service, "background_status", function, declared, hints, inspect.getdoc(function) or "")


def _declarations(cls: type) -> list[tuple[str, Declaration, Callable[..., Any]]]:
    """(attribute, what was declared, the function as this class has it): a base's declarations first.

    An override need not repeat the decorator: the declaration is inherited with the name.
    """
    found: dict[str, Declaration] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            wrapped = getattr(value, "fget", None) or inspect.unwrap(value)  # of a property, a classmethod
            declared: Any = getattr(value, "__ropewalk__", getattr(wrapped, "__ropewalk__", None))
            if isinstance(declared, Declaration):
                found[attribute] = declared
    declarations: list[tuple[str, Declaration, Callable[..., Any]]] = []
    for attribute, declared in found.items():
        function = inspect.getattr_static(cls, attribute)
        if not inspect.isfunction(function):
            if function is None:
                continue  # taken back by a subclass
            raise DeclarationError(
                f"{cls.__name__}.{attribute}: an operation is a plain method; got {type(function).__name__}."
            )
        declarations.append((attribute, declared, function))
    return declarations


def _said(cls: type, attribute: str) -> tuple[dict[str, Any], str]:
    """The types of an operation and its docstring; what an override does not say is as in the class it overrides."""
    hints: dict[str, Any] = {}
    doc = ""
    for base in reversed(cls.__mro__):
        function = vars(base).get(attribute)
        if not inspect.isfunction(function):
            continue
        doc = inspect.getdoc(function) or doc
        inner = {name: value for name, value in vars(base).items() if isinstance(value, type)}
        known = {**vars(typing), **inner, **function.__globals__}
        try:
            hints |= typing.get_type_hints(function, known, dict(names_known_to(base)), include_extras=True)
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            raise DeclarationError(
                f"{base.__name__}.{attribute}: {error}; its types are needed when the class is made: import them at "
                "the top, not under TYPE_CHECKING."
            ) from error
    return hints, doc


def _check_implements(
    cls: type[Contract], base: type[Contract], version: str, operations: Mapping[str, Operation]
) -> None:
    """A class keeps what a base promised: parameters may be added with a default, none may go or change."""
    contract = describe(base)
    if issubclass(cls, Service) and int(version.partition(".")[0]) != contract.major:
        raise DeclarationError(
            f"{cls.__name__} is version {version}, its contract {base.__name__} {contract.version}, "
            f"and who calls by that asks for {contract.major}; give them one major."
        )
    for name, promised in contract.operations.items():
        kept = operations.get(name)
        if kept is None or (issubclass(cls, Service) and _without_body(cls, name)):
            raise DeclarationError(
                f"{cls.__name__} does not keep its contract: {base.__name__} promises '{name}'; write "
                f"`async def {name}(...) -> {spelt(promised.returns)}: ...` in {cls.__name__}."
            )
        for expected, got in differences(promised, kept):
            raise DeclarationError(f"{cls.__name__}.{name} does not keep its contract: expected {expected}, got {got}.")


def _without_body(cls: type, name: str) -> bool:
    """Whether the operation is as a contract has it: with nothing to do."""
    owner = next(base for base in cls.__mro__ if name in vars(base))
    return issubclass(owner, Contract) and not issubclass(owner, Service)


def _check_names(cls: type, operations: Mapping[str, Operation]) -> None:
    """Two operations are not reached by one name, and none by a name that means something else."""
    routes: dict[tuple[str | None, str], str] = {}
    names: dict[str, str] = {}
    for name, operation in operations.items():
        where = f"{cls.__name__}.{name}"
        if name.startswith("_"):
            raise DeclarationError(f"{where}: an operation is public; call it '{name.strip('_')}'.")
        if name in _TAKEN:
            raise DeclarationError(
                f"{where}: on a service '{name}' means something else; call the operation otherwise."
            )
        for alias in (name, *(alias.rpartition(".")[2] for alias in operation.aliases)):
            if names.setdefault(alias, name) != name:
                raise DeclarationError(f"{cls.__name__}: {names[alias]} and {name} are both called '{alias}'.")
        if operation.route is not None:
            place = (operation.method, shape(operation.route))
            other = routes.setdefault(place, name)
            if other != name:
                raise DeclarationError(
                    f"{cls.__name__}: {other} and {name} are both {operation.method} {operation.route}; change one."
                )
    access = getattr(cls, "app_access", "siblings")
    if access not in typing.get_args(Access):
        raise DeclarationError(
            f"{cls.__name__}: app_access is one of {', '.join(typing.get_args(Access))}; got {access!r}."
        )
    for name in _LIFECYCLE:
        hook = getattr(cls, name, None)
        if issubclass(cls, Service) and inspect.isfunction(hook) and not inspect.iscoroutinefunction(hook):
            raise DeclarationError(f"{cls.__name__}.{name} is awaited: `async def {name}(self) -> None`.")


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
