"""Finding out what is known of a namespace: routing record, manifests, or Brainy's objects. Reads only."""

from __future__ import annotations

from collections.abc import Callable

from brainy.advice.facts import ClusterFacts, Facts, of_generation, of_inspection, of_survey
from brainy.bucket import layout
from brainy.bucket.follow import read_choice
from brainy.bucket.records import Routing
from brainy.dataset.generation import is_published, read_manifests, read_spec
from brainy.legacy.inspection import InspectionProgress, inspect
from brainy.legacy.outlay import Assumptions
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore


async def find_out(
    store: ObjectStore,
    namespace: str,
    *,
    assumptions: Assumptions,
    fast: bool = False,
    on_progress: Callable[[InspectionProgress], None] | None = None,
) -> Facts:
    """Look at a namespace: its manifests where a generation serves it, else every object of Brainy's.

    With ``fast`` at most some ninety calls are made and nothing is counted that is not written down.

    Raises:
        BrainyError: the store failed, or a record of the cluster is damaged.
    """
    cluster = await read_cluster(store)
    if cluster is not None and cluster.manifests:
        return of_generation(namespace, cluster, assumptions, trees=(await survey(store)).trees)
    if fast or (cluster is not None and cluster.spec.source != "brainy"):
        return of_survey(namespace, await survey(store), cluster)
    found = await inspect(store, on_progress, assumptions=assumptions)
    return of_inspection(namespace, found, cluster)


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
