"""What can be seen of a running system: log lines, numbers, and the ids that join them.

`logs` renders every event of Twisted, of the standard library and of structlog as one line with service, operation,
trace and request id; `metrics` counts without locks and exposes OpenMetrics; `propagation` is W3C trace context.
"""
