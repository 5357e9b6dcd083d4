"""What every step of a job needs, handed along as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brainy.clock import Clock
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy_node.builder.job import Job, Progress
from brainy_node.builder.pace import Pace
from brainy_node.builder.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A job and its surroundings."""

    job: Job
    store: ObjectStore
    workspace: Workspace
    clock: Clock
    ids: Ids
    report: Callable[[Progress], None]
    pace: Pace
