"""What a service's `__init__` is given, by annotation: one table from type to the thing, and clients of siblings."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ..codec.parameters import spelt
from ..errors import ConfigurationError
from ..service import Client, Contract, Service, describe, names_known_to
from .settings import Settings


def construct(
    cls: type[Service],
    things: Mapping[Any, Callable[[], Any]],
    client: Callable[[type[Contract], Client], Any],
    settings: Callable[[type[Settings]], Settings],
) -> Service:
    """An instance of `cls` with everything its `__init__` names.

    `things`: by type, what makes it; `client(contract, policy)` makes a sibling's client; `settings(cls)` fills
    settings. Raises ConfigurationError naming the parameter that nothing provides.
    """

    given: dict[str, Any] = {}
    for parameter, (hint, policy, required) in dependencies_of(cls).items():
        if hint in things:
            given[parameter] = things[hint]()
        elif isinstance(hint, type) and issubclass(hint, Contract):
            given[parameter] = client(hint, policy)
        elif isinstance(hint, type) and issubclass(hint, Settings):
            given[parameter] = settings(hint)
        elif required:
            raise ConfigurationError(unprovided(cls, parameter, hint, things))
    return cls(**given)


def unprovided(cls: type[Service], parameter: str, hint: Any, things: Iterable[Any]) -> str:
    """What is said of a parameter that nothing provides."""
    where = f"{describe(cls).name}: {cls.__name__}.__init__"
    if hint is None:
        return f"{where}: '{parameter}' has no type; say which sibling, Settings or other dependency it is."
    known = ", ".join(sorted(spelt(thing) for thing in things))
    return (
        f"{where}: nothing provides '{parameter}: {spelt(hint)}'. A service is given siblings (Service or Contract "
        f"classes), Settings subclasses, {known}, and what [provide] names."
    )


def dependencies_of(cls: type[Service]) -> dict[str, tuple[Any, Client, bool]]:
    """What `cls` names in its `__init__`: (type, the edge's policy, whether it must be there) by parameter."""
    if cls.__init__ is object.__init__:
        return {}
    hints = _hints(cls)
    return {
        p.name: (*_policy(hints.get(p.name)), p.default is p.empty)
        for p in list(inspect.signature(cls.__init__).parameters.values())[1:]
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def unread(cls: type[Service], written: Mapping[str, Any]) -> str | None:
    """Why `written`, a service's own settings, cannot be meant: nothing in its `__init__` reads them; else None."""
    types = [hint for hint, _, _ in dependencies_of(cls).values()]
    if not written or any(isinstance(hint, type) and issubclass(hint, Settings) for hint in types):
        return None
    name = describe(cls).name
    return f"[settings.{name}] sets {', '.join(sorted(written))}, and {cls.__name__}.__init__ takes no Settings."


def _hints(cls: type[Service]) -> dict[str, Any]:
    # Resolved when the system starts, in the defining module as it is by then: siblings may name each other.
    function = cls.__init__
    try:
        known = vars(sys.modules[function.__module__])
        return typing.get_type_hints(function, known, dict(names_known_to(_owner(cls))), include_extras=True)
    except (NameError, AttributeError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{describe(cls).name}: __init__ names a type that cannot be found: {error}. Import it at the top of "
            f"{function.__module__}, not under TYPE_CHECKING; where modules import each other, `import the.module` and "
            "name the.module.Class, or give both a Contract."
        ) from error


def _owner(cls: type[Service]) -> type:
    return next(base for base in cls.__mro__ if "__init__" in vars(base))


def _policy(annotation: Any) -> tuple[Any, Client]:
    policy = Client()
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        policy = next((each for each in metadata if isinstance(each, Client)), policy)
    if get_origin(annotation) in (Union, UnionType):  # what may be None in a test is given in a system
        members = [each for each in get_args(annotation) if each is not type(None)]
        if len(members) == 1:
            return _policy(members[0]) if get_origin(members[0]) is Annotated else (members[0], policy)
    return annotation, policy
