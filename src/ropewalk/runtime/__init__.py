"""The composition root: the only room that knows all the others. It reads the system file, builds, starts, drains,
stops.

`config` what was written and where it came from; `placement` which service lives where; `stacks` both filter orders
with their reasons; `inject` what a service's `__init__` is given; `process` one process of the system, built and run;
`supervisor` the workers of a process; `twistd` its door. Everything here gets its reactor, clock and chance from
outside.
"""
