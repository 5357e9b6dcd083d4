"""Whether a base is one of a shard."""

from __future__ import annotations

from brainy.bucket.records import Spec
from brainy.errors import PreconditionError
from brainy_node.shard.base import Base


def check_fit(base: Base, spec: Spec, number: int) -> None:
    """Refuse a base of another shard, or of another shape of its generation.

    Raises:
        PreconditionError: it is one.
    """
    held = base.record.spec
    same = (held.metric, held.scalar_kind, held.shard_count) == (
        spec.metric,
        spec.scalar_kind,
        spec.shard_count,
    )
    if (
        (base.record.generation, base.record.shard) != (spec.generation, number)
        or not same
        or held.dimensions not in (0, spec.dimensions)
    ):
        raise PreconditionError(
            "the base belongs to another shard or another shape of its generation",
            remedy="delete the base directory; it is rebuilt from the bucket",
            directory=base.directory,
            generation=base.record.generation,
            shard=base.record.shard,
        )
