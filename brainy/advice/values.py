"""What advice says: every key of ``brainy advise --json``.

The keys are stable: new ones may be added, none changes its meaning. ``docs/guide/choosing.md`` describes each.
"""

from __future__ import annotations

import enum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Way(enum.StrEnum):
    """The seven strategies."""

    BACKUP_RESTORE = "backup-and-restore"
    IN_PLACE = "in-place-upgrade"
    SPARSE_IMPORT = "sparse-import"
    DEDICATED = "dedicated-namespace"
    BLUE_GREEN = "blue-green"
    ROLLING = "rolling"
    COORDINATED = "coordinated"


#: Who says so: the operator, the bucket, or nobody (then the careful answer is taken).
Source = Literal["operator", "bucket", "assumed"]
#: What is in the namespace: what Brainy left, the same served in place, a generation of ours, or nothing.
State = Literal["brainy", "served", "generation", "empty"]
#: Where the figures come from: everything read, a sample, the manifests of a generation, or what nodes serve.
Basis = Literal["inspection", "survey", "manifests", "nodes"]


class Answers(_Value):
    """What the operator says; None is left to the bucket, or to the careful answer."""

    #: Whether other processes use the same bucket and prefix.
    shared: bool | None = None
    #: How long nobody may be able to write, in seconds.
    downtime_seconds: float | None = None
    #: Nothing may be added or changed under the source's prefix.
    keep_source: bool = False
    #: Whether the vectors there are, are to be kept; False to make them anew from the texts.
    vectors: bool | None = None
    #: Whether Brainy processes go on writing meanwhile.
    old_writers: bool | None = None
    #: Whether there are machines for a second cluster beside the first.
    separate_nodes: bool | None = None
    #: Whether there must be a way back after the switch.
    rollback: bool | None = None
    #: Wanted: a prefix of its own for the application.
    isolate: bool = False
    #: Another bucket or prefix the data shall end up in.
    target: str | None = None


class Answer(_Value):
    """A question as it counts, whoever answered it."""

    question: str
    answer: str
    by: Source
    #: What speaks for it, or against what the operator says.
    why: str


class Crossing(_Value):
    """A branch of the decision graph that was taken."""

    question: str
    answer: str
    why: str


class Step(_Value):
    """Something to be done."""

    #: A command of this product, or "" where it is done outside of it.
    command: str
    what: str


class Calls(_Value):
    """Calls of the store."""

    list: int
    get: int
    #: GETs of the first bytes of an object.
    partial_get: int
    put: int


class Figures(_Value):
    """A prediction; None where nothing was counted."""

    #: From the first command to the last.
    duration_seconds: float | None
    #: How long nobody can write, as it is expected.
    write_pause_seconds: float | None
    #: After which the product gives up by itself and lets writes go on; None where nothing bounds it but you.
    write_pause_cap_seconds: float | None
    #: Beside what is there, in buckets, as long as both are kept.
    bucket_bytes: int | None
    #: Of local disk: backups and what nodes hold.
    disk_bytes: int | None
    calls: Calls | None
    #: Once, for the calls.
    request_cost: float | None
    #: As long as both are kept.
    storage_cost_per_month: float | None


class Risk(_Value):
    """What can go wrong."""

    #: A stable name.
    code: str
    message: str


class Proposal(_Value):
    """One of the seven, weighed."""

    strategy: Way
    #: From 1; the advised one first.
    rank: int
    #: Nothing rules it out.
    fits: bool
    #: How it is done here: its own engine, or several commands one after the other.
    engine: Literal["own", "commands"]
    why: tuple[str, ...]
    why_not: tuple[str, ...]
    steps: tuple[Step, ...]
    figures: Figures
    #: What undoes it, before and after the switch.
    way_back: str
    risks: tuple[Risk, ...]
    #: What only a person can know.
    confirm: tuple[str, ...]
    #: Page of the documentation.
    runbook: str


class Found(_Value):
    """What the advice rests on."""

    state: State
    basis: Basis
    trees: tuple[str, ...]
    nouns: int | None
    verbs: int | None
    #: Vector length -> nouns (of a survey: of its sample).
    dimensions: dict[int, int]
    quarantined: int | None
    #: Generation in service; None where no cluster ever served the namespace.
    generation: int | None
    following: bool
    mirroring: bool


class Assumed(_Value):
    """What the figures rest on."""

    nodes: int
    shards: int
    gets_per_second: float
    indexed_per_second: float
    restored_per_second: float
    embedded_per_second: float
    price_get: float
    price_put: float
    price_storage: float
    currency: str = "USD"


class Advice(_Value):
    """Which strategy, and why."""

    format_version: int = 1
    namespace: str
    found: Found
    answers: tuple[Answer, ...]
    #: The way through the guide's decision graph, and where it ends.
    path: tuple[Crossing, ...]
    guide: Way | None
    #: None where everything is ruled out.
    advised: Way | None
    reason: str
    #: All seven, best first.
    strategies: tuple[Proposal, ...]
    #: What should be looked at before anything.
    warnings: tuple[Risk, ...]
    assumed: Assumed
