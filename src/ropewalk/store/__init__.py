"""A service's own database: `Database.run`, one transaction, the one unit of effect; and all that commits with it.

That is keys and the records of what was done under them, the outbox of events, and the sagas that were started.
"""

from .database import Database
from .transaction import Transaction

__all__ = ["Database", "Transaction"]
