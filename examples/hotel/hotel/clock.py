"""The smallest service there is: a raw Klein application whose answer is a Deferred. The others ask it for the time."""

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ropewalk import Service
from ropewalk.interfaces import IWallClock


class Clock(Service, name="clock"):
    """Tells the time in UTC, as text: 2026-05-01T09:30:00+00:00."""

    app = Klein()

    def __init__(self, reactor: IReactorTime, wall: IWallClock) -> None:
        self.reactor, self.wall = reactor, wall

    @app.route("/now")
    def now(self, request):  # type: ignore[no-untyped-def]
        return deferLater(self.reactor, 0, lambda: self.wall.now().isoformat(timespec="seconds"))
