"""A service's own database: `Database.run`, one transaction, the one unit of effect."""

from .database import Database, Transaction

__all__ = ["Database", "Transaction"]
