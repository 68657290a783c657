"""Who is measured when.

In a round everybody is measured once, on every claim, so that a slow moment of the machine meets all; each round begins
with another one, so that nobody always follows the same neighbour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .peers import CEILING, CLAIMS, Peer
from .processes import Cores, Figure, Server, asked, called
from .work import WrongAnswer, check, refused

WARM_UP = 1  # seconds that wrk asks a server before the first round, for lazy imports and caches


@dataclass
class Results:
    """What came out."""

    figures: dict[str, dict[str, list[Figure]]] = field(default_factory=dict)  # by claim and name, one for each round
    refused: dict[str, int] = field(default_factory=dict)  # by name: how many wrong bookings


def measured(
    plan: dict[str, list[Peer]], rounds: int, seconds: int, cores: Cores, tell: Callable[[str], None]
) -> Results:
    """`plan` says who is measured on each claim."""
    results = Results({claim: {peer.name: [] for peer in peers} for claim, peers in plan.items()})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = Stage(plan, cores, folder, tell, stack)
        for claim, peers in plan.items():
            for peer in peers:
                tell(f"{peer.name}: {claim}, checked")
                stage.checked(claim, peer, results)
        for each in range(rounds):
            for claim, peers in plan.items():
                turn = each % len(peers)
                for peer in peers[turn:] + peers[:turn]:
                    tell(f"round {each + 1} of {rounds}: {peer.name}, {claim}")
                    results.figures[claim][peer.name].append(stage.measured(claim, peer, seconds))
    tell("")
    return results


class Stage:
    """All the servers, of which those run that are needed."""

    def __init__(
        self,
        plan: dict[str, list[Peer]],
        cores: Cores,
        folder: Path,
        tell: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._cores = cores
        self._folder = folder
        self._servers: dict[Peer, Server] = {}
        self._upstream = self._begun(CEILING, "upstream", cores.upstream, stack)
        for claim, peers in plan.items():
            for peer in peers:
                if claim != "call" and peer not in self._servers:  # one server answers both `get` and `post`
                    tell(f"{peer.name} begins")
                    with self._running(self._upstream):
                        self._servers[peer] = self._begun(peer, claim, cores.measured, stack)

    def checked(self, claim: str, peer: Peer, results: Results) -> None:
        """Ask a server once, and wrongly, and warm it up; SystemExit when it does not answer what it should."""
        if claim == "call":
            return  # a caller looks at each of its answers
        server = self._servers[peer]
        with self._running(server, self._upstream):
            try:
                check(server.port, claim)
                if claim == "post":
                    results.refused[peer.name] = refused(server.port)
            except (WrongAnswer, OSError) as error:
                raise SystemExit(f"{peer.name}, {claim}: {error}\n{server.errors}") from None
            asked(server, claim, WARM_UP, self._cores.load, self._folder)

    def measured(self, claim: str, peer: Peer, seconds: int) -> Figure:
        """One figure."""
        if claim == "call":
            with self._running(self._upstream):
                return called(peer, self._upstream.port, seconds, self._cores.measured)
        server = self._servers[peer]
        awake = [server, self._upstream] if claim == "gateway" else [server]
        with self._running(*awake):
            check(server.port, claim)  # it is awake, then, and through with what it slept over
            return asked(server, claim, seconds, self._cores.load, self._folder)

    def _begun(self, peer: Peer, claim: str, core: int, stack: ExitStack) -> Server:
        server = Server.of(peer, claim, core, self._folder, self._upstream.port if peer is not CEILING else 0)
        stack.callback(server.end)
        server.wait_until_it_serves()
        server.halt()
        return server

    @contextmanager
    def _running(self, *servers: Server) -> Iterator[None]:
        for server in servers:
            server.wake()
        try:
            yield
        finally:
            for server in servers:
                server.halt()


def planned(claims: list[str], only: list[str]) -> tuple[dict[str, list[Peer]], list[str]]:
    """(who is measured on each claim, lines on who is left out)."""
    plan: dict[str, list[Peer]] = {}
    left_out = []
    for claim in claims:
        for peer in CLAIMS[claim]:
            if only and peer.name not in only:
                continue
            if peer.missing:
                left_out.append(f"{claim}: {peer.name} is left out: not installed: {', '.join(peer.missing)}")
            else:
                plan.setdefault(claim, []).append(peer)
    return plan, left_out
