"""How a replica is doing, as a message."""

from __future__ import annotations

from typing import Protocol

from brainy.api.node.v1 import control_pb2
from brainy_node.runtime.assignment import Assignment
from brainy_node.runtime.copy_throttle import CopyCounts
from brainy_node.shard.shard import Shard


class Reported(Protocol):
    """What a report is made from."""

    assignment: Assignment
    shard: Shard | None
    state: control_pb2.ShardState.ValueType
    message: str
    reason: str
    copied: int
    total: int
    counts: CopyCounts | None


def replica_message(namespace: str, replica: Reported) -> control_pb2.ShardReplica:
    """Say how a replica is doing, for heartbeats and the coordinator."""
    duty, shard = replica.assignment, replica.shard
    message = control_pb2.ShardReplica(
        namespace=namespace,
        generation=duty.generation,
        shard=duty.shard,
        role=control_pb2.SHARD_ROLE_OWNER if duty.is_owner else control_pb2.SHARD_ROLE_REPLICA,
        state=replica.state,
        epoch=duty.epoch,
        copied=replica.copied,
        total=replica.total,
        message=replica.message,
        reason=replica.reason,
    )
    if replica.counts is not None and replica.state == control_pb2.SHARD_STATE_COPYING:
        message.copying.CopyFrom(replica.counts.message())
    if shard is not None:
        statistics = shard.statistics()
        message.applied = shard.applied
        message.source_cursor.update(shard.source_cursor)
        if shard.source_generation is not None:
            message.source_generation = shard.source_generation
        message.noun_count = statistics.nouns
        message.verb_count = statistics.verbs
        message.quarantined = statistics.quarantined
        message.unindexed_count = statistics.unindexed
    return message
