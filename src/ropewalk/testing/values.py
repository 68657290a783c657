"""What a simulation is given and what it leaves: frozen values, which survive JSON and another process unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Event(Struct, frozen=True):
    """One fact that people read.

    A call goes from `host`, which calls, to `peer`; its end, "answer" or "error", is told at the caller as well, with
    the same two names.
    """

    at: float  # virtual seconds since the start
    host: str  # "payments/1"
    kind: str  # call answer error commit rollback fault act done failed broken started stopped crashed
    text: str  # "payments.charge", "payments.charge: Unavailable", "crash payments/1", "book #3"
    peer: str = ""  # the callee, a service or one host of it


class Parts(Struct, frozen=True):
    """What there is to hurt in a system."""

    services: Sequence[str]
    hosts: Sequence[str]  # "payments/1", "payments/database", "broker"
    links: Sequence[tuple[str, str]]  # who asks, a service or "outside"; and what: a service, a database, the broker


class Fault(Struct, frozen=True):
    """One entry of a schedule: what befalls whom, and when."""

    at: float  # virtual seconds since the start
    kind: str  # crash power stop restart partition heal pause resume slow reset jump drift hesitate ...
    target: str  # "payments/1", or "payments/1 reservations/2" for two
    value: float = 0.0  # by kind: seconds, a rate


class Act(Struct, frozen=True):
    """One piece of work of the workload."""

    at: float  # virtual seconds since the start
    name: str  # "book"
    number: int  # its own chance is Random(f"{seed}/act/{name}/{number}")


class Late(Struct, frozen=True):
    """An act that comes when the faults have ended."""

    phase: str  # "once more", "blind", "once again", "stop": see `ropewalk.testing.planning`
    at: float  # virtual seconds since its phase began
    name: str
    number: int


class Schedule(Struct, frozen=True):
    """All that one simulation follows from. Of what is None the simulation draws from the seed what a plan would."""

    seed: int
    seconds: float  # virtual length
    acts: tuple[Act, ...]
    faults: tuple[Fault, ...]
    mode: str = "safety"  # or "liveness": the faults end at 2/3 of the time, then all must finish; or "fair": no faults
    late: tuple[Late, ...] | None = None
    blind: tuple[str, ...] | None = None  # services that start anew while they reach nobody

    @property
    def size(self) -> int:
        """How many acts, faults and blind starts it has."""
        return len(self.acts) + len(self.faults) + len(self.late or ()) + len(self.blind or ())


class Outcome(Struct, frozen=True):
    """How one simulation went."""

    schedule: Schedule
    broken: str  # empty when all held; else a paragraph: which invariant, what it said, when
    digest: str
    events: tuple[Event, ...]  # the last ones
    seconds: float  # virtual seconds simulated
    acts: Mapping[str, int]  # "done", "refused" -> how many
    fired: Mapping[str, int]  # kind of fault, or name of a buggify point -> how often
    counts: Mapping[str, int]  # "events", "bytes", "calls", "timers"
