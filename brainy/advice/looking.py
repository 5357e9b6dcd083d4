"""Finding out what is known of a namespace: routing record, manifests, or Brainy's objects. Reads only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from brainy.advice.facts import ClusterFacts, Facts, of_inspection, of_manifests, of_survey, of_tally
from brainy.bucket import layout
from brainy.bucket.follow import read_choice
from brainy.bucket.records import Routing
from brainy.dataset.generation import is_published, read_manifests, read_spec
from brainy.dataset.snapshot import stream_current
from brainy.legacy.inspection import InspectionProgress, inspect
from brainy.legacy.outlay import Assumptions
from brainy.legacy.survey import survey
from brainy.legacy.tally import Tally
from brainy.store.base import ObjectStore

#: Logs above this share of the segments are read and counted.
_TAIL_SHARE = 0.1


async def find_out(
    store: ObjectStore,
    namespace: str,
    *,
    assumptions: Assumptions,
    fast: bool = False,
    on_progress: Callable[[InspectionProgress], None] | None = None,
) -> Facts:
    """Look at a namespace: its manifests where a generation serves it, else every object of Brainy's.

    Where the logs behind the manifests are large, they are read too. With ``fast`` nothing is counted that is not
    written down, and a bucket of Brainy's gets at most ninety calls.

    Raises:
        BrainyError: the store failed, or a record of the cluster is damaged.
    """
    cluster = await read_cluster(store)
    if cluster is not None and (cluster.manifests or cluster.spec.source != "brainy"):
        return await _generation(store, namespace, cluster, assumptions, fast=fast)
    if fast:
        return of_survey(namespace, await survey(store), cluster)
    found = await inspect(store, on_progress, assumptions=assumptions)
    return of_inspection(namespace, found, cluster)


async def _generation(
    store: ObjectStore, namespace: str, cluster: ClusterFacts, assumptions: Assumptions, *, fast: bool
) -> Facts:
    seen = await survey(store)
    objects, size = (0, 0) if fast else await _log_behind(store, cluster)
    if size <= _TAIL_SHARE * cluster.segment_bytes:
        if not cluster.manifests:
            return of_survey(namespace, seen, cluster)
        return of_manifests(namespace, cluster, assumptions, trees=seen.trees)
    tally = Tally()
    async with aclosing(stream_current(store)) as batches:
        async for batch in batches:
            tally.take(batch)
    gets = cluster.files + objects
    return of_tally(namespace, cluster, tally, assumptions, basis="inspection", gets=gets, trees=seen.trees)


async def _log_behind(store: ObjectStore, cluster: ClusterFacts) -> tuple[int, int]:
    """Return objects and bytes of the logs that the manifests do not include."""
    number = cluster.spec.generation
    positions = {each.shard: each.position for each in cluster.manifests}
    objects = size = 0
    for shard in range(cluster.spec.shard_count):
        after = layout.log_slot(number, shard, positions.get(shard, 0))
        async for page in store.list(layout.log(number, shard), start_after=after):
            objects += len(page)
            size += sum(meta.size for meta in page)
    return objects, size


async def read_cluster(store: ObjectStore) -> ClusterFacts | None:
    """Read what a cluster says of the namespace; None where none ever served it.

    Raises:
        BrainyError: the store failed, or a record is damaged.
    """
    found = await store.get(layout.ROUTING)
    if found is None:
        return None
    routing = Routing.decode(found.body, key=found.key)
    spec = await read_spec(store, routing.active)
    published = await is_published(store, spec)
    return ClusterFacts(
        routing=routing,
        spec=spec,
        choice=await read_choice(store),
        manifests=tuple(await read_manifests(store, spec)) if published else (),
    )
