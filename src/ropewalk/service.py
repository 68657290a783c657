"""A Service is a class of operations; a Contract is one without bodies; a client of either is made here too.

Everything that can be wrong in a declaration is found when the class is made. `describe(cls)` is what the rest of the
house reads: name, version, operations.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from types import FrameType
from typing import Any, ClassVar, cast

import msgspec
from msgspec import Struct
from twisted.internet import defer
from twisted.internet.defer import Deferred, FirstError
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure

from .codec.binding import BINARY
from .codec.parameters import spelt
from .codec.routes import shape
from .codec.types import given
from .context import Context, current_context, derived_key
from .driver import Driver, Run
from .durable import Saga, Scheduled, Subscription, scheduled, subscription
from .errors import DeclarationError, NotFound, RopewalkError, Unavailable
from .handler import Handler
from .message import Principal, Request, Response, Stream, caller, enter, leave
from .operation import Access, Declaration, Operation, differences

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_VERSION = re.compile(r"\d+\.\d+\.\d+([-+.].*)?")
_LIFECYCLE = ("start", "stop")
_TAKEN = (*_LIFECYCLE, "resource", "app", "tables", "error_page")
_log = Logger("ropewalk.service")


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


# -- the callee's end: from a Request to the method


def dispatch(service: Service) -> Handler:
    """The innermost Handler of a service: reads the payload, calls the method, answers.

    An error that leaves is the operation's own: it ran, and nobody further out may repeat it. A sibling's error that
    the operation does not declare becomes Unavailable with its cause.
    """
    said = describe(service)
    methods = {
        name: cast(Callable[..., Awaitable[Any]], getattr(service, name))
        for name in (*said.operations, *said.subscriptions, *said.schedules)
    }
    undeclared: set[tuple[str, type]] = set()  # what has been warned about

    async def call(request: Request) -> Response:
        operation = cast(Operation, request.operation)
        payload = request.payload
        arguments = payload if isinstance(payload, dict) else await payload.read()  # type: ignore[union-attr]
        given = operation.binding.given
        if given:
            arguments = {**arguments, **_supplied(given, request)}
        entered = enter(request)
        try:
            result: Any = methods[operation.name](**arguments)
            if not operation.generates:
                result = await result
        except (RopewalkError, FirstError, ExceptionGroup) as raised:
            error = _meant(raised)
            if error is None:
                raise
            fact = operation.name, type(error)
            if not error.met_at and not isinstance(error, operation.raises) and fact not in undeclared:
                undeclared.add(fact)
                _log.warn(
                    "{operation} raised {error}, which it does not declare: add it to raises=",
                    operation=operation.id,
                    error=type(error).__name__,
                )
            leaving = as_it_leaves(error, operation)
            if leaving is raised:
                raise
            raise leaving from raised
        finally:
            leave(entered)
        response = result if type(result) is Response else Response(result, operation.status)
        if operation.streams or isinstance(response.body, Stream):
            return msgspec.structs.replace(response, body=_streamed(response.body, operation, request))
        return response

    return call


def _streamed(body: Any, operation: Operation, request: Request) -> Stream:
    stream = body if isinstance(body, Stream) else Stream(body, BINARY if operation.item is bytes else None)
    return Stream(_Within(request, aiter(stream.iterator)), stream.content_type)


class _Within:
    """A stream whose pieces are made in the operation's context. Its deadline was that of the head, and is over."""

    def __init__(self, request: Request, pieces: AsyncIterator[Any]) -> None:
        self._request = request.replace(context=msgspec.structs.replace(request.context, deadline=None))
        self._pieces = pieces

    def __aiter__(self) -> _Within:
        return self

    async def __anext__(self) -> Any:
        # Around each piece: set once around them all, it would be seen by whoever takes them.
        entered = enter(self._request)
        try:
            return await anext(self._pieces)
        finally:
            leave(entered)

    async def aclose(self) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


def _supplied(given: Mapping[str, Any], request: Request) -> dict[str, Any]:
    supplied: dict[str, Any] = {}
    for name, type in given.items():
        if type is Principal:
            supplied[name] = request.principal
        elif type is Context:
            supplied[name] = request.context
        elif type is Request:
            supplied[name] = request
        else:
            supplied[name] = request.payload.supply(type)  # type: ignore[union-attr]
    return supplied


def _meant(raised: BaseException) -> RopewalkError | None:
    """The error of ours in what was raised: `gatherResults` and TaskGroup wrap what failed of several calls."""
    while isinstance(raised, FirstError):
        raised = cast(BaseException, raised.subFailure.value)
    if isinstance(raised, ExceptionGroup):
        meant = [_meant(each) for each in raised.exceptions]
        return meant[0] if None not in meant else None
    return raised if isinstance(raised, RopewalkError) else None


def as_it_leaves(error: RopewalkError, operation: Any) -> RopewalkError:
    """`error` as it leaves an operation, or what stands for one: its own, or a sibling's that it does not declare."""
    if error.met_at and not isinstance(error, operation.raises):
        unavailable = Unavailable(f"{operation.id} could not finish: {error.met_at} failed.", status=502)
        unavailable.members["cause"] = {"type": error.type, "status": error.status, "from": error.met_at}
        unavailable.ran = "maybe"
        return unavailable
    error.ran = "yes"
    error.retryable = False
    error.met_at = ""
    return error


# -- the caller's end: from a call to a Request


class Sibling:
    """A client of another service: an instance of its contract as far as types go, with its operations and no more."""

    _contract: ClassVar[type[Contract]]

    def __init__(self, handler: Handler, caller: str, driver: Driver | None) -> None:
        self._handler = handler
        self._caller = caller
        self._driver = driver

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # what isinstance() believes
        return type(self)._contract

    def __getattr__(self, name: str) -> Any:
        description = describe(type(self)._contract)
        if name in description.operations:
            raise AttributeError(
                f"'{name}' of {description.name} takes what only HTTP can bring; ask for it by HTTPClient: "
                f"sibling://{description.name}/..."
            )
        there = ", ".join(n for n, o in description.operations.items() if not o.binding.http_only) or "none"
        raise AttributeError(
            f"'{name}' is not an operation of {description.name}, which is a sibling here; its operations: {there}"
        )

    def __repr__(self) -> str:
        return f"<client of {describe(type(self)._contract).name}{self._caller and ' for ' + self._caller}>"


def client_of(contract: type[Contract], handler: Handler, caller: str = "", driver: Driver | None = None) -> Any:
    """A client of `contract` whose calls go to `handler`, the client stack of the edge; `caller` is who holds it.

    `driver` runs the calls; without one, that of whoever calls.
    """
    cls = vars(contract).get("__ropewalk_client__")
    if cls is None:
        description = describe(contract)
        methods = {
            name: _remote(operation)
            for name, operation in description.operations.items()
            if not operation.binding.http_only
        }
        members = {"_contract": contract, "__ropewalk_description__": description, **methods}
        cls = type(f"{contract.__name__}Client", (Sibling,), members)
        contract.__ropewalk_client__ = cls  # type: ignore[attr-defined]
    return cls(handler, caller, driver)


def _remote(operation: Operation) -> Callable[..., Awaitable[Any]]:
    binding = operation.binding

    cancellable = operation.cancellable or operation.streams

    def method(self: Sibling, *args: Any, **kwargs: Any) -> Any:
        arguments = binding.arguments(args, kwargs, operation.id)
        if operation.streams:
            return Pieces(
                lambda: Call(self._driver or Driver.of(), _call(self._handler, operation, arguments), cancellable)
            )
        call = _call(self._handler, operation, arguments)
        if threadable.ioThread is not None and not threadable.isInIOThread():
            return call  # the reactor's to begin, when `wait` has handed it over
        return Call(self._driver or Driver.of(), call, cancellable)

    method.__name__ = operation.name
    method.__qualname__ = f"{operation.service}.{operation.name}"
    method.__doc__ = operation.summary
    return method


async def _call(handler: Handler, operation: Operation, arguments: dict[str, Any]) -> Any:
    request = Request(operation, arguments, _context_of(operation), caller())
    try:
        response = await handler(request)
    except RopewalkError as error:
        error.met_at = error.met_at or operation.service
        raise
    return response if operation.raw and not operation.streams else response.body


def _context_of(operation: Operation) -> Context:
    """The context of a call: its key is derived from that of the operation that calls, unless somebody set one."""
    context = current_context()
    key = derived_key(context.key, operation.id, operation.safe)
    return context if key == context.key else msgspec.structs.replace(context, key=key)


class Call(Deferred[Any]):
    """A call that has begun. Whoever awaits it may be driven by anything: it is a run of its own.

    A Deferred, for `gatherResults`, callbacks and Klein; a coroutine, for TaskGroup and asyncio. Cancelling it stops
    what is cancellable; the rest goes on to its deadline, and only its answer is dropped.
    """

    def __init__(self, driver: Driver, call: Coroutine[Any, Any, Any], cancellable: bool) -> None:
        super().__init__(_give_up)
        self._cancellable = cancellable
        self._awaiting: Generator[Any, Any, Any] | None = None
        self._run = driver.start(call, self._ended)

    def _ended(self, run: Run[Any]) -> None:
        if self.called:
            return  # nobody waits; how it ended stands in the callee's log
        if not run.failed:
            self.callback(run.value)
            return
        error = defer.CancelledError() if run.cancelled() else cast(BaseException, run.exception())
        self.errback(Failure(error, type(error), error.__traceback__))

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        self._awaiting = self._awaiting or self.__await__()
        return self._awaiting.send(value)

    def throw(self, error: BaseException) -> Any:
        """As a coroutine's."""
        self._awaiting = self._awaiting or self.__await__()
        return self._awaiting.throw(error)

    def close(self) -> None:
        """As a coroutine's."""
        self.cancel()


def _give_up(call: Any) -> None:
    if call._cancellable:
        call._run.interrupt()


class Pieces:
    """What a sibling streams: iterated over at once, or awaited first, as its declaration has it."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncIterator[Any]]]) -> None:
        self._begin = begin
        self._pieces: AsyncIterator[Any] | None = None

    def __await__(self) -> Generator[Any, Any, Pieces]:
        return self._begun().__await__()

    async def _begun(self) -> Pieces:
        if self._pieces is None:
            self._pieces = await self._begin()
        return self

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> Any:
        await self._begun()
        return await anext(cast(AsyncIterator[Any], self._pieces))

    async def aclose(self) -> None:
        """Tell the sibling that no more is wanted."""
        if self._pieces is not None:
            await cast(Any, self._pieces).aclose()
