"""A route in Werkzeug's syntax, "/rooms/<int:room_id>": its placeholders, and the text of a value in each.

>>> route = Route("/rooms/<int:room_id>")
>>> route.text("room_id", 7)
'7'
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

PLACEHOLDER = re.compile(r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\((?P<options>.*?)\))?:)?(?P<name>[a-zA-Z_]\w*)>")


def names(route: str) -> list[str]:
    """Of its placeholders, in order."""
    return [match["name"] for match in PLACEHOLDER.finditer(route)]


def shape(route: str) -> str:
    """The route without those names: two of one shape match the same paths."""
    return PLACEHOLDER.sub(lambda match: f"<{match['converter'] or 'string'}({match['options'] or ''})>", route)


class Route:
    """A route, checked and compiled."""

    def __init__(self, route: str) -> None:
        """Raises ValueError for a route that Werkzeug cannot read."""
        # Late: it takes as long to import as all the rest of the vocabulary, and no program of callers alone needs it.
        from werkzeug.routing import BaseConverter, Map, Rule
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

    def __str__(self) -> str:
        return self._route

    def text(self, name: str, value: Any) -> str:
        """`value` (text; a number or a UUID where the converter makes one) as the placeholder `name` has it.

        Raises ValueError for what it does not match.
        """
        converter = self._converters[name]
        text = value if type(converter).to_url is self._as_it_is else unquote(converter.to_url(value))
        if not self._fits[name](text):
            raise ValueError(f"{text!r} does not match {converter.regex}")
        self.value(name, text)
        return text

    def value(self, name: str, text: str) -> Any:
        """What the converter of the placeholder `name` makes of a text; ValueError for what it does not match."""
        return self._converters[name].to_python(text)
