"""A route in Werkzeug's syntax, "/rooms/<int:room_id>": its placeholders, and the text of a value in each.

>>> route = Route("/rooms/<int:room_id>")
>>> route.text("room_id", "7")
'7'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

PLACEHOLDER = re.compile(r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\((?P<options>.*?)\))?:)?(?P<name>[a-zA-Z_]\w*)>")


def names(route: str) -> list[str]:
    """Of its placeholders, in order."""
    return [match["name"] for match in PLACEHOLDER.finditer(route)]


def shape(route: str) -> str:
    """The route without those names: two of one shape match the same paths."""
    return PLACEHOLDER.sub(lambda match: f"<{match['converter'] or 'string'}({match['options'] or ''})>", route)


# What stays as it is, beside letters and digits, in a segment and in what may have several.
_SAFE = "!$&'()*+,;:=@", "/!$&'()*+,:;=@"


_WHOLE = re.compile("0|[1-9][0-9]*").fullmatch


class _Place(NamedTuple):
    """Where a value goes."""

    name: str
    safe: str

    def of(self, path: Mapping[str, str]) -> str:
        """What stands there."""
        text = path[self.name]
        return text if text.isascii() and text.isalnum() else quote(text, safe=self.safe)


class Route:
    """A route, checked and compiled."""

    def __init__(self, route: str) -> None:
        """Raises ValueError for a route that Werkzeug cannot read."""
        # Late: it takes as long to import as all the rest of the vocabulary, and no program of callers alone needs it.
        from werkzeug.routing import BaseConverter, IntegerConverter, Map, Rule
        from werkzeug.routing.rules import parse_converter_args

        try:
            rule = Rule(route, endpoint="")
            Map([rule])
            self._converters = {
                match["name"]: rule.get_converter(
                    match["name"], match["converter"] or "default", *parse_converter_args(match["options"] or "")
                )
                for match in PLACEHOLDER.finditer(route)
            }
        except (LookupError, SyntaxError, TypeError, ValueError) as error:
            raise ValueError(str(error)) from error
        self._fits = {name: re.compile(each.regex).fullmatch for name, each in self._converters.items()}
        # What is left of a slip of the pen: "/rooms/room_id>" would be taken by the letter.
        if not route.startswith("/") or re.search("[<>?#]", PLACEHOLDER.sub("", route)):
            raise ValueError(f"malformed url rule: {route!r}")
        self._route = route
        self._as_it_is = BaseConverter.to_url
        self._whole_numbers = {
            name
            for name, each in self._converters.items()
            if type(each) is IntegerConverter and not each.fixed_digits and each.min is each.max is None
        }
        self._pieces: list[str | _Place] = []  # literal text, and what is to be filled in
        at = 0
        for match in PLACEHOLDER.finditer(route):
            self._pieces += (
                quote(route[at : match.start()], _SAFE[True]),
                _Place(match["name"], _SAFE[match["converter"] == "path"]),
            )
            at = match.end()
        self._pieces.append(quote(route[at:], _SAFE[True]))

    def __str__(self) -> str:
        return self._route

    def fill(self, path: Mapping[str, str]) -> str:
        """The path of these texts, quoted as Werkzeug's converters do."""
        return "".join([each if type(each) is str else each.of(path) for each in self._pieces])  # type: ignore[union-attr]

    def text(self, name: str, value: str) -> str:
        """`value`, the text of it, as the placeholder `name` has it.

        Raises ValueError for what it does not match.
        """
        if name in self._whole_numbers and _WHOLE(value):
            return value
        converter = self._converters[name]
        text = value if type(converter).to_url is self._as_it_is else unquote(converter.to_url(value))
        if not self._fits[name](text):
            raise ValueError(f"{text!r} does not match {converter.regex}")
        self.value(name, text)
        return text

    def value(self, name: str, text: str) -> Any:
        """What the converter of the placeholder `name` makes of a text; ValueError for what it does not match."""
        return self._converters[name].to_python(text)
