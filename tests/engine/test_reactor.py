"""Facts about our reactor: twistd knows it by its name, and it runs on uvloop."""

from __future__ import annotations

import subprocess
import sys

INSTALLED = """
from twisted.application.reactors import installReactor
installReactor("ropewalk")
from twisted.internet import reactor
print(type(reactor).__name__, type(reactor._asyncioEventloop).__module__)
"""


def test_twistd_knows_it_by_its_name():
    done = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=True)

    assert "AsyncioSelectorReactor uvloop\n" == done.stdout
