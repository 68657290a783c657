"""HTML pages by Jinja2: everything is escaped, nothing is undefined, no path is written by hand.

    self.pages = Templates(Path(__file__).parent / "templates", self)
    return self.pages.page("search.html", hotels=found, session=session, principal=principal)

A template has what it is given, and two functions: `path_for("book", hotel_id=3)` is the path of an operation, and
`csrf_field()` the hidden field each form that changes something needs (give the page its `session`).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.bccache import Bucket
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from markupsafe import Markup

from ..errors import ConfigurationError
from ..message import Response
from ..service import Contract
from .csrf import field
from .paths import path_for, path_of
from .sessions import Session

HTML = "text/html; charset=utf-8"


class _Compiled(BytecodeCache):
    """What was compiled in this process, by its text: a simulated world starts each service many times."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], Any] = {}  # as many as there are templates

    def load_bytecode(self, bucket: Bucket) -> None:
        """As BytecodeCache."""
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """As BytecodeCache."""
        self._code[bucket.key, bucket.checksum] = bucket.code


_compiled = _Compiled()


class Templates:
    """The templates in one folder, those in its folders included: "mail/receipt.html"."""

    def __init__(self, folder: str | PathLike[str], service: Contract | type[Contract] | None = None) -> None:
        """`service`: whose operations `path_for("name")` means. Raises ConfigurationError when there is no folder."""
        if not Path(folder).is_dir():
            raise ConfigurationError(f"Expected a folder of templates; there is none at {Path(folder).absolute()}.")
        self.environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            bytecode_cache=_compiled,
        )
        self.environment.globals.update(path_for=self._path_for, csrf_field=_csrf_field)
        self._service = service

    def page(self, name: str, /, status: int = 200, headers: Sequence[tuple[str, str]] = (), **values: Any) -> Response:
        """The template `name`, filled with `values`, as a reply of HTML."""
        return Response(self.render(name, **values), status, [("content-type", HTML), *headers])

    def render(self, name: str, /, **values: Any) -> str:
        """The text alone, for a mail or a part of a page. Raises jinja2's UndefinedError for a name nobody gave."""
        return self.environment.get_template(name).render(values)

    def _path_for(self, operation: Any, /, **params: Any) -> str:
        if not isinstance(operation, str):
            return path_for(operation, **params)
        if self._service is None:
            raise TypeError(f'path_for("{operation}") needs to know whose: `Templates(folder, self)`.')
        return path_of(self._service, operation, **params)


@pass_context
def _csrf_field(context: Context) -> Markup:
    session = context.get("session")
    if not isinstance(session, Session):
        raise TemplateRuntimeError(
            f'csrf_field() in {context.name} needs the session: `page("{context.name}", session=session, ...)`.'
        )
    return field(session)
