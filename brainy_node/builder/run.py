"""Running one job: from its kind to the functions that do it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainy.clock import Clock
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy_node.builder.adopt import adopt
from brainy_node.builder.context import Context
from brainy_node.builder.fill import fill
from brainy_node.builder.fold import fold
from brainy_node.builder.job import Built, Job, Progress
from brainy_node.builder.opening import open_shard
from brainy_node.builder.pace import Pace
from brainy_node.builder.workspace import Workspace


async def run_job(
    job: Job,
    store: ObjectStore,
    *,
    clock: Clock,
    ids: Ids,
    report: Callable[[Progress], None],
    pace: Pace | None = None,
) -> list[Built]:
    """Do a job; what it stages on local disk is removed whatever happens, finished bases stay.

    ``pace`` says how fast, and may be changed meanwhile; as fast as it goes if left out.

    Raises:
        BrainyError: as the kind of job says.
    """
    with Workspace(Path(job.output), ids) as workspace:
        context = Context(
            job=job,
            store=store,
            workspace=workspace,
            clock=clock,
            ids=ids,
            report=report,
            pace=pace or Pace(clock),
        )
        match job.kind:
            case "adopt":
                return await adopt(context)
            case "open":
                return [await open_shard(context, shard) for shard in job.shards]
            case "fill":
                return await fill(context)
            case "fold":
                return [await fold(context)]
