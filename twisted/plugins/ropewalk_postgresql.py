"""The adapters of PostgreSQL: the databases of services as schemas of one server."""

from ropewalk.plugin import AdapterMaker

postgresql = AdapterMaker(
    "postgresql", port="store", factory="ropewalk_postgresql.store:PostgreSQLStore", extra="postgresql"
)
