"""How many requests a core answers, how many calls it makes, and both at once, beside others on the same work.

Four claims, each by one process on one core; what asks it, or what it asks, is on another core:

    get       a GET with a path parameter and a reply in JSON, asked by wrk over 32 connections
    post      a POST with a nested body in JSON, validated as the framework does it, and answered with JSON of it
    call      the GET of `get`, asked of a canned reply, 32 calls under way
    gateway   the GET of `get`, of a server that asks a canned reply for each by its own client

The ceiling is uvloop and httptools without a framework: what is on them cannot pass it. Ropewalk is an operation of
`twistd ropewalk`, with all that it has by default: validation, trace, metrics, deadline, limits, a line of the log for
each request (which goes to /dev/null). The others are set up as their documentation advises for one process:
production mode, no access log, uvloop where they take it. `peers.py` has the list; benchmarks/requirements.txt what to
install, in the versions that were compared. Whoever is not installed is left out, and a line says so.

Everybody is measured once in a round. Before that each is asked once, and must answer rightly; an answer that is not
2xx ends the run. Servers that are not measured stand still meanwhile. `busy` is the share of its core that whoever was
measured used: one well below 100 % was kept waiting, or shared its core with something that is not of the benchmark.

Does not measure TLS, large bodies, slow or many connections, several processes, latency, or what an operation does.
Needs Linux, wrk and taskset; two cores, better three, and nobody else on them. Takes some ten minutes. In the checkout:

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.wire [--rounds 5] [--seconds 3] [--claims get post call gateway] [--only NAME...]
                              [--json] [--plot FILE.png] [--cores MEASURED LOAD [UPSTREAM]]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys

from .peers import CLAIMS, version_of
from .processes import Cores
from .rounds import measured, planned
from .tables import as_json, as_text, conditions


def main() -> None:
    """Measure, and show it."""
    names = sorted({peer.name for peers in CLAIMS.values() for peer in peers})
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.wire", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=3, help="of each measurement; whole ones, as wrk takes them")
    options.add_argument("--claims", nargs="+", choices=CLAIMS, default=list(CLAIMS), metavar="CLAIM")
    options.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME", help=f"of {', '.join(names)}")
    options.add_argument("--json", action="store_true", help="instead of the tables")
    options.add_argument("--plot", metavar="FILE.png", help="a picture beside them")
    options.add_argument("--cores", nargs="+", type=int, metavar="CORE", help="for whom is measured, load and upstream")
    chosen = options.parse_args()
    if chosen.rounds < 1 or chosen.seconds < 1:
        options.error("--rounds and --seconds are at least 1")
    if chosen.cores and not 2 <= len(chosen.cores) <= 3:
        options.error("--cores takes two or three")
    for program, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not on PATH; Debian has it in {package}.")
    if chosen.plot and version_of("matplotlib") is None:
        raise SystemExit("--plot needs matplotlib: pip install -r benchmarks/requirements.txt")
    cores = Cores(*(chosen.cores + chosen.cores[1:])[:3]) if chosen.cores else Cores.found()

    plan, left_out = planned(chosen.claims, chosen.only)
    if not plan:
        raise SystemExit("\n".join(left_out) or f"nobody of that name is measured on: {', '.join(chosen.claims)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers that stand still would stay for ever
    results = measured(plan, chosen.rounds, chosen.seconds, cores, tell)
    said = conditions(chosen.rounds, chosen.seconds, cores, plan)
    print(json.dumps(as_json(said, results, left_out)) if chosen.json else as_text(said, results, left_out))
    if chosen.plot:
        from .plot import draw

        draw(said, results, chosen.plot)


def tell(text: str) -> None:
    """How far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
