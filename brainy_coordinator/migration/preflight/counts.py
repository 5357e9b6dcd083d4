"""What the owners of a generation's shards report, added up. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brainy.api.node.v1 import control_pb2
from brainy.bucket.records import Routing


def counted_items(
    routing: Routing, generation: int, answers: Mapping[str, Sequence[control_pb2.ShardReplica]]
) -> tuple[int, int]:
    """Return the nouns and verbs that the owners of a generation's shards report."""
    placed = routing.generations.get(generation)
    owners = {shard: where.owner for shard, where in (placed.shards if placed else {}).items()}
    owned = [
        report
        for node, reports in answers.items()
        for report in reports
        if report.generation == generation and owners.get(report.shard) == node
    ]
    return sum(report.noun_count for report in owned), sum(report.verb_count for report in owned)
