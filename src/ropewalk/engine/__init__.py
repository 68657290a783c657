"""Bytes at speed: the reactor the runtime installs; the HTTP channel and agent are to live here too."""

from .reactor import install

__all__ = ["install"]
