"""What a decision may call for. Each is idempotent: a crash after it was decided repeats it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunPreflight:
    """Run every named check; changes nothing."""


@dataclass(frozen=True, slots=True)
class CreateTarget:
    """Write the target's ``spec.json`` unless it exists."""

    generation: int


@dataclass(frozen=True, slots=True)
class PlaceTarget:
    """Place the target's shards on nodes, in state building, following the source."""

    generation: int
    follows: int


@dataclass(frozen=True, slots=True)
class AdoptNode:
    """Let one node answer reads from the target, and wait until it says so."""

    node_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class AdoptWave:
    """Let several nodes answer reads from the target, in one swap, and wait until they say so."""

    nodes: tuple[str, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class AwaitBake:
    """See whether the nodes of a wave answer healthily from the target, and for how long they have."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AdoptAll:
    """Let every node answer reads from the target, in one swap, and wait until all say so."""

    generation: int


@dataclass(frozen=True, slots=True)
class AwaitQuiet:
    """See whether the source has stopped taking records."""

    generation: int


@dataclass(frozen=True, slots=True)
class MeasureSource:
    """Digest the data elsewhere, which nobody changes, by reading them."""


@dataclass(frozen=True, slots=True)
class CountQuarantine:
    """Ask which objects the target could not read, and whether so many were accepted."""

    generation: int


@dataclass(frozen=True, slots=True)
class MeasureQuality:
    """Ask both sides some queries, by index and by scan."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class ShadowReads:
    """Let a share of the reads be asked of the side that follows besides, and compared."""

    generation: int
    share: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop writes: new ones wait at the nodes."""

    generation: int


@dataclass(frozen=True, slots=True)
class TakePositions:
    """Barrier: every node says that no write is in flight; owners say where their shards end."""

    generation: int


@dataclass(frozen=True, slots=True)
class AwaitCatchUp:
    """Wait until the side that follows includes the final positions, never past the pause cap."""

    generation: int


@dataclass(frozen=True, slots=True)
class PrepareComparison:
    """Have both sides count their items without vectors, beside reads and writes, and keep that from then on."""

    leading: int
    following: int


@dataclass(frozen=True, slots=True)
class CompareDigests:
    """Add up both sides' digests and compare."""

    leading: int
    following: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One swap makes the side that followed the active one and lets writes go on, there; see ``edits.commit``."""

    leading: int
    following: int


@dataclass(frozen=True, slots=True)
class Release:
    """Barrier: every node confirms the record of the commit."""

    generation: int


@dataclass(frozen=True, slots=True)
class RetireSource:
    """Say what is to become of the source, and take it out of the routing record. Its objects go later."""

    generation: int


@dataclass(frozen=True, slots=True)
class Undrain:
    """Let writes go on, where they went."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Say what is to become of the target, and take every trace of the migration out of the routing record."""

    generation: int


Action = (
    RunPreflight
    | CreateTarget
    | PlaceTarget
    | CountQuarantine
    | MeasureSource
    | AdoptNode
    | AdoptWave
    | AwaitBake
    | AdoptAll
    | AwaitQuiet
    | MeasureQuality
    | ShadowReads
    | Drain
    | TakePositions
    | AwaitCatchUp
    | PrepareComparison
    | CompareDigests
    | Commit
    | Release
    | RetireSource
    | Undrain
    | Undo
)
