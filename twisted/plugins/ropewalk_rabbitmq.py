"""The adapters of RabbitMQ: events as quorum queues."""

from ropewalk.plugin import AdapterMaker

rabbitmq = AdapterMaker("rabbitmq", port="broker", factory="ropewalk_rabbitmq.broker:make", extra="rabbitmq")
