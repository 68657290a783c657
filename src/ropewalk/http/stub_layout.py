"""Python source laid out as a formatter leaves it: what fits stays on a line, what does not has a line for each part.

The width is 120 columns. What a formatter could not split either (a long text) stays as long as it is.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TypeAlias

from msgspec import Struct

WIDTH = 120
INDENT = " " * 4


class Bracketed(Struct, frozen=True):
    """`head[a, b]`, `head(a, b)`: split after the head when it is too long."""

    head: str  # with its opening bracket
    items: tuple[Expression, ...]

    @property
    def close(self) -> str:
        """The bracket that closes it."""
        return {"(": ")", "[": "]", "{": "}"}[self.head[-1]]


class Either(Struct, frozen=True):
    """`a | b`: a line for each when it is too long."""

    members: tuple[Expression, ...]


Expression: TypeAlias = str | Bracketed | Either


def flat(expression: Expression) -> str:
    """On one line.

    >>> flat(Either((Bracketed("list[", ("int",)), "None")))
    'list[int] | None'
    """
    if isinstance(expression, Bracketed):
        return expression.head + ", ".join(map(flat, expression.items)) + expression.close
    if isinstance(expression, Either):
        return " | ".join(map(flat, expression.members))
    return expression


def laid(before: str, expression: Expression, after: str, indent: str) -> str:
    """`before`, the expression and `after`, from `indent` on; on several lines when one is not enough."""
    line = before + flat(expression) + after
    if isinstance(expression, str) or len(indent + line) <= WIDTH:
        return indent + line
    inner = indent + INDENT
    if isinstance(expression, Either):
        alone = inner + flat(expression)
        return f"{indent}{before}(\n{alone if len(alone) <= WIDTH else _members(expression, inner)}\n{indent}){after}"
    # A comma after the only item of a subscript would make it a tuple.
    comma = "," if len(expression.items) > 1 or expression.close != "]" else ""
    items = "\n".join(_item(item, comma, inner) for item in expression.items)
    return f"{indent}{before}{expression.head}\n{items}\n{indent}{expression.close}{after}"


def assigned(name: str, type: Expression, default: Expression | None, indent: str) -> str:
    """`name: type = default`: the default is moved to a line of its own when that is enough."""
    if default is None:
        return laid(f"{name}: ", type, "", indent)
    line = f"{indent}{name}: {flat(type)} = "
    if len(line + flat(default)) > WIDTH and len(line) < WIDTH:
        if isinstance(default, Bracketed) and default.items and len(line + default.head) <= WIDTH:
            items = indent + INDENT + ", ".join(map(flat, default.items))
            if len(items) <= WIDTH:
                return f"{line}{default.head}\n{items}\n{indent}{default.close}"
            return laid(line.removeprefix(indent), default, "", indent)
        return f"{line}(\n{indent}{INDENT}{flat(default)}\n{indent})"
    return laid(f"{name}: ", type, f" = {flat(default)}", indent)


def parameter(name: str, type: Expression, default: Expression | None, indent: str) -> str:
    """`name: type = default,` on a line of its own."""
    after = "," if default is None else f" = {flat(default)},"
    if isinstance(type, Either) and len(f"{indent}{name}: {flat(type)}{after}") > WIDTH:
        return _members(type, indent, f"{name}: ") + after
    return laid(f"{name}: ", type, after, indent)


def _item(item: Expression, comma: str, indent: str) -> str:
    """Within brackets a union needs none of its own."""
    if isinstance(item, Either) and len(indent + flat(item) + comma) > WIDTH:
        return _members(item, indent) + comma
    return laid("", item, comma, indent)


def _members(expression: Either, indent: str, before: str = "") -> str:
    first, *others = expression.members
    return "\n".join([laid(before, first, "", indent), *(laid("| ", other, "", indent) for other in others)])


def docstring(text: str, indent: str) -> list[str]:
    """The lines of a docstring; none for no text."""
    lines = [line.rstrip() for line in text.strip().expandtabs(4).splitlines()]
    if not lines:
        return []
    lines = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in lines]
    if lines[-1].endswith('"'):
        lines[-1] = lines[-1][:-1] + '\\"'
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(indent + line if line else "" for line in lines[1:]), f'{indent}"""']


def comment(text: str, indent: str) -> list[str]:
    """The lines of a comment."""
    return wrap(" ".join(text.split()), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def quoted(text: str) -> str:
    """A literal of `text`, in double quotes unless it has some itself.

    >>> quoted("room"), quoted('"room"'), quoted("a\\n")
    ('"room"', '\\'"room"\\'', '"a\\\\n"')
    """
    literal = json.dumps(text, ensure_ascii=not text.isprintable())
    if '"' in text and "'" not in text:
        literal = "'" + literal[1:-1].replace('\\"', '"') + "'"
    # JSON writes what is beyond 16 bits as two surrogates; Python would take them for two characters.
    return literal if not re.search(r"\\ud[89ab]", literal) else ascii(text)


def snake(text: str) -> str:
    """A name for a function or parameter: "readItem", "item-id" -> "read_item", "item_id"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return identifier(re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_").lower() or "value")


def camel(text: str) -> str:
    """A name for a class: "booking-ui" -> "BookingUi"; what is one already stays."""
    if text.isidentifier() and text.isascii() and not text[0].islower():
        return identifier(text)
    words = re.split(r"[\W_]+", text, flags=re.ASCII)
    return identifier("".join(word[:1].upper() + word[1:] for word in words if word) or "Value")


def identifier(text: str) -> str:
    """`text`, made a Python name if it is none."""
    text = re.sub(r"\W", "_", text, flags=re.ASCII) or "value"
    if text[:1].isdigit():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def unused(name: str, taken: Iterable[str], spellings: Sequence[str] = ("{}_",)) -> str:
    """`name`, or, when it is taken, another spelling of it, at last with a number."""
    taken = set(taken)
    for spelling in ("{}", *spellings):
        if spelling.format(name) not in taken:
            return spelling.format(name)
    return next(each for n in range(2, len(taken) + 3) if (each := f"{name}{n}") not in taken)
