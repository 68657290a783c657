"""A service's own database: `Database.run`, one transaction, the one unit of effect; keys, and the records of runs."""

from .database import Database
from .transaction import Transaction

__all__ = ["Database", "Transaction"]
