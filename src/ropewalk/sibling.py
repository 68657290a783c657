"""The caller's end: a client of another service, from a call of one of its methods to a Request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, ClassVar, cast

import msgspec
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python import threadable
from twisted.python.failure import Failure

from .context import Context, current_context, derived_key
from .driver import Driver, Run
from .errors import RopewalkError
from .handler import Handler
from .message import Request, caller
from .operation import Operation
from .service import Contract, describe


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
