"""The built-in adapters: in this process, or one SQLite file."""

from ropewalk.plugin import AdapterMaker

sqlite = AdapterMaker("sqlite", port="store", factory="ropewalk.memory.store:SQLiteStore")
memory_broker = AdapterMaker("memory", port="broker", factory="ropewalk.memory.shared_broker:make")
