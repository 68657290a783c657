"""The `twistd ropewalk` command: `twistd -n ropewalk TARGET [--port N] [--process NAME]`.

Parsing its command line installs our reactor, before any service module is imported; so those may import klein and
txredisapi at the top, and no `--reactor` is needed.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from ..engine import install
from ..errors import ConfigurationError

EX_CONFIG = 78  # sysexits.h: another try would end the same


class Options(usage.Options):
    """What `twistd ropewalk --help` shows."""

    synopsis = "[options] TARGET"
    longdesc = (
        "Run a system, or one process of it. TARGET is a system file, package.module:Service or package.module:app."
    )
    optParameters = [  # noqa: RUF012  # as usage.Options has it
        ["port", None, 8000, "The internal listener of the file's first service; each next one on the next port.", int],
        ["process", None, None, "Run this process of [processes] alone."],
        ["data", None, None, "Where databases lie (default: .ropewalk beside the system file)."],
        ["drain-delay", None, None, "Seconds from a signal until it stops to accept (default: [drain] delay).", float],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Options may stand before TARGET and after it."""
        try:
            named, rest = getopt.gnu_getopt(list(options or ()), self.shortOpt, self.longOpt)
        except getopt.error as error:
            raise usage.UsageError(str(error)) from None
        super().parseOptions([*(part for pair in named for part in pair if part), *rest])

    def parseArgs(self, target: str) -> None:  # type: ignore[override]
        """TARGET."""
        install()
        self["target"] = target


def makeService(options: Options) -> IService:
    """The lifecycle service twistd runs; a wrong configuration ends the command with one line and status 78."""
    from .main import process_service
    from .parent import Parent

    parent = Parent.found(os.environ)
    try:
        return process_service(
            options["target"],
            port=options["port"],
            process=options["process"],
            data=Path(options["data"]) if options["data"] else None,
            drain_delay=options["drain-delay"],
            environment=os.environ,
            stream=sys.stdout,
            parent=parent,
        )
    except Exception as error:
        if parent is not None:
            parent.tell_at_last(error)
        if not isinstance(error, ConfigurationError):
            raise
        if parent is None:
            print(f"ropewalk: {error}", file=sys.stderr)  # noqa: T201  # there is no log yet
        raise SystemExit(EX_CONFIG) from None
