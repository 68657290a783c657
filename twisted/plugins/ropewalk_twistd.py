"""The `twistd ropewalk` command, found by twistd. Data only: nothing of ropewalk is imported before it is used."""

from twisted.application.service import ServiceMaker

ropewalk = ServiceMaker(
    "Ropewalk",
    "ropewalk.runtime.twistd",
    "Run a Ropewalk system, or one process of it.",
    "ropewalk",
)
