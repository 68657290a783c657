"""A service's own configuration: subclass `Settings`, name it in `__init__`, and it comes filled and checked.

Class defaults < `[settings.<service>]` of the system file < `ROPEWALK_<SERVICE>__<FIELD>` < the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import SecretStr as Secret
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..errors import ConfigurationError

S = TypeVar("S", bound="Settings")


class Settings(BaseSettings):
    """A service's settings: typed fields with defaults; a `Secret` field never prints."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is made with: in a test that is what you pass, in a system what `load` collected."""
        return (init_settings,)


def load(cls: type[S], service: str, values: Mapping[str, Any], origins: Mapping[tuple[str, ...], str]) -> S:
    """The settings of `service` from `values`; `origins` says where each was set.

    Raises ConfigurationError with one line that names the field and where it was set.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ("settings", service, *(str(part) for part in first["loc"]))
        origin = next((f"{origins[path[:n]]}: " for n in range(len(path), 2, -1) if path[:n] in origins), "")
        raise ConfigurationError(f"{origin}[settings.{service}] {'.'.join(path[2:])}: {first['msg']}.") from None


class Environment:
    """How a variable's name says where in the configuration its value belongs: parts between double underscores."""

    @staticmethod
    def nested(rest: str, value: str) -> dict[str, Any]:
        """The nested value that `PART__PART` sets; a value that is a JSON list or object is one."""
        *outer, last = rest.lower().split("__")
        nested: dict[str, Any] = {last: _value(value)}
        for part in reversed(outer):
            nested = {part: nested}
        return nested


def _value(text: str) -> Any:
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, nested; what `above` says wins."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        result[name] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


__all__ = ["Environment", "Secret", "Settings", "load", "merged"]
