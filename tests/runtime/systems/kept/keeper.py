"""A service with a database of its own."""

from ropewalk import Database, Service


class Keeper(Service, name="keeper", version="1.0.0"):
    """Keeps something."""

    def __init__(self, database: Database) -> None:
        self.database = database
