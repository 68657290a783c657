"""The door for adapters: how one is declared, and how it is found by the name that the configuration gives.

A dropin in `twisted/plugins/` declares data alone, so that looking for adapters imports no backend:

>>> AdapterMaker("consul", port="registry", factory="ropewalk_consul.registry:make", extra="consul")
AdapterMaker(name='consul', port='registry', factory='ropewalk_consul.registry:make', extra='consul')
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from twisted.plugin import IPlugin, getPlugins
from zope.interface import Attribute, Interface, implementer

from .errors import ConfigurationError


class IAdapterMaker(Interface):
    """What a dropin declares of an adapter."""

    name = Attribute("What the configuration calls it: 'consul'.")
    port = Attribute("Which port it provides: 'registry', 'broker', 'store'.")
    factory = Attribute("Where what makes it is found: 'package.module:function'; imported when it is chosen.")
    extra = Attribute("The extra of the distribution that installs what it needs; '' when nothing is needed.")


@implementer(IPlugin, IAdapterMaker)
@dataclass(frozen=True)
class AdapterMaker:
    """Declares one adapter."""

    name: str
    port: str
    factory: str
    extra: str = ""

    def load(self) -> Any:
        """The factory; raises ConfigurationError when what it needs is not installed."""
        module, _, function = self.factory.partition(":")
        try:
            return getattr(import_module(module), function)
        except ImportError as error:
            raise ConfigurationError(
                f"The adapter {self.name!r} for {self.port} cannot be imported ({error}). "
                f"Is `ropewalk[{self.extra or self.name}]` installed?"
            ) from error


def find_adapter(port: str, name: str, makers: Iterable[Any] | None = None) -> AdapterMaker:
    """The adapter that the configuration calls `name`, a name or the scheme of a URL; raises ConfigurationError.

    `makers`: what was declared; by default every dropin on sys.path.
    """
    wanted = name.partition("://")[0].partition("+")[0]
    declared = [m for m in (getPlugins(IAdapterMaker) if makers is None else makers) if m.port == port]
    found = [maker for maker in declared if maker.name == wanted]
    if len(found) > 1:
        factories = " and ".join(sorted(maker.factory for maker in found))
        raise ConfigurationError(f"Two adapters for {port} are called {wanted!r}: {factories}. Uninstall one.")
    if not found:
        names = ", ".join(sorted({maker.name for maker in declared})) or "none"
        raise ConfigurationError(
            f"No adapter named {wanted!r} for port {port!r}; found: {names}. Is `ropewalk[{wanted}]` installed?"
        )
    return cast(AdapterMaker, found[0])
