"""The adapters of Redis: events in its streams."""

from ropewalk.plugin import AdapterMaker

redis = AdapterMaker("redis", port="broker", factory="ropewalk_redis.broker:make", extra="redis")
