"""RabbitMQ: the broker of a system, as quorum queues with publisher confirms."""
