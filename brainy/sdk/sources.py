"""Where the data of a migration come from, if that is not the namespace itself."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.api.coordinator.v1 import migration_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Data that are elsewhere: either another namespace or a backup. The namespace that receives them must be empty."""

    #: URI of another namespace: served by a cluster (it is followed until the switch, and then answers that it has
    #: moved), or a bucket of Brainy's whose writers are stopped.
    namespace: str = ""
    #: A backup in either format: a path that coordinator and nodes see, or s3://bucket/key.
    backup: str = ""
    #: Leave the vectors behind; ``TargetSpec.embedding`` names the model that embeds the texts. Of a backup, or of a
    #: bucket whose writers are stopped.
    without_vectors: bool = False


def source_to_proto(source: SourceSpec | None) -> migration_pb2.SourceSpec | None:
    """Convert for the wire."""
    if source is None:
        return None
    return migration_pb2.SourceSpec(
        namespace=source.namespace, backup=source.backup, without_vectors=source.without_vectors
    )


def source_from_proto(
    message: migration_pb2.Migration | migration_pb2.MigrationPlan,
) -> SourceSpec | None:
    """Convert from the wire."""
    if not message.HasField("source"):
        return None
    said = message.source
    return SourceSpec(namespace=said.namespace, backup=said.backup, without_vectors=said.without_vectors)
