"""A Werkzeug URL map, compiled: which rule a method and a path mean, where that is beyond doubt.

Werkzeug says what is right: redirects for slashes, 405, which of two rules comes first. Here only the plain case is
answered, by a lookup and few regular expressions: one rule fits, its method too, and nothing of the path is encoded.
For everything else `find` says None, and Werkzeug is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from werkzeug.routing import Map, Rule, ValidationError

# Printable ASCII but "%", "?", "#", quotes and brackets: what Werkzeug sees as it stands. "//" it would merge.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?|/")

_PLACEHOLDER = re.compile(r"<(?:[^<>]*:)?([A-Za-z_]\w*)>")

Values = dict[str, Any]


class Router:
    """Of one map, which must not change any more.

    With or without a slash at its end, a path is claimed by the rules of either form: that may mean a redirect.
    """

    def __init__(self, url_map: Map) -> None:
        rules = [rule for rule in url_map.iter_rules() if not rule.build_only]
        self._fixed: dict[str, list[Rule]] = {}  # by the path
        self._shaped: dict[int, list[tuple[re.Pattern[str], Rule]]] = {}  # by how many slashes it has
        self._loose: list[tuple[re.Pattern[str], Rule]] = []  # whose values may have slashes
        self._usable = not url_map.host_matching and all(map(_is_plain, rules))
        for rule in rules if self._usable else ():
            path = _stem(rule.rule)
            if not rule._converters:
                self._fixed.setdefault(path, []).append(rule)
                continue
            pattern = re.compile(_pattern(path, rule._converters))
            if all(converter.part_isolating for converter in rule._converters.values()):
                self._shaped.setdefault(path.count("/"), []).append((pattern, rule))
            else:
                self._loose.append((pattern, rule))

    def find(self, method: bytes, target: bytes) -> tuple[Any, Values] | None:
        """The endpoint and the values of the path; None when Werkzeug has to be asked."""
        raw, _, _ = target.partition(b"?")
        if not self._usable or not _PLAIN.fullmatch(raw):
            return None
        path = raw.decode("ascii")
        stem = _stem(path)
        fixed = self._fixed.get(stem)
        match: re.Match[str] | None = None
        if fixed is not None:
            claims = [(rule, match) for rule in fixed]
        else:
            claims = [
                (rule, match)
                for pattern, rule in self._shaped.get(stem.count("/"), ())
                if (match := pattern.fullmatch(stem))
            ]
            claims += [(rule, match) for pattern, rule in self._loose if (match := pattern.fullmatch(path))]
        if len(claims) != 1:
            return None
        rule, match = claims[0]
        slashed = path.endswith("/")
        if (
            rule.defaults
            or rule.rule.endswith("/") != slashed
            or (slashed and match is not None and match.string is path)
        ):
            return None
        if rule.methods is not None and method.decode("ascii") not in rule.methods:
            return None
        if match is None:
            return rule.endpoint, {}
        converters = rule._converters
        try:
            return rule.endpoint, {name: converters[name].to_python(text) for name, text in match.groupdict().items()}
        except ValidationError:
            return None


def _stem(path: str) -> str:
    return path.removesuffix("/")


def _is_plain(rule: Rule) -> bool:
    special = rule.redirect_to or rule.websocket or rule.alias or rule.subdomain or rule.host
    left = _PLACEHOLDER.sub("", rule.rule)  # a converter's own arguments may have angles in quotes
    return not special and "<" not in left and ">" not in left


def _pattern(rule: str, converters: Mapping[str, Any]) -> str:
    parts: list[str] = []
    at = 0
    for match in _PLACEHOLDER.finditer(rule):
        parts += (re.escape(rule[at : match.start()]), f"(?P<{match[1]}>{converters[match[1]].regex})")
        at = match.end()
    return "".join(parts) + re.escape(rule[at:])
