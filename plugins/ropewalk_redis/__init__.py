"""Redis as a provider of Ropewalk's ports: `broker`, for events between processes and machines, in Redis Streams.

Chosen by `[adapters] broker = "redis://127.0.0.1:6379/0"`. What it needs, txredisapi, comes with Ropewalk itself; the
extra `ropewalk[redis]` adds hiredis, which reads large answers faster.
"""
