"""Where the data of a generation come from when that is not this namespace, and where a namespace has gone.

A move has two routing records: that of the namespace that receives (``Routing.arrived``, and ``origin`` of what it
builds) and that of the one that is left (``Routing.moving``). The commit is one swap of the former; the latter only
says whom to ask (docs/protocols/move.md).
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

#: The "generation" of cursors whose positions are of another namespace's logs: no generation has this number.
ELSEWHERE: Final = 2**31 - 1


class Origin(BaseModel):
    """Where a generation is filled from: another namespace, or a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Canonical URI; "" for a backup.
    namespace: str = ""
    #: Path as nodes see it, or URI of an object; "" for a namespace.
    backup: str = ""
    #: Vectors stay behind; the texts are embedded anew.
    without_vectors: bool = False
    #: Generation of the other namespace whose logs are followed; None where nothing is, because nobody writes there.
    generation: int | None = None
    #: Shards of that generation.
    shard_count: int = 0

    @property
    def is_followed(self) -> bool:
        """Whether logs are followed: the other namespace goes on serving meanwhile."""
        return self.generation is not None

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.namespace or self.backup

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value or name == "generation"}


class Moving(BaseModel):
    """That a namespace is being moved into another one, or was: part of its routing record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Namespace that receives.
    to: str
    #: The migration over there.
    migration: str
    #: Epoch of the other routing record in which the attempt began: it commits at this epoch or never.
    epoch: int
    #: Whether it has committed.
    done: bool = False


class Arrival(BaseModel):
    """That a namespace came from elsewhere; stays in its routing record, so that whoever was left can look it up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Namespace or backup.
    source: str
    migration: str
