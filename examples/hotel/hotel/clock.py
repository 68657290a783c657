"""The smallest service there is: a raw Klein application whose answer is a Deferred. It alone reads the wall clock."""

from datetime import UTC, datetime

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ropewalk import Service


class Clock(Service, name="clock"):
    """Tells the time in UTC, as text: 2026-05-01T09:30:00+00:00."""

    app = Klein()

    def __init__(self, reactor: IReactorTime, read=lambda: datetime.now(UTC)) -> None:  # type: ignore[no-untyped-def]
        self.reactor, self.read = reactor, read

    @app.route("/now")
    def now(self, request):  # type: ignore[no-untyped-def]
        return deferLater(self.reactor, 0, lambda: self.read().isoformat(timespec="seconds"))
