"""What one listener of a service answers: its operations, its own Klein application, its mounts, the inside's pages.

The internal surface adds `/openapi.json`, `/asyncapi.json`, `/docs`, `/health/live`, `/health/ready` and `/metrics`; a
route of the service at such a path wins. It has `/-/ropewalk`, too, for whoever runs the system. The public one has the
operations and mounts declared for the outside, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from klein import Klein
from twisted.web.resource import IResource

from ..driver import Driver
from ..handler import Handler
from ..service import Service, describe
from .cors import CORS, AllowOrigins
from .docs import documented
from .mounts import Mounts
from .raw import Behind, Foreign
from .server import ServiceResource, application, mount
from .sessions import Sessions
from .wire import Wire


def surface(
    service: Service,
    handler: Handler,
    driver: Driver,
    seconds: Callable[[], float],
    *,
    raw: Handler | None = None,
    mounts: Mounts | None = None,
    sessions: Sessions | None = None,
    cors: CORS | None = None,
    public: bool = False,
    inside: Mapping[str, Callable[..., Any]] | None = None,
    beneath: Mapping[str, Callable[[], IResource]] | None = None,
) -> IResource:
    """The resource of `service`; `inside` are Klein handlers by path, for an internal listener, and so is `beneath`:
    what makes a resource, by the path it lies at.

    `handler` answers operations; `raw`, ending in `raw.serve`, stands before what is no operation: its `app` and its
    `mounts`. Without `sessions` no operation can have one, without `cors` no other origin's scripts read anything.
    """
    description = describe(service)
    if description.mounts and (mounts is None or raw is None):
        raise TypeError(f"{description.name} has mounts: surface() needs `mounts=Mounts(service, ...)` and `raw`.")
    error_page = getattr(service, "error_page", None)
    wire = Wire(handler, description, driver, seconds, public=public, sessions=sessions, error_page=error_page)
    own = getattr(service, "app", None)
    shown = isinstance(own, Klein) and (not public or service.app_access != "siblings")

    def behind(resource: IResource, name: str, access: str = "siblings") -> IResource:
        if raw is None:
            return resource
        return Behind(resource, raw, Foreign(f"{description.name}.{name}", access), driver, seconds, public=public)

    mounted = {
        mount.route: behind(resource, mount.method, mount.access)
        for mount, resource in (mounts.resources if mounts is not None else {}).items()
        if not public or mount.access != "siblings"
    }
    app = application(
        wire, own if shown else None, mounted, lambda resource, name: behind(resource, name, service.app_access)
    )
    if not public:
        for path, make in (beneath or {}).items():
            mount(app, path, make)
        taken = _paths(app) | (_paths(own) if isinstance(own, Klein) else set())
        for path, answer in {**documented(wire.description), **(inside or {})}.items():
            if path.partition("/-/")[0] not in taken:  # what lies beneath "/-/" goes with its page
                app.route(path, methods=["GET"], endpoint=path)(answer)
    resource: IResource = ServiceResource(app, wire)
    return resource if cors is None else AllowOrigins(resource, cors)


def _paths(app: Klein) -> set[str]:
    return {rule.rule.rstrip("/") for rule in app.url_map.iter_rules()}
