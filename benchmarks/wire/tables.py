"""What is shown as text, and as JSON."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .peers import CLAIMS, TITLES, Peer, versions
from .processes import Cores, Figure
from .rounds import Results
from .work import CONNECTIONS, WRONG_BOOKINGS

ENOUGH = 0.9  # of its core; whoever had less was not the limit, or others ran there
BASES = ("ceiling", "ropewalk")


def median(figures: Sequence[Figure]) -> float:
    """A second."""
    return statistics.median(each.per_second for each in figures)


def conditions(rounds: int, seconds: int, cores: Cores, plan: dict[str, list[Peer]]) -> dict[str, Any]:
    """Under which it was measured."""
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": cores._asdict(),
        "rounds": rounds,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "versions": versions(peer for peers in plan.values() for peer in peers),
    }


def as_json(said: dict[str, Any], results: Results, left_out: list[str]) -> dict[str, Any]:
    """All of it."""
    claims = {
        claim: {
            name: {"per_second": [each.per_second for each in figures], "busy": [each.busy for each in figures]}
            for name, figures in peers.items()
        }
        for claim, peers in results.figures.items()
    }
    return {**said, "claims": claims, "refused": results.refused, "left_out": left_out}


def as_text(said: dict[str, Any], results: Results, left_out: list[str]) -> str:
    """A table for each claim."""
    placed = ", ".join(f"{role} on core {core}" for role, core in said["cores"].items())
    lines = [
        f"Python {said['python']}, {said['processor']}; {placed}",
        f"medians of {said['rounds']} rounds of {said['seconds']} s, {said['connections']} connections",
        *_folded([f"{name} {version}" for name, version in said["versions"].items()]),
        *left_out,
    ]
    for claim in results.figures:
        lines += ["", *_table(claim, results)]
    return "\n".join(lines)


def _table(claim: str, results: Results) -> list[str]:
    peers = results.figures[claim]
    bases = {base: median(peers[base]) if base in peers else None for base in BASES}
    about = {peer.name: peer.about for peer in CLAIMS[claim]}
    refused = f"{'refused':>9}" if claim == "post" else ""
    lines = [
        TITLES[claim],
        f"{'':<19}{'a second':>9}{'least':>9}{'most':>9}{'of ceiling':>12}{'of ropewalk':>13}{'busy':>7}{refused}",
    ]
    starved = False
    for name, figures in peers.items():
        rates, middle = [each.per_second for each in figures], median(figures)
        busy = statistics.median(each.busy for each in figures)
        starved |= busy < ENOUGH
        ratios = [f"{middle / base:.3f}" if base else "-" for base in bases.values()]
        line = f"{name:<19}{middle:>9,.0f}{min(rates):>9,.0f}{max(rates):>9,.0f}{ratios[0]:>12}{ratios[1]:>13}"
        line += f"{busy:>6.0%}{'*' if busy < ENOUGH else ' '}"
        if claim == "post":
            line += f"{f'{results.refused[name]} of {len(WRONG_BOOKINGS)}':>9}"
        lines.append(f"{line}  {about[name]}")
    if starved:
        lines.append(f"* less than {ENOUGH:.0%} of its core: it was kept waiting, or something else ran on that core")
    if claim == "post":
        lines.append("refused: how many of some wrong bodies are answered with 4xx; 0 is JSON parsed and not validated")
    return lines


def _folded(words: list[str], width: int = 110) -> list[str]:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f", {word}" if lines[-1] else word
    return lines


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
