"""The picture: a panel for each claim, a bar for each peer, the quickest on top, and the ceiling as a line."""

from __future__ import annotations

from typing import Any

from .peers import CLAIMS, TITLES
from .processes import Figure
from .rounds import Results
from .tables import median
from .work import WRONG_BOOKINGS

OURS, OTHERS, LINE = "#b5541c", "#8b98a5", "#333333"


def draw(said: dict[str, Any], results: Results, file: str) -> None:
    """Write it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    claims = list(results.figures)
    rows = [len(results.figures[claim]) + 2 for claim in claims]
    figure, panels = pyplot.subplots(
        len(claims), 1, figsize=(11, 0.32 * sum(rows) + 1.2), height_ratios=rows, squeeze=False, layout="constrained"
    )
    for claim, panel in zip(claims, panels[:, 0], strict=True):
        _panel(panel, claim, results)
    figure.suptitle(
        f"A second, by one process on one core; medians, least and most of {said['rounds']} rounds of "
        f"{said['seconds']} s, {said['connections']} connections\nPython {said['python']}, {said['processor']}",
        fontsize=10,
    )
    figure.savefig(file, dpi=130)


def _panel(panel: Any, claim: str, results: Results) -> None:
    peers = dict(results.figures[claim])
    ceiling = peers.pop("ceiling", None)
    about = {peer.name: peer.about for peer in CLAIMS[claim]}
    shown = sorted(peers.items(), key=lambda item: median(item[1]))
    middles = [median(figures) for _, figures in shown]
    limit = max([*middles, median(ceiling) if ceiling else 0])
    panel.barh(
        range(len(shown)),
        middles,
        color=[OURS if name == "ropewalk" else OTHERS for name, _ in shown],
        xerr=[
            [middle - _least(figures) for middle, (_, figures) in zip(middles, shown, strict=True)],
            [_most(figures) - middle for middle, (_, figures) in zip(middles, shown, strict=True)],
        ],
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": LINE},
    )
    for row, (name, figures) in enumerate(shown):
        text = f"{middles[row]:,.0f}"
        if ceiling:
            text += f" = {middles[row] / median(ceiling):.1%}"
        text += f"   {about[name]}"
        if claim == "post" and results.refused[name] < len(WRONG_BOOKINGS):
            text += f" (refuses {results.refused[name]} of {len(WRONG_BOOKINGS)} wrong bodies)"
        panel.text(_most(figures) + 0.012 * limit, row, text, va="center", fontsize=8)
    title = TITLES[claim]
    if ceiling:
        panel.axvline(median(ceiling), color=LINE, linestyle="--", linewidth=1)
        title += f"; the line is the ceiling, {median(ceiling):,.0f}: {about['ceiling']}"
    panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
    panel.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=9)
    panel.set_xlim(0, limit * 1.03)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _least(figures: list[Figure]) -> float:
    return min(each.per_second for each in figures)


def _most(figures: list[Figure]) -> float:
    return max(each.per_second for each in figures)
