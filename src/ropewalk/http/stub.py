"""A Contract class from any OpenAPI 3 document: source to be kept beside the caller's own, and called like a sibling.

`stub(document)` writes what `client_of` and `HTTPConnection` can call: operations, their parameters, what they answer
and raise, and every type they name. Of a document of ours it writes the same contract again: ids, parameters, types,
errors.

What a contract cannot say is left out with a comment that says so: an optional header or cookie, a method or a media
type no operation has. A required header stays; an operation with one is not on the client.

`stub_operations` reads the operations, `stub_types` the schemas, `stub_errors` the problems; `stub_layout` sets lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import ConfigurationError
from .stub_errors import BUILT_IN, EXPORTED, Errors
from .stub_layout import (
    INDENT,
    WIDTH,
    Bracketed,
    Either,
    Expression,
    camel,
    comment,
    docstring,
    flat,
    laid,
    parameter,
    quoted,
    unused,
)
from .stub_members import HOME, NAMES, Schema, words_of
from .stub_operations import Argument, Method, Operations
from .stub_types import Types


def stub(document: dict[str, Any], name: str | None = None) -> str:
    """The source of a module with the contract of `document`, OpenAPI 3.0 or 3.1: formatted, valid under mypy --strict.

    `name`: the class's; by default the document's title. Raises ConfigurationError for what is no such document.
    """
    version = document.get("openapi") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("3."):
        raise ConfigurationError(f'A stub is made of an OpenAPI 3 document ("openapi": "3.1.0"); got {version!r}.')
    info = document.get("info") or {}
    title = str(info.get("title") or "service")
    own_name = unused(camel(name or title), [*HOME, *EXPORTED], ("{}Contract",))
    types = Types(document, [own_name, *EXPORTED, *(cls.__name__ for cls in BUILT_IN.values())])
    errors = Errors(types, [own_name, *HOME])
    operations = Operations(document, types, errors, _service(document, title))
    methods = operations.methods()
    contract = _Contract(types, methods)
    version = str(info.get("version") or "")
    head = Bracketed(
        f"{own_name}(",
        ("Contract", f"name={quoted(_service(document, title))}", f"version={quoted(_version(version))}"),
    )
    text = str(info.get("description") or f"{title}.")
    parts = [
        # First, for it says which of the others are needed.
        contract.source(head, text, operations.left_out),
        *types.define(),
        *errors.define(),
    ]
    return "\n\n\n".join(
        [
            "\n".join(_head(f"The contract of {title} {version}".rstrip(), types, errors, contract.aliases)),
            *parts[1:],
            parts[0],
            "",
        ]
    ).removesuffix("\n\n")


def read(text: bytes) -> dict[str, Any]:
    """The document in `text`: JSON, or YAML where PyYAML is installed; raises ConfigurationError when it is neither."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as no_json:
        try:
            import yaml  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            raise ConfigurationError(f"The document is not JSON ({no_json}); to read YAML, install PyYAML.") from None
        try:
            found = msgspec.to_builtins(yaml.safe_load(text), str_keys=True)
        except yaml.YAMLError as no_yaml:
            raise ConfigurationError(f"The document is neither JSON ({no_json}) nor YAML ({no_yaml}).") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"An OpenAPI document is an object; got {type(found).__name__}.")
    return found


def _service(document: Schema, title: str) -> str:
    """The service's name: what the ids of our operations begin with, else the title."""
    for item in (document.get("paths") or {}).values():
        for operation in item.values():
            if isinstance(operation, Mapping) and "x-ropewalk-operation" in operation:
                return str(operation["x-ropewalk-operation"]).partition(".")[0]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", title)
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return name if name[:1].isalpha() else f"service-{name}".strip("-")


def _version(text: str) -> str:
    """A version of three numbers: "1.2" -> "1.2.0"."""
    if re.fullmatch(r"\d+\.\d+\.\d+([-+.].*)?", text):
        return text
    found = re.search(r"\d+(\.\d+){0,2}", text)
    return ".".join([*(found[0] if found else "1").split("."), "0", "0"][:3]) if found else "1.0.0"


def _head(text: str, types: Types, errors: Errors, aliases: Mapping[str, str]) -> Iterator[str]:
    """The module's docstring and imports."""
    yield from docstring(f"{text}, written by `ropewalk stub`.", "")
    yield '# mypy: disable-error-code="empty-body"'
    yield ""
    yield "from __future__ import annotations"
    last = ""
    for module in (*NAMES, "ropewalk.errors"):
        names = {name for name in types.used if HOME[name] == module}
        names |= {name for name in errors.used if module == ("ropewalk" if name in EXPORTED else "ropewalk.errors")}
        if not module or not names:
            continue
        group = "others'" if module.startswith(("msgspec", "ropewalk")) else "Python's"
        if group != last:
            yield ""
        last = group
        items = sorted(names, key=_as_isort)
        line = f"from {module} import {', '.join(items)}"
        yield (
            line
            if len(line) <= WIDTH
            else "\n".join([f"from {module} import (", *(f"{INDENT}{item}," for item in items), ")"])
        )
    if aliases:
        yield ""
        yield from (f"{alias} = {name}" for name, alias in aliases.items())


class _Contract:
    """Writes the class."""

    def __init__(self, types: Types, methods: Sequence[Method]) -> None:
        self._types = types
        self._methods = methods
        names = {method.name for method in methods}
        # An operation called `list` or `get` would stand between the class's body and what it means by that name.
        hidden = names & set(HOME) & {word for method in methods for word in _words(method)}
        self.aliases = {name: unused(f"{name}_", names | set(HOME)) for name in sorted(hidden)}

    def source(self, head: Expression, text: str, left_out: Sequence[str]) -> str:
        """The class: its head, docstring, what was left out, and the methods."""
        self._types.use("Contract")
        lines = [laid("class ", head, ":", ""), *docstring(text, INDENT)]
        for reason in left_out:
            lines += ["", *comment(reason, INDENT)]
        for method in self._methods:
            lines += ["", *self._method(method)]
        return "\n".join(lines)

    def _method(self, method: Method) -> list[str]:
        lines = [line for note in method.notes for line in comment(note, INDENT)]
        self._types.use(" ".join(_words(method)))
        verb = self.aliases.get(method.verb, method.verb)
        route = [quoted(method.route)] if method.route is not None else []
        call = Bracketed(f"{verb}(", (*route, *method.options))
        lines.append(laid("@", call, "", INDENT) if call.items else f"{INDENT}@{verb}")
        # What has a default follows what has none.
        arguments = sorted(method.arguments, key=lambda argument: argument.default is not None)
        types = [self._seen(_annotation(argument)) for argument in arguments]
        doc = docstring(method.doc, INDENT * 2)
        result = self._seen(method.result)
        end = f") -> {flat(result)}:{'' if doc else ' ...'}"
        said = [
            f"{argument.name}: {flat(type)}" + (f" = {flat(argument.default)}" if argument.default is not None else "")
            for argument, type in zip(arguments, types, strict=True)
        ]
        begin = f"{INDENT}async def {method.name}("
        line = begin + ", ".join(["self", *said]) + end
        if len(line) <= WIDTH:
            return [*lines, line, *doc]
        lines += [begin, f"{INDENT * 2}self,"]
        for argument, type in zip(arguments, types, strict=True):
            lines.append(parameter(argument.name, type, argument.default, INDENT * 2))
        return [*lines, laid(") -> ", result, ":" if doc else ": ...", INDENT), *doc]

    def _seen(self, expression: Expression) -> Expression:
        """The expression with the module's names for what the class hides."""
        if isinstance(expression, Bracketed):
            name, bracket = expression.head[:-1], expression.head[-1]
            return Bracketed(self.aliases.get(name, name) + bracket, tuple(map(self._seen, expression.items)))
        if isinstance(expression, Either):
            return Either(tuple(map(self._seen, expression.members)))
        return self.aliases.get(expression, expression)


def _annotation(argument: Argument) -> Expression:
    if argument.marker is None:
        return argument.type
    return Bracketed("Annotated[", (argument.type, argument.marker))


def _words(method: Method) -> Iterator[str]:
    """The names its lines use."""
    yield method.verb
    yield from words_of(method.result)
    for argument in method.arguments:
        yield from words_of(_annotation(argument))
        yield from words_of(argument.default)


def _as_isort(name: str) -> tuple[int, str]:
    """Constants, classes, functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)
