"""The picture: a panel for each claim, a bar for each peer, the quickest on top, and the ceiling as a line.

The axes are linear and begin at 0, so that a bar twice as long is twice as quick.
"""

from __future__ import annotations

from typing import Any

from .peers import CLAIMS, TITLES
from .processes import Figure
from .rounds import Results
from .tables import median
from .work import WRONG_BOOKINGS

OURS, OTHERS, UNCHECKED, LINE = "#b5541c", "#7f8d9b", "#c9d1d9", "#333333"
ROW = 0.28  # inches


def draw(said: dict[str, Any], results: Results, file: str) -> None:
    """Write it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    claims = list(results.figures)
    heights = [len(results.figures[claim]) + 2 for claim in claims]  # in rows, with the title and the axis
    figure, panels = pyplot.subplots(
        len(claims),
        1,
        figsize=(11, ROW * sum(heights) + 1.0),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for claim, panel in zip(claims, panels[:, 0], strict=True):
        _panel(panel, claim, results)
    figure.suptitle(
        f"How many a second, by one process on one core: medians, least and most of {said['rounds']} rounds of "
        f"{said['seconds']} s, over {said['connections']} connections\nPython {said['python']}, {said['processor']}",
        fontsize=10,
    )
    figure.savefig(file, dpi=130)


def _panel(panel: Any, claim: str, results: Results) -> None:
    peers = dict(results.figures[claim])
    ceiling = median(peers.pop("ceiling")) if "ceiling" in peers else None
    shown = sorted(peers.items(), key=lambda item: median(item[1]))
    about = {peer.name: peer.about for peer in CLAIMS[claim]}
    furthest = max([most(figures) for _, figures in shown] or [0])
    width = max((ceiling or 0) * 1.02, furthest * 2)  # half of it is for what stands beside the longest bar
    unchecked = False
    for row, (name, figures) in enumerate(shown):
        middle, text = median(figures), about[name]
        colour = OURS if name == "ropewalk" else OTHERS
        if claim == "post" and results.refused[name] == 0:
            colour, unchecked = UNCHECKED, True
        elif claim == "post" and results.refused[name] < len(WRONG_BOOKINGS):
            text += f", refuses {results.refused[name]} of {len(WRONG_BOOKINGS)} wrong bodies"
        share = f" ({middle / ceiling:.1%})" if ceiling else ""
        spread = [[middle - least(figures)], [most(figures) - middle]]
        panel.barh(row, middle, color=colour, xerr=spread, error_kw={"elinewidth": 1, "capsize": 2, "ecolor": LINE})
        panel.text(
            most(figures) + 0.01 * width, row, f"{middle:,.0f}{share}  {text}", va="center", fontsize=8, color=LINE
        )
    if ceiling:
        panel.axvline(ceiling, color=LINE, linestyle="--", linewidth=1)
        what = f"the ceiling: {ceiling:,.0f}\n{about['ceiling']}"
        panel.annotate(
            what,
            (ceiling, 0),
            (-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=LINE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    title = TITLES[claim] + ("; pale: the body is parsed, and not validated" if unchecked else "")
    panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
    panel.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=9)
    panel.set_ylim(-0.6, len(shown) - 0.4)
    panel.set_xlim(0, width)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.tick_params(axis="x", labelsize=8)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right"]].set_visible(False)


def least(figures: list[Figure]) -> float:
    """A second."""
    return min(each.per_second for each in figures)


def most(figures: list[Figure]) -> float:
    """A second."""
    return max(each.per_second for each in figures)
