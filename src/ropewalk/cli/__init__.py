"""The `ropewalk` command: every verb reads the same system file the processes run from."""

from .main import main

__all__ = ["main"]
