"""The built-in adapters: in this process, or one SQLite file."""

from ropewalk.plugin import AdapterMaker

sqlite = AdapterMaker("sqlite", port="store", factory="ropewalk.memory.store:SQLiteStore")
