"""Draws a house as an SVG image from its number: what stands in for a photograph. A pure function, no assets.

The picture is made of a sky, a row of roofs behind, the house with a window for each room one can see, and a tree.
Everything is chosen by a generator seeded with the hotel's number, so it is the same on every machine.
"""

from __future__ import annotations

from html import escape
from random import Random

WIDTH, HEIGHT = 480, 300  # of the drawing; it scales
GROUND = 262

# sky above, sky below, roofs behind, ground
_SKIES = [
    ("#f9d7a0", "#fdf1dc", "#d9a77c", "#b98b64"),
    ("#9cc9e8", "#e6f3fa", "#a9bccb", "#8fa58a"),
    ("#f4b6a6", "#fde8df", "#c98f8f", "#a58474"),
    ("#b7dcd2", "#f1faf5", "#93b5a8", "#7f9d86"),
    ("#33406b", "#8d7ba5", "#2a3153", "#262b45"),  # at night, when windows are lit
]
_WALLS = ["#e9c9a1", "#d98c70", "#f3e6cf", "#c5d3cf", "#e3b7b0", "#b9c7dd", "#efd58f", "#cf9d84"]
_ROOFS = ["#8c4a3c", "#5e6b75", "#74533f", "#3f5860", "#94604a"]
_DOORS = ["#2f5d50", "#7a2f2f", "#2d4b73", "#5b3b26", "#b0812f"]


def draw(number: int, stars: int, name: str) -> str:
    """The SVG of the hotel `number`; more `stars` make a larger house."""
    random = Random(number)
    above, below, behind, ground = sky = random.choice(_SKIES)
    lit = sky is _SKIES[-1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        f' aria-label="{escape(name)}" preserveAspectRatio="xMidYMid slice">',
        f'<defs><linearGradient id="sky-{number}" x2="0" y2="1"><stop stop-color="{above}"/>',
        f'<stop offset="1" stop-color="{below}"/></linearGradient></defs>',
        _box(0, 0, WIDTH, HEIGHT, f"url(#sky-{number})"),
        _sun(random, lit),
        *_skyline(random, behind),
        _box(0, GROUND, WIDTH, HEIGHT - GROUND, ground),
        *_house(random, stars, lit),
        *_tree(random),
        "</svg>",
    ]
    return "".join(parts)


def _sun(random: Random, lit: bool) -> str:
    x, y = random.randint(40, WIDTH - 40), random.randint(34, 80)
    return f'<circle cx="{x}" cy="{y}" r="{18 if lit else 26}" fill="{"#f5f0dc" if lit else "#fff4cf"}"/>'


def _skyline(random: Random, colour: str) -> list[str]:
    parts, x = [], -10
    while x < WIDTH:
        width, height = random.randint(36, 80), random.randint(50, 120)
        parts.append(_box(x, GROUND - height, width, height, colour, 0.55))
        if random.random() < 0.5:
            parts.append(_gable(x, GROUND - height, width, random.randint(14, 34), colour, 0.55))
        x += width - 4
    return parts


def _house(random: Random, stars: int, lit: bool) -> list[str]:
    floors, bays = 2 + (stars + 1) // 2, random.choice([3, 5]) + (2 if stars > 3 else 0)
    bay, floor = 34, 38
    width, height = bays * bay + 16, floors * floor + 14
    x, y = (WIDTH - width) // 2 + random.randint(-30, 30), GROUND - height
    roof = random.choice(_ROOFS)
    parts = [_box(x, y, width, height, random.choice(_WALLS))]
    shape = random.choice(["gable", "mansard", "flat"])
    if shape == "gable":
        parts.append(_gable(x - 8, y, width + 16, random.randint(28, 46), roof))
    elif shape == "mansard":
        parts.append(f'<path d="M{x - 6} {y}l16 -30h{width - 20}l16 30z" fill="{roof}"/>')
    else:
        parts.append(_box(x - 6, y - 8, width + 12, 10, roof))
    shutters = random.choice([None, *_DOORS])
    for row in range(floors):
        for column in range(bays):
            left, top = x + 8 + column * bay + 8, y + 14 + row * floor
            if row == floors - 1 and column == bays // 2:
                parts.append(_box(left - 3, GROUND - 32, 24, 32, random.choice(_DOORS)))
                continue
            glass = "#ffd98a" if lit and random.random() < 0.6 else "#39485c" if lit else "#6f8ba3"
            parts.append(_box(left, top, 18, 22, glass))
            parts.append(_box(left, top + 10, 18, 2, "#fffaf0", 0.8))
            if shutters:
                parts += [_box(left - 5, top, 4, 22, shutters), _box(left + 19, top, 4, 22, shutters)]
    parts.append(_box(x + width // 2 - 34, GROUND - 46, 68, 8, random.choice(["#ffffff", "#b83b3b", "#2f6f5e"])))
    return parts


def _tree(random: Random) -> list[str]:
    x, size = random.choice([random.randint(24, 80), random.randint(WIDTH - 80, WIDTH - 24)]), random.randint(24, 38)
    green = random.choice(["#4f7a4c", "#6c8f3f", "#3e6b57", "#8a9a4b"])
    return [
        _box(x - 3, GROUND - size * 2, 6, size * 2 + 6, "#6b4a34"),
        f'<ellipse cx="{x}" cy="{GROUND - size * 2}" rx="{size}" ry="{int(size * 1.3)}" fill="{green}"/>',
    ]


def _box(x: int, y: int, width: int, height: int, colour: str, opacity: float = 1) -> str:
    seen = "" if opacity == 1 else f' opacity="{opacity}"'
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"{seen}/>'


def _gable(x: int, y: int, width: int, height: int, colour: str, opacity: float = 1) -> str:
    seen = "" if opacity == 1 else f' opacity="{opacity}"'
    return f'<path d="M{x} {y}l{width / 2:g} -{height}l{width / 2:g} {height}z" fill="{colour}"{seen}/>'
