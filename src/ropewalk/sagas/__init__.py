"""Sagas: durable sequences of steps with compensations, in the database of the service that declares them.

`journal` is one transaction each: what was started, what each step came to, who runs it. `flow` is what a saga's code
sees: it replays what the journal holds and does the rest; `actions` are the kinds of things that can be done. `runner`
takes the sagas of a service, runs them, puts those away that only wait, and compensates those that fail. `client` is
what a service is given: start, result, signal.
"""

from .client import SagaParked, Sagas
from .flow import Flow

__all__ = ["Flow", "SagaParked", "Sagas"]
