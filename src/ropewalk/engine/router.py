"""A Werkzeug URL map, compiled: which rule a method and a path mean, where that is beyond doubt.

Werkzeug says what is right: redirects for slashes, 405, which of two rules comes first. Here only the plain case is
answered, by a lookup and few regular expressions: one rule fits, its method too, and nothing of the path is encoded.
For everything else `find` says None, and Werkzeug is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from werkzeug.routing import (
    AnyConverter,
    BaseConverter,
    IntegerConverter,
    Map,
    PathConverter,
    Rule,
    UnicodeConverter,
    ValidationError,
)

# Printable ASCII but "%", "?", "#", quotes and brackets: what Werkzeug sees as it stands.
_PLAIN = b"/ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~!$&'()*+,;=:@-"

_PLACEHOLDER = re.compile(r"<(?:[^<>]*:)?([A-Za-z_]\w*)>")

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a rule claims."""

    endpoint: Any
    methods: frozenset[bytes] | None
    slashed: bool  # its path ends with a slash
    sure: bool  # nothing of it is for Werkzeug to decide
    match: Callable[[str], re.Match[str] | None] | None  # None: one path alone
    values: tuple[tuple[str, Callable[[str], Any]], ...]  # name -> what the converter makes of the text


class Router:
    """Of one map, which must not change any more.

    With or without a slash at its end, a path is claimed by the rules of either form: that may mean a redirect.
    """

    def __init__(self, url_map: Map) -> None:
        rules = [rule for rule in url_map.iter_rules() if not rule.build_only]
        self._fixed: dict[str, list[_Claim]] = {}  # by the path
        self._shaped: dict[int, list[_Claim]] = {}  # by how many slashes it has
        self._loose: list[_Claim] = []  # whose values may have slashes
        for rule in rules if not url_map.host_matching and all(map(_is_plain, rules)) else ():
            path, claim = _stem(rule.rule), _claim(rule)
            if claim.match is None:
                self._fixed.setdefault(path, []).append(claim)
            elif all(converter.part_isolating for converter in rule._converters.values()):
                self._shaped.setdefault(path.count("/"), []).append(claim)
            else:
                self._loose.append(claim)

    def find(self, method: bytes, target: bytes) -> tuple[Any, Values] | None:
        """The endpoint and the values of the path; None when Werkzeug has to be asked."""
        raw, _, _ = target.partition(b"?")
        if raw.translate(None, _PLAIN) or raw[:1] != b"/" or b"//" in raw:  # two slashes Werkzeug would merge
            return None
        path = raw.decode("ascii")
        slashed = path[-1] == "/"
        stem = path[:-1] if slashed else path
        claims = self._fixed.get(stem)
        match: re.Match[str] | None = None
        if claims is not None:
            if len(claims) != 1:
                return None
            claim = claims[0]
        else:
            found: _Claim | None = None
            for each in self._shaped.get(stem.count("/"), ()):
                matched = each.match(stem)  # type: ignore[misc]  # it has one
                if matched is not None:
                    if found is not None:
                        return None
                    found, match = each, matched
            for each in self._loose:
                matched = each.match(path)  # type: ignore[misc]  # likewise
                if matched is not None:
                    if found is not None or slashed:
                        return None
                    found, match = each, matched
            if found is None:
                return None
            claim = found
        if not claim.sure or claim.slashed != slashed or (claim.methods is not None and method not in claim.methods):
            return None
        values: Values = {}
        if match is not None:
            try:
                for name, convert in claim.values:
                    values[name] = convert(match[name])
            except ValidationError:
                return None
        return claim.endpoint, values


def _claim(rule: Rule) -> _Claim:
    converters = rule._converters
    return _Claim(
        rule.endpoint,
        frozenset(method.encode() for method in rule.methods) if rule.methods is not None else None,
        rule.rule.endswith("/"),
        not rule.defaults,
        re.compile(_pattern(_stem(rule.rule), converters)).fullmatch if converters else None,
        tuple((name, _conversion(converter)) for name, converter in converters.items()),
    )


def _conversion(converter: BaseConverter) -> Callable[[str], Any]:
    """What the converter does, in fewer steps where it is one of Werkzeug's that has no bounds to look at."""
    if type(converter) in (UnicodeConverter, PathConverter, AnyConverter):
        return str
    if type(converter) is IntegerConverter and not converter.fixed_digits and converter.min is converter.max is None:
        return int
    return converter.to_python


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
