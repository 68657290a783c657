"""PostgreSQL as a provider of Ropewalk's ports: `store`, for services whose data are shared by many processes.

Chosen by `[adapters] store = "postgresql://hotel@db/hotel"`; installed by the extra `ropewalk[postgresql]`.
"""
