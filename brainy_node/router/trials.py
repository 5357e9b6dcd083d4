"""Which reads are tried on the target of a migration, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brainy.api.common.v1.common_pb2 import Position
from brainy.bucket.partition import key_hash
from brainy.bucket.records import Routing
from brainy.bucket.trial import ReadTrial
from brainy.traffic.comparison import Comparison
from brainy_node.router.sessions import stale
from brainy_node.router.view import View
from brainy_node.runtime.ports import NamespaceRuntime

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Pair:
    """Two generations: the one in service, and the one that is compared with it."""

    source: int
    target: int


def trial_of(routing: Routing, node_id: str) -> ReadTrial | None:
    """Return the trial that concerns a node's front door; None if there is none, or if it reads from there anyway."""
    trial = routing.reads
    if trial is None or trial.generation not in routing.generations:
        return None
    return None if trial.generation == routing.read_generation(node_id) else trial


def trial_view(runtime: NamespaceRuntime, generation: int) -> View:
    """Return a view of a generation by its number.

    Raises:
        UnavailableError: STALE_ROUTING, it is not placed.
    """
    routing = runtime.routing
    placement = routing.generations.get(generation)
    if placement is None:
        raise stale(routing, generation, "it is not placed")
    return View(routing=routing, generation=generation, placement=placement, tried=True)


def place_of(session_id: str, session: Sequence[Position]) -> float | None:
    """Return where in [0, 1) a session lies, the same at every front door; None for a read of no session.

    Whoever lies below the weight is answered by the target: a weight that rises only ever moves sessions to it. A
    session that has positions and no id lies somewhere else after each write.
    """
    if not session_id and not session:
        return None
    key = session_id or ",".join(f"{p.generation}.{p.shard}.{p.position}" for p in session)
    return key_hash(f"session {key}") / 2.0**64


class Spread:
    """Chooses a share of calls, evenly: of any n in a row about n times the share, never off by more than a few."""

    def __init__(self) -> None:
        self._at = 0.0

    def chooses(self, share: float) -> bool:
        """Say whether the next call is chosen; always for a share of 1, never for 0."""
        self._at = (self._at + _GOLDEN) % 1.0
        return self._at < share


class TrialBook:
    """What came of the trials at this front door, by namespace. One trial a namespace: a new one begins at zero."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Pair, int, Comparison]] = {}

    def add(self, runtime: NamespaceRuntime, trial: ReadTrial, found: Comparison) -> None:
        """Add what was found, unless another trial has begun meanwhile."""
        routing = runtime.routing
        if routing.reads is None or (routing.reads.generation, routing.reads.round) != (trial.generation, trial.round):
            return
        pair = Pair(routing.active, trial.generation)
        before = self._found.get(runtime.name)
        if before is not None and before[:2] == (pair, trial.round):
            found = before[2] + found
        self._found[runtime.name] = (pair, trial.round, found)

    def of(self, runtime: NamespaceRuntime, pair: Pair) -> Comparison | None:
        """Return what was found about two generations in the latest round; None if nothing was."""
        found = self._found.get(runtime.name)
        if found is None or found[0] != pair:
            return None
        reads = runtime.routing.reads
        return None if reads is not None and reads.round != found[1] else found[2]
