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
    """Take the source out of the routing record. Its objects stay."""

    generation: int


@dataclass(frozen=True, slots=True)
class Undrain:
    """Let writes go on, where they went."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Take every trace of the migration out of the routing record; its objects stay."""

    generation: int


Action = (
    RunPreflight
    | CreateTarget
    | PlaceTarget
    | CountQuarantine
    | MeasureSource
    | AdoptNode
    | AdoptAll
    | AwaitQuiet
    | Drain
    | TakePositions
    | AwaitCatchUp
    | CompareDigests
    | Commit
    | Release
    | RetireSource
    | Undrain
    | Undo
)
