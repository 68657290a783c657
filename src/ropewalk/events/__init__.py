"""Events on their way: the relay that hands them on, the subscriptions that take them, and what becomes of the rest.

An event waits in the outbox of its service's database, which is the store's; the relay gives it to the broker, whatever
that is; the other side's subscription is an operation under a key, so that what it does in its `Database.run` happens
once. What cannot be handled is a dead letter in the subscriber's database, and its key waits.
"""

from .publisher import Publisher

__all__ = ["Publisher"]
