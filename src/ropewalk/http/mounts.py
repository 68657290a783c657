"""The foreign applications of a service, as resources: what its `@mount` methods return, each called once.

An `IResource` is served as it is; a Klein application by its resource; a WSGI application in threads, in the caller's
context, so that `ropewalk.wait(self.hotels.search(...))` calls a sibling from there; an ASGI application as in `asgi`.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, cast

from twisted.web.resource import IResource, Resource
from twisted.web.wsgi import WSGIResource

from ..driver import Driver
from ..errors import DeclarationError, Unavailable
from ..service import Mount, Service, describe
from .asgi import Application, ASGIResource
from .heads import write_problem

QUEUE = 100  # requests of a WSGI application that run or wait for a thread; the next one is told Unavailable


class Threads(Protocol):
    """A bounded pool that has been started: `twisted.python.threadpool.ThreadPool` is one."""

    def callInThread(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> object:
        """Call in a thread, when there is one."""


class Mounts:
    """The mounts of one service, each made when this is: once, when the service starts."""

    def __init__(self, service: Service, reactor: Any, threads: Threads, driver: Driver, *, queue: int = QUEUE) -> None:
        """`reactor` for IReactorFromThreads; `threads` run WSGI applications, of whose requests `queue` may wait.

        Raises DeclarationError for a method that returns something else than a resource or an application.
        """
        made: dict[Mount, IResource] = {}
        for mount in describe(service).mounts:
            application = getattr(service, mount.method)()
            where = f"{describe(service).name}.{mount.method}"
            made[mount] = _resource(application, where, reactor, threads, driver, queue)
        self.resources: Mapping[Mount, IResource] = MappingProxyType(made)

    async def start(self) -> None:
        """Let the ASGI applications start up, in order; raises RuntimeError when one says that it cannot."""
        for resource in self.resources.values():
            if isinstance(resource, ASGIResource):
                await resource.start()

    async def stop(self) -> None:
        """Let those that were started shut down, the last one first."""
        for resource in reversed(list(self.resources.values())):
            if isinstance(resource, ASGIResource):
                await resource.stop()


def _resource(application: Any, where: str, reactor: Any, threads: Threads, driver: Driver, queue: int) -> IResource:
    if IResource.providedBy(application):
        return application
    klein = getattr(application, "resource", None)
    if type(application).__module__.partition(".")[0] == "klein" and klein is not None:
        return cast(IResource, klein())
    if callable(application):
        call = application if inspect.isroutine(application) else type(application).__call__
        if inspect.iscoroutinefunction(call):
            return ASGIResource(cast(Application, application), driver)
        if not inspect.isclass(application):
            return _WSGI(application, reactor, threads, queue)
    if inspect.iscoroutine(application):
        application.close()
    raise DeclarationError(
        f"{where}: expected an IResource, a Klein application, a WSGI application (a plain callable of environ and "
        f"start_response) or an ASGI 3 one (an async callable of scope, receive and send); got {application!r}."
    )


class _WSGI(Resource):
    """A WSGI application: Twisted's `WSGIResource`, in the caller's context, and no more than `queue` at a time."""

    isLeaf = True

    def __init__(self, application: Any, reactor: Any, threads: Threads, queue: int) -> None:
        super().__init__()
        self._reactor = reactor
        self._threads = threads
        self._queue = queue
        self._running = 0
        self._resource = WSGIResource(reactor, self, application)

    def render(self, request: Any) -> Any:
        """Answer when the application does."""
        if self._running >= self._queue:
            full = Unavailable(f"The application's queue is full: {self._queue} requests run or wait.")
            return write_problem(request, full)
        return self._resource.render(request)

    def callInThread(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """What `WSGIResource` asks of its pool."""
        context = contextvars.copy_context()

        def call() -> None:
            try:
                context.run(func, *args, **kwargs)
            finally:
                self._reactor.callFromThread(self._ended)

        self._running += 1
        self._threads.callInThread(call)

    def _ended(self) -> None:
        self._running -= 1
