"""One service without a system around it: `Hotels(...).resource()`, on whatever reactor is running."""

from __future__ import annotations

import time
from functools import partial
from random import Random, SystemRandom
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..dispatch import dispatch
from ..driver import Driver
from ..handler import compose
from ..service import Service, describe
from ..telemetry.logs import request_line
from ..telemetry.metrics import Calls
from .clock import Clock
from .stacks import server_stack


def resource(service: Service) -> IResource:
    """`service` behind the default stack, with `/openapi.json` and `/docs`: what an internal listener serves.

    Its sessions last as long as this: their secret is drawn now.
    """
    from twisted.internet import reactor

    from ..http.auth import SessionCookie
    from ..http.mounts import Mounts
    from ..http.raw import serve
    from ..http.sessions import Sessions
    from ..http.surface import surface

    clock, secret, name = Clock(reactor), SystemRandom(), describe(service).name
    random = Random(secret.getrandbits(256))  # of spans: many, and nobody gains by guessing one
    meter = Calls("ropewalk_server", "Requests", (("service", name),))
    sessions = Sessions(secret.randbytes(32).hex(), time.time, secret, name=f"{name}-session")
    authenticators = [SessionCookie(sessions)]
    stack = partial(
        server_stack, clock=clock, random=random, meter=meter, done=request_line, authenticators=authenticators
    )
    driver = Driver.of(cast(IReactorTime, reactor))
    mounts = Mounts(service, reactor, cast(Any, reactor).getThreadPool(), driver)
    cast(Any, reactor).addSystemEventTrigger("before", "shutdown", lambda: driver.run(mounts.stop()))
    return surface(
        service,
        compose(stack(), dispatch(service)),
        driver,
        clock.seconds,
        raw=compose(stack(timeout=None), serve),
        mounts=mounts,
        sessions=sessions,
    )
