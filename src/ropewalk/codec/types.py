"""What an annotation can say about where a parameter comes from: `Annotated[str, Header("X-Tenant")]`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Header(Struct, frozen=True):
    """This parameter is the request header `name`; by default the parameter's name with dashes."""

    name: str | None = None


class Cookie(Struct, frozen=True):
    """This parameter is the cookie `name`; by default the parameter's name."""

    name: str | None = None


class Query(Struct, frozen=True):
    """This parameter is the query parameter `name`; on a structured type, each of its fields is one."""

    name: str | None = None


class Form(Struct, frozen=True):
    """This structured parameter is the fields of an HTML form, URL-encoded or multipart."""


class Upload(Struct, frozen=True):
    """A file sent with a form: the type of a parameter, or of a field of a `Form` type."""

    filename: str
    content_type: str
    content: bytes


class _Given:
    """The default of a parameter that the framework supplies, so that a caller leaves it out."""

    def __repr__(self) -> str:
        return "given"


given: Any = _Given()
"""The default of a parameter that the framework supplies: `principal: Principal = given`. Callers leave it out."""
